//! A question to an authorization server (`[route.access.forward]`): may this request come in?
//!
//! In: the head of a request. Out: the question, as lines that can be asked again for the life of a session, and the
//! answer to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap,
    HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, MAX_FORWARDS,
    RANGE, TRAILER,
};
use http::{HeaderName, Method, Request, StatusCode, request, response};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::net::fields::remove_where;
use crate::site::auth::Forward;
use crate::site::endpoint::Endpoint;
use crate::site::upstream::{Connector, Protocol};
use crate::upstream::body::ToBackend;
use crate::upstream::dial::DialError;
use crate::upstream::forward::{self, Hop};
use crate::upstream::h1::connection::{ResponseBody, SendRequestError};
use crate::upstream::h1::request::RequestWriter;
use crate::upstream::identity;
use crate::upstream::pool::{Lease, Pool};

/// What is about the body of the request, which the question hasn't, or makes its answer depend on what the client has
/// already: 304 would be no yes.
const LEFT_OUT: [HeaderName; 13] = [
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CONTENT_ENCODING,
    ACCEPT_RANGES,
    EXPECT,
    TRAILER,
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    MAX_FORWARDS,
];
/// Of the answer, when it is a yes: what is longer costs the connection. In bytes.
const BODY_LEN_MAX: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// There is no connection.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// It broke, or what came over it is no answer.
    #[error("{0}")]
    Send(#[from] SendRequestError),
    /// It has switched protocols, which was not asked for.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// It did not answer in time.
    #[error("no answer within {after:?} (timeout)")]
    Timeout {
        /// The limit.
        after: Duration,
    },
}

impl AskError {
    /// It has answered, but not as a server does.
    #[must_use]
    pub(crate) fn is_nonsense(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Send(SendRequestError::Bad(_)))
    }
}

/// The question: the fields of the request as lines, behind which stands who the client is.
#[must_use]
pub(crate) fn question(head: &request::Parts, hop: &Hop<'_>, server: &Endpoint) -> Vec<u8> {
    let (mut asked, ()) = Request::new(()).into_parts();
    asked.headers = head.headers.clone();
    asked.version = head.version;
    for name in &LEFT_OUT {
        asked.headers.remove(name);
    }
    remove_where(&mut asked.headers, |name| {
        let is_ours = matches!(name.as_str(), "x-forwarded-method" | "x-forwarded-uri");
        is_ours || name.as_str().starts_with("sec-websocket-") || name.as_str() == "http2-settings"
    });
    let ours = forward::request(&mut asked, hop, server);
    asked.headers.remove(HOST); // the server's own
    let mut lines = Vec::with_capacity(1024);
    put_fields(&asked.headers, &mut lines);
    lines.extend_from_slice(&ours);
    // A WebSocket over HTTP/2 is opened with CONNECT (RFC 8441 §4), where HTTP/1.1 has GET.
    let method = if head.method == Method::CONNECT { &Method::GET } else { &head.method };
    let uri = head.uri.path_and_query().map_or("/", |uri| uri.as_str());
    for part in ["X-Forwarded-Method: ", method.as_str(), "\r\nX-Forwarded-Uri: ", uri, "\r\n"] {
        lines.extend_from_slice(part.as_bytes());
    }
    lines
}

fn put_fields(headers: &HeaderMap, lines: &mut Vec<u8>) {
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
}

/// Asks a [`question`], over a kept connection or a new one, and waits for the head of the answer for as long as the
/// server may take.
///
/// # Errors
/// If there is no answer.
///
/// # Cancel safety
/// A dropped call closes the connection.
pub(crate) async fn ask(
    pool: &Arc<Pool>,
    server: &Forward,
    question: &[u8],
) -> Result<(response::Parts, ResponseBody, Lease), AskError> {
    let deadline = Instant::now() + server.timeout;
    let asking = async {
        let connector = Connector {
            connect_timeout: server.timeout,
            pooled: true,
            proxy_protocol: None,
            protocol: Protocol::Http1,
        };
        let (mut head, ()) = Request::new(()).into_parts();
        head.uri = server.uri.clone();
        head.headers.insert(HOST, server.endpoint.field());
        let mut request = RequestWriter::new(&head, question, ToBackend::empty(), None);
        let (mut connection, mut lease) = pool.lease(connector, &server.endpoint).await?;
        loop {
            match connection.send_request(request, None).await {
                Ok((head, answer)) => return Ok((head, answer, lease)),
                // A kept connection had ended.
                Err(SendRequestError::Retry { request: again, reused: true, .. }) => request = *again,
                Err(e) => return Err(AskError::from(e)),
            }
            (connection, lease) = pool.lease_new(connector, &server.endpoint).await?;
        }
    };
    let asked = timeout_at(deadline, asking).await;
    let (head, answer, lease) = asked.map_err(|_| AskError::Timeout { after: server.timeout })??;
    if head.status.is_informational() {
        return Err(AskError::Status(head.status));
    }
    let mut lease = lease;
    if logs_in(question) || identity::challenges(&head) {
        lease.belongs_to(None); // what comes next over such a connection is taken for the same user's
    }
    Ok((head, answer, lease))
}

