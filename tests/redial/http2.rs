//! Servers over HTTP/2: the handshake is repeated on a stream (RFC 8441).

use std::future::poll_fn;

use h2::server::Builder;
use http::{HeaderMap, Method, Response};
use serde_json::json;
use support::http2::{Http2, Stream, read};
use support::http2_server;
use support::tls::Tls;
use support::{soon, until};
use tokio::sync::watch;

use super::conversation::{Fate, Orders, converse};
use super::{EchoesAs, open_with, redialling, setup};

#[tokio::test]
async fn the_client_goes_on_over_another_stream() {
    for fate in [Fate::Closes(1012), Fate::Dies] {
        let (orders, told) = watch::channel(Orders { count: 0, fate });
        let mut builder = Builder::new();
        builder.enable_connect_protocol();
        let (server, seen) = http2_server::start(builder, move |(request, mut respond)| {
            let (told, since) = (told.clone(), told.borrow().count);
            async move {
                let (head, body) = request.into_parts();
                assert_eq!(head.method, Method::CONNECT);
                let answer = match head.headers.get("wssgate-resume").map(http::HeaderValue::as_bytes) {
                    Some(b"3") => Response::builder().status(403).header("Wssgate-Close", "4003"),
                    _ => Response::builder(),
                };
                let answer = answer.body(()).unwrap();
                let is_open = answer.status().is_success();
                if let Ok(send) = respond.send_response(answer, !is_open)
                    && is_open
                {
                    converse("a", Stream::new(send, body), (told, since), |_| {}).await;
                }
            }
        })
        .await;
        let lines = "protocol = \"h2\"";
        let gateway = setup().start(&redialling(&[server.address], lines, ""));
        let (mut socket, _) = open_with(&gateway, "Cookie: c=1\r\nX-Own: 2\r\n").await;
        let mut sessions = Vec::new();
        for resume in 0..3 {
            until(async || seen.count() != resume).await;
            let head = seen.last();
            let field = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(head.uri.to_string(), "http://default.test/ws?room=1");
            assert_eq!(
                (field("cookie"), field("x-own"), field("sec-websocket-version")),
                (Some("c=1"), Some("2"), Some("13"))
            );
            for name in ["sec-websocket-key", "upgrade", "connection", "host"] {
                assert_eq!(field(name), None, "{name}");
            }
            let number = (resume > 0).then(|| resume.to_string());
            assert_eq!(
                (field("wssgate-resume"), field("wssgate-messages")),
                (number.as_deref(), number.as_deref())
            );
            sessions.push(field("wssgate-session").unwrap().to_owned());
            socket.echoes_as("a", "hello").await;
            orders.send_modify(|orders| orders.count += 1);
        }
        sessions.dedup();
        assert_eq!(sessions.len(), 1);
        // The next one declines.
        socket.expect_close(4003).await;
        socket.close(4003).await;
        drop(socket);
        let line = gateway.wait("session");
        assert_eq!(
            (&line["redials"], &line["close_code"], &line["ended_by"]),
            (&json!(2), &json!(4003), &json!("gateway"))
        );
        assert_eq!(line["backend_protocol"], "HTTP/2");
        assert_eq!(gateway.metric("wssgate_backend_redials_total").await, 2);
    }
}

#[tokio::test]
async fn fields_between_the_gateway_and_its_servers_are_theirs_alone_in_trailers_and_before_the_answer() {
    let (server, _) = http2_server::start(Builder::new(), |(request, mut respond)| async move {
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        let trailers = body.trailers().await.unwrap().unwrap_or_default();
        let told = trailers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>().join(",");
        let early = Response::builder().status(103).header("Wssgate-Own", "1").header("X-Early", "2");
        respond.send_informational(early.body(()).unwrap()).unwrap();
        let mut send = respond
            .send_response(Response::builder().header("X-Told", told).body(()).unwrap(), false)
            .unwrap();
        let mut trailers = HeaderMap::new();
        for name in ["wssgate-own", "x-last"] {
            trailers.insert(name, "1".parse().unwrap());
        }
        send.send_trailers(trailers).unwrap();
    })
    .await;
    let gateway = setup().start(&redialling(&[server.address], "protocol = \"h2\"", ""));
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    let mut client = Http2::connect(io, "default.test").await;
    let (mut response, mut send) = client.begin(client.request(Method::POST, "/"), false).await;
    let mut spoofed = HeaderMap::new();
    for name in ["wssgate-session", "x-forwarded-for", "x-sum"] {
        spoofed.insert(name, "1".parse().unwrap());
    }
    send.send_trailers(spoofed).unwrap();
    let early = soon(poll_fn(|cx| response.poll_informational(cx))).await.unwrap().unwrap();
    assert_eq!(
        (early.headers().get("wssgate-own"), &early.headers()["x-early"]),
        (None, &"2".parse().unwrap())
    );
    let answer = read(soon(response).await.unwrap()).await;
    assert_eq!(answer.head.headers["x-told"], "x-sum");
    let trailers = answer.trailers.unwrap();
    assert!(trailers.contains_key("x-last") && !trailers.contains_key("wssgate-own"), "{trailers:?}");
}
