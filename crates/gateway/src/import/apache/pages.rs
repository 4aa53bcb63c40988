//! `ErrorDocument` and mod_deflate: what answers have besides.

use super::access::find;
use super::context::Context;
use super::fields::list;
use super::item::bare;
use super::vhost::Vhost;
use crate::import::book::Outcome;
use crate::import::sheet::{Section, Value};
use crate::import::tree::Directive;

/// `ErrorDocument`: files in place of errors.
pub(super) fn errors(
    context: &mut Context<'_>,
    found: &Vhost<'_>,
    sections: &[&Directive],
    route: &mut Section,
) {
    let root = found.scope.find("documentroot").and_then(|root| context.path(root.arg(0)));
    let inside = sections.iter().flat_map(|section| section.inside());
    let all: Vec<&Directive> =
        found.scope.every().chain(inside).filter(|d| d.name == "errordocument").collect();
    let mut pages: Vec<(String, Value)> = Vec::new();
    for directive in &all {
        let (status, target) = (directive.arg(0), directive.arg(1));
        let is_status = status.parse::<u16>().is_ok_and(|code| (400..600).contains(&code));
        // What other directives do with the path isn't a file of the DocumentRoot.
        let is_other = found.scope.every().any(|other| {
            matches!(other.name.as_str(), "alias" | "proxypass")
                && other.arg(1) != "!"
                && super::item::is_below(target, other.arg(0))
        });
        match &root {
            Some(root) if is_status && target.starts_with('/') && !is_other => {
                pages.retain(|(other, _)| other != status);
                pages.push((status.to_owned(), format!("{}{target}", bare(root)).into()));
                context.book.mark(directive, Outcome::Key);
            }
            _ if target == "default" => {
                context.book.itself(route, directive, "errors have the gateway's own page");
            }
            _ => context.book.misses(
                route,
                directive,
                "error pages are files of the DocumentRoot; what this names is none",
            ),
        }
    }
    if !pages.is_empty() {
        route.set("error_pages", Value::Table(pages), all.first().map(|directive| &directive.at));
    }
}

/// `AddOutputFilterByType DEFLATE` and `SetOutputFilter DEFLATE`.
pub(super) fn compress(
    context: &mut Context<'_>,
    found: &Vhost<'_>,
    sections: &[&Directive],
    route: &mut Section,
) {
    if let Some(filter) = find(sections, "setoutputfilter").or_else(|| found.scope.find("setoutputfilter")) {
        if filter.arg(0).eq_ignore_ascii_case("deflate")
            || filter.arg(0).eq_ignore_ascii_case("brotli_compress")
        {
            return context.book.key(route, filter, "compress", true);
        }
        context.book.misses(
            route,
            filter,
            "answers are compressed by zstd or gzip (compress), and not filtered",
        );
    }
    let inside = sections.iter().flat_map(|section| section.inside());
    for filter in found.scope.every().chain(inside).filter(|d| d.name == "addoutputfilterbytype") {
        let types: Vec<Value> = filter
            .args
            .iter()
            .skip(1)
            .filter(|arg| arg.contains('/'))
            .map(|arg| arg.as_str().into())
            .collect();
        let is_known = filter
            .arg(0)
            .split(';')
            .any(|name| matches!(name.to_ascii_lowercase().as_str(), "deflate" | "brotli_compress"));
        if is_known && !types.is_empty() {
            let mut all = list(route.get("compress.types"));
            all.extend(types.into_iter().filter(|media| !all.contains(media)).collect::<Vec<_>>());
            context.book.key(route, filter, "compress.types", Value::List(all));
        } else {
            context.book.misses(
                route,
                filter,
                "answers are compressed by zstd or gzip (compress), and not filtered",
            );
        }
    }
}
