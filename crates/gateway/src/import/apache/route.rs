//! The routes of a virtual host, written.

use super::access::{self, Access};
use super::context::Context;
use super::item::{Item, Taken, What, bare};
use super::vhost::Vhost;
use super::{fields, files, guards, handlers, order, pages, paths, programs, proxy, sections};
use crate::import::book::Outcome;
use crate::import::hosts::Body;
use crate::import::pattern;
use crate::import::sheet::{Section, Value};
use crate::import::tree::Directive;

/// All routes of a virtual host, without their listeners and hosts.
pub(super) fn bodies<'a>(context: &mut Context<'a>, found: &Vhost<'a>, notes: &mut Section) -> Vec<Body> {
    let (items, fallback) = paths::items(context, found, notes);
    let items = programs::split(context, found, items, notes);
    let items = sections::split(context, found, items, notes);
    let items = order::lower(context, whole(found, items, fallback.is_some()), notes);
    let mut bodies = Vec::new();
    for mut item in items {
        let section = route(context, found, &mut item, fallback.as_ref());
        bodies.push(Body { tls: item.tls, ..section.into() });
    }
    sections::finish(context, found, notes);
    bodies
}

/// What stands for a missing file, and scripts, have names below the DocumentRoot: parts of its paths keep it whole, as
/// patterns have it.
fn whole<'a>(found: &Vhost<'a>, mut items: Vec<Item<'a>>, has_fallback: bool) -> Vec<Item<'a>> {
    let names_one = |directive: &Directive| directive.name == "fallbackresource";
    let has_one = found.scope.every().any(|d| names_one(d) || d.inside().iter().any(names_one));
    if has_fallback || has_one || handlers::has_scripts(found) {
        for item in &mut items {
            let What::Files { base, .. } = &item.what else { continue };
            item.is_late = base == "/" && matches!(&item.taken, Taken::Path(path) if path != "/");
        }
    }
    items
}

fn route<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    item: &mut Item<'a>,
    fallback: Option<&(String, &'a Directive)>,
) -> Section {
    let mut route = Section::default();
    match &item.taken {
        // `{1}` is what is behind the path.
        Taken::Path(path) if item.is_late => {
            route.set("path_regex", format!("{}(/.*)?", pattern::escaped(bare(path))), None);
        }
        Taken::Path(path) => route.set("path", path.clone(), None),
        Taken::Exact(path) => route.set("path_exact", path.clone(), None),
        Taken::Pattern { ours, .. } => route.set("path_regex", ours.clone(), None),
    }
    let holding = if item.is_early { Vec::new() } else { sections::holding(context, found, item) };
    if let Some(upgrade) = item.upgrade {
        route.set("when.upgrade", upgrade, None);
    }
    let access = Access::of(&holding);
    let is_denied = access.denies_all(context, &mut route);
    if !is_denied {
        act(context, found, &holding, item, fallback, &mut route);
    }
    if !item.is_early && !is_denied && !matches!(item.what, What::Answer(_)) {
        let has_server = matches!(item.what, What::Proxy { .. });
        access.write(context, &holding, &mut route, has_server);
        access::satisfy(context, &holding, &mut route);
        access::body(context, found, &holding, &mut route);
        pages::errors(context, found, &holding, &mut route);
        pages::compress(context, found, &holding, &mut route);
    } else if !item.is_early && !is_denied {
        access.write(context, &holding, &mut route, false);
    }
    fields::write(
        context,
        found,
        &holding,
        &mut route,
        matches!(item.what, What::Proxy { .. }) && !is_denied,
    );
    if !item.is_early && !is_denied {
        for lost in std::mem::take(&mut item.lost) {
            let what = "it has rules of access for some of these paths, and which has no counterpart";
            guards::close(context, lost, &mut route, what);
        }
        access::guards(context, found, &holding, &mut route);
    }
    for section in &holding {
        context.book.mark(section, Outcome::Key);
        context.finish(section.inside(), &mut route);
    }
    route
}

/// What is done.
fn act<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    holding: &[&'a Directive],
    item: &Item<'a>,
    fallback: Option<&(String, &'a Directive)>,
    route: &mut Section,
) {
    match &item.what {
        What::Answer(answered) => {
            route.append(answered.clone());
            if let (true, Some(Value::Table(keys))) = (item.is_late, answered.get("redirect")) {
                let late = keys.iter().map(|(key, value)| match value {
                    Value::Text(text) => (key.clone(), text.replace("{rest}", "{1}").into()),
                    other => (key.clone(), other.clone()),
                });
                route.set("redirect", Value::Table(late.collect()), None);
            }
        }
        What::Proxy { server, base, by } => {
            proxy::write(context, found, holding, item, (server, base.as_deref(), *by), route);
        }
        What::Files { directory, base, by } => {
            let own = match &item.taken {
                Taken::Path(path) if !item.is_late => Some(format!(
                    "{}{}",
                    bare(directory),
                    bare(path).strip_prefix(bare(base)).unwrap_or_default()
                )),
                // The whole path is the name of the file there.
                _ => bare(directory).strip_suffix(bare(base)).map(str::to_owned),
            };
            let Some(own) = own else {
                let what = "files of a directory with another name than their path can't be served by a pattern; they get 501";
                context.book.remark(by, what);
                route.comment(format!("{}: {}: {what}", by.at, by.shown()));
                return route.set("respond", 501, None);
            };
            let own = if own.is_empty() { "/".to_owned() } else { own };
            route.set("files.directory", own, Some(&by.at));
            files::write(context, found, holding, (base == "/", fallback), route);
        }
    }
}
