//! Who may come in, and how much: `allow` and `deny`, passwords, limits, other servers that are asked.

use ipnet::IpNet;

use super::context::Context;
use super::fields::field_key;
use super::here::Here;
use super::pass::pass;
use super::scope::Scope;
use super::times;
use crate::import::book::Outcome;
use crate::import::sheet::{Section, Value, every_address};
use crate::import::tree::Directive;

/// nginx's `client_max_body_size`, where nothing is said.
const BODY_MAX: &str = "1MiB";

/// All that a route has of `[route.access]`. `has_server`: bodies go on to a server.
pub(super) fn route<'a>(
    context: &mut Context<'a>,
    here: &Here<'a, '_>,
    route: &mut Section,
    has_server: bool,
) {
    let scope = &here.scope;
    addresses(context, scope, route);
    if let Some(satisfy) = scope.find("satisfy") {
        let has_any = satisfy.arg(0) == "any";
        let says = if has_any {
            "every check of [route.access] has to be passed here, which is stricter"
        } else {
            "so it is here"
        };
        if has_any {
            context.book.misses(route, satisfy, says);
        } else {
            context.book.itself(route, satisfy, says);
        }
    }
    password(context, scope, route, has_server);
    asked(context, here, route);
    limits(context, scope, route);
    if !has_server {
        return;
    }
    match scope.find("client_max_body_size") {
        None => {
            route.comment("client_max_body_size: nginx's own default");
            route.set("access.max_body", BODY_MAX, None);
        }
        Some(size) => match times::bytes(size.arg(0)) {
            Some(0) => context.book.itself(route, size, "bodies have no limit where max_body doesn't say so"),
            Some(bytes) => context.book.key(route, size, "access.max_body", times::size(bytes)),
            None => context.book.misses(route, size, "this is no size"),
        },
    }
}

/// What `allow` and `deny` come to: the first that fits counts in nginx, and `deny` counts more than `allow` here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lists {
    allow: Vec<String>,
    deny: Vec<String>,
    /// Some `allow` stands in front of a `deny` that it is an exception of.
    has_exception: bool,
    /// Everybody is refused that no `allow` names.
    denies_rest: bool,
}

fn lists(rules: &[(bool, &str)]) -> Result<Lists, String> {
    let mut lists = Lists::default();
    let mut allowed: Vec<IpNet> = Vec::new();
    for (is_allowed, text) in rules {
        if *text == "all" {
            lists.denies_rest = !is_allowed;
            break; // what stands behind is never asked
        }
        if *text == "unix:" {
            let list = if *is_allowed { &mut lists.allow } else { &mut lists.deny };
            list.push("unix".to_owned());
            continue;
        }
        let parsed = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        let network: IpNet = parsed.map_err(|_| format!("{text} is neither an address nor a network"))?;
        if *is_allowed {
            allowed.push(network);
            lists.allow.push((*text).to_owned());
        } else {
            let meets = |other: &IpNet| other.contains(&network) || network.contains(other);
            lists.has_exception |= allowed.iter().any(meets);
            lists.deny.push((*text).to_owned());
        }
    }
    if !lists.denies_rest {
        // Those that are let in anyway need no line.
        lists.allow.clear();
    }
    Ok(lists)
}

/// Lets nobody in.
pub(super) fn close(route: &mut Section) {
    route.unset("access.allow");
    route.set("access.deny", every_address(), None);
}

fn addresses(context: &mut Context<'_>, scope: &Scope<'_>, route: &mut Section) {
    let directives = scope.any(&["allow", "deny"]);
    let (Some(first), Some(last)) = (directives.first(), directives.last()) else { return };
    let rules: Vec<(bool, &str)> = directives.iter().map(|d| (d.name == "allow", d.arg(0))).collect();
    match lists(&rules) {
        Err(what) => {
            let what = format!("{what}; nobody is let in until you have written the lists");
            close(route);
            directives.iter().for_each(|directive| context.book.misses(route, directive, &what));
        }
        Ok(Lists { allow, deny, has_exception, denies_rest }) => {
            if has_exception {
                let what = "deny counts more than allow here, so addresses are refused that nginx lets in: write the networks \
                            without the exception";
                context.book.remark(last, what);
                route.note(format!("{}: {what}", first.at));
            }
            let refuses_all = denies_rest && allow.is_empty();
            if !allow.is_empty() {
                context.book.key(route, first, "access.allow", allow);
            }
            if refuses_all {
                context.book.key(route, last, "access.deny", every_address());
            } else if !deny.is_empty() {
                context.book.key(route, last, "access.deny", deny);
            }
            directives.iter().for_each(|directive| context.book.mark(directive, Outcome::Key));
        }
    }
}

