//! The head of a backend's answer, and how long its body is (RFC 9112 §4–6).
//!
//! In: the front of what has come. Out: a head, or nothing yet. Refused: what is no HTTP/1.x, and what two
//! readers could take for two different answers. Pure.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode, Version, response};
use httparse::Status;
use hyper::ext::ReasonPhrase;
use upgrade_handler::fields::has_token;

use crate::connection::HEAD_LEN_MAX;

/// Fields of one head.
const FIELDS_MAX: usize = 100;

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Its syntax.
    #[error("{0}")]
    Syntax(#[from] httparse::Error),
    /// Its first digits don't tell.
    #[error("a status that is none")]
    Status,
    /// More than [`HEAD_LEN_MAX`].
    #[error("a head of more than {HEAD_LEN_MAX} bytes")]
    TooLong,
    /// (RFC 9110 §15)
    #[error("its status is above 599")]
    StatusRange,
    /// (RFC 9112 §6.3 item 5)
    #[error("it has two lengths")]
    TwoLengths,
    /// (the same)
    #[error("its length is no number")]
    Length,
    /// (RFC 9112 §6.3 item 3)
    #[error("it has a length and a transfer coding")]
    LengthAndCoding,
    /// (RFC 9112 §6.1)
    #[error("it has a transfer coding other than chunked")]
    Coding,
    /// (RFC 9112 §6.1)
    #[error("it has a transfer coding over HTTP/1.0")]
    CodingInHttp10,
}

impl BadAnswer {
    /// It isn't HTTP at all.
    #[must_use]
    pub fn is_syntax(self) -> bool {
        matches!(self, Self::Syntax(_) | Self::Status | Self::TooLong)
    }
}

/// Takes a head from the front of `wire`; `None` if it isn't whole.
///
/// # Errors
/// If it can't become one.
pub(super) fn take_head(wire: &mut BytesMut) -> Result<Option<response::Parts>, BadAnswer> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut answer, wire, &mut fields)? {
        Status::Complete(len) if len <= HEAD_LEN_MAX => len,
        Status::Partial if wire.len() < HEAD_LEN_MAX => return Ok(None),
        Status::Complete(_) | Status::Partial => return Err(BadAnswer::TooLong),
    };
    let mut head = Response::new(()).into_parts().0;
    head.status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(BadAnswer::Status)?;
    head.version = if answer.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    if let Some(reason) = answer.reason.filter(|reason| head.status.canonical_reason() != Some(reason))
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        head.extensions.insert(reason);
    }
    // Values are parts of the same bytes, which are still borrowed: here is where.
    let start = wire.as_ptr().addr();
    let place = |part: &[u8]| part.as_ptr().addr() - start..part.as_ptr().addr() - start + part.len();
    let places: Vec<_> =
        answer.headers.iter().map(|field| (place(field.name.as_bytes()), place(field.value))).collect();
    let bytes = wire.split_to(len).freeze();
    head.headers.reserve(places.len());
    for (name, value) in places {
        let name = HeaderName::from_bytes(&bytes[name]).map_err(|_| httparse::Error::HeaderName)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(value));
        head.headers.append(name, value.map_err(|_| httparse::Error::HeaderValue)?);
    }
    Ok(Some(head))
}

/// Where an answer's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    UntilEnd,
}

impl Framing {
    /// That of the answer to a request of this method.
    ///
    /// # Errors
    /// If somebody could see it otherwise.
    pub(super) fn of(head: &response::Parts, method: &Method) -> Result<Self, BadAnswer> {
        if head.status.as_u16() >= 600 {
            return Err(BadAnswer::StatusRange);
        }
        let length = length(&head.headers)?;
        let mut codings = head.headers.get_all(TRANSFER_ENCODING).into_iter();
        let coding = codings.next();
        match coding {
            None => {}
            Some(_) if length.is_some() => return Err(BadAnswer::LengthAndCoding),
            Some(_) if head.version == Version::HTTP_10 => return Err(BadAnswer::CodingInHttp10),
            Some(coding)
                if codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
            Some(_) => return Err(BadAnswer::Coding),
        }
        // RFC 9112 §6.3 items 1, 2, 4, 5, 7.
        let is_bodiless = *method == Method::HEAD
            || head.status.is_informational()
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match (is_bodiless, coding, length) {
            (true, _, _) => Self::Length(0),
            (false, Some(_), _) => Self::Chunked,
            (false, None, Some(len)) => Self::Length(len),
            (false, None, None) => Self::UntilEnd,
        })
    }
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, BadAnswer> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).into_iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() || length.as_bytes().contains(&b',') {
        return Err(BadAnswer::TwoLengths);
    }
    let digits = length.to_str().ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).map(Some).ok_or(BadAnswer::Length)
}

