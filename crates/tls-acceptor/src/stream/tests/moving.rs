//! Streams that go to another process, with rustls' own client at the other end; and the format that they go in.

use net_io::state::StateError;
use rustls::SupportedCipherSuite;

use super::*;
use crate::record::{CipherState, Secret};
use crate::stream::TlsState;

/// What the other process makes of a stream.
fn moved(server: TlsStream) -> TlsStream {
    let (tcp, state) = server.freeze();
    let bytes = state.encode().unwrap();
    drop(state);
    TlsStream::thaw(Tcp::from_std(tcp.into_std().unwrap()).unwrap(), TlsState::decode(&bytes).unwrap())
}

/// Suites that differ in their records, each with both ends of a connection.
async fn pairs() -> Vec<(SupportedCipherSuite, TlsStream, Client)> {
    let rig = Rig::new();
    let mut pairs = Vec::new();
    for suite in ALL_CIPHER_SUITES {
        if format!("{:?}", suite.suite()).contains("_RSA_") {
            continue; // the certificate is ECDSA; the records are the same
        }
        let provider = CryptoProvider { cipher_suites: vec![*suite], ..default_provider() };
        let versions = if suite.tls13().is_some() { EACH[0] } else { EACH[1] };
        let config = rig.client_of(provider, versions, &[]);
        let (accepted, connected) = rig.meet(&AcceptorSettings::default(), &Arc::new(config), "a.test").await;
        pairs.push((*suite, accepted.unwrap().io, connected.unwrap()));
    }
    assert_eq!(pairs.len(), 6);
    pairs
}

/// What the client would send now.
fn wire_of(client: &mut Client) -> Vec<u8> {
    let mut wire = Vec::new();
    let tls = client.get_mut().1;
    while tls.wants_write() {
        tls.write_tls(&mut wire).unwrap();
    }
    wire
}

fn seal(client: &mut Client, content: &[u8]) -> Vec<u8> {
    std::io::Write::write_all(&mut client.get_mut().1.writer(), content).unwrap();
    wire_of(client)
}

/// Reads once, into room for so many bytes.
async fn read_once(server: &mut TlsStream, room: usize) -> Poll<Vec<u8>> {
    let mut memory = vec![0; room];
    std::future::poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut memory);
        let read = Pin::new(&mut *server).poll_read(cx, &mut buf);
        Poll::Ready(read.map(|read| {
            read.unwrap();
            buf.filled().to_vec()
        }))
    })
    .await
}

#[tokio::test]
async fn a_record_may_be_cut_anywhere_when_its_stream_moves() {
    for (suite, mut server, mut client) in pairs().await {
        for cut in 0.. {
            let wire = seal(&mut client, b"first");
            let len = wire.len();
            if cut > len {
                break;
            }
            client.get_mut().0.write_all(&wire[..cut]).await.unwrap();
            if cut > 0 && cut < len {
                soon(arrived(&server)).await;
                assert!(read_once(&mut server, 100).await.is_pending());
                assert_eq!(server.state.wire.len(), cut);
            }
            server = moved(server);
            client.get_mut().0.write_all(&wire[cut..]).await.unwrap();
            let mut got = [0; 5];
            soon(server.read_exact(&mut got)).await.unwrap();
            assert_eq!(&got, b"first", "{suite:?}, cut at {cut}");
            move_all(&mut server, &mut client, b"answer", 10).await;
        }
    }
}

/// After a record that was too long for its reader, with what the network has not taken, again and again.
#[tokio::test]
async fn what_is_half_read_and_half_sent_goes_along() {
    for (suite, mut server, mut client) in pairs().await {
        // As if the network had taken nothing of it yet.
        let sent = noise(3 * PLAINTEXT_MAX);
        let mut records = Vec::new();
        for content in sent.chunks(PLAINTEXT_MAX) {
            let (start, content) = (records.len(), Content::Elsewhere(content));
            records.resize(start + PLAINTEXT_MAX + OVERHEAD_MAX, 0);
            let sealed =
                server.state.outgoing.seal(ContentType::ApplicationData, content, &mut records[start..]);
            records.truncate(start + sealed.unwrap());
        }
        server.state.unsent = Pending::new(records);
        server = moved(server);
        client.write_all(b"longer than its reader's room").await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(soon(server.read_u8()).await.unwrap(), b'l');
        assert!(!server.state.ahead.is_empty());
        server = moved(server);
        let mut rest = [0; 28];
        soon(server.read_exact(&mut rest)).await.unwrap();
        assert_eq!(&rest, b"onger than its reader's room", "{suite:?}");
        server = moved(server);
        let mut got = vec![0; sent.len()];
        let (flush, read) = soon(async { tokio::join!(server.flush(), client.read_exact(&mut got)) }).await;
        flush.unwrap();
        read.unwrap();
        assert!(got == sent, "{suite:?}");
        assert!(server.state.unsent.is_empty());
    }
}

