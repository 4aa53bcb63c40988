//! What an authority has refused, in one sentence: what is wrong, and what to do. Pure.
//!
//! In: the type of its problem (RFC 8555 §6.7) and what it says besides. Out: the sentence, and of which kind the
//! failure is.

use instant_acme::{Identifier, Problem};

use super::schedule::FailureKind;
use crate::site::challenges::ChallengeKind;

/// What a problem is called in front of its name (RFC 8555 §9.7.4).
const NAMESPACE: &str = "urn:ietf:params:acme:error:";
/// Of what the authority says, so much is repeated.
const DETAIL_LEN_MAX: usize = 300;

/// Judges what the authority has refused. `name` is the one that it has validated; `None`: it refused the order.
pub(super) fn judge(
    problem: &Problem,
    name: Option<&str>,
    challenge: ChallengeKind,
) -> (FailureKind, String) {
    // The problem of a whole order may only be that of one of its names.
    if let (None, [sub, ..]) = (name, &problem.subproblems[..]) {
        let (r#type, detail) = (sub.r#type.clone(), sub.detail.clone());
        let one = Problem { r#type, detail, status: problem.status, subproblems: Vec::new() };
        let name = sub.identifier.as_ref().map(|identifier| match identifier {
            Identifier::Dns(name) => name.clone(),
            other => format!("{other:?}"),
        });
        let (_, advice) = judge(&one, name.as_deref(), challenge);
        return (kind(problem, name.is_some()), advice);
    }
    let kind = kind(problem, name.is_some());
    let what = short(problem);
    let (is_of_name, name) = (name.is_some(), name.unwrap_or("the names"));
    let port = if challenge == ChallengeKind::Http01 { 80 } else { 443 };
    let says = detail(problem);
    let advice = match (what, challenge) {
        ("connection" | "dns" | "unauthorized" | "incorrectResponse", ChallengeKind::Dns01) => format!(
            "the record _acme-challenge.{name} was not found in the DNS: see that dns_command puts it there, that the \
             zone is the one the world sees, and that dns_wait is long enough"
        ),
        ("connection", _) => format!(
            "{name} can't be reached on port {port}: see that the DNS has this machine's address for it, that nothing \
             keeps port {port} closed, and that the gateway listens there"
        ),
        ("dns", _) => {
            format!("{name} has no address in the DNS: add an A or AAAA record with this machine's address")
        }
        ("unauthorized", _) if !is_of_name => {
            "the authority does not accept the account, or what is ordered by it: if the account was deactivated, remove \
             its file from accounts/ in the storage of [acme], and a new one is registered"
                .to_owned()
        }
        ("tls", ChallengeKind::TlsAlpn01) | ("unauthorized" | "incorrectResponse", _) => format!(
            "something else than this gateway answers for {name} on port {port}: see that the DNS (A and AAAA) has this \
             machine's address and no other, and that no proxy stands before it{}",
            if challenge == ChallengeKind::TlsAlpn01 { " that ends TLS" } else { "" }
        ),
        ("caa", _) => format!(
            "a CAA record in the DNS forbids this authority to issue for {name}: add one that allows it, or choose \
             another directory"
        ),
        ("rateLimited", _) => "a limit of the authority is reached: it is asked again later".to_owned(),
        ("externalAccountRequired", _) => {
            "the authority wants an account that it knows: write [acme.external_account] with what it gave you".to_owned()
        }
        ("rejectedIdentifier" | "unsupportedIdentifier", _) => {
            format!("the authority does not issue certificates for {name}: remove it from [acme], or choose another directory")
        }
        ("userActionRequired", _) => {
            "the authority wants you to do something first, such as agree to new terms".to_owned()
        }
        ("invalidContact" | "unsupportedContact", _) => {
            "the authority does not accept contact: correct it, or remove it".to_owned()
        }
        ("badPublicKey" | "badCSR", _) => "the authority does not accept the key: choose another key_type".to_owned(),
        ("invalidProfile", _) => "the authority does not know this profile: correct it, or remove it".to_owned(),
        ("badNonce", _) => {
            "the authority has refused the nonces of one request again and again: it is asked again".to_owned()
        }
        ("serverInternal", _) => "the authority has a fault of its own: it is asked again".to_owned(),
        _ => "the authority refuses".to_owned(),
    };
    let says = if says.is_empty() { String::new() } else { format!(" (it says: {says})") };
    (kind, format!("{advice}{says}"))
}

/// The account is not known any more: another authority has taken the place, or it was deactivated.
pub(super) fn is_of_account(problem: &Problem) -> bool {
    short(problem) == "accountDoesNotExist"
}

fn kind(problem: &Problem, of_name: bool) -> FailureKind {
    match short(problem) {
        "rateLimited" => FailureKind::Limited,
        "serverInternal" | "badNonce" | "orderNotReady" | "accountDoesNotExist" => FailureKind::Unreachable,
        "connection" | "dns" | "unauthorized" | "incorrectResponse" | "tls" | "caa" => {
            FailureKind::Validation
        }
        _ if problem.status.is_some_and(|status| status >= 500) => FailureKind::Unreachable,
        _ if problem.status == Some(429) => FailureKind::Limited,
        _ if of_name => FailureKind::Validation,
        _ => FailureKind::Refused,
    }
}

fn short(problem: &Problem) -> &str {
    let name = problem.r#type.as_deref().unwrap_or_default();
    name.strip_prefix(NAMESPACE).unwrap_or(name)
}

/// The authority's own words, on one line.
fn detail(problem: &Problem) -> String {
    let words = problem.detail.as_deref().unwrap_or_default();
    let line: String =
        words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_LEN_MAX).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        serde_json::from_str(text).unwrap()
    }

    fn of(what: &str, status: u16) -> Problem {
        problem(&format!(
            r#"{{"type": "{NAMESPACE}{what}", "detail": "because\nof it", "status": {status}}}"#
        ))
    }

    #[test]
    fn each_problem_says_what_to_do() {
        use ChallengeKind::{Dns01, Http01, TlsAlpn01};
        use FailureKind::{Limited, Refused, Unreachable, Validation};
        let name = Some("domain.com");
        for (what, status, name, challenge, kind, advice) in [
            ("connection", 400, name, Http01, Validation, "domain.com can't be reached on port 80"),
            ("connection", 400, name, TlsAlpn01, Validation, "domain.com can't be reached on port 443"),
            ("connection", 400, name, Dns01, Validation, "_acme-challenge.domain.com was not found"),
            ("dns", 400, name, Http01, Validation, "has no address in the DNS"),
            (
                "unauthorized",
                403,
                name,
                TlsAlpn01,
                Validation,
                "something else than this gateway answers for domain.com on port 443",
            ),
            ("unauthorized", 403, name, Http01, Validation, "on port 80"),
            ("unauthorized", 403, name, Dns01, Validation, "see that dns_command"),
            (
                "unauthorized",
                403,
                None,
                TlsAlpn01,
                Validation,
                "if the account was deactivated, remove its file",
            ),
            ("tls", 400, name, TlsAlpn01, Validation, "no proxy stands before it that ends TLS"),
            ("caa", 403, name, TlsAlpn01, Validation, "a CAA record in the DNS forbids"),
            ("rateLimited", 429, None, Http01, Limited, "a limit of the authority is reached"),
            ("externalAccountRequired", 401, None, Http01, Refused, "[acme.external_account]"),
            ("rejectedIdentifier", 400, None, Http01, Refused, "does not issue certificates for the names"),
            ("badCSR", 400, None, Http01, Refused, "choose another key_type"),
            ("serverInternal", 500, None, Http01, Unreachable, "a fault of its own"),
            ("badNonce", 400, None, Http01, Unreachable, "the nonces of one request again and again"),
            ("other", 503, None, Http01, Unreachable, "the authority refuses"),
            ("other", 429, None, Http01, Limited, "the authority refuses"),
            ("malformed", 400, None, Http01, Refused, "the authority refuses (it says: because of it)"),
        ] {
            let (found, text) = judge(&of(what, status), name, challenge);
            assert!(found == kind && text.contains(advice), "{what}: {found:?} {text}");
            assert!(text.ends_with("(it says: because of it)") && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn the_problem_of_one_name_counts() {
        let problem = problem(
            r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "all", "subproblems": [
                {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "no",
                 "identifier": {"type": "dns", "value": "bad.domain.com"}}]}"#,
        );
        let (_, text) = judge(&problem, None, ChallengeKind::Http01);
        assert!(text.contains("for bad.domain.com: remove it") && text.contains("(it says: no)"), "{text}");
    }
}
