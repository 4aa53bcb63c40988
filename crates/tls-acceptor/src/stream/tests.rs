//! Streams between the record layer here and rustls' own client.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, default_provider};
use rustls::{SupportedProtocolVersion, version};
use rustls_pki_types::ServerName;
use support::soon;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::task::coop::{has_budget_remaining, poll_proceed};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::acceptor::AcceptorSettings;
use crate::record::Header;
use crate::test_rig::{BOTH, Rig, accept, sockets};

mod moving;

type Client = client::TlsStream<TcpStream>;

/// Both ends of a connection; the bytes of the first exchange are gone.
async fn pair(versions: &[&'static SupportedProtocolVersion]) -> (TlsStream, Client) {
    let rig = Rig::new();
    let client = Arc::new(rig.client(versions, &[]));
    let (accepted, connected) = rig.meet(&AcceptorSettings::default(), &client, "a.test").await;
    (accepted.unwrap().io, connected.unwrap())
}

const EACH: [&[&SupportedProtocolVersion]; 2] = [&[&version::TLS13], &[&version::TLS12]];

/// Bytes that don't repeat soon.
fn noise(len: usize) -> Vec<u8> {
    (0_u32..).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

/// Sends `data` from one end and reads it whole at the other, `step` bytes at a time.
async fn move_all<S, R>(sender: &mut S, reader: &mut R, data: &[u8], step: usize)
where
    S: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let mut got = Vec::with_capacity(data.len());
    let send = async {
        sender.write_all(data).await.unwrap();
        sender.flush().await.unwrap();
    };
    let read = async {
        let mut some = vec![0; step];
        while got.len() < data.len() {
            let n = reader.read(&mut some).await.unwrap();
            assert!(n > 0, "ended after {} bytes", got.len());
            got.extend_from_slice(&some[..n]);
        }
    };
    soon(async { tokio::join!(send, read) }).await;
    assert!(got == data);
}

#[tokio::test]
async fn every_suite_carries_anything_both_ways() {
    let rig = Rig::new();
    let mut seen = 0;
    for suite in ALL_CIPHER_SUITES {
        let name = format!("{:?}", suite.suite());
        if name.contains("_RSA_") {
            continue; // the certificate is ECDSA; the records are the same
        }
        let provider = CryptoProvider { cipher_suites: vec![*suite], ..default_provider() };
        let versions = if suite.tls13().is_some() { EACH[0] } else { EACH[1] };
        let config = rig.client_of(provider, versions, &[]);
        let (accepted, connected) = rig.meet(&AcceptorSettings::default(), &Arc::new(config), "a.test").await;
        let (mut server, mut client) = (accepted.unwrap().io, connected.unwrap());
        for (len, step) in [(1, 1), (100, 7), (16_384, 64 * 1024), (16_385, 1000), (1 << 20, 64 * 1024)] {
            let data = noise(len);
            move_all(&mut server, &mut client, &data, step).await;
            move_all(&mut client, &mut server, &data, step).await;
        }
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[tokio::test]
async fn several_slices_become_one_record() {
    let (mut server, mut client) = pair(BOTH).await;
    let data = noise(40_000);
    let slices: Vec<_> = [0..9, 9..9, 9..20_000, 20_000..40_000].map(|r| io::IoSlice::new(&data[r])).into();
    let sequence = server.state.outgoing.sequence();
    let n = server.write_vectored(&slices).await.unwrap();
    assert_eq!((n, server.state.outgoing.sequence() - sequence), (40_000, 3));
    let mut got = vec![0; n];
    client.read_exact(&mut got).await.unwrap();
    assert!(got == data);
    // More slices than one record takes.
    let many: Vec<_> = data[..100].iter().map(|byte| io::IoSlice::new(std::slice::from_ref(byte))).collect();
    assert_eq!(server.write_vectored(&many).await.unwrap(), 100);
    client.read_exact(&mut got[..100]).await.unwrap();
    assert!(got[..100] == data[..100]);
    assert_eq!(server.write_vectored(&[io::IoSlice::new(b"")]).await.unwrap(), 0);
}

#[tokio::test]
async fn ends_are_distinguished() {
    for versions in EACH {
        let mut buf = [0; 10];
        let (mut server, mut client) = pair(versions).await;
        client.write_all(b"last").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut buf).await.unwrap(), 4);
        assert_eq!(server.read(&mut buf).await.unwrap(), 0);
        assert_eq!(server.read(&mut buf).await.unwrap(), 0, "and stays so");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut buf).await.unwrap(), 6);
        assert_eq!(client.read(&mut buf).await.unwrap(), 0);
        assert!(server.write_all(b"more").await.is_err());

        let (mut server, client) = pair(versions).await;
        let (mut tcp, _) = client.into_inner();
        tcp.shutdown().await.unwrap();
        assert_eq!(server.read(&mut buf).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let (server, mut client) = pair(versions).await;
        drop(server);
        assert_eq!(client.read(&mut buf).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn last_words_wait_for_the_shutdown_and_leave_with_it() {
    for versions in EACH {
        let (mut server, mut client) = pair(versions).await;
        server.begin_shutdown();
        server.write_all(b"last").await.unwrap();
        server.write_all(b" words").await.unwrap();
        server.flush().await.unwrap();
        // What is sent on loopback is there at once.
        let there = recv(client.get_ref().0, &mut [0; 9], RecvFlags::PEEK);
        assert_eq!(there, Err(Errno::AGAIN), "nothing has left yet");
        server.shutdown().await.unwrap();
        let mut words = String::new();
        soon(client.read_to_string(&mut words)).await.unwrap();
        assert_eq!(words, "last words");

        let (mut server, mut client) = pair(versions).await;
        server.begin_shutdown();
        move_all(&mut server, &mut client, &noise(ALONG_MAX + 1), 1000).await; // too much to be kept
        server.shutdown().await.unwrap();
        assert_eq!(soon(client.read(&mut [0; 9])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_follows_an_end_is_ignored() {
    let (mut server, mut client) = pair(BOTH).await;
    client.shutdown().await.unwrap_or_default();
    let mut buf = [0; 10];
    assert_eq!(server.read(&mut buf).await.unwrap(), 0);
    move_all(&mut server, &mut client, b"still heard", 100).await;
}

#[tokio::test]
async fn a_broken_record_is_answered_by_its_alert() {
    for (junk, alert) in [
        (&b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"[..], "BadRecordMac"),
        (b"GET / HTTP/1.1\r\n\r\n", "UnexpectedMessage"),
        (b"\x17\x03\x03\x50\x00", "RecordOverflow"),
        (b"\x17\x03\x03\x00\x03abc", "BadRecordMac"),
    ] {
        for versions in EACH {
            let (mut server, mut client) = pair(versions).await;
            move_all(&mut client, &mut server, b"good", 10).await;
            client.get_mut().0.write_all(junk).await.unwrap();
            let mut buf = [0; 100];
            // Also when something was read before.
            let mut read = ReadBuf::new(&mut buf);
            read.put_slice(b"before");
            let error = std::future::poll_fn(|cx| Pin::new(&mut server).poll_read(cx, &mut read)).await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            assert!(server.read(&mut buf).await.is_err(), "and it stays so");
            assert!(server.write_all(b"more").await.is_err(), "nothing follows the alert");
            let told = client.read(&mut buf).await.unwrap_err().to_string();
            assert!(told.contains(alert), "{told} for {junk:?}");
        }
    }
}

#[tokio::test]
async fn an_alert_of_the_client_is_read() {
    let (mut server, mut client) = pair(BOTH).await;
    // What rustls' client says about a record that it can't read.
    server.tcp.write_all(b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").await.unwrap();
    client.read_u8().await.unwrap_err();
    let error = server.read_u8().await.unwrap_err();
    assert_eq!(error.to_string(), "the client aborted the connection (TLS alert 20)");
}

#[tokio::test]
async fn clients_renew_their_keys() {
    let (mut server, mut client) = pair(&[&version::TLS13]).await;
    for round in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        move_all(&mut client, &mut server, &noise(50_000), 4096).await;
        assert!(server.state.control_pending || round > 0, "an answer is due until the next write or read");
        move_all(&mut server, &mut client, &noise(50_000), 4096).await;
        assert!(!server.state.key_wanted);
        assert!(server.state.outgoing.sequence() < 5, "the next key counts from 0");
    }
}

#[tokio::test]
async fn a_key_update_is_answered_by_who_only_reads() {
    let (mut server, mut client) = pair(&[&version::TLS13]).await;
    client.get_mut().1.refresh_traffic_keys().unwrap();
    client.write_all(b"x").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
    let mut byte = [0];
    tokio::select! {
        biased;
        _ = server.read(&mut byte) => unreachable!("nothing was sent"),
        () = std::future::ready(()) => {}
    }
    assert!(!server.state.control_pending && server.state.unsent.is_empty());
    assert_eq!(server.state.outgoing.sequence(), 0);
}

#[tokio::test]
async fn answers_to_key_updates_do_not_pile_up() {
    let (mut server, mut client) = pair(&[&version::TLS13]).await;
    // The client reads nothing until the network is full.
    let full = noise(1 << 16);
    let mut sent = 0;
    loop {
        let wrote = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut server).poll_write(cx, &full))).await;
        match wrote {
            Poll::Ready(n) => sent += n.unwrap(),
            Poll::Pending => break,
        }
    }
    let held = server.state.unsent.left().len();
    assert!(held <= SCRATCH_LEN);
    // rustls bears 32 key updates in a row.
    for n in 0..30_u8 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&[n]).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(soon(server.read_u8()).await.unwrap(), n);
        assert!(server.state.unsent.left().len() <= held + 2 * OVERHEAD_MAX, "one answer at most waits");
    }
    let (mut got, mut some) = (0, vec![0; 1 << 16]);
    let flush = server.flush();
    let read = async {
        while got < sent {
            got += client.read(&mut some).await.unwrap();
        }
    };
    tokio::join!(async { flush.await.unwrap() }, read);
    move_all(&mut server, &mut client, b"under the one new key", 100).await;
}

#[tokio::test]
async fn a_key_that_is_used_up_is_renewed() {
    let (mut server, mut client) = pair(&[&version::TLS13]).await;
    server.state.outgoing.expire_after(3);
    for _ in 0..5 {
        move_all(&mut server, &mut client, &noise(20_000), 4096).await;
        move_all(&mut client, &mut server, b"heard", 10).await;
    }
    // One write of more records than are left.
    server.state.outgoing.expire_after(2);
    move_all(&mut server, &mut client, &noise(100_000), 4096).await;
}

#[tokio::test]
async fn in_tls12_a_key_that_is_used_up_ends_the_connection_in_order() {
    let (mut server, mut client) = pair(&[&version::TLS12]).await;
    server.state.outgoing.expire_after(1);
    move_all(&mut server, &mut client, b"last", 10).await;
    let error = server.write_all(b"one too many").await.unwrap_err();
    assert!(error.to_string().contains("used up"), "{error}");
    assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_network_that_gives_a_byte_at_a_time() {
    let rig = Rig::new();
    for versions in EACH {
        let acceptor = rig.acceptor(&AcceptorSettings::default());
        let (near, mut far) = sockets().await;
        near.set_nodelay(true).unwrap();
        let (client_end, mut dribble) = tokio::io::duplex(1);
        let _dribbling = tokio::spawn(async move {
            far.set_nodelay(true).unwrap();
            copy_bidirectional(&mut dribble, &mut far).await
        });
        let connector = TlsConnector::from(Arc::new(rig.client(versions, &[])));
        let connect = connector.connect(ServerName::try_from("a.test").unwrap(), client_end);
        let (accepted, connected) = tokio::join!(accept(&acceptor, near), async {
            let mut client = connect.await.unwrap();
            client.write_all(b"!").await.unwrap();
            client.flush().await.unwrap();
            client
        });
        let (mut server, mut client) = (accepted.unwrap().io, connected);
        assert_eq!(server.read_u8().await.unwrap(), b'!');
        let data = noise(3000);
        move_all(&mut client, &mut server, &data, 5000).await;
        move_all(&mut server, &mut client, &data, 5000).await;
    }
}

#[tokio::test]
async fn what_idles_holds_no_bytes() {
    let (mut server, mut client) = pair(BOTH).await;
    move_all(&mut client, &mut server, &noise(100_000), 64 * 1024).await;
    move_all(&mut server, &mut client, &noise(100_000), 64 * 1024).await;
    assert_eq!(server.state.wire.capacity(), 0);
    assert!(server.state.ahead.is_empty() && server.state.unsent.is_empty());
}

/// Waits until there is something to read, of which the stream itself is not notified.
async fn arrived(server: &TlsStream) {
    let socket = server.tcp.as_fd().try_clone_to_owned().unwrap();
    TcpStream::from_std(socket.into()).unwrap().peek(&mut [0]).await.unwrap();
}

/// Tickets are a record of their own, and need no packet of their own.
#[tokio::test]
async fn tickets_go_along_with_the_first_answer_or_to_a_client_that_asks_nothing() {
    let rig = Rig::new();
    for asks in [true, false] {
        let acceptor = rig.acceptor(&AcceptorSettings::default());
        let (near, far) = sockets().await;
        let connector = TlsConnector::from(Arc::new(rig.client(EACH[0], &[])));
        let connect = connector.connect(ServerName::try_from("a.test").unwrap(), far);
        let (accepted, client) = tokio::join!(accept(&acceptor, near), async {
            let mut client = connect.await.unwrap();
            if asks {
                client.write_all(b"?").await.unwrap();
                client.flush().await.unwrap();
            }
            client
        });
        let mut server = accepted.unwrap().io;
        assert!(!server.state.unsent.is_empty());
        if asks {
            soon(arrived(&server)).await; // it has come
            assert_eq!(soon(server.read_u8()).await.unwrap(), b'?');
            server.flush().await.unwrap();
            assert!(!server.state.unsent.is_empty(), "a flush of nothing");
            server.write_all(b"!").await.unwrap();
        } else {
            let mut byte = [0];
            let mut read = std::pin::pin!(server.read(&mut byte));
            std::future::poll_fn(|cx| {
                assert!(read.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        assert!(server.state.unsent.is_empty());
        drop(client);
    }
}

#[tokio::test]
async fn old_records_leave_before_new_ones_are_sealed() {
    let (mut server, mut client) = pair(BOTH).await;
    // More than the scratch space holds, as if the network had taken nothing of it.
    let old = noise(SCRATCH_LEN + 50_000);
    let mut records = Vec::new();
    for content in old.chunks(PLAINTEXT_MAX) {
        let start = records.len();
        records.resize(start + content.len() + OVERHEAD_MAX, 0);
        let content = Content::Elsewhere(content);
        let len =
            server.state.outgoing.seal(ContentType::ApplicationData, content, &mut records[start..]).unwrap();
        records.truncate(start + len);
    }
    server.state.unsent = Pending::new(records);
    let new = noise(100_000);
    let write = async {
        server.write_all(&new).await.unwrap();
        server.flush().await.unwrap();
    };
    let mut got = vec![0; old.len() + new.len()];
    let (_, read) = soon(async { tokio::join!(write, client.read_exact(&mut got)) }).await;
    read.unwrap();
    assert!(got == [old, new].concat());
}

/// Nothing is sent for each of them, and a stream that waits for a flush holds no more than it has room for.
#[tokio::test]
async fn gathered_writes_leave_with_a_flush_or_where_room_ends() {
    for versions in EACH {
        let (mut server, mut client) = pair(versions).await;
        server.gather_writes();
        let data = noise(3 * PLAINTEXT_MAX + 20_000);
        let (first, rest) = data.split_at(3 * PLAINTEXT_MAX);
        for part in first.chunks(PLAINTEXT_MAX) {
            server.write_all(part).await.unwrap();
        }
        // What is sent on loopback is there at once.
        let there = recv(client.get_ref().0, &mut [0; 9], RecvFlags::PEEK);
        assert_eq!(there, Err(Errno::AGAIN), "nothing has left yet");
        server.flush().await.unwrap();
        assert!(server.state.unsent.is_empty());
        let mut got = vec![0; data.len()];
        soon(client.read_exact(&mut got[..first.len()])).await.unwrap();
        server.write_all(rest).await.unwrap();
        server.flush().await.unwrap();
        soon(client.read_exact(&mut got[first.len()..])).await.unwrap();
        assert!(got == data);

        let many = noise(1_000_000);
        let held = net_io::memory::held();
        let write = async {
            for part in many.chunks(10_000) {
                server.write_all(part).await.unwrap();
                assert!(net_io::memory::held() - held <= GATHERED_LEN);
            }
            server.flush().await.unwrap();
        };
        let mut got = vec![0; many.len()];
        let ((), read) = soon(async { tokio::join!(write, client.read_exact(&mut got)) }).await;
        read.unwrap();
        assert!(got == many);
        assert_eq!(net_io::memory::held(), held);
        assert!(server.state.unsent.is_empty());
    }
}

#[tokio::test]
async fn a_renegotiation_is_refused_and_the_connection_goes_on() {
    let rig = Rig::new();
    let mut config = rig.client(EACH[1], &[]);
    config.enable_secret_extraction = true;
    let (accepted, connected) = rig.meet(&AcceptorSettings::default(), &Arc::new(config), "a.test").await;
    let mut server = accepted.unwrap().io;
    let (mut tcp, tls) = connected.unwrap().into_inner();
    let suite = tls.negotiated_cipher_suite().unwrap();
    let keys = tls.dangerous_extract_secrets().unwrap();
    let (mut seals, mut opens) = (Cipher::new(suite, keys.tx).unwrap(), Cipher::new(suite, keys.rx).unwrap());
    let mut wire = vec![0; 200];
    for round in 0..3_u8 {
        let hello = Content::Elsewhere(&[1, 0, 0, 4, 3, 3, 7, 7]);
        let mut len = seals.seal(ContentType::Handshake, hello, &mut wire).unwrap();
        let data = [round];
        let content = Content::Elsewhere(&data);
        len += seals.seal(ContentType::ApplicationData, content, &mut wire[len..]).unwrap();
        tcp.write_all(&wire[..len]).await.unwrap();
        assert_eq!(soon(server.read_u8()).await.unwrap(), round, "data goes on");
        server.write_all(&data).await.unwrap();
        server.flush().await.unwrap();
        for expect in
            [(ContentType::Alert, vec![1, NO_RENEGOTIATION]), (ContentType::ApplicationData, vec![round])]
        {
            let mut head = [0; HEADER_LEN];
            soon(tcp.read_exact(&mut head)).await.unwrap();
            let header = Header::parse(&head, false).unwrap().unwrap();
            let mut body = vec![0; header.body_len];
            soon(tcp.read_exact(&mut body)).await.unwrap();
            let mut content = vec![0; header.body_len];
            let (content_type, len) = opens.open(header, &body, &mut content).unwrap();
            assert_eq!((content_type, content[..len].to_vec()), expect);
        }
    }
}

/// Fills the network behind the runtime's back: it still takes the socket for writable.
fn fill(server: &TlsStream) {
    let junk = noise(1 << 20);
    while rustix::net::send(&server.tcp, &junk, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok() {}
}

/// Takes everything from `far` until its end, which comes after `done`.
async fn drain_until(far: &mut TcpStream, done: impl Future<Output = ()>) {
    let mut some = vec![0; 1 << 16];
    let drain = async { while far.read(&mut some).await.is_ok_and(|n| n > 0) {} };
    soon(async { tokio::join!(drain, done) }).await;
}

/// Reads in a task of its own, which is only polled when it is woken, first without a budget; done when nothing is
/// unsent.
async fn reads_until_all_is_sent(mut server: TlsStream) {
    let mut is_first = true;
    let reading = std::future::poll_fn(move |cx| {
        let spends = std::mem::take(&mut is_first);
        while spends && has_budget_remaining() {
            let Poll::Ready(proceed) = poll_proceed(cx) else { break };
            proceed.made_progress();
        }
        let mut byte = [0];
        let read = Pin::new(&mut server).poll_read(cx, &mut ReadBuf::new(&mut byte));
        assert!(read.is_pending(), "nothing was sent");
        if server.state.unsent.is_empty() && !server.state.key_wanted {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    tokio::spawn(reading).await.unwrap();
}

#[tokio::test]
async fn a_reader_without_budget_or_room_sends_what_it_owes_later() {
    let (mut server, client) = pair(&[&version::TLS13]).await;
    let mut far = client.into_inner().0;
    fill(&server);
    (server.state.key_wanted, server.state.control_pending) = (true, true);
    drain_until(&mut far, reads_until_all_is_sent(server)).await;
}

/// A write is combined with what is pending, and none of it is accepted. There is no flush.
#[tokio::test]
async fn what_is_owed_leaves_behind_a_write_that_the_network_did_not_take() {
    let (mut server, client) = pair(&[&version::TLS13]).await;
    let mut far = client.into_inner().0;
    fill(&server);
    server.queue_record(ContentType::Handshake, &KEY_UPDATE).unwrap();
    assert_eq!(soon(server.write(b"data")).await.unwrap(), 4);
    assert!(server.state.control_pending && !server.state.unsent.is_empty());
    drain_until(&mut far, reads_until_all_is_sent(server)).await;
}

#[tokio::test]
async fn a_flush_sends_tickets_to_a_client_that_has_asked_nothing() {
    let (mut server, _client) = pair(&[&version::TLS13]).await;
    // As after the handshake.
    server.state.tickets_pending = true;
    server.queue_record(ContentType::Handshake, &[4, 0, 0, 0]).unwrap();
    server.flush().await.unwrap();
    assert!(server.state.unsent.is_empty());
}

#[tokio::test]
async fn nothing_is_sent_behind_close_notify() {
    for versions in EACH {
        let (mut server, mut client) = pair(versions).await;
        server.shutdown().await.unwrap();
        client.get_mut().0.write_all(b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(server.state.unsent.is_empty() && !server.state.control_pending);
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
    }
}
