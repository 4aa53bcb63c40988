//! Sections for patterns of paths and names: `<LocationMatch>`, `<FilesMatch>` and their like.
//!
//! Such a section makes an item of its own, if it keeps everybody out, or if all of its paths are of one item. One for names
//! of files makes one for each item with files. What keeps requests out and can't be said so, keeps out all.

use super::access::Access;
use super::context::Context;
use super::guards::has_access;
use super::item::{Item, Taken, What, answer, bare, is_below};
use super::paths::paths_of;
use super::requirements::Who;
use crate::import::book::Outcome;
use crate::import::pattern;
use crate::import::sheet::Section;
use crate::import::tree::Directive;
use crate::site::matcher::PathRegex;

/// What a section may say of a route, besides who may come in.
const SAYS: [&str; 8] = [
    "directoryindex",
    "errordocument",
    "fallbackresource",
    "forcetype",
    "header",
    "limitrequestbody",
    "options",
    "requestheader",
];

pub(super) fn has_rules(section: &Directive) -> bool {
    let is_one =
        |inside: &Directive| SAYS.contains(&inside.name.as_str()) || is_of_names(inside) && has_rules(inside);
    has_access(section) || section.inside().iter().any(is_one)
}

/// It is for names of files.
fn is_of_names(section: &Directive) -> bool {
    matches!(section.name.as_str(), "files" | "filesmatch")
}

/// The path of a directory that is below that of an item's files.
pub(super) fn path_of_directory(
    context: &Context<'_>,
    section: &Directive,
    item: &Item<'_>,
) -> Option<String> {
    let What::Files { directory, base, .. } = &item.what else { return None };
    let inner = context.path(section.arg(0))?;
    let rest = bare(&inner).strip_prefix(bare(directory)).filter(|rest| rest.starts_with('/'))?;
    Some(format!("{}{rest}", bare(base)))
}

/// The directory that all of an item's files are in.
pub(super) fn directory_of(item: &Item<'_>) -> Option<String> {
    let What::Files { directory, base, .. } = &item.what else { return None };
    let own = match &item.taken {
        Taken::Path(path) | Taken::Exact(path) => path.strip_prefix(bare(base)).unwrap_or_default(),
        Taken::Pattern { front, .. } => {
            front.strip_prefix(bare(base)).and_then(|own| own.rsplit_once('/')).map_or("", |own| own.0)
        }
    };
    Some(format!("{}{own}", bare(directory)))
}

/// It is for a directory without a pattern.
pub(super) fn is_plain_directory(section: &Directive) -> bool {
    section.name == "directory" && section.args.len() == 1 && !section.arg(0).contains(['*', '?', '['])
}

/// Items for all of these sections. Of two that have a path the last counts in Apache, and the first here; those about who may
/// come in stand in front of the others.
pub(super) fn split<'a>(
    context: &mut Context<'a>,
    every: &[&'a Directive],
    items: &mut Vec<Item<'a>>,
    notes: &mut Section,
) {
    for is_about_access in [true, false] {
        for section in every.iter().rev() {
            let is_pattern = match section.name.as_str() {
                "directory" => !is_plain_directory(section),
                "location" => !matches!(paths_of(section), Some(Taken::Path(_))),
                name => matches!(name, "directorymatch" | "locationmatch"),
            };
            if is_of_names(section) {
                of_names(context, section, None, is_about_access, items, notes);
            } else if is_pattern && has_access(section) == is_about_access && !has_only_dots(section) {
                of_paths(context, section, every, items, notes);
            }
            for inside in section.inside().iter().rev().filter(|inside| is_of_names(inside)) {
                of_names(context, inside, Some(section), is_about_access, items, notes);
            }
        }
    }
}

