//! What is done with which paths, in the order in which Apache looks: the first that takes a path counts.
//!
//! Rules of mod_rewrite come first, then `ProxyPass` (of a `<Location>`, the last one first), then `Redirect`, `Alias`, and
//! `DocumentRoot`. A `Redirect` in a `<Location>` counts before all of them.

use super::context::Context;
use super::item::{Item, Taken, What, answer, bare, is_below};
use super::pass::{pattern_of, proxy};
use super::redirect::{around_path, good, is_refusal, missing, redirect};
use super::vhost::Vhost;
use super::{handlers, rewrite, upgrades};
use crate::import::book::Outcome;
use crate::import::pattern;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// All of them, in Apache's order; and the file that stands for those that aren't there, if a rule names one.
pub(super) fn items<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    notes: &mut Section,
) -> (Vec<Item<'a>>, Option<(String, &'a Directive)>) {
    let mut items = Vec::new();
    let mut proxied = Vec::new();
    for section in found.scope.every().filter(|d| matches!(d.name.as_str(), "location" | "locationmatch")) {
        of_section(context, section, notes, &mut items, &mut proxied);
    }
    proxied.reverse();
    let late = late(context, found, notes);
    let mut rules = rewrite::read(context, found, notes);
    of_directories(context, found, notes, &mut rules, &late);
    for directive in found.scope.every() {
        let (path, url) = (directive.arg(0), directive.arg(1));
        let taken = match directive.name.as_str() {
            "proxypass" => good(context, directive, path, notes).map(Taken::Path),
            "proxypassmatch" if handlers::is_script(url) => continue,
            "proxypassmatch" => match pattern_of(path) {
                Ok(taken) => Some(taken),
                Err((_, what)) if url == "!" => {
                    context.book.misses(notes, directive, &format!("{what}; its requests go to a server"));
                    None
                }
                // Its requests are not for files.
                Err((taken, what)) => {
                    proxied.push(Item::new(taken, What::Answer(missing(context, directive, &what))));
                    None
                }
            },
            _ => continue,
        };
        let Some(taken) = taken else { continue };
        if url == "!" {
            context.book.mark(directive, Outcome::Key);
            // Such paths go on to what comes behind the servers.
            proxied.extend(late.iter().filter_map(|item| common(item, &taken)));
        } else {
            proxied.push(proxy(context, directive, taken, path, url));
        }
    }
    let behind = [proxied, late].concat();
    for (number, item) in rules.items.iter().enumerate() {
        for (_, path) in rules.excluded.iter().filter(|(of, _)| *of == number) {
            let next = rules.items[number + 1..].iter().chain(&behind);
            let next: Vec<_> = next.filter_map(|item| common(item, &Taken::Path(path.clone()))).collect();
            items.extend(next);
        }
        items.push(item.clone());
    }
    let answered = items.len();
    items.extend(behind);
    upgrades::place(&rules.upgrades, answered, &mut items);
    (items, rules.fallback)
}

/// Rules in a `<Directory>` are for its files.
fn of_directories<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    notes: &mut Section,
    rules: &mut rewrite::Rules<'a>,
    late: &[Item<'a>],
) {
    for section in found.scope.every().filter(|d| d.name == "directory") {
        if !section.inside().iter().any(|inside| inside.name == "rewriterule") {
            continue;
        }
        let path = late.iter().find_map(|item| {
            let What::Files { directory, base, .. } = &item.what else { return None };
            let inner = context.path(section.arg(0))?;
            let rest = bare(&inner)
                .strip_prefix(bare(directory))
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
            Some(format!("{}{rest}/", bare(base)))
        });
        let Some(path) = path else { continue };
        let inside: Vec<&Directive> = section.inside().iter().collect();
        rewrite::block(context, found, &inside, Some(&path), notes, rules);
    }
}

