//! Why a handshake is refused, and how that looks on the wire.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::body::{AnswerBody, whole};

/// Bytes of a refusal's text that the log shows.
const LOGGED_MAX: usize = 256;

/// The answer to a client that may not open a session: a status, and what else it is told.
///
/// ```
/// use wss_service::{Refusal, StatusCode};
///
/// let refusal = Refusal::new(StatusCode::UNAUTHORIZED)
///     .with_field("www-authenticate", "Bearer")
///     .with_body("a token is needed\n");
/// assert_eq!(refusal.status(), 401);
/// ```
#[derive(Debug, Clone)]
pub struct Refusal(Box<Answer>);

/// In a box, since results are as large as their errors.
#[derive(Debug, Clone)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Refusal {
    /// With this status, 400 to 599. Any other becomes 403: a refusal must not look like a success.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        let refuses = status.is_client_error() || status.is_server_error();
        let status = if refuses { status } else { StatusCode::FORBIDDEN };
        Self(Box::new(Answer { status, headers: HeaderMap::new(), body: format!("{status}\n") }))
    }

    /// With this field. One whose name or value can't be in a head is left out.
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), HeaderValue::from_str(value)) {
            self.0.headers.append(name, value);
        }
        self
    }

    /// With this text.
    #[must_use]
    pub fn with_body(mut self, text: impl Into<String>) -> Self {
        self.0.body = text.into();
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What the client is told, as much of it as a log has room for.
    pub(crate) fn first_line(&self) -> &str {
        let line = self.0.body.lines().next().unwrap_or_default();
        &line[..line.floor_char_boundary(LOGGED_MAX)]
    }

    /// The answer.
    pub(crate) fn answer(self) -> Response<AnswerBody> {
        let Answer { status, headers, body } = *self.0;
        let mut answer = Response::new(whole(body));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers_mut().entry(CONTENT_TYPE).or_insert(text);
        answer
    }
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self::new(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_never_a_success() {
        for (given, status) in [(401, 401), (503, 503), (200, 403), (101, 403), (302, 403)] {
            assert_eq!(Refusal::new(StatusCode::from_u16(given).unwrap()).status(), status);
        }
    }

    #[test]
    fn fields_that_can_not_be_written_are_left_out() {
        let refusal = Refusal::new(StatusCode::FORBIDDEN).with_field("x-a", "b").with_field("x y", "z");
        let answer = refusal.with_field("x-b", "line\r\nbreak").answer();
        assert_eq!(answer.headers()["x-a"], "b");
        assert_eq!(answer.headers().len(), 2, "with its content type");
    }
}
