//! An authorization server is asked about each request.

use http::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Response, StatusCode};

use net_io::unix_secs;

use super::findings::{Asker, Findings, set_fields};
use crate::context::identity::Recheck;
use crate::request::body::AnswerBody;
use crate::request::reply::{ErrorResponse, Served};
use crate::site::auth::Forward;
use crate::upstream::ask::{ask, let_go, question};
use crate::upstream::edits::Edits;
use crate::upstream::forward as passing;
use crate::upstream::forward::Hop;

/// Asks the server. `Some` is its answer to a request that may not come in, which goes back as it is.
///
/// # Errors
/// 503 if it can't be asked, 502 if its answer is none: without a yes of the server no request comes in.
pub(super) async fn check(
    asker: Asker<'_>,
    forward: &Forward,
    keeps_question: bool,
    head: &Parts,
    found: &mut Findings,
) -> Result<Option<Served>, ErrorResponse> {
    let worker = &asker.connection.worker;
    let mut edits = Edits::default();
    set_fields(&found.fields, &mut edits);
    let question = question(head, &Hop { edits: Some(&edits), ..asker.hop }, &forward.endpoint);
    let (mut answer, body, lease) = match ask(&worker.auth_pool, forward, &question).await {
        Ok(answered) => answered,
        Err(e) => {
            worker.auth_outages.note(forward, &e);
            let status =
                if e.is_nonsense() { StatusCode::BAD_GATEWAY } else { StatusCode::SERVICE_UNAVAILABLE };
            let cause = format!("the authorization server {}: {e}", forward.endpoint.url());
            let sentence = "the authorization server of this gateway can't be asked; try again later";
            return Err(ErrorResponse::new(status, sentence)
                .with(RETRY_AFTER, HeaderValue::from_static("5"))
                .because(cause));
        }
    };
    if !answer.status.is_success() {
        if answer.status == StatusCode::UNAUTHORIZED && head.headers.contains_key(AUTHORIZATION) {
            asker.failed();
        }
        passing::response(&mut answer.headers);
        let body = AnswerBody::Backend { answer: body, lease: Some(lease) };
        return Ok(Some(Served::Answer(Response::from_parts(answer, body))));
    }
    for name in &forward.copy {
        let values = answer.headers.get_all(name).into_iter();
        found.fields.extend(values.map(|value| (name.clone(), value.clone())));
    }
    let subject = forward.subject.as_ref().and_then(|name| answer.headers.get(name));
    if let Some(subject) = subject.and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty()) {
        found.identity.name(subject);
    }
    if keeps_question {
        found.identity.recheck = Some(Recheck::new(question, unix_secs()));
    }
    let_go(body, lease, forward).await;
    Ok(None)
}
