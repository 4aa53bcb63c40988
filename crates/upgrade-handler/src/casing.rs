//! Field names with upper and lower case.
//!
//! Names are case-insensitive (RFC 9110 §5.1), yet there are backends and clients that only find
//! `Sec-WebSocket-Key` in exactly this spelling, and some that only find their own. hyper writes names in the
//! spelling of an extension that its parser attaches to a message. That extension can neither be made nor read by
//! hand: so a head with the wanted names is read by hyper once, and what hyper knows is written by it once.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{Extensions, HeaderValue, Request, Response, request};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;

/// Names that mean something to hyper itself.
const LEFT_OUT: [HeaderName; 5] = [CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE];

/// Names as the RFCs spell them.
const CANONICAL: [&str; 9] = [
    "Host",
    "Connection",
    "Upgrade",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Accept",
    "X-Real-IP",
];

/// [`spelt`] as the RFCs have it.
#[must_use]
pub fn canonical() -> Extensions {
    spelt(CANONICAL.map(str::as_bytes))
}

/// Extensions for answers through hyper connections with `title_case_headers`: these names are written as they
/// are here, each in its turn. Empty if hyper no longer works this way.
pub fn spelt<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Extensions {
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    for name in names {
        let framing = [&b"content-length"[..], b"expect", b"transfer-encoding"];
        if !framing.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            head.extend_from_slice(name);
            head.extend_from_slice(b": a\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    let found = RefCell::new(Extensions::new());
    through_hyper(&head, |request| {
        found.replace(request.extensions().clone());
        Response::new(Empty::new())
    });
    found.into_inner()
}

/// A request head whose names hyper has kept as they were sent carries this extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept;

/// The names of a message, as they were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spelling(HeaderMap<Bytes>);

impl Spelling {
    /// That of a request that came through a hyper connection with `preserve_header_case`, which is [`Kept`].
    #[must_use]
    pub fn of(head: &request::Parts) -> Self {
        let names = || head.headers.keys().filter(|name| !LEFT_OUT.contains(name));
        let wire = through_hyper(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", |_| {
            let mut answer = Response::new(Empty::new());
            for name in names() {
                for _ in head.headers.get_all(name) {
                    answer.headers_mut().append(name, HeaderValue::from_static("a"));
                }
            }
            *answer.extensions_mut() = head.extensions.clone();
            answer
        });
        let wire = Bytes::from(wire);
        let mut spelling = HeaderMap::default();
        for line in wire.split(|&byte| byte == b'\n').skip(1) {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            if let Ok(lower) = HeaderName::from_bytes(name)
                && head.headers.contains_key(&lower)
                && !LEFT_OUT.contains(&lower)
            {
                spelling.append(lower, wire.slice_ref(name));
            }
        }
        Self(spelling)
    }

    /// Forgets the spelling of this name.
    pub fn remove(&mut self, name: &HeaderName) {
        self.0.remove(name);
    }

    /// The `nth` field of this name, counted from 0, as it was sent.
    #[must_use]
    pub fn spelt(&self, name: &HeaderName, nth: usize) -> Option<&[u8]> {
        self.0.get_all(name).iter().nth(nth).map(|spelt| &spelt[..])
    }
}

/// What hyper's server writes when it has read `input`.
fn through_hyper(input: &[u8], answer: impl Fn(Request<Incoming>) -> Response<Empty<Bytes>>) -> Vec<u8> {
    let mut output = Vec::new();
    let service = service_fn(|request| ready(Ok::<_, Infallible>(answer(request))));
    let mut serving = pin!(
        http1::Builder::new()
            .preserve_header_case(true)
            .max_headers(input.iter().filter(|&&byte| byte == b'\n').count())
            .serve_connection(Page { input, output: &mut output }, service)
    );
    // Nothing is waited for but a second request: all input is there, and all output is taken.
    let _ = serving.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    output
}

/// A stream over which nothing more will come, and which takes everything.
struct Page<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Page<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return Poll::Pending;
        }
        let (read, rest) = self.input.split_at(self.input.len().min(buf.remaining()));
        buf.put_slice(read);
        self.input = rest;
        Poll::Ready(Ok(()))
    }
}

impl Write for Page<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.output.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head that hyper's server has read, and kept the names of.
    fn read(names: &[&str]) -> request::Parts {
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        for name in names {
            head.extend_from_slice(format!("{name}: v\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        let found = RefCell::new(None);
        through_hyper(&head, |request| {
            found.replace(Some(request.into_parts().0));
            Response::new(Empty::new())
        });
        found.into_inner().unwrap()
    }

    /// What hyper's server writes of an answer with these fields.
    fn written(extensions: &Extensions, names: &[&'static str]) -> String {
        let wire = through_hyper(b"GET / HTTP/1.1\r\n\r\n", |_| {
            let mut answer = Response::new(Empty::new());
            for name in names {
                answer.headers_mut().append(*name, HeaderValue::from_static("v"));
            }
            *answer.extensions_mut() = extensions.clone();
            answer
        });
        String::from_utf8(wire).unwrap()
    }

    #[test]
    fn a_client_sees_the_spelling_of_the_rfc() {
        let head = written(&canonical(), &["sec-websocket-accept", "x-real-ip", "upgrade"]);
        for line in ["Sec-WebSocket-Accept: v\r\n", "X-Real-IP: v\r\n", "Upgrade: v\r\n"] {
            assert!(head.contains(line), "{head}");
        }
    }

    #[test]
    fn a_client_sees_the_spelling_of_its_server() {
        let names = ["ETag", "x-lower", "WWW-Authenticate", "WWW-authenticate", "Content-Length", "Expect"];
        let extensions = spelt(names.map(str::as_bytes));
        let head = written(&extensions, &["etag", "x-lower", "www-authenticate", "www-authenticate"]);
        for line in ["ETag: v\r\n", "\nx-lower: v\r\n", "WWW-Authenticate: v\r\n", "WWW-authenticate: v\r\n"]
        {
            assert!(head.contains(line), "{head}");
        }
    }

    #[test]
    fn a_server_sees_the_spelling_of_its_client() {
        let many: Vec<String> = (0..1000).map(|i| format!("X-mAny-{i}")).collect();
        let mut names = vec!["HOST", "SOAPAction", "x-api-KEY", "Cookie", "cookie", "Connection", "Upgrade"];
        names.extend(many.iter().map(String::as_str));
        let mut spelling = Spelling::of(&read(&names));
        for (name, nth, expect) in [
            ("host", 0, Some("HOST")),
            ("soapaction", 0, Some("SOAPAction")),
            ("x-api-key", 0, Some("x-api-KEY")),
            ("cookie", 0, Some("Cookie")),
            ("cookie", 1, Some("cookie")),
            ("cookie", 2, None),
            ("x-many-999", 0, Some("X-mAny-999")),
            ("connection", 0, None), // it is the hop's
            ("date", 0, None),       // hyper has added it
            ("x-none", 0, None),
        ] {
            let found = spelling.spelt(&HeaderName::from_static(name), nth);
            assert_eq!(found, expect.map(str::as_bytes), "{name} {nth}");
        }
        spelling.remove(&HeaderName::from_static("cookie"));
        assert_eq!(spelling.spelt(&HeaderName::from_static("cookie"), 0), None);
    }
}
