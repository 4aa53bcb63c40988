//! `[acme]`: certificates that the gateway gets and renews by itself (RFC 8555).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value as Json, json};
use tls_acceptor::CertName;
use toml::Spanned;
use toml::de::DeValue;

use super::acme_settings::{AcmeKeyType, AcmeSettings, ExternalAccount, LETS_ENCRYPT};
use super::document::{Document, describe};
use super::kind::{self, Kind, List, OneOf, Options, Table, Words, noted};
use super::model::{Config, Listener};
use super::on_demand::{self, OnDemandOptions};
use super::option::options;
use super::server_url;
use super::spec::{At, Shape};
use crate::site::challenges::ChallengeKind;

/// Names in a certificate, as Let's Encrypt allows.
const NAMES_MAX: usize = 100;
/// Between the moment when a record of the DNS is there and the authority's look at it.
const DNS_WAIT: Duration = Duration::from_secs(10);

impl Words for AcmeKeyType {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] = &[
        ("ecdsa-p256", Self::EcdsaP256),
        ("ecdsa-p384", Self::EcdsaP384),
        ("rsa-2048", Self::Rsa2048),
        ("rsa-4096", Self::Rsa4096),
    ];
}

impl Words for ChallengeKind {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self)] = &[
        (Self::TlsAlpn01.as_str(), Self::TlsAlpn01),
        (Self::Http01.as_str(), Self::Http01),
        (Self::Dns01.as_str(), Self::Dns01),
    ];
}

options! {
    /// Certificates that the gateway gets from an authority by ACME (RFC 8555), such as Let's Encrypt, and renews in time.
    /// With this section you agree to the authority's terms of service. They are served beside those of `[certificates]`
    /// and `[[certificate]]`. As long as a name has no certificate yet, clients that ask for it are refused.
    struct AcmeOptions: "[acme]";

    /// The names that get certificates. Each entry is one certificate: a name, or a list of names that share one.
    /// Without `[acme.on_demand]` there has to be one.
    names: CertificateNames, otherwise = "none";
    /// Mail addresses that the authority may write to.
    contact: List<kind::PlainText>, otherwise = "none";
    /// How the authority sees that the names lead to this gateway: it connects to port 443, or to port 80, or it looks for a
    /// record in the DNS, which is the only way to get a certificate for `*.domain.com`.
    challenge: OneOf<ChallengeKind>, default = ChallengeKind::TlsAlpn01;
    /// The authority: the URL of its directory.
    directory: kind::PlainText, otherwise = "`\"https://acme-v02.api.letsencrypt.org/directory\"`, Let's Encrypt";
    /// Files with certificates of authorities that the directory's server is trusted by.
    ca: List<kind::File>, otherwise = "those that the system trusts";
    /// The directory for the account, the certificates with their keys, and open orders. Gateways that serve the same names
    /// share it: one orders, and all answer the authority.
    storage: kind::File, otherwise = "`\"acme\"`, beside the configuration file; for one in `/etc`, `\"/var/lib/wssgate/acme\"`";
    /// The key of each certificate. A new one is made for each.
    key_type: OneOf<AcmeKeyType>, default = AcmeKeyType::EcdsaP256;
    /// The kind of certificate, by the authority's word for it, such as `"shortlived"`.
    profile: kind::PlainText, otherwise = "the authority's choice";
    /// The account with the authority that new accounts have to belong to, if it asks for one.
    external_account: Table<ExternalAccountOptions>, optional;
    /// For `"dns-01"`: the program that puts a record into the DNS, with its first arguments. It is called with `present`,
    /// the name of the record and its text, and later with `cleanup` and the same. It has two minutes, and fails by its exit
    /// code.
    dns_command: List<kind::PlainText>, optional;
    /// For `"dns-01"`: how long after `dns_command` the authority is told to look.
    dns_wait: kind::DurationOrZero, default = DNS_WAIT;
    /// Names that are ordered when a client asks for them.
    on_demand: Table<OnDemandOptions>, optional;
}

options! {
    /// What the authority gave you for external account binding (RFC 8555 §7.3.4).
    struct ExternalAccountOptions: "[acme.external_account]";

    /// The id of the key.
    key_id: kind::PlainText, required = "\"kid-1\"";
    /// The key, in base64. Keep it out of the file: `"${EAB_HMAC_KEY}"` takes it from the environment.
    hmac_key: kind::PlainText, required = "\"AQIDBAUGBwgJCgsMDQ4PEA==\"";
}

/// Names, each alone or in a list of those that share a certificate.
pub(super) struct CertificateNames;

