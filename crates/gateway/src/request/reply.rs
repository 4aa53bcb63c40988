//! What a request leads to: an answer, a session, or a refusal of the gateway's own.

use std::borrow::Cow;
use std::sync::Arc;

use frame_core::deflated::Deflating;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Response, StatusCode, Version};
use upgrade_handler::Refusal;

use crate::context::Connection;
use crate::context::registry::Registered;
use crate::request::body::{AnswerBody, ToClient};
use crate::request::pages;
use crate::session::report::Report;
use crate::session::{Other, Session, Special};
use crate::site::route::Route;

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An answer, with its body.
    Answer(Response<ToClient>),
    /// The answer that opens a tunnel, the session that lives in it, and what compresses its messages.
    Tunnel(Response<()>, Box<Session>, Option<Box<Deflating>>),
}

/// Why the gateway itself answers, and what it says.
#[derive(Debug)]
pub(crate) struct ErrorResponse {
    pub(super) status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// A short sentence for the client.
    sentence: Cow<'static, str>,
    /// For the log, if there is more to say.
    cause: Option<String>,
}

impl ErrorResponse {
    /// A status and a sentence, which clients may read.
    pub(crate) fn new(status: StatusCode, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { status, headers: Vec::new(), sentence: sentence.into(), cause: None }
    }

    /// What the log says instead of the sentence.
    #[must_use]
    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// A field beside it.
    #[must_use]
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A handshake that is refused.
    #[must_use]
    pub(crate) fn refusal(refusal: &Refusal, version: Version) -> Self {
        let (status, headers) = refusal.answer(version);
        let headers = headers.into_iter().filter_map(|(name, value)| Some((name?, value))).collect();
        Self { status, headers, sentence: refusal.to_string().into(), cause: None }
    }

    /// The answer, with a body of one line. `wants_json`: the client accepts no text.
    fn answer(self, wants_json: bool, report: &mut Report) -> Response<AnswerBody> {
        let (body, content_type) = if wants_json {
            (pages::json(self.status), pages::JSON)
        } else {
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            (format!("{}: {}\n", self.status, self.sentence), text)
        };
        report.cause(self.cause.unwrap_or(self.sentence.into_owned()));
        let mut response = Response::new(AnswerBody::whole(body));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }
}

/// What a request has led to.
#[derive(Debug)]
pub(crate) enum Served {
    /// An answer.
    Answer(Response<AnswerBody>),
    /// A session.
    Upgraded(Upgraded),
}

impl Served {
    /// A session of another kind than between a client and a WebSocket server.
    pub(super) fn special(
        connection: &Connection,
        route: &Arc<Route>,
        report: &Report,
        answer: Response<()>,
        special: Special,
    ) -> Self {
        Self::Upgraded(Upgraded {
            answer,
            registered: connection.worker.enroll(route, report.who()),
            route: route.clone(),
            deflate: false,
            deflating: None,
            other: Other::Special(Box::new(special)),
        })
    }
}

/// An agreed session.
#[derive(Debug)]
pub(crate) struct Upgraded {
    /// Opens the tunnel.
    pub answer: Response<()>,
    /// By which it can be ended.
    pub registered: Registered,
    /// Its route, whose policy it must obey.
    pub route: Arc<Route>,
    /// permessage-deflate was agreed upon with the server.
    pub deflate: bool,
    /// It ends here; `None`: it does not, or was not agreed upon.
    pub deflating: Option<Box<Deflating>>,
    /// What is at the other end.
    pub other: Other,
}

/// Why a request is not served.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The gateway's own answer.
    Here(ErrorResponse),
    /// A handshake that can't be.
    Refused(Refusal),
}

impl RequestError {
    /// What a client that speaks this version, and may accept JSON alone, is answered. Its cause goes to the report.
    pub(crate) fn answer(
        self,
        version: Version,
        wants_json: bool,
        report: &mut Report,
    ) -> Response<AnswerBody> {
        let decline = match self {
            Self::Here(decline) => decline,
            Self::Refused(refusal) => ErrorResponse::refusal(&refusal, version),
        };
        decline.answer(wants_json, report)
    }
}

impl From<ErrorResponse> for RequestError {
    fn from(decline: ErrorResponse) -> Self {
        Self::Here(decline)
    }
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
