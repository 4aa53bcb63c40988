//! Scripts of PHP: `fastcgi_pass` and what stands beside it.

use super::context::Context;
use super::directory::{directory, fallback};
use super::here::Here;
use super::location::{Base, Form, Location};
use super::scope::Scope;
use super::variables::{Facts, Use, template};
use super::{access, answer, fields, times};
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;
use crate::site::matcher::PathRegex;

/// Variables that scripts get from the gateway as they do from nginx, and one that it never lets through.
const USUAL: [&str; 22] = [
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "DOCUMENT_ROOT",
    "DOCUMENT_URI",
    "GATEWAY_INTERFACE",
    "HTTPS",
    "HTTP_PROXY",
    "QUERY_STRING",
    "REDIRECT_STATUS",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "REMOTE_USER",
    "REQUEST_METHOD",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "SERVER_ADDR",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SOFTWARE",
];

/// A location with a `fastcgi_pass` of its own.
pub(super) fn route<'a>(
    context: &mut Context<'a>,
    here: &Here<'a, '_>,
    pass: &'a Directive,
    route: &mut Section,
) {
    let scope = &here.scope;
    let scripts = match (directory(context, here), filename(scope, &here.facts)) {
        (Some((directory, origin)), _) => Some((directory, origin)),
        // Without a root, the scripts are where the server of FastCGI is told that they are.
        (None, Filename::In(directory, origin)) => Some((below(here, &directory), origin)),
        (None, _) => None,
    };
    let Some((directory, origin)) = scripts else {
        answer::missing(context, route, pass, "there is no root with the scripts");
        return;
    };
    if !server(context, here, scope, pass, route, &directory, None) {
        return;
    }
    context.book.key(route, origin, "fastcgi.root", directory);
    if let Some(index) = scope.find("fastcgi_index").filter(|index| index.arg(0) != "index.php") {
        context.book.key(route, index, "fastcgi.index", index.arg(0));
    }
    if let Some(tried) = scope.own_all("try_files").next() {
        match fallback(tried).filter(|name| name.ends_with(".php")) {
            Some(name) => context.book.key(route, tried, "fastcgi.fallback", name),
            None => context.book.itself(route, tried, "scripts that aren't there are answered with 404"),
        }
    }
    access::route(context, here, route, true);
    fields::response(context, here.server, scope, route, true);
}

/// The location that runs the scripts which stand for a directory or for what isn't there, and what holds there.
pub(super) fn script<'a>(
    here: &Here<'a, '_>,
    tried: Option<&Directive>,
) -> Option<(&'a Directive, Scope<'a>)> {
    let of_index = here.scope.find("index").map_or(&[][..], |index| &index.args);
    let mut names = of_index.iter().map(String::as_str).chain(tried.and_then(fallback));
    if !names.any(|name| name.ends_with(".php")) {
        return None;
    }
    let runs_php = |location: &&Location<'a>| matches!(&location.form, Form::Regex(pattern, _) if pattern.contains("php"));
    let mut of_php = here.locations.iter().filter(runs_php);
    of_php.find_map(|location| Some((location.scope.own_all("fastcgi_pass").next()?, location.scope.clone())))
}

/// The script that a server of FastCGI always runs, by `SCRIPT_FILENAME`.
pub(super) fn only_script(scope: &Scope<'_>, facts: &Facts) -> Option<String> {
    match filename(scope, facts) {
        Filename::Script(name, _) => Some(name),
        Filename::Usual | Filename::In(..) | Filename::Other(_) => None,
    }
}

