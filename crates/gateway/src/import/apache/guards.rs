//! What keeps requests out, and has to do so here, too: such a rule that has no counterpart closes its routes. Pure.

use super::context::Context;
use super::requirements::{ORDER, REQUIRE};
use crate::import::sheet::{Section, every_address};
use crate::import::tree::Directive;

/// Directives that keep requests out, and never are keys.
const GUARDS: [&str; 9] = [
    "authdigestdomain",
    "authformprovider",
    "authmerging",
    "secrule",
    "secruleengine",
    "sslrequire",
    "sslrequiressl",
    "sslverifyclient",
    "use",
];

/// It keeps requests out, alone or by what is in it, in a way that our routes can't say.
pub(super) fn is_guard(directive: &Directive) -> bool {
    match directive.name.as_str() {
        "if" | "elseif" | "else" | "limit" | "limitexcept" => {
            directive.inside().iter().any(|inside| is_rule(inside) || is_guard(inside))
        }
        "authmerging" | "secruleengine" => !directive.arg(0).eq_ignore_ascii_case("off"),
        "sslverifyclient" => !directive.arg(0).eq_ignore_ascii_case("none"),
        name => GUARDS.contains(&name),
    }
}

/// It is about who may come in, and does not let all in.
fn is_rule(directive: &Directive) -> bool {
    let is_all = directive
        .args
        .last()
        .is_some_and(|last| matches!(last.to_ascii_lowercase().as_str(), "granted" | "all"));
    match directive.name.as_str() {
        "order" => false,
        "allow" | "require" => !is_all,
        name => ORDER.contains(&name) || REQUIRE.contains(&name),
    }
}

/// A section has something to say about who may come in.
pub(super) fn has_access(section: &Directive) -> bool {
    let is_about = |name: &str| ORDER.contains(&name) || REQUIRE.contains(&name) || name == "satisfy";
    section.inside().iter().any(|inside| is_about(&inside.name) || is_guard(inside))
}

/// Closes a route for a rule that is lost.
pub(super) fn close(context: &mut Context<'_>, guard: &Directive, route: &mut Section, what: &str) {
    let what = format!("{what}: nobody is let in until you have written it");
    context.book.remark(guard, &what);
    route.comment(format!("{}: {}: {what}", guard.at, guard.shown()));
    shut(route);
}

/// Lets nobody in.
pub(super) fn shut(route: &mut Section) {
    route.unset("access.allow");
    route.set("access.deny", every_address(), None);
}
