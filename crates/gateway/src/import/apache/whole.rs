//! The file as a whole: what is outside of virtual hosts, and each of these.

use super::context::Context;
use super::listen::Listens;
use super::scope::Scope;
use super::vhost::Vhost;
use super::{listeners, route, top};
use crate::import::book::Outcome;
use crate::import::hosts;
use crate::import::site::Host;
use crate::import::tree::Directive;

/// Directives of which at least one says what is done with requests.
const OF_PATHS: [&str; 13] = [
    "alias",
    "documentroot",
    "jkmount",
    "location",
    "proxypass",
    "proxypassmatch",
    "redirect",
    "redirectmatch",
    "redirectpermanent",
    "rewriterule",
    "scriptalias",
    "sethandler",
    "wsgiscriptalias",
];

pub(super) fn translate<'a>(context: &mut Context<'a>, directives: &'a [Directive]) {
    let mut head = std::mem::take(&mut context.site.head);
    if let Some(root) = directives.iter().rev().find(|directive| directive.name == "serverroot") {
        context.root = context.root.join(root.arg(0));
    }
    let (sections, outer): (Vec<_>, Vec<_>) = directives.iter().partition(|d| d.name == "virtualhost");
    let mut listens = Listens::of(context, &outer, &mut head);
    let mut vhosts = Vec::new();
    for section in sections {
        context.book.mark(section, Outcome::Key);
        let scope = Scope { own: section.inside().iter().collect(), outer: outer.clone() };
        vhosts.push(Vhost::of(context, Some(section), scope, &mut listens));
    }
    // What is outside takes the addresses that no virtual host has.
    let taken: Vec<_> = vhosts.iter().flat_map(|found: &Vhost<'_>| found.addresses.clone()).collect();
    let left = listens.left(&taken);
    let does_something = outer.iter().any(|directive| OF_PATHS.contains(&directive.name.as_str()));
    if vhosts.is_empty() || does_something && !left.is_empty() {
        let mut main =
            Vhost::of(context, None, Scope { own: outer.clone(), outer: Vec::new() }, &mut listens);
        main.addresses = left;
        vhosts.push(main);
    } else if !left.is_empty() {
        let shown: Vec<&str> = left.iter().map(|(address, _)| address.as_str()).collect();
        head.note(format!("no virtual host is for {}: there is no listener for it", shown.join(", ")));
    }
    for proxy in vhosts.iter().flat_map(|found| found.scope.all("proxy")).collect::<Vec<_>>() {
        if let Some(name) = proxy.arg(0).strip_prefix("balancer://") {
            context.balancers.insert(name.trim_end_matches('/').to_owned(), proxy);
        }
    }
    let reaches = listeners::write(context, &mut vhosts);
    top::keys(context, &vhosts, &mut head);
    let names: Vec<Vec<String>> = vhosts.iter().map(|found| found.hosts.clone()).collect();
    let names: Vec<&[String]> = names.iter().map(Vec::as_slice).collect();
    for (index, found) in vhosts.iter_mut().enumerate() {
        let mut notes = std::mem::take(&mut found.notes);
        let bodies = route::bodies(context, found, &mut notes);
        if found.directive.is_some() {
            context.finish(found.scope.own.iter().copied(), &mut notes);
        }
        let routes = hosts::routes(&reaches, &names, index, &bodies, &[]).unwrap_or_else(|| {
            let what = "no request comes to it: Listen has not its address, or others there take its names";
            if let Some(directive) = found.directive {
                context.book.remark(directive, what);
            }
            notes.note(what);
            Vec::new()
        });
        context.site.hosts.push(Host { title: found.title(), notes, routes });
    }
    context.finish(outer, &mut head);
    context.site.head = head;
}