/// What a `<Location>` says of its paths.
fn of_section<'a>(
    context: &mut Context<'a>,
    section: &'a Directive,
    notes: &mut Section,
    redirects: &mut Vec<Item<'a>>,
    proxied: &mut Vec<Item<'a>>,
) {
    let about = |directive: &&Directive| {
        directive.name.starts_with("redirect") || directive.name.starts_with("proxypass")
    };
    let has_handler = handlers::handler(section).is_some();
    if !section
        .inside()
        .iter()
        .any(|directive| about(&directive) && !directive.name.starts_with("proxypassreverse"))
        && !has_handler
    {
        return;
    }
    let Some(taken) = paths_of(section) else {
        // What it does with them is lost; others don't get them in its place.
        if section.inside().iter().any(is_refusal) || has_handler {
            let what = "its paths have no counterpart: the pattern here takes more, and they get 403 until you have written them";
            context.book.misses(notes, section, what);
            context.book.mark_all(section.inside(), Outcome::Commented);
            return redirects.push(Item::new(wider(section), What::Answer(answer(403))));
        }
        context.book.misses(
            notes,
            section,
            "its paths have no counterpart, so what it does with them is left out",
        );
        return;
    };
    for directive in section.inside() {
        match directive.name.as_str() {
            "redirect" | "redirectmatch" | "redirectpermanent" | "redirecttemp" => {
                let made = redirect(context, directive, Some(&taken), notes);
                redirects.extend(made.map(|(taken, section)| Item::new(taken, What::Answer(section))));
            }
            "proxypass" | "proxypassmatch" if directive.arg(0) == "!" => {
                context.book.misses(
                    notes,
                    directive,
                    "write a route for these paths, with files or another action",
                );
            }
            "proxypass" | "proxypassmatch" => {
                let path =
                    if let Taken::Path(path) = &taken { path.clone() } else { section.arg(0).to_owned() };
                proxied.push(proxy(context, directive, taken.clone(), &path, directive.arg(0)));
            }
            _ => {}
        }
    }
    if let Some(handler) = handlers::handler(section) {
        let what = "what this handler answers has no counterpart; for the state of the gateway write [admin]";
        context.book.misses(notes, handler, what);
        redirects.push(Item::new(taken, What::Answer(answer(404))));
    }
}

/// The paths of a `<Location>`, which may have a pattern.
pub(super) fn paths_of(section: &Directive) -> Option<Taken> {
    match (section.name.as_str(), section.args.as_slice()) {
        ("location", [path]) if path.starts_with('/') && !path.contains(['*', '?', '[']) => {
            Some(Taken::Path(path.clone()))
        }
        ("location", [path]) if path.starts_with('/') && !path.contains('[') => {
            let theirs = pattern::escaped(bare(path)).replace("\\*", "[^/]*").replace("\\?", "[^/]");
            Taken::pattern(&format!("^{theirs}(/.*)?$"), false).ok()
        }
        ("location", [sign, theirs]) if sign == "~" => all_or_pattern(theirs),
        ("locationmatch", [theirs]) => all_or_pattern(theirs),
        _ => None,
    }
}

fn all_or_pattern(theirs: &str) -> Option<Taken> {
    if pattern::matches_all(theirs).is_some() {
        return Some(Taken::Path("/".to_owned()));
    }
    Taken::pattern(theirs, false).ok()
}

/// The paths of a `<Location>`, and perhaps more.
fn wider(section: &Directive) -> Taken {
    match section.args.as_slice() {
        [theirs] if section.name == "locationmatch" => Taken::wider(theirs, false),
        [sign, theirs] if sign == "~" => Taken::wider(theirs, false),
        _ => Taken::Path("/".to_owned()),
    }
}

