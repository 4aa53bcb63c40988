use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};

use super::*;

#[path = "../../fuzz/relations.rs"]
mod relations;

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &len, rest].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 1, 0xbb];

fn client(text: &str) -> Header {
    Header::Client(text.parse().unwrap())
}

#[test]
fn headers_and_what_stands_behind_them() {
    let tlv = [0x01, 0, 2, b'h', b'2'];
    let v6: [u8; 36] =
        std::array::from_fn(|i| if i < 32 { u8::from(i % 16 == 15) } else { [0x1f, 0x90, 0, 1][i - 32] });
    let mapped = [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 1], &[0; 16], &[0, 80, 0, 80]].concat();
    let unix = [b'/'; 216];
    for (header, expect) in [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n".to_vec(), client("192.0.2.1:8080")),
        (b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n".to_vec(), client("[2001:db8::1]:0")),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 80 80\r\n".to_vec(), client("192.0.2.1:80")),
        (b"PROXY UNKNOWN\r\n".to_vec(), Header::Local),
        (b"PROXY UNKNOWN ffff::1 whatever \xc3\xa9 +80\r\n".to_vec(), Header::Local),
        (v2(0x21, 0x11, &V4), client("192.0.2.1:8080")),
        (v2(0x21, 0x11, &[&V4[..], &tlv, &tlv].concat()), client("192.0.2.1:8080")),
        (v2(0x21, 0x21, &v6), client("[::1]:8080")),
        (v2(0x21, 0x21, &mapped), client("192.0.2.1:80")),
        (v2(0x21, 0x31, &unix), Header::Local),
        (v2(0x21, 0x00, &[]), Header::Local),
        (v2(0x21, 0x00, &tlv), Header::Local),
        (v2(0x21, 0x12, &V4), Header::Local),
        // A LOCAL header says nothing, whatever stands in it (HAProxy's own checks send addresses and TLVs).
        (v2(0x20, 0x00, &[]), Header::Local),
        (v2(0x20, 0x11, &V4), Header::Local),
        (v2(0x20, 0x11, &[&V4[..], &tlv].concat()), Header::Local),
        (v2(0x20, 0x21, &V4), Header::Local),
        (v2(0x20, 0x31, &[]), Header::Local),
        (v2(0x21, 0x11, &[&V4[..], &vec![0xea; REST_LEN_MAX - 12]].concat()), client("192.0.2.1:8080")),
    ] {
        let len = header.len();
        for behind in [&b""[..], b"\x16\x03\x01", b"PROXY ", b"\r\n"] {
            let data = [&[7], &header[..], behind].concat();
            assert_eq!(relations::read(&[&data[1..]]), Ok((len, Some(expect))), "{}", header.escape_ascii());
            relations::proxy_protocol(&data);
        }
    }
}

#[test]
fn a_header_with_a_wrong_checksum_is_refused() {
    let other = [0x01, 0, 2, b'h', b'2'];
    for (command, family, addresses, is_judged) in [
        (0x21, 0x11, &V4[..], true),
        (0x21, 0x12, &V4, true),
        (0x21, 0x21, &[7; 36], true),
        (0x21, 0x31, &[b'/'; 216], true),
        (0x21, 0x00, &[], false),
        (0x20, 0x11, &V4, false),
    ] {
        for (before, behind) in [(&other[..], &other[..]), (&[], &[]), (&[0x04, 0, 0], &other)] {
            let of = |sum: [u8; 4]| {
                let checksum = [&[0x03, 0, 4][..], &sum].concat();
                v2(command, family, &[addresses, before, &checksum, behind].concat())
            };
            let header = of([0; 4]);
            let crc = header.iter().fold(!0_u32, |crc, byte| {
                (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                    if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
                })
            });
            let right = of((!crc).to_be_bytes());
            assert!(matches!(relations::read(&[&right]), Ok((len, Some(_))) if len == right.len()));
            relations::proxy_protocol(&[&[40], &right[..]].concat());
            let read = relations::read(&[&of(crc.to_be_bytes())]);
            assert_eq!(read == Err(HeaderFault::Checksum), is_judged, "{command} {family}: {read:?}");
            let two = v2(command, family, &[addresses, &[3, 0, 2, 0, 0][..]].concat());
            assert_eq!(relations::read(&[&two]) == Err(HeaderFault::Checksum), is_judged);
        }
    }
}

