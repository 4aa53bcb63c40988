//! Handshakes with rustls' own client over loopback.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, TicketRequest, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::{HandshakeKind, NamedGroup};
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::load::Plan;
use crate::test_rig::{BOTH, Rig, accept, plan, sockets};

#[tokio::test]
async fn the_acceptor_returns_what_was_asked_and_chosen() {
    let rig = Rig::new();
    let client = Arc::new(rig.client(BOTH, &["h2", "http/1.1"]));
    let (accepted, connected) = rig.meet(&AcceptorSettings::default(), &client, "a.test").await;
    let accepted = accepted.unwrap();
    assert_eq!(accepted.server_name.as_deref(), Some("a.test"));
    assert_eq!((accepted.selected, accepted.alpn), (Selected::Own, Alpn::H2));
    assert_eq!((accepted.version, accepted.generation, accepted.resumed), ("TLSv1.3", 1, false));
    let connected = connected.unwrap();
    let group = connected.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);

    let (accepted, _) = rig.meet(&AcceptorSettings::default(), &client, "default.test").await;
    assert_eq!(accepted.unwrap().selected, Selected::Own);
    let (accepted, connected) = rig.meet(&AcceptorSettings::default(), &client, "127.0.0.1").await;
    assert!(connected.is_err(), "the default certificate isn't for an address");
    drop(accepted);
}

#[tokio::test]
async fn unknown_names_without_a_default_are_refused() {
    let rig = Rig::new();
    rig.certificates.reload(&Plan::directory(rig.directory.path())).unwrap();
    let client = Arc::new(rig.client(BOTH, &[]));
    let (accepted, connected) = rig.meet(&AcceptorSettings::default(), &client, "nobody.test").await;
    match accepted.unwrap_err() {
        AcceptError::NoCertificate { server_name } => assert_eq!(server_name.as_deref(), Some("nobody.test")),
        other => panic!("{other}"),
    }
    let alert = connected.unwrap_err().to_string();
    assert!(alert.contains("UnrecognisedName"), "{alert}");
}

#[tokio::test]
async fn application_protocols() {
    let rig = Rig::new();
    let both = AcceptorSettings::default();
    let h1 = AcceptorSettings { alpn: vec![Alpn::Http11], ..AcceptorSettings::default() };
    for (settings, offer, expect) in [
        (&both, &["http/1.1", "h2"][..], Alpn::H2), // the server's preference
        (&both, &["http/1.1"], Alpn::Http11),
        (&both, &[], Alpn::Http11),
        (&both, &["http/1.0"], Alpn::Http11),
        (&both, &["http/1.0", "http/1.1"], Alpn::Http11),
        (&h1, &["http/1.0", "h2"], Alpn::Http11),
        (&h1, &["h2", "http/1.1"], Alpn::Http11),
        (&h1, &[], Alpn::Http11),
    ] {
        let client = Arc::new(rig.client(BOTH, offer));
        let (accepted, _) = rig.meet(settings, &client, "a.test").await;
        assert_eq!(accepted.unwrap().alpn, expect, "{offer:?}");
    }
    let client = Arc::new(rig.client(BOTH, &["h2"]));
    let (accepted, connected) = rig.meet(&h1, &client, "a.test").await;
    assert!(matches!(accepted, Err(AcceptError::NoApplicationProtocol)), "{accepted:?}");
    let alert = connected.unwrap_err().to_string();
    assert!(alert.contains("NoApplicationProtocol"), "{alert}");
}

#[tokio::test]
async fn versions() {
    let rig = Rig::new();
    let old = Arc::new(rig.client(&[&version::TLS12], &[]));
    let (accepted, _) = rig.meet(&AcceptorSettings::default(), &old, "a.test").await;
    assert_eq!(accepted.unwrap().version, "TLSv1.2");
    let strict = AcceptorSettings { min_version: MinVersion::Tls13, ..AcceptorSettings::default() };
    let (accepted, _) = rig.meet(&strict, &old, "a.test").await;
    assert!(matches!(accepted, Err(AcceptError::Tls(_))), "{accepted:?}");
}