/// A location that refuses everybody needs nothing else.
pub(super) fn denies_all(context: &mut Context<'_>, here: &Here<'_, '_>, route: &mut Section) -> bool {
    let directives = here.scope.any(&["allow", "deny"]);
    let rules: Vec<(bool, &str)> = directives.iter().map(|d| (d.name == "allow", d.arg(0))).collect();
    let [(false, "all"), ..] = rules[..] else { return false };
    if here.scope.find("satisfy").is_some_and(|satisfy| satisfy.arg(0) == "any") {
        return false;
    }
    for directive in directives {
        context.book.mark(directive, Outcome::Key);
    }
    route.set("respond", 403, Some(&here.scope.any(&["allow", "deny"])[0].at));
    true
}

fn password(context: &mut Context<'_>, scope: &Scope<'_>, route: &mut Section, has_server: bool) {
    let Some(realm) = scope.find("auth_basic") else { return };
    if realm.arg(0) == "off" {
        return context.book.itself(route, realm, "there is no password where access.basic doesn't say so");
    }
    let file = scope.find("auth_basic_user_file").filter(|file| !file.arg(0).contains('$'));
    let Some(file) = file else {
        let what = "there is no auth_basic_user_file with one name; nobody is let in until access.basic names a file";
        close(route);
        return context.book.misses(route, realm, what);
    };
    let path = context.places.conf(file.arg(0));
    context.book.key(route, file, "access.basic.file", path);
    let text: String =
        realm.arg(0).chars().filter(|c| c.is_ascii() && !c.is_control() && !"\"\\".contains(*c)).collect();
    context.book.key(route, realm, "access.basic.realm", text);
    if has_server {
        route.comment("nginx passes the password on to the server; remove the line if that doesn't need it");
        route.set("access.basic.pass_password", true, None);
    }
}

/// `auth_request`: another server is asked about each request.
fn asked(context: &mut Context<'_>, here: &Here<'_, '_>, route: &mut Section) {
    let Some(ask) = here.scope.find("auth_request") else { return };
    let path = ask.arg(0);
    if path == "off" {
        return context.book.itself(route, ask, "no server is asked where access.forward doesn't say so");
    }
    let passed = here.location_of(path).and_then(|location| {
        let directive = location.scope.own_all("proxy_pass").next()?;
        let passed = pass(directive.arg(0), &here.facts).ok()?;
        (!passed.authority.starts_with("unix:")).then_some((directive, passed))
    });
    let Some((directive, passed)) = passed else {
        let what =
            "the server that it asks isn't found here; nobody is let in until access.forward.url names it";
        close(route);
        return context.book.misses(route, ask, what);
    };
    let scheme = if passed.is_tls { "https" } else { "http" };
    let (mut servers, _) = context.upstreams.servers(&passed.authority).unwrap_or_default();
    if servers.len() > 1 {
        context.book.remark(ask, "access.forward.url names one server: it is the first of the upstream's");
    }
    let authority = if servers.is_empty() { passed.authority } else { servers.swap_remove(0) };
    let url = format!("{scheme}://{authority}{}", passed.path.as_deref().unwrap_or(path));
    context.book.mark(directive, Outcome::Key);
    let how = "the server gets X-Forwarded-Method, -Uri, -Host, -Proto and -For in place of fields of nginx's, and each \
               answer but 2xx goes to the client as it is";
    context.book.nearly(route, ask, ("access.forward.url", url), how);
    // A field of its answer that goes to the server under the same name.
    let mut copied: Vec<Value> = Vec::new();
    for set in here.scope.all("auth_request_set") {
        let of_answer = set.arg(1).strip_prefix("$upstream_http_").unwrap_or_default();
        let sent = here.scope.all("proxy_set_header").into_iter().find(|field| {
            field.arg(1) == set.arg(0) && field.arg(0).to_ascii_lowercase().replace('-', "_") == of_answer
        });
        match sent {
            Some(field) => {
                copied.push(field.arg(0).into());
                context.book.mark(set, Outcome::Key);
                route.unset(&field_key("request_headers", "set", field.arg(0)));
                context.book.mark(field, Outcome::Key);
            }
            None => {
                let what =
                    "fields of its answer go to the server under their own names (access.forward.copy)";
                context.book.misses(route, set, what);
            }
        }
    }
    if !copied.is_empty() {
        route.set("access.forward.copy", Value::List(copied), None);
    }
}

