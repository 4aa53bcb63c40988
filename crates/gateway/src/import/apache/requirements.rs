//! `Require`, and `Order` with `Allow` and `Deny`, as what our routes can ask for. Pure.
//!
//! Here every list has to let a client in, and `deny` counts more than `allow`. What can't be said so is lost, and never
//! wider than it was.

use ipnet::IpNet;

use crate::import::tree::Directive;

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Nobody,
    /// Those that meet all of it.
    Those(Those),
    /// There is no counterpart, for the reason that this sentence tells.
    Lost(String),
}

/// What has to be met; nothing: everybody is let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Those {
    /// Networks that clients have to be in.
    pub allow: Option<Vec<String>>,
    /// Networks that they must not be in.
    pub deny: Vec<String>,
    /// They have a name and a password.
    pub has_user: bool,
    /// It is narrower than it was: this sentence says how.
    pub narrower: Option<&'static str>,
}

impl Who {
    fn everybody() -> Self {
        Self::Those(Those::default())
    }

    fn is_everybody(&self) -> bool {
        *self == Self::everybody()
    }
}

/// Names of the directives that [`required`] reads.
pub(super) const REQUIRE: [&str; 4] = ["require", "requireall", "requireany", "requirenone"];
/// Names of the directives that [`ordered`] reads.
pub(super) const ORDER: [&str; 3] = ["order", "allow", "deny"];

/// What these directives of one section come to: one of them is enough.
pub(super) fn required(directives: &[&Directive]) -> Who {
    match directives {
        // A negative one decides nothing alone, and takes part where it stands.
        [one] => who(one),
        several => any(several.iter().copied().map(who).collect()),
    }
}

fn who(directive: &Directive) -> Who {
    let inside = || directive.inside().iter().map(who).collect::<Vec<_>>();
    match directive.name.as_str() {
        "requireall" => all(inside()),
        "requireany" => any(inside()),
        "requirenone" => not(any(inside())),
        "require" => one(directive),
        _ => Who::Lost(format!("{} is not understood among requirements", directive.name)),
    }
}