/// Names that begin with a dot are never served.
pub(super) fn has_only_dots(section: &Directive) -> bool {
    let last = section.args.last().map_or("", String::as_str);
    match section.name.as_str() {
        "files" if section.args.len() == 1 => last.starts_with('.'),
        "files" | "filesmatch" => {
            last.trim_start_matches(['^', '(']).starts_with("\\.")
                && !last.contains('|')
                && last.starts_with('^')
        }
        "directorymatch" => last.starts_with("/\\.") && !last.contains('|'),
        _ => false,
    }
}

/// Says that a section has no counterpart.
fn lose(context: &mut Context<'_>, section: &Directive, what: &str, notes: &mut Section) {
    context.book.misses(notes, section, what);
    context.book.mark_all(section.inside(), Outcome::Commented);
}

/// A section for names of files; `around`: the one that it stands in.
fn of_names<'a>(
    context: &mut Context<'a>,
    section: &'a Directive,
    around: Option<&'a Directive>,
    is_about_access: bool,
    items: &mut Vec<Item<'a>>,
    notes: &mut Section,
) {
    if !has_rules(section) || has_access(section) != is_about_access || has_only_dots(section) {
        return;
    }
    let outer = around.map(|around| (is_plain_directory(around), context.path(around.arg(0))));
    let name = pattern_of_name(section);
    let denies = Access::of(&[section]).who == Who::Nobody;
    let mut split = Vec::new();
    for mut item in std::mem::take(items) {
        let is_inside = match (&outer, directory_of(&item)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some((is_plain, Some(outer))), Some(own)) => *is_plain && is_below(&own, outer),
            (Some((_, None)), Some(_)) => false,
        };
        if item.is_early || item.of.is_some() || !is_inside {
            split.push(item);
            continue;
        }
        match name.as_ref().and_then(|name| named(name, &item.taken)) {
            Some(Some(taken)) if denies => {
                split.push(Item { of: Some(section), ..Item::new(taken, What::Answer(answer(403))) });
            }
            Some(Some(taken)) => split.push(Item { of: Some(section), ..item.narrowed(taken) }),
            Some(None) => {}
            None if is_about_access => item.lost.push(section),
            None => lose(context, section, "its names have no counterpart", notes),
        }
        split.push(item);
    }
    *items = split;
}

/// Those of the paths whose last segment is matched, which may be none; `None`: they have no counterpart.
pub(super) fn named(name: &str, taken: &Taken) -> Option<Option<Taken>> {
    match taken {
        Taken::Path(path) => {
            let front = format!("{}/", bare(path));
            let ours = format!("{}(?:/.*)?(?:{name})", pattern::escaped(bare(path)));
            PathRegex::parse(&ours).is_ok().then_some(Some(Taken::Pattern { ours, front }))
        }
        Taken::Exact(path) => {
            let ours = PathRegex::parse(&format!("(?:/.*)?(?:{name})"));
            ours.ok().map(|ours| ours.is_match(path).then(|| taken.clone()))
        }
        Taken::Pattern { .. } => None,
    }
}

/// The last segment of a path, with its slash, as a pattern.
pub(super) fn pattern_of_name(section: &Directive) -> Option<String> {
    let last = section.args.last().map_or("", String::as_str);
    let is_regex = section.name == "filesmatch" || section.args.len() == 2 && section.arg(0) == "~";
    if !is_regex {
        let name = pattern::escaped(last).replace("\\*", "[^/]*").replace("\\?", "[^/]");
        return (!last.contains('[')).then(|| format!("/{name}"));
    }
    let one = |one: &str| {
        let (front, rest) = one.strip_prefix('^').map_or(("/[^/]*", one), |rest| ("/", rest));
        let (rest, end) = rest
            .strip_suffix('$')
            .filter(|rest| !rest.ends_with('\\'))
            .map_or((rest, "[^/]*"), |rest| (rest, ""));
        format!("{front}(?:{rest}){end}")
    };
    Some(pattern::alternatives(last).into_iter().map(one).collect::<Vec<_>>().join("|"))
}

