//! The routes of one `server`.

use super::context::Context;
use super::listeners::Group;
use super::server::Server;
use super::{action, answer, guards, location, order};
use crate::import::book::Outcome;
use crate::import::hosts::{self, Body, Reach};
use crate::import::sheet::Section;
use crate::import::site::Host;

/// All routes of a server.
pub(super) fn translate<'a>(
    context: &mut Context<'a>,
    groups: &[Group],
    servers: &[Server<'a>],
    index: usize,
) -> Host {
    let server = &servers[index];
    let mut notes = server.notes.clone();
    let mut bodies: Vec<Body> = Vec::new();
    let answers = answer::of_server(context, server, &mut notes);
    let is_answered = answers.is_final;
    bodies.extend(answers.bodies);
    if is_answered {
        for location in server.scope.own_all("location") {
            let meaning = "a return in front of it answers every request, so it is never asked";
            context.book.lacks(&mut notes, location, meaning);
            context.book.mark_all(location.inside(), Outcome::Commented);
        }
    } else {
        let locations = location::find(context, server, &mut notes);
        for spot in order::order(context, &locations, &answers.fronts, &mut notes) {
            let tls = answers.is_plain_answered.then_some(true);
            let written = action::routes(context, server, &locations, &spot);
            bodies.extend(written.into_iter().map(|section| Body { tls, ..section.into() }));
        }
        guards::tell(context, locations.iter().filter_map(|location| location.directive));
    }
    context.finish(server.scope.own(), &mut notes);
    let mut sections: Vec<Section> =
        bodies.iter_mut().map(|body| std::mem::take(&mut body.section)).collect();
    guards::close_all(context, &server.scope, &mut sections);
    bodies.iter_mut().zip(sections).for_each(|(body, section)| body.section = section);
    let hosts: Vec<&[String]> = servers.iter().map(|server| server.hosts.as_slice()).collect();
    let reaches: Vec<Reach> = groups.iter().map(Group::reach).collect();
    let routes = hosts::routes(&reaches, &hosts, index, &bodies, &answers.hosts).unwrap_or_else(|| {
        let what =
            "no request comes to this server: it has no name that our routes can have, and is not the default one";
        if let Some(directive) = server.directive {
            context.book.remark(directive, what);
            context.book.mark(directive, Outcome::Commented);
        }
        notes.note(what);
        Vec::new()
    });
    Host { title: server.title(), notes, routes }
}
