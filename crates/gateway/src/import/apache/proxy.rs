//! `ProxyPass` and what stands beside it: the server of a route, and how it is asked.

use super::address::Server;
use super::context::Context;
use super::item::{Item, Taken, bare};
use super::redirect::groups;
use super::vhost::Vhost;
use super::{balancer, top};
use crate::import::book::Outcome;
use crate::import::pattern;
use crate::import::sheet::{Section, path};
use crate::import::tree::Directive;

/// The keys of a route that asks a server. Without `base` the server's path has groups of the route's pattern.
pub(super) fn write<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    sections: &[&'a Directive],
    item: &Item<'a>,
    (server, base, by): (&Server, Option<&str>, &'a Directive),
    route: &mut Section,
) {
    let target =
        if server.is_balancer() { balancer::name(context, found, server, by) } else { server.address() };
    context.book.key(route, by, "proxy", target);
    if matches!(server.scheme.as_str(), "h2" | "h2c") {
        route.set("protocol", "h2", None);
    }
    paths(context, item, (server, base, by), route);
    options(context, found, by, route);
    if server.is_tls() {
        tls(context, found, route);
    }
    host(context, found, sections, server, by, route);
    let inside = sections.iter().flat_map(|section| section.inside());
    for reverse in found.scope.every().chain(inside) {
        match reverse.name.as_str() {
            "proxypassreverse" | "proxypassreversecookiepath" => {
                context.book.itself(
                    route,
                    reverse,
                    "Location and the paths of cookies come back as clients know them",
                );
            }
            "proxypassreversecookiedomain" => {
                context.book.misses(route, reverse, "domains of cookies stay as servers send them");
            }
            "proxyerroroverride" if reverse.arg(0).eq_ignore_ascii_case("on") => {
                context.book.key(route, reverse, "intercept_errors", true);
            }
            _ => {}
        }
    }
}

/// The Host that the server gets.
fn host(
    context: &mut Context<'_>,
    found: &Vhost<'_>,
    sections: &[&Directive],
    server: &Server,
    by: &Directive,
    route: &mut Section,
) {
    let inside = sections.iter().flat_map(|section| section.inside());
    let preserve =
        found.scope.every().chain(inside).filter(|directive| directive.name == "proxypreservehost").last();
    if let Some(preserve) = preserve.filter(|preserve| preserve.arg(0).eq_ignore_ascii_case("on")) {
        return context.book.itself(route, preserve, "servers get the Host that the client sent");
    }
    if let Some(directive) = preserve {
        context.book.mark(directive, Outcome::Key);
    }
    if server.is_balancer() {
        let what =
            "Apache sends each server its own Host without ProxyPreserveHost, and here they get the client's";
        return route.note(format!("{}: {what}", by.at));
    }
    if !server.is_unix() {
        let what =
            "Apache sends this Host without ProxyPreserveHost; without the line servers get the client's";
        route.comment(format!("{}: {what}", by.at));
        route.set(&path(&["request_headers", "set", "Host"]), server.authority.clone(), None);
    }
}

/// Which path the server gets.
fn paths(
    context: &mut Context<'_>,
    item: &Item<'_>,
    (server, base, by): (&Server, Option<&str>, &Directive),
    route: &mut Section,
) {
    let new = server.path.as_deref().unwrap_or_default();
    let Some(base) = base else {
        return route.set("rewrite", groups(new), Some(&by.at));
    };
    if bare(base) == bare(new) {
        return;
    }
    if base.ends_with('/') != new.ends_with('/') && !bare(new).is_empty() {
        let what = "one of the paths has a slash at its end and the other has none; here what is behind the path has one in front";
        route.note(format!("{}: {what}", by.at));
    }
    let rest = |path: &str| bare(path).strip_prefix(bare(base)).unwrap_or_default().to_owned();
    match &item.taken {
        Taken::Path(own) if item.is_late => {
            let path = format!("{}{}", bare(new), rest(own));
            if path.is_empty() {
                route.set("path_regex", format!("{}(?:/(.*))?", pattern::escaped(bare(own))), None);
                route.set("rewrite", "/{1}", Some(&by.at));
            } else {
                route.set("rewrite", format!("{path}{{1}}"), Some(&by.at));
            }
        }
        Taken::Path(_) if bare(new).is_empty() => route.set("strip_prefix", bare(base), Some(&by.at)),
        Taken::Path(own) => route.set("rewrite", format!("{}{}{{rest}}", bare(new), rest(own)), Some(&by.at)),
        Taken::Exact(own) => {
            let path = format!("{}{}", bare(new), rest(own));
            route.set("rewrite", if path.is_empty() { "/".to_owned() } else { path }, Some(&by.at));
        }
        Taken::Pattern { .. } => {
            let what =
                "the path that the server gets for those of this pattern has no counterpart: write rewrite";
            context.book.remark(by, what);
            route.comment(format!("{}: {}: {what}; until then they get 501", by.at, by.shown()));
            route.unset("proxy");
            route.set("respond", 501, None);
        }
    }
}

/// What stands behind the address, and `ProxyTimeout`.
fn options(context: &mut Context<'_>, found: &Vhost<'_>, by: &Directive, route: &mut Section) {
    let value = |key: &str| by.args.iter().find_map(|arg| arg.strip_prefix(key));
    let of_scope = ["proxytimeout", "timeout"].into_iter().find_map(|name| found.scope.find(name));
    let time = value("timeout=").or(of_scope.map(|directive| directive.arg(0))).and_then(top::seconds);
    if let Some(of_scope) = of_scope {
        context.book.mark(of_scope, Outcome::Key);
    }
    if let Some(text) = time {
        route.set("response_timeout", text.clone(), Some(&by.at));
        route.comment(
            "Apache counts every byte of a WebSocket, pings too; idle_timeout counts messages alone, and clients that are \
             gone are found by pings: write \"off\" if sessions may be silent for longer",
        );
        route.set("websocket.idle_timeout", text, None);
    }
    if let Some(text) = value("connectiontimeout=").and_then(top::seconds) {
        route.set("connect_timeout", text, Some(&by.at));
    }
    if value("disablereuse=").is_some_and(|on| on.eq_ignore_ascii_case("on")) {
        route.set("pool", "off", Some(&by.at));
    }
    if let Some(sticky) = value("stickysession=") {
        let cookie = sticky.split('|').next().unwrap_or(sticky);
        let is_written = |upstream: &Section| {
            upstream.get("name") == route.get("proxy")
                && upstream.get("sticky.cookie") == Some(&cookie.into())
        };
        if !context.site.upstreams.iter().any(is_written) {
            let what = format!(
                "an [[upstream]] has one sticky cookie for all of its routes, and {cookie} is not the one of this: write it there"
            );
            context.book.remark(by, &what);
        }
    }
    let is_usual = |word: &&str| word.eq_ignore_ascii_case("websocket") || word.eq_ignore_ascii_case("any");
    if let Some(upgrade) = value("upgrade=").filter(|word| !is_usual(word)) {
        route.note(format!(
            "{}: upgrade={upgrade}: WebSockets pass; write upgrade for other protocols",
            by.at
        ));
    }
    const SAID: [&str; 4] = ["timeout=", "connectiontimeout=", "disablereuse=", "upgrade="];
    let is_other = |arg: &&String| {
        arg.contains('=')
            && !arg.contains("://")
            && !arg.starts_with('[')
            && !SAID.iter().any(|said| arg.starts_with(said))
    };
    let others: Vec<&str> = by.args.iter().filter(is_other).map(String::as_str).collect();
    if by.name.starts_with("proxypass") && !others.is_empty() {
        route.note(format!("{}: {} of {} has no counterpart", by.at, others.join(" "), by.name));
    }
}

/// TLS towards the server.
fn tls(context: &mut Context<'_>, found: &Vhost<'_>, route: &mut Section) {
    let scope = &found.scope;
    for name in ["sslproxyengine", "sslproxycheckpeername", "sslproxycheckpeercn", "sslproxycheckpeerexpire"]
    {
        if let Some(directive) = scope.find(name) {
            context.book.mark(directive, Outcome::ByItself);
        }
    }
    let ca = scope.find("sslproxycacertificatefile");
    if let Some((ca, file)) = ca.and_then(|ca| Some((ca, context.path(ca.arg(0))?))) {
        context.book.key(route, ca, "tls.ca", file);
    }
    if let Some(own) = scope.find("sslproxymachinecertificatefile") {
        let what =
            "the certificate that servers get is tls.client_certificate, with its key in a file: write both";
        context.book.misses(route, own, what);
    }
    let what = "the server's certificate is verified here, with its name and its dates: if it is not issued by an authority \
                that this system trusts, name its authority (tls.ca), and the name that it is valid for (tls.server_name)";
    match scope.find("sslproxyverify") {
        Some(verify) if verify.arg(0).eq_ignore_ascii_case("require") => {
            context.book.itself(route, verify, "certificates of servers are always verified");
        }
        Some(verify) => context.book.misses(route, verify, what),
        None => route.note(what),
    }
}
