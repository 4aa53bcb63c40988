//! Frames in a file for Wireshark: pcapng (draft-ietf-opsawg-pcapng §4) with packets of the link type
//! `WIRESHARK_UPPER_PDU`, whose tags name the dissector `websocket` and say where a frame came from. Pure.
//!
//! Three kinds of blocks of a fixed form: that is less than what a library's types would take.

use std::net::{IpAddr, SocketAddr};

/// `LINKTYPE_WIRESHARK_UPPER_PDU`.
const LINK_TYPE: u16 = 252;
/// The dissector of frames; bytes of other protocols have that of unknown data.
const WEBSOCKET: &[u8] = b"websocket";
const DATA: &[u8] = b"data";

/// Tags of Wireshark's `exported_pdu.h`.
const DISSECTOR_NAME: u16 = 12;
const IPV4: [u16; 2] = [20, 21];
const IPV6: [u16; 2] = [22, 23];
const PORT_TYPE: u16 = 24;
const PORTS: [u16; 2] = [25, 26];
const END: u16 = 0;
/// `EXP_PDU_PT_TCP`.
const TCP: u32 = 2;

/// What is written.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    /// Microseconds since 1970.
    pub(super) at_us: u64,
    /// Where it came from, and where it went.
    pub(super) ends: [SocketAddr; 2],
    /// It is a frame, and not bytes of another protocol.
    pub(super) is_frame: bool,
    /// Its front, as on the wire.
    pub(super) wire: &'a [u8],
    /// Of all of it, in bytes.
    pub(super) len: u64,
}

/// What a file begins with.
pub(super) fn begin() -> Vec<u8> {
    let mut section = Vec::new();
    section.extend(0x1A2B_3C4D_u32.to_le_bytes()); // says the order of bytes
    section.extend([1, 0, 0, 0]); // version 1.0
    section.extend([0xFF; 8]); // a section of unknown length
    let mut interface = Vec::new();
    interface.extend(LINK_TYPE.to_le_bytes());
    interface.extend([0; 6]); // reserved; no limit of lengths
    let mut file = block(0x0A0D_0D0A, &section);
    file.extend(block(1, &interface));
    file
}

/// A frame, as a block.
pub(super) fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let Packet { at_us, ends, is_frame, wire, len } = packet;
    let mut data = Vec::new();
    tag(&mut data, DISSECTOR_NAME, if *is_frame { WEBSOCKET } else { DATA });
    for (end, which) in ends.iter().zip(0..2) {
        match end.ip().to_canonical() {
            IpAddr::V4(ip) => tag(&mut data, IPV4[which], &ip.octets()),
            IpAddr::V6(ip) => tag(&mut data, IPV6[which], &ip.octets()),
        }
    }
    tag(&mut data, PORT_TYPE, &TCP.to_be_bytes());
    for (end, which) in ends.iter().zip(0..2) {
        tag(&mut data, PORTS[which], &u32::from(end.port()).to_be_bytes());
    }
    tag(&mut data, END, &[]);
    let missing = len.saturating_sub(wire.len() as u64);
    data.extend_from_slice(wire);
    let captured = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let original = u32::try_from(u64::from(captured).saturating_add(missing)).unwrap_or(u32::MAX);
    let mut body = Vec::new();
    body.extend([0; 4]); // the first interface
    for half in [at_us >> 32, at_us & 0xFFFF_FFFF] {
        body.extend(u32::try_from(half).unwrap_or_default().to_le_bytes());
    }
    body.extend(captured.to_le_bytes());
    body.extend(original.to_le_bytes());
    body.extend(data);
    block(6, &body)
}

/// Its length is there twice, so that a file can be read backwards.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = body.len().next_multiple_of(4) - body.len();
    let len = u32::try_from(12 + body.len() + padding).unwrap_or(u32::MAX);
    let mut block = Vec::with_capacity(12 + body.len() + padding);
    block.extend(kind.to_le_bytes());
    block.extend(len.to_le_bytes());
    block.extend_from_slice(body);
    block.extend(&[0; 3][..padding]);
    block.extend(len.to_le_bytes());
    block
}

/// Tags are in the order of bytes of the network, and padded as blocks are.
fn tag(data: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let padding = value.len().next_multiple_of(4) - value.len();
    data.extend(kind.to_be_bytes());
    data.extend(u16::try_from(value.len() + padding).unwrap_or(u16::MAX).to_be_bytes());
    data.extend_from_slice(value);
    data.extend(&[0; 3][..padding]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_and_say_their_length_twice() {
        let ends = ["192.0.2.1:4711".parse().unwrap(), "[::1]:443".parse().unwrap()];
        let wire = [0x81, 0x01, b'a'];
        let at_us = 1_764_465_736_123_456;
        let mut file = begin();
        file.extend(packet(&Packet { at_us, ends, is_frame: true, wire: &wire, len: 300 }));
        let (mut kinds, mut rest) = (Vec::new(), &file[..]);
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        while !rest.is_empty() {
            let len = number(&rest[4..8]) as usize;
            assert!(len.is_multiple_of(4) && number(&rest[len - 4..len]) as usize == len);
            kinds.push(number(&rest[..4]));
            if kinds.len() == 3 {
                assert_eq!(u64::from(number(&rest[12..16])) << 32 | u64::from(number(&rest[16..20])), at_us);
                let captured = number(&rest[20..24]) as usize;
                assert_eq!(number(&rest[24..28]) as usize, captured + 297);
                assert!(rest[28..28 + captured].ends_with(&wire));
                assert!(rest[28..].starts_with(b"\0\x0c\0\x0cwebsocket\0\0\0\0\x14\0\x04\xc0\0\x02\x01"));
            }
            rest = &rest[len..];
        }
        assert_eq!(kinds, [0x0A0D_0D0A, 1, 6]);
    }
}
