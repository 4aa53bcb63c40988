//! What is beside the sessions, on the same port.

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use wss_service::{BoxError, Peer, RequestBody, Response};

use super::*;

/// Says back method, path and body.
async fn mirror(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, BoxError> {
    let (head, body) = request.into_parts();
    match head.uri.path() {
        "/error" => return Err("it can't".into()),
        "/panic" => panic!("as it was told"),
        _ => {}
    }
    let body = body.collect().await?.to_bytes();
    let text = format!("{} {} {}", head.method, head.uri.path(), String::from_utf8_lossy(&body));
    Ok(Response::builder().header("x-kept", "yes").header("connection", "x-hop").body(text.into())?)
}

#[tokio::test]
async fn everything_else_goes_to_another_service() {
    let certs = Certs::new(&["a.test"]);
    let service = bind().certificates(certs.load()).path("/ws").otherwise_fn(mirror).on_message(echo);
    let running = start(service);
    let mut io: BoxIo = Box::new(Tls::new("a.test", &["http/1.1"]).connect(running.address).await.unwrap());
    let post = "POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(ask(&mut io, post).await.text(), "POST /a hello");
    let get = ask(&mut io, "GET /ws HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!((get.text(), get.head.get("x-kept")), ("GET /ws ".into(), Some("yes")));
    for path in ["/error", "/panic"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(ask(&mut io, request).await.status(), 500);
    }
    let (mut socket, _) = WebSocket::connect(io, "a.test", "/ws", "").await.unwrap();
    socket.echoes("on the same connection").await;

    let mut http2 = running.http2(&Tls::new("a.test", &["h2"])).await;
    let mut socket = http2.websocket("/ws", &[]).await.unwrap().0;
    let (response, mut body) = http2.begin(http2.request(Method::POST, "/b"), false).await;
    body.send_data("hello".into(), true).unwrap();
    let answer = support::http2::read(soon(response).await.unwrap()).await;
    assert_eq!((answer.text(), answer.head.headers.get("connection")), ("POST /b hello".into(), None));
    assert_eq!(answer.head.headers["content-length"], "13");
    assert!(answer.head.headers.contains_key("date"));
    let get = http2.request(Method::GET, "/panic");
    assert_eq!(http2.ask(get).await.status(), 500);
    socket.echoes("beside it").await;
    let refused = http2.websocket("/other", &[]).await.err().unwrap();
    assert_eq!(refused.status(), 404, "its 200 would be taken for an open stream");
}

#[tokio::test]
async fn a_closure_that_panics_at_once_ends_no_connection() {
    let running = start(bind().otherwise_fn(|request| {
        assert_ne!(request.uri().path(), "/panic", "as it was told");
        mirror(request)
    }));
    let mut io = running.tcp().await;
    for (path, status) in [("/panic", 500), ("/", 200)] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(ask(&mut io, request).await.status(), status);
    }
}

#[tokio::test]
async fn a_predicate_chooses() {
    let service = bind().when(|head| head.headers.contains_key("x-socket")).on_message(echo);
    let running = start(service);
    assert_eq!(running.refused("/", "").await.status(), 404);
    let io = running.tcp().await;
    WebSocket::connect(io, "a.test", "/", "X-Socket: 1\r\n").await.unwrap().0.echoes("chosen").await;
}

#[tokio::test]
async fn who_sends_a_request_is_known_beside_the_sessions_too() {
    let certs = Certs::new(&["a.test"]);
    let answer = async |request: Request<RequestBody>| {
        let peer: &Peer = request.extensions().get().ok_or("no peer")?;
        let name = peer.tls().and_then(|tls| tls.server_name.as_deref());
        let text = format!("{} {} {name:?} {:?}", peer.address().ip(), peer.client(), peer.local());
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(text)))
    };
    let service = bind().certificates(certs.load()).trusted_proxies(["127.0.0.0/8".parse().unwrap()]);
    let told = |head: &http::request::Parts| head.extensions.get::<Peer>().is_none(); // then it opens a session
    let running = start(service.when(told).otherwise_fn(answer));
    let expected = format!("127.0.0.1 192.0.2.7 Some(\"a.test\") Some({})", running.address);
    let mut io: BoxIo = Box::new(Tls::new("a.test", &["http/1.1"]).connect(running.address).await.unwrap());
    let get = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    assert_eq!(ask(&mut io, get).await.text(), expected);
    let mut http2 = running.http2(&Tls::new("a.test", &["h2"])).await;
    let mut get = http2.request(Method::GET, "/");
    get.headers_mut().insert("x-forwarded-for", http::HeaderValue::from_static("192.0.2.7"));
    assert_eq!(http2.ask(get).await.text(), expected);
}

#[tokio::test]
async fn a_client_that_resets_its_requests_is_sent_away() {
    let (note, mut seen) = mpsc::unbounded_channel();
    let certs = Certs::new(&["a.test"]);
    let service = bind().certificates(certs.load()).otherwise_fn(move |_| {
        let _ = note.send(());
        std::future::pending::<Result<Response<Full<Bytes>>, BoxError>>()
    });
    let running = start(service);
    let mut http2 = running.http2(&Tls::new("a.test", &["h2"])).await;
    let mut resets = 0;
    let refused = loop {
        let request = http2.request(Method::POST, "/");
        let (response, mut body) = http2.begin(request, false).await;
        tokio::select! {
            _ = seen.recv() => {}
            failed = response => {
                drop(failed.unwrap_err());
                break http2.send(http2.request(Method::GET, "/"), true).await.unwrap_err();
            }
        }
        body.send_reset(h2::Reason::CANCEL);
        resets += 1;
        assert!(resets < 300);
    };
    assert!(resets > 200, "{resets}");
    assert_eq!(refused.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{refused:?}");
}

#[tokio::test]
async fn handlers_of_sessions_that_a_client_has_reset_are_bounded() {
    let (note, mut begun) = mpsc::unbounded_channel();
    let certs = Certs::new(&["a.test"]);
    let service = bind().certificates(certs.load()).on_message(move |_, _| {
        let _ = note.send(());
        std::future::pending::<()>()
    });
    let running = start(service);
    let mut http2 = running.http2(&Tls::new("a.test", &["h2"])).await;
    let mut handlers = 0;
    let refused = loop {
        let mut open = http2.request(Method::CONNECT, "/");
        open.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let mut stream = match http2.send(open, false).await {
            Ok((_, stream)) => stream,
            Err(refused) => break refused,
        };
        stream.send_data(support::ws::encode(0x81, b"work", true).into(), false).unwrap();
        soon(begun.recv()).await.unwrap();
        stream.send_reset(h2::Reason::CANCEL);
        handlers += 1;
        assert!(handlers < 1000, "no end");
    };
    assert_eq!((handlers, refused.reason()), (512, Some(h2::Reason::REFUSED_STREAM)), "{refused:?}");
}
