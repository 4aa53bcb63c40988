//! What keeps requests out, and has to do so here, too: a rule of access that has no counterpart closes its routes, and one
//! that may have paths of others is told. Pure.

use super::access;
use super::context::Context;
use super::known::is_key;
use super::rules::{is_guard, keeps_out};
use super::scope::Scope;
use crate::import::book::Outcome;
use crate::import::sheet::{Section, every_address};
use crate::import::tree::Directive;

/// Closes the routes of a location that has such a rule, and no key for it.
pub(super) fn close_lost(context: &mut Context<'_>, block: &[Directive], routes: &mut [Section]) {
    for guard in block.iter().filter(|directive| is_guard(directive)) {
        // What is answered at once is so before nginx asks who may come.
        let is_answered =
            routes.iter().all(|route| route.get("respond").is_some() || route.get("redirect").is_some());
        if context.book.outcome(guard) <= Some(Outcome::Commented) && !(is_answered && is_key(&guard.name)) {
            close(context, guard, routes);
        }
    }
}

/// Closes all routes of a server, if it has such a rule of a kind that has no counterpart. Those that have one are asked
/// location by location, which may have others in their place.
pub(super) fn close_all(context: &mut Context<'_>, around: &Scope<'_>, routes: &mut [Section]) {
    for guard in around.blocks().flatten().filter(|directive| is_guard(directive)) {
        let is_key = is_key(&guard.name) && guard.name != "ssl_verify_client";
        if context.book.outcome(guard) <= Some(Outcome::Commented) && !is_key {
            close(context, guard, routes);
        }
    }
}

/// Closes the route of a location that leads to another one, which has such rules: both would have to hold.
pub(super) fn close_target(context: &mut Context<'_>, target: &Scope<'_>, route: &mut Section) {
    for guard in target.own().iter().filter(|directive| is_guard(directive)) {
        close(context, guard, std::slice::from_mut(route));
    }
}

fn close(context: &mut Context<'_>, guard: &Directive, routes: &mut [Section]) {
    if routes.iter().all(|route| route.get("access.deny") == Some(&every_address())) {
        return; // that was said where it was closed
    }
    let what = "this keeps requests out, and has no counterpart: nobody is let in until you have written one";
    context.book.remark(guard, what);
    for route in routes {
        route.comment(format!("{}: {}: {what}", guard.at, guard.shown()));
        access::close(route);
    }
}

/// Tells of locations with such rules that are not in the new file.
pub(super) fn tell<'a>(context: &mut Context<'_>, locations: impl Iterator<Item = &'a Directive>) {
    for location in locations.filter(|location| keeps_out(location)) {
        if context.book.outcome(location) < Some(Outcome::Key) {
            let what = "its rules of access are not in the new file, since no route has its paths";
            context.book.remark(location, what);
        }
    }
}
