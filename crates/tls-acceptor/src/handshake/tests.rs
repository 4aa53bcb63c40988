//! Handshakes with clients that do as they like.

use std::io::{BufRead, Read, Write};
use std::time::Duration;

use proptest::prelude::*;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use support::soon;
use tokio::task::JoinHandle;

use super::*;
use crate::acceptor::AcceptorSettings;
use crate::test_rig::{BOTH, Rig, accept, sockets};
use crate::turn;
use crate::{Accepted, Acceptor};

const HASTY: Duration = Duration::from_millis(200);

/// A client whose records are ours to hold back and to cut.
struct Raw {
    tls: ClientConnection,
    tcp: TcpStream,
}

impl Raw {
    fn new(config: ClientConfig, tcp: TcpStream) -> Self {
        let name = ServerName::try_from("a.test").unwrap();
        Self { tls: ClientConnection::new(Arc::new(config), name).unwrap(), tcp }
    }

    /// What it would send now.
    fn output(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut wire).unwrap();
        }
        wire
    }

    async fn send(&mut self) {
        let wire = self.output();
        self.tcp.write_all(&wire).await.unwrap();
    }

    /// Reads what there is; the number of bytes.
    async fn receive(&mut self) -> Result<usize, Error> {
        let mut wire = vec![0; 64 * 1024];
        let len = soon(self.tcp.read(&mut wire)).await.unwrap_or(0);
        let mut wire = &wire[..len];
        while !wire.is_empty() {
            self.tls.read_tls(&mut wire).unwrap();
            self.tls.process_new_packets()?;
        }
        Ok(len)
    }

    /// To the end of its handshake, whose last flight is still to be sent.
    async fn greet(&mut self) {
        self.send().await;
        while self.tls.is_handshaking() {
            assert!(self.receive().await.unwrap() > 0, "ended in its handshake");
            if self.tls.is_handshaking() {
                self.send().await; // there was a HelloRetryRequest
            }
        }
    }
}

fn serve(acceptor: &Acceptor, tcp: TcpStream) -> JoinHandle<Result<Accepted, AcceptError>> {
    let acceptor = acceptor.clone();
    tokio::spawn(async move { accept(&acceptor, tcp).await })
}

/// The same handshake messages in records of `len` bytes.
fn cut(wire: &[u8], len: usize) -> Vec<u8> {
    let (mut rest, mut messages) = (wire, Vec::new());
    while let Some(record) = record_len(rest).and_then(|len| rest.get(..len)) {
        assert_eq!(record[0], 22);
        messages.extend_from_slice(&record[HEADER_LEN..]);
        rest = &rest[record.len()..];
    }
    messages.chunks(len).flat_map(|piece| record(22, piece)).collect()
}

fn record(content_type: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[content_type, 3, 3, high, low], content].concat()
}

/// A ClientHello without extensions.
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    let hello = [&version[..], &[7; 32], &[0], &[0, 2, 0xc0, 0x13], &[1, 0]].concat();
    record(22, &[&[1, 0, 0, u8::try_from(hello.len()).unwrap()], &hello[..]].concat())
}

