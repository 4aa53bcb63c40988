//! `DirectoryIndex`, `Options`, `FallbackResource` and PHP: how files are served.

use super::access::find;
use super::context::Context;
use super::handlers::scripts;
use super::programs;
use super::vhost::Vhost;
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// The keys of a route with files: of the DocumentRoot, or of another directory. `fallback`: a rule of mod_rewrite names it.
pub(super) fn write<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    sections: &[&'a Directive],
    (is_root, fallback): (bool, Option<&(String, &'a Directive)>),
    route: &mut Section,
) {
    let of = |name: &str| find(sections, name).or_else(|| found.scope.find(name));
    if let Some(index) = of("directoryindex") {
        let is_file = |name: &&String| {
            !name.starts_with('/') && *name != "disabled" && !programs::is_script(found, name)
        };
        let names: Vec<String> = index.args.iter().filter(is_file).cloned().collect();
        if names.is_empty() {
            context.book.lacks(route, index, "index.html is the file of a directory");
        } else {
            context.book.key(route, index, "files.index", names);
        }
    }
    options(context, found, sections, route);
    if let Some(resource) = of("fallbackresource") {
        if !is_root {
            route.note(format!(
                "{}: a file of another directory can't stand for those that aren't there",
                resource.at
            ));
        } else if resource.arg(0).starts_with('/') && !programs::is_script(found, resource.arg(0)) {
            context.book.key(route, resource, "files.fallback", resource.arg(0));
        } else {
            context.book.lacks(route, resource, "files that aren't there are answered with 404");
        }
    }
    // What Apache runs is no file here.
    if let Some((name, rule)) =
        fallback.filter(|_| is_root).filter(|(name, _)| !programs::is_script(found, name))
    {
        context.book.key(route, rule, "files.fallback", name.as_str());
    }
    for (server, by, section) in scripts(found) {
        if let Some(section) = section {
            context.book.mark(section, Outcome::Key);
        }
        match route.get("fastcgi.server") {
            None => context.book.key(route, by, "fastcgi.server", server),
            Some(first) if *first == server.into() => context.book.mark(by, Outcome::Key),
            Some(_) => context.book.misses(route, by, "a route has one server for scripts: it is the first"),
        }
    }
}

/// What the last `Options` say of lists; words with a sign change what is said around them.
fn options(context: &mut Context<'_>, found: &Vhost<'_>, sections: &[&Directive], route: &mut Section) {
    let inside = sections.iter().flat_map(|section| section.inside());
    let all: Vec<&Directive> = found.scope.every().chain(inside).filter(|d| d.name == "options").collect();
    let mut lists = false;
    for options in &all {
        let is_relative = options.args.iter().all(|arg| arg.starts_with(['+', '-']));
        lists &= is_relative;
        for arg in &options.args {
            let word = arg.trim_start_matches(['+', '-']).to_ascii_lowercase();
            if word == "indexes" || word == "all" {
                lists = !arg.starts_with('-');
            }
        }
    }
    for options in &all {
        if lists {
            context.book.key(route, options, "files.listing", true);
        } else {
            context.book.itself(
                route,
                options,
                "directories are not listed, and links that lead out of them are not followed",
            );
        }
    }
}
