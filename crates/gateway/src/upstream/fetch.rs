//! A small document of another server, such as the keys of an issuer: asked for over a connection of its own; and other
//! requests that the gateway itself makes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::site::endpoint::Endpoint;
use crate::site::upstream::{Connector, Protocol};
use crate::upstream::body::{RequestBody, ToBackend};
use crate::upstream::dial::{DialError, dial};
use crate::upstream::h1::connection::{IdleConnection, SendRequestError};
use crate::upstream::h1::request::RequestWriter;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// There is no answer.
    #[error("it did not answer: {0}")]
    Answer(#[from] SendRequestError),
    /// Another answer was expected. Redirects are not followed.
    #[error("it answered {0}, expected 200")]
    Status(StatusCode),
    /// The answer broke.
    #[error("its answer broke: {0}")]
    Broke(#[from] io::Error),
    /// It is longer than it may be.
    #[error("its answer is longer than {len_max} bytes")]
    TooLong {
        /// The limit.
        len_max: usize,
    },
    /// It took too long.
    #[error("no answer within {after:?} (timeout)")]
    Timeout {
        /// The limit.
        after: Duration,
    },
}

/// A document, and for how long its server says that it is good.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) max_age: Option<Duration>,
}

/// Fetches a document of at most `len_max` bytes, within `limit`.
///
/// # Errors
/// Why there is none.
///
/// # Cancel safety
/// A dropped call closes the connection.
pub(crate) async fn fetch(
    endpoint: &Arc<Endpoint>,
    uri: &Uri,
    limit: Duration,
    len_max: usize,
) -> Result<Fetched, FetchError> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = uri.clone();
    let accept = HeaderValue::from_static("application/jwk-set+json, application/json, */*");
    request.headers_mut().insert(ACCEPT, accept);
    let (head, bytes) = exchange(endpoint, request, limit, len_max).await?.into_parts();
    if head.status != StatusCode::OK {
        return Err(FetchError::Status(head.status));
    }
    Ok(Fetched { bytes, max_age: max_age(&head.headers) })
}

/// Sends a small request, of which `Host` and `User-Agent` are made here, and waits for all of the answer, whatever its
/// status: at most `len_max` bytes, within `limit`.
///
/// # Errors
/// Why there is none.
///
/// # Cancel safety
/// A dropped call closes the connection.
pub(crate) async fn exchange(
    endpoint: &Arc<Endpoint>,
    request: Request<Bytes>,
    limit: Duration,
    len_max: usize,
) -> Result<Response<Vec<u8>>, FetchError> {
    let exchanging = async {
        let connector = Connector {
            connect_timeout: limit,
            pooled: false,
            proxy_protocol: None,
            protocol: Protocol::Http1,
        };
        let (mut head, body) = request.into_parts();
        head.headers.insert(HOST, endpoint.field());
        head.headers.insert(USER_AGENT, HeaderValue::from_static("wssgate"));
        let body = if body.is_empty() { RequestBody::Empty } else { RequestBody::Whole(body) };
        let request = RequestWriter::new(&head, b"", ToBackend::new(body, None, None), None);
        let idle = IdleConnection::new(dial(connector, endpoint).await?);
        let (head, mut answer) = idle.send_request(request, None).await?;
        let mut bytes = Vec::new();
        while let Some(frame) = answer.frame().await {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                if bytes.len() + data.len() > len_max {
                    return Err(FetchError::TooLong { len_max });
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Response::from_parts(head, bytes))
    };
    let exchanged = timeout_at(Instant::now() + limit, exchanging).await;
    exchanged.unwrap_or(Err(FetchError::Timeout { after: limit }))
}

/// For how long an answer is good (RFC 9111 §5.2.2); what must not be kept, not at all.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|line| line.to_str().ok());
    let directives = lines.flat_map(|line| line.split(',')).map(|part| part.trim().to_ascii_lowercase());
    let ages = directives.filter_map(|directive| match directive.split_once('=') {
        Some(("max-age", secs)) => Some(Duration::from_secs(secs.trim_matches('"').parse().ok()?)),
        None if matches!(&*directive, "no-cache" | "no-store") => Some(Duration::ZERO),
        _ => None,
    });
    ages.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_for_how_long_an_answer_is_good() {
        for (line, secs) in [
            ("", None),
            ("public, max-age=3600", Some(3600)),
            ("Max-Age=\"60\"", Some(60)),
            ("no-store", Some(0)),
            ("max-age=600, no-cache", Some(0)),
            ("s-maxage=60", None),
            ("max-age=-1", None),
            ("max-age=x", None),
        ] {
            let headers = HeaderMap::from_iter([(CACHE_CONTROL, line.parse().unwrap())]);
            assert_eq!(max_age(&headers), secs.map(Duration::from_secs), "{line}");
        }
    }
}
