//! One location as routes: which of its directives says what is done.

use super::choice::choose;
use super::context::Context;
use super::here::Here;
use super::location::{Base, Form, Location, Spot};
use super::server::{Server, set};
use super::{access, answer, fields, files, guards, php, proxy};
use crate::import::book::Outcome;
use crate::import::sheet::{Section, table};
use crate::import::spelling;

/// The route of a location, and those that have to stand beside it.
pub(super) fn routes<'a>(
    context: &mut Context<'a>,
    server: &Server<'a>,
    locations: &[Location<'a>],
    spot: &Spot,
) -> Vec<Section> {
    let location = &locations[spot.location];
    let scope = location.scope.clone();
    let mut facts = server.facts.clone();
    set(context, &scope, &mut facts);
    let here = Here { server, locations, spot, scope, facts };
    let mut route = Section::default();
    route.set(spot.key, spot.value.clone(), location.directive.map(|directive| &directive.at));
    if let Some(directive) = location.directive {
        context.book.mark(directive, Outcome::Key);
    }
    if let (Form::Prefix(path) | Form::Stop(path), "path") = (&location.form, spot.key)
        && !path.ends_with('/')
    {
        route.note(format!("{path} and what is below it; nginx would take {path}x, too"));
    }
    let mut sections: Vec<Section> = Vec::new();
    for condition in answer::conditions(context, server, &here.scope, &mut route) {
        let mut section = Section::default();
        section.set(spot.key, spot.value.clone(), None);
        section.append(condition);
        sections.push(section);
    }
    let is_internal = here.scope.own_all("internal").next();
    if let Some(internal) = is_internal {
        context.book.itself(
            &mut route,
            internal,
            "clients get 404; error pages and auth_request are asked for without it",
        );
        accelerated(context, &here, internal);
        route.set("respond", 404, None);
        fields::response(context, server, &here.scope, &mut route, false);
    } else if location.is_lost {
        route.set("respond", 501, None);
        context.book.mark_all(here.scope.own(), Outcome::Commented);
    } else {
        act(context, &here, &mut route, &mut sections);
    }
    if let Some(types) = here.scope.own_all("types").next().filter(|_| location.directive.is_some()) {
        context.book.misses(
            &mut route,
            types,
            "files have the media type of their extension, which no key changes",
        );
        context.book.mark_all(types.inside(), Outcome::Commented);
    }
    // `@app` is a part of the location that names it, and what it says was read there.
    if let Some(directive) = location.directive {
        context.finish(directive.inside(), &mut route);
    }
    // The conditions of the same path come first.
    sections.push(route);
    if let Some(directive) = location.directive {
        guards::close_lost(context, directive.inside(), &mut sections);
    }
    sections
}

/// Tells of an internal location that servers send clients to.
fn accelerated(context: &mut Context<'_>, here: &Here<'_, '_>, internal: &crate::import::tree::Directive) {
    let is_named = |name: &str| {
        let scopes = here.locations.iter().map(|location| &location.scope).chain([&here.server.scope]);
        scopes
            .flat_map(|scope| scope.all(name))
            .filter_map(|directive| directive.args.last())
            .any(|target| choose(here.locations, target) == Some(here.spot.location))
    };
    let has_files =
        ["root", "alias", "proxy_pass"].iter().any(|name| here.scope.own_all(name).next().is_some());
    if has_files && !["auth_request", "error_page", "try_files"].into_iter().any(is_named) {
        let what = "X-Accel-Redirect goes to clients as servers send it: have the server send what it names";
        context.book.remark(internal, what);
    }
}

/// What is done with the requests of a location.
fn act<'a>(context: &mut Context<'a>, here: &Here<'a, '_>, route: &mut Section, beside: &mut Vec<Section>) {
    let own = |name: &str| here.scope.own_all(name).next();
    if let Some(answered) = own("return") {
        answer::give(context, route, answered, &here.facts, &here.scope);
        fields::response(context, here.server, &here.scope, route, false);
        return;
    }
    if let Some(rewrite) = own("rewrite")
        && redirects(context, here, rewrite, route)
    {
        return;
    }
    let is_denied = access::denies_all(context, here, route);
    if is_denied {
        fields::response(context, here.server, &here.scope, route, false);
        return;
    }
    if let Some(pass) = own("proxy_pass").or_else(|| own("grpc_pass")) {
        if let Some(files) = own("try_files") {
            let meaning = "files are not tried before a server: give them a route of their own, with the paths they have";
            context.book.misses(route, files, meaning);
        }
        proxy::route(context, here, &here.scope, pass, route);
        slash(context, here, route, beside);
    } else if let Some(pass) = own("fastcgi_pass") {
        php::route(context, here, pass, route);
    } else if let Some(pass) =
        ["uwsgi_pass", "scgi_pass", "memcached_pass", "stub_status", "content_by_lua_block"]
            .iter()
            .find_map(|name| own(name))
    {
        let what = match pass.name.as_str() {
            "stub_status" => "write [admin]: it has /metrics, and a page for people",
            "content_by_lua_block" => "there are no scripts in the gateway",
            _ => "the gateway doesn't speak this protocol with servers; have it speak HTTP, and write proxy",
        };
        answer::missing(context, route, pass, what);
    } else {
        files::route(context, here, route);
    }
}

