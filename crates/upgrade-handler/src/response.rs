//! The answer that opens the tunnel: 101 over HTTP/1.1, 200 over HTTP/2 (RFC 8441 §5).

use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{Response, StatusCode};

use crate::request::{HandshakeTransport, Upgrade};
use crate::upstream::Agreed;

/// Tells the client what was agreed. `headers` are the backend's other fields, if there are any:
/// end-to-end ones only.
#[must_use]
pub fn accept(upgrade: &Upgrade, agreed: &Agreed, mut headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    match &upgrade.transport {
        HandshakeTransport::Http1 { key } => {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, key.accept());
        }
        HandshakeTransport::Http2 => {
            headers.remove(SEC_WEBSOCKET_ACCEPT); // RFC 8441 §5
        }
    }
    headers.remove(SEC_WEBSOCKET_KEY); // a request's field
    for (name, value) in
        [(SEC_WEBSOCKET_PROTOCOL, &agreed.protocol), (SEC_WEBSOCKET_EXTENSIONS, &agreed.extensions)]
    {
        match value {
            Some(value) => drop(headers.insert(name, value.clone())),
            None => drop(headers.remove(name)),
        }
    }
    headers.remove(http::header::CONTENT_LENGTH);
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extensions::Offer;
    use crate::key::Key;

    #[test]
    fn answers() {
        let key = Key::parse(&HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==")).unwrap();
        let mut upgrade = Upgrade {
            transport: HandshakeTransport::Http1 { key },
            protocols: vec![],
            extensions: Offer::default(),
        };
        let agreed = Agreed { protocol: Some(HeaderValue::from_static("chat")), ..Agreed::default() };
        let mut headers = HeaderMap::new();
        headers.insert("set-cookie", HeaderValue::from_static("a=b"));
        headers.insert("sec-websocket-accept", HeaderValue::from_static("the backend's"));
        headers.insert("sec-websocket-key", HeaderValue::from_static("never in an answer"));
        headers.insert("sec-websocket-extensions", HeaderValue::from_static("not agreed"));
        headers.insert("content-length", HeaderValue::from_static("0"));
        let response = accept(&upgrade, &agreed, headers.clone());
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        assert_eq!(response.headers()["set-cookie"], "a=b");
        assert!(!response.headers().contains_key("sec-websocket-extensions"));
        assert!(!response.headers().contains_key("content-length"), "RFC 9110 §8.6");
        upgrade.transport = HandshakeTransport::Http2;
        let response = accept(&upgrade, &agreed, headers);
        assert_eq!(response.status(), 200);
        for absent in ["upgrade", "connection", "sec-websocket-accept", "sec-websocket-key", "content-length"]
        {
            assert!(!response.headers().contains_key(absent), "{absent}");
        }
    }
}
