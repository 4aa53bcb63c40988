//! The head of a backend's answer, and how long its body is (RFC 9112 §4–6).
//!
//! In: the front of what has come. Out: a head, or nothing yet. Refused: what is no HTTP/1.x, and what two
//! readers could take for two different answers. What a careless server wrote and what can still be made one
//! answer is repaired, and the repair is reported. Pure.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode, Version, response};
use httparse::Status;
use hyper::ext::ReasonPhrase;
use upgrade_handler::casing;
use upgrade_handler::fields::has_token;

use crate::net::limits::HEAD_LEN_MAX;

/// Fields of nearly every head: they are found without memory of their own.
const FIELDS_USUAL: usize = 100;
/// Fields of any head: [`HEAD_LEN_MAX`] has no room for more, since the shortest is `a:` and a line end.
const FIELDS_MAX: usize = HEAD_LEN_MAX / 4;

/// Fields that the gateway adds to an answer: room for them is made at once.
const FIELDS_OURS: usize = 4;

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    /// Its syntax.
    #[error("{0}")]
    Syntax(#[from] httparse::Error),
    /// It doesn't begin with three digits.
    #[error("invalid status code")]
    Status,
    /// More than [`HEAD_LEN_MAX`].
    #[error("the head is longer than {HEAD_LEN_MAX} bytes")]
    TooLong,
    /// (RFC 9112 §6.3 item 5)
    #[error("it has more than one Content-Length")]
    TwoLengths,
    /// (the same)
    #[error("its Content-Length is not a number")]
    Length,
    /// (RFC 9112 §6.1)
    #[error("it has a transfer coding other than chunked")]
    Coding,
}

/// What was put right in an answer before it was passed on. Its connection is not used again: the next answer
/// could begin where this server, and not we, thinks that this one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Repair {
    /// (RFC 9110 §15: like a 5xx.)
    #[error("its status code is above 599 and is forwarded")]
    Status,
    /// (RFC 9110 §8.6)
    #[error("the same Content-Length was sent more than once and is forwarded once")]
    LengthTwice,
    /// (RFC 9112 §6.3 item 3)
    #[error("its Content-Length is removed, because its body is chunked")]
    LengthBesideChunks,
    /// (RFC 2616 §3.6 had it, RFC 7230 took it out.)
    #[error("the transfer coding identity is removed")]
    Identity,
    /// (RFC 9112 §6.1)
    #[error("its body is read as chunked, although it is HTTP/1.0")]
    ChunksInHttp10,
    /// (RFC 9110 §8.6, RFC 9112 §6.1, §6.3 item 1)
    #[error("its Content-Length and Transfer-Encoding are removed, because it has no body")]
    NoBody,
}

impl BadResponse {
    /// It isn't HTTP at all.
    #[must_use]
    pub fn is_syntax(self) -> bool {
        matches!(self, Self::Syntax(_) | Self::Status | Self::TooLong)
    }
}

/// Takes a head from the front of `wire`; `None` if it isn't whole. `spelt`: hyper is to write its names to the
/// client as they are here.
///
/// # Errors
/// If it can't become one.
pub(crate) fn take_head(wire: &mut BytesMut, spelt: bool) -> Result<Option<response::Parts>, BadResponse> {
    match take_head_of(wire, spelt, FIELDS_USUAL) {
        Err(BadResponse::Syntax(httparse::Error::TooManyHeaders)) => take_head_of(wire, spelt, FIELDS_MAX),
        taken => taken,
    }
}

/// The same with room for so many fields.
fn take_head_of(
    wire: &mut BytesMut,
    spelt: bool,
    fields_max: usize,
) -> Result<Option<response::Parts>, BadResponse> {
    let mut usual = [const { MaybeUninit::uninit() }; FIELDS_USUAL];
    let mut many = Vec::new();
    let fields = if fields_max <= FIELDS_USUAL {
        &mut usual[..]
    } else {
        many.resize(fields_max.min(wire.len() / 4), MaybeUninit::uninit());
        &mut many[..]
    };
    let mut answer = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut answer, wire, fields)? {
        Status::Complete(len) if len <= HEAD_LEN_MAX => len,
        Status::Partial if wire.len() < HEAD_LEN_MAX => return Ok(None),
        Status::Complete(_) | Status::Partial => return Err(BadResponse::TooLong),
    };
    let mut head = Response::new(()).into_parts().0;
    head.status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(BadResponse::Status)?;
    head.version = if answer.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    if let Some(reason) = answer.reason.filter(|reason| head.status.canonical_reason() != Some(reason))
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        head.extensions.insert(reason);
    }
    if spelt {
        let names = answer.headers.iter().map(|field| field.name.as_bytes());
        head.extensions.extend(casing::spelt(names));
    }
    // Values are parts of the same bytes, which are still borrowed: here is where.
    let start = wire.as_ptr().addr();
    let place = |part: &[u8]| part.as_ptr().addr() - start..part.as_ptr().addr() - start + part.len();
    let places: Vec<_> =
        answer.headers.iter().map(|field| (place(field.name.as_bytes()), place(field.value))).collect();
    let bytes = wire.split_to(len).freeze();
    head.headers.reserve(places.len() + FIELDS_OURS);
    for (name, value) in places {
        let name = HeaderName::from_bytes(&bytes[name]).map_err(|_| httparse::Error::HeaderName)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(value));
        head.headers.append(name, value.map_err(|_| httparse::Error::HeaderValue)?);
    }
    Ok(Some(head))
}