impl Kind for CertificateNames {
    type Value = Vec<Vec<CertName>>;

    fn shape() -> Shape {
        let text = json!({ "type": "string" });
        let entry = json!({ "anyOf": [text, { "type": "array", "items": text }] });
        let schema: Json = json!({ "anyOf": [text, { "type": "array", "items": entry }] });
        Shape::Value { words: "list of names, or of lists of names".to_owned(), schema }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Self::Value> {
        let DeValue::Array(entries) = value.get_ref() else {
            return Some(vec![vec![one(document, key, value)?]]);
        };
        let mut certificates = Vec::new();
        for entry in entries {
            certificates.push(match entry.get_ref() {
                DeValue::Array(names) => {
                    let names: Vec<_> = names.iter().map(|name| one(document, key, name)).collect();
                    names.into_iter().collect::<Option<Vec<_>>>()
                }
                _ => one(document, key, entry).map(|name| vec![name]),
            });
        }
        certificates.into_iter().collect()
    }
}

fn one(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<CertName> {
    let read = match value.get_ref() {
        DeValue::String(text) if text.parse::<std::net::IpAddr>().is_ok() => {
            Err(format!("certificates for addresses such as {text} are not ordered; write a name"))
        }
        DeValue::String(text) => CertName::parse(text).ok_or_else(|| {
            format!("expected a name such as \"domain.com\" or \"*.domain.com\", found {text:?}")
        }),
        other => Err(format!("expected a name in quotes, found {}", describe(other))),
    };
    noted(document, key, value, read)
}

/// Beside the configuration file; for one in `/etc`, which a program does not change, where services keep their state (FHS 3.0
/// §5.8.2).
pub(super) fn default_storage(file: &Path) -> PathBuf {
    let is_in_etc = std::path::absolute(file).is_ok_and(|file| file.starts_with("/etc"));
    if is_in_etc { PathBuf::from("/var/lib/wssgate/acme") } else { file.with_file_name("acme") }
}

/// Reads the section. `listeners` are those of the file.
pub(super) fn read(
    d: &mut Document<'_>,
    section: AcmeOptions,
    base: PathBuf,
    listeners: &[Listener],
) -> Option<AcmeSettings> {
    let place = section.written().place;
    let At { value: challenge, place: challenge_at } = section.challenge;
    let has_command = section.has("dns_command");
    for (key, is_there) in [("dns_command", has_command), ("dns_wait", section.has("dns_wait"))] {
        if is_there && challenge != ChallengeKind::Dns01 {
            let what = format!("{key}: only dns-01 uses it; write challenge = \"dns-01\", or remove it");
            d.problem(section.place_of(key), what);
        }
    }
    if challenge == ChallengeKind::Dns01 && !has_command {
        d.missing(
            challenge_at,
            "challenge: dns-01 needs dns_command, the program that puts records into the DNS",
        );
    }
    if listeners.is_empty() {
        // That has been said already.
    } else if !listeners.iter().any(|listener| listener.tls.is_some()) {
        d.missing(place, "[acme]: no listener speaks TLS, so there is nothing to use certificates for");
    } else if challenge == ChallengeKind::Http01 && listeners.iter().all(|listener| listener.tls.is_some()) {
        d.missing(
            challenge_at,
            "challenge: http-01 needs a listener without TLS: add a [[listener]] with address = \"0.0.0.0:80\" and tls = false",
        );
    }
    let (names_at, contact_at) = (section.place_of("names"), section.place_of("contact"));
    let command_at = section.place_of("dns_command");
    if !section.has("names") && section.on_demand.is_none() {
        d.missing(place, "[acme] needs names = [[\"domain.com\", \"www.domain.com\"], \"chat.domain.com\"], or [acme.on_demand]");
    }
    if let Some(names) = &section.names {
        for what in name_problems(&names.value, challenge) {
            d.problem(names_at, format!("names: {what}"));
        }
    }
    let contact = section.contact.map(|at| at.value).unwrap_or_default();
    if let Some(bad) = contact.iter().find(|contact| !contact.contains('@') || contact.contains([' ', ','])) {
        let what = format!("contact: expected a mail address such as \"admin@domain.com\", found {bad:?}");
        d.problem(contact_at, what);
    }
    let directory = section.directory.unwrap_or_else(|| At { value: LETS_ENCRYPT.to_owned(), place });
    if !directory.value.starts_with("https://") {
        let what = "directory: expected the https:// address of an ACME directory"; // RFC 8555 §6.1
        d.problem(directory.place, format!("{what}, found {:?}", directory.value));
    } else {
        server_url::read(d, "directory", &directory, section.ca.as_ref())?;
    }
    let external_account = section.external_account.and_then(|at| external_account(d, at.value));
    let dns_command = section.dns_command.map(|at| at.value);
    if dns_command.as_ref().is_some_and(|command| command.first().is_none_or(String::is_empty)) {
        d.problem(command_at, "dns_command: expected a program, such as [\"/usr/local/bin/dns-record\"]");
    }
    let on_demand = match section.on_demand {
        Some(at) => Some(on_demand::read(d, at.value)?),
        None => None,
    };
    Some(AcmeSettings {
        certificates: section.names.map(|at| at.value).unwrap_or_default(),
        contact,
        challenge,
        directory: directory.value,
        authorities: section.ca.map(|at| at.value).unwrap_or_default(),
        storage: section.storage.map_or(base, |at| at.value),
        key_type: section.key_type.value,
        profile: section.profile.map(|at| at.value),
        external_account,
        dns_command: dns_command.unwrap_or_default(),
        dns_wait: section.dns_wait.value,
        on_demand,
    })
}

fn external_account(d: &mut Document<'_>, section: ExternalAccountOptions) -> Option<ExternalAccount> {
    let at = section.place_of("hmac_key");
    let (key_id, hmac_key) = (section.key_id?.value, section.hmac_key?.value);
    let digits = hmac_key.trim().trim_end_matches('=');
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(digits).or_else(|_| BASE64_STANDARD_NO_PAD.decode(digits));
    match decoded {
        Ok(hmac_key) if !hmac_key.is_empty() => Some(ExternalAccount { key_id, hmac_key }),
        // Not repeated: it is a secret.
        _ => {
            d.problem(at, "hmac_key: expected the key in base64, as the authority shows it");
            None
        }
    }
}

/// What is wrong with the names of the certificates.
fn name_problems(certificates: &[Vec<CertName>], challenge: ChallengeKind) -> Vec<String> {
    let mut problems = Vec::new();
    if certificates.is_empty() || certificates.iter().any(Vec::is_empty) {
        problems.push("the list is empty; write the names of this gateway, or remove the section".to_owned());
    }
    if certificates.iter().any(|names| names.len() > NAMES_MAX) {
        problems.push(format!("a certificate can have {NAMES_MAX} names; make several"));
    }
    let mut seen = HashSet::new();
    for name in certificates.iter().flatten() {
        if !seen.insert(name) {
            problems.push(format!("{name} is there twice; a name has one certificate"));
        }
        if matches!(name, CertName::Wildcard(_)) && challenge != ChallengeKind::Dns01 {
            problems.push(format!(
                "{name} can only be proved by a record in the DNS: write challenge = \"dns-01\" and dns_command"
            ));
        }
    }
    problems
}

/// The port that the authority asks is not listened on, which is good only where another one is forwarded to it.
pub(super) fn warning(config: &Config) -> Option<String> {
    let acme = config.acme.as_ref()?;
    let (port, is_tls) = match acme.challenge {
        ChallengeKind::TlsAlpn01 => (443, true),
        ChallengeKind::Http01 => (80, false),
        ChallengeKind::Dns01 => return None,
    };
    let is_asked = |listener: &Listener| listener.tls.is_some() == is_tls && listener.address.port() == port;
    (!config.listeners.iter().any(is_asked)).then(|| {
        let (challenge, kind) = (acme.challenge.as_str(), if is_tls { "with TLS" } else { "without TLS" });
        format!(
            "[acme]: an authority asks on port {port} for {challenge}, and no listener {kind} has this port; that is right \
             only if connections to port {port} are forwarded to one of them"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENERS: &str = "[[listener]]\naddress = \"127.0.0.1:443\"\n\
         [[listener]]\naddress = \"127.0.0.1:80\"\ntls = false\n";
    const ROUTE: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

    fn parse(listeners: &str, acme: &str) -> (Config, Vec<String>) {
        let text = format!("{listeners}[acme]\n{acme}\n{ROUTE}");
        let (config, problems) = Config::parse(Path::new("/etc/wssgate/wssgate.toml"), &text);
        (config, problems.into_iter().map(|problem| problem.to_string()).collect())
    }

    #[test]
    fn a_section_says_what_is_ordered() {
        let (config, problems) = parse(
            LISTENERS,
            r#"names = [["Domain.com", "www.domain.com"], "*.domain.com"]
               contact = "admin@domain.com"
               challenge = "dns-01"
               dns_command = ["/bin/dns", "--zone", "domain.com"]
               dns_wait = "0s"
               directory = "https://ca.internal/acme/dir"
               storage = "certs"
               key_type = "rsa-2048"
               profile = "shortlived"
               external_account = { key_id = "kid-1", hmac_key = "AQID_-8=" }"#,
        );
        assert_eq!(problems, [""; 0]);
        let acme = config.acme.as_ref().unwrap();
        let files: Vec<_> = acme.awaited().into_iter().map(|awaited| awaited.file).collect();
        let storage = Path::new("/etc/wssgate/certs/certificates");
        assert_eq!(files, [storage.join("domain.com.pem"), storage.join("_.domain.com.pem")]);
        assert_eq!(acme.external_account.as_ref().unwrap().hmac_key, [1, 2, 3, 255, 239]);
        assert!(!format!("{acme:?}").contains("255"), "the key is secret");
        assert_eq!(config.certificates.awaited, acme.awaited());
        assert!(config.watch);
        assert_eq!(warning(&config), None);
    }

    #[test]
    fn defaults() {
        let (config, problems) = parse(&LISTENERS.replace(":443", ":8443"), "names = \"domain.com\"");
        assert_eq!(problems, [""; 0]);
        let acme = config.acme.as_ref().unwrap();
        assert_eq!((acme.challenge, acme.key_type), (ChallengeKind::TlsAlpn01, AcmeKeyType::EcdsaP256));
        assert_eq!((&*acme.directory, &*acme.storage), (LETS_ENCRYPT, Path::new("/var/lib/wssgate/acme")));
        assert_eq!(default_storage(Path::new("/srv/etc/wssgate.toml")), Path::new("/srv/etc/acme"));
        assert!(
            warning(&config)
                .unwrap()
                .contains("port 443 for tls-alpn-01, and no listener with TLS has this port")
        );
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        for (acme, says) in [
            ("", "[acme] needs names"),
            ("names = []", "names: the list is empty"),
            ("names = [[]]", "names: the list is empty"),
            ("names = [\"a.com\", [\"b.com\", \"A.com\"]]", "a.com is there twice"),
            (
                "names = \"*.a.com\"",
                "*.a.com can only be proved by a record in the DNS: write challenge = \"dns-01\"",
            ),
            ("names = \"192.0.2.1\"", "certificates for addresses such as 192.0.2.1 are not ordered"),
            ("names = \"a b\"", "names: expected a name such as \"domain.com\""),
            ("names = 1", "names: expected a name in quotes"),
            ("names = \"a.com\"\nchallenge = \"dns\"", "challenge: expected"),
            ("names = \"a.com\"\nchallenge = \"dns-01\"", "dns-01 needs dns_command"),
            (
                "names = \"a.com\"\nchallenge = \"dns-01\"\ndns_command = []",
                "dns_command: expected a program",
            ),
            ("names = \"a.com\"\ndns_command = [\"x\"]", "dns_command: only dns-01 uses it"),
            ("names = \"a.com\"\ndns_wait = \"1s\"", "dns_wait: only dns-01 uses it"),
            ("names = \"a.com\"\ncontact = \"admin\"", "contact: expected a mail address"),
            ("names = \"a.com\"\ndirectory = \"http://a/\"", "directory: expected the https:// address"),
            ("names = \"a.com\"\nkey_type = \"rsa\"", "key_type: expected"),
            (
                "names = \"a.com\"\nexternal_account = { key_id = \"k\", hmac_key = \"!secret!\" }",
                "hmac_key: expected the key in base64",
            ),
            (
                "names = \"a.com\"\n[certificates]\ndirectory = \"c\"\nwatch = false",
                "watch: certificates of [acme] come",
            ),
        ] {
            let (_, problems) = parse(LISTENERS, acme);
            assert!(problems.len() == 1 && problems[0].contains(says), "{acme}: {problems:#?}");
            assert!(!problems[0].contains("secret"), "{problems:?}");
        }
        let tls = "[[listener]]\naddress = \"127.0.0.1:443\"\n";
        let (_, problems) = parse(tls, "names = \"a.com\"\nchallenge = \"http-01\"");
        assert!(problems[0].contains("http-01 needs a listener without TLS"), "{problems:?}");
        let plain = "[[listener]]\naddress = \"127.0.0.1:80\"\ntls = false\n";
        let (_, problems) = parse(plain, "names = \"a.com\"");
        assert!(problems[0].contains("no listener speaks TLS"), "{problems:?}");
    }
}