const fn fatal(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

#[tokio::test]
async fn a_handshake_that_fails_here_ends_with_its_alert() {
    let rig = Rig::new();
    let begun = record(22, &[1, 0, 2, 0, 3, 3]);
    let canceled = [[21, 3, 3, 0, 2, 1, 90], [21, 3, 3, 0, 2, 1, 0]].concat();
    let long = [record(22, &[1, 0, 0xff, 0xff]), record(22, &[0]).repeat(UNREAD_MAX / 6)].concat();
    for (what, wire, words) in [
        ("no content type", record(0, &[0]), &fatal(10)[..]),
        ("a content type of no TLS", record(200, &[1, 2, 3]), &fatal(10)),
        ("data in the middle of the message", [&begun[..], &record(23, b"x")].concat(), &fatal(10)),
        ("a message of 65,536 bytes", record(22, &[1, 1, 0, 0]), &fatal(47)),
        ("one record for each byte", long, &fatal(47)),
        ("TLS 1.0", old_hello([3, 1]), &fatal(70)),
        ("TLS 1.1", old_hello([3, 2]), &fatal(70)),
        ("TLS 1.2 without signature_algorithms", old_hello([3, 3]), &fatal(40)),
        ("a record that is too long", vec![22, 3, 1, 0xff, 0xff], &fatal(50)),
        ("half a message, and then nothing", begun.clone(), &canceled),
        ("half a header, and then nothing", begun[..3].to_vec(), &canceled),
    ] {
        // Only those that say nothing more have to be given up.
        let in_time = AcceptorSettings::default();
        let hasty = AcceptorSettings { handshake_timeout: HASTY, ..AcceptorSettings::default() };
        let acceptor = rig.acceptor(if words == canceled { &hasty } else { &in_time });
        let (near, mut far) = sockets().await;
        let serving = serve(&acceptor, near);
        far.write_all(&wire).await.unwrap();
        let mut told = Vec::new();
        soon(far.read_to_end(&mut told)).await.unwrap(); // no reset
        assert_eq!(told, words, "{what}");
        drop(far);
        soon(serving).await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn an_alert_behind_the_servers_flight_is_one_that_the_client_can_read() {
    let rig = Rig::new();
    let acceptor =
        rig.acceptor(&AcceptorSettings { handshake_timeout: HASTY, ..AcceptorSettings::default() });
    let (near, far) = sockets().await;
    let serving = serve(&acceptor, near);
    let mut client = Raw::new(rig.client(&[&version::TLS13], &[]), far);
    client.greet().await;
    while client.receive().await.unwrap() > 0 {}
    assert!(matches!(client.tls.reader().fill_buf(), Ok([])), "closed in order");
    drop(client);
    assert!(matches!(soon(serving).await.unwrap(), Err(AcceptError::Timeout)));

    // And a fault: data in the middle of its last message.
    let acceptor = rig.acceptor(&AcceptorSettings::default());
    let (near, far) = sockets().await;
    let serving = serve(&acceptor, near);
    let mut client = Raw::new(rig.client(&[&version::TLS13], &[]), far);
    client.greet().await;
    client.tcp.write_all(&record(0, b"x")).await.unwrap();
    let told = loop {
        match client.receive().await {
            Ok(0) => panic!("nothing was said"),
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert!(matches!(told, Error::AlertReceived(_)), "{told}");
    drop(client);
    soon(serving).await.unwrap().unwrap_err();
}

/// Another kind of server, whose tickets allow early data.
fn foreign(rig: &Rig) -> ServerConfig {
    let read = |name: &str| rig.directory.path().join(name);
    let chain = CertificateDer::pem_file_iter(read("a.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(read("a.key")).unwrap();
    let mut provider = default_provider();
    provider.kx_groups.push(kx_group::MLKEM768);
    let builder = ServerConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&version::TLS13]).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.max_early_data_size = 16 * 1024;
    config
}

#[tokio::test]
async fn rejected_early_data_is_passed_over_whatever_its_records() {
    let rig = Rig::new();
    let foreign = tokio_rustls::TlsAcceptor::from(Arc::new(foreign(&rig)));
    // A client that begins with a group which is not spoken here gets a HelloRetryRequest.
    let mut strange = default_provider();
    strange.kx_groups.insert(0, kx_group::MLKEM768);
    for provider in [default_provider(), strange] {
        for (piece, pieces, good) in
            [(1000, 9, true), (9000, 1, true), (1, 1500, true), (16 * 1024, 1, true), (100, 150, true)]
        {
            let provider = CryptoProvider { kx_groups: provider.kx_groups.clone(), ..provider.clone() };
            let mut config = rig.client_of(provider, &[&version::TLS13], &[]);
            config.enable_early_data = true;
            // A ticket of the other server's.
            let (near, far) = sockets().await;
            let mut client = Raw::new(config.clone(), far);
            let issuing = tokio::spawn(foreign.accept(near).into_future());
            client.greet().await;
            client.send().await;
            let mut server = issuing.await.unwrap().unwrap();
            server.write_all(b"!").await.unwrap();
            while client.receive().await.unwrap() > 0 {
                if client.tls.reader().read_exact(&mut [0]).is_ok() {
                    break;
                }
            }
            // And a handshake here.
            let acceptor = rig.acceptor(&AcceptorSettings::default());
            let (near, far) = sockets().await;
            let serving = serve(&acceptor, near);
            let mut client = Raw::new(config, far);
            let mut early = client.tls.early_data().expect("a ticket that allows it");
            for _ in 0..pieces {
                early.write_all(&vec![7; piece]).unwrap();
            }
            client.greet().await;
            assert!(!client.tls.is_early_data_accepted());
            client.tls.writer().write_all(b"late").unwrap();
            client.send().await;
            let accepted = soon(serving).await.unwrap();
            assert_eq!(accepted.is_ok(), good, "{pieces} of {piece}: {accepted:?}");
            let mut heard = [0; 4];
            soon(accepted.unwrap().io.read_exact(&mut heard)).await.unwrap();
            assert_eq!(&heard, b"late");
        }
    }
}

#[tokio::test]
async fn a_permit_is_held_from_the_first_byte_to_the_end_of_the_handshake() {
    let rig = Rig::new();
    let acceptor = rig.acceptor(&AcceptorSettings { handshakes_max: 8, ..AcceptorSettings::default() });
    let (near, far) = sockets().await;
    let serving = serve(&acceptor, near);
    let mut client = Raw::new(rig.client(BOTH, &[]), far);
    client.greet().await;
    assert_eq!(acceptor.permits().free(), 7);
    assert_eq!(acceptor.permits().waiting.len(), 1);
    client.send().await;
    let _accepted = soon(serving).await.unwrap().unwrap();
    assert_eq!(acceptor.permits().free(), 8);
    assert_eq!(acceptor.permits().waiting.len(), 0);
}

#[tokio::test]
async fn when_all_permits_are_taken_the_handshake_that_lies_longest_is_given_up() {
    let rig = Rig::new();
    let acceptor = rig.acceptor(&AcceptorSettings { handshakes_max: 1, ..AcceptorSettings::default() });
    let (near, mut silent) = sockets().await;
    let lying = serve(&acceptor, near);
    silent.write_all(&[22, 3, 1]).await.unwrap();
    while acceptor.permits().waiting.len() == 0 {
        tokio::task::yield_now().await;
    }
    let (near, far) = sockets().await;
    let serving = serve(&acceptor, near);
    let mut client = Raw::new(rig.client(BOTH, &[]), far);
    client.greet().await;
    client.send().await;
    soon(serving).await.unwrap().unwrap();
    let mut told = Vec::new();
    soon(silent.read_to_end(&mut told)).await.unwrap();
    assert_eq!(told, [[21, 3, 3, 0, 2, 1, 90], [21, 3, 3, 0, 2, 1, 0]].concat());
    drop(silent);
    assert!(matches!(soon(lying).await.unwrap(), Err(AcceptError::Shed)));
}

#[tokio::test]
async fn first_flights_are_made_in_turn() {
    let rig = Rig::new();
    for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
        let before = turn::made();
        for n in 1..=6 {
            let (accepted, _) =
                rig.meet(&AcceptorSettings::default(), &Arc::new(rig.client(versions, &[])), "a.test").await;
            accepted.unwrap();
            assert_eq!(turn::made() - before, n, "one turn for each handshake");
        }
    }
    // The holder of the turn makes its flight before the next one.
    let acceptor = rig.acceptor(&AcceptorSettings::default());
    let held = turn::Turn::take().await;
    let (near, far) = sockets().await;
    let serving = serve(&acceptor, near);
    let mut client = Raw::new(rig.client(BOTH, &[]), far);
    client.send().await;
    while acceptor.permits().free() == AcceptorSettings::default().handshakes_max {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.tcp.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(held);
    client.greet().await;
    client.send().await;
    soon(serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn half_a_hello_costs_little_more_than_its_bytes_and_few_may_be_long() {
    let rig = Rig::new();
    let acceptor = rig.acceptor(&AcceptorSettings::default());
    let shared =
        Shared { permits: acceptor.permits(), client: std::net::IpAddr::from([127, 0, 0, 1]).into() };
    let long =
        [&record(22, &[&[1, 0, 0xff, 0xff][..], &[7; 16_000]].concat())[..], &record(22, &[7; 12_000])];
    for (sent, is_long) in [(&long[0][..9000], false), (long[0], false), (&long.concat()[..], true)] {
        let (mut near, mut far) = sockets().await;
        let mut handshake = Handshake::new(acceptor.config(), Vec::new()).unwrap();
        far.write_all(sent).await.unwrap();
        let ended = tokio::time::timeout(HASTY, handshake.run(&mut near, &shared)).await;
        assert!(ended.is_err(), "the rest is missing");
        assert_eq!(handshake.wire.len(), sent.len());
        assert!(handshake.wire.capacity() <= sent.len() + RECORD_MAX, "{}", handshake.wire.capacity());
        assert_eq!(handshake.long_hello.is_some(), is_long);
    }
}

/// A handshake and some data behind it, all cut as told. Whatever the lengths, the data arrives or the client is
/// told why not.
async fn any_lengths(shape: Shape) {
    let rig = Rig::new();
    let acceptor = rig.acceptor(&AcceptorSettings::default());
    let (near, far) = sockets().await;
    let serving = serve(&acceptor, near);
    let names: Vec<_> = (0..shape.names).map(|n| format!("{n:0250}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).chain(["http/1.1"]).collect();
    let versions: &[&SupportedProtocolVersion] =
        if shape.tls13 { &[&version::TLS13] } else { &[&version::TLS12] };
    let mut client = Raw::new(rig.client(versions, &names), far);
    client.tcp.set_nodelay(true).unwrap();
    let hello = client.output();
    let hello = cut(&hello, shape.record_len);
    let fits = hello.len() <= UNREAD_MAX;
    for piece in hello.chunks(shape.write_len) {
        if client.tcp.write_all(piece).await.is_err() {
            assert!(!fits);
            return;
        }
    }
    let data: Vec<u8> = (0..=u8::MAX).cycle().take(shape.data_len).collect();
    if shape.tls13 {
        match client.receive().await {
            Ok(0) | Err(_) if !fits => return drop(client),
            heard => assert!(heard.unwrap() > 0),
        }
        while client.tls.is_handshaking() {
            assert!(client.receive().await.unwrap() > 0);
        }
    } else if fits {
        client.greet().await;
    } else {
        return;
    }
    client.tls.set_buffer_limit(None);
    client.tls.writer().write_all(&data).unwrap();
    // Finished and all the data at once.
    let wire = client.output();
    let read = async {
        let mut io = soon(serving).await.unwrap().unwrap().io;
        let (mut got, mut some) = (Vec::new(), vec![0; shape.read_len]);
        while got.len() < data.len() {
            let n = soon(io.read(&mut some)).await.unwrap();
            assert!(n > 0);
            got.extend_from_slice(&some[..n]);
        }
        assert!(got == data);
    };
    tokio::join!(async { client.tcp.write_all(&wire).await.unwrap() }, read);
}

#[derive(Debug, Clone)]
struct Shape {
    tls13: bool,
    /// Unknown protocols of 250 bytes each.
    names: usize,
    record_len: usize,
    write_len: usize,
    data_len: usize,
    read_len: usize,
}

#[tokio::test]
async fn a_hello_in_very_many_records_and_much_data_at_once_behind_it() {
    for (record_len, read_len) in [(4, 64 * 1024), (5, 100), (16_384, 1)] {
        let data_len = if read_len == 1 { 20_000 } else { 640_000 };
        let shape = Shape { tls13: true, names: 248, record_len, write_len: 146_700, data_len, read_len };
        any_lengths(shape).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn no_length_is_too_strange(
        tls13: bool,
        names in prop_oneof![Just(0), 0_usize..60, Just(248)],
        record_len in prop_oneof![1_usize..8, 1_usize..2000, Just(16_384)],
        write_len in prop_oneof![Just(1_usize << 20), 100_usize..5000],
        data_len in prop_oneof![0_usize..2000, 100_000_usize..700_000],
        read_len in prop_oneof![Just(100_usize), Just(16_384), Just(65_536), 1000_usize..30_000],
    ) {
        let shape = Shape { tls13, names, record_len, write_len, data_len, read_len };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(any_lengths(shape));
    }
}
