//! Files of a directory, and what `try_files` leads to.

use super::context::Context;
use super::directory::{directory, fallback};
use super::here::Here;
use super::{access, answer, fields, guards, pages, php, proxy, times};
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// A location without a server: files, or what `try_files` leads to.
pub(super) fn route<'a>(context: &mut Context<'a>, here: &Here<'a, '_>, route: &mut Section) {
    let tried = here.scope.own_all("try_files").next();
    if let Some(tried) = tried
        && let Some(name) = tried.args.last().filter(|last| last.starts_with('@'))
    {
        return named(context, here, tried, name, route);
    }
    let Some((directory, origin)) = directory(context, here) else {
        nothing(context, here, route);
        return;
    };
    context.book.mark(origin, Outcome::Key);
    let script = php::script(here, tried);
    if let Some((pass, scope)) = &script {
        let fallback = tried.and_then(fallback);
        if !php::server(context, here, scope, pass, route, &directory, fallback) {
            return;
        }
        guards::close_target(context, scope, route);
    }
    route.set("files.directory", directory, Some(&origin.at));
    keys(context, here, route);
    if let Some(tried) = tried {
        try_files(context, tried, script.is_some(), route);
    }
    access::route(context, here, route, script.is_some());
    fields::response(context, here.server, &here.scope, route, false);
    pages::pages(context, here, &here.scope, route);
    pages::compress(context, &here.scope, route);
}

/// There is neither a server nor a directory.
fn nothing(context: &mut Context<'_>, here: &Here<'_, '_>, route: &mut Section) {
    route.comment("nginx would serve the directory html of its own prefix");
    route.set("respond", 404, None);
    if let Some(alias) = here.scope.own_all("alias").next().or_else(|| here.scope.find("root")) {
        let what = "files with this name can't be served from there: directories have names without variables, and stand for \
                    whole paths; these requests get 404";
        context.book.misses(route, alias, what);
    }
}

/// `try_files … @app`: the files can't be tried first, so the requests go where they would go without files.
fn named<'a>(
    context: &mut Context<'a>,
    here: &Here<'a, '_>,
    tried: &'a Directive,
    name: &str,
    route: &mut Section,
) {
    let Some(location) = here.locations.iter().find(|location| location.is_named(name)) else {
        answer::missing(context, route, tried, &format!("there is no location {name}"));
        return;
    };
    let has_files = tried.args.len() > 1;
    if let Some(directive) = location.directive {
        context.book.mark(directive, Outcome::Key);
    }
    let scope = &location.scope;
    let pass = scope.own_all("proxy_pass").next();
    if let Some(pass) = pass {
        if has_files {
            let what = format!(
                "every request goes to {name}, since files are not tried before a server: give the files a route of their \
                 own, with the paths that they have"
            );
            context.book.misses(route, tried, &what);
        } else {
            context.book.mark(tried, Outcome::Key);
        }
        proxy::route(context, here, scope, pass, route);
    } else if let Some(pass) = scope.own_all("fastcgi_pass").next() {
        context.book.mark(tried, Outcome::Key);
        let front = php::only_script(scope, &here.facts).unwrap_or_else(|| "/index.php".to_owned());
        match directory(context, here) {
            Some((directory, _))
                if php::server(context, here, scope, pass, route, &directory, Some(&front)) =>
            {
                route.set("files.directory", directory, Some(&tried.at));
                route.set("files.fallback", front, None);
            }
            Some(_) => {}
            None => drop(answer::missing(context, route, pass, "there is no root with the scripts")),
        }
        access::route(context, here, route, true);
        fields::response(context, here.server, scope, route, true);
    } else if let Some(answered) = scope.own_all("return").next() {
        answer::give(context, route, answered, &here.facts, scope);
        context.book.misses(
            route,
            tried,
            "files are not tried before an answer: give them a route of their own",
        );
    } else {
        answer::missing(context, route, tried, &format!("what {name} does has no counterpart"));
    }
    context.finish(scope.own(), route);
    guards::close_target(context, scope, route);
}

/// `index`, `autoindex` and other keys of `[route.files]`.
fn keys(context: &mut Context<'_>, here: &Here<'_, '_>, route: &mut Section) {
    let scope = &here.scope;
    let book = &mut context.book;
    if let Some(index) = scope.find("index") {
        let names: Vec<String> =
            index.args.iter().filter(|name| !name.starts_with('/') && !name.contains('$')).cloned().collect();
        if names.len() < index.args.len() {
            book.remark(index, "names with a path or a variable are left out");
        }
        if names.is_empty() {
            book.lacks(route, index, "index.html is the file of a directory");
        } else {
            book.key(route, index, "files.index", names);
        }
    }
    if scope.is_on("autoindex")
        && let Some(listing) = scope.find("autoindex")
    {
        book.key(route, listing, "files.listing", true);
    }
    for name in ["autoindex", "autoindex_exact_size", "autoindex_format", "autoindex_localtime"] {
        if let Some(directive) = scope.find(name).filter(|directive| !book.knows(directive)) {
            book.itself(route, directive, "lists are HTML, with the gateway's own look");
        }
    }
    if scope.is_on("gzip_static")
        && let Some(precompressed) = scope.find("gzip_static")
    {
        book.key(route, precompressed, "files.precompressed", true);
    }
    if let Some(expires) = scope.find("expires") {
        let text = expires.args.join(" ");
        match (text.as_str(), times::time(&text)) {
            ("off", _) => {
                book.itself(route, expires, "files have no time for caches where files.cache doesn't say so");
            }
            ("epoch", _) => book.key(route, expires, "files.cache", "0s"),
            ("max", _) => book.key(route, expires, "files.cache", "3650d"),
            (text, _) if text.starts_with('-') => book.key(route, expires, "files.cache", "0s"),
            (_, Some(time)) => {
                let time = if time.is_zero() { "0s".to_owned() } else { times::shown(time) };
                book.key(route, expires, "files.cache", time);
            }
            _ => book.misses(route, expires, "this is no time"),
        }
    }
}

fn try_files(context: &mut Context<'_>, tried: &Directive, has_script: bool, route: &mut Section) {
    let book = &mut context.book;
    let tries = &tried.args[..tried.args.len().saturating_sub(1)];
    let is_usual = tries.iter().all(|name| matches!(name.as_str(), "$uri" | "$uri/" | "$uri/index.html"));
    let last = tried.args.last().map_or("", String::as_str);
    match (last, fallback(tried)) {
        ("=404" | "$uri" | "$uri/" | "$uri/index.html", _) if is_usual => {
            book.itself(route, tried, "files that aren't there are answered with 404");
        }
        (_, Some(name)) if is_usual || has_script => {
            book.key(route, tried, "files.fallback", name.to_owned());
        }
        _ => {
            let what =
                "files are found by the path and by index; of other names there is only one fallback, a file";
            book.misses(route, tried, what);
        }
    }
}
