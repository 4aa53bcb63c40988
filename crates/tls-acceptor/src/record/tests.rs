//! Records from a client that is ours to bend.

use std::path::Path;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use proptest::prelude::*;
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite;

use self::relations::{Client, TLS13, cipher, open_all};
use super::*;

#[path = "../../fuzz/relations.rs"]
mod relations;

const SUITES: [SupportedCipherSuite; 4] = [
    TLS13,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

fn verdict(client: &Client) -> (Vec<u8>, Vec<OpenedRecord>, Option<Fault>) {
    open_all(&mut Incoming::new(cipher(TLS13)), &client.wire)
}

#[test]
fn what_is_sealed_opens_again_in_every_suite() {
    for suite in SUITES {
        let (mut ours, mut theirs) = (cipher(suite), Incoming::new(cipher(suite)));
        let mut wire = vec![0; 2 * RECORD_MAX];
        let long = vec![5; PLAINTEXT_MAX];
        let contents: [&[u8]; 5] = [b"", b"a", b"message", &long[..1000], &long];
        let mut len = 0;
        for content in contents {
            let n = ours
                .seal(ContentType::ApplicationData, Content::Elsewhere(content), &mut wire[len..])
                .unwrap();
            assert!(n <= content.len() + OVERHEAD_MAX);
            len += n;
        }
        let pieces: [&[u8]; 3] = [b"in ", b"", b"pieces"];
        len += ours.seal(ContentType::ApplicationData, Content::Copied(&pieces), &mut wire[len..]).unwrap();
        let (data, events, fault) = open_all(&mut theirs, &wire[..len]);
        assert_eq!((data, fault), ([&contents.concat()[..], b"in pieces"].concat(), None), "{suite:?}");
        assert_eq!(events, [OpenedRecord::Quiet]);
    }
}

/// RFC 8446 §7.3: each suite has an algorithm, and its keys are as long as that one's.
#[test]
fn the_first_keys_of_every_suite() {
    for (suite, algorithm, secret_len) in [
        (cipher_suite::TLS13_AES_128_GCM_SHA256, &AES_128_GCM, 32),
        (cipher_suite::TLS13_AES_256_GCM_SHA384, &AES_256_GCM, 48),
        (cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, &CHACHA20_POLY1305, 32),
    ] {
        let secret = Secret::new(&vec![7; secret_len]).unwrap();
        let mut wire = vec![0; 100];
        let mut first = Cipher::first(suite, &secret).unwrap();
        let len = first.seal(ContentType::Alert, Content::Elsewhere(b"ab"), &mut wire).unwrap();
        let (mut key, mut iv) = (vec![0; algorithm.key_len()], [0; 12]);
        secret.expand(b"key", &mut key).unwrap();
        secret.expand(b"iv", &mut iv).unwrap();
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap());
        let (header, body) = wire[..len].split_at_mut(HEADER_LEN);
        let opened = key.open_in_place(Nonce::assume_unique_for_key(iv), Aad::from(&*header), body);
        assert_eq!(opened.unwrap(), b"ab\x15", "{suite:?}");
    }
    let secret = Secret::new(&[7; 32]).unwrap();
    assert!(Cipher::first(SUITES[2], &secret).is_err(), "TLS 1.2 has no such secrets");
}

#[test]
fn a_record_that_was_touched_is_not_opened() {
    for suite in SUITES {
        let mut wire = vec![0; 100];
        let content = Content::Elsewhere(b"content");
        let len = cipher(suite).seal(ContentType::ApplicationData, content, &mut wire).unwrap();
        for at in HEADER_LEN..len {
            let mut touched = wire[..len].to_vec();
            touched[at] ^= 1;
            let (data, _, fault) = open_all(&mut Incoming::new(cipher(suite)), &touched);
            assert_eq!((data, fault), (Vec::new(), Some(Fault::BAD_RECORD_MAC)), "{suite:?}, byte {at}");
        }
        // Nor one that comes twice.
        let twice = [&wire[..len], &wire[..len]].concat();
        let (data, _, fault) = open_all(&mut Incoming::new(cipher(suite)), &twice);
        assert_eq!((&data[..], fault), (&b"content"[..], Some(Fault::BAD_RECORD_MAC)));
    }
}

