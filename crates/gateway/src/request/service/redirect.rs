//! Redirects (RFC 9110 §15.4).

use http::header::{HeaderValue, LOCATION};
use http::{Response, StatusCode};

use crate::request::body::AnswerBody;
use crate::request::reply::{ErrorResponse, Served};
use crate::site::answer::{Redirect, Requested};

/// Answers with the place that the client is sent to.
///
/// # Errors
/// 400 if that is the host of the request, and the request names none.
pub(crate) fn answer(redirect: &Redirect, asked: &Requested<'_>) -> Result<Served, ErrorResponse> {
    let location = HeaderValue::try_from(redirect.target(asked)).ok();
    let location = location.filter(|_| !asked.host.is_empty() || !redirect.needs_host());
    let Some(location) = location else {
        return Err(ErrorResponse::new(StatusCode::BAD_REQUEST, "the request names no host to be sent to"));
    };
    let mut answer = Response::new(AnswerBody::whole(""));
    *answer.status_mut() = redirect.status;
    answer.headers_mut().insert(LOCATION, location);
    Ok(Served::Answer(answer))
}
