//! `<Location>`, `<Directory>`, `<Files>` and `<Proxy>`: what holds for which paths besides what is done there.
//!
//! A section for a part of an item's paths makes an item of its own for them. One with a pattern does so, too, if it keeps
//! everybody out, or if all of its paths are of one item; if it keeps requests out and is neither, it keeps out all.

use super::context::Context;
use super::guards::{has_access, is_guard};
use super::item::{Item, Taken, What, bare, is_below};
use super::paths::paths_of;
use super::patterns::{self, directory_of, has_rules, is_plain_directory, path_of_directory};
use super::vhost::Vhost;
use super::{address, handlers};
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// Items for what sections say of parts of others'.
pub(super) fn split<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    mut items: Vec<Item<'a>>,
    notes: &mut Section,
) -> Vec<Item<'a>> {
    let every: Vec<&'a Directive> = found.scope.every().filter(|section| has_rules(section)).collect();
    for section in &every {
        let of_location = if section.name == "location" { paths_of(section) } else { None };
        let mut split = Vec::new();
        for mut item in std::mem::take(&mut items) {
            let path = match &of_location {
                _ if item.is_early => None,
                Some(Taken::Path(path)) => Some(path.clone()),
                Some(_) => None,
                None if is_plain_directory(section) => path_of_directory(context, section, &item),
                None => None,
            };
            if let Some(path) =
                path.filter(|path| !item.taken.is_below(path) && item.taken.may_be_below(path))
            {
                match &item.taken {
                    Taken::Path(_) => {
                        // Apache has `/a` outside of `/a/`, and our routes don't.
                        if path.ends_with('/') && has_access(section) {
                            split.push(item.narrowed(Taken::Exact(bare(&path).to_owned())));
                        }
                        split.push(item.narrowed(Taken::Path(path)));
                    }
                    _ if has_access(section) => item.lost.push(section),
                    _ => notes.note(format!(
                        "{}: {} doesn't hold for routes with patterns",
                        section.at,
                        section.shown()
                    )),
                }
            }
            split.push(item);
        }
        items = split;
    }
    patterns::split(context, &every, &mut items, notes);
    items
}

/// The sections that hold for all paths of an item, in Apache's order: what a later one says counts more.
pub(super) fn holding<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    item: &mut Item<'a>,
) -> Vec<&'a Directive> {
    let mut sections: Vec<&'a Directive> = Vec::new();
    match &item.what {
        What::Files { .. } => {
            let directory = directory_of(item).unwrap_or_default();
            let mut named = Vec::new();
            for section in found.scope.all("directory") {
                let Some(path) = context.path(section.arg(0)) else { continue };
                if is_plain_directory(section) && is_below(&directory, &path) {
                    named.push(section);
                }
            }
            named.sort_by_key(|section| section.arg(0).len());
            sections.extend(named);
        }
        What::Proxy { server, .. } => {
            let all =
                found.scope.every().filter(|section| matches!(section.name.as_str(), "proxy" | "proxymatch"));
            for section in all {
                match address::section_holds(section, server) {
                    Some(true) => sections.push(section),
                    Some(false) => {}
                    None if has_access(section) => item.lost.push(section),
                    None => {}
                }
            }
        }
        What::Answer(_) => {}
    }
    let of_locations =
        found.scope.all("location").into_iter().filter(
            |section| matches!(paths_of(section), Some(Taken::Path(path)) if item.taken.is_below(&path)),
        );
    sections.extend(of_locations);
    sections.extend(item.of);
    let is_location = |section: &Directive| section.name.starts_with("location");
    let mut locations: Vec<&'a Directive> =
        sections.iter().copied().filter(|section| is_location(section)).collect();
    // Those outside of the virtual host come first.
    let is_own = |section: &&'a Directive| found.scope.own.iter().any(|own| std::ptr::eq(*own, *section));
    locations.sort_by_key(|section| (is_own(section), section.id));
    sections.retain(|section| !is_location(section));
    sections.extend(locations);
    sections
}

/// What is said about sections that no route has.
pub(super) fn finish(context: &mut Context<'_>, found: &Vhost<'_>, notes: &mut Section) {
    for section in found.scope.own.iter().copied().chain(found.scope.outer.iter().copied()) {
        if context.book.knows(section) || section.block.is_none() {
            continue;
        }
        if patterns::has_only_dots(section) {
            context.book.itself(notes, section, "names that begin with a dot are not served");
            context.book.mark_all(section.inside(), Outcome::ByItself);
        } else if handlers::script(section).is_some() || is_guard(section) {
            continue;
        } else if matches!(section.name.as_str(), "location" | "directory") && !has_rules(section) {
            context.book.mark(section, Outcome::ByItself);
            context.finish(section.inside(), notes);
        }
    }
}