/// A `rewrite` that answers every request of the location.
fn redirects<'a>(
    context: &mut Context<'a>,
    here: &Here<'a, '_>,
    rewrite: &'a crate::import::tree::Directive,
    route: &mut Section,
) -> bool {
    use crate::import::pattern;
    let flag = rewrite.arg(2);
    let is_redirect = matches!(flag, "permanent" | "redirect") || rewrite.arg(1).starts_with("http");
    if !is_redirect {
        return false; // a proxy may have a use for it
    }
    let theirs = rewrite.arg(0);
    // All requests, if the pattern is that of the location or of every path below it.
    let is_same = match &here.spot.base {
        Base::Pattern(own) => own == theirs,
        Base::Prefix(path) | Base::Exact(path) | Base::Converted(path) => {
            let (front, rest) = pattern::literal_front(theirs.strip_prefix('^').unwrap_or(theirs));
            path.starts_with(&front)
                && matches!(rest, "" | ".*" | ".*$" | "(.*)" | "(.*)$")
                && (rest != "$" || *path == front)
        }
    };
    let mut made = Section::default();
    let Some(section) = answer::redirect(context, rewrite, &here.facts, &mut made) else {
        route.append(made);
        return false;
    };
    if pattern::matches_all(theirs).is_some() {
        if let Some(to) = section.get("redirect") {
            route.set("redirect", to.clone(), Some(&rewrite.at));
        }
        return true;
    }
    if is_same
        && let (Some(to), Some(pattern)) = (section.get("redirect"), section.get("path_regex"))
        && here.spot.key == "path_regex"
    {
        if !matches!(here.spot.base, Base::Pattern(_)) {
            route.set("path_regex", pattern.clone(), Some(&rewrite.at));
        }
        route.set("redirect", to.clone(), Some(&rewrite.at));
        return true;
    }
    if is_same && let Some(to) = below(&here.spot.base, rewrite) {
        let status: u32 = if flag == "permanent" { 301 } else { 302 };
        route.set("redirect", table([("to", to.into()), ("status", status.into())]), Some(&rewrite.at));
        return true;
    }
    let meaning =
        "only some of the location's requests match it: write a route with path_regex and redirect for them";
    context.book.misses(route, rewrite, meaning);
    false
}

/// The target of a redirect for all that is below a path.
fn below(base: &Base, rewrite: &crate::import::tree::Directive) -> Option<String> {
    let Base::Prefix(path) = base else { return None };
    let (front, rest) = crate::import::pattern::literal_front(rewrite.arg(0).strip_prefix('^')?);
    let new = rewrite.arg(1);
    let query = if new.ends_with('?') || new.contains("$request_uri") { "" } else { "{query}" };
    let new = new.trim_end_matches('?');
    if new.contains(['{', '?']) || new.matches('$').count() > 1 {
        return None;
    }
    match (rest, new.strip_suffix("$1")) {
        ("(.*)" | "(.*)$", Some(before)) if front == *path => {
            Some(format!("{}{{rest}}{query}", before.strip_suffix('/').unwrap_or(before)))
        }
        ("" | ".*" | ".*$", None) if !new.contains('$') => Some(format!("{new}{query}")),
        _ => None,
    }
}

/// nginx sends `/x` to `/x/`, if a location `/x/` asks a server.
fn slash<'a>(context: &mut Context<'a>, here: &Here<'a, '_>, route: &mut Section, beside: &mut Vec<Section>) {
    let (Base::Prefix(path) | Base::Converted(path)) = &here.spot.base else { return };
    let Some(bare) = path.strip_suffix('/').filter(|bare| !bare.is_empty()) else { return };
    let is_bare = |other: &Location<'_>| match &other.form {
        Form::Exact(path) | Form::Prefix(path) | Form::Stop(path) => path == bare,
        _ => false,
    };
    if here.locations.iter().any(is_bare) || route.get("respond").is_some() {
        return;
    }
    let Ok(spelled) = spelling::path(bare) else { return };
    let mut section = Section::default();
    section.comment(format!("nginx sends {bare} there, since the location with the slash asks a server"));
    section.set("path_exact", spelled.clone(), None);
    section.set(
        "redirect",
        table([("to", format!("{spelled}/{{query}}").into()), ("status", 301.into())]),
        None,
    );
    fields::response(context, here.server, &here.scope, &mut section, false);
    beside.push(section);
}
