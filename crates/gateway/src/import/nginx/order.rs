//! The locations of a server as routes, in the order in which ours have to stand.
//!
//! Our routes with a path come before those with a pattern, which are asked in the order of the file. Paths with the same
//! longest prefix are a domain: nginx asks some patterns for them, and then the prefix has what is left. So a prefix that
//! no pattern meets stays a path; others become patterns, each behind those that are asked before it. Where a domain is
//! asked other patterns than the one around it, such as none (`^~`), it stands in front, and its patterns take no paths
//! of others.

use std::collections::HashSet;

use super::choice::{choose, longest, patterns_of};
use super::context::Context;
use super::location::{Base, Form, Location, Spot};
use super::meeting::{Meeting, Met};
use crate::import::book::Outcome;
use crate::import::pattern;
use crate::import::sheet::Section;
use crate::import::spelling;
use crate::site::matcher::PathRegex;

/// A pattern that is asked, and those around it, which have to match, too.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    location: usize,
    around: Vec<usize>,
}

/// The paths with this longest prefix.
#[derive(Debug)]
struct Domain {
    location: usize,
    prefix: String,
    /// All paths with the prefix.
    pattern: String,
    /// The prefix as a path of ours.
    path: Option<String>,
    asked: Vec<Asked>,
    /// The domain around it.
    around: Option<usize>,
    /// It becomes a pattern.
    is_converted: bool,
    /// It stays a path, and a pattern has what begins like it and goes on in the same segment.
    has_twin: bool,
}

