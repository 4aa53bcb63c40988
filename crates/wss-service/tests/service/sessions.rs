//! How sessions open, what they know, and how they go.

use super::*;

#[tokio::test]
async fn messages_go_both_ways_over_each_kind_of_connection() {
    let certs = Certs::new(&["a.test"]);
    let running = start(bind().certificates(certs.load()).on_message(echo));
    for versions in [TLS12, TLS13] {
        let tls = Tls::with(versions, Some("a.test"), &["http/1.1"], &[]);
        let io = tls.connect(running.address).await.unwrap();
        WebSocket::connect(io, "a.test", "/", "").await.unwrap().0.echoes("over HTTP/1.1").await;
        let tls = Tls::with(versions, Some("a.test"), &["h2"], &[]);
        let mut http2 = running.http2(&tls).await;
        let mut first = http2.websocket("/", &[]).await.unwrap().0;
        let mut second = http2.websocket("/", &[]).await.unwrap().0;
        first.echoes("over HTTP/2").await;
        second.echoes(&"long ".repeat(50_000)).await;
        first.close(1000).await;
        first.expect_close(1000).await;
        first.expect_end().await;
        second.echoes("the other stream goes on").await;
    }
}

#[tokio::test]
async fn a_service_without_tls() {
    let running = start(bind().on_message(echo));
    running.open("/").await.echoes("in plain text").await;
}

#[tokio::test]
async fn a_session_knows_its_client() {
    let certs = Certs::new(&["a.test"]);
    let (note, mut seen) = mpsc::unbounded_channel();
    let service = bind()
        .certificates(certs.load())
        .subprotocols(["v2.chat", "v1.chat"])
        .trusted_proxies(["127.0.0.0/8".parse().unwrap()])
        .on_open(move |session: Session| {
            let _ = note.send(session);
            std::future::ready(Ok(()))
        });
    let running = start(service);
    let tls = Tls::with(TLS13, Some("A.test"), &["http/1.1"], &[]);
    let io = tls.connect(running.address).await.unwrap();
    let fields =
        "Sec-WebSocket-Protocol: v0.chat, v1.chat, v2.chat\r\nX-Forwarded-For: 192.0.2.7\r\nX-Note: here\r\n";
    let (_client, head) = WebSocket::connect(io, "a.test", "/a%20b?c=d", fields).await.unwrap();
    assert_eq!(head.get("sec-websocket-protocol"), Some("v1.chat"));
    let session = soon(seen.recv()).await.unwrap();
    assert!(session.peer().ip().is_loopback() && session.local() == Some(running.address));
    assert_eq!(session.client().to_string(), "192.0.2.7");
    assert_eq!((session.path(), session.query()), ("/a%20b", Some("c=d")));
    assert_eq!((session.field("x-note"), session.field("X-None")), (Some("here"), None));
    assert_eq!(session.subprotocol(), Some("v1.chat"));
    assert_eq!(session.offered_subprotocols().collect::<Vec<_>>(), ["v0.chat", "v1.chat", "v2.chat"]);
    let tls = session.tls().unwrap();
    assert_eq!((tls.server_name.as_deref(), tls.version, tls.resumed), (Some("a.test"), "TLSv1.3", false));
    assert!(tls.client_certificate.is_none());
}

#[tokio::test]
async fn values_are_attached_by_their_types() {
    struct Count(u32);
    let service = bind().on_message(async |session: Session, _: Message| {
        let count = session.data_of::<Count>().map_or(0, |count| count.0) + 1;
        session.attach(Count(count));
        assert_eq!(session.data_of::<String>(), None);
        session.send(count.to_string()).await
    });
    let mut client = start(service).open("/").await;
    for count in ["1", "2", "3"] {
        client.text("again").await;
        client.expect_text(count).await;
    }
}

#[tokio::test]
async fn a_handler_refuses_with_a_status() {
    let certs = Certs::new(&["a.test"]);
    let (closing, mut closes) = closes();
    let service = bind()
        .certificates(certs.load())
        .on_open(async |session: Session| {
            session.join("refused");
            match session.field("authorization") {
                Some("Bearer good") => Ok(()),
                _ => Err(Refusal::new(StatusCode::UNAUTHORIZED).with_field("www-authenticate", "Bearer")),
            }
        })
        .on_message(echo)
        .on_close(closing);
    let running = start(service);
    let io = Tls::new("a.test", &["http/1.1"]).connect(running.address).await.unwrap();
    let refused = WebSocket::connect(io, "a.test", "/", "").await.err().unwrap();
    assert_eq!((refused.status(), refused.get("www-authenticate")), (401, Some("Bearer")));
    let mut http2 = running.http2(&Tls::new("a.test", &["h2"])).await;
    let refused = http2.websocket("/", &[]).await.err().unwrap();
    assert_eq!((refused.status(), refused.text()), (401, "401 Unauthorized\n".into()));
    assert_eq!((running.hub.count(To::All), running.hub.groups_count()), (0, 0));
    let mut good = http2.websocket("/", &[("authorization", "Bearer good")]).await.unwrap().0;
    good.echoes("let in").await;
    good.close(1000).await;
    assert_eq!(soon(closes.recv()).await.unwrap().code, 1000);
    assert!(closes.try_recv().is_err(), "a refused session has no end");
}

