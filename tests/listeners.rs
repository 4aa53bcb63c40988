//! Listeners: balancers in front, and the way from plain HTTP to TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use support::backend::echo;
use support::gateway::{Gateway, RETIRED, Setup, config, route, send_signal};
use support::http1::ask;
use support::http2::Http2;
use support::tls::Tls;
use support::until;
use support::ws::WebSocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

/// Version 2 for this client, with TLVs of so many bytes.
fn v2(client: [u8; 4], tlvs: u16) -> Vec<u8> {
    let len = (12 + tlvs).to_be_bytes();
    let addresses = [&client[..], &[127, 0, 0, 1], &5000_u16.to_be_bytes(), &[1, 0xbb]].concat();
    let mut tlv = vec![0; usize::from(tlvs)];
    if let [kind, high, low, ..] = &mut tlv[..] {
        *kind = 0xe0;
        [*high, *low] = (tlvs - 3).to_be_bytes();
    }
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &len, &addresses, &tlv].concat()
}

fn start(listener: &str, routes: &str) -> Gateway {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test", "a.test"]);
    let text = config("trusted_proxies = [\"10.0.0.0/8\"]", routes);
    let text = text.replacen("127.0.0.1:0\"", &format!("127.0.0.1:0\"\n{listener}"), 1);
    setup.start(&text.replace("tls = false", &format!("tls = false\n{listener}")))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: default.test\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";

#[tokio::test]
async fn the_address_in_the_header_is_the_clients_whatever_follows() {
    let (backend, seen) = echo().await;
    let gateway = start("proxy_protocol = [\"127.0.0.0/8\", \"::1\"]", &route("/", backend.address));
    let v1 = b"PROXY TCP4 192.0.2.1 127.0.0.1 5000 443\r\n".to_vec();
    let trusted = v2([10, 0, 0, 7], 5);
    for (n, (header, real, client)) in [
        (v1.clone(), "192.0.2.1", "192.0.2.1"),
        (v2([192, 0, 2, 2], 0), "192.0.2.2", "192.0.2.2"),
        (v2([192, 0, 2, 3], 16_000), "192.0.2.3", "192.0.2.3"),
        // `trusted_proxies` are compared with the address in the header.
        (trusted, "203.0.113.9", "203.0.113.9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        // Plain text, in one piece with the request.
        let mut tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
        assert_eq!(ask(&mut tcp, [&header[..], GET.as_bytes()].concat()).await.status(), 200);
        assert_eq!(seen.last().get("x-real-ip"), Some(real));
        assert_eq!(gateway.wait_nth("request", 2 * n)["client"], client);
        // TLS, byte by byte.
        let mut tcp = TcpStream::connect(gateway.address()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        for piece in header.chunks(if header.len() < 100 { 1 } else { 997 }) {
            tcp.write_all(piece).await.unwrap();
            tcp.flush().await.unwrap();
        }
        let mut tls = Tls::new("default.test", &["http/1.1"]).over(tcp).await.unwrap();
        assert_eq!(ask(&mut tls, GET).await.status(), 200);
        assert_eq!(seen.last().get("x-real-ip"), Some(real));
        assert_eq!(gateway.wait_nth("request", 2 * n + 1)["client"], client);
    }
    // The same over HTTP/2, and for a WebSocket.
    let mut tcp = TcpStream::connect(gateway.address()).await.unwrap();
    tcp.write_all(&v1).await.unwrap();
    let tls = Tls::new("default.test", &["h2"]).over(tcp).await.unwrap();
    let mut client = Http2::connect(tls, "default.test").await;
    let (mut socket, _) = client.websocket("/", &[]).await.unwrap();
    socket.echoes("hello").await;
    assert_eq!(seen.last().get("x-real-ip"), Some("192.0.2.1"));
    socket.close(1000).await;
    socket.expect_close(1000).await;
    let line = gateway.wait("session");
    assert_eq!((&line["client"], &line["peer"]), (&"192.0.2.1".into(), &"192.0.2.1:5000".into()));
}

#[tokio::test]
async fn a_header_whose_checksum_is_wrong_is_refused() {
    let gateway = start("proxy_protocol = [\"127.0.0.1\"]", "[[route]]\npath = \"/\"\nrespond = 204\n");
    let front = v2([192, 0, 2, 1], 7);
    let header = |sum: u32| {
        let tlv = [&[3, 0, 4][..], &sum.to_be_bytes()].concat();
        [&front[..front.len() - 7], &tlv[..]].concat()
    };
    let zeroed = header(0);
    let crc = zeroed.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 },
        )
    });
    let mut io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    io.write_all(&header(!crc)).await.unwrap();
    assert_eq!(ask(&mut io, GET).await.status(), 204);
    let mut io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    io.write_all(&[&header(crc)[..], GET.as_bytes()].concat()).await.unwrap();
    let line = gateway.wait("no header of the PROXY protocol");
    assert_eq!(line["cause"], "the checksum of the PROXY protocol's header is wrong");
}

