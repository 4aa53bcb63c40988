//! The PROXY protocol, versions 1 and 2, as a balancer sends it in front of a connection (HAProxy's
//! `doc/proxy-protocol.txt`; the sections below are its own). Pure.
//!
//! In: bytes, in any split. Out: how many of them belong to the header, and in the end the client's address. Nothing
//! behind the header is ever taken, and no TLV is kept.

mod checksum;
mod encode;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use self::checksum::Checksum;
pub use self::encode::ProxyVersion;
use self::encode::{SIGNATURE, WORD};
pub use self::encode::{encode, encode_local};

/// Section 2.1: the longest line of version 1, with its end.
const LINE_LEN_MAX: usize = 107;
/// Version 2: signature, version and command, family, length.
const HEAD_LEN: usize = 16;
/// Version 2: the longest addresses that are of use here, two of IPv6 with their ports.
const ADDRESSES_LEN_MAX: usize = 36;
/// Version 2: two paths of Unix sockets.
const UNIX_LEN: usize = 216;
/// Version 2: the longest rest of a header, in bytes. HAProxy itself sends and takes no longer ones.
pub const REST_LEN_MAX: usize = 16 * 1024;

/// Reads one header, piece by piece.
#[derive(Debug)]
pub struct HeaderReader {
    bytes: [u8; LINE_LEN_MAX],
    len: usize,
    /// Version 2: bytes of TLVs, or of addresses of other families, that are still to come.
    skipped: usize,
    /// Version 2: what those come to.
    checksum: Option<Checksum>,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The connection is this client's.
    Client(SocketAddr),
    /// It is the balancer's own (a health check), or the balancer doesn't know whose it is.
    Local,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// They are something else.
    #[error("the connection doesn't begin with a header of the PROXY protocol")]
    Absent,
    /// Version 1 says something that can't be.
    #[error("the line of the PROXY protocol's version 1 is not valid")]
    Line,
    /// Only versions 1 and 2 exist.
    #[error("version {0} of the PROXY protocol is not known")]
    Version(u8),
    /// Section 2.2: commands that are not known must be refused.
    #[error("command {0} of the PROXY protocol is not known")]
    Command(u8),
    /// Section 2.2: families that are not known must be refused.
    #[error("family {0:#04x} of the PROXY protocol is not known")]
    Family(u8),
    /// The addresses don't fit into the length.
    #[error("the header of the PROXY protocol is shorter than its addresses")]
    Short,
    /// Section 2.2.3: a header that has another checksum than it says must be refused.
    #[error("the checksum of the PROXY protocol's header is wrong")]
    Checksum,
    /// See [`REST_LEN_MAX`].
    #[error("the header of the PROXY protocol is longer than {REST_LEN_MAX} bytes")]
    Long,
}

impl Default for HeaderReader {
    /// Nothing has been read.
    fn default() -> Self {
        Self { bytes: [0; LINE_LEN_MAX], len: 0, skipped: 0, checksum: None }
    }
}

