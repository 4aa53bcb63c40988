//! Requests of pages of other origins (Fetch Standard, "CORS protocol"): browsers ask first, and the gateway answers.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap,
    HeaderValue, ORIGIN, VARY,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use upgrade_handler::origin;

use crate::request::body::AnswerBody;
use crate::request::reply::{ErrorResponse, Served};
use crate::site::extras::Cors;

/// What a request's origin may do.
#[derive(Debug)]
pub(super) struct Allowed {
    /// Access-Control-Allow-Origin; `None`: it may not read the answer, or there is none.
    origin: Option<HeaderValue>,
    credentials: bool,
    /// Other origins get another answer.
    varies: bool,
}

impl Allowed {
    /// Judges the origin of a request.
    pub(super) fn judge(cors: &Cors, headers: &HeaderMap) -> Self {
        let asked = headers.get(ORIGIN);
        let origin = match &cors.origins {
            None => asked.map(|_| HeaderValue::from_static("*")),
            Some(origins) => asked.filter(|_| origin::check(headers, origins).is_ok()).cloned(),
        };
        Self { origin, credentials: cors.credentials, varies: cors.origins.is_some() }
    }

    /// Says so in an answer, in place of what the server says.
    pub(super) fn write_to(self, headers: &mut HeaderMap) {
        headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            if self.credentials {
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
    }
}

/// The answer to a preflight request; `None` if the request is none. What stands in [`Allowed`] is added to it as to
/// every answer.
///
/// # Errors
/// 403 for an origin that may not.
pub(super) fn preflight(
    cors: &Cors,
    head: &Parts,
    allowed: &Allowed,
) -> Result<Option<Served>, ErrorResponse> {
    let is_preflight = head.method == Method::OPTIONS
        && head.headers.contains_key(ORIGIN)
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !is_preflight {
        return Ok(None);
    }
    if allowed.origin.is_none() {
        let cause = format!("CORS: the origin is not allowed: {}", origin::shown(&head.headers));
        return Err(
            ErrorResponse::new(StatusCode::FORBIDDEN, "pages of this origin are not allowed").because(cause)
        );
    }
    let mut answer = Response::new(AnswerBody::whole(""));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, cors.methods.clone());
    if let Some(names) = &cors.headers {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    if let Some(max_age) = &cors.max_age {
        headers.insert(ACCESS_CONTROL_MAX_AGE, max_age.clone());
    }
    Ok(Some(Served::Answer(answer)))
}
