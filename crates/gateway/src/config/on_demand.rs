//! `[acme.on_demand]`: names that get a certificate when a client asks for them.

use std::num::NonZeroU32;
use std::time::Duration;

use tls_acceptor::CertName;

use super::acme_settings::OnDemandSettings;
use super::document::Document;
use super::kind::{self, List, Options};
use super::option::options;
use super::spec::At;
use crate::site::endpoint::Endpoint;
use crate::site::on_demand::AllowedNames;
use crate::site::rate::Rate;

/// Clients wait for the answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A fifth of what Let's Encrypt allows, since other certificates are ordered, too.
const ORDERS: &str = "60/h";
/// Names that are remembered: each has two files.
const NAMES: NonZeroU32 = NonZeroU32::MIN.saturating_add(999);
const NAMES_MAX: usize = 100_000;

options! {
    /// Certificates for names that are not in `names`, such as those of customers: the first client that asks for a name
    /// begins the order, and waits for the certificate as long as its handshake may take. A name has to be in the list of
    /// this section, if there is one, and `ask` has to allow it, if there is one; one of the two has to be there. Each name
    /// has a certificate of its own, which is renewed as long as the name is allowed. There are none for IP addresses, and
    /// for names without a dot.
    struct OnDemandOptions: "[acme.on_demand]";

    /// The names that may be ordered. `"*.domain.com"` stands for each name one label below `domain.com`.
    names: List<kind::CertificateName>, otherwise = "all names, if `ask` allows them";
    /// The URL that is asked whether a name may be ordered, and again before it is renewed: `GET`, with `domain=NAME` in the
    /// query. A status from 200 to 299 allows it; every other answer forbids it, and so does none. What it has answered holds
    /// for half a minute.
    ask: kind::PlainText, optional;
    /// How long the answer may take.
    ask_timeout: kind::Duration, default = ASK_TIMEOUT;
    /// How many orders clients may begin in a time; those of further names are refused. Let's Encrypt allows an account 300 in
    /// three hours.
    orders: kind::Frequency, otherwise = "`\"60/h\"`";
    /// How many names are remembered. If all of these have certificates, no new ones are ordered.
    max_names: kind::Count<1, NAMES_MAX>, default = NAMES;
}

/// Reads the section.
pub(super) fn read(d: &mut Document<'_>, section: OnDemandOptions) -> Option<OnDemandSettings> {
    let place = section.written().place;
    if section.names.is_none() && section.ask.is_none() {
        d.missing(
            place,
            "[acme.on_demand] needs names or ask: otherwise anyone could have certificates ordered for any name",
        );
    }
    if let Some(At { value: names, place }) = &section.names
        && let Some(what) = names.iter().find_map(name_problem)
    {
        d.problem(*place, format!("names: {what}"));
    }
    if let Some(At { value: ask, place }) = &section.ask
        && let Err(what) = Endpoint::parse_url(ask)
    {
        d.problem(*place, format!("ask: {what}"));
    }
    if section.ask.is_none() && section.has("ask_timeout") {
        d.problem(section.place_of("ask_timeout"), "ask_timeout: nothing is asked; write ask, or remove it");
    }
    Some(OnDemandSettings {
        allowed: AllowedNames::new(section.names.map(|at| at.value)),
        ask: section.ask.map(|at| at.value),
        ask_timeout: section.ask_timeout.value,
        orders: section.orders.map_or_else(|| Rate::parse(ORDERS), |at| Some(at.value))?,
        names_max: section.max_names.value,
    })
}

fn name_problem(name: &CertName) -> Option<String> {
    match name {
        CertName::Ip(ip) => {
            Some(format!("certificates for addresses such as {ip} are not ordered; write names"))
        }
        CertName::Exact(name) if !name.contains('.') => {
            Some(format!("{name} has no dot: no authority issues a certificate for it; remove it"))
        }
        CertName::Exact(_) | CertName::Wildcard(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(on_demand: &str) -> (Option<OnDemandSettings>, Vec<String>) {
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:443\"\n[acme.on_demand]\n{on_demand}\n\
             [[route]]\npath = \"/\"\nservice = \"echo\"\n"
        );
        let (config, problems) = Config::parse(Path::new("/etc/wssgate/wssgate.toml"), &text);
        let settings = config.acme.and_then(|acme| acme.on_demand);
        (settings, problems.into_iter().map(|problem| problem.to_string()).collect())
    }

    #[test]
    fn a_section_says_who_gets_certificates() {
        let (settings, problems) = parse("ask = \"http://127.0.0.1:9000/allowed?key=1\"");
        assert_eq!(problems, [""; 0]);
        let settings = settings.unwrap();
        assert!(settings.allowed.allows("any.where.test") && !settings.allowed.allows("localhost"));
        assert_eq!((settings.ask_timeout, settings.names_max.get()), (Duration::from_secs(2), 1000));
        assert_eq!(settings.orders, Rate::parse("60/h").unwrap());
        let (settings, problems) =
            parse("names = [\"*.Domain.com\", \"domain.com\"]\norders = \"5/m\"\nmax_names = 10");
        assert_eq!(problems, [""; 0]);
        let settings = settings.unwrap();
        for (name, expect) in
            [("a.domain.com", true), ("domain.com", true), ("a.b.domain.com", false), ("other.com", false)]
        {
            assert_eq!(settings.allowed.allows(name), expect, "{name}");
        }
        assert_eq!((settings.names_max.get(), settings.ask), (10, None));
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        for (on_demand, says) in [
            ("", "[acme.on_demand] needs names or ask"),
            ("names = \"192.0.2.1\"", "names: certificates for addresses such as 192.0.2.1 are not ordered"),
            ("names = \"intranet\"", "names: intranet has no dot"),
            ("ask = \"127.0.0.1:9000\"", "ask: expected an address"),
            ("names = \"*.a.com\"\nask_timeout = \"1s\"", "ask_timeout: nothing is asked"),
            ("names = \"*.a.com\"\norders = \"5/day\"", "orders: expected"),
        ] {
            let (_, problems) = parse(on_demand);
            assert!(problems.len() == 1 && problems[0].contains(says), "{on_demand}: {problems:#?}");
        }
    }
}