#[test]
fn what_is_no_header() {
    let long_line = [&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat();
    assert_eq!(long_line.len(), LINE_LEN_MAX + 1);
    let long = [&SIGNATURE[..], &[0x21, 0x11], &0x4001_u16.to_be_bytes()].concat();
    for (bytes, fault) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), HeaderFault::Absent),
        (b"\x16\x03\x01".to_vec(), HeaderFault::Absent),
        (b"PROXYTCP4 ".to_vec(), HeaderFault::Absent),
        (b"proxy TCP4 ".to_vec(), HeaderFault::Absent),
        (b"PROXY\tTCP4".to_vec(), HeaderFault::Absent),
        (b"\r\n\r\n\0\r\nQUIX".to_vec(), HeaderFault::Absent),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 +80 443\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 080 443\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 80 65536\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 80 443\n".to_vec(), HeaderFault::Line),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 80 443 x\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY TCP4  192.0.2.1 198.51.100.2 80 443\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 80\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY TCP4 192.0.2.01 198.51.100.2 80 443\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY TCP4 ::1 ::1 80 443\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY TCP6 192.0.2.1 192.0.2.1 80 443\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY TCP5 192.0.2.1 192.0.2.1 80 443\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY UNKNOWNS\r\n".to_vec(), HeaderFault::Line),
        (b"PROXY \r\n".to_vec(), HeaderFault::Line),
        (long_line, HeaderFault::Line),
        (v2(0x11, 0x11, &V4), HeaderFault::Version(1)),
        (v2(0x31, 0x11, &V4), HeaderFault::Version(3)),
        (v2(0x22, 0x11, &V4), HeaderFault::Command(2)),
        (v2(0x21, 0x10, &V4), HeaderFault::Family(0x10)),
        (v2(0x21, 0x41, &V4), HeaderFault::Family(0x41)),
        (v2(0x20, 0x41, &V4), HeaderFault::Family(0x41)),
        (v2(0x21, 0x11, &V4[..11]), HeaderFault::Short),
        (v2(0x21, 0x21, &V4), HeaderFault::Short),
        (long, HeaderFault::Long),
    ] {
        assert_eq!(relations::read(&[&bytes]), Err(fault), "{}", bytes.escape_ascii());
        relations::proxy_protocol(&[&[9], &bytes[..]].concat());
    }
}

#[test]
fn the_corpus() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/proxy_protocol");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        relations::proxy_protocol(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 20, "{count}");
}

fn address() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into()));
    let v6 = any::<([u8; 16], u16, [u8; 16], u16)>().prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into()));
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn what_another_implementation_writes_is_read(
        addresses in proptest::option::of(address()),
        is_v2: bool,
        tlvs in proptest::collection::vec((0xe0_u8..0xf0, proptest::collection::vec(any::<u8>(), 0..40)), 0..4),
        behind: Vec<u8>,
        cut: u8,
    ) {
        let proxied = addresses.map(|(source, destination)| ProxiedAddress::stream(source, destination));
        let mut data = vec![cut];
        if is_v2 {
            let tlvs = tlvs.into_iter().map(|(kind, value)| Tlv::Custom(kind, value.into()));
            ProxyHeader::with_tlvs(proxied, tlvs).encode_v2(&mut data).unwrap();
        } else {
            let header = proxied.map_or_else(ProxyHeader::with_local, ProxyHeader::with_address);
            header.encode_v1(&mut data).unwrap();
        }
        let len = data.len() - 1;
        data.extend(behind);
        let canonical = |address: SocketAddr| Header::Client((address.ip().to_canonical(), address.port()).into());
        let expect = addresses.map_or(Header::Local, |(source, _)| canonical(source));
        prop_assert_eq!(relations::read(&[&data[1..]]), Ok((len, Some(expect))));
        relations::proxy_protocol(&data);
    }

    #[test]
    fn a_header_with_a_wrong_byte_is_read_in_one_way(
        at in any::<proptest::sample::Index>(), byte: u8, cut: u8, is_v2: bool,
    ) {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\nGET / HTTP/1.1\r\n".to_vec();
        let mut data = if is_v2 { v2(0x21, 0x11, &V4) } else { line };
        data[at.index(if is_v2 { 28 } else { 44 })] = byte;
        relations::proxy_protocol(&[&[cut], &data[..]].concat());
    }
}