#[tokio::test]
async fn the_header_is_demanded_from_balancers_only() {
    let (backend, _seen) = echo().await;
    let strangers = start("proxy_protocol = [\"192.0.2.0/24\"]", &route("/", backend.address));
    let mut tcp = TcpStream::connect(strangers.addresses()[1]).await.unwrap();
    assert_eq!(ask(&mut tcp, GET).await.status(), 200);
    let mut tcp = TcpStream::connect(strangers.addresses()[1]).await.unwrap();
    let claimed = [&v2([192, 0, 2, 2], 0)[..], GET.as_bytes()].concat();
    assert_eq!(ask(&mut tcp, claimed).await.status(), 400);
    let line = strangers.wait("not an HTTP/1.1 request");
    assert!(line["cause"].as_str().unwrap().contains("write its address in proxy_protocol"), "{line}");

    let balancer =
        start("proxy_protocol = \"127.0.0.1\"\nheader_timeout = \"300ms\"", &route("/", backend.address));
    for (n, (bytes, cause)) in [
        (GET.as_bytes(), "doesn't begin with a header"),
        (b"\x16\x03\x01\0\x05", "doesn't begin with a header"),
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 +80 443\r\n", "version 1 is not valid"),
        (b"PROXY TCP4 192.0.2.1 127", "not complete in time"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut tcp = TcpStream::connect(balancer.addresses()[1]).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let ended = tcp.read_to_end(&mut Vec::new()).await;
        assert!(ended.is_err() || ended.unwrap() == 0, "nothing is answered");
        let line = balancer.wait_nth("no header of the PROXY protocol", n);
        assert!(line["cause"].as_str().unwrap().contains(cause), "{line}");
    }
    // A health check that only connects.
    drop(TcpStream::connect(balancer.addresses()[1]).await.unwrap());
    let mut tcp = TcpStream::connect(balancer.addresses()[1]).await.unwrap();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x13\x88\x01\xbb";
    assert_eq!(ask(&mut tcp, [&local[..], GET.as_bytes()].concat()).await.status(), 200);
    assert_eq!(balancer.wait("request")["client"], "127.0.0.1");
}

/// An address of its own, since the port has to be known before.
fn own_address() -> SocketAddr {
    let pid = std::process::id().to_be_bytes();
    ([127, pid[2] | 64, pid[3], 77], 8443).into()
}

#[tokio::test]
async fn plain_http_is_sent_to_tls() {
    let setup =
        Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test", "a.test", "b.test"]);
    let tls = own_address();
    let text = format!(
        "[[listener]]\nname = \"tls\"\naddress = \"{tls}\"\nplain_http = \"redirect\"\n\
         [[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\ntls = false\nredirect = \"https\"\n\
         [certificates]\ndirectory = \"certs\"\ndefault = \"default.test\"\n\
         [[route]]\nname = \"a\"\nhost = [\"a.test\", \"*.a.test\"]\npath = \"/\"\nservice = \"echo\"\n\
         [[route]]\nname = \"inner\"\nhost = \"b.test\"\npath = \"/\"\nlistener = \"plain\"\nservice = \"echo\"\n\
         [[route]]\nname = \"webroot\"\npath = \"/.well-known/acme-challenge\"\nlistener = \"plain\"\nservice = \"echo\"\n"
    );
    let gateway = setup.start(&text);
    let plain = gateway.addresses()[1];
    for (address, host, path, status, location) in [
        (plain, "A.test:80", "/x/y?q=1&r=%2F", 308, Some("https://a.test:8443/x/y?q=1&r=%2F")),
        (plain, "www.a.test", "//evil.test/x", 308, Some("https://www.a.test:8443//evil.test/x")),
        (plain, "c.test", "/", 404, None),
        (plain, "b.test", "/", 426, None),
        (plain, "a.test", "/.well-known/acme-challenge/token", 426, None),
        (tls, "a.test", "/x?y", 308, Some("https://a.test:8443/x?y")),
        (tls, "b.test", "/", 404, None),
        (
            tls,
            "a.test",
            "/.well-known/acme-challenge/token",
            308,
            Some("https://a.test:8443/.well-known/acme-challenge/token"),
        ),
    ] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let answer = ask(&mut tcp, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((answer.status(), answer.head.get("location")), (status, location), "{host}{path}");
    }
    // The same port speaks TLS.
    let io = Tls::new("a.test", &["http/1.1"]).connect(tls).await.unwrap();
    WebSocket::connect(io, "a.test", "/", "").await.unwrap().0.echoes("hello").await;
    let mut tcp = TcpStream::connect(tls).await.unwrap();
    tcp.write_all(b"\0\0\0\0").await.unwrap();
    let mut alert = Vec::new();
    tcp.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert[0], 21, "what is no text gets an alert");
}

