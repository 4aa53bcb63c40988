//! The locations of a server: their paths, and the order in which ours have to stand.
//!
//! nginx asks for the exact location, then for the longest prefix; unless that one says `^~`, the first pattern that
//! matches comes before it. Our routes with a path come before those with a pattern. So where a server has patterns, a
//! prefix that some pattern may have paths of becomes a pattern itself, behind all others, the longest first.

use super::context::Context;
use super::scope::Scope;
use super::server::Server;
use crate::import::pattern;
use crate::import::sheet::Section;
use crate::import::tree::Directive;
use crate::site::path::{ExactPath, RoutePath};

/// Which paths a location takes, as nginx has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Exact(String),
    Prefix(String),
    /// `^~`: patterns are not asked.
    Stop(String),
    /// The pattern, which may have no regard to case.
    Regex(String, bool),
    /// `@name`
    Named(String),
    /// What no location takes, by the server's own directives.
    Rest,
}

/// A location, with the blocks around it.
#[derive(Debug, Clone)]
pub(super) struct Location<'a> {
    /// `None`: the server itself.
    pub directive: Option<&'a Directive>,
    pub form: Form,
    pub scope: Scope<'a>,
}

/// What stands in front of the rest of a path, for files and for other paths of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    /// The route has this path, and what is below it.
    Prefix(String),
    /// The route has this path alone.
    Exact(String),
    /// The route has a pattern, which was a prefix.
    Converted(String),
    /// The route has a pattern.
    Pattern(String),
}

/// A location as a route.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    /// The position of the location.
    pub location: usize,
    /// `path`, `path_exact` or `path_regex`.
    pub key: &'static str,
    pub value: String,
    pub base: Base,
}

/// All locations of a server, those inside of others among them.
pub(super) fn find<'a>(
    context: &mut Context<'a>,
    server: &Server<'a>,
    notes: &mut Section,
) -> Vec<Location<'a>> {
    let mut found = Vec::new();
    collect(context, &server.scope, None, notes, &mut found);
    let has_root = found
        .iter()
        .any(|location| matches!(&location.form, Form::Prefix(path) | Form::Stop(path) if path == "/"));
    if !has_root {
        found.push(Location { directive: None, form: Form::Rest, scope: server.scope.clone() });
    }
    found
}

fn collect<'a>(
    context: &mut Context<'a>,
    around: &Scope<'a>,
    parent: Option<&Form>,
    notes: &mut Section,
    found: &mut Vec<Location<'a>>,
) {
    for directive in around.own_all("location") {
        let scope = around.inside(directive.inside());
        let form = match form(directive) {
            Some(Form::Regex(pattern, is_insensitive)) => match parent {
                Some(Form::Prefix(front) | Form::Stop(front))
                    if !pattern.starts_with('^') && front != "/" =>
                {
                    Form::Regex(format!("^{}.*{pattern}", pattern::escaped(front)), is_insensitive)
                }
                _ => Form::Regex(pattern, is_insensitive),
            },
            Some(form) => form,
            None => {
                context.book.misses(notes, directive, "this is no path, so it is left out");
                context.book.mark_all(directive.inside(), crate::import::book::Outcome::Commented);
                continue;
            }
        };
        collect(context, &scope, Some(&form), notes, found);
        found.push(Location { directive: Some(directive), form, scope });
    }
}

fn form(directive: &Directive) -> Option<Form> {
    let (sign, path) = match directive.args.as_slice() {
        [sign, path] => (sign.as_str(), path.as_str()),
        // The sign may stand at the path.
        [whole] => {
            let sign = ["~*", "^~", "~", "="].into_iter().find(|sign| whole.starts_with(sign)).unwrap_or("");
            (sign, &whole[sign.len()..])
        }
        _ => return None,
    };
    if sign.is_empty() && path.starts_with('@') {
        return Some(Form::Named(path.to_owned()));
    }
    match sign {
        "" if path.starts_with('/') => Some(Form::Prefix(path.to_owned())),
        "=" if path.starts_with('/') => Some(Form::Exact(path.to_owned())),
        "^~" if path.starts_with('/') => Some(Form::Stop(path.to_owned())),
        "~" => Some(Form::Regex(path.to_owned(), false)),
        "~*" => Some(Form::Regex(path.to_owned(), true)),
        _ => None,
    }
}

