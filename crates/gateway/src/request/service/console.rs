//! A page to try WebSockets with: connect, send text, see answers and close codes. It needs
//! nothing from anywhere else and works under the Content-Security-Policy it is sent with.

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::request::body::AnswerBody;
use crate::request::reply::{ErrorResponse, Served};
use crate::site::path::RequestPath;
use crate::site::route::Route;

/// `connect-src` is open: the page is for trying any server one likes, not only this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' wss: ws:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const FILES: [(&str, &str, &str); 3] = [
    ("", "text/html; charset=utf-8", include_str!("console/console.html")),
    ("console.js", "text/javascript; charset=utf-8", include_str!("console/console.js")),
    ("console.css", "text/css; charset=utf-8", include_str!("console/console.css")),
];

/// Serves the page and its two files below the route's path.
///
/// # Errors
/// 404 for any other path, 405 for any other method.
pub(crate) fn page(route: &Route, head: &Parts, path: &RequestPath<'_>) -> Result<Served, ErrorResponse> {
    let rest = route.matcher.path.prefix().and_then(|prefix| prefix.strip(path.as_str()));
    if rest == Some("") {
        // The page's files are relative to it.
        let answer =
            ErrorResponse::new(StatusCode::PERMANENT_REDIRECT, "the address of this page ends with a slash");
        let location = HeaderValue::from_str(&format!("{}/", head.uri.path())).ok();
        return Err(location.into_iter().fold(answer, |answer, location| answer.with(LOCATION, location)));
    }
    let name = rest.map(|rest| rest.strip_prefix('/').unwrap_or(rest));
    let file = FILES.iter().find(|(file, _, _)| Some(*file) == name);
    let (_, kind, content) =
        file.ok_or_else(|| ErrorResponse::new(StatusCode::NOT_FOUND, "there is no such page"))?;
    if head.method != Method::GET && head.method != Method::HEAD {
        return Err(ErrorResponse::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this page supports only GET and HEAD",
        )
        .with(ALLOW, HeaderValue::from_static("GET, HEAD")));
    }
    let mut answer = Response::new(AnswerBody::whole(*content));
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, *kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(Served::Answer(answer))
}
