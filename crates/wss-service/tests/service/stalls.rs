//! Clients that hold up a request.

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{advance, pause, resume};
use wss_service::{BoxError, RequestBody, Response};

use super::*;

/// More than the kernel holds for a client that takes nothing.
const LONG: usize = 64 << 20;

/// A minute passes.
async fn minute() {
    pause();
    advance(Duration::from_secs(61)).await;
    resume();
    tokio::time::sleep(Duration::from_millis(10)).await; // what has moved in the kernel begins another wait
}

#[tokio::test]
async fn an_answer_is_not_offered_for_ever() {
    let long = Bytes::from(vec![b'a'; LONG]);
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let running = start(bind().otherwise_fn(move |_| {
        let _ = asked.send(());
        std::future::ready(Ok::<_, BoxError>(Response::new(Full::new(long.clone()))))
    }));
    let mut client = running.tcp().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    soon(was_asked.recv()).await.unwrap();
    for _ in 0..5 {
        minute().await;
    }
    let mut taken = Vec::new();
    let _ = soon(client.read_to_end(&mut taken)).await; // an end, or a reset
    assert!(taken.len() < LONG, "the connection has ended");
}

/// The answer to the handshake doesn't leave, so the session can't begin.
#[tokio::test(start_paused = true)]
async fn a_session_whose_client_takes_no_answer_is_given_up() {
    let (closing, mut closes) = closes();
    let sessions = Service::new().on_close(closing).attach().unwrap();
    let (hub, peer) = (sessions.hub(), SocketAddr::from(([127, 0, 0, 1], 1)));
    let (near, mut far) = tokio::io::duplex(64);
    let open = hyper::service::service_fn(move |request| {
        let sessions = sessions.clone();
        async move { Ok::<_, std::convert::Infallible>(sessions.open(request, peer).await) }
    });
    let http1 = hyper::server::conn::http1::Builder::new();
    let serving = http1.serve_connection(hyper_util::rt::TokioIo::new(near), open).with_upgrades();
    let serving = tokio::spawn(serving);
    far.write_all(support::ws::handshake("a.test", "/", "").as_bytes()).await.unwrap();
    until(async || hub.count(To::All) == 1).await;
    let large = hub.send_to(To::All, vec![0; 2 << 20]).await;
    assert_eq!(large.queued, 1);
    let waiting =
        tokio::time::timeout(Duration::from_secs(61), hub.send_to(To::All, "waits for the one before"));
    assert_eq!(waiting.await.unwrap().missed, 1);
    assert_eq!((hub.count(To::All), closes.recv().await.unwrap().code), (0, 1006));
    serving.abort();
}

/// Says what went wrong with the body.
async fn read(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, BoxError> {
    let text = match request.into_body().collect().await {
        Ok(body) => format!("{} bytes", body.to_bytes().len()),
        Err(e) => e.to_string(),
    };
    Ok(Response::new(text.into()))
}

#[tokio::test]
async fn a_body_is_not_waited_for_for_ever() {
    const BROKEN_OFF: &str = "the client sent nothing of its body for 60s";
    let certs = Certs::new(&["a.test"]);
    let (ask, mut asked) = mpsc::unbounded_channel();
    let running = start(bind().certificates(certs.load()).otherwise_fn(move |request| {
        let _ = ask.send(());
        read(request)
    }));
    let mut io = Tls::new("a.test", &["http/1.1"]).connect(running.address).await.unwrap();
    io.write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
    assert!(soon(asked.recv()).await.is_some());
    minute().await;
    let answer = soon(support::http1::read_answer(&mut io, false)).await.unwrap();
    assert_eq!(answer.text(), BROKEN_OFF);
    let mut http2 = running.http2(&Tls::new("a.test", &["h2"])).await;
    let (response, _body) = http2.begin(http2.request(Method::POST, "/"), false).await;
    assert!(soon(asked.recv()).await.is_some());
    minute().await;
    assert_eq!(support::http2::read(soon(response).await.unwrap()).await.text(), BROKEN_OFF);
}