/// A gateway that also listens on `http.sock` and `tls.sock` in its directory.
fn start_on_sockets(top: &str, listener: &str, routes: &str) -> Gateway {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    let text = on_sockets(setup.path(), top, listener, routes);
    setup.start(&text)
}

fn on_sockets(directory: &Path, top: &str, listener: &str, routes: &str) -> String {
    let directory = directory.display();
    let more = format!(
        "[[listener]]\naddress = \"unix:{directory}/http.sock\"\ntls = false\n{listener}\n\
         [[listener]]\naddress = \"unix:{directory}/tls.sock\"\n{routes}"
    );
    config(top, &more)
}

async fn unix(gateway: &Gateway, name: &str) -> UnixStream {
    UnixStream::connect(gateway.path().join(name)).await.unwrap()
}

#[tokio::test]
async fn a_proxy_in_front_over_unix_sockets() {
    let (backend, seen) = echo().await;
    let routes = route("/", backend.address)
        + "[[route]]\npath = \"/shut\"\nrespond = 200\n[route.access]\ndeny = [\"unix\"]\n";
    let gateway = start_on_sockets("trusted_proxies = [\"unix\"]", "", &routes);
    let mode = std::fs::metadata(gateway.path().join("http.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    assert_eq!(ask(&mut unix(&gateway, "http.sock").await, GET).await.status(), 200);
    assert_eq!(seen.last().get("x-real-ip"), Some("203.0.113.9"));
    assert_eq!(seen.last().get("x-forwarded-for"), Some("203.0.113.9, unix"));
    let line = gateway.wait_nth("request", 0);
    assert_eq!((&line["peer"], &line["client"]), (&"unix".into(), &"203.0.113.9".into()));
    // Without a word about its client it is the client.
    let get = "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n";
    let mut tls =
        Tls::new("default.test", &["http/1.1"]).over_any(unix(&gateway, "tls.sock").await).await.unwrap();
    assert_eq!(ask(&mut tls, get).await.status(), 200);
    assert_eq!(seen.last().get("x-real-ip"), Some("unix"));
    assert_eq!(gateway.wait_nth("request", 1)["client"], "unix");
    for (fields, status) in [("", 403), ("X-Forwarded-For: 203.0.113.9\r\n", 200)] {
        let request = format!("GET /shut HTTP/1.1\r\nHost: default.test\r\n{fields}\r\n");
        assert_eq!(ask(&mut unix(&gateway, "http.sock").await, request).await.status(), status);
    }
    // Another one is not trusted, and may begin with the PROXY protocol.
    let gateway = start_on_sockets("", "proxy_protocol = [\"unix\"]", &route("/", backend.address));
    let mut io = unix(&gateway, "http.sock").await;
    io.write_all(b"PROXY TCP4 192.0.2.1 127.0.0.1 5000 443\r\n").await.unwrap();
    assert_eq!(ask(&mut io, GET).await.status(), 200);
    assert_eq!(seen.last().get("x-forwarded-for"), Some("192.0.2.1"));
    let mut io = unix(&gateway, "http.sock").await;
    io.write_all(b"PROXY TCP6 :: ::1 5000 443\r\n").await.unwrap();
    assert_eq!(io.read(&mut [0]).await.unwrap_or(0), 0, "that would be a peer over a Unix socket");
    let mut io = unix(&gateway, "http.sock").await;
    io.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(io.read(&mut [0]).await.unwrap_or(0), 0, "the header is missing");
    // One that has to wait for another is named so, too.
    let gateway = start_on_sockets("max_connections = 1", "", &route("/", backend.address));
    let mut first = unix(&gateway, "http.sock").await;
    assert_eq!(ask(&mut first, GET).await.status(), 200);
    let _second = unix(&gateway, "http.sock").await;
    let line = gateway.wait("as many connections are open as max_connections allows: others wait");
    assert_eq!(line["latest"], "unix", "{line}");
}

#[tokio::test]
async fn unix_sockets_over_reloads_and_takeovers() {
    let (backend, _seen) = echo().await;
    let gateway = start_on_sockets("", "", &route("/", backend.address));
    let [http, tls] = ["http.sock", "tls.sock"].map(|name| gateway.path().join(name));
    let mut plain =
        WebSocket::connect(unix(&gateway, "http.sock").await, "default.test", "/", "").await.unwrap().0;
    let io =
        Tls::new("default.test", &["http/1.1"]).over_any(unix(&gateway, "tls.sock").await).await.unwrap();
    let mut encrypted = WebSocket::connect(io, "default.test", "/", "").await.unwrap().0;
    gateway.reload();
    plain.echoes("after a reload").await;
    let new = gateway.take_over();
    let moved = gateway.wait("sessions moved: they go on in the new process");
    assert_eq!((&moved["sessions_moved"], &moved["sessions_left"]), (&2.into(), &0.into()));
    gateway.wait(RETIRED);
    for socket in [&mut plain, &mut encrypted] {
        socket.echoes("after a takeover").await;
    }
    let mut again =
        WebSocket::connect(unix(&gateway, "http.sock").await, "default.test", "/", "").await.unwrap().0;
    again.echoes("to the new process").await;
    assert!([&http, &tls].iter().all(|path| std::fs::metadata(path).unwrap().file_type().is_socket()));
    // A listener that goes takes its path with it, and the end takes the others.
    let text = std::fs::read_to_string(gateway.path().join("wssgate.toml")).unwrap();
    gateway.write_config(&text.replace("/tls.sock", "/other.sock"));
    send_signal(new, "HUP");
    gateway.wait("no longer listening");
    assert!(!tls.exists() && gateway.path().join("other.sock").exists());
    send_signal(new, "TERM");
    until(async || !http.exists() && !gateway.path().join("other.sock").exists()).await;
}

#[tokio::test]
async fn a_socket_that_was_removed_is_made_again_by_a_reload() {
    let (backend, _seen) = echo().await;
    let routes = route("/", backend.address) + "[admin]\naddress = \"127.0.0.3:0\"\n";
    let gateway = start_on_sockets("", "", &routes);
    let path = gateway.path().join("http.sock");
    let ready = async || {
        let mut tcp = TcpStream::connect(gateway.admin()).await.unwrap();
        ask(&mut tcp, "GET /readyz HTTP/1.1\r\nHost: admin\r\n\r\n").await
    };
    let mut live =
        WebSocket::connect(unix(&gateway, "http.sock").await, "default.test", "/", "").await.unwrap().0;
    assert_eq!(ready().await.status(), 200);
    for n in 0..2 {
        std::fs::remove_file(&path).unwrap();
        if n == 1 {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // of another process, which is dead
        }
        let answer = ready().await;
        assert!(answer.status() == 503 && answer.text().contains("http.sock has been removed or replaced"));
        let report = gateway.reload();
        assert_eq!((&report["listeners_added"], &report["listeners_removed"]), (&0.into(), &0.into()));
        gateway.wait_nth("the socket has been removed or replaced: it is made again", n);
        assert_eq!(ask(&mut unix(&gateway, "http.sock").await, GET).await.status(), 200);
        assert_eq!(ready().await.status(), 200);
        live.echoes("still here").await;
    }
    // A process that listens there keeps the path, and the reload is refused.
    std::fs::remove_file(&path).unwrap();
    let alive = UnixListener::bind(&path).unwrap();
    gateway.signal("HUP");
    gateway.wait("reload refused: the old generation stays in use");
    let problem = gateway.wait("this problem prevents the reload")["problem"].to_string();
    assert!(problem.contains("another process") && problem.contains("http.sock"), "{problem}");
    drop(alive);
    live.echoes("still here").await;
}

#[tokio::test]
async fn what_is_at_the_path_already() {
    // What a dead process has left is replaced.
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    drop(std::os::unix::net::UnixListener::bind(setup.path().join("http.sock")).unwrap());
    let respond = "[[route]]\npath = \"/\"\nrespond = 204\n";
    let text = on_sockets(setup.path(), "", "", respond);
    let gateway = setup.start(&text);
    assert_eq!(ask(&mut unix(&gateway, "http.sock").await, GET).await.status(), 204);
    // One that lives is not, nor is a file.
    for is_file in [false, true] {
        let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
        let path = setup.path().join("http.sock");
        let _alive = if is_file {
            std::fs::write(&path, "a file").unwrap();
            None
        } else {
            Some(UnixListener::bind(&path).unwrap())
        };
        let text = on_sockets(setup.path(), "", "", respond);
        let mut gateway = setup.launch(&text);
        assert!(!gateway.wait_end().success());
        let says = if is_file { "is there already and is not a socket" } else { "another process" };
        assert!(gateway.log().contains(says), "{}", gateway.log());
        assert!(path.exists());
    }
}
