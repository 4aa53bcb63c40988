//! Request head → upgrade, refusal, or neither (RFC 6455 §4.2.1, RFC 8441 §5). Pure.

use h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Version};

use crate::extensions::Offer;
use crate::fields::{elements, has_token};
use crate::key::Key;
use crate::refusal::Refusal;

/// What a request is.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// To be served as it is. If it carries `Upgrade`, that must not be passed on.
    Plain,
    /// It asks for an upgrade to other protocols than WebSocket (RFC 9110 §7.8).
    Other,
    /// A proper WebSocket handshake.
    Upgrade(Upgrade),
    /// It wants a tunnel and can't have one.
    Refused(Refusal),
}

/// A proper WebSocket handshake, before any backend was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// How it came, and so how it is answered.
    pub transport: HandshakeTransport,
    /// Subprotocols in the order of the client's preference.
    pub protocols: Vec<Box<str>>,
    /// What of the client's extensions may be offered onward.
    pub extensions: Offer,
}

/// How a handshake came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeTransport {
    /// By `Upgrade` (RFC 6455): answered 101 with a proof of having read the key.
    Http1 {
        /// The client's key.
        key: Key,
    },
    /// By extended CONNECT (RFC 8441): answered 200.
    Http2,
}

/// Judges a request head. `Host` is the caller's to check: every request needs one.
#[must_use]
pub fn classify(head: &Parts) -> RequestKind {
    let judged = if head.method == Method::CONNECT {
        connect(head)
    } else if head.version == Version::HTTP_11
        && head.headers.keys().any(|name| *name == UPGRADE) // comparing a few names costs less than a look-up
        && has_token(&head.headers, CONNECTION, "upgrade")
    {
        if !has_token(&head.headers, UPGRADE, "websocket") {
            return RequestKind::Other;
        }
        upgrade(head)
    } else {
        // RFC 9110 §7.8: ignored over HTTP/1.0, and without the connection option.
        return RequestKind::Plain;
    };
    match judged {
        Ok(upgrade) => RequestKind::Upgrade(upgrade),
        Err(refusal) => RequestKind::Refused(refusal),
    }
}

/// RFC 6455 §4.2.1, item by item.
fn upgrade(head: &Parts) -> Result<Upgrade, Refusal> {
    if head.method != Method::GET {
        return Err(Refusal::NotGet); // 1
    }
    if has_body(head) {
        return Err(Refusal::Body);
    }
    if only(head, SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::Version); // 6
    }
    let key = only(head, SEC_WEBSOCKET_KEY).and_then(Key::parse).ok_or(Refusal::Key)?; // 5
    Ok(with_offers(head, HandshakeTransport::Http1 { key }))
}

/// `:protocol`, from h2, or from hyper, which wraps it.
fn protocol(head: &Parts) -> Option<&str> {
    let by_h2 = head.extensions.get::<Protocol>().map(Protocol::as_str);
    by_h2.or_else(|| head.extensions.get::<hyper::ext::Protocol>().map(hyper::ext::Protocol::as_str))
}

