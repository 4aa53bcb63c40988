//! The form of a request, before anything is done for it.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use http::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version};
use upgrade_handler::fields::tokens;

use crate::request::reply::ErrorResponse;
use crate::site::answer::Requested;
use crate::site::host::Host;
use crate::site::route::Route;
use crate::upstream::forward::has_outer_blanks;

pub(super) fn bad(sentence: impl Into<Cow<'static, str>>) -> ErrorResponse {
    ErrorResponse::new(StatusCode::BAD_REQUEST, sentence)
}

/// Checks the form of a request's target, and gives it a path if it has none (RFC 9112 §3.2,
/// RFC 9113 §8.3.1).
pub(super) fn target(head: &mut Parts) -> Result<(), ErrorResponse> {
    match (head.uri.scheme_str(), head.uri.authority()) {
        (None, None) | (Some("http" | "https" | "ws" | "wss"), _) => {}
        (None, Some(_)) => return Err(bad("only CONNECT may have a target that is only a host and a port")), // §3.2.3
        (Some(_), _) => return Err(bad("the target's scheme is neither http nor https")),
    }
    let whole = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    if whole.starts_with('/') || whole == "*" && head.method == Method::OPTIONS {
        return Ok(());
    }
    if !whole.is_empty() && !whole.starts_with('?') {
        return Err(bad("the target's path doesn't begin with a slash"));
    }
    // §3.2.1: an absent path is sent as "/".
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = format!("/{whole}").parse().ok();
    head.uri = Uri::from_parts(parts).map_err(|_| bad("the target has no path"))?;
    Ok(())
}

/// A field value over HTTP/2 neither begins nor ends with a blank (RFC 9113 §8.2.1); h2 lets these through.
pub(super) fn blanks(head: &Parts) -> Result<(), ErrorResponse> {
    if head.version == Version::HTTP_2 && head.headers.values().any(has_outer_blanks) {
        return Err(bad("a field value must not begin or end with a space or a tab"));
    }
    Ok(())
}

/// The host that a request is for (RFC 9112 §3.2, RFC 9113 §8.3.1). `known`: see [`Host::parse_known`].
pub(super) fn host(head: &Parts, known: &OnceLock<Arc<str>>) -> Result<Host, ErrorResponse> {
    // Comparing a few names costs less than a look-up.
    let mut fields = head.headers.iter().filter(|(name, _)| *name == HOST).map(|(_, field)| field);
    let field = fields.next();
    if fields.next().is_some() {
        return Err(bad("the request has more than one Host"));
    }
    let authority = head
        .uri
        .authority()
        .map(|authority| HeaderValue::from_str(authority.as_str()))
        .transpose()
        .ok()
        .flatten();
    let chosen = match (&authority, field) {
        (None, None) if head.version == Version::HTTP_10 => return Ok(Host::none()),
        (None, None) => return Err(bad("the request has no Host")),
        (None, Some(field)) => field,
        (Some(authority), None) if head.version != Version::HTTP_11 => authority,
        // Over HTTP/1.1 Host is needed even beside an absolute target, which then wins.
        (Some(_), None) => return Err(bad("the request has no Host")),
        (Some(authority), Some(field)) => {
            if head.version == Version::HTTP_2 && !authority.as_bytes().eq_ignore_ascii_case(field.as_bytes())
            {
                return Err(bad(":authority and Host differ"));
            }
            authority
        }
    };
    Host::parse_known(chosen, known).ok_or_else(|| bad("Host is not a valid host name with an optional port"))
}

/// hyper decodes chunks, and nothing else (RFC 9112 §6.1).
pub(super) fn transfer_coding(head: &Parts) -> Result<(), ErrorResponse> {
    if head.headers.keys().all(|name| *name != TRANSFER_ENCODING) {
        return Ok(()); // comparing a few names costs less than a look-up
    }
    let mut lines = head.headers.get_all(TRANSFER_ENCODING).into_iter();
    let Some(line) = lines.next() else { return Ok(()) };
    if lines.next().is_none() && line.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    if tokens(&head.headers, TRANSFER_ENCODING).all(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Err(bad("Transfer-Encoding must name chunked exactly once")); // RFC 9112 §7.1
    }
    Err(ErrorResponse::new(StatusCode::NOT_IMPLEMENTED, "chunked is the only supported transfer coding"))
}

/// The path that was asked for.
pub(super) fn path(head: &Parts) -> &str {
    match head.uri.path() {
        "*" => "/", // about the server as a whole (RFC 9112 §3.2.4)
        path => path,
    }
}

/// What a request has to put into an answer of the gateway.
#[must_use]
pub(super) fn requested<'a>(
    head: &'a Parts,
    host: &'a Host,
    route: &'a Route,
    groups: &'a [&'a str],
) -> Requested<'a> {
    Requested {
        host: &host.name,
        path: path(head),
        query: head.uri.query(),
        route: route.matcher.path.prefix(),
        groups,
    }
}

#[cfg(test)]
mod tests;