/// The question takes part in the login of a connection.
fn logs_in(question: &[u8]) -> bool {
    let name = b"authorization: ";
    question.split(|byte| *byte == b'\n').any(|line| {
        let value = line.get(name.len()..).filter(|_| line[..name.len()].eq_ignore_ascii_case(name));
        value
            .and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok())
            .is_some_and(|value| identity::logs_in(&[(AUTHORIZATION, value)].into_iter().collect()))
    })
}

/// Keeps the connection for the next question: the answer is a yes, and its body is of no use.
pub(crate) async fn let_go(mut answer: ResponseBody, lease: Lease, server: &Forward) {
    let reading = async {
        let mut len = 0;
        while let Some(frame) = answer.frame().await {
            len += frame.map_err(io::Error::other)?.data_ref().map_or(0, bytes::Bytes::len);
            if len > BODY_LEN_MAX {
                return Err(io::Error::other("too long"));
            }
        }
        Ok(())
    };
    if let Ok(Ok(())) = timeout_at(Instant::now() + server.timeout, reading).await {
        lease.give_back(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::host::Host;
    use crate::upstream::forward::address_field;

    #[test]
    fn a_connection_that_is_logged_in_is_known() {
        assert!(logs_in(b"cookie: a\r\nauthorization: NTLM TlRM\r\n"));
        assert!(!logs_in(b"x-authorization: NTLM TlRM\r\nauthorization: Basic a\r\ncookie: NTLM\r\n"));
    }

    #[test]
    fn the_question_has_the_clients_fields_and_says_who_asks_for_what() {
        let mut request = Request::builder().method("CONNECT").uri("/chat?a=b");
        for (name, value) in [
            ("cookie", "a=b"),
            ("authorization", "Bearer x"),
            ("upgrade", "websocket"),
            ("connection", "upgrade, x-private"),
            ("x-private", "1"),
            ("sec-websocket-key", "k"),
            ("sec-websocket-protocol", "p"),
            ("content-length", "5"),
            ("if-none-match", "*"),
            ("range", "bytes=0-"),
            ("x-forwarded-uri", "/admin"),
            ("x-forwarded-method", "DELETE"),
            ("x_forwarded_uri", "/admin"),
            ("x-forwarded-for", "10.9.9.9"),
            ("host", "domain.com"),
        ] {
            request = request.header(name, value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let host = Host::parse(&HeaderValue::from_static("domain.com")).unwrap();
        let peer = [192, 0, 2, 7].into();
        for trusted in [vec![], vec!["192.0.2.0/24".parse().unwrap()]] {
            let peer_field = &address_field(peer);
            let hop = Hop {
                peer,
                peer_field,
                tls: true,
                host: &host,
                trusted: &trusted,
                edits: None,
                preferred: None,
            };
            let lines = String::from_utf8(question(&head, &hop, &Endpoint::new("auth", 80))).unwrap();
            let mut lines: Vec<_> = lines.lines().collect();
            lines.sort_unstable();
            let chain = if trusted.is_empty() { "192.0.2.7" } else { "10.9.9.9, 192.0.2.7" };
            let client = if trusted.is_empty() { "192.0.2.7" } else { "10.9.9.9" };
            assert_eq!(
                lines,
                [
                    "Via: 1.1 wssgate",
                    &*format!("X-Forwarded-For: {chain}"),
                    "X-Forwarded-Host: domain.com",
                    "X-Forwarded-Method: GET",
                    "X-Forwarded-Proto: https",
                    "X-Forwarded-Uri: /chat?a=b",
                    &*format!("X-Real-IP: {client}"),
                    "authorization: Bearer x",
                    "cookie: a=b",
                ]
            );
        }
    }
}