/// The locations as routes, in our order. `fronts` are patterns that come before all locations.
pub(super) fn order(
    context: &mut Context<'_>,
    locations: &[Location<'_>],
    fronts: &[String],
    notes: &mut Section,
) -> Vec<Spot> {
    let mut spots = exact(context, locations, fronts, notes);
    let mut meeting = Meeting::new(locations);
    let mut domains = domains(context, locations, notes);
    let is_asked_for = |asked: &Asked| !spots.iter().any(|spot| spot.location == asked.location);
    domains.iter_mut().for_each(|domain| domain.asked.retain(is_asked_for));
    for domain in &mut domains {
        let mut meets = domain.asked.iter().any(|asked| meeting.meets(&domain.pattern, asked.location));
        meets |= fronts.iter().any(|front| meeting.meets_text(&domain.pattern, front));
        domain.is_converted |= meets;
        domain.has_twin = !domain.prefix.ends_with('/') && locations[domain.location].keeps_out();
    }
    convert_around(&mut domains);
    spots.extend(paths(context, locations, &domains));
    let outermost: Vec<usize> =
        (0..domains.len()).filter(|number| domains[*number].around.is_none()).collect();
    for number in outermost {
        block(context, &mut meeting, locations, &domains, number, &mut spots);
    }
    // The first of the same takes all requests.
    let mut seen = HashSet::new();
    spots.retain(|spot| seen.insert((spot.key, spot.value.clone())));
    for (number, location) in locations.iter().enumerate() {
        let has_paths = location.pattern.is_some() || domains.iter().any(|domain| domain.location == number);
        if has_paths && spots.iter().all(|spot| spot.location != number) {
            never(context, location, notes);
        }
    }
    spots
}

/// Exact locations, and patterns that take one path.
fn exact(
    context: &mut Context<'_>,
    locations: &[Location<'_>],
    fronts: &[String],
    notes: &mut Section,
) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (number, location) in locations.iter().enumerate() {
        let decoded = match &location.form {
            Form::Exact(path) => path.clone(),
            Form::Regex(text, false) if location.pattern.is_some() => match pattern::only_path(text) {
                Some(path) => path,
                None => continue,
            },
            _ => continue,
        };
        let is_exact = matches!(location.form, Form::Exact(_));
        let spelled = match (spelling::path(&decoded), spelling::pattern(&decoded)) {
            (Ok(path), _) => Ok(("path_exact", path)),
            (Err(_), Ok(pattern)) if is_exact => Ok(("path_regex", pattern)),
            (Err(_), Ok(_)) => continue,
            (Err(_), Err(what)) => Err(what),
        };
        let has_front = |path: &str| {
            fronts.iter().any(|front| PathRegex::parse(front).is_ok_and(|front| front.is_match(path)))
        };
        match spelled {
            _ if choose(locations, &decoded) != Some(number) => never(context, location, notes),
            Ok((key, value)) if key == "path_exact" && has_front(&value) => spots.push(Spot {
                location: number,
                key: "path_regex",
                value: pattern::escaped(&value),
                base: Base::Exact(decoded),
            }),
            Ok((key, value)) => spots.push(Spot { location: number, key, value, base: Base::Exact(decoded) }),
            Err(what) if is_exact => unspelled(context, location, &what, notes),
            Err(_) => {}
        }
    }
    spots
}

/// No request is for this location.
fn never(context: &mut Context<'_>, location: &Location<'_>, notes: &mut Section) {
    let Some(directive) = location.directive else { return };
    context.book.lacks(notes, directive, "another location has its paths in nginx, so it is never asked");
    context.book.mark_all(directive.inside(), Outcome::Commented);
}

/// No route can have the path.
fn unspelled(context: &mut Context<'_>, location: &Location<'_>, what: &str, notes: &mut Section) {
    let Some(directive) = location.directive else { return };
    context.book.misses(notes, directive, &format!("{what}; its requests go to another route"));
    context.book.mark_all(directive.inside(), Outcome::Commented);
}

/// The domains, the shortest prefix first.
fn domains(context: &mut Context<'_>, locations: &[Location<'_>], notes: &mut Section) -> Vec<Domain> {
    let mut domains: Vec<Domain> = Vec::new();
    for (location, found) in locations.iter().enumerate() {
        let (prefix, at) = match &found.form {
            Form::Prefix(prefix) | Form::Stop(prefix) => (prefix.clone(), Some(location)),
            Form::Rest => ("/".to_owned(), None),
            Form::Exact(_) | Form::Regex(..) | Form::Named(_) => continue,
        };
        let pattern = match spelling::pattern(&prefix) {
            Ok(pattern) => format!("{pattern}.*"),
            Err(what) => {
                unspelled(context, found, &what, notes);
                continue;
            }
        };
        if at.is_some() && longest(locations, &prefix) != at {
            never(context, found, notes);
            continue;
        }
        let path = spelling::path(&prefix).ok();
        domains.push(Domain {
            location,
            pattern,
            asked: asked(locations, at),
            around: None,
            is_converted: path.is_none(),
            has_twin: false,
            prefix,
            path,
        });
    }
    domains.sort_by_key(|domain| domain.prefix.len());
    for number in 0..domains.len() {
        let prefix = &domains[number].prefix;
        let is_around = |other: &usize| prefix.starts_with(&domains[*other].prefix);
        domains[number].around = (0..number).rev().find(is_around);
    }
    domains
}

