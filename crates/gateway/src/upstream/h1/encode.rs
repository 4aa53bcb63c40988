//! A request on its way to a backend, as bytes (RFC 9112 §2–3, §7.1).
//!
//! In: a head that is ready to be passed on, and how its body is framed. Out: what the wire carries. Pure.

use std::io::Write;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, TRAILER, TRANSFER_ENCODING};
use http::{Method, request};
use http_body::Body;
use upgrade_handler::casing::Spelling;
use upgrade_handler::fields::elements;

use crate::upstream::forward::may_pass;

/// How a request's body is framed (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// How many is not known.
    Chunked,
}

impl Coding {
    /// How this body is framed.
    pub(crate) fn of(body: &impl Body) -> Self {
        match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) => Self::Empty,
            (false, Some(len)) => Self::Length(len),
            (false, None) => Self::Chunked,
        }
    }
}

/// What the RFCs spell in another way than with a capital after each hyphen. Names are case-insensitive, yet
/// there are backends that find them in exactly this spelling.
const SPELLINGS: [(&str, &str); 6] = [
    ("te", "TE"),
    ("sec-websocket-key", "Sec-WebSocket-Key"),
    ("sec-websocket-version", "Sec-WebSocket-Version"),
    ("sec-websocket-protocol", "Sec-WebSocket-Protocol"),
    ("sec-websocket-extensions", "Sec-WebSocket-Extensions"),
    ("x-real-ip", "X-Real-IP"),
];