#[tokio::test]
async fn keys_are_renewed_before_and_after_a_move_and_half_way() {
    for (suite, mut server, mut client) in pairs().await {
        if suite.tls13().is_none() {
            continue; // it has no other keys
        }
        for round in 0..4 {
            // The client's key, with the KeyUpdate cut at each place.
            client.get_mut().1.refresh_traffic_keys().unwrap();
            let wire = seal(&mut client, b"under the next key");
            let cut = round * wire.len() / 4;
            client.get_mut().0.write_all(&wire[..cut]).await.unwrap();
            if cut > 0 {
                soon(arrived(&server)).await;
                assert!(read_once(&mut server, 100).await.is_pending());
            }
            server = moved(server);
            client.get_mut().0.write_all(&wire[cut..]).await.unwrap();
            let mut got = [0; 18];
            soon(server.read_exact(&mut got)).await.unwrap();
            assert_eq!(&got, b"under the next key");
            // The key that the client wants in return, before and after it is there.
            server = moved(server);
            move_all(&mut server, &mut client, b"and so is this", 100).await;
            assert!(!server.state.key_wanted && server.state.outgoing.sequence() < 3);
            server = moved(server);
            move_all(&mut server, &mut client, b"and this", 100).await;
            // A key of ours that is used up.
            server.state.outgoing.expire_after(1);
            server = moved(server);
            move_all(&mut server, &mut client, b"the last of its key", 100).await;
            server = moved(server);
            move_all(&mut server, &mut client, b"the first of the next", 100).await;
        }
    }
}

#[tokio::test]
async fn in_tls12_the_limit_of_a_key_goes_along() {
    let (mut server, mut client) = pair(EACH[1]).await;
    server.state.outgoing.expire_after(1);
    server = moved(server);
    move_all(&mut server, &mut client, b"last", 10).await;
    server = moved(server);
    let error = server.write_all(b"one too many").await.unwrap_err();
    assert!(error.to_string().contains("used up"), "{error}");
}

#[tokio::test]
async fn tickets_that_wait_for_the_first_answer_go_along() {
    let rig = Rig::new();
    let acceptor = rig.acceptor(&AcceptorSettings::default());
    let (near, far) = sockets().await;
    let connector = TlsConnector::from(Arc::new(rig.client(EACH[0], &[])));
    let connect = connector.connect(ServerName::try_from("a.test").unwrap(), far);
    let (accepted, client) = tokio::join!(accept(&acceptor, near), connect);
    let (server, mut client) = (accepted.unwrap().io, client.unwrap());
    let tickets = server.state.unsent.left().to_vec();
    let mut server = moved(server);
    assert!(server.state.tickets_pending && server.state.unsent.left() == tickets && !tickets.is_empty());
    move_all(&mut client, &mut server, b"question", 100).await;
    let mut server = moved(server);
    move_all(&mut server, &mut client, b"answer", 100).await;
    assert!(server.state.unsent.is_empty());
}

#[tokio::test]
async fn an_end_is_still_the_end_elsewhere() {
    for versions in EACH {
        let (mut server, mut client) = pair(versions).await;
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0);
        server = moved(server);
        assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0);
        server.begin_shutdown();
        server.write_all(b"last words").await.unwrap();
        server = moved(server);
        server.shutdown().await.unwrap();
        server = moved(server);
        assert!(server.write_all(b"more").await.is_err(), "nothing follows close_notify");
        let mut words = String::new();
        soon(client.read_to_string(&mut words)).await.unwrap();
        assert_eq!(words, "last words");

        let (mut server, mut client) = pair(versions).await;
        client.get_mut().0.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = server.read_u8().await.unwrap_err();
        server = moved(server);
        assert_eq!(server.read_u8().await.unwrap_err().to_string(), error.to_string());
        assert!(server.write_all(b"more").await.is_err());
    }
}

/// Made-up secrets, which no connection ever had.
const SAMPLES: [(&str, &str); 3] = [
    ("TLS 1.3", include_str!("../../../tests/samples/tls13.hex")),
    ("TLS 1.3 to a backend", include_str!("../../../tests/samples/backend.hex")),
    ("TLS 1.2", include_str!("../../../tests/samples/tls12.hex")),
];