#[test]
fn headers() {
    let data = |len: u16| [&[23, 3, 3][..], &len.to_be_bytes()].concat();
    for (wire, tls13, expect) in [
        (&[][..], true, Ok(None)),
        (&[23, 3, 3, 0], true, Ok(None)),
        (&data(0), true, Ok(Some(0))),
        (&[23, 3, 1, 0, 9], true, Ok(Some(9))), // the minor version is ignored
        (&data(16384 + 256), true, Ok(Some(16640))),
        (&data(16384 + 257), true, Err(Fault::RECORD_OVERFLOW)),
        (&data(16384 + 2048), false, Ok(Some(18432))),
        (&data(16384 + 2049), false, Err(Fault::RECORD_OVERFLOW)),
        (&[22, 3, 3, 0, 1], false, Ok(Some(1))),
        (&[22, 3, 3, 0, 1], true, Err(Fault::UNEXPECTED_MESSAGE)),
        (&[20, 3, 3, 0, 1], true, Err(Fault::UNEXPECTED_MESSAGE)),
        (&[24, 3, 3, 0, 1], false, Err(Fault::UNEXPECTED_MESSAGE)),
        (&[23, 2, 3, 0, 1], true, Err(Fault::PROTOCOL_VERSION)),
    ] {
        let found = Header::parse(wire, tls13).map(|header| header.map(|header| header.body_len));
        assert_eq!(found, expect, "{wire:?}");
    }
}

#[test]
fn padding_and_limits() {
    let full = vec![1; PLAINTEXT_MAX];
    let mut client = Client::new();
    client.seals(23, b"padded", 1000);
    client.seals(23, b"", 5);
    client.seals(23, b"", 0);
    client.seals(23, &full, 0);
    assert_eq!(
        verdict(&client),
        ([b"padded", &full[..]].concat(), vec![OpenedRecord::Quiet, OpenedRecord::Quiet], None)
    );

    for (inner, fault) in [
        (vec![], Fault::UNEXPECTED_MESSAGE), // no content type
        (vec![0; 9], Fault::UNEXPECTED_MESSAGE),
        (vec![1, 99], Fault::UNEXPECTED_MESSAGE),
        (vec![1, 20], Fault::UNEXPECTED_MESSAGE), // ChangeCipherSpec belongs to handshakes
        (vec![22], Fault::UNEXPECTED_MESSAGE),    // no empty handshake records (RFC 8446 §5.1)
        (vec![21], Fault::UNEXPECTED_MESSAGE),    // nor empty alerts (§5.4)
        (vec![2, 21], Fault::DECODE_ERROR),       // half an alert
        (vec![1, 0, 0, 21], Fault::DECODE_ERROR), // two alerts in one
        ([&full[..], &[1, 23]].concat(), Fault::RECORD_OVERFLOW),
        ([&full[..], &[23, 0]].concat(), Fault::RECORD_OVERFLOW), // padding counts
    ] {
        let mut client = Client::new();
        client.inner(&inner);
        assert_eq!(verdict(&client), (vec![], vec![], Some(fault)), "{inner:?}");
    }
}

#[test]
fn alerts() {
    for (content, event) in [
        ([1, 0], OpenedRecord::Closed),
        ([2, 0], OpenedRecord::Closed),
        ([1, 90], OpenedRecord::Quiet),
        ([2, 40], OpenedRecord::GivenUp(40)),
        ([1, 40], OpenedRecord::GivenUp(40)),
    ] {
        let mut client = Client::new();
        client.seals(21, &content, 0);
        assert_eq!(verdict(&client), (vec![], vec![event], None));
    }
    // TLS 1.2 still knows warnings.
    let suite = cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384;
    let mut wire = vec![0; 100];
    let len = cipher(suite).seal(ContentType::Alert, Content::Elsewhere(&[1, 40]), &mut wire).unwrap();
    let (_, events, fault) = open_all(&mut Incoming::new(cipher(suite)), &wire[..len]);
    assert_eq!((events, fault), (vec![OpenedRecord::Quiet], None));
}

