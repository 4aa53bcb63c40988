//! The gateway's own HTTP client, as the ACME library asks for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tls_acceptor::TlsConnector;

use crate::site::endpoint::Endpoint;
use crate::upstream::fetch::exchange;

/// How long the authority may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answers are certificates with their chains. In bytes.
const ANSWER_LEN_MAX: usize = 256 * 1024;

/// Speaks to one authority. Clones hear together.
#[derive(Debug, Clone)]
pub(super) struct Client {
    connector: TlsConnector,
    heard: Heard,
}

/// What the library doesn't pass on of the last answer that refused something.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Option<Duration>>>);

impl Heard {
    /// For how long nothing is to be asked again (RFC 8555 §6.6).
    pub(super) fn retry_after(&self) -> Option<Duration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, after: Option<Duration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = after;
    }
}

impl Client {
    /// One that trusts servers as `connector` does.
    pub(super) fn new(connector: TlsConnector) -> (Self, Heard) {
        let heard = Heard::default();
        (Self { connector, heard: heard.clone() }, heard)
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (endpoint, heard) = (self.endpoint(request.uri()), self.heard.clone());
        Box::pin(async move {
            let endpoint = endpoint.map_err(|what| Error::Other(what.into()))?;
            let (mut head, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            head.uri = head.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
            let answered =
                exchange(&endpoint, Request::from_parts(head, body), TIMEOUT, ANSWER_LEN_MAX).await;
            let answer = answered.map_err(|e| Error::Other(Box::new(e)))?;
            if !answer.status().is_success() {
                heard.note(retry_after(answer.headers(), SystemTime::now()));
            }
            let (head, body) = answer.into_parts();
            Ok(BytesResponse::from(Response::from_parts(head, Full::new(Bytes::from(body)))))
        })
    }
}

impl Client {
    fn endpoint(&self, uri: &Uri) -> Result<Arc<Endpoint>, String> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if uri.scheme_str() != Some("https") {
            return Err(format!("the authority refers to {uri}, which is no https:// address")); // RFC 8555 §6.1
        }
        let (endpoint, _) = Endpoint::parse(&format!("https://{authority}"))?;
        if let Some(tls) = &endpoint.tls {
            tls.prepare(self.connector.clone());
        }
        Ok(Arc::new(endpoint))
    }
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(secs) => Some(Duration::from_secs(secs)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_says_how_long_to_wait() {
        let now = httpdate::parse_http_date("Mon, 30 Nov 2026 01:00:00 GMT").unwrap();
        for (value, secs) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Mon, 30 Nov 2026 02:00:00 GMT", Some(3600)),
            ("Mon, 30 Nov 2026 00:00:00 GMT", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), secs.map(Duration::from_secs), "{value}");
        }
    }
}