fn bytes_of(sample: &str) -> Vec<u8> {
    let lines = sample.lines().filter(|line| !line.starts_with('#'));
    let digits: String = lines.flat_map(str::split_whitespace).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The same ciphers at the client's end.
fn client_of(state: &TlsState) -> (Cipher, Cipher) {
    let Secrets { peer, own } = &state.secrets;
    let same = |secret: &Secret| {
        if state.outgoing.is_tls13() { Secret::new(secret.bytes()) } else { Secret::of_key(secret.bytes()) }
            .unwrap()
    };
    let incoming = state.incoming.state().unwrap().cipher;
    let outgoing = state.outgoing.state().unwrap();
    (Cipher::from_state(incoming, &same(peer)).unwrap(), Cipher::from_state(outgoing, &same(own)).unwrap())
}

/// What this release and those before it have written is understood for ever.
#[tokio::test]
async fn samples_of_the_format_are_understood() {
    for (name, sample) in SAMPLES {
        let state = TlsState::decode(&bytes_of(sample)).unwrap();
        let (mut seals, mut opens) = client_of(&state);
        assert_eq!((seals.sequence(), opens.sequence()), (5, 7), "{name}");
        assert_eq!((seals.limit(), opens.limit()), (1 << 24, 1 << 23));
        assert_eq!((state.ahead.left(), state.unsent.left()), (&b"ahead"[..], &b"unsent"[..]));
        assert_eq!((state.tickets_pending, state.key_wanted), (false, name != "TLS 1.2"));
        let mut record = vec![0; 100];
        let len =
            seals.seal(ContentType::ApplicationData, Content::Elsewhere(b"hello"), &mut record).unwrap();
        assert_eq!(state.wire, record[..3], "its front has come");
        assert_eq!(state.incoming.peer(), if name.contains("backend") { "server" } else { "client" });

        let (near, mut far) = sockets().await;
        let mut server = TlsStream::thaw(near.into(), state);
        far.write_all(&record[3..len]).await.unwrap();
        let mut got = [0; 10];
        soon(server.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"aheadhello");
        server.write_all(b"answer").await.unwrap();
        let mut wire = [0; 6];
        soon(far.read_exact(&mut wire)).await.unwrap();
        assert_eq!(&wire, b"unsent");
        // The client wants a new key first.
        let records = [ContentType::Handshake, ContentType::ApplicationData];
        for expected in &records[usize::from(name == "TLS 1.2")..] {
            let mut head = [0; HEADER_LEN];
            soon(far.read_exact(&mut head)).await.unwrap();
            let header = Header::parse(&head, opens.is_tls13()).unwrap().unwrap();
            let mut body = vec![0; header.body_len];
            soon(far.read_exact(&mut body)).await.unwrap();
            let mut content = vec![0; header.body_len];
            let (content_type, len) = opens.open(header, &body, &mut content).unwrap();
            assert_eq!(content_type, *expected, "{name}");
            match expected {
                ContentType::Handshake => {
                    let next = CipherState { sequence: 0, ..opens.state().unwrap() };
                    opens = Cipher::from_state(next, &server.state.secrets.own).unwrap();
                }
                _ => assert_eq!(&content[..len], b"answer"),
            }
        }
    }
}

#[test]
fn what_is_no_state_is_refused() {
    for (name, sample) in SAMPLES {
        let state = bytes_of(sample);
        for len in 0..state.len() {
            assert_eq!(TlsState::decode(&state[..len]).unwrap_err(), StateError::Truncated, "{name} {len}");
        }
        assert_eq!(TlsState::decode(&[&state[..], b"x"].concat()).unwrap_err(), StateError::Overlong);
        let mut newer = state.clone();
        newer[0] = 200;
        assert!(matches!(TlsState::decode(&newer), Err(StateError::TooNew { needs: 200, .. })));
        // Whatever one byte is, it is refused, or is a state that can be written again.
        for at in 1..state.len() {
            for value in [0, 1, 2, 7, 0x7F, 0x80, 0xFF] {
                let mut other = state.clone();
                other[at] = value;
                if let Ok(state) = TlsState::decode(&other) {
                    assert!(state.encode().unwrap().len() <= other.len(), "{name} {at} {value}");
                }
            }
        }
    }
}

/// A later release adds fields behind the last.
#[test]
fn fields_of_a_later_release_are_skipped() {
    for (_, sample) in SAMPLES {
        let state = bytes_of(sample);
        let len = u32::try_from(state.len() - 5 + 9).unwrap().to_be_bytes();
        let later = [&state[..1], &len, &state[5..], b"\0\0\0\x05later"].concat();
        assert_eq!(TlsState::decode(&later).unwrap().encode().unwrap()[..], state);
    }
}
