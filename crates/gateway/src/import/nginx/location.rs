//! The locations of a server, and which paths they say.

use super::context::Context;
use super::rules::keeps_out;
use super::scope::Scope;
use super::server::Server;
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;
use crate::import::{lookahead, pattern};
use crate::site::matcher::PathRegex;

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
    /// A pattern as ours; `None`: it is none, or has no counterpart.
    pub pattern: Option<PathRegex>,
    /// The pattern takes more paths than nginx's, and what is done there is lost.
    pub is_lost: bool,
    /// The position of the location that this one stands in.
    pub parent: Option<usize>,
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

/// All locations of a server, each in front of those inside of it.
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
        let scope = server.scope.clone();
        found.push(Location {
            directive: None,
            form: Form::Rest,
            pattern: None,
            is_lost: false,
            parent: None,
            scope,
        });
    }
    found
}

/// Those of a block, which `parent` is.
pub(super) fn collect<'a>(
    context: &mut Context<'a>,
    around: &Scope<'a>,
    parent: Option<usize>,
    notes: &mut Section,
    found: &mut Vec<Location<'a>>,
) {
    for directive in around.own_all("location") {
        let Some(form) = form(directive) else {
            context.book.misses(notes, directive, "this is no path, so it is left out");
            context.book.mark_all(directive.inside(), Outcome::Commented);
            continue;
        };
        let mut is_lost = false;
        let pattern = match &form {
            Form::Regex(text, is_insensitive) => {
                ours(context, directive, text, *is_insensitive, notes, &mut is_lost)
            }
            _ => None,
        };
        if parent.is_some() {
            // What is in it is not said by the location around it.
            context.book.mark(directive, Outcome::Commented);
        }
        let scope = around.inside(directive.inside());
        let directive = Some(directive);
        found.push(Location { directive, form, pattern, is_lost, parent, scope: scope.clone() });
        collect(context, &scope, Some(found.len() - 1), notes, found);
    }
}

/// A server answers what is asked for there.
fn is_served(location: &Directive) -> bool {
    location.inside().iter().any(|inside| inside.name.ends_with("_pass"))
}

/// A pattern as ours.
fn ours(
    context: &mut Context<'_>,
    directive: &Directive,
    text: &str,
    is_insensitive: bool,
    notes: &mut Section,
    is_lost: &mut bool,
) -> Option<PathRegex> {
    let whole = match pattern::whole(text, is_insensitive) {
        Ok(whole) => whole,
        Err(what) if keeps_out(directive) => {
            // It keeps out what others would let in.
            let what =
                format!("{what}; it keeps requests out, so the pattern here takes more paths than in nginx");
            context.book.remark(directive, &what);
            notes.note(format!("{}: {}: {what}", directive.at, directive.shown()));
            pattern::whole(&lookahead::wider(text), is_insensitive).unwrap_or_else(|_| ".*".to_owned())
        }
        Err(what) if is_served(directive) => {
            // Others would serve the files that stand below its paths.
            let what = format!(
                "{what}; it is for a server, so the pattern here takes more paths than in nginx, and they get 501 until you \
                 have written one"
            );
            context.book.remark(directive, &what);
            notes.note(format!("{}: {}: {what}", directive.at, directive.shown()));
            *is_lost = true;
            pattern::whole(&lookahead::wider(text), is_insensitive).unwrap_or_else(|_| ".*".to_owned())
        }
        Err(what) => {
            let what =
                format!("{what}; its requests go to another route until you have written a pattern for them");
            context.book.misses(notes, directive, &what);
            context.book.mark_all(directive.inside(), Outcome::Commented);
            return None;
        }
    };
    PathRegex::parse(&whole).ok()
}

impl Location<'_> {
    /// The location of a name such as `@app`.
    pub(super) fn is_named(&self, name: &str) -> bool {
        matches!(&self.form, Form::Named(other) if other == name)
    }

    /// It keeps requests out.
    pub(super) fn keeps_out(&self) -> bool {
        self.directive.is_some_and(keeps_out)
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
