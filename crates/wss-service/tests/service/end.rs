//! The end of a service.

use super::*;

fn settings(drain_window: Duration, drain_timeout: Duration) -> Settings {
    Settings { drain_window, drain_timeout, drain_code: CloseCode::SERVICE_RESTART, ..Settings::default() }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_drain_closes_everybody_in_order() {
    let certs = Certs::new(&["a.test"]);
    let (closing, mut closes) = closes();
    let service = bind()
        .certificates(certs.load())
        .settings(settings(SECOND / 10, 20 * SECOND))
        .on_message(echo)
        .on_close(closing);
    let running = start(service);
    let io = Tls::new("a.test", &["http/1.1"]).connect(running.address).await.unwrap();
    let mut first = WebSocket::connect(io, "a.test", "/", "").await.unwrap().0;
    let mut http2 = running.http2(&Tls::new("a.test", &["h2"])).await;
    let mut second = http2.websocket("/", &[]).await.unwrap().0;
    first.echoes("here").await;
    second.echoes("here").await;
    running.stop.send(()).unwrap();
    for client in [&mut first, &mut second] {
        client.expect_close(1012).await;
        client.close(1012).await;
        client.expect_end().await;
    }
    drop((first, second));
    assert!(soon(running.serving).await.unwrap().is_ok());
    assert!(TcpStream::connect(running.address).await.is_err(), "its socket is closed");
    for _ in 0..2 {
        assert_eq!(closes.try_recv().unwrap().cause, Cause::Drained);
    }
}

#[tokio::test]
async fn times_without_a_bound_are_no_panic() {
    let certs = Certs::new(&["a.test"]);
    let settings = Settings {
        idle_timeout: Some(Duration::MAX),
        lifetime: Some(Duration::MAX),
        ping_interval: Some(Duration::MAX),
        pong_timeout: Duration::MAX,
        handshake_timeout: Duration::MAX,
        header_timeout: Duration::MAX,
        drain_window: Duration::ZERO,
        drain_timeout: Duration::MAX,
        ..Settings::default()
    };
    let running = start(bind().certificates(certs.load()).settings(settings).on_message(echo));
    let io = Tls::new("a.test", &["http/1.1"]).connect(running.address).await.unwrap();
    let mut client = WebSocket::connect(io, "a.test", "/", "").await.unwrap().0;
    client.echoes("here").await;
    running.stop.send(()).unwrap();
    client.expect_close(1001).await;
    client.close(1001).await;
    drop(client);
    assert!(soon(running.serving).await.unwrap().is_ok());
}

#[tokio::test]
async fn closes_are_spread_over_the_window() {
    let running = start(bind().settings(settings(SECOND, 20 * SECOND)).on_message(echo));
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(running.open("/").await);
    }
    until(async || running.hub.count(To::All) == 20).await;
    let begun = std::time::Instant::now();
    running.stop.send(()).unwrap();
    let ends = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            client.expect_close(1012).await;
            begun.elapsed()
        })
    });
    let mut elapsed = Vec::new();
    for end in ends.collect::<Vec<_>>() {
        elapsed.push(end.await.unwrap());
    }
    elapsed.sort_unstable();
    // All within a tenth of the window: 20 · 0.1^19.
    assert!(elapsed[19] - elapsed[0] > SECOND / 10, "{elapsed:?}");
}

#[tokio::test]
async fn what_does_not_end_is_cut() {
    let (closing, mut closes) = closes();
    let service = bind()
        .settings(settings(Duration::ZERO, SECOND / 5))
        .on_message(async |_: Session, _: Message| std::future::pending::<()>().await)
        .on_close(closing);
    let running = start(service);
    let mut client = running.open("/").await;
    client.text("a handler that never ends").await;
    let hub = running.hub.clone();
    until(async || hub.count(To::All) == 1).await;
    running.stop.send(()).unwrap();
    assert!(soon(running.serving).await.unwrap().is_ok());
    assert_eq!(closes.try_recv().unwrap().cause, Cause::Cut);
    assert_eq!(hub.count(To::All), 0);
}

#[tokio::test]
async fn a_service_that_is_dropped_cuts_its_sessions() {
    let (closing, mut closes) = closes();
    let running = start(bind().on_message(echo).on_close(closing));
    let mut client = running.open("/").await;
    client.echoes("here").await;
    running.serving.abort();
    client.expect_end().await;
    assert_eq!(soon(closes.recv()).await.unwrap().cause, Cause::Cut);
}

#[tokio::test]
async fn a_service_that_does_not_listen_says_so() {
    let error = Service::new().run_until(std::future::ready(())).await.unwrap_err();
    assert!(matches!(error, ServeError::NoListener));
}
