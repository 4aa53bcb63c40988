//! The client half of the handshake: what a backend is asked, and whether its answer is true
//! (RFC 6455 §4.1).

use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TE, UPGRADE,
};
use http::{Method, Version, request, response};

use crate::extensions::{BadAnswer, same, without_context};
use crate::fields::has_token;
use crate::key::Key;
use crate::request::Upgrade;

/// A 101 that is not one.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum FalseAnswer {
    /// The request asked for no upgrade.
    #[error("101 to a request that asked for no upgrade")]
    Unasked,
    /// HTTP/1.0 has no upgrades (RFC 9110 §7.8).
    #[error("101 over HTTP/1.0")]
    Version,
    /// (RFC 6455 §4.1, answer item 2)
    #[error("101 without Upgrade: websocket")]
    NoUpgrade,
    /// (RFC 9110 §7.8)
    #[error("101 with a protocol that was not asked for, or with none")]
    NotAsked,
    /// (item 3)
    #[error("101 without Connection: Upgrade")]
    NoConnection,
    /// (item 4)
    #[error("101 whose Sec-WebSocket-Accept is missing or wrong")]
    Accept,
    /// (item 5)
    #[error("101 with an invalid extension: {0}")]
    Extension(#[from] BadAnswer),
    /// (item 6: one of several can't be chosen.)
    #[error("101 with more than one subprotocol")]
    Protocols,
}

/// What is odd about a 101 and left to the client, or was put right.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// A client that minds fails the connection itself (RFC 6455 §4.1, answer item 6), as browsers do.
    #[error("a subprotocol that was not offered is forwarded")]
    Protocol,
    /// The same one.
    #[error("the same subprotocol was sent more than once and is forwarded once")]
    ProtocolTwice,
}

/// What client and backend have agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agreed {
    /// The subprotocol, as the backend wrote it.
    pub protocol: Option<HeaderValue>,
    /// The extensions, as the backend wrote them.
    pub extensions: Option<HeaderValue>,
    /// RSV1 marks compressed messages (RFC 7692).
    pub deflate: bool,
}

impl Agreed {
    /// Has the client compress each message by itself. Returns whether messages can be read by a server that has not seen
    /// those before them.
    pub fn refuse_context(&mut self) -> bool {
        let Some(extensions) = &self.extensions else { return true };
        let without = without_context(extensions);
        let is_possible = without.is_some();
        self.extensions = without.or(self.extensions.take());
        is_possible
    }

    /// It is the same as this one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.deflate == other.deflate
            && same(self.extensions.as_ref(), other.extensions.as_ref())
    }
}

/// Turns a request that is ready to be passed on into a handshake with a key of our own. All
/// handshake fields of the client's are replaced.
pub fn ask(head: &mut request::Parts, upgrade: &Upgrade, key: &Key) {
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    let headers = &mut head.headers;
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, key.value().clone());
    headers.remove(SEC_WEBSOCKET_ACCEPT);
    headers.remove(TE); // RFC 9110 §10.1.4 wants it in Connection as well, and no trailers are to come
    set(headers, &SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&upgrade.protocols.join(", ")).ok());
    set(headers, &SEC_WEBSOCKET_EXTENSIONS, upgrade.extensions.field());
}

/// Turns a handshake that [`ask`] has made into one for HTTP/2, where a key proves nothing (RFC 8441 §4, §5). The stream's
/// `:protocol` is for the caller to say.
pub fn ask_http2(head: &mut request::Parts) {
    head.method = Method::CONNECT;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY] {
        head.headers.remove(name);
    }
}

fn set(headers: &mut HeaderMap, name: &http::HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) if !value.is_empty() => drop(headers.insert(name, value)),
        _ => drop(headers.remove(name)),
    }
}

