//! Fixed answers.

use http::Response;
use http::header::CONTENT_TYPE;

use crate::request::body::AnswerBody;
use crate::request::reply::Served;
use crate::site::answer::{Requested, Respond};

/// Answers with what the configuration says.
#[must_use]
pub(crate) fn answer(respond: &Respond, asked: &Requested<'_>) -> Served {
    let body = asked.fill(&respond.body);
    let has_body = !body.is_empty();
    let mut answer = Response::new(AnswerBody::whole(body));
    *answer.status_mut() = respond.status;
    if has_body {
        answer.headers_mut().insert(CONTENT_TYPE, respond.content_type.clone());
    }
    Served::Answer(answer)
}
