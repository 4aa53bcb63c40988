//! The body of a backend's answer, out of the bytes that carry it (RFC 9112 §6–7).
//!
//! In: what has come. Out: data, trailers, or that more is needed. Pure.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use httparse::{EMPTY_HEADER, Status};

use crate::upstream::h1::encode::may_trail;
use crate::upstream::h1::response::Framing;

/// Bytes of a line with a chunk's size, extensions included; and of all trailers.
const SIZE_LINE_MAX: usize = 4096;
const TRAILERS_LEN_MAX: usize = 16 * 1024;
/// Fields in all trailers.
const TRAILERS_MAX: usize = 64;

/// A chunk that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChunk {
    /// (RFC 9112 §7.1)
    #[error("a chunk has no valid size")]
    Size,
    /// (the same)
    #[error("a chunk does not end where its size says")]
    End,
    /// (RFC 9112 §7.1.2)
    #[error("invalid trailers")]
    Trailers,
}

/// What has come out of the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// A part of the body, not empty.
    Data(Bytes),
    /// What stands behind it.
    Trailers(HeaderMap),
    /// Nothing, until more bytes have come.
    More,
    /// There is no more of it.
    End,
}

/// Where in a body we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// So many bytes are missing.
    Length(u64),
    /// At the size of a chunk.
    Size,
    /// So many bytes of a chunk are missing.
    Chunk(u64),
    /// Behind the last chunk.
    Trailers,
    /// Everything that comes belongs to it.
    UntilEnd,
}

impl Decoder {
    pub(crate) const DONE: Self = Self::Length(0);

    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(len) => Self::Length(len),
            Framing::Chunked => Self::Size,
            Framing::UntilEnd => Self::UntilEnd,
        }
    }

    /// So many bytes are missing, if that is known.
    pub(crate) fn len_left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Size | Self::Chunk(_) | Self::Trailers | Self::UntilEnd => None,
        }
    }

    /// Takes what it can from the front of `wire`.
    ///
    /// # Errors
    /// If the rest can't be understood.
    pub(crate) fn decode(&mut self, wire: &mut BytesMut) -> Result<Decoded, BadChunk> {
        loop {
            match self {
                Self::Length(0) => return Ok(Decoded::End),
                _ if wire.is_empty() => return Ok(Decoded::More),
                Self::Length(left) | Self::Chunk(left @ 1..) => {
                    let len = usize::try_from(*left).map_or(wire.len(), |left| left.min(wire.len()));
                    *left -= len as u64;
                    return Ok(Decoded::Data(wire.split_to(len).freeze()));
                }
                Self::UntilEnd => return Ok(Decoded::Data(wire.split().freeze())),
                Self::Chunk(0) => match wire.get(..2) {
                    Some(b"\r\n") => {
                        drop(wire.split_to(2));
                        *self = Self::Size;
                    }
                    Some(_) => return Err(BadChunk::End),
                    None => return Ok(Decoded::More),
                },
                Self::Size => match chunk_size(wire)? {
                    Some((len, size)) => {
                        drop(wire.split_to(len));
                        *self = if size == 0 { Self::Trailers } else { Self::Chunk(size) };
                    }
                    None => return Ok(Decoded::More),
                },
                Self::Trailers => {
                    let Some((len, trailers)) = trailers(wire)? else { return Ok(Decoded::More) };
                    drop(wire.split_to(len));
                    *self = Self::DONE;
                    if !trailers.is_empty() {
                        return Ok(Decoded::Trailers(trailers));
                    }
                }
            }
        }
    }
}

/// The length of the line and the size that it names; `None` if it isn't whole.
fn chunk_size(wire: &[u8]) -> Result<Option<(usize, u64)>, BadChunk> {
    if wire.first().is_some_and(|digit| !digit.is_ascii_hexdigit()) {
        return Err(BadChunk::Size); // httparse would take an empty line for 0
    }
    match httparse::parse_chunk_size(wire) {
        // A line that httparse would read on and on.
        Ok(Status::Partial) if wire.len() > SIZE_LINE_MAX => Err(BadChunk::Size),
        Ok(Status::Partial) => Ok(None),
        Ok(Status::Complete((len, _))) if len > SIZE_LINE_MAX => Err(BadChunk::Size),
        Ok(Status::Complete(size)) => Ok(Some(size)),
        Err(httparse::InvalidChunkSize) => Err(BadChunk::Size),
    }
}