/// The backend takes another request over the same connection (RFC 9112 §9.3).
pub(super) fn is_kept(head: &response::Parts) -> bool {
    if has_token(&head.headers, CONNECTION, "close") {
        return false;
    }
    head.version == Version::HTTP_11 || has_token(&head.headers, CONNECTION, "keep-alive")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(wire: &[u8]) -> Result<Option<response::Parts>, BadAnswer> {
        take_head(&mut wire.into())
    }

    fn framing(method: &str, status: &str, fields: &str) -> Result<Framing, BadAnswer> {
        let wire = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
        Framing::of(&take(wire.as_bytes())?.unwrap(), &method.parse().unwrap())
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole() {
        let wire = b"HTTP/1.0 200 Very Well\r\nSet-Cookie: a=b\r\nX-Y:  c \r\nset-cookie: d\r\n\r\nbody";
        for len in 0..wire.len() - 4 {
            assert!(take(&wire[..len]).unwrap().is_none(), "{len}");
        }
        let mut bytes = BytesMut::from(&wire[..]);
        let head = take_head(&mut bytes).unwrap().unwrap();
        assert_eq!((head.status.as_u16(), head.version, &bytes[..]), (200, Version::HTTP_10, &b"body"[..]));
        assert_eq!(head.extensions.get::<ReasonPhrase>().unwrap().as_bytes(), b"Very Well");
        assert_eq!(head.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=b", "d"]);
        assert_eq!(head.headers["x-y"], "c");
        let usual = take(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap().unwrap();
        assert!(usual.extensions.get::<ReasonPhrase>().is_none());
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for wire in [
            "HTTP/3.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            assert!(take(wire.as_bytes()).unwrap_err().is_syntax(), "{wire:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD_LEN_MAX));
        assert_eq!(take(long.as_bytes()).unwrap_err(), BadAnswer::TooLong);
        assert_eq!(take(format!("{long}\r\n\r\n").as_bytes()).unwrap_err(), BadAnswer::TooLong);
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
        assert!(take(many.as_bytes()).unwrap_err().is_syntax());
    }

    #[test]
    fn a_body_ends_in_one_place() {
        use BadAnswer::{Coding, Length as BadLength, LengthAndCoding, StatusRange, TwoLengths};
        use Framing::{Chunked, Length, UntilEnd};
        for (method, status, fields, expect) in [
            ("GET", "200 OK", "Content-Length: 5\r\n", Ok(Length(5))),
            ("GET", "200 OK", "Transfer-Encoding: Chunked\r\n", Ok(Chunked)),
            ("GET", "200 OK", "", Ok(UntilEnd)),
            ("HEAD", "200 OK", "Content-Length: 5\r\n", Ok(Length(0))),
            ("HEAD", "200 OK", "Transfer-Encoding: chunked\r\n", Ok(Length(0))),
            ("GET", "204 No Content", "", Ok(Length(0))),
            ("GET", "304 Not Modified", "Content-Length: 5\r\n", Ok(Length(0))),
            ("GET", "101 Switching Protocols", "", Ok(Length(0))),
            ("GET", "200 OK", "Content-Length: 5\r\nContent-Length: 5\r\n", Err(TwoLengths)),
            ("GET", "200 OK", "Content-Length: 5, 5\r\n", Err(TwoLengths)),
            ("GET", "200 OK", "Content-Length: +5\r\n", Err(BadLength)),
            ("GET", "200 OK", "Content-Length: \r\n", Err(BadLength)),
            ("GET", "200 OK", "Content-Length: 18446744073709551616\r\n", Err(BadLength)),
            ("HEAD", "200 OK", "Content-Length: x\r\n", Err(BadLength)),
            ("GET", "200 OK", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(LengthAndCoding)),
            ("GET", "200 OK", "Transfer-Encoding: gzip, chunked\r\n", Err(Coding)),
            ("GET", "200 OK", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(Coding)),
            ("GET", "600 Odd", "", Err(StatusRange)),
        ] {
            assert_eq!(framing(method, status, fields), expect, "{method} {status} {fields}");
        }
        let old = take(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().unwrap();
        assert_eq!(Framing::of(&old, &Method::GET), Err(BadAnswer::CodingInHttp10));
    }

    #[test]
    fn connections_are_kept_unless_somebody_says_otherwise() {
        for (head, kept) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\n", false),
            ("HTTP/1.0 200 OK\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", true),
        ] {
            let head = take(format!("{head}\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!(is_kept(&head), kept, "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_else_is_refused_or_waits(wire: Vec<u8>, text in "(HTTP/1\\.[01] [0-9]{1,4}[ -~]{0,9}\r\n)?([ -~]{0,20}\r\n){0,4}") {
            for wire in [&wire[..], text.as_bytes()] {
                let mut bytes = BytesMut::from(wire);
                if !matches!(take_head(&mut bytes), Ok(Some(_))) {
                    prop_assert_eq!(&bytes[..], wire); // nothing is gone
                }
            }
        }
    }
}
