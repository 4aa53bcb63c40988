//! Which location nginx chooses for a path, by its own rules (`ngx_http_core_find_location`). Pure.
//!
//! At each level the exact location comes first, then the longest prefix, whose inside is asked; what has no answer there is
//! left to the patterns around, unless the prefix says `^~`. Patterns are asked in the order of the file, and a pattern
//! that matches has the last word, but for those inside of it.

use super::location::{Form, Location};

/// The position of the location for a decoded path; `None`: the server itself. Patterns without counterpart are not asked.
pub(super) fn choose(locations: &[Location<'_>], path: &str) -> Option<usize> {
    inside(locations, None, path).0
}

/// What is chosen inside of a location, and whether that is final.
fn inside(locations: &[Location<'_>], parent: Option<usize>, path: &str) -> (Option<usize>, bool) {
    let mut chosen = parent;
    if let Some(fixed) = fixed(locations, parent, path) {
        if matches!(locations[fixed].form, Form::Exact(_)) {
            return (Some(fixed), true);
        }
        let (found, is_final) = inside(locations, Some(fixed), path);
        if is_final || matches!(locations[fixed].form, Form::Stop(_)) {
            return (found, is_final);
        }
        chosen = found;
    }
    let takes =
        |number: &usize| locations[*number].pattern.as_ref().is_some_and(|pattern| pattern.is_match(path));
    match patterns_of(locations, parent).find(takes) {
        Some(number) => (inside(locations, Some(number), path).0, true),
        None => (chosen, false),
    }
}

/// The prefix that is left with a path if neither an exact location nor a pattern takes it.
pub(super) fn longest(locations: &[Location<'_>], path: &str) -> Option<usize> {
    let mut found = None;
    while let Some(inner) = prefixes(locations, found, path).max_by_key(|(len, _)| *len) {
        found = Some(inner.1);
    }
    found
}

/// The exact location of a level, or the longest prefix.
fn fixed(locations: &[Location<'_>], parent: Option<usize>, path: &str) -> Option<usize> {
    let exact = locations.iter().position(|location| {
        location.parent == parent && matches!(&location.form, Form::Exact(exact) if exact == path)
    });
    exact.or_else(|| prefixes(locations, parent, path).max_by_key(|(len, _)| *len).map(|(_, number)| number))
}

/// The prefixes of a level that take the path: their lengths and positions.
fn prefixes(
    locations: &[Location<'_>],
    parent: Option<usize>,
    path: &str,
) -> impl Iterator<Item = (usize, usize)> {
    locations.iter().enumerate().filter_map(move |(number, location)| match &location.form {
        Form::Prefix(prefix) | Form::Stop(prefix) if location.parent == parent => {
            path.starts_with(prefix.as_str()).then_some((prefix.len(), number))
        }
        _ => None,
    })
}

/// The patterns of a level, in the order of the file.
pub(super) fn patterns_of(locations: &[Location<'_>], parent: Option<usize>) -> impl Iterator<Item = usize> {
    (0..locations.len())
        .filter(move |number| locations[*number].pattern.is_some() && locations[*number].parent == parent)
}