#[tokio::test]
async fn sessions_resume_across_reloads_and_acceptors_in_both_versions() {
    for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
        let rig = Rig::new();
        let client = Arc::new(rig.client(versions, &[]));
        let (accepted, _) = rig.meet(&AcceptorSettings::default(), &client, "a.test").await;
        assert!(!accepted.unwrap().resumed);
        rig.pki.issue(&["a.test"]).write(rig.directory.path(), "a");
        rig.certificates.reload(&plan(rig.directory.path())).unwrap();
        // Every meeting has an acceptor of its own, as after a reload that changes a listener.
        let (accepted, connected) = rig.meet(&AcceptorSettings::default(), &client, "a.test").await;
        let accepted = accepted.unwrap();
        assert!(accepted.resumed, "{}", accepted.version);
        assert_eq!(accepted.generation, 2);
        assert_eq!(connected.unwrap().get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }
}

/// Counts the tickets of TLS 1.3 on their way to a client's memory.
#[derive(Debug)]
struct Counting {
    memory: ClientSessionMemoryCache,
    tickets: AtomicUsize,
}

impl ClientSessionStore for Counting {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.memory.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.memory.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.memory.set_tls12_session(name, session);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.memory.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.memory.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.tickets.fetch_add(1, Relaxed);
        self.memory.insert_tls13_ticket(name, ticket);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.memory.take_tls13_ticket(name)
    }
}

#[tokio::test]
async fn a_client_gets_as_many_tickets_as_it_asks_for() {
    let wanted =
        |new_session_count, resumption_count| Some(TicketRequest { new_session_count, resumption_count });
    for (send_ticket_request, first, later) in
        [(None, 2, 2), (wanted(1, 3), 1, 3), (wanted(200, 200), TICKETS_MAX, TICKETS_MAX)]
    {
        let rig = Rig::new();
        let counting = Arc::new(Counting { memory: ClientSessionMemoryCache::new(8), tickets: 0.into() });
        let mut client = rig.client(&[&version::TLS13], &[]);
        client.resumption = Resumption::store(counting.clone());
        client.send_ticket_request = send_ticket_request;
        let client = Arc::new(client);
        for (resumed, tickets) in [(false, first), (true, later), (true, later)] {
            let (accepted, _) = rig.meet(&AcceptorSettings::default(), &client, "a.test").await;
            assert_eq!(accepted.unwrap().resumed, resumed);
            assert_eq!(counting.tickets.swap(0, Relaxed), tickets, "{send_ticket_request:?}, {resumed}");
        }
    }
}

#[tokio::test]
async fn a_name_that_was_removed_stops_resuming() {
    let rig = Rig::new();
    let client = Arc::new(rig.client(BOTH, &[]));
    rig.meet(&AcceptorSettings::default(), &client, "a.test").await.0.unwrap();
    std::fs::remove_file(rig.directory.path().join("a.crt")).unwrap();
    std::fs::remove_file(rig.directory.path().join("a.key")).unwrap();
    rig.certificates.reload(&Plan::directory(rig.directory.path())).unwrap();
    let (accepted, _) = rig.meet(&AcceptorSettings::default(), &client, "a.test").await;
    assert!(matches!(accepted, Err(AcceptError::NoCertificate { .. })), "{accepted:?}");
}

#[tokio::test]
async fn plain_text_is_answered_whole_and_without_an_alert() {
    let rig = Rig::new();
    let acceptor = rig.acceptor(&AcceptorSettings::default());
    let (near, mut far) = sockets().await;
    far.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let (accepted, read) = tokio::join!(accept(&acceptor, near), far.read_to_string(&mut answer));
    read.unwrap();
    let Err(AcceptError::NotTls { began }) = accepted else { panic!("{accepted:?}") };
    assert_eq!(&*began, b"GET / HTTP/1.1\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("https:// or wss:// instead of http:// or ws://.\n"), "{answer}");
}

#[tokio::test]
async fn a_silent_client_runs_into_the_deadline() {
    let rig = Rig::new();
    let settings =
        AcceptorSettings { handshake_timeout: Duration::from_millis(50), ..AcceptorSettings::default() };
    let acceptor = rig.acceptor(&settings);
    for begun in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let (near, mut far) = sockets().await;
        far.write_all(begun).await.unwrap();
        let result = accept(&acceptor, near).await;
        assert!(matches!(result, Err(AcceptError::Timeout)), "{result:?}");
    }
    let (near, far) = sockets().await;
    drop(far);
    let result = accept(&acceptor, near).await;
    assert!(matches!(result, Err(AcceptError::Gone)), "{result:?}");
}
