//! TLS as clients meet it: which certificate, which protocol, which version, and resumption.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use rustls::{HandshakeKind, SignatureScheme};
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::http2::Http2;
use support::pki::{Issued, Key, Order, Pki};
use support::tls::{BOTH, TLS12, TLS13, Tls, leaf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

struct Names {
    pki: Pki,
    exact: Issued,
    wildcard: Issued,
    rsa: Issued,
    default: Issued,
}

fn names(setup: &Setup) -> Names {
    let pki = Pki::new();
    let names = Names {
        exact: pki.issue(&["a.test"]),
        wildcard: pki.issue(&["*.wild.test"]),
        rsa: pki.issue_as(&Order { key: Key::Rsa, ..Order::new(&["a.test"]) }),
        default: pki.issue(&["default.test"]),
        pki,
    };
    let certs = setup.path().join("certs");
    names.exact.write(&certs, "exact");
    names.wildcard.write(&certs, "wildcard");
    names.rsa.write(&certs, "rsa");
    names.default.write(&certs, "default");
    names
}

fn start() -> (Gateway, Names) {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let names = names(&setup);
    (setup.start(&config("", ECHO)), names)
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_known_by_its_alert() {
    let (gateway, _) = start();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore { roots: Vec::new() })
        .with_no_client_auth();
    let tcp = TcpStream::connect(gateway.address()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    connector.connect("a.test".try_into().unwrap(), tcp).await.unwrap_err();
    let refused = gateway.wait("no TLS connection");
    assert_eq!(refused["cause"], "the client does not accept the certificate (alert UnknownCA)");
}

#[tokio::test]
async fn each_name_gets_its_certificate() {
    let (gateway, names) = start();
    for (name, issued) in [
        ("a.test", &names.exact),
        ("A.Test", &names.exact),
        ("x.wild.test", &names.wildcard),
        ("x.x.wild.test", &names.default),
        ("unknown.test", &names.default),
        ("default.test", &names.default),
    ] {
        let stream = Tls::new(name, &[]).connect(gateway.address()).await.unwrap();
        assert_eq!(leaf(&stream), issued.der, "{name}");
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap().len(), 2, "leaf and intermediate");
    }
    let silent = Tls::with(BOTH, None, &[], &[]).connect(gateway.address()).await.unwrap();
    assert_eq!(leaf(&silent), names.default.der);
}

#[tokio::test]
async fn the_clients_signature_schemes_choose_between_rsa_and_ecdsa() {
    let (gateway, names) = start();
    let ecdsa = &[SignatureScheme::ECDSA_NISTP256_SHA256][..];
    let rsa = &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256][..];
    for versions in [TLS12, TLS13] {
        for (schemes, issued) in [(ecdsa, &names.exact), (rsa, &names.rsa), (&[], &names.exact)] {
            let client = Tls::with(versions, Some("a.test"), &[], schemes);
            let stream = client.connect(gateway.address()).await.unwrap();
            assert_eq!(leaf(&stream), issued.der);
        }
    }
}

#[tokio::test]
async fn without_a_default_unknown_names_are_refused() {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let _names = names(&setup);
    let gateway = setup.start(&config("", ECHO).replace("default = \"default.test\"\n", ""));
    for (client, alert) in [
        (Tls::new("unknown.test", &[]), "UnrecognisedName"),
        (Tls::with(TLS12, Some("unknown.test"), &[], &[]), "UnrecognisedName"),
        (Tls::with(BOTH, None, &[], &[]), "AccessDenied"),
    ] {
        let e = client.connect(gateway.address()).await.unwrap_err();
        assert!(e.to_string().contains(alert), "{e}");
    }
    assert!(Tls::new("a.test", &[]).connect(gateway.address()).await.is_ok());
    // Each worker says it for itself: the order is not defined.
    let names_it =
        |line: &serde_json::Value| line["cause"].as_str().is_some_and(|cause| cause.contains("unknown.test"));
    gateway.wait_for(names_it, 0, "the name that has no certificate");
}