/// What comes behind the servers.
fn late<'a>(context: &mut Context<'a>, found: &Vhost<'a>, notes: &mut Section) -> Vec<Item<'a>> {
    let mut items: Vec<Item<'a>> = Vec::new();
    // Those of mod_wsgi come behind all of mod_alias.
    let mut applications = Vec::new();
    let is_mounted = |d: &&&Directive| d.name == "jkmount" && d.args.len() == 2 && d.arg(0).starts_with('/');
    for directive in found.scope.own.iter().filter(is_mounted) {
        let what = "the gateway doesn't speak AJP with servers: write a route with proxy, for the server's HTTP port";
        let answer = missing(context, directive, what);
        items.push(Item::new(mounted(directive.arg(0)), What::Answer(answer)));
    }
    // Those of the virtual host come before those outside.
    let all: Vec<&Directive> = found.scope.own.iter().chain(&found.scope.outer).copied().collect();
    for directive in all.iter().copied().filter(|d| d.name.starts_with("redirect")) {
        let made = redirect(context, directive, None, notes);
        items.extend(made.map(|(taken, section)| Item::early(taken, section)));
    }
    for directive in all {
        match directive.name.as_str() {
            "alias" => {
                let Some(path) = good(context, directive, directive.arg(0), notes) else { continue };
                match context.path(directive.arg(1)) {
                    Some(directory) => {
                        context.book.mark(directive, Outcome::Key);
                        let what = What::Files { directory, base: path.clone(), by: directive };
                        items.push(Item::new(Taken::Path(path), what));
                    }
                    None => {
                        let answer = missing(context, directive, "the name of the directory has a variable");
                        items.push(Item::new(Taken::Path(path), What::Answer(answer)));
                    }
                }
            }
            "scriptalias" => {
                let path = around_path(context, directive, directive.arg(0), notes);
                let answer = missing(context, directive, "only PHP by FastCGI runs scripts (fastcgi)");
                items.push(Item::new(Taken::Path(path), What::Answer(answer)));
            }
            "wsgiscriptalias" | "wsgiscriptaliasmatch" => {
                let what =
                    "no programs run here: start it as a server of its own, and write a route with proxy";
                let taken = if directive.name == "wsgiscriptalias" {
                    Taken::Path(around_path(context, directive, directive.arg(0), notes))
                } else {
                    pattern_of(directive.arg(0)).unwrap_or_else(|(taken, _)| taken)
                };
                applications.push(Item::new(taken, What::Answer(missing(context, directive, what))));
            }
            "aliasmatch" | "scriptaliasmatch" => {
                let what = "directories have no parts of a pattern";
                let (taken, what) = match pattern_of(directive.arg(0)) {
                    Ok(taken) => (taken, what.to_owned()),
                    Err((taken, wider)) => (taken, format!("{what}, and {wider}")),
                };
                items.push(Item::new(taken, What::Answer(missing(context, directive, &what))));
            }
            _ => {}
        }
    }
    items.extend(applications);
    let root = found.scope.find("documentroot");
    let what = match root.map(|root| (context.path(root.arg(0)), root)) {
        Some((Some(directory), by)) => {
            context.book.mark(by, Outcome::Key);
            What::Files { directory, base: "/".to_owned(), by }
        }
        Some((None, by)) => What::Answer(missing(context, by, "the name of the directory has a variable")),
        None => What::Answer(answer(404)),
    };
    items.push(Item::new(Taken::Path("/".to_owned()), what));
    items
}

/// The paths of a `JkMount`: `/a/*`, `/a|/*`, `/*.jsp`.
fn mounted(text: &str) -> Taken {
    let text = text.replace("|/*", "/*");
    match text.strip_suffix("/*") {
        Some("") => Taken::Path("/".to_owned()),
        Some(front) if !front.contains(['*', '?']) => Taken::Path(front.to_owned()),
        _ => {
            let theirs = pattern::escaped(&text).replace("\\*", ".*").replace("\\?", ".");
            Taken::pattern(&format!("^{theirs}$"), false).unwrap_or_else(|_| Taken::Path("/".to_owned()))
        }
    }
}

/// An item for those of its paths that are also these.
pub(super) fn common<'a>(item: &Item<'a>, taken: &Taken) -> Option<Item<'a>> {
    match (&item.taken, taken) {
        (Taken::Path(own) | Taken::Exact(own), Taken::Path(path)) if is_below(own, path) => {
            Some(item.clone())
        }
        (Taken::Path(own), Taken::Path(path) | Taken::Exact(path)) if is_below(path, own) => {
            Some(item.narrowed(taken.clone()))
        }
        (Taken::Path(own), Taken::Pattern { .. }) if taken.is_below(own) => {
            Some(item.narrowed(taken.clone()))
        }
        (Taken::Pattern { .. }, Taken::Path(path)) if item.taken.is_below(path) => Some(item.clone()),
        _ => None,
    }
}
