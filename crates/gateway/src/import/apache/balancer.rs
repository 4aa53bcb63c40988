//! `<Proxy balancer://…>`, as an `[[upstream]]`.

use super::address::{Server, server};
use super::context::Context;
use super::vhost::Vhost;
use crate::import::book::Outcome;
use crate::import::sheet::{Section, Value};
use crate::import::tree::Directive;

/// The name of a balancer's upstream, which is written if it isn't yet.
pub(super) fn name<'a>(context: &mut Context<'a>, found: &Vhost<'a>, of: &Server, by: &Directive) -> String {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = of.authority.chars().map(|c| if is_good(c) { c } else { '-' }).take(64).collect();
    let is_written =
        context.site.upstreams.iter().any(|section| section.get("name") == Some(&name.as_str().into()));
    if is_written {
        return name;
    }
    let Some(balancer) = context.balancers.get(&of.authority).copied() else {
        context.book.remark(by, "there is no <Proxy> with this balancer: write an [[upstream]] for it");
        return name;
    };
    let mut section = Section::new("[[upstream]]");
    section.set("name", name.clone(), Some(&balancer.at));
    context.book.mark(balancer, Outcome::Key);
    let mut servers = Vec::new();
    section.set("balance", "round-robin", None);
    // A member may stand outside of its balancer, with its name in front.
    let outside =
        found.scope.every().filter(|d| d.name == "balancermember" && d.arg(0).ends_with(&of.authority));
    let outside: Vec<(&Directive, usize)> = outside.map(|directive| (directive, 1)).collect();
    let inside = balancer.inside().iter().map(|directive| (directive, 0));
    for (directive, first) in inside.chain(outside) {
        match directive.name.as_str() {
            "balancermember" => servers.extend(member(context, directive, first, &mut section)),
            "proxyset" => set(context, directive, &mut section),
            _ => {}
        }
    }
    if servers.is_empty() {
        context.book.remark(balancer, "it has no members: write the servers of this [[upstream]]");
    }
    let servers = if servers.len() == 1 { servers.remove(0) } else { Value::List(servers) };
    section.set("servers", servers, None);
    context.finish(balancer.inside(), &mut section);
    context.site.upstreams.push(section);
    name
}

fn member(
    context: &mut Context<'_>,
    directive: &Directive,
    first: usize,
    section: &mut Section,
) -> Option<Value> {
    let member = match server(directive.arg(first)) {
        Ok(member) if !member.is_balancer() => member,
        Ok(_) => {
            context.book.misses(section, directive, "a balancer in a balancer has no counterpart");
            return None;
        }
        Err(what) => {
            context.book.misses(section, directive, &what);
            return None;
        }
    };
    let value = |key: &str| directive.args.iter().find_map(|arg| arg.strip_prefix(key));
    let left_out = match value("status=").filter(|status| !status.starts_with('-')) {
        Some(status) if status.contains(['D', 'S']) => Some("it is disabled in Apache, and left out"),
        Some(status) if status.contains(['H', 'R']) => {
            Some("there are no servers for the case that others are down")
        }
        _ => None,
    };
    if let Some(what) = left_out {
        context.book.misses(section, directive, what);
        return None;
    }
    let mut keys = vec![("address".to_owned(), Value::from(member.address()))];
    let weight = value("loadfactor=").and_then(|text| text.split('.').next()?.parse::<u32>().ok());
    if let Some(weight) = weight.filter(|weight| (2..=1000).contains(weight)) {
        keys.push(("weight".to_owned(), weight.into()));
    }
    context.book.mark(directive, Outcome::Key);
    if member.path.as_deref().is_some_and(|path| path != "/") {
        let what = "paths behind the address of a member have to be written into its routes (rewrite)";
        context.book.misses(section, directive, what);
    }
    Some(if keys.len() == 1 { keys.remove(0).1 } else { Value::Table(keys) })
}

fn set(context: &mut Context<'_>, directive: &Directive, section: &mut Section) {
    let value = |key: &str| directive.args.iter().find_map(|arg| arg.strip_prefix(key));
    context.book.mark(directive, Outcome::Commented);
    match value("lbmethod=") {
        Some("bybusyness") => context.book.key(section, directive, "balance", "least-sessions"),
        Some("byrequests") => context.book.mark(directive, Outcome::Key),
        Some(_) => {
            context.book.lacks(section, directive, "servers are asked in turn; balance has other ways");
        }
        None => {}
    }
    if let Some(sticky) = value("stickysession=") {
        let cookie = sticky.split('|').next().unwrap_or(sticky).to_owned();
        let how = "the gateway makes the cookie, and its value is the gateway's own; servers don't see it";
        context.book.nearly(section, directive, ("sticky.cookie", cookie), how);
    }
    let others: Vec<&str> = directive
        .args
        .iter()
        .map(String::as_str)
        .filter(|arg| !arg.starts_with("lbmethod=") && !arg.starts_with("stickysession="))
        .collect();
    if !others.is_empty() {
        section.note(format!("{}: {} has no counterpart", directive.at, others.join(" ")));
    }
}