/// Appends the head, with `lines` behind its fields. The fields that frame the body are ours alone (RFC 9112 §6.3).
pub(crate) fn put_head(head: &request::Parts, lines: &[u8], coding: Coding, out: &mut Vec<u8>) {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut tells_length = means_something(&head.method);
    let spelling = head.extensions.get::<Spelling>();
    let mut before = (None, 0);
    for (name, value) in &head.headers {
        if *name == CONTENT_LENGTH {
            tells_length = true;
        } else if *name != TRANSFER_ENCODING {
            let Some(spelling) = spelling else {
                put_field(name, value.as_bytes(), out);
                continue;
            };
            // Fields of one name come one after the other.
            let nth = if before.0 == Some(name) { before.1 + 1 } else { 0 };
            before = (Some(name), nth);
            match spelling.spelt(name, nth) {
                Some(spelt) => out.extend_from_slice(spelt),
                None => put_name(name.as_str(), out),
            }
            put_value(value.as_bytes(), out);
        }
    }
    out.extend_from_slice(lines);
    match coding {
        Coding::Length(len) => put_field(&CONTENT_LENGTH, len.to_string().as_bytes(), out),
        Coding::Chunked => put_field(&TRANSFER_ENCODING, b"chunked", out),
        // RFC 9110 §8.6: where a body would mean something, Content-Length: 0 is sent.
        Coding::Empty if tells_length => put_field(&CONTENT_LENGTH, b"0", out),
        Coding::Empty => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// A body means something in a request of this method (RFC 9110 §8.6, §9.3).
pub(crate) fn means_something(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

pub(crate) fn put_field(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    put_name(name.as_str(), out);
    put_value(value, out);
}

fn put_value(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn put_name(name: &str, out: &mut Vec<u8>) {
    if matches!(name.as_bytes().first(), Some(b's' | b't' | b'x')) // as all of these
        && let Some((_, spelling)) = SPELLINGS.iter().find(|(lower, _)| *lower == name)
    {
        return out.extend_from_slice(spelling.as_bytes());
    }
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    let mut rest = &mut out[start..];
    while let [first, behind @ ..] = rest {
        first.make_ascii_uppercase();
        let hyphen = behind.iter().position(|byte| *byte == b'-').unwrap_or(behind.len());
        rest = behind.get_mut(hyphen + 1..).unwrap_or_default();
    }
}

/// Appends what stands before a chunk; behind it stands [`CHUNK_END`].
pub(crate) fn put_chunk_size(len: usize, out: &mut Vec<u8>) {
    let _ = write!(out, "{len:X}\r\n"); // memory takes everything
}

pub(crate) const CHUNK_END: &[u8] = b"\r\n";

/// Appends the last chunk and, as far as the request has announced them, trailers (RFC 9110 §6.5.1).
pub(crate) fn put_last_chunk(announced: &[HeaderName], trailers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        if announced.contains(name) && may_trail(name) {
            put_field(name, value.as_bytes(), out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The names in `Trailer`.
pub(crate) fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    elements(headers, TRAILER).filter_map(|name| name.parse().ok()).collect()
}

/// What frames, routes or changes the meaning of a message has to be known before its body (RFC 9110 §6.5.1), and
/// who the client is, a backend is told by us alone.
pub(crate) fn may_trail(name: &HeaderName) -> bool {
    const HEAD_ONLY: [&str; 35] = [
        // one hop, and framing
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        // routing
        "host",
        "max-forwards",
        "via",
        // what is asked for, and on which condition
        "cache-control",
        "expect",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "pragma",
        "range",
        // who asks
        "authorization",
        "cookie",
        "proxy-authenticate",
        "proxy-authorization",
        "set-cookie",
        "www-authenticate",
        // what is done with an answer
        "age",
        "date",
        "expires",
        "location",
        "retry-after",
        "vary",
        // what a body is
        "content-encoding",
        "content-range",
        "content-type",
    ];
    !HEAD_ONLY.contains(&name.as_str()) && may_pass(name.as_str(), false)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(method: &str, fields: &[(&str, &str)], coding: Coding) -> String {
        let mut request = Request::builder().method(method).uri("/a?b");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut out = Vec::new();
        put_head(&request.body(()).unwrap().into_parts().0, b"Via: x\r\n", coding, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_are_spelt_as_backends_expect_them() {
        let fields = [
            ("host", "a.test"),
            ("x-a-b", "1"),
            ("sec-websocket-key", "k"),
            ("x-real-ip", "::1"),
            ("te", ""),
        ];
        assert_eq!(
            head("GET", &fields, Coding::Empty),
            "GET /a?b HTTP/1.1\r\nHost: a.test\r\nX-A-B: 1\r\nSec-WebSocket-Key: k\r\nX-Real-IP: ::1\r\nTE: \r\nVia: x\r\n\r\n"
        );
    }

    #[test]
    fn a_body_is_framed_in_one_way() {
        let length = ("content-length", "7");
        let zero = ("content-length", "0");
        let chunked = ("transfer-encoding", "chunked");
        for (method, fields, coding, expect) in [
            ("GET", &[][..], Coding::Empty, ""),
            ("POST", &[], Coding::Empty, "Content-Length: 0\r\n"),
            ("GET", &[zero, zero, chunked], Coding::Empty, "Content-Length: 0\r\n"),
            ("POST", &[], Coding::Length(7), "Content-Length: 7\r\n"),
            ("POST", &[length], Coding::Length(7), "Content-Length: 7\r\n"),
            ("POST", &[length, chunked], Coding::Length(7), "Content-Length: 7\r\n"),
            ("GET", &[length, chunked], Coding::Chunked, "Transfer-Encoding: chunked\r\n"),
            ("POST", &[], Coding::Chunked, "Transfer-Encoding: chunked\r\n"),
        ] {
            let expect = format!("{method} /a?b HTTP/1.1\r\nVia: x\r\n{expect}\r\n");
            assert_eq!(head(method, fields, coding), expect, "{fields:?} {coding:?}");
        }
    }

    #[test]
    fn trailers_are_those_announced_that_may_be() {
        let mut trailers = HeaderMap::new();
        for name in ["x-sum", "x-other", "content-length"] {
            trailers.append(HeaderName::from_static(name), "1".parse().unwrap());
        }
        let mut headers = HeaderMap::new();
        headers.append(TRAILER, "X-Sum, content-length".parse().unwrap());
        headers.append(TRAILER, "x-never, no name".parse().unwrap());
        let mut out = Vec::new();
        put_last_chunk(&announced(&headers), &trailers, &mut out);
        assert_eq!(out, b"0\r\nX-Sum: 1\r\n\r\n");
    }

    #[test]
    fn what_has_to_be_known_before_the_body_may_not_trail() {
        for name in ["x-sum", "grpc-status", "server-timing", "etag", "content-digest", "x-forwarding"] {
            assert!(may_trail(&HeaderName::from_static(name)), "{name}");
        }
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "upgrade",
            "te",
            "trailer",
            "transfer-encoding",
            "content-length",
            "host",
            "max-forwards",
            "via",
            "expect",
            "range",
            "if-match",
            "if-none-match",
            "if-modified-since",
            "if-unmodified-since",
            "if-range",
            "pragma",
            "cache-control",
            "authorization",
            "proxy-authorization",
            "proxy-authenticate",
            "www-authenticate",
            "cookie",
            "set-cookie",
            "age",
            "date",
            "expires",
            "location",
            "retry-after",
            "vary",
            "content-encoding",
            "content-type",
            "content-range",
            "x-real-ip",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x_forwarded_for",
            "x_real_ip",
            "proxy",
        ] {
            assert!(!may_trail(&HeaderName::from_static(name)), "{name}");
        }
    }
}