/// RFC 8441 §4–5. That `:scheme` and `:path` are there is h2's to check.
fn connect(head: &Parts) -> Result<Upgrade, Refusal> {
    match protocol(head) {
        None => return Err(Refusal::Connect),
        Some(protocol) if !protocol.eq_ignore_ascii_case("websocket") => {
            return Err(Refusal::Protocol);
        }
        Some(_) => {}
    }
    if has_body(head) {
        return Err(Refusal::Body);
    }
    // Some clients leave the version out over HTTP/2; there has only ever been one there.
    if head.headers.contains_key(SEC_WEBSOCKET_VERSION)
        && only(head, SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13")
    {
        return Err(Refusal::Version);
    }
    Ok(with_offers(head, HandshakeTransport::Http2))
}

fn with_offers(head: &Parts, transport: HandshakeTransport) -> Upgrade {
    Upgrade { transport, ..offered(&head.headers) }
}

/// What the fields of a handshake offer, which goes to another server than before.
#[must_use]
pub fn offered(headers: &http::HeaderMap) -> Upgrade {
    Upgrade {
        transport: HandshakeTransport::Http2,
        protocols: elements(headers, SEC_WEBSOCKET_PROTOCOL).map(Into::into).collect(),
        extensions: Offer::parse(headers),
    }
}

fn has_body(head: &Parts) -> bool {
    head.headers.contains_key(TRANSFER_ENCODING)
        || head.headers.get_all(CONTENT_LENGTH).into_iter().any(|len| len != "0")
}

/// The field's value, if there is exactly one.
fn only(head: &Parts, name: http::HeaderName) -> Option<&HeaderValue> {
    let mut values = head.headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn head(line: (&str, Version), fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::builder().method(line.0).version(line.1).uri("/chat");
        for &(name, value) in fields {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
    ];

    /// The good handshake with one field's lines replaced.
    fn with(name: &'static str, values: &[&'static str]) -> Parts {
        let mut fields: Vec<_> = GOOD.into_iter().filter(|field| field.0 != name).collect();
        fields.extend(values.iter().map(|&value| (name, value)));
        head(("GET", Version::HTTP_11), &fields)
    }

    fn is_upgrade(head: &Parts) -> bool {
        matches!(classify(head), RequestKind::Upgrade(_))
    }

    fn refused(refusal: Refusal) -> RequestKind {
        RequestKind::Refused(refusal)
    }

    #[test]
    fn a_proper_handshake_in_all_its_spellings() {
        assert!(is_upgrade(&head(("GET", Version::HTTP_11), &GOOD)));
        assert!(is_upgrade(&with("connection", &["keep-alive, upgrade"])));
        assert!(is_upgrade(&with("connection", &["keep-alive", "UPGRADE"])));
        assert!(is_upgrade(&with("upgrade", &["WebSocket"])));
        assert!(is_upgrade(&with("upgrade", &["h2c, websocket"])));
        assert!(is_upgrade(&with("content-length", &["0"])));
    }

    #[test]
    fn requests_that_are_served_as_plain_ones() {
        assert_eq!(classify(&head(("GET", Version::HTTP_11), &[])), RequestKind::Plain);
        assert_eq!(classify(&head(("GET", Version::HTTP_10), &GOOD)), RequestKind::Plain);
        assert_eq!(classify(&with("connection", &["keep-alive"])), RequestKind::Plain);
        assert_eq!(classify(&with("connection", &[])), RequestKind::Plain);
        assert_eq!(classify(&with("upgrade", &["h2c"])), RequestKind::Other);
        assert_eq!(classify(&with("upgrade", &["websocket/13"])), RequestKind::Other);
        assert_eq!(classify(&head(("GET", Version::HTTP_2), &GOOD)), RequestKind::Plain);
    }

    #[test]
    fn handshakes_over_http1_that_are_refused() {
        assert_eq!(classify(&head(("POST", Version::HTTP_11), &GOOD)), refused(Refusal::NotGet));
        for versions in [&[][..], &["12"], &["13, 8"], &["13", "13"], &["013"]] {
            assert_eq!(
                classify(&with("sec-websocket-version", versions)),
                refused(Refusal::Version),
                "{versions:?}"
            );
        }
        for keys in [&[][..], &["AAAA"], &[KEY, KEY], &["not base64 at all!!!!!!=="]] {
            assert_eq!(classify(&with("sec-websocket-key", keys)), refused(Refusal::Key), "{keys:?}");
        }
        assert_eq!(classify(&with("content-length", &["5"])), refused(Refusal::Body));
        assert_eq!(classify(&with("transfer-encoding", &["chunked"])), refused(Refusal::Body));
        assert_eq!(classify(&head(("CONNECT", Version::HTTP_11), &[])), refused(Refusal::Connect));
    }

    fn connect_to(protocol: Option<&'static str>, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut head = head(("CONNECT", Version::HTTP_2), fields);
        if let Some(protocol) = protocol {
            head.extensions.insert(Protocol::from_static(protocol));
        }
        head
    }

    #[test]
    fn extended_connect() {
        assert!(is_upgrade(&connect_to(Some("websocket"), &[("sec-websocket-version", "13")])));
        assert!(is_upgrade(&connect_to(Some("websocket"), &[])));
        assert_eq!(classify(&connect_to(None, &[])), refused(Refusal::Connect));
        assert_eq!(classify(&connect_to(Some("connect-udp"), &[])), refused(Refusal::Protocol));
        let mut by_hyper = connect_to(None, &[]);
        by_hyper.extensions.insert(hyper::ext::Protocol::from_static("websocket"));
        assert!(is_upgrade(&by_hyper));
        let old = connect_to(Some("websocket"), &[("sec-websocket-version", "8")]);
        assert_eq!(classify(&old), refused(Refusal::Version));
        let long = connect_to(Some("websocket"), &[("content-length", "5")]);
        assert_eq!(classify(&long), refused(Refusal::Body));
    }

    #[test]
    fn offers_are_read() {
        let RequestKind::Upgrade(upgrade) = classify(&with("sec-websocket-protocol", &["chat, soap", "v2"]))
        else {
            panic!("refused")
        };
        assert_eq!(upgrade.protocols, ["chat".into(), "soap".into(), "v2".into()]);
        assert_eq!(upgrade.extensions.field(), None);
    }

    #[test]
    fn refusals_on_the_wire() {
        let (status, headers) = Refusal::Version.answer(Version::HTTP_11);
        assert_eq!(
            (status.as_u16(), &headers["sec-websocket-version"]),
            (426, &HeaderValue::from_static("13"))
        );
        assert_eq!(headers["upgrade"], "websocket");
        let (status, headers) = Refusal::Version.answer(Version::HTTP_2);
        assert_eq!(
            (status.as_u16(), &headers["sec-websocket-version"]),
            (400, &HeaderValue::from_static("13"))
        );
        assert!(!headers.contains_key("upgrade"));
        for (refusal, status) in [
            (Refusal::NotGet, 405),
            (Refusal::Connect, 405),
            (Refusal::Protocol, 501),
            (Refusal::Key, 400),
            (Refusal::Body, 400),
            (Refusal::Origin, 403),
        ] {
            assert_eq!(refusal.answer(Version::HTTP_11).0.as_u16(), status);
        }
    }
}