/// A section for a pattern of paths, or of directories.
fn of_paths<'a>(
    context: &mut Context<'a>,
    section: &'a Directive,
    every: &[&'a Directive],
    items: &mut Vec<Item<'a>>,
    notes: &mut Section,
) {
    let is_of_files = section.name.starts_with("directory");
    // What the name of a directory begins with, as far as it has no sign of a pattern.
    let front =
        section.arg(0).split(['*', '?', '[', '~', '^', '(', '\\']).next().unwrap_or_default().to_owned();
    let may_hold = |own: &str| own.starts_with(&front) || front.starts_with(own);
    let is_asked = |item: &Item<'_>| {
        !item.is_early && (!is_of_files || directory_of(item).is_some_and(|own| may_hold(&format!("{own}/"))))
    };
    let keeps_out = has_access(section);
    let taken = match section.name.as_str() {
        "location" | "locationmatch" => paths_of(section),
        // The name of a directory, of which a path has the end.
        "directorymatch" if section.arg(0).starts_with('/') => Taken::pattern(section.arg(0), false).ok(),
        _ => None,
    };
    let Some(taken) = taken else {
        if keeps_out {
            items.iter_mut().filter(|item| is_asked(item)).for_each(|item| item.lost.push(section));
        } else {
            lose(context, section, "its paths have no counterpart", notes);
        }
        return;
    };
    let met: Vec<usize> = items
        .iter()
        .enumerate()
        .filter(|(_, item)| is_asked(item) && item.taken.meets(&taken))
        .map(|(at, _)| at)
        .collect();
    let (Some(first), Some(last)) = (met.first().copied(), met.last().copied()) else { return };
    let denies = Access::of(&[section]).who == Who::Nobody;
    // All of its paths are of the last one, if those in front of it are parts of it that a section has made.
    let mut bases = met.iter().filter(|at| items[**at].of.is_none());
    let is_of_one =
        bases.all(|at| same_action(&items[*at].what, &items[last].what)) && covers(&items[last], &taken);
    let mut item = match (denies, is_of_one) {
        (true, _) => Item::new(taken, What::Answer(answer(403))),
        (false, true) => items[last].narrowed(taken),
        (false, false) if keeps_out => {
            let what = "several routes have paths of it, so nobody gets these: write a route for each";
            context.book.remark(section, what);
            let mut closed = answer(403);
            closed.comment(format!("{}: {}: {what}", section.at, section.shown()));
            Item::new(taken, What::Answer(closed))
        }
        (false, false) => {
            return lose(
                context,
                section,
                "several routes have paths of it: write what is in it for each",
                notes,
            );
        }
    };
    item.of = Some(section);
    // Another rule may hold for some of its paths alone.
    let is_crossed = |other: &&Directive| {
        !std::ptr::eq(*other, section) && has_access(other) && crosses(context, other, &item)
    };
    if keeps_out && !denies && every.iter().any(is_crossed) {
        item.lost.push(section);
    }
    items.insert(if keeps_out { first } else { last }, item);
}

fn covers(item: &Item<'_>, taken: &Taken) -> bool {
    matches!(&item.taken, Taken::Path(path) if taken.is_below(path)) && !item.has_condition()
}

fn same_action(one: &What<'_>, other: &What<'_>) -> bool {
    match (one, other) {
        (What::Proxy { by: one, .. }, What::Proxy { by: other, .. })
        | (What::Files { by: one, .. }, What::Files { by: other, .. }) => std::ptr::eq(*one, *other),
        _ => false,
    }
}

/// The section's paths are some of the item's, and not surely all.
fn crosses(context: &Context<'_>, section: &Directive, item: &Item<'_>) -> bool {
    match section.name.as_str() {
        "location" | "locationmatch" => match paths_of(section) {
            Some(Taken::Path(path)) => item.taken.may_be_below(&path) && !item.taken.is_below(&path),
            Some(other) => other.meets(&item.taken),
            None => true,
        },
        "directory" if is_plain_directory(section) => path_of_directory(context, section, item)
            .is_some_and(|path| item.taken.may_be_below(&path) && !item.taken.is_below(&path)),
        _ => item.is_files(),
    }
}