fn trailers(wire: &[u8]) -> Result<Option<(usize, HeaderMap)>, BadChunk> {
    let mut fields = [EMPTY_HEADER; TRAILERS_MAX];
    match httparse::parse_headers(wire, &mut fields) {
        Ok(Status::Partial) if wire.len() > TRAILERS_LEN_MAX => Err(BadChunk::Trailers),
        Ok(Status::Partial) => Ok(None),
        Ok(Status::Complete((len, _))) if len > TRAILERS_LEN_MAX => Err(BadChunk::Trailers),
        Ok(Status::Complete((len, fields))) => {
            let mut trailers = HeaderMap::new();
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadChunk::Trailers)?;
                let value = HeaderValue::from_bytes(field.value).map_err(|_| BadChunk::Trailers)?;
                if may_trail(&name) {
                    trailers.append(name, value); // a length here would be malformed over HTTP/2
                }
            }
            Ok(Some((len, trailers)))
        }
        Err(_) => Err(BadChunk::Trailers),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// All that comes out of a wire in parts: the body, its trailers, what is left; or what is wrong.
    type DecodedBody = Result<(Vec<u8>, Option<HeaderMap>, Vec<u8>, bool), BadChunk>;

    fn decoded(framing: Framing, wire: &[u8], cuts: &[usize]) -> DecodedBody {
        let (mut decoder, mut inbox) = (Decoder::new(framing), BytesMut::new());
        let (mut body, mut trailers, mut ended, mut at) = (Vec::new(), None, false, 0);
        for &cut in cuts.iter().chain([&wire.len()]) {
            inbox.extend_from_slice(&wire[at..cut.max(at)]);
            at = cut.max(at);
            while !ended {
                match decoder.decode(&mut inbox)? {
                    Decoded::Data(data) => {
                        assert!(!data.is_empty());
                        body.extend_from_slice(&data);
                    }
                    Decoded::Trailers(map) => trailers = Some(map),
                    Decoded::More => break,
                    Decoded::End => ended = true,
                }
            }
        }
        Ok((body, trailers, inbox.to_vec(), ended))
    }

    #[test]
    fn bodies_by_length_and_by_end() {
        assert_eq!(decoded(Framing::Length(0), b"next", &[]), Ok((vec![], None, b"next".to_vec(), true)));
        assert_eq!(
            decoded(Framing::Length(3), b"abcd", &[1]),
            Ok((b"abc".to_vec(), None, b"d".to_vec(), true))
        );
        assert_eq!(decoded(Framing::Length(3), b"ab", &[]), Ok((b"ab".to_vec(), None, vec![], false)));
        assert_eq!(decoded(Framing::UntilEnd, b"ab", &[1]), Ok((b"ab".to_vec(), None, vec![], false)));
    }

    #[test]
    fn chunks_extensions_and_trailers() {
        let wire = b"5;a=\"b\"\r\nhello\r\n00A \r\n0123456789\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\nnext";
        let (body, trailers, rest, ended) = decoded(Framing::Chunked, wire, &[]).unwrap();
        assert_eq!((&body[..], &rest[..], ended), (&b"hello0123456789"[..], &b"next"[..], true));
        assert_eq!(trailers.unwrap().get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"]);
        let framing =
            b"0\r\nContent-Length: 9\r\nX-Sum: 1\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=b\r\n\r\n";
        let (_, trailers, ..) = decoded(Framing::Chunked, framing, &[]).unwrap();
        assert_eq!(trailers.unwrap().keys().collect::<Vec<_>>(), ["x-sum"], "RFC 9110 §6.5.1");
        assert_eq!(decoded(Framing::Chunked, b"0\r\n\r\n", &[2]), Ok((vec![], None, vec![], true)));
    }

    #[test]
    fn chunks_that_are_none() {
        for (wire, expect) in [
            (&b"x\r\n"[..], BadChunk::Size),
            (b"\r\n", BadChunk::Size),
            (b"-1\r\n", BadChunk::Size),
            (b"10000000000000000\r\n", BadChunk::Size),
            (b"1\r\nab\r\n", BadChunk::End),
            (b"1\r\na\n0\r\n", BadChunk::End),
            (b"0\r\nno trailer\r\n\r\n", BadChunk::Trailers),
        ] {
            assert_eq!(decoded(Framing::Chunked, wire, &[]), Err(expect), "{wire:?}");
        }
        let line = [b"1;", &[b'x'; SIZE_LINE_MAX][..]].concat();
        assert_eq!(decoded(Framing::Chunked, &line, &[]), Err(BadChunk::Size));
        let trailer = [b"0\r\nX: ", &[b'x'; TRAILERS_LEN_MAX][..]].concat();
        assert_eq!(decoded(Framing::Chunked, &trailer, &[]), Err(BadChunk::Trailers));
        let trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(TRAILERS_MAX + 1));
        assert_eq!(decoded(Framing::Chunked, trailers.as_bytes(), &[]), Err(BadChunk::Trailers));
    }

    /// However a wire is cut, the same is too long.
    #[test]
    fn lines_and_trailers_are_as_long_as_they_may_be() {
        let line = |len: usize| [b"1;", &vec![b'x'; len - 4][..], b"\r\n", b"a\r\n0\r\n\r\n"].concat();
        let trailer = |len: usize| [b"0\r\nX: ", &vec![b'x'; len - 7][..], b"\r\n\r\n"].concat();
        for (good, bad, what) in [
            (line(SIZE_LINE_MAX), line(SIZE_LINE_MAX + 1), BadChunk::Size),
            (trailer(TRAILERS_LEN_MAX), trailer(TRAILERS_LEN_MAX + 1), BadChunk::Trailers),
        ] {
            let every_byte: Vec<usize> = (0..bad.len()).collect();
            for cuts in [&[][..], &every_byte] {
                assert!(decoded(Framing::Chunked, &good, &cuts[..cuts.len().min(good.len())]).unwrap().3);
                assert!(decoded(Framing::Chunked, &bad, cuts) == Err(what), "{what:?}, {} cuts", cuts.len());
            }
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_result(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..5),
            spoil in proptest::option::of((any::<Index>(), any::<u8>())),
            cuts in proptest::collection::vec(any::<Index>(), 0..10),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend(format!("{:x}\r\n", chunk.len()).bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\nX: y\r\n\r\nnext");
            if let Some((at, byte)) = spoil {
                let at = at.index(wire.len());
                wire[at] = byte;
            } else {
                prop_assert_eq!(decoded(Framing::Chunked, &wire, &[]).unwrap().0, chunks.concat());
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(decoded(Framing::Chunked, &wire, &cuts), decoded(Framing::Chunked, &wire, &[]));
        }
    }
}
