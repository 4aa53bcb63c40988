//! Fields that a route sets, adds and removes, and CORS: over HTTP/1.1 and HTTP/2, and for WebSockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use http::Method;
use support::backend::{Backend, echo};
use support::both::{both, http1, http2};
use support::gateway::{Gateway, Setup, config};
use support::http2::Http2;
use support::tls::Tls;
use support::ws::WebSocket;
use tokio::net::TcpStream;

fn start(top: &str, routes: &str) -> Gateway {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]).start(&config(top, routes))
}

fn proxy(backend: &Backend, options: &str) -> String {
    format!("[[route]]\npath = \"/\"\nproxy = \"http://{}\"\n{options}\n", backend.address)
}

const REQUEST: &str = "[route.request_headers]\nforwarded = true\nforwarded_port = true\nrequest_id = true\n\
    set = { X-App = \"{method} {scheme} {host}:{port}{path}{query}\", X-Real-IP = \"is {client}\", \
    X-Tls = \"{server_name}/{tls_version}\", Host = \"{upstream}\" }\n\
    add = { X-List = [\"b\", \"c\"] }\nremove = [\"X-Debug\", \"Via\", \"X-Forwarded-Host\"]\n";

#[tokio::test]
async fn what_servers_get() {
    let (backend, seen) = echo().await;
    let gateway = start("", &proxy(&backend, REQUEST));
    let fields = [
        ("x-debug", "1"),
        ("x-app", "evil"),
        ("x-list", "a"),
        ("x-request-id", "evil"),
        ("x-forwarded-port", "1"),
        ("forwarded", "for=evil"),
    ];
    let mut heads = Vec::new();
    for (scheme, tls) in [("http", "/"), ("https", "default.test/TLSv1.3")] {
        let answer = if scheme == "http" {
            http1(&gateway, &Method::GET, "/a%2Fb?c", &fields).await
        } else {
            http2(&gateway, Method::GET, "/a%2Fb?c", &fields).await
        };
        assert_eq!(answer.status, 200);
        heads.push((scheme, tls, seen.last()));
    }
    // A handshake has them, too.
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    let fields = "X-Debug: 1\r\nX-App: evil\r\nX-List: a\r\nForwarded: for=evil\r\nX-Request-Id: evil\r\n";
    let (mut socket, _) = WebSocket::connect(io, "default.test", "/a%2Fb?c", fields).await.unwrap();
    socket.echoes("hello").await;
    heads.push(("https", "default.test/TLSv1.3", seen.last()));
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    let mut client = Http2::connect(io, "default.test").await;
    let (mut socket, _) = client.websocket("/a%2Fb?c", &[("x-debug", "1"), ("x-list", "a")]).await.unwrap();
    socket.echoes("hello").await;
    heads.push(("https", "default.test/TLSv1.3", seen.last()));
    for (scheme, tls, head) in heads {
        let port = if scheme == "http" { "80" } else { "443" };
        let method = if head.get("upgrade").is_some() && head.get("x-app").unwrap().starts_with("CONNECT") {
            "CONNECT" // of the client over HTTP/2
        } else {
            "GET"
        };
        let expect = format!("{method} {scheme} default.test:{port}/a%2Fb?c");
        assert_eq!(head.all("x-app"), [expect], "{head:?}");
        assert_eq!(head.all("x-real-ip"), ["is 127.0.0.1"]);
        assert_eq!(head.all("x-tls"), [tls]);
        assert_eq!(head.all("host"), [backend.address.to_string()]);
        assert_eq!(head.all("x-list"), ["a", "b", "c"]);
        assert_eq!(head.all("x-forwarded-port"), [port]);
        let forwarded = format!("for=127.0.0.1;host=\"default.test\";proto={scheme}");
        assert_eq!(head.all("forwarded"), [forwarded]);
        for name in ["x-debug", "via", "x-forwarded-host"] {
            assert_eq!(head.get(name), None, "{head:?}");
        }
        let ids = head.all("x-request-id");
        assert!(
            ids.len() == 1 && ids[0].len() == 32 && ids[0].bytes().all(|b| b.is_ascii_hexdigit()),
            "{head:?}"
        );
    }
    // Names are written as the configuration has them.
    assert!(seen.all()[0].fields.iter().any(|(name, _)| name == "X-Real-IP"), "{:?}", seen.all()[0]);
}