fn limits(context: &mut Context<'_>, scope: &Scope<'_>, route: &mut Section) {
    for (name, of_zone) in [("limit_req", "limit_req_zone"), ("limit_conn", "limit_conn_zone")] {
        for (number, limit) in scope.all(name).into_iter().enumerate() {
            let zone_name = match name {
                "limit_req" => limit.args.iter().find_map(|arg| arg.strip_prefix("zone=")).unwrap_or(""),
                _ => limit.arg(0),
            };
            let zone = context.zones.get(zone_name).copied().filter(|zone| zone.name == of_zone);
            let is_of_client =
                zone.is_some_and(|zone| matches!(zone.arg(0), "$binary_remote_addr" | "$remote_addr"));
            let Some(zone) = zone.filter(|_| is_of_client && number == 0) else {
                let what = "limits are for each client's address (access.per), and a route has one of a kind";
                context.book.misses(route, limit, what);
                continue;
            };
            limit_of(context, limit, zone, route);
        }
    }
}

fn limit_of(context: &mut Context<'_>, limit: &Directive, zone: &Directive, route: &mut Section) {
    if limit.name == "limit_conn" {
        match limit.arg(1).parse::<u32>() {
            Ok(count @ 1..=1_000_000) => {
                context.book.mark(zone, Outcome::Key);
                let how = "nginx counts requests in progress, and sessions counts live WebSockets; clients over it get 429";
                context.book.nearly(route, limit, ("access.sessions", count), how);
            }
            _ => context.book.misses(route, limit, "this is no number that sessions can have"),
        }
        return;
    }
    let rate = zone.args.iter().find_map(|arg| arg.strip_prefix("rate=")).unwrap_or("");
    let rate = match rate.split_once("r/") {
        Some((count, unit @ ("s" | "m"))) => count.parse::<u32>().ok().map(|count| format!("{count}/{unit}")),
        _ => None,
    };
    match rate {
        Some(rate) => {
            context.book.mark(zone, Outcome::Key);
            let how = "the requests of a whole period may come at once here, and nginx has burst for that; clients over it \
                       get 429 at once";
            context.book.nearly(route, limit, ("access.requests", rate), how);
        }
        None => context.book.misses(route, limit, "the rate of its zone isn't understood"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &str, allow: &[&str], deny: &[&str], flags: (bool, bool)) {
        let rules: Vec<(bool, &str)> =
            rules.split(' ').map(|rule| (rule.starts_with('+'), &rule[1..])).collect();
        let lists = lists(&rules).unwrap();
        assert_eq!(
            (lists.allow, lists.deny),
            (allow.iter().map(ToString::to_string).collect(), deny.iter().map(ToString::to_string).collect())
        );
        assert_eq!((lists.has_exception, lists.denies_rest), flags);
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        check("+10.0.0.0/8 -all", &["10.0.0.0/8"], &[], (false, true));
        check("-10.0.0.1", &[], &["10.0.0.1"], (false, false));
        check("-10.9.0.0/16 +10.0.0.0/8 -all", &["10.0.0.0/8"], &["10.9.0.0/16"], (false, true));
        check("+10.9.0.0/16 -10.0.0.0/8", &[], &["10.0.0.0/8"], (true, false));
        check("+all -10.0.0.0/8", &[], &[], (false, false));
        check("-all +10.0.0.0/8", &[], &[], (false, true));
        check("+unix: -all", &["unix"], &[], (false, true));
        assert!(lists(&[(true, "x")]).is_err());
    }
}