/// Where an answer's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    UntilEnd,
}

impl Framing {
    /// That of the answer to a request of this method, whose head is repaired where that makes it one answer.
    ///
    /// # Errors
    /// If another recipient could read it in another way.
    pub(crate) fn of(
        head: &mut response::Parts,
        method: &Method,
    ) -> Result<(Self, Vec<Repair>), BadResponse> {
        let mut repairs = Vec::new();
        if head.status.as_u16() >= 600 {
            repairs.push(Repair::Status);
        }
        if head.status.is_informational() || head.status == StatusCode::NO_CONTENT {
            // RFC 9112 §6.3 item 1: there is no body, whatever the fields say, and they may not be there (§6.1,
            // RFC 9110 §8.6). A length of 0 is no danger to the next answer.
            let length = head.headers.remove(CONTENT_LENGTH).filter(|length| length != "0");
            if head.headers.remove(TRANSFER_ENCODING).is_some() || length.is_some() {
                repairs.push(Repair::NoBody);
            }
            return Ok((Self::Length(0), repairs));
        }
        let length = length(&mut head.headers, &mut repairs)?;
        let is_chunked = is_chunked(&head.headers, &mut repairs)?;
        if is_chunked && length.is_some() {
            head.headers.remove(CONTENT_LENGTH);
            repairs.push(Repair::LengthBesideChunks);
        }
        if is_chunked && head.version == Version::HTTP_10 {
            repairs.push(Repair::ChunksInHttp10);
        }
        let framing = match (head.status, is_chunked, length) {
            // RFC 9112 §6.3 items 1, 4, 6, 8.
            _ if *method == Method::HEAD => Self::Length(0),
            (StatusCode::NOT_MODIFIED, is_chunked, _) => {
                if is_chunked {
                    repairs.push(Repair::NoBody); // a last chunk may follow
                }
                Self::Length(0)
            }
            (_, true, _) => Self::Chunked,
            (_, false, Some(len)) => Self::Length(len),
            (_, false, None) => Self::UntilEnd,
        };
        Ok((framing, repairs))
    }
}

/// The value of Content-Length, which is usually sent once. The same one repeated is one (RFC 9110 §8.6).
fn length(headers: &mut HeaderMap, repairs: &mut Vec<Repair>) -> Result<Option<u64>, BadResponse> {
    let mut length = None;
    let mut count = 0;
    // Comparing a few names costs less than a look-up.
    for (_, line) in headers.iter().filter(|(name, _)| *name == CONTENT_LENGTH) {
        for digits in line.as_bytes().split(|&byte| byte == b',') {
            let len = number(digits.trim_ascii()).ok_or(BadResponse::Length)?;
            if length.is_some_and(|length| length != len) {
                return Err(BadResponse::TwoLengths);
            }
            length = Some(len);
            count += 1;
        }
    }
    if let Some(length) = length.filter(|_| count > 1) {
        headers.insert(CONTENT_LENGTH, length.into());
        repairs.push(Repair::LengthTwice);
    }
    Ok(length)
}

