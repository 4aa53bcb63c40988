//! `proxy_pass` and what stands beside it: the server of a route, and how it is asked.

use super::context::Context;
use super::here::Here;
use super::location::Base;
use super::pass::{Pass, pass};
use super::scope::Scope;
use super::upstreams;
use super::variables::{Facts, Use, template};
use super::{access, answer, fields, times};
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;
use crate::import::{pattern, spelling};

/// The route of a location that asks a server. `scope` is the location's, or that of the one with a name that it leads to.
pub(super) fn route<'a>(
    context: &mut Context<'a>,
    here: &Here<'a, '_>,
    scope: &Scope<'a>,
    directive: &'a Directive,
    route: &mut Section,
) {
    let passed = match pass(directive.arg(0), &here.facts) {
        Ok(passed) => passed,
        Err(unknown) => {
            answer::missing(context, route, directive, &unknown.to_string());
            return;
        }
    };
    let target = upstreams::target(context, scope, &passed);
    context.book.key(route, directive, "proxy", target);
    if directive.name == "grpc_pass" {
        route.set("protocol", "h2", None);
    }
    paths(context, here, scope, directive, &passed, route);
    timeouts(context, scope, route);
    connection(context, scope, directive, &passed, route);
    answers(context, scope, route);
    fields::request(context, here, scope, &passed, directive, route);
    fields::response(context, here.server, scope, route, true);
    access::route(context, here, route, true);
    super::pages::pages(context, here, scope, route);
    super::pages::compress(context, scope, route);
}

/// Which path the server gets.
fn paths(
    context: &mut Context<'_>,
    here: &Here<'_, '_>,
    scope: &Scope<'_>,
    directive: &Directive,
    passed: &Pass,
    route: &mut Section,
) {
    if passed.has_query {
        let meaning = "the query in the address is left out: servers get the client's";
        context.book.remark(directive, meaning);
        route.note(format!("{}: {meaning}", directive.at));
    }
    let rewrite = scope.own_all("rewrite").find(|rewrite| !context.book.knows(rewrite));
    let new = match (rewrite, &passed.path) {
        (Some(rewrite), _) => match rewritten(here, rewrite) {
            Some(new) => {
                context.book.mark(rewrite, Outcome::Key);
                Some(new)
            }
            None => {
                let meaning = "servers get these paths unchanged: write `rewrite` in a route with the pattern as path_regex";
                context.book.misses(route, rewrite, meaning);
                None
            }
        },
        (None, Some(path)) => Some(path.clone()),
        (None, None) => None,
    };
    let Some(new) = new else { return };
    let origin = rewrite.map_or(&directive.at, |rewrite| &rewrite.at);
    let bare = |path: &str| path.strip_suffix('/').unwrap_or(path).to_owned();
    match &here.spot.base {
        Base::Prefix(path) if bare(path) == bare(&new) => {}
        Base::Prefix(path) => {
            if bare(&new).is_empty() {
                let front = spelling::path(path).unwrap_or_else(|_| path.clone());
                route.set("strip_prefix", bare(&front), Some(origin));
            } else {
                route.set("rewrite", format!("{}{{rest}}", bare(&new)), Some(origin));
            }
            if rewrite.is_none() && path.ends_with('/') != new.ends_with('/') && path != "/" {
                route.note(format!(
                    "{origin}: nginx puts {new:?} in place of {path:?} as text, one of which ends with a slash; here the \
                     parts of a path stay whole"
                ));
            }
            location_back(context, scope, route);
        }
        Base::Exact(path) if *path == new => {}
        Base::Exact(_) | Base::Pattern(_) => route.set("rewrite", new, Some(origin)),
        Base::Converted(path) => {
            if *path == new {
                return;
            }
            let front = spelling::pattern(path).unwrap_or_else(|_| pattern::escaped(path));
            route.set("path_regex", format!("{front}(.*)"), None);
            let new = if rewrite.is_some() && !new.ends_with('/') { format!("{new}/") } else { new };
            route.set("rewrite", format!("{new}{{1}}"), Some(origin));
            let what = "paths in answers of the server (Location, cookies) stay as they are, since the route has a pattern";
            context.book.remark(directive, what);
            route.note(what);
        }
    }
}

/// Whether Location and the paths of cookies come back.
fn location_back(context: &mut Context<'_>, scope: &Scope<'_>, route: &mut Section) {
    match scope.find("proxy_redirect") {
        Some(redirect) if redirect.arg(0) == "off" => {
            context.book.key(route, redirect, "rewrite_location", false);
        }
        Some(redirect) if redirect.arg(0) == "default" => {
            let how = "Location and the paths of cookies come back as clients know them";
            context.book.itself(route, redirect, how);
        }
        _ => {}
    }
}

/// What is said of answers and has no key.
fn answers(context: &mut Context<'_>, scope: &Scope<'_>, route: &mut Section) {
    for redirect in scope.all("proxy_redirect") {
        if context.book.knows(redirect) || redirect.arg(0) == "off" {
            continue;
        }
        let what = "Location comes back as clients know it where it is below the server's own address and path \
                    (rewrite_location); other texts in it stay";
        context.book.misses(route, redirect, what);
    }
    for cookie in scope.all("proxy_cookie_path") {
        if cookie.arg(1).contains(';') {
            context.book.misses(route, cookie, "cookies stay as servers send them, without these attributes");
        }
    }
    if let Some(expires) = scope.find("expires").filter(|expires| expires.arg(0) != "off") {
        let what = "answers of servers have the Cache-Control that the server sends; write response_headers for another one";
        context.book.misses(route, expires, what);
    }
}

