//! `[route.redirect]` and `[route.respond]`: what the gateway answers by itself.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::document::Document;
use super::kind::{self, Kind, Number, Options, ShortForm, Show, integer, noted};
use super::option::options;
use super::spec::Shape;
use crate::site::answer::{Redirect, Respond};
use crate::site::route::Action;
use crate::site::template::{OF_TARGET, Template};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

options! {
    /// Where clients are sent to. `redirect = "/new{rest}"` is short for a table with `to` alone.
    struct RedirectOptions: "[route.redirect]";

    /// A URL or a path, with `{host}`, `{path}`, `{query}` (with its `?`) and `{rest}` (the path behind the route's),
    /// which are put in as they were sent, and `{1}` to `{9}`, the groups of `path_regex`.
    to: kind::PlainText, required = "\"https://domain.com{path}{query}\"";
    /// Clients remember 301 and 308. They keep the method of the request with 307 and 308.
    status: RedirectStatus, default = StatusCode::FOUND;
}

options! {
    /// What every request is answered with. `respond = 404` is short for a table with `status` alone.
    struct RespondOptions: "[route.respond]";

    /// The status.
    status: Number<200, 599>, default = 200;
    /// What is sent, with the same placeholders as in a redirect.
    body: kind::PlainText, optional;
    /// The media type of `body`.
    content_type: kind::MediaType, otherwise = "`\"text/plain; charset=utf-8\"`";
}

impl ShortForm for RedirectOptions {
    const KEY: &'static str = "to";
}

impl ShortForm for RespondOptions {
    const KEY: &'static str = "status";

    fn is_short(value: &DeValue<'_>) -> bool {
        matches!(value, DeValue::Integer(_))
    }
}

/// The status of a redirect (RFC 9110 §15.4).
pub(super) struct RedirectStatus;

const REDIRECTS: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

impl Kind for RedirectStatus {
    type Value = StatusCode;

    fn shape() -> Shape {
        let schema = json!({ "enum": REDIRECTS.map(|status| status.as_u16()) });
        Shape::Value { words: "301, 302, 303, 307 or 308".to_owned(), schema }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<StatusCode> {
        let code = integer::<u16>(value.get_ref());
        let status = REDIRECTS.into_iter().find(|status| Some(status.as_u16()) == code);
        let read = status.ok_or_else(|| {
            format!("expected 301, 302, 303, 307 or 308, found {}", kind::found_number(value.get_ref()))
        });
        noted(document, key, value, read)
    }
}

impl Show for RedirectStatus {
    fn show(value: &StatusCode) -> Json {
        value.as_u16().into()
    }
}

pub(super) fn redirect(d: &mut Document<'_>, section: RedirectOptions) -> Option<Action> {
    let to = section.to?;
    let redirect = Redirect::parse(&to.value, section.status.value);
    let redirect = redirect.map_err(|what| d.problem(to.place, format!("to: {what}"))).ok()?;
    Some(Action::Redirect(Arc::new(redirect)))
}

pub(super) fn respond(d: &mut Document<'_>, section: RespondOptions) -> Option<Action> {
    let code = u16::try_from(section.status.value).ok();
    let status = code.and_then(|code| StatusCode::from_u16(code).ok())?;
    let has_body = section.body.is_some();
    if matches!(status.as_u16(), 204 | 205 | 304) && has_body {
        // RFC 9110 §15.3.5, §15.3.6 and §15.4.5.
        d.problem(section.place_of("body"), format!("body: an answer with status {status} has none"));
    }
    if section.content_type.is_some() && !has_body {
        d.problem(
            section.place_of("content_type"),
            "content_type: without body there is nothing of this type",
        );
    }
    let (text, place) = section.body.map(|at| (at.value, at.place)).unwrap_or_default();
    let body = Template::parse(&text, OF_TARGET);
    let body = body.map_err(|what| d.problem(place, format!("body: {what}"))).ok()?;
    let content_type = section.content_type.map_or(TEXT, |at| at.value);
    Some(Action::Respond(Arc::new(Respond { status, body, content_type })))
}
