//! Answers of the page, and refusals.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;

/// Nothing from elsewhere, nothing inside the page, and in no other site's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
/// HTML, as HTTP calls it.
pub(super) const HTML: &str = "text/html; charset=utf-8";

/// Why a request doesn't get what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error(
        "this page needs a token here, and the configuration has none: add token_file to [admin], or ask for the page on a \
         loopback address of the gateway's machine, for instance through ssh -L"
    )]
    NoToken,
    #[error("this page needs the token of [admin], as Authorization: Bearer")]
    Missing,
    #[error("this is not the token of [admin]")]
    Wrong,
    #[error("too many wrong tokens came from this address; try again later")]
    TooMany(Duration),
    #[error("the configuration has actions = false in [admin], so nothing can be changed here")]
    NoActions,
}

pub(super) fn answer(
    status: StatusCode,
    kind: &'static str,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(super) fn plain(status: StatusCode, sentence: &str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", format!("{sentence}\n"))
}

pub(super) fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, &format!("only {methods} is supported"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

pub(super) fn refusal(denied: Denied) -> Response<Full<Bytes>> {
    let status = match denied {
        Denied::NoToken | Denied::NoActions => StatusCode::FORBIDDEN,
        Denied::Missing | Denied::Wrong => StatusCode::UNAUTHORIZED,
        Denied::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
    };
    let mut response = plain(status, &denied.to_string());
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"wssgate\""));
    }
    if let Denied::TooMany(wait) = denied {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    }
    response
}

/// With what keeps other sites away from it.
pub(super) fn secured(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