/// Checks a 101. That it has no body needs no check: a length or a transfer coding means nothing in it
/// (RFC 9112 §6.3 item 1).
///
/// # Errors
/// What a client would have to fail the connection over, except for what it can judge itself.
pub fn verify(
    answer: &response::Parts,
    upgrade: &Upgrade,
    key: &Key,
) -> Result<(Agreed, Vec<Repair>), FalseAnswer> {
    let headers = &answer.headers;
    if answer.version != Version::HTTP_11 {
        return Err(FalseAnswer::Version);
    }
    if !has_token(headers, UPGRADE, "websocket") {
        return Err(FalseAnswer::NoUpgrade);
    }
    if !has_token(headers, CONNECTION, "upgrade") {
        return Err(FalseAnswer::NoConnection);
    }
    let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).into_iter();
    if accepts.next() != Some(&key.accept()) || accepts.next().is_some() {
        return Err(FalseAnswer::Accept);
    }
    agreed(headers, upgrade)
}

/// Checks a 2xx to a handshake over HTTP/2, where nothing but the two lists has a meaning (RFC 8441 §5).
///
/// # Errors
/// As [`verify`].
pub fn verify_http2(
    answer: &response::Parts,
    upgrade: &Upgrade,
) -> Result<(Agreed, Vec<Repair>), FalseAnswer> {
    agreed(&answer.headers, upgrade)
}

fn agreed(headers: &HeaderMap, upgrade: &Upgrade) -> Result<(Agreed, Vec<Repair>), FalseAnswer> {
    let mut repairs = Vec::new();
    let protocol = protocol(headers, &mut repairs)?;
    if let Some(protocol) = protocol
        && !upgrade.protocols.iter().any(|offer| offer.as_bytes() == protocol.as_bytes())
    {
        repairs.push(Repair::Protocol);
    }
    let deflate = upgrade.extensions.check(headers)?;
    let extensions = if deflate { headers.get(SEC_WEBSOCKET_EXTENSIONS).cloned() } else { None };
    Ok((Agreed { protocol: protocol.cloned(), extensions, deflate }, repairs))
}