#[test]
fn key_updates() {
    let update = |answer| [24, 0, 0, 1, answer];
    let mut client = Client::new();
    client.seals(22, &update(0), 0);
    client.seals(22, &update(1), 7);
    client.seals(22, &[24, 0], 0);
    client.seals(22, &[0, 1, 1], 0);
    let (yes, no) =
        (OpenedRecord::KeyUpdate { requested: true }, OpenedRecord::KeyUpdate { requested: false });
    let quiet = OpenedRecord::Quiet;
    assert_eq!(
        verdict(&client),
        (vec![], vec![no, OpenedRecord::KeyUpdate { requested: true }, quiet, yes], None)
    );

    for (contents, fault) in [
        (&[(22, &[24, 0, 0, 1, 2][..])][..], Fault::ILLEGAL_PARAMETER),
        (&[(22, &[24, 0, 0, 2, 0])], Fault::DECODE_ERROR),
        (&[(22, &[24, 0, 0, 1, 0, 24])], Fault::UNEXPECTED_MESSAGE), // more under the same key
        (&[(22, &[1, 0, 0, 1, 0])], Fault::UNEXPECTED_MESSAGE),      // a ClientHello
        (&[(22, &[4])], Fault::UNEXPECTED_MESSAGE),                  // only servers send tickets
        (&[(22, &[24, 0]), (23, b"x")], Fault::UNEXPECTED_MESSAGE),  // data in the middle of a message
        (&[(22, &[24, 0]), (21, &[1, 0])], Fault::UNEXPECTED_MESSAGE),
    ] {
        let mut client = Client::new();
        for (content_type, content) in contents {
            client.seals(*content_type, content, 0);
        }
        assert_eq!(verdict(&client).2, Some(fault), "{contents:?}");
    }
}

#[test]
fn records_without_data_are_borne_for_a_while() {
    let mut client = Client::new();
    for _ in 0..3 {
        (0..32).for_each(|_| client.seals(23, b"", 0));
        client.seals(23, b"x", 0);
    }
    assert_eq!((&verdict(&client).0[..], verdict(&client).2), (&b"xxx"[..], None));
    (0..33).for_each(|_| client.seals(22, &[24, 0, 0, 1, 1], 0));
    assert_eq!(verdict(&client).2, Some(Fault::UNEXPECTED_MESSAGE));
}

#[test]
fn a_key_is_not_used_beyond_its_limit() {
    let mut ours = cipher(TLS13);
    ours.expire_after(2);
    let mut wire = vec![0; 100];
    for used_up in [false, false, true] {
        assert_eq!(ours.is_used_up(), used_up);
        ours.seal(ContentType::ApplicationData, Content::Elsewhere(b"x"), &mut wire).unwrap();
    }
    let content = Content::Elsewhere(b"x");
    assert_eq!(ours.seal(ContentType::ApplicationData, content, &mut wire), Err(Fault::INTERNAL));
    assert_eq!(cipher(TLS13).limit(), 1 << 24);
}

#[test]
fn the_fuzzing_corpus() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/records");
    let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "the corpus is there");
    for file in files {
        relations::records(&std::fs::read(file).unwrap());
    }
}

proptest! {
    #[test]
    fn any_script(script in prop::collection::vec(any::<u8>(), 0..200)) {
        relations::records(&script);
    }

    #[test]
    fn no_bytes_are_too_strange(wire in prop::collection::vec(any::<u8>(), 0..300), tls13: bool) {
        let suite = if tls13 { TLS13 } else { cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 };
        let (data, ..) = open_all(&mut Incoming::new(cipher(suite)), &wire);
        prop_assert!(data.is_empty(), "nothing that was not sealed comes out");
    }

    #[test]
    fn any_inner_plaintext_is_accepted_or_refused(
        inner in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), 18_u8..26, 0_usize..4), 1..8),
    ) {
        let mut client = Client::new();
        let mut data = Vec::new();
        for (content, content_type, padding) in &inner {
            client.seals(*content_type, content, *padding);
            if *content_type == 23 {
                data.extend_from_slice(content);
            }
        }
        let (opened, ..) = verdict(&client);
        prop_assert!(data.starts_with(&opened));
    }
}