/// What is asked for paths whose longest prefix is this location's, in its order.
fn asked(locations: &[Location<'_>], location: Option<usize>) -> Vec<Asked> {
    let mut found = of_level(locations, location, &[]);
    let mut at = location;
    while let Some(number) = at {
        let here = &locations[number];
        if !matches!(here.form, Form::Stop(_)) {
            found.extend(of_level(locations, here.parent, &[]));
        }
        at = here.parent;
    }
    found
}

/// The patterns of a level, each behind those inside of it.
fn of_level(locations: &[Location<'_>], parent: Option<usize>, around: &[usize]) -> Vec<Asked> {
    let mut found = Vec::new();
    for location in patterns_of(locations, parent) {
        found.extend(of_level(locations, Some(location), &[around, &[location]].concat()));
        found.push(Asked { location, around: around.to_vec() });
    }
    found
}

/// A path comes before all patterns, so the domains around one with a pattern have patterns, too.
fn convert_around(domains: &mut [Domain]) {
    for number in (0..domains.len()).rev() {
        if !domains[number].is_converted && !domains[number].has_twin {
            continue;
        }
        let prefix = domains[number].prefix.clone();
        let mut around = domains[number].around;
        while let Some(other) = around {
            let rest = &prefix[domains[other].prefix.len()..];
            let is_taken = domains[other].prefix.ends_with('/') || rest.starts_with('/');
            domains[other].is_converted |= is_taken;
            around = domains[other].around;
        }
    }
    // Then it costs nothing to be exact about segments.
    for number in 0..domains.len() {
        let around = domains[number].around.is_some_and(|around| domains[around].is_converted);
        let domain = &mut domains[number];
        domain.has_twin =
            !domain.is_converted && !domain.prefix.ends_with('/') && (around || domain.has_twin);
    }
}

/// The domains that stay paths.
fn paths(context: &mut Context<'_>, locations: &[Location<'_>], domains: &[Domain]) -> Vec<Spot> {
    let mut spots = Vec::new();
    for domain in domains {
        let Some(path) = &domain.path else { continue };
        // Beside `/x/`, what is left for `/x` is that path alone; to our routes both would be the same.
        let below = format!("{}/", domain.prefix);
        let has_below = domains.iter().any(|other| other.prefix == below && !other.is_converted);
        if has_below {
            if choose(locations, &domain.prefix) == Some(domain.location) {
                let (value, base) = (path.clone(), Base::Exact(domain.prefix.clone()));
                spots.push(Spot { location: domain.location, key: "path_exact", value, base });
            }
        } else if !domain.is_converted {
            let (value, base) = (path.clone(), Base::Prefix(domain.prefix.clone()));
            spots.push(Spot { location: domain.location, key: "path", value, base });
        }
        let is_told = !domain.is_converted && !domain.has_twin && !domain.prefix.ends_with('/');
        if let Some(directive) = locations[domain.location].directive.filter(|_| is_told) {
            let other = domain.around.map_or("none", |around| &domains[around].prefix);
            let what = format!(
                "whole segments here: paths such as {}x, which nginx has here, too, are for the location {other}",
                domain.prefix
            );
            context.book.remark(directive, &what);
        }
    }
    spots
}

/// The patterns of a domain, and of those inside of it that are asked the same; before these all others inside.
fn block(
    context: &mut Context<'_>,
    meeting: &mut Meeting<'_>,
    locations: &[Location<'_>],
    domains: &[Domain],
    outermost: usize,
    spots: &mut Vec<Spot>,
) {
    let (mut of_block, mut inside) = (vec![outermost], Vec::new());
    for number in outermost + 1..domains.len() {
        if domains[number].around.is_some_and(|around| of_block.contains(&around)) {
            let is_same = domains[number].asked == domains[outermost].asked;
            if is_same { &mut of_block } else { &mut inside }.push(number);
        }
    }
    for number in inside {
        block(context, meeting, locations, domains, number, spots);
    }
    let domain = &domains[outermost];
    let is_all = domain.prefix == "/";
    for Asked { location, around } in &domain.asked {
        let found = &locations[*location];
        let (Form::Regex(text, _), Some(directive)) = (&found.form, found.directive) else { continue };
        let within = (!is_all).then_some(domain.pattern.as_str());
        let Some(Met { pattern, differs }) = meeting.of(within, around, *location, found.keeps_out()) else {
            continue;
        };
        if let Some(path) = differs {
            let what = format!(
                "below {} our patterns can't say which paths it takes: {path}, for instance, goes to another route than \
                 in nginx",
                domain.prefix
            );
            context.book.remark(directive, &what);
        }
        let base = Base::Pattern(text.clone());
        spots.push(Spot { location: *location, key: "path_regex", value: pattern, base });
    }
    for number in of_block.into_iter().rev() {
        let domain = &domains[number];
        if domain.is_converted || domain.has_twin {
            let (value, base) = (domain.pattern.clone(), Base::Converted(domain.prefix.clone()));
            spots.push(Spot { location: domain.location, key: "path_regex", value, base });
        }
    }
}

#[cfg(test)]
mod tests;
