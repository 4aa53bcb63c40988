//! What must hold for records from any client. Shared by the fuzz target and the unit tests.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{ConnectionTrafficSecrets, SupportedCipherSuite};

use crate::record::{Cipher, ContentType, Fault, HEADER_LEN, Header, Incoming, OpenedRecord};

const KEY: [u8; 32] = [7; 32];
const IV: [u8; 12] = [9; 12];

pub(crate) fn cipher(suite: SupportedCipherSuite) -> Cipher {
    let (key, iv) = (AeadKey::from(KEY), Iv::from(IV));
    let chacha = format!("{:?}", suite.suite()).contains("CHACHA");
    let secrets = if chacha {
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }
    } else {
        ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    };
    Cipher::new(suite, (3, secrets)).unwrap()
}

pub(crate) const TLS13: SupportedCipherSuite = cipher_suite::TLS13_AES_256_GCM_SHA384;

/// A client of TLS 1.3 that protects whatever it likes as its inner plaintext.
pub(crate) struct Client {
    sequence: u64,
    pub(crate) wire: Vec<u8>,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self { sequence: 3, wire: Vec::new() }
    }

    pub(crate) fn inner(&mut self, inner: &[u8]) {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).unwrap());
        let mut nonce = IV;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(iv, n)| *iv ^= n);
        let header =
            Header { content_type: ContentType::ApplicationData, body_len: inner.len() + 16 }.to_wire();
        let mut body = inner.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut body)
            .unwrap();
        self.wire.extend_from_slice(&header);
        self.wire.extend_from_slice(&body);
        self.sequence += 1;
    }

    pub(crate) fn seals(&mut self, content_type: u8, content: &[u8], padding: usize) {
        self.inner(&[content, &[content_type], &vec![0; padding]].concat());
    }
}

/// What comes out of a wire: contents, other events, and how it ended.
pub(crate) fn open_all(
    incoming: &mut Incoming,
    mut wire: &[u8],
) -> (Vec<u8>, Vec<OpenedRecord>, Option<Fault>) {
    let (mut data, mut events) = (Vec::new(), Vec::new());
    loop {
        let header = match incoming.header(wire) {
            Ok(Some(header)) if header.record_len() <= wire.len() => header,
            Ok(_) => return (data, events, None),
            Err(fault) => return (data, events, Some(fault)),
        };
        let body = &wire[HEADER_LEN..header.record_len()];
        let mut content = vec![0xEE; body.len()];
        match incoming.open(header, body, &mut content) {
            Ok(OpenedRecord::Data(len)) => data.extend_from_slice(&content[..len]),
            Ok(event) => events.push(event),
            Err(fault) => return (data, events, Some(fault)),
        }
        wire = &wire[header.record_len()..];
    }
}

/// A script of records, good, odd and broken: what comes out is the front of the data that went in,
/// nothing comes out behind a fault, and it makes no difference how the network cuts the bytes.
pub(crate) fn records(script: &[u8]) {
    let mut client = Client::new();
    let mut data = Vec::new();
    let mut rest = script;
    while let [op, len, tail @ ..] = rest {
        let (piece, tail) = tail.split_at(tail.len().min(usize::from(len % 32)));
        rest = tail;
        match op % 8 {
            0..=2 => {
                client.seals(23, piece, usize::from(*len) / 32);
                data.extend_from_slice(piece);
            }
            3 => client.seals(22, &[&[24, 0, 0, 1][..], &piece[..piece.len().min(1)]].concat(), 0),
            4 => client.seals(op / 8, piece, 0),
            5 => client.inner(piece),
            6 => client.wire.extend_from_slice(piece),
            _ => {
                if let Some(byte) = client.wire.last_mut() {
                    *byte ^= len | 1;
                }
            }
        }
        if matches!(op % 8, 4 | 5) {
            // May be data, too; the prefix is all that can be promised from here on.
            break;
        }
    }
    let mut whole = Incoming::new(cipher(TLS13));
    let (opened, events, fault) = open_all(&mut whole, &client.wire);
    let told = opened.len().min(data.len());
    assert_eq!(opened[..told], data[..told]);

    // The same, from a network that gives little at a time.
    let mut pieces = Incoming::new(cipher(TLS13));
    let mut again = (Vec::new(), Vec::new(), None);
    let mut held = Vec::new();
    for bytes in client.wire.chunks(1 + script.len() % 7) {
        held.extend_from_slice(bytes);
        while again.2.is_none() {
            let header = match pieces.header(&held) {
                Ok(Some(header)) if header.record_len() <= held.len() => header,
                Ok(_) => break,
                Err(fault) => {
                    again.2 = Some(fault);
                    break;
                }
            };
            let (mut wire, mut events, fault) = open_all(&mut pieces, &held[..header.record_len()]);
            again.0.append(&mut wire);
            again.1.append(&mut events);
            again.2 = fault;
            held.drain(..header.record_len());
        }
    }
    assert_eq!(again, (opened, events, fault));
}