/// The subprotocol, if there is one and no other.
fn protocol<'a>(
    headers: &'a HeaderMap,
    repairs: &mut Vec<Repair>,
) -> Result<Option<&'a HeaderValue>, FalseAnswer> {
    let mut protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let Some(protocol) = protocols.next() else { return Ok(None) };
    if protocol.as_bytes().contains(&b',') {
        return Err(FalseAnswer::Protocols);
    }
    for other in protocols {
        if other != protocol {
            return Err(FalseAnswer::Protocols);
        }
        repairs.push(Repair::ProtocolTwice);
    }
    Ok(Some(protocol))
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;
    use crate::extensions::Offer;
    use crate::request::{RequestKind, classify};

    fn upgrade() -> (request::Parts, Upgrade) {
        let head = Request::get("/chat")
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", "chat, v2")
            .header("sec-websocket-extensions", "foo, permessage-deflate")
            .header("cookie", "a=b")
            .header("te", "trailers")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let RequestKind::Upgrade(upgrade) = classify(&head) else { panic!("refused") };
        (head, upgrade)
    }

    #[test]
    fn the_request_to_a_backend() {
        let (mut head, upgrade) = upgrade();
        let key = Key::random();
        ask(&mut head, &upgrade, &key);
        assert_eq!(head.headers["sec-websocket-key"], key.value());
        assert_eq!(head.headers["sec-websocket-extensions"], "permessage-deflate");
        assert_eq!(head.headers["sec-websocket-protocol"], "chat, v2");
        assert_eq!(head.headers["cookie"], "a=b");
        assert_eq!(
            (&head.headers["connection"], head.headers.get("te")),
            (&"Upgrade".parse().unwrap(), None)
        );
        // A list without an element is not passed on: it would be an empty field.
        let bare = Upgrade { protocols: vec![], extensions: Offer::default(), ..upgrade };
        ask(&mut head, &bare, &key);
        for absent in ["sec-websocket-protocol", "sec-websocket-extensions"] {
            assert_eq!(head.headers.get(absent), None);
        }
    }

    #[test]
    fn over_http2_only_the_lists_count() {
        let (mut head, upgrade) = upgrade();
        ask(&mut head, &upgrade, &Key::random());
        ask_http2(&mut head);
        assert_eq!(head.method, Method::CONNECT);
        for absent in ["connection", "upgrade", "sec-websocket-key", "te"] {
            assert_eq!(head.headers.get(absent), None, "{absent}");
        }
        assert_eq!(head.headers["sec-websocket-version"], "13");
        assert_eq!(head.headers["sec-websocket-protocol"], "chat, v2");
        let verify = |fields: &[(&'static str, &'static str)]| {
            let mut response = Response::builder().status(200).version(Version::HTTP_2);
            for &(name, value) in fields {
                response = response.header(name, value);
            }
            verify_http2(&response.body(()).unwrap().into_parts().0, &upgrade)
        };
        assert_eq!(verify(&[]), Ok((Agreed::default(), vec![])));
        let (agreed, _) = verify(&[
            ("sec-websocket-protocol", "chat"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("sec-websocket-accept", "means nothing"),
        ])
        .unwrap();
        assert_eq!((agreed.protocol.unwrap(), agreed.deflate), ("chat".parse().unwrap(), true));
        assert!(matches!(verify(&[("sec-websocket-extensions", "foo")]), Err(FalseAnswer::Extension(_))));
    }

    #[test]
    fn true_and_false_answers() {
        let (_, upgrade) = upgrade();
        let key = Key::random();
        let accept = key.accept();
        let good: &[(&str, &str)] = &[
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-accept", accept.to_str().unwrap()),
        ];
        let verify = |fields: &[(&str, &str)]| {
            let mut response = Response::builder().status(101);
            for &(name, value) in fields {
                response = response.header(name, value);
            }
            super::verify(&response.body(()).unwrap().into_parts().0, &upgrade, &key)
        };
        let and = |more: &[(&'static str, &'static str)]| [good, more].concat();
        assert_eq!(verify(good), Ok((Agreed::default(), vec![])));
        let (agreed, repairs) = verify(&and(&[
            ("sec-websocket-protocol", "v2"),
            ("sec-websocket-extensions", "permessage-deflate"),
        ]))
        .unwrap();
        assert_eq!((agreed.protocol.unwrap(), agreed.deflate), ("v2".parse().unwrap(), true));
        assert_eq!(repairs, []);

        assert_eq!(verify(&good[1..]), Err(FalseAnswer::NoUpgrade));
        assert_eq!(verify(&[good[0], good[2]]), Err(FalseAnswer::NoConnection));
        assert_eq!(verify(&good[..2]), Err(FalseAnswer::Accept));
        let wrong = [good[0], good[1], ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")];
        assert_eq!(verify(&wrong), Err(FalseAnswer::Accept));
        assert_eq!(verify(&and(&[("sec-websocket-accept", "again")])), Err(FalseAnswer::Accept));
        for (protocols, expect) in [
            (&["v3"][..], Ok(("v3", vec![Repair::Protocol]))),
            (&["Chat"], Ok(("Chat", vec![Repair::Protocol]))),
            (&[""], Ok(("", vec![Repair::Protocol]))),
            (&["v2", "v2"], Ok(("v2", vec![Repair::ProtocolTwice]))),
            (&["chat", "v2"], Err(FalseAnswer::Protocols)),
            (&["chat, v2"], Err(FalseAnswer::Protocols)),
        ] {
            let fields: Vec<_> = protocols.iter().map(|&p| ("sec-websocket-protocol", p)).collect();
            let expect = expect.map(|(protocol, repairs)| {
                (Agreed { protocol: Some(HeaderValue::from_static(protocol)), ..Agreed::default() }, repairs)
            });
            assert_eq!(verify(&and(&fields)), expect, "{protocols:?}");
        }
        for framed in [("content-length", "0"), ("content-length", "7"), ("transfer-encoding", "chunked")] {
            assert_eq!(verify(&and(&[framed])), Ok((Agreed::default(), vec![])));
        }
        let mut old = Response::builder().status(101).version(Version::HTTP_10);
        for &(name, value) in good {
            old = old.header(name, value);
        }
        let old = old.body(()).unwrap().into_parts().0;
        assert_eq!(super::verify(&old, &upgrade, &key), Err(FalseAnswer::Version));
        let foreign = verify(&and(&[("sec-websocket-extensions", "foo")]));
        assert!(matches!(foreign, Err(FalseAnswer::Extension(_))));
    }
}