impl HeaderReader {
    /// Takes from `input` what belongs to the header: the number of bytes, and the header when it is complete.
    ///
    /// # Errors
    /// If it is no header. The reader is of no use then.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Header>), HeaderFault> {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            if self.skipped > 0 {
                let count = rest.len().min(self.skipped);
                self.skipped -= count;
                taken += count;
                if let Some(checksum) = &mut self.checksum {
                    rest[..count].iter().for_each(|byte| checksum.push(*byte));
                    if self.skipped == 0 && !checksum.is_right() {
                        return Err(HeaderFault::Checksum);
                    }
                }
                let header = if self.skipped == 0 { Some(self.addresses()) } else { None };
                return Ok((taken, header));
            }
            let Some(&byte) = rest.first() else { return Ok((taken, None)) };
            self.bytes[self.len] = byte;
            self.len += 1;
            taken += 1;
            let seen = &self.bytes[..self.len];
            let header = if is_beginning(seen, WORD) {
                line(seen)?
            } else if is_beginning(seen, SIGNATURE) {
                self.version_2()?
            } else {
                return Err(HeaderFault::Absent);
            };
            if header.is_some() {
                return Ok((taken, header));
            }
        }
    }

    /// Checks what has come of version 2.
    fn version_2(&mut self) -> Result<Option<Header>, HeaderFault> {
        if self.len == 13 {
            match self.bytes[12] {
                0x20 | 0x21 => {}
                byte if byte >> 4 != 2 => return Err(HeaderFault::Version(byte >> 4)),
                byte => return Err(HeaderFault::Command(byte & 0xf)),
            }
        }
        if self.len < HEAD_LEN {
            return Ok(None);
        }
        let rest = usize::from(u16::from_be_bytes([self.bytes[14], self.bytes[15]]));
        let wanted = self.wanted()?;
        if self.len == HEAD_LEN {
            if rest < wanted {
                return Err(HeaderFault::Short);
            }
            if rest > REST_LEN_MAX {
                return Err(HeaderFault::Long);
            }
        }
        if self.len < HEAD_LEN + wanted {
            return Ok(None);
        }
        self.skipped = rest - wanted;
        let addresses_len = match self.bytes[13] {
            _ if self.is_local() => None,
            0x11 | 0x12 => Some(12),
            0x21 | 0x22 => Some(ADDRESSES_LEN_MAX),
            0x31 | 0x32 => Some(UNIX_LEN),
            _ => None, // of UNSPEC it isn't said how long its addresses are
        };
        let gap = addresses_len.map(|len| len - wanted);
        self.checksum = Some(Checksum::begin(&self.bytes[..self.len], gap));
        Ok((self.skipped == 0).then(|| self.addresses()))
    }

    /// How many bytes behind the head are of use. Section 2.2: whatever a LOCAL header holds is to be ignored.
    fn wanted(&self) -> Result<usize, HeaderFault> {
        let wanted = match self.bytes[13] {
            0x11 => 12,
            0x21 => ADDRESSES_LEN_MAX,
            // Unix sockets have no address that means anything here, datagrams don't come over a stream, and with
            // UNSPEC the balancer doesn't know.
            0x00 | 0x12 | 0x22 | 0x31 | 0x32 => 0,
            other => return Err(HeaderFault::Family(other)),
        };
        Ok(if self.is_local() { 0 } else { wanted })
    }

    fn is_local(&self) -> bool {
        self.bytes[12] == 0x20
    }

    /// The source of version 2.
    fn addresses(&self) -> Header {
        let block = &self.bytes[HEAD_LEN..self.len];
        let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
        if let (12, Some(source)) = (block.len(), block.first_chunk::<4>()) {
            return Header::Client((Ipv4Addr::from(*source), port(8)).into());
        }
        if let (ADDRESSES_LEN_MAX, Some(source)) = (block.len(), block.first_chunk::<16>()) {
            return Header::Client((Ipv6Addr::from(*source).to_canonical(), port(32)).into());
        }
        Header::Local
    }
}

/// One of the two begins with the other.
fn is_beginning(seen: &[u8], word: &[u8]) -> bool {
    let len = seen.len().min(word.len());
    seen[..len] == word[..len]
}

/// Section 2.1, byte by byte: the line is complete with its LF.
fn line(seen: &[u8]) -> Result<Option<Header>, HeaderFault> {
    if seen.last() != Some(&b'\n') {
        return if seen.len() < LINE_LEN_MAX { Ok(None) } else { Err(HeaderFault::Line) };
    }
    let text = seen.strip_suffix(b"\r\n").and_then(|line| line.strip_prefix(WORD));
    let text = text.and_then(|line| str::from_utf8(line).ok()).ok_or(HeaderFault::Line)?;
    // "the receiver must ignore anything presented before the CRLF is found"
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(Some(Header::Local));
    }
    let words: Vec<&str> = text.split(' ').collect();
    let &[family, source, destination, source_port, destination_port] = &words[..] else {
        return Err(HeaderFault::Line);
    };
    let (source, destination) = (address(family, source)?, address(family, destination)?);
    let (source_port, _) = (port(source_port)?, port(destination_port)?);
    debug_assert_eq!(source.is_ipv4(), destination.is_ipv4());
    Ok(Some(Header::Client((source.to_canonical(), source_port).into())))
}

fn address(family: &str, text: &str) -> Result<IpAddr, HeaderFault> {
    match family {
        "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| HeaderFault::Line),
        "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| HeaderFault::Line),
        _ => Err(HeaderFault::Line),
    }
}

/// Digits alone, without zeros in front: `+80` and `080` are refused.
fn port(text: &str) -> Result<u16, HeaderFault> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(HeaderFault::Line)
}

#[cfg(test)]
mod tests;