/// The server of FastCGI, and what it is told. `directory` is that of the scripts, and `fallback` the one that runs in
/// place of what isn't there. Without a counterpart the answer is 501.
pub(super) fn server<'a>(
    context: &mut Context<'a>,
    here: &Here<'a, '_>,
    scope: &Scope<'a>,
    pass: &'a Directive,
    route: &mut Section,
    directory: &str,
    fallback: Option<&str>,
) -> bool {
    let filename = filename(scope, &here.facts);
    let origin = match &filename {
        Filename::Other(origin) => Some(*origin),
        Filename::Script(name, origin) if fallback != Some(name.as_str()) => Some(*origin),
        _ => None,
    };
    if let Some(origin) = origin {
        answer::missing(
            context,
            route,
            origin,
            "the script is found by the path here, not by a name of its own",
        );
        return false;
    }
    let Ok(server) = template(pass.arg(0), &here.facts, Use::Constant) else {
        answer::missing(context, route, pass, "the server's address has a variable");
        return false;
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
    if let Filename::In(theirs, origin) = filename
        && let theirs = below(here, &theirs)
        && theirs != directory
    {
        context.book.key(route, origin, "fastcgi.document_root", theirs);
    }
    variables(context, here, scope, route);
    for directive in scope.all("fastcgi_hide_header") {
        fields::hidden(context, directive, route);
    }
    for (name, key) in
        [("fastcgi_read_timeout", "response_timeout"), ("fastcgi_connect_timeout", "connect_timeout")]
    {
        let Some(directive) = scope.find(name) else { continue };
        match times::duration(directive.arg(0)) {
            Some(text) => context.book.key(route, directive, key, text),
            None => context.book.lacks(route, directive, "this is no time that the key for it can have"),
        }
    }
    true
}

/// What `SCRIPT_FILENAME` says.
enum Filename<'a> {
    /// The script in the root.
    Usual,
    /// The script in a directory of this name, which is the server's own name for it.
    In(String, &'a Directive),
    /// Always the same script of the root.
    Script(String, &'a Directive),
    /// Something else.
    Other(&'a Directive),
}

fn filename<'a>(scope: &Scope<'a>, facts: &Facts) -> Filename<'a> {
    let params = scope.all("fastcgi_param");
    // The last one counts: files that are included often have one, too.
    let Some(param) = params.into_iter().rfind(|param| param.arg(0) == "SCRIPT_FILENAME") else {
        return Filename::Usual;
    };
    let front = match param.arg(1) {
        "$request_filename" => return Filename::Usual,
        value => match value.strip_suffix("$fastcgi_script_name") {
            Some(front) => front,
            None => {
                let name =
                    value.strip_prefix("$document_root").or_else(|| value.strip_prefix("$realpath_root"));
                return match name.filter(|name| name.starts_with('/') && !name.contains('$')) {
                    Some(name) => Filename::Script(name.to_owned(), param),
                    None => Filename::Other(param),
                };
            }
        },
    };
    match front.trim_end_matches('/') {
        "$document_root" | "$realpath_root" => Filename::Usual,
        front => match template(front, facts, Use::Constant) {
            Ok(directory) if directory.starts_with('/') => Filename::In(directory, param),
            _ => Filename::Other(param),
        },
    }
}

/// Where the scripts of a route are, in a directory with those of all paths.
fn below(here: &Here<'_, '_>, directory: &str) -> String {
    match &here.spot.base {
        Base::Prefix(path) => format!("{directory}{path}").trim_end_matches('/').to_owned(),
        Base::Exact(_) | Base::Converted(_) | Base::Pattern(_) => directory.to_owned(),
    }
}

/// What scripts are told.
fn variables(context: &mut Context<'_>, here: &Here<'_, '_>, scope: &Scope<'_>, route: &mut Section) {
    for param in scope.all("fastcgi_param") {
        let name = param.arg(0);
        if USUAL.contains(&name) {
            context.book.mark(param, Outcome::ByItself);
        } else if matches!(name, "PATH_INFO" | "PATH_TRANSLATED") {
            context.book.lacks(route, param, "/a.php/b is not a request for the script /a.php");
        } else {
            let meaning = format!(
                "scripts don't get {name} from the gateway: have PHP-FPM set it, by env[{name}] in the file of its pool \
                 (PHP_VALUE and PHP_ADMIN_VALUE are php_value[] and php_admin_value[] there)"
            );
            context.book.misses(route, param, &meaning);
        }
    }
    if let Some(index) = scope.find("fastcgi_index").filter(|index| index.arg(0) == "index.php") {
        context.book.mark(index, Outcome::ByItself);
    }
    let Some(split) = scope.find("fastcgi_split_path_info") else { return };
    let pattern = match &here.spot.base {
        Base::Pattern(_) => PathRegex::parse(&here.spot.value).ok(),
        Base::Prefix(_) | Base::Exact(_) | Base::Converted(_) => None,
    };
    if pattern.is_some_and(|pattern| !pattern.is_match("/a.php/b")) {
        return context.book.itself(route, split, "the location takes no path that goes on behind a script");
    }
    let meaning =
        "/a.php/b is not a request for the script /a.php here: such requests get 404, or the fallback";
    context.book.misses(route, split, meaning);
}