#[tokio::test]
async fn what_is_no_proper_handshake_is_refused() {
    let service = bind().path("/ws").origins(["https://a.test"]).unwrap().on_message(echo);
    let running = start(service);
    running.open("/ws").await.echoes("no browser").await;
    assert_eq!(running.refused("/ws", "Origin: https://b.test\r\n").await.status(), 403);
    assert_eq!(running.refused("/other", "").await.status(), 404);
    let plain = ask(&mut running.tcp().await, "GET /ws HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!((plain.status(), plain.head.get("upgrade")), (426, Some("websocket")));
    for hosts in ["", "Host: a.test\r\nHost: b.test\r\n", "Host: a/b\r\n"] {
        let bad = ask(&mut running.tcp().await, format!("GET /ws HTTP/1.1\r\n{hosts}\r\n")).await;
        assert_eq!(bad.status(), 400, "{hosts}");
    }
    let old = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
               Sec-WebSocket-Version: 8\r\n\r\n";
    let old = ask(&mut running.tcp().await, old).await;
    assert_eq!((old.status(), old.head.get("sec-websocket-version")), (426, Some("13")));
    assert!(bind().origins(["a.test"]).is_err());
}

#[tokio::test]
async fn a_request_has_a_hundred_fields_at_most() {
    let certs = Certs::new(&["a.test"]);
    let running = start(bind().certificates(certs.load()).on_message(echo));
    let mut http2 = running.http2(&Tls::new("a.test", &["h2"])).await;
    let refused = http2.websocket("/", &[("x-a", "b"); 200]).await.err().unwrap();
    assert_eq!(refused.status(), 431);
    http2.websocket("/", &[("x-a", "b"); 90]).await.unwrap().0.echoes("on the same connection").await;
    let many = "X-A: b\r\n".repeat(200);
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n");
    let mut http1 = Tls::new("a.test", &["http/1.1"]).connect(running.address).await.unwrap();
    assert_eq!(ask(&mut http1, request).await.status(), 431);
}

#[tokio::test]
async fn who_ended_a_session_and_why() {
    let (closing, mut closes) = closes();
    let running = start(bind().on_message(echo).on_close(closing));
    let mut closed = async move || soon(closes.recv()).await.unwrap();
    let mut client = running.open("/").await;
    client.close(4000).await;
    let by_client = closed().await;
    assert_eq!((by_client.by, by_client.code, by_client.cause), (Party::Client, 4000, Cause::ClosedByClient));
    drop(running.open("/").await);
    let lost = closed().await;
    assert_eq!((lost.by, lost.code), (Party::Client, 1006));
    let mut client = running.open("/").await;
    client.send_raw(&[0x81, 0x01, b'a']).await;
    client.expect_close(1002).await;
    assert!(matches!(closed().await.cause, Cause::Violation(_)));
    let _client = running.open("/").await;
    until(async || running.hub.count(To::All) == 1).await;
    running.hub.sessions(To::All)[0].close(CloseCode::NORMAL, "done");
    let by_server = closed().await;
    assert_eq!((by_server.by, by_server.code, &*by_server.reason), (Party::Server, 1000, "done"));
}

#[tokio::test]
async fn a_panic_ends_its_session_and_no_other() {
    let (closing, mut closes) = closes();
    let service = bind()
        .on_message(async |session: Session, message: Message| {
            assert_ne!(message.as_text(), Some("panic"), "as it was told");
            session.send(message).await
        })
        .on_close(closing);
    let running = start(service);
    let (mut good, mut bad) = (running.open("/").await, running.open("/").await);
    bad.text("panic").await;
    bad.expect_close(1011).await;
    good.echoes("still here").await;
    bad.close(1011).await;
    assert_eq!(soon(closes.recv()).await.unwrap().cause, Cause::HandlerPanicked);
}

#[tokio::test]
async fn a_panic_in_on_open_is_a_500() {
    let service = bind().on_open(async |session: Session| {
        assert_ne!(session.path(), "/panic");
        Ok(())
    });
    let running = start(service);
    assert_eq!(running.refused("/panic", "").await.status(), 500);
    running.open("/").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let (closing, mut closes) = closes();
    let slow_client = SlowClient::Close(CloseCode::POLICY_VIOLATION);
    let settings = Settings { slow_client, outbox_max: 100_000, ..Settings::default() };
    let service =
        bind().settings(settings).on_close(closing).on_message(async |session: Session, _: Message| {
            while session.send(vec![0; 50_000]).await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
    let running = start(service);
    let mut client = running.open("/").await;
    client.text("begin").await;
    let closed = soon(closes.recv()).await.unwrap();
    assert_eq!((closed.by, closed.code, closed.cause), (Party::Server, 1008, Cause::SlowClient));
}

/// What a handler sends at one go is written while it sends: else each client would be a slow one.
#[tokio::test]
async fn a_client_that_reads_is_not_too_slow_for_a_burst() {
    for slow_client in [SlowClient::Close(CloseCode::TRY_AGAIN_LATER), SlowClient::DropOldest] {
        let settings = Settings { slow_client, outbox_max: 10_000, ..Settings::default() };
        let service = bind().settings(settings).on_message(async |session: Session, _: Message| {
            for _ in 0..50 {
                session.send(vec![0; 1_000]).await?;
            }
            session.send("done").await
        });
        let mut client = start(service).open("/").await;
        client.text("begin").await;
        for _ in 0..50 {
            assert_eq!(client.receive().await.unwrap().payload.len(), 1_000);
        }
        client.expect_text("done").await;
    }
}

#[tokio::test]
async fn connections_have_places_where_they_are_bounded() {
    let settings = Settings { connections_max: Some(1), ..Settings::default() };
    let running = start(bind().settings(settings).on_message(echo));
    let mut first = running.open("/").await;
    first.echoes("first").await;
    let session = running.hub.sessions(To::All).remove(0);
    let second = running.tcp().await;
    let waiting = tokio::spawn(WebSocket::connect(second, "a.test", "/", ""));
    first.echoes("still alone").await;
    assert_eq!(running.hub.count(To::All), 1);
    drop(first);
    let mut second = soon(waiting).await.unwrap().unwrap().0;
    second.echoes("second").await;
    assert!(session.is_over(), "a program that keeps it keeps no place");
}

#[tokio::test]
async fn each_listener_has_clients_where_places_are_few() {
    let settings = Settings { connections_max: Some(1), ..Settings::default() };
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let service = bind().listen(other).settings(settings).on_message(echo);
    let addresses = service.addresses();
    let _running = start(service);
    for address in [addresses[1], addresses[0], addresses[0]] {
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut client = soon(WebSocket::connect(tcp, "a.test", "/", "")).await.unwrap().0;
        client.echoes("alone").await;
    }
}

#[tokio::test]
async fn round_trips_of_pings_are_known_until_the_session_is_over() {
    let settings = Settings { ping_interval: Some(Duration::from_millis(20)), ..Settings::default() };
    let running = start(bind().settings(settings).on_message(echo));
    let mut client = running.open("/").await;
    until(async || running.hub.count(To::All) == 1).await;
    let session = running.hub.sessions(To::All).remove(0);
    let ping = soon(client.receive()).await.unwrap();
    assert_eq!(ping.b0, 0x89);
    assert_eq!(soon(session.round_trips()).await, None, "none was answered");
    client.send(0x8A, &ping.payload).await;
    until(async || session.round_trips().await.is_some()).await;
    let (one, other) = soon(async { tokio::join!(session.round_trips(), session.round_trips()) }).await;
    assert!(one.is_some_and(|times| times.min_us <= times.last_us) && other.is_some());
    drop(client);
    until(async || session.is_over()).await;
    assert_eq!(soon(session.round_trips()).await, None);
}

#[tokio::test]
async fn a_task_hears_of_the_end_of_a_session() {
    let running = start(bind().on_message(echo));
    let mut client = running.open("/").await;
    until(async || running.hub.count(To::All) == 1).await;
    let session = running.hub.sessions(To::All).remove(0);
    let over = tokio::spawn({
        let session = session.clone();
        async move { session.over().await }
    });
    client.echoes("it goes on").await;
    assert!(!over.is_finished() && !session.is_over());
    session.close(CloseCode::NORMAL, "");
    soon(over).await.unwrap();
    soon(session.over()).await;
}

#[tokio::test]
async fn what_has_passed_is_counted() {
    let certs = Certs::new(&["a.test", "b.test"]);
    let service = bind().certificates(certs.load()).path("/ws").origins(["https://a.test"]).unwrap();
    let running = start(service.on_message(async |session: Session, message: Message| {
        if message.as_text() == Some("fail") {
            return Err("as it was told".into());
        }
        session.send("five!").await?;
        Ok::<_, wss_service::HandlerError>(())
    }));
    assert_eq!(running.hub.totals(), wss_service::Totals::default());
    let open = async |path, fields| {
        let io = Tls::new("a.test", &["http/1.1"]).connect(running.address).await.unwrap();
        WebSocket::connect(io, "a.test", path, fields).await
    };
    let mut first = open("/ws", "").await.unwrap().0;
    first.text("one").await;
    first.expect_text("five!").await;
    assert_eq!(open("/ws", "Origin: https://b.test\r\n").await.err().unwrap().status(), 403);
    assert!(
        Tls::new("c.test", &["http/1.1"]).connect(running.address).await.is_err(),
        "there is no certificate for it"
    );
    until(async || running.hub.totals().tls_failed == 1).await;
    let totals = running.hub.totals();
    assert_eq!((totals.connections, totals.refused, totals.opened, totals.ended), (3, 1, 1, 0));
    first.text("fail").await;
    first.expect_close(1011).await;
    drop(first);
    until(async || running.hub.totals().ended == 1).await;
    let totals = running.hub.totals();
    assert_eq!((totals.failed, totals.messages_in, totals.bytes_in), (1, 2, 7));
    assert_eq!((totals.messages_out, totals.bytes_out, totals.dropped), (1, 5, 0));
}
