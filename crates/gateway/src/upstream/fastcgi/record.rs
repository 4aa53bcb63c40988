//! Records of FastCGI (specification 1.0, §3.3): eight bytes of header, content, and padding.
//!
//! In: bytes of a server, in any pieces. Out: the content of its streams as it comes, and the end of the request.
//! Refused: another version, records for a request that there isn't, records that only we may send, and an end of the
//! wrong length. Pure.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

/// The number of the only request on a connection.
const REQUEST: u16 = 1;
const VERSION: u8 = 1;
const HEADER_LEN: usize = 8;
/// The most content of a record that needs no padding to end on a multiple of eight bytes (§3.3).
pub(crate) const CONTENT_LEN_MAX: usize = 65_528;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
/// Types below are of a request, the others of the connection (§4).
const MANAGEMENT: Range<u8> = 9..12;
/// The content of an end (§5.5).
const END_LEN: usize = 8;

/// The header of a record of ours. `len` is at most [`CONTENT_LEN_MAX`].
#[must_use]
fn header(kind: u8, len: usize) -> [u8; HEADER_LEN] {
    let [high, low] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    let [id_high, id_low] = REQUEST.to_be_bytes();
    [VERSION, kind, id_high, id_low, high, low, 0, 0]
}

/// The header of a record with so many bytes of the body; 0: the body's end. `len` is at most [`CONTENT_LEN_MAX`].
#[must_use]
pub(crate) fn stdin(len: usize) -> [u8; HEADER_LEN] {
    header(STDIN, len)
}

/// The beginning of a request for a responder, whose connection is closed behind its answer (§5.1), and its variables
/// as [`params`](super::params) encodes them (§5.2).
#[must_use]
pub(crate) fn begin(variables: &[u8]) -> Vec<u8> {
    const RESPONDER: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
    let records = variables.len() / CONTENT_LEN_MAX + 4;
    let mut out = Vec::with_capacity(variables.len() + records * HEADER_LEN);
    out.extend_from_slice(&header(BEGIN_REQUEST, RESPONDER.len()));
    out.extend_from_slice(&RESPONDER);
    for part in variables.chunks(CONTENT_LEN_MAX) {
        out.extend_from_slice(&header(PARAMS, part.len()));
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&header(PARAMS, 0));
    out
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// A part of the script's answer.
    Out(Bytes),
    /// A part of what the script has to say to operators.
    Error(Bytes),
    /// The request is over.
    End(Ending),
}

/// How a request is over (§5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The script has ended, with this exit status.
    Complete(u32),
    /// The server has no process for it.
    Overloaded,
    /// The server does something else than to answer requests, or only one request at a time. It has the number.
    Refused(u8),
}

/// Why bytes are not what a server of FastCGI may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRecord {
    /// Mostly the server speaks another protocol.
    #[error("it does not speak FastCGI: a record of version {0}")]
    Version(u8),
    /// It has a number that wasn't given.
    #[error("a record is for the request {0}, which there is not")]
    Request(u16),
    /// It may not be sent by a server.
    #[error("a record has the type {0}, which servers don't send")]
    Type(u8),
    /// Too short or too long.
    #[error("the record that ends the request has {0} bytes of content and not 8")]
    End(u16),
}

/// Reads the records of a connection with one request.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// The record that is being read.
    kind: u8,
    /// Of its content.
    content_left: usize,
    padding_left: usize,
}

impl Records {
    /// Takes the next of what is said from the front of `wire`; `None`: it needs more.
    ///
    /// # Errors
    /// If the server may not send that. Then nothing behind it can be read.
    pub(crate) fn next(&mut self, wire: &mut BytesMut) -> Result<Option<Said>, BadRecord> {
        loop {
            if self.content_left > 0 {
                if self.kind == END_REQUEST {
                    return Ok(self.end(wire).map(Said::End));
                }
                let len = self.content_left.min(wire.len());
                if len == 0 {
                    return Ok(None);
                }
                self.content_left -= len;
                match self.kind {
                    STDOUT => return Ok(Some(Said::Out(wire.split_to(len).freeze()))),
                    STDERR => return Ok(Some(Said::Error(wire.split_to(len).freeze()))),
                    _ => wire.advance(len),
                }
            } else if self.padding_left > 0 {
                let len = self.padding_left.min(wire.len());
                if len == 0 {
                    return Ok(None);
                }
                self.padding_left -= len;
                wire.advance(len);
            } else if !self.begin(wire)? {
                return Ok(None);
            }
        }
    }

    /// Reads a header, if it is there.
    fn begin(&mut self, wire: &mut BytesMut) -> Result<bool, BadRecord> {
        // The first byte shows at once that it is another protocol.
        match wire.first() {
            Some(&version) if version != VERSION => return Err(BadRecord::Version(version)),
            _ => {}
        }
        let Some(&[_, kind, id_high, id_low, high, low, padding, _]) = wire.first_chunk() else {
            return Ok(false);
        };
        let (id, len) = (u16::from_be_bytes([id_high, id_low]), u16::from_be_bytes([high, low]));
        match kind {
            _ if id == 0 && MANAGEMENT.contains(&kind) => {} // about the connection: we have asked nothing
            END_REQUEST | STDOUT | STDERR if id != REQUEST => return Err(BadRecord::Request(id)),
            END_REQUEST if usize::from(len) != END_LEN => return Err(BadRecord::End(len)),
            END_REQUEST | STDOUT | STDERR => {}
            _ => return Err(BadRecord::Type(kind)),
        }
        wire.advance(HEADER_LEN);
        *self = Self { kind, content_left: len.into(), padding_left: padding.into() };
        Ok(true)
    }

    fn end(&mut self, wire: &mut BytesMut) -> Option<Ending> {
        let &[a, b, c, d, status, _, _, _] = wire.first_chunk::<END_LEN>()?;
        wire.advance(END_LEN);
        self.content_left = 0;
        Some(match status {
            0 => Ending::Complete(u32::from_be_bytes([a, b, c, d])),
            2 => Ending::Overloaded,
            other => Ending::Refused(other),
        })
    }
}

#[cfg(test)]
mod tests;
