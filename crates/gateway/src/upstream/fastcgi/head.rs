//! The head of a script's answer (RFC 3875 §6), as the head of an HTTP/1.0 response.
//!
//! In: the front of what the script has written. Out: the same head with a status line, and how long it was. Refused:
//! what has no end within [`HEAD_LEN_MAX`], what are no fields, and a status that isn't one of an answer. Pure.

use httparse::{EMPTY_HEADER, Status, parse_headers};

use crate::net::limits::HEAD_LEN_MAX;

/// Fields of nearly every head.
const FIELDS_USUAL: usize = 64;
/// Fields of any head: the shortest is `a:` and a line end.
const FIELDS_MAX: usize = HEAD_LEN_MAX / 3;

/// Why a script's answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    /// Its syntax.
    #[error("its fields can't be read: {0}")]
    Syntax(#[from] httparse::Error),
    /// More than [`HEAD_LEN_MAX`].
    #[error("its head is longer than {HEAD_LEN_MAX} bytes")]
    TooLong,
    /// It doesn't begin with three digits from 200 to 999.
    #[error("its Status is not one of an answer")]
    Status,
    /// There is no field, and RFC 3875 §6.3 wants one.
    #[error("it has no field")]
    Empty,
}

/// Makes the head at the front of `wire` one of HTTP. `None` if it isn't whole.
///
/// # Errors
/// If it can't become one.
pub(crate) fn http(wire: &[u8]) -> Result<Option<(usize, Vec<u8>)>, BadHead> {
    match http_of(wire, FIELDS_USUAL) {
        Err(BadHead::Syntax(httparse::Error::TooManyHeaders)) => http_of(wire, FIELDS_MAX),
        made => made,
    }
}

/// The same with room for so many fields.
fn http_of(wire: &[u8], fields_max: usize) -> Result<Option<(usize, Vec<u8>)>, BadHead> {
    let mut fields = vec![EMPTY_HEADER; fields_max.min(wire.len() / 3 + 1)];
    let (len, fields) = match parse_headers(wire, &mut fields)? {
        Status::Complete((len, fields)) if len <= HEAD_LEN_MAX => (len, fields),
        Status::Partial if wire.len() < HEAD_LEN_MAX => return Ok(None),
        Status::Complete(_) | Status::Partial => return Err(BadHead::TooLong),
    };
    if fields.is_empty() {
        return Err(BadHead::Empty);
    }
    let value = |name: &str| {
        fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let mut out = Vec::with_capacity(len + 32);
    out.extend_from_slice(b"HTTP/1.0 ");
    match (value("status"), value("location")) {
        (Some(status), _) => out.extend_from_slice(status_of(status)?),
        // RFC 3875 §6.2.3, §6.2.4: 302 where it says nothing else. A path is sent to the client, too.
        (None, Some(_)) => out.extend_from_slice(b"302 Found"),
        (None, None) => out.extend_from_slice(b"200 OK"),
    }
    out.extend_from_slice(b"\r\n");
    for field in fields {
        // A script frames nothing, and its Status is no field of HTTP.
        let is_left_out = ["status", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"]
            .iter()
            .any(|name| field.name.eq_ignore_ascii_case(name));
        if !is_left_out {
            for part in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some((len, out)))
}

/// A status with its reason, as a status line has it (RFC 3875 §6.3.3).
fn status_of(value: &[u8]) -> Result<&[u8], BadHead> {
    let is_end = |byte: Option<&u8>| byte.is_none_or(|byte| *byte == b' ');
    match value {
        [b'2'..=b'9', b'0'..=b'9', b'0'..=b'9', ..] if is_end(value.get(3)) => Ok(value),
        _ => Err(BadHead::Status),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(wire: &str, expect: &str) {
        let (len, made) = http(wire.as_bytes()).unwrap().unwrap();
        assert_eq!(String::from_utf8(made).unwrap(), expect, "{wire:?}");
        assert_eq!(&wire[len..], "body");
    }

    #[test]
    fn heads_of_scripts() {
        check("Content-type: text/html\r\n\r\nbody", "HTTP/1.0 200 OK\r\nContent-type: text/html\r\n\r\n");
        check("Content-Type:text/html\n\nbody", "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n");
        check(
            "Status: 404 Not Found\r\nX-A: b\r\nx-a: c\r\n\r\nbody",
            "HTTP/1.0 404 Not Found\r\nX-A: b\r\nx-a: c\r\n\r\n",
        );
        check("status: 204\r\n\r\nbody", "HTTP/1.0 204\r\n\r\n");
        check("Location: /a\r\n\r\nbody", "HTTP/1.0 302 Found\r\nLocation: /a\r\n\r\n");
        check(
            "Status: 201 Created\r\nLocation: /a\r\n\r\nbody",
            "HTTP/1.0 201 Created\r\nLocation: /a\r\n\r\n",
        );
        check(
            "Transfer-Encoding: chunked\nConnection: close\nUpgrade: x\nContent-Length: 4\n\nbody",
            "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n",
        );
        let many = format!("{}\r\nbody", "A: b\r\n".repeat(2000));
        check(&many, &format!("HTTP/1.0 200 OK\r\n{}\r\n", "A: b\r\n".repeat(2000)));
    }

    #[test]
    fn what_is_no_head() {
        for (wire, expect) in [
            ("\r\nbody", BadHead::Empty),
            ("<html>\n", BadHead::Syntax(httparse::Error::HeaderName)),
            ("PHP Warning\r\n\r\n", BadHead::Syntax(httparse::Error::HeaderName)),
            ("A: b\0\r\n\r\n", BadHead::Syntax(httparse::Error::HeaderValue)),
            ("Status: 100 Continue\r\n\r\n", BadHead::Status),
            ("Status: 101\r\n\r\n", BadHead::Status),
            ("Status: 20\r\n\r\n", BadHead::Status),
            ("Status: 2000\r\n\r\n", BadHead::Status),
            ("Status: ok\r\n\r\n", BadHead::Status),
            ("Status:\r\n\r\n", BadHead::Status),
        ] {
            assert_eq!(http(wire.as_bytes()), Err(expect), "{wire:?}");
        }
        let long = format!("A: {}", "b".repeat(HEAD_LEN_MAX));
        assert_eq!(http(long.as_bytes()), Err(BadHead::TooLong));
        assert_eq!(http(format!("{long}\r\n\r\n").as_bytes()), Err(BadHead::TooLong));
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_head(wire in "(Status: [1-9]{3}\r\n)?([A-Ca-c: \r\n]{0,3}[A-C]: ?[a-c]?\r?\n){0,4}\r?\n?[a-c]{0,3}", cut: proptest::sample::Index) {
            let wire = wire.as_bytes();
            let early = http(&wire[..cut.index(wire.len() + 1)]);
            if early != Ok(None) {
                prop_assert_eq!(early, http(wire));
            }
        }

        #[test]
        fn a_head_of_http_comes_out(wire in proptest::collection::vec(prop_oneof![Just(b':'), Just(b'\n'), Just(b'a'), any::<u8>()], 0..60)) {
            if let Ok(Some((len, made))) = http(&wire) {
                prop_assert!(len <= wire.len());
                let taken = crate::upstream::h1::response::take_head(&mut made[..].into(), false);
                prop_assert!(matches!(taken, Ok(Some(_))), "{:?}", taken);
            }
        }
    }
}
