//! `error_page` and `gzip`: what answers have besides.

use std::ffi::OsStr;

use super::context::Context;
use super::here::Here;
use super::scope::Scope;
use super::times;
use super::variables::{Use, template};
use crate::import::book::Outcome;
use crate::import::sheet::{Section, Value};
use crate::site::files::is_source;

/// `error_page`: files in place of errors.
pub(super) fn pages<'a>(
    context: &mut Context<'a>,
    here: &Here<'a, '_>,
    scope: &Scope<'a>,
    route: &mut Section,
) {
    let mut pages: Vec<(String, Value)> = Vec::new();
    for directive in scope.all("error_page") {
        let statuses: Vec<&String> = directive.args.iter().filter(|arg| arg.parse::<u16>().is_ok()).collect();
        let target = directive.args.last().map_or("", String::as_str);
        let has_other_status = directive.args.iter().any(|arg| arg.starts_with('='));
        let root = here.location_of(target).map_or(scope, |location| &location.scope).find("root");
        let root = root.and_then(|root| template(root.arg(0), &here.facts, Use::Constant).ok());
        let is_file = target.starts_with('/') && !target.contains('$') && !is_source(OsStr::new(target));
        match root.filter(|_| is_file && !has_other_status) {
            Some(root) => {
                let file = format!("{}{target}", context.places.prefix(&root).trim_end_matches('/'));
                for status in statuses
                    .iter()
                    .filter(|status| status.parse::<u16>().is_ok_and(|code| (400..600).contains(&code)))
                {
                    pages.push(((*status).clone(), file.clone().into()));
                }
                context.book.mark(directive, Outcome::Key);
            }
            None => {
                let what = "error pages are files with the error's own status; what this names is none";
                context.book.misses(route, directive, what);
            }
        }
    }
    if pages.is_empty() {
        return;
    }
    let mut seen: Vec<String> = Vec::new();
    pages.retain(|(status, _)| {
        !seen.contains(status) && {
            seen.push(status.clone());
            true
        }
    });
    route.set("error_pages", Value::Table(pages), scope.find("error_page").map(|directive| &directive.at));
    if let Some(intercept) =
        scope.find("proxy_intercept_errors").filter(|_| scope.is_on("proxy_intercept_errors"))
    {
        context.book.key(route, intercept, "intercept_errors", true);
    }
}

/// `gzip` and what belongs to it.
pub(super) fn compress(context: &mut Context<'_>, scope: &Scope<'_>, route: &mut Section) {
    let book = &mut context.book;
    let Some(gzip) = scope.find("gzip") else { return };
    if gzip.arg(0) != "on" {
        return book.itself(route, gzip, "answers are not compressed where compress doesn't say so");
    }
    match scope.find("gzip_types") {
        Some(types) => {
            book.mark(gzip, Outcome::Key);
            // text/html is always compressed in nginx.
            let mut all: Vec<String> = vec!["text/html".to_owned()];
            if types.args.iter().any(|media| media == "*") {
                book.misses(
                    route,
                    types,
                    "a list of media types has to say which; text/* stands for all of its kind",
                );
                all.push("text/*".to_owned());
            }
            let is_media = |media: &&String| media.contains('/') && !media.contains(['*', ' ', ';']);
            all.extend(types.args.iter().filter(is_media).cloned());
            let mut seen = Vec::new();
            all.retain(|media| {
                !seen.contains(media) && {
                    seen.push(media.clone());
                    true
                }
            });
            book.key(route, types, "compress.types", all);
        }
        None => {
            let how = "nginx compresses text/html alone; remove the line to compress other texts, too";
            book.nearly(route, gzip, ("compress.types", "text/html"), how);
        }
    }
    let min = scope.find("gzip_min_length");
    match min.and_then(|min| Some((min, times::bytes(min.arg(0))?))) {
        Some((min, bytes)) => book.key(route, min, "compress.min_length", times::size(bytes.max(1))),
        None => route.set("compress.min_length", "20B", None), // nginx's own default
    }
}