#[tokio::test]
async fn application_protocols() {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let _names = names(&setup);
    let http1_only = "[[listener]]\naddress = \"127.0.0.3:0\"\nalpn = [\"http/1.1\"]\n";
    let gateway = setup.start(&config("", &(http1_only.to_owned() + ECHO)));
    let addresses = gateway.addresses();
    let negotiated = async |address, offer: &[&str]| {
        let stream = Tls::new("a.test", offer).connect(address).await?;
        Ok::<_, std::io::Error>(
            stream.get_ref().1.alpn_protocol().map(|p| String::from_utf8(p.to_vec()).unwrap()),
        )
    };
    assert_eq!(negotiated(addresses[0], &["http/1.1", "h2"]).await.unwrap().as_deref(), Some("h2"));
    assert_eq!(negotiated(addresses[0], &["http/1.1"]).await.unwrap().as_deref(), Some("http/1.1"));
    assert_eq!(negotiated(addresses[0], &[]).await.unwrap(), None);
    assert_eq!(negotiated(addresses[0], &["http/1.0"]).await.unwrap().as_deref(), Some("http/1.0"));
    assert_eq!(negotiated(addresses[2], &["http/1.0", "h2"]).await.unwrap().as_deref(), Some("http/1.0"));
    assert_eq!(negotiated(addresses[2], &["h2", "http/1.1"]).await.unwrap().as_deref(), Some("http/1.1"));
    for (address, offer) in [(addresses[0], &["spdy/3"]), (addresses[2], &["h2"])] {
        let e = negotiated(address, offer).await.unwrap_err();
        assert!(e.to_string().contains("NoApplicationProtocol"), "{e}");
    }
    // What was negotiated is what is spoken.
    let mut http1 = Tls::new("a.test", &[]).connect(addresses[0]).await.unwrap();
    assert_eq!(ask(&mut http1, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 426);
    let mut old = Tls::new("a.test", &["http/1.0"]).connect(addresses[0]).await.unwrap();
    assert_eq!(ask(&mut old, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await.status(), 400); // it has no upgrades
    let http2 = Tls::new("a.test", &["h2"]).connect(addresses[0]).await.unwrap();
    let mut http2 = Http2::connect(http2, "a.test").await;
    let request = http2.request(http::Method::GET, "/");
    assert_eq!(http2.ask(request).await.status(), 400); // 426 would need a field that HTTP/2 has not
}

#[tokio::test]
async fn versions_by_listener() {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let _names = names(&setup);
    let strict = "[[listener]]\naddress = \"127.0.0.3:0\"\nmin_version = \"1.3\"\n";
    let gateway = setup.start(&config("", &(strict.to_owned() + ECHO)));
    let addresses = gateway.addresses();
    let old = Tls::with(TLS12, Some("a.test"), &[], &[]);
    let mut stream = old.connect(addresses[0]).await.unwrap();
    assert_eq!(ask(&mut stream, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 426);
    let e = old.connect(addresses[2]).await.unwrap_err();
    assert!(e.to_string().contains("ProtocolVersion"), "{e}");
    let new = Tls::with(TLS13, Some("a.test"), &[], &[]);
    assert!(new.connect(addresses[2]).await.is_ok());
}

#[tokio::test]
async fn sessions_resume_before_and_after_a_reload() {
    for versions in [TLS12, TLS13] {
        let (gateway, names) = start();
        let client = Tls::with(versions, Some("a.test"), &[], &[]);
        let kind = async || {
            let mut stream = client.connect(gateway.address()).await.unwrap();
            // TLS 1.3 tickets come with the first bytes of the server's.
            assert_eq!(ask(&mut stream, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 426);
            stream.get_ref().1.handshake_kind().unwrap()
        };
        assert_eq!(kind().await, HandshakeKind::Full);
        assert_eq!(kind().await, HandshakeKind::Resumed);
        names.pki.issue(&["a.test"]).write(&gateway.path().join("certs"), "exact");
        assert_eq!(gateway.reload()["message"], "reloaded");
        assert_eq!(kind().await, HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn plain_text_on_the_tls_port_gets_an_explanation() {
    let (gateway, _names) = start();
    let mut tcp = TcpStream::connect(gateway.address()).await.unwrap();
    let body = "x".repeat(20_000);
    let request = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("Use https:// or wss://"), "{answer}");
}

/// What a balancer or a client in front has wrong is said in words that tell what to change.
#[tokio::test]
async fn another_protocol_is_named_in_the_log() {
    const PROXY: &str = "sends the PROXY protocol: write its address in proxy_protocol of the listener";
    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\nGET / HTTP/1.1\r\n\r\n";
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x13\x88\x01\xbb";
    const HELLO: &[u8] = b"\x16\x03\x01\0\x05\x01\0\0\x01\0";
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let _names = names(&setup);
    let plain = "[[listener]]\naddress = \"127.0.0.3:0\"\ntls = false\n";
    let gateway = setup.start(&config("", &(plain.to_owned() + ECHO)));
    let addresses = gateway.addresses();
    for (address, message, cases) in [
        (
            addresses[0],
            "no TLS connection",
            &[
                (V1, PROXY),
                (V2, PROXY),
                (b"GET / HTTP/1.1\r\n\r\n", "plain HTTP on a TLS port: it needs https:// or wss://"),
                (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 without TLS on a TLS port"),
                (b"SSH-2.0-x\r\n", "plain text on a TLS port (first bytes \"SSH-2.0-x\\r\\n\")"),
            ][..],
        ),
        (
            addresses[2],
            "not an HTTP/1.1 request",
            &[
                (V1, PROXY),
                (V2, PROXY),
                (HELLO, "speaks TLS on a plain-text port: use http:// or ws://"),
                (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 without TLS; without TLS only HTTP/1.1"),
                (b"GET  / HTTP/1.1\r\n\r\n", "invalid"),
                (b"SSH-2.0-x\r\n\r\n", "invalid"),
            ],
        ),
    ] {
        for (n, (opening, cause)) in cases.iter().enumerate() {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.write_all(opening).await.unwrap();
            tcp.read_to_end(&mut Vec::new()).await.unwrap();
            let peer = tcp.local_addr().unwrap().to_string();
            drop(tcp); // the gateway waits for that
            let line = gateway.wait_nth(message, n);
            assert!(line["cause"].as_str().unwrap().contains(cause), "{line}, not {cause:?}");
            assert_eq!((&line["level"], &line["peer"]), (&"INFO".into(), &peer.into()));
        }
    }
}

#[tokio::test]
async fn requests_for_a_host_with_another_certificate_are_misdirected() {
    let (gateway, names) = start();
    let status = async |server_name: Option<&str>, host: &str| {
        let client = Tls::with(BOTH, server_name, &[], &[]);
        let mut stream = client.connect(gateway.address()).await.unwrap();
        ask(&mut stream, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.status()
    };
    assert_eq!(status(Some("a.test"), "a.test").await, 426);
    assert_eq!(status(Some("a.test"), "A.TEST.:8443").await, 426);
    assert_eq!(status(Some("a.test"), "x.wild.test").await, 421);
    assert_eq!(status(Some("a.test"), "default.test").await, 421);
    assert_eq!(status(Some("x.wild.test"), "y.wild.test").await, 426); // the same certificate
    assert_eq!(status(Some("a.test"), "unknown.test").await, 426); // no certificate has this name
    // An unknown name gets the default certificate, for the names of that one.
    assert_eq!(status(Some("unknown.test"), "a.test").await, 421);
    assert_eq!(status(Some("unknown.test"), "default.test").await, 426);
    assert_eq!(status(Some("unknown.test"), "unknown.test").await, 426);
    assert_eq!(status(Some("unknown.test"), "other.test").await, 426);
    assert_eq!(status(Some("default.test"), "a.test").await, 421);
    // A client without SNI may be a load balancer: only routes decide.
    assert_eq!(status(None, "a.test").await, 426);
    // A renewal is not another certificate.
    let client = Tls::with(BOTH, Some("a.test"), &[], &[]);
    let mut old = client.connect(gateway.address()).await.unwrap();
    let mut misdirected = client.connect(gateway.address()).await.unwrap();
    names.pki.issue(&["a.test"]).write(&gateway.path().join("certs"), "exact");
    gateway.reload();
    assert_eq!(ask(&mut old, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 426);
    let answer = ask(&mut misdirected, "GET / HTTP/1.1\r\nHost: x.wild.test\r\n\r\n").await;
    assert_eq!(answer.status(), 421);
    let line = gateway.wait_for(|line| line["status"] == 421, 0, "421");
    assert!(line["cause"].as_str().unwrap().contains("a.test"), "{line}");
}

#[tokio::test]
async fn only_a_silent_client_is_cut_at_the_handshake_timeout() {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let _names = names(&setup);
    let hasty = "[[listener]]\naddress = \"127.0.0.3:0\"\nhandshake_timeout = \"200ms\"\nheader_timeout = \"200ms\"\n";
    let gateway = setup.start(&config("", &(hasty.to_owned() + ECHO)));
    let address = gateway.addresses()[2];
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    let mut told = Vec::new();
    assert_eq!(support::soon(silent.read_to_end(&mut told)).await.unwrap(), 0);
    // Where a handshake had begun, it is canceled, and closed in order (RFC 8446 §6.1).
    support::soon(half.read_to_end(&mut told)).await.unwrap();
    assert_eq!(told, [21, 3, 3, 0, 2, 1, 90, 21, 3, 3, 0, 2, 1, 0]);
    // The same for a request head that doesn't come, over both protocols.
    for alpn in ["http/1.1", "h2"] {
        let mut stream = Tls::new("a.test", &[alpn]).connect(address).await.unwrap();
        let mut rest = Vec::new();
        let _ = support::soon(stream.read_to_end(&mut rest)).await;
    }
    let mut slow = Tls::new("a.test", &[]).connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    let mut rest = Vec::new();
    let _ = support::soon(slow.read_to_end(&mut rest)).await;
    assert!(Tls::new("a.test", &[]).connect(address).await.is_ok());
}

/// Connections that say nothing cost no handshake its permit, nor one client another's place.
#[tokio::test]
async fn silent_clients_do_not_delay_others() {
    let (gateway, _names) = start();
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let mut silent = Vec::new();
    // More than there are permits, and half a hello from more than one client may have permits for.
    for n in 0..4500 {
        let mut tcp = TcpStream::connect(gateway.address()).await.unwrap();
        if n % 4 == 0 {
            tcp.write_all(&[0x16, 0x03]).await.unwrap();
        }
        silent.push(tcp);
    }
    let started = std::time::Instant::now();
    for _ in 0..5 {
        support::soon(Tls::new("a.test", &[]).connect(gateway.address())).await.unwrap();
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(4), "{:?}", started.elapsed());
    let line = gateway.wait_for(|line| line["clients"].is_u64(), 0, "clients that are given up");
    assert_eq!(line["level"], "WARN");
    // Those that say something after a while are served.
    let late = silent.swap_remove(1);
    let mut late = Tls::new("a.test", &[]).over(late).await.unwrap();
    assert_eq!(ask(&mut late, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 426);
}
