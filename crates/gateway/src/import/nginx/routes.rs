//! The routes of one `server`.

use super::context::Context;
use super::listeners::Group;
use super::server::{Body, Server};
use super::{action, answer, guards, location};
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::site::Host;
use crate::site::host::HostPattern;

/// For which listeners and hosts the routes of a server are written.
struct Variant {
    groups: Vec<usize>,
    /// Empty: every host.
    hosts: Vec<String>,
}

fn variants(groups: &[Group], servers: &[Server<'_>], index: usize) -> Vec<Variant> {
    let mut variants: Vec<Variant> = Vec::new();
    let mut add =
        |group: usize, hosts: Vec<String>| match variants.iter_mut().find(|other| other.hosts == hosts) {
            Some(variant) => variant.groups.push(group),
            None => variants.push(Variant { groups: vec![group], hosts }),
        };
    for (number, group) in groups.iter().enumerate().filter(|(_, group)| group.servers.contains(&index)) {
        // The first server that has a name takes it.
        let is_free = |host: &&String| {
            !group.servers.iter().any(|other| *other < index && servers[*other].hosts.contains(*host))
        };
        let hosts: Vec<String> = servers[index].hosts.iter().filter(is_free).cloned().collect();
        if group.default != index {
            if !hosts.is_empty() {
                add(number, hosts);
            }
            continue;
        }
        // A wildcard of another server would take hosts of this one.
        let is_taken = |host: &String| {
            group.servers.iter().filter(|other| **other != index).any(|other| {
                let wildcards = servers[*other].hosts.iter().filter(|other| other.starts_with("*."));
                wildcards
                    .into_iter()
                    .any(|other| HostPattern::parse(other).is_some_and(|pattern| pattern.matches(host)))
            })
        };
        let taken: Vec<String> = hosts.into_iter().filter(is_taken).collect();
        if !taken.is_empty() {
            add(number, taken);
        }
        add(number, Vec::new());
    }
    variants
}

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
        for spot in location::order(context, &locations, &answers.fronts, &mut notes) {
            let tls = answers.is_plain_answered.then_some(true);
            let written = action::routes(context, server, &locations, &spot);
            bodies.extend(written.into_iter().map(|section| Body { tls, ..section.into() }));
        }
        guards::tell(context, &locations);
    }
    context.finish(server.scope.own(), &mut notes);
    let mut sections: Vec<Section> =
        bodies.iter_mut().map(|body| std::mem::take(&mut body.section)).collect();
    guards::close_all(context, &server.scope, &mut sections);
    bodies.iter_mut().zip(sections).for_each(|(body, section)| body.section = section);
    let variants = variants(groups, servers, index);
    if variants.is_empty() {
        let what = "no request comes to this server: it has no name that our routes can have, and is not the default one";
        if let Some(directive) = server.directive {
            context.book.remark(directive, what);
            context.book.mark(directive, Outcome::Commented);
        }
        notes.note(what);
    }
    let mut routes = Vec::new();
    for Variant { groups: numbers, hosts } in variants {
        let hosts_left: Vec<String> =
            hosts.iter().filter(|host| !answers.hosts.contains(host)).cloned().collect();
        for Body { section, tls, host } in &bodies {
            let fits = |number: &&usize| tls.is_none_or(|tls| groups[**number].has_tls == tls);
            let listeners: Vec<usize> = numbers.iter().filter(fits).copied().collect();
            if listeners.is_empty() || host.is_none() && hosts_left.is_empty() && !hosts.is_empty() {
                continue;
            }
            let mut route = Section::new("[[route]]");
            if listeners.len() < groups.len() {
                let names: Vec<String> =
                    listeners.iter().map(|number| groups[*number].name.clone()).collect();
                route.set("listener", names, None);
            }
            match host {
                Some(host) => route.set("host", host.clone(), None),
                None if hosts.is_empty() => {}
                None => route.set("host", hosts_left.clone(), None),
            }
            route.append(section.clone());
            routes.push(route);
        }
    }
    Host { title: server.title(), notes, routes }
}