/// The path that a `rewrite … break` gives to the server, with the rest of the location's path behind it.
fn rewritten(here: &Here<'_, '_>, rewrite: &Directive) -> Option<String> {
    let (theirs, new) = (rewrite.arg(0), rewrite.arg(1));
    if !matches!(rewrite.arg(2), "break" | "") || new.contains('?') {
        return None;
    }
    if let Base::Pattern(own) = &here.spot.base {
        return (own == theirs).then(|| template(new, &here.facts, Use::Path).ok()).flatten();
    }
    let (front, rest) = pattern::literal_front(theirs.strip_prefix('^').unwrap_or(theirs));
    let (Base::Prefix(path) | Base::Exact(path) | Base::Converted(path)) = &here.spot.base else {
        return None;
    };
    let bare = |path: &str| path.strip_suffix('/').unwrap_or(path).to_owned();
    let is_all = matches!(rest, "(.*)" | "(.*)$" | "/?(.*)" | "/?(.*)$" | "(/.*)" | "(/.*)$" | "(/.*|$)");
    if bare(&front) != bare(path) || !is_all {
        return None;
    }
    let before = new.strip_suffix("$1")?;
    let before = if before.is_empty() { "/" } else { before };
    // nginx has it decoded, and encodes it for the server.
    (!before.contains('$')).then(|| spelling::path(before).unwrap_or_else(|_| before.to_owned()))
}

/// How long a server may take.
fn timeouts(context: &mut Context<'_>, scope: &Scope<'_>, route: &mut Section) {
    let book = &mut context.book;
    for names in [["proxy_connect_timeout", "grpc_connect_timeout"]] {
        let Some(directive) = names.iter().find_map(|name| scope.find(name)) else { continue };
        match times::duration(directive.arg(0)) {
            Some(text) => book.key(route, directive, "connect_timeout", text),
            None => book.lacks(route, directive, "this is no time that connect_timeout can have"),
        }
    }
    let read = scope.find("proxy_read_timeout").or_else(|| scope.find("grpc_read_timeout"));
    if let Some(directive) = read {
        match times::duration(directive.arg(0)) {
            Some(text) => {
                let how = "nginx also ends WebSockets after this time without a byte, pings included; here clients that are \
                           gone are found by pings, and websocket.idle_timeout would end sessions without messages";
                book.nearly(route, directive, ("response_timeout", text), how);
            }
            None => book.lacks(route, directive, "this is no time that response_timeout can have"),
        }
    }
    for name in ["proxy_send_timeout", "grpc_send_timeout"] {
        if let Some(directive) = scope.find(name) {
            let how = "response_timeout is also for what a server doesn't take";
            book.itself(route, directive, how);
        }
    }
}

/// Connections to servers, and TLS on them.
fn connection(
    context: &mut Context<'_>,
    scope: &Scope<'_>,
    directive: &Directive,
    passed: &Pass,
    route: &mut Section,
) {
    for name in ["proxy_pass_request_headers", "proxy_pass_request_body"] {
        if let Some(off) = scope.find(name).filter(|directive| directive.arg(0) == "off") {
            context.book.misses(route, off, "the server gets what clients send");
        }
    }

    if let Some(bind) = scope.find("proxy_bind") {
        let address = bind.arg(0);
        if address.parse::<std::net::IpAddr>().is_ok() {
            context.book.key(route, bind, "source_addresses", address);
        } else {
            context.book.misses(route, bind, "source_addresses has addresses of this machine alone");
        }
    }
    if let Some(intercept) = scope.find("proxy_intercept_errors") {
        context.book.mark(intercept, Outcome::ByItself);
    }
    if !passed.is_tls {
        for name in [
            "proxy_ssl_verify",
            "proxy_ssl_trusted_certificate",
            "proxy_ssl_name",
            "proxy_ssl_certificate",
            "proxy_ssl_certificate_key",
        ] {
            if let Some(directive) = scope.find(name) {
                context.book.itself(route, directive, "it only matters for servers behind https://");
            }
        }
        return;
    }
    if let Some(name) = scope.find("proxy_ssl_name") {
        match template(name.arg(0), &Facts::default(), Use::Constant) {
            Ok(name_text) => context.book.key(route, name, "tls.server_name", name_text),
            Err(_) => context.book.misses(
                route,
                name,
                "tls.server_name is one name; without it, it is that of the address",
            ),
        }
    }
    if let Some(ca) = scope.find("proxy_ssl_trusted_certificate") {
        let file = context.places.conf(ca.arg(0));
        context.book.key(route, ca, "tls.ca", file);
    }
    if let (Some(chain), Some(key)) =
        (scope.find("proxy_ssl_certificate"), scope.find("proxy_ssl_certificate_key"))
    {
        let [chain_file, key_file] = [chain, key].map(|directive| context.places.conf(directive.arg(0)));
        context.book.key(route, chain, "tls.client_certificate.chain", chain_file);
        context.book.key(route, key, "tls.client_certificate.key", key_file);
    }
    let what = "the server's certificate is verified here, and not in nginx: if it is not issued by an authority that this \
                system trusts, name its authority (tls.ca), and the name that it is valid for (tls.server_name)";
    match scope.find("proxy_ssl_verify") {
        Some(verify) if verify.arg(0) == "on" => {
            context.book.itself(route, verify, "certificates of servers are always verified");
        }
        Some(verify) => context.book.misses(route, verify, what),
        None => {
            context.book.remark(directive, what);
            route.note(what);
        }
    }
}