fn one(directive: &Directive) -> Who {
    let words: Vec<String> = directive.args.iter().map(|arg| arg.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match &words[..] {
        ["not", ..] => {
            let rest = Directive { args: directive.args[1..].to_vec(), ..directive.clone() };
            not(one(&rest))
        }
        ["all", "granted"] => Who::everybody(),
        ["all", "denied"] => Who::Nobody,
        ["ip", texts @ ..] => match networks(texts) {
            Ok(allow) => Who::Those(Those { allow: Some(allow), ..Those::default() }),
            Err(what) => Who::Lost(what),
        },
        ["local"] => {
            let allow = Some(["127.0.0.0/8", "::1"].map(str::to_owned).to_vec());
            Who::Those(Those { allow, ..Those::default() })
        }
        ["valid-user"] => Who::Those(Those { has_user: true, ..Those::default() }),
        _ => Who::Lost("this requirement has no counterpart".to_owned()),
    }
}

/// All have to be met.
pub(super) fn all(all: Vec<Who>) -> Who {
    let mut those = Those::default();
    for who in all {
        let next = match who {
            Who::Those(next) => next,
            other => return other,
        };
        those.allow = match (those.allow, next.allow) {
            (Some(_), Some(_)) => return Who::Lost("only one list of addresses can be asked for".to_owned()),
            (one, other) => one.or(other),
        };
        those.deny.extend(next.deny);
        those.has_user |= next.has_user;
        those.narrower = those.narrower.or(next.narrower);
    }
    Who::Those(those)
}

/// One of them has to be met.
fn any(all: Vec<Who>) -> Who {
    if all.iter().any(Who::is_everybody) {
        return Who::everybody();
    }
    let lost = all.iter().find(|who| matches!(who, Who::Lost(_))).cloned();
    let mut some =
        all.into_iter().filter_map(|who| if let Who::Those(those) = who { Some(those) } else { None });
    let Some(mut those) = some.next() else { return lost.unwrap_or(Who::Nobody) };
    for next in some {
        if !those.deny.is_empty() || !next.deny.is_empty() {
            return Who::Lost("exceptions in one of several requirements have no counterpart".to_owned());
        }
        if those.has_user != next.has_user || those.allow.is_some() != next.allow.is_some() {
            those.narrower = Some("either of these is enough in Apache, and here all of them are asked for");
        }
        those.has_user |= next.has_user;
        those.allow = match (those.allow, next.allow) {
            (Some(one), Some(other)) => Some([one, other].concat()),
            (one, other) => one.or(other),
        };
    }
    if lost.is_some() {
        those.narrower =
            Some("a requirement beside these has no counterpart, so those it lets in are refused");
    }
    Who::Those(those)
}

fn not(who: Who) -> Who {
    match who {
        Who::Nobody => Who::everybody(),
        Who::Those(those) if those == Those::default() => Who::Nobody,
        Who::Those(Those { allow: Some(deny), has_user: false, deny: others, narrower: None })
            if others.is_empty() =>
        {
            Who::Those(Those { deny, ..Those::default() })
        }
        Who::Those(_) => Who::Lost("there is no counterpart for those that have no password".to_owned()),
        lost @ Who::Lost(_) => lost,
    }
}

/// What `Order`, `Allow` and `Deny` of one section come to.
pub(super) fn ordered(directives: &[&Directive]) -> Who {
    let order = directives.iter().rev().find(|directive| directive.name == "order");
    let order = order.map_or("deny,allow".to_owned(), |order| order.args.concat().to_ascii_lowercase());
    let of = |name: &str| -> Vec<String> {
        let named = directives.iter().filter(|directive| directive.name == name);
        named
            .flat_map(|directive| directive.args.iter().skip(1))
            .map(|arg| arg.to_ascii_lowercase())
            .collect()
    };
    let (allow, deny) = (of("allow"), of("deny"));
    let has_all = |words: &[String]| words.iter().any(|word| word == "all");
    let read = |words: &[String]| networks(&words.iter().map(String::as_str).collect::<Vec<_>>());
    // The last word counts more, and stands for those that no line names.
    let is_open = match order.as_str() {
        "deny,allow" => true,
        "allow,deny" | "mutual-failure" => false,
        _ => return Who::Lost("this order is not understood".to_owned()),
    };
    if is_open && (has_all(&allow) || deny.is_empty()) {
        return Who::everybody();
    }
    if !is_open && has_all(&deny) {
        return Who::Nobody;
    }
    let mut those = Those::default();
    if !is_open && !has_all(&allow) || is_open && has_all(&deny) {
        // Names and variables let nobody in here.
        let known: Vec<&str> =
            allow.iter().map(String::as_str).filter(|word| networks(&[word]).is_ok()).collect();
        if known.len() < allow.len() {
            those.narrower =
                Some("names of hosts and variables have no counterpart, so those they let in are refused");
        }
        if known.is_empty() {
            return Who::Nobody;
        }
        those.allow = networks(&known).ok();
        if is_open {
            return Who::Those(those);
        }
    } else if is_open && !allow.is_empty() {
        those.narrower = Some(
            "deny counts more than allow here, so addresses are refused that Apache lets in by an exception",
        );
    }
    match read(&deny) {
        Ok(deny) => Who::Those(Those { deny, ..those }),
        Err(what) => Who::Lost(what),
    }
}

/// Addresses and networks, also `10.1` and `10.1.0.0/255.255.0.0`.
pub(super) fn networks(texts: &[&str]) -> Result<Vec<String>, String> {
    let read =
        |text: &str| network(text).ok_or_else(|| format!("{text} is neither an address nor a network"));
    texts.iter().map(|text| read(text)).collect()
}

fn network(text: &str) -> Option<String> {
    if text.parse::<IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok() {
        return Some(text.to_owned());
    }
    if let Some((address, mask)) = text.split_once('/') {
        let (address, mask) =
            (address.parse::<std::net::Ipv4Addr>().ok()?, mask.parse::<std::net::Ipv4Addr>().ok()?);
        return Some(IpNet::with_netmask(address.into(), mask.into()).ok()?.to_string());
    }
    let parts: Vec<u8> =
        text.trim_end_matches('.').split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    if !matches!(parts.len(), 1..=3) {
        return None;
    }
    let mut whole = [0; 4];
    whole[..parts.len()].copy_from_slice(&parts);
    Some(format!("{}/{}", std::net::Ipv4Addr::from(whole), parts.len() * 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::tree::At;

    /// `all(a b, c)` is a section; a line is `require ip 10.1`.
    fn section(lines: &[&str]) -> Vec<Directive> {
        let at = At { file: "test".into(), line: 1 };
        let mut stack: Vec<Vec<Directive>> = vec![Vec::new()];
        let mut names = Vec::new();
        for line in lines {
            let mut words = line.split(' ').map(str::to_owned);
            let name = words.next().unwrap();
            if name == "end" {
                let (inside, name) = (stack.pop().unwrap(), names.pop().unwrap());
                let block = Some(inside);
                stack.last_mut().unwrap().push(Directive {
                    id: 0,
                    name,
                    args: Vec::new(),
                    at: at.clone(),
                    block,
                });
            } else if line.contains(' ') {
                let directive = Directive { id: 0, name, args: words.collect(), at: at.clone(), block: None };
                stack.last_mut().unwrap().push(directive);
            } else {
                names.push(name);
                stack.push(Vec::new());
            }
        }
        stack.pop().unwrap()
    }

    /// `allow - deny`, with `u` for a user and `<` for what is narrower.
    fn shown(who: &Who) -> String {
        match who {
            Who::Nobody => "nobody".to_owned(),
            Who::Lost(_) => "lost".to_owned(),
            Who::Those(Those { allow, deny, has_user, narrower }) => {
                let allow = allow.as_ref().map_or("*".to_owned(), |allow| allow.join(" "));
                let user = if *has_user { " u" } else { "" };
                let narrower = if narrower.is_some() { " <" } else { "" };
                format!("{allow} - {}{user}{narrower}", deny.join(" "))
            }
        }
    }

    #[track_caller]
    fn check(lines: &[&str], expect: &str) {
        let section = section(lines);
        let all: Vec<&Directive> = section.iter().collect();
        let is_old = ORDER.contains(&all[0].name.as_str());
        let who = if is_old { ordered(&all) } else { required(&all) };
        assert_eq!(shown(&who), expect, "{lines:?}");
    }

    #[test]
    fn requirements() {
        check(&["require all granted"], "* - ");
        check(&["require all denied"], "nobody");
        check(
            &["require ip 10 172.16.0.0/12 ::1", "require ip 10.1.0.0/255.255.0.0"],
            "10.0.0.0/8 172.16.0.0/12 ::1 10.1.0.0/16 - ",
        );
        check(&["require local", "require valid-user"], "127.0.0.0/8 ::1 -  u <");
        check(&["require host a.test"], "lost");
        check(&["require host a.test", "require ip 10.1"], "10.1.0.0/16 -  <");
        check(&["require user alice"], "lost");
        check(&["require all denied", "require all granted"], "* - ");
        check(&["requireall", "require all granted", "require not ip 10.1.2.3", "end"], "* - 10.1.2.3");
        check(&["requireall", "require ip 10", "require valid-user", "end"], "10.0.0.0/8 -  u");
        check(&["requireall", "require ip 10", "require ip 11", "end"], "lost");
        check(&["requireall", "require all granted", "require not host a", "end"], "lost");
        check(
            &[
                "requireall",
                "require all granted",
                "requirenone",
                "require ip 10",
                "require ip 11",
                "end",
                "end",
            ],
            "* - 10.0.0.0/8 11.0.0.0/8",
        );
        check(
            &[
                "requireany",
                "requireall",
                "require valid-user",
                "require not ip 10",
                "end",
                "require ip 11",
                "end",
            ],
            "lost",
        );
        check(&["requirenone", "require valid-user", "end"], "lost");
        check(&["limit", "require all granted", "end"], "lost");
    }

    #[test]
    fn order_allow_deny() {
        check(&["order allow,deny", "allow from all"], "* - ");
        check(&["order deny,allow", "deny from all"], "nobody");
        check(&["order deny,allow", "deny from all", "allow from 10.1 a.test"], "10.1.0.0/16 -  <");
        check(&["order allow,deny", "allow from all", "deny from 10.1.2.3"], "* - 10.1.2.3");
        check(&["order allow,deny", "deny from all", "allow from all"], "nobody");
        check(&["order allow,deny", "allow from 10"], "10.0.0.0/8 - ");
        check(&["order deny,allow", "deny from 10", "allow from 10.1"], "* - 10.0.0.0/8 <");
        check(&["order allow,deny", "allow from all", "deny from env=bad"], "lost");
        check(&["order allow,deny", "allow from env=good"], "nobody");
        check(&["deny from all"], "nobody");
        check(&["order ,"], "lost");
    }
}