/// The locations as routes, in our order. `fronts` are those of patterns that come before all locations.
pub(super) fn order(
    context: &mut Context<'_>,
    locations: &[Location<'_>],
    fronts: &[String],
    notes: &mut Section,
) -> Vec<Spot> {
    let mut spots = Vec::new();
    let mut fronts = fronts.to_vec();
    let mut patterns = Vec::new();
    for (number, location) in locations.iter().enumerate() {
        let (Form::Regex(text, is_insensitive), Some(directive)) = (&location.form, location.directive)
        else {
            continue;
        };
        if let Some(path) = pattern::only_path(text).filter(|_| !is_insensitive) {
            // It is as good as an exact path, if there is no location for that.
            if !locations.iter().any(|other| other.form == Form::Exact(path.clone()))
                && ExactPath::parse(&path).is_ok()
            {
                spots.push(Spot {
                    location: number,
                    key: "path_exact",
                    value: path.clone(),
                    base: Base::Exact(path),
                });
                continue;
            }
        }
        match pattern::whole(text, *is_insensitive) {
            Ok(value) => {
                fronts.push(if *is_insensitive { String::new() } else { pattern::front(text) });
                patterns.push(Spot {
                    location: number,
                    key: "path_regex",
                    value,
                    base: Base::Pattern(text.clone()),
                });
            }
            Err(what) => {
                let what = format!(
                    "{what}; its requests go to another route until you have written a pattern for them"
                );
                context.book.misses(notes, directive, &what);
                context.book.mark_all(directive.inside(), crate::import::book::Outcome::Commented);
            }
        }
    }
    let may_meet =
        |path: &str| fronts.iter().any(|front| front.starts_with(path) || path.starts_with(front.as_str()));
    let mut converted = Vec::new();
    for (number, location) in locations.iter().enumerate() {
        let (path, keeps_patterns_off) = match &location.form {
            Form::Exact(path) => {
                let value = path.clone();
                if good(context, location, ExactPath::parse(path).err(), notes) {
                    spots.push(Spot {
                        location: number,
                        key: "path_exact",
                        value,
                        base: Base::Exact(path.clone()),
                    });
                }
                continue;
            }
            Form::Prefix(path) => (path.as_str(), false),
            Form::Stop(path) => (path.as_str(), true),
            Form::Rest => ("/", false),
            Form::Regex(..) | Form::Named(_) => continue,
        };
        if !good(context, location, RoutePath::parse(path).err(), notes) {
            continue;
        }
        // Beside `/x/`, what is left for `/x` is that path alone; to our routes both would be the same.
        let below = format!("{path}/");
        let has_below = |other: &Location<'_>| matches!(&other.form, Form::Prefix(other) | Form::Stop(other) if *other == below);
        let has_exact =
            locations.iter().any(|other| matches!(&other.form, Form::Exact(other) if other == path));
        if !path.ends_with('/') && locations.iter().any(has_below) && !has_exact {
            let (value, base) = (path.to_owned(), Base::Exact(path.to_owned()));
            spots.push(Spot { location: number, key: "path_exact", value, base });
            continue;
        }
        if !keeps_patterns_off && may_meet(path) {
            let value = format!("{}.*", pattern::escaped(path));
            converted.push(Spot {
                location: number,
                key: "path_regex",
                value,
                base: Base::Converted(path.to_owned()),
            });
        } else {
            let base = Base::Prefix(path.to_owned());
            spots.push(Spot { location: number, key: "path", value: path.to_owned(), base });
        }
    }
    let len = |spot: &Spot| if let Base::Converted(path) = &spot.base { path.len() } else { 0 };
    converted.sort_by_key(|spot| std::cmp::Reverse(len(spot)));
    spots.into_iter().chain(patterns).chain(converted).collect()
}

/// Our routes can have this path; if not, that is said.
fn good(
    context: &mut Context<'_>,
    location: &Location<'_>,
    error: Option<String>,
    notes: &mut Section,
) -> bool {
    let (Some(what), Some(directive)) = (error, location.directive) else { return true };
    context.book.misses(notes, directive, &format!("{what}; its requests go to another route"));
    context.book.mark_all(directive.inside(), crate::import::book::Outcome::Commented);
    false
}

impl Location<'_> {
    /// The location of a name such as `@app`.
    pub(super) fn is_named(&self, name: &str) -> bool {
        matches!(&self.form, Form::Named(other) if other == name)
    }

    /// The location that a request from inside is for: the exact one, or the longest prefix.
    pub(super) fn takes(&self, path: &str) -> usize {
        match &self.form {
            Form::Exact(exact) if exact == path => usize::MAX,
            Form::Prefix(prefix) | Form::Stop(prefix) if path.starts_with(prefix.as_str()) => prefix.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::tree::At;

    #[test]
    fn signs_may_stand_at_the_path() {
        for (args, expect) in [
            ("/a", Some(Form::Prefix("/a".into()))),
            ("= /a", Some(Form::Exact("/a".into()))),
            ("=/a", Some(Form::Exact("/a".into()))),
            ("^~ /a/", Some(Form::Stop("/a/".into()))),
            ("~* \\.php$", Some(Form::Regex("\\.php$".into(), true))),
            ("~^/a", Some(Form::Regex("^/a".into(), false))),
            ("@app", Some(Form::Named("@app".into()))),
            ("a", None),
            ("a b c", None),
        ] {
            let at = At { file: "test".into(), line: 1 };
            let args = args.split(' ').map(str::to_owned).collect();
            assert_eq!(form(&Directive { id: 0, name: "location".into(), args, at, block: None }), expect);
        }
    }
}