#[tokio::test]
async fn ids_of_requests() {
    let (backend, seen) = echo().await;
    let routes = proxy(
        &backend,
        "[route.request_headers]\nrequest_id = true\n[route.response_headers]\nset = { X-Request-Id = \"{request_id}\" }",
    );
    let trusting = start("trusted_proxies = [\"127.0.0.1\"]", &routes);
    let long = "a".repeat(128);
    let too_long = "a".repeat(129);
    for (sent, is_kept) in [
        ("7.a_b-C", true),
        (&*long, true),
        (&*too_long, false),
        ("a b", false),
        ("a\"b", false),
        ("", false),
        ("\u{e9}", false),
    ] {
        let answer = http1(&trusting, &Method::GET, "/", &[("x-request-id", sent)]).await;
        let id = answer.get("x-request-id").unwrap();
        assert_eq!(id == sent, is_kept, "{sent}");
        assert_eq!(seen.last().all("x-request-id"), [id]);
        trusting.wait_for(|line| line["message"] == "request" && line["request_id"] == id, 0, "the id");
    }
    let gateway = start("", &routes);
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..3 {
        let answer = http1(&gateway, &Method::GET, "/", &[("x-request-id", "7")]).await;
        ids.push(answer.get("x-request-id").unwrap().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert!(ids.len() == 3 && !ids.contains(&"7".to_owned()), "{ids:?}");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_stays() {
    let (backend, seen) = echo().await;
    let options = "[route.request_headers]\nforwarded = true\nforwarded_port = true";
    let gateway = start("trusted_proxies = [\"127.0.0.1\"]", &proxy(&backend, options));
    let fields = [("forwarded", "for=203.0.113.9"), ("x-forwarded-port", "8443")];
    http1(&gateway, &Method::GET, "/", &fields).await;
    let head = seen.last();
    let ours = "for=127.0.0.1;host=\"default.test\";proto=http";
    assert_eq!(head.all("forwarded"), ["for=203.0.113.9", ours]);
    assert_eq!(head.all("x-forwarded-port"), ["8443"]);
}

#[tokio::test]
async fn what_clients_get() {
    const HSTS: &str = "max-age=63072000";
    let answer = "HTTP/1.1 200 OK\r\nServer: old/1.0\r\nX-Powered-By: x\r\nCache-Control: private\r\n\
                  Content-Length: 2\r\n\r\nok";
    let backend = Backend::saying(answer).await;
    let (sockets, _) = echo().await;
    let fields = format!(
        "[route.response_headers]\nset = {{ Strict-Transport-Security = \"{HSTS}\", Cache-Control = \"no-store\", X-For = \"{{client}}{{rest}}\" }}\n\
         add = {{ Vary = \"x-a\" }}\nremove = [\"Server\", \"X-Powered-By\"]\n"
    );
    let gateway = start(
        "",
        &(proxy(&backend, &fields)
            + &proxy(&sockets, &fields).replace("\"/\"", "\"/ws\"")
            + &format!("[[route]]\npath = \"/gone\"\nrespond = 410\n{fields}")
            + &format!(
                "[[route]]\npath = \"/down\"\nproxy = \"http://{}\"\n{fields}",
                Backend::unreachable()
            )),
    );
    for (path, status) in [("/x", 200), ("/gone/x", 410), ("/down/x", 502)] {
        both(&gateway, Method::GET, path, &[], |answer| {
            assert_eq!(answer.status, status);
            assert_eq!(answer.all("cache-control"), ["no-store"]);
            assert_eq!(answer.all("x-for"), ["127.0.0.1/x"]);
            assert_eq!(answer.all("vary"), ["x-a"]);
            assert!(answer.get("server").is_none() && answer.get("x-powered-by").is_none());
        })
        .await;
    }
    // RFC 6797 §7.2: over TLS alone.
    assert_eq!(http2(&gateway, Method::GET, "/x", &[]).await.get("strict-transport-security"), Some(HSTS));
    assert_eq!(http1(&gateway, &Method::GET, "/x", &[]).await.get("strict-transport-security"), None);
    // The answer to a handshake has them, too.
    let io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let (_, head) = WebSocket::connect(io, "default.test", "/ws/a", "").await.unwrap();
    assert_eq!((head.get("x-for"), head.get("cache-control")), (Some("127.0.0.1/a"), Some("no-store")));
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    let (_, head) = Http2::connect(io, "default.test").await.websocket("/ws/b", &[]).await.unwrap();
    assert_eq!(head.headers["x-for"], "127.0.0.1/b");
    assert_eq!(head.headers["strict-transport-security"], HSTS);
}

#[tokio::test]
async fn pages_of_other_origins() {
    let answer =
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: accept\r\nContent-Length: 2\r\n\r\nok";
    let backend = Backend::saying(answer).await;
    let (server, seen) = echo().await;
    let cors = "[route.cors]\norigins = [\"https://a.test\", \"https://*.b.test\"]\nmethods = [\"GET\", \"PUT\"]\n\
                headers = [\"X-Api\", \"Content-Type\"]\nmax_age = \"10m\"\ncredentials = true";
    let gateway = start(
        "",
        &(proxy(&backend, cors)
            + &proxy(&server, cors).replace("\"/\"", "\"/seen\"")
            + "[[route]]\npath = \"/open\"\nrespond = 204\n[route.cors]\norigins = \"*\"\n"),
    );
    let preflight = |origin| [("origin", origin), ("access-control-request-method", "PUT")];
    for origin in ["https://a.test", "https://x.b.test"] {
        both(&gateway, Method::OPTIONS, "/seen", &preflight(origin), |answer| {
            assert_eq!((answer.status, answer.body.len()), (204, 0));
            assert_eq!(answer.get("access-control-allow-origin"), Some(origin));
            assert_eq!(answer.get("access-control-allow-methods"), Some("GET, PUT"));
            assert_eq!(answer.get("access-control-allow-headers"), Some("X-Api, Content-Type"));
            assert_eq!(answer.get("access-control-max-age"), Some("600"));
            assert_eq!(answer.get("access-control-allow-credentials"), Some("true"));
            assert_eq!(answer.all("vary"), ["origin"]);
        })
        .await;
        both(&gateway, Method::GET, "/", &[("origin", origin)], |answer| {
            assert_eq!(answer.status, 200);
            assert_eq!(answer.all("access-control-allow-origin"), [origin]);
            assert_eq!(answer.all("vary"), ["accept", "origin"]);
            assert_eq!(answer.get("access-control-allow-methods"), None);
        })
        .await;
    }
    for origin in ["https://evil.test", "null", "https://a.test.evil.test", "http://a.test"] {
        both(&gateway, Method::OPTIONS, "/seen", &preflight(origin), |answer| {
            assert_eq!((answer.status, answer.get("access-control-allow-origin")), (403, None), "{origin}");
        })
        .await;
        both(&gateway, Method::GET, "/", &[("origin", origin)], |answer| {
            assert_eq!((answer.status, answer.get("access-control-allow-origin")), (200, None), "{origin}");
            assert_eq!(answer.all("vary"), ["accept", "origin"]);
        })
        .await;
    }
    assert_eq!(seen.count(), 0, "the server was asked");
    // OPTIONS that is no preflight request goes to the server.
    assert_eq!(http1(&gateway, &Method::OPTIONS, "/seen", &[("origin", "https://a.test")]).await.status, 200);
    assert_eq!(seen.count(), 1);
    both(&gateway, Method::GET, "/open", &[("origin", "https://any.test")], |answer| {
        assert_eq!(answer.get("access-control-allow-origin"), Some("*"));
        assert!(answer.get("vary").is_none() && answer.get("access-control-allow-credentials").is_none());
    })
    .await;
}
