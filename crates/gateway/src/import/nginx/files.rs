//! Files of a directory, scripts of PHP, error pages and compression.

use super::context::Context;
use super::here::Here;
use super::location::{Base, Form, Location};
use super::scope::Scope;
use super::variables::{Use, template};
use super::{access, answer, fields, guards, pages, proxy, times};
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
    let script = tried
        .and_then(|tried| fallback(tried))
        .filter(|name| name.ends_with(".php"))
        .and_then(|_| script(here));
    if let Some((pass, scope)) = &script {
        route.set("files.directory", directory.clone(), Some(&origin.at));
        fastcgi(context, here, scope, pass, route, Some(&directory));
        guards::close_target(context, scope, route);
    } else {
        route.set("files.directory", directory, Some(&origin.at));
    }
    context.book.mark(origin, Outcome::Key);
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
        let directory = directory(context, here).map(|(directory, _)| directory);
        if let Some(directory) = &directory {
            route.set("files.directory", directory.clone(), Some(&tried.at));
            route.set("files.fallback", "/index.php", None);
        }
        context.book.mark(tried, Outcome::Key);
        fastcgi(context, here, scope, pass, route, directory.as_deref());
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

/// The directory of a location's files, where the names in it are those behind the route's path.
fn directory<'a>(context: &Context<'a>, here: &Here<'a, '_>) -> Option<(String, &'a Directive)> {
    let constant = |text: &str| template(text, &here.facts, Use::Constant).ok();
    let bare = |path: &str| path.strip_suffix('/').filter(|bare| !bare.is_empty()).unwrap_or(path).to_owned();
    if let Some(alias) = here.scope.own_all("alias").next() {
        let target = context.places.prefix(&constant(alias.arg(0))?);
        return match &here.spot.base {
            Base::Prefix(_) => Some((bare(&target), alias)),
            // A file, whose name has to be that of the path.
            Base::Exact(path) => {
                let directory = target.strip_suffix(path.as_str())?;
                Some((if directory.is_empty() { "/".to_owned() } else { directory.to_owned() }, alias))
            }
            Base::Converted(path) => {
                let directory = bare(&target).strip_suffix(&bare(path)).map(str::to_owned)?;
                Some((if directory.is_empty() { "/".to_owned() } else { directory }, alias))
            }
            Base::Pattern(_) => None,
        };
    }
    let root = here.scope.find("root")?;
    let target = bare(&context.places.prefix(&constant(root.arg(0))?));
    Some(match &here.spot.base {
        Base::Prefix(path) => (bare(&format!("{}{path}", target.trim_end_matches('/'))), root),
        Base::Exact(_) | Base::Converted(_) | Base::Pattern(_) => (target, root),
    })
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

/// The last argument of `try_files`, if it is the name of a file.
fn fallback(tried: &Directive) -> Option<&str> {
    let last = tried.args.last()?.split(['?', '$']).next()?;
    (last.starts_with('/') && last.len() > 1 && !last.ends_with('/')).then_some(last)
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

/// The location that runs PHP, and what holds there.
fn script<'a, 'b>(here: &'b Here<'a, '_>) -> Option<(&'a Directive, Scope<'a>)> {
    let runs_php = |location: &&Location<'a>| matches!(&location.form, Form::Regex(pattern, _) if pattern.contains("php"));
    let mut of_php = here.locations.iter().filter(runs_php);
    of_php.find_map(|location| Some((location.scope.own_all("fastcgi_pass").next()?, location.scope.clone())))
}

/// A server of FastCGI. `files`: it runs the scripts among these files.
pub(super) fn fastcgi<'a>(
    context: &mut Context<'a>,
    here: &Here<'a, '_>,
    scope: &Scope<'a>,
    pass: &'a Directive,
    route: &mut Section,
    files: Option<&str>,
) {
    let Ok(server) = template(pass.arg(0), &here.facts, Use::Constant) else {
        answer::missing(context, route, pass, "the server's address has a variable");
        return;
    };
    // An upstream's servers have no scheme there.
    let (mut servers, says_more) = context.upstreams.servers(&server).unwrap_or((vec![server], false));
    if says_more {
        let what = "of its upstream the addresses are taken: weights, limits and the like are not";
        context.book.remark(pass, what);
        route.comment(format!("{}: {}: {what}", pass.at, pass.shown()));
    }
    match servers.len() {
        1 => context.book.key(route, pass, "fastcgi.server", servers.remove(0)),
        _ => context.book.key(route, pass, "fastcgi.server", servers),
    }
    if files.is_none() {
        match scope
            .find("root")
            .and_then(|root| Some((template(root.arg(0), &here.facts, Use::Constant).ok()?, root)))
        {
            Some((root, directive)) => {
                let root = context.places.prefix(&root);
                context.book.key(route, directive, "fastcgi.root", root);
            }
            None => {
                answer::missing(context, route, pass, "there is no root with the scripts");
                return;
            }
        }
    }
    if let Some(directive) = scope.find("fastcgi_read_timeout") {
        match times::duration(directive.arg(0)) {
            Some(text) => context.book.key(route, directive, "response_timeout", text),
            None => context.book.lacks(route, directive, "this is no time that response_timeout can have"),
        }
    }
    if let Some(directive) = scope.find("fastcgi_connect_timeout") {
        match times::duration(directive.arg(0)) {
            Some(text) => context.book.key(route, directive, "connect_timeout", text),
            None => context.book.lacks(route, directive, "this is no time that connect_timeout can have"),
        }
    }
}