/// Digits and nothing else (RFC 9110 §8.6).
fn number(digits: &[u8]) -> Option<u64> {
    let (first, rest) = digits.split_first()?;
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    rest.iter().try_fold(digit(first)?, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

fn is_chunked(headers: &HeaderMap, repairs: &mut Vec<Repair>) -> Result<bool, BadResponse> {
    let (mut chunked, mut identity) = (0, 0);
    if headers.keys().all(|name| *name != TRANSFER_ENCODING) {
        return Ok(false);
    }
    for line in headers.get_all(TRANSFER_ENCODING) {
        for coding in line.to_str().map_err(|_| BadResponse::Coding)?.split(',').map(str::trim) {
            match coding {
                "" => {} // RFC 9110 §5.6.1.2
                coding if coding.eq_ignore_ascii_case("chunked") => chunked += 1,
                coding if coding.eq_ignore_ascii_case("identity") => identity += 1,
                _ => return Err(BadResponse::Coding),
            }
        }
    }
    if identity > 0 {
        repairs.push(Repair::Identity);
    }
    match (chunked, identity) {
        (1, _) => Ok(true),
        (0, 1..) => Ok(false),
        _ => Err(BadResponse::Coding), // RFC 9112 §6.1: chunked twice, or nothing at all
    }
}

/// The backend takes another request over the same connection (RFC 9112 §9.3).
pub(crate) fn is_kept(head: &response::Parts) -> bool {
    if head.headers.keys().all(|name| *name != CONNECTION) {
        return head.version == Version::HTTP_11;
    }
    if has_token(&head.headers, CONNECTION, "close") {
        return false;
    }
    head.version == Version::HTTP_11 || has_token(&head.headers, CONNECTION, "keep-alive")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(wire: &[u8]) -> Result<Option<response::Parts>, BadResponse> {
        take_head(&mut wire.into(), false)
    }

    /// What frames an answer, what was repaired, and the framing fields that are left.
    fn framing(
        method: &str,
        head: &str,
        fields: &str,
    ) -> Result<(Framing, Vec<Repair>, String), BadResponse> {
        let mut head = take(format!("HTTP/1.{head}\r\n{fields}\r\n").as_bytes())?.unwrap();
        let (framing, repairs) = Framing::of(&mut head, &method.parse().unwrap())?;
        let left = head.headers.get_all(CONTENT_LENGTH).into_iter().map(|len| len.to_str().unwrap());
        Ok((framing, repairs, left.collect::<Vec<_>>().join("|")))
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole() {
        let wire = b"HTTP/1.0 200 Very Well\r\nSet-Cookie: a=b\r\nX-Y:  c \r\nset-cookie: d\r\n\r\nbody";
        for len in 0..wire.len() - 4 {
            assert!(take(&wire[..len]).unwrap().is_none(), "{len}");
        }
        let mut bytes = BytesMut::from(&wire[..]);
        let head = take_head(&mut bytes, false).unwrap().unwrap();
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
        for odd in [BadResponse::TwoLengths, BadResponse::Length, BadResponse::Coding] {
            assert!(!odd.is_syntax(), "{odd}: it is HTTP");
        }
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD_LEN_MAX));
        assert_eq!(take(long.as_bytes()).unwrap_err(), BadResponse::TooLong);
        assert_eq!(take(format!("{long}\r\n\r\n").as_bytes()).unwrap_err(), BadResponse::TooLong);
        // As many fields as there is room for.
        for count in [FIELDS_USUAL, FIELDS_USUAL + 1, 5000] {
            let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
            let head = take(many.as_bytes()).unwrap().unwrap();
            assert_eq!(head.headers.get_all("a").iter().count(), count);
        }
    }

    #[test]
    fn a_body_ends_in_one_place() {
        use Framing::{Chunked, Length, UntilEnd};
        for (method, head, fields, expect, left) in [
            ("GET", "1 200 OK", "Content-Length: 5\r\n", Length(5), "5"),
            ("GET", "0 200 OK", "Content-Length: 5\r\n", Length(5), "5"),
            ("GET", "1 200 OK", "Transfer-Encoding: Chunked\r\n", Chunked, ""),
            ("GET", "1 200 OK", "Transfer-Encoding: ,chunked,\r\n", Chunked, ""),
            ("GET", "1 200 OK", "", UntilEnd, ""),
            ("HEAD", "1 200 OK", "Content-Length: 5\r\n", Length(0), "5"),
            ("HEAD", "1 200 OK", "Transfer-Encoding: chunked\r\n", Length(0), ""),
            ("GET", "1 204 No Content", "", Length(0), ""),
            ("GET", "1 204 No Content", "Content-Length: 0\r\n", Length(0), ""),
            ("GET", "1 304 Not Modified", "Content-Length: 5\r\n", Length(0), "5"),
            ("GET", "1 205 Reset Content", "Content-Length: 0\r\n", Length(0), "0"),
            ("GET", "1 101 Switching Protocols", "", Length(0), ""),
        ] {
            let expect = Ok((expect, vec![], left.to_owned()));
            assert_eq!(framing(method, head, fields), expect, "{method} {head} {fields}");
        }
    }

    #[test]
    fn what_a_careless_server_wrote_is_made_one_answer() {
        use Framing::{Chunked, Length, UntilEnd};
        use Repair::{ChunksInHttp10, Identity, LengthBesideChunks, LengthTwice, NoBody, Status};
        const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
        const FIVE: &str = "Content-Length: 5\r\n";
        let (both, twice) = (format!("{FIVE}{CHUNKED}"), format!("{FIVE}{FIVE}"));
        for (method, head, fields, expect, repairs, left) in [
            ("GET", "1 200 OK", twice.as_str(), Length(5), &[LengthTwice][..], "5"),
            ("GET", "1 200 OK", "Content-Length: 5, 5\r\n", Length(5), &[LengthTwice], "5"),
            (
                "GET",
                "1 200 OK",
                "Content-Length: 5\r\nContent-Length: 5,5\r\n",
                Length(5),
                &[LengthTwice],
                "5",
            ),
            ("HEAD", "1 200 OK", twice.as_str(), Length(0), &[LengthTwice], "5"),
            ("GET", "1 200 OK", both.as_str(), Chunked, &[LengthBesideChunks], ""),
            ("HEAD", "1 200 OK", both.as_str(), Length(0), &[LengthBesideChunks], ""),
            ("GET", "0 200 OK", CHUNKED, Chunked, &[ChunksInHttp10], ""),
            ("GET", "0 200 OK", both.as_str(), Chunked, &[LengthBesideChunks, ChunksInHttp10], ""),
            ("GET", "1 200 OK", "Transfer-Encoding: Identity\r\n", UntilEnd, &[Identity], ""),
            (
                "GET",
                "1 200 OK",
                "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
                Length(5),
                &[Identity],
                "5",
            ),
            ("GET", "1 200 OK", "Transfer-Encoding: identity, chunked\r\n", Chunked, &[Identity], ""),
            ("GET", "1 600 Odd", FIVE, Length(5), &[Status], "5"),
            ("GET", "1 999 Odd", "", UntilEnd, &[Status], ""),
            ("GET", "1 204 No Content", FIVE, Length(0), &[NoBody], ""),
            ("GET", "1 204 No Content", "Content-Length: x\r\n", Length(0), &[NoBody], ""),
            ("GET", "1 204 No Content", CHUNKED, Length(0), &[NoBody], ""),
            ("GET", "1 304 Not Modified", CHUNKED, Length(0), &[NoBody], ""),
            ("GET", "1 101 Switching Protocols", both.as_str(), Length(0), &[NoBody], ""),
            ("GET", "1 101 Switching Protocols", "Content-Length: 0\r\n", Length(0), &[], ""),
        ] {
            let expect = Ok((expect, repairs.to_vec(), left.to_owned()));
            assert_eq!(framing(method, head, fields), expect, "{method} {head} {fields}");
        }
    }

    #[test]
    fn what_two_readers_could_see_otherwise_is_refused() {
        use BadResponse::{Coding, Length, TwoLengths};
        for (method, fields, expect) in [
            ("GET", "Content-Length: 5\r\nContent-Length: 6\r\n", TwoLengths),
            ("GET", "Content-Length: 5, 6\r\n", TwoLengths),
            ("GET", "Content-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n", TwoLengths),
            ("HEAD", "Content-Length: 5\r\nContent-Length: 6\r\n", TwoLengths),
            ("GET", "Content-Length: +5\r\n", Length),
            ("GET", "Content-Length: 5,\r\n", Length),
            ("GET", "Content-Length: \r\n", Length),
            ("GET", "Content-Length: 0x5\r\n", Length),
            ("GET", "Content-Length: 18446744073709551616\r\n", Length),
            ("HEAD", "Content-Length: x\r\n", Length),
            ("GET", "Transfer-Encoding: gzip, chunked\r\n", Coding),
            ("GET", "Transfer-Encoding: chunked, gzip\r\n", Coding),
            ("GET", "Transfer-Encoding: chunked, chunked\r\n", Coding),
            ("GET", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Coding),
            ("GET", "Transfer-Encoding: chunked;a=b\r\n", Coding),
            ("GET", "Transfer-Encoding: \r\n", Coding),
            ("GET", "Transfer-Encoding: x\r\nContent-Length: 5\r\n", Coding),
            ("GET", "Transfer-Encoding: chunked\u{e9}\r\n", Coding),
        ] {
            assert_eq!(framing(method, "1 200 OK", fields), Err(expect), "{method} {fields}");
        }
    }

    #[test]
    fn connections_are_kept_unless_a_field_or_the_version_forbids_it() {
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
                if !matches!(take_head(&mut bytes, false), Ok(Some(_))) {
                    prop_assert_eq!(&bytes[..], wire); // nothing is gone
                }
            }
        }
    }
}
