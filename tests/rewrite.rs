//! Paths that servers know by another name than clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use http::Method;
use support::backend::{Backend, echo};
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::http2::Http2;
use support::tls::Tls;
use support::ws::WebSocket;
use tokio::net::TcpStream;

fn start(routes: &str) -> Gateway {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]).start(&config("", routes))
}

async fn http2(gateway: &Gateway) -> Http2 {
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    Http2::connect(io, "default.test").await
}

async fn http1(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.addresses()[1]).await.unwrap()
}

#[tokio::test]
async fn what_servers_get_over_both_versions_and_as_websockets() {
    let (backend, seen) = echo().await;
    let server = format!("http://{}", backend.address);
    let routes = [
        ("/wss", "/", ""),
        ("/app", "/deep/er", ""),
        ("/same", "/same/", ""),
        ("/api/v1", "", "strip_prefix = \"/api\""),
        ("/old", "", "rewrite = \"/new{rest}\""),
        ("/one", "", "rewrite = \"/index.php\""),
        ("/plain", "", ""),
    ]
    .map(|(path, behind, more)| {
        format!("[[route]]\npath = \"{path}\"\nproxy = \"{server}{behind}\"\n{more}\n")
    });
    let by_pattern = format!(
        "[[route]]\npath_regex = \"/users/([0-9]+)/(.*)\"\nproxy = \"{server}\"\nrewrite = \"/api/{{2}}/u{{1}}\"\n\
         [[route]]\npath_regex = \"/dots(.*)\"\nproxy = \"{server}\"\nrewrite = \"/new/{{1}}\"\n"
    );
    let gateway = start(&(routes.concat() + &by_pattern));
    let (mut plain, mut h2) = (http1(&gateway).await, http2(&gateway).await);
    for (asked, got) in [
        ("/wss", "/"),
        ("/wss/", "/"),
        ("/wss?room=1", "/?room=1"),
        ("/wss/x", "/x"),
        ("/wss//x", "/x"),
        ("/%77ss/a%2Fb?c=/../d", "/a%2Fb?c=/../d"),
        ("/app", "/deep/er"),
        ("/app/", "/deep/er/"),
        ("/app/x/", "/deep/er/x/"),
        ("/same", "/same"),
        ("/same/", "/same/"),
        ("/%73ame/x", "/%73ame/x"), // not touched
        ("/api/v1/x", "/v1/x"),
        ("/old/x?y", "/new/x?y"),
        ("/one/x?y", "/index.php?y"),
        ("/plain/x", "/plain/x"),
        ("/users/7/a%20b/c?x=1", "/api/a%20b/c/u7?x=1"),
        ("/dots/x", "/new//x"),
    ] {
        let request = format!("GET {asked} HTTP/1.1\r\nHost: default.test\r\n\r\n");
        assert_eq!(ask(&mut plain, request).await.text(), format!("GET {got} HTTP/1.1\n"), "{asked}");
        let answer = h2.ask(h2.request(Method::GET, asked)).await;
        assert_eq!(answer.text(), format!("GET {got} HTTP/1.1\n"), "{asked}");
        let (mut socket, _) =
            WebSocket::connect(http1(&gateway).await, "default.test", asked, "").await.unwrap();
        socket.echoes("hello").await;
        assert_eq!(seen.last().line, format!("GET {got} HTTP/1.1"), "{asked}");
    }
    // What clients write doesn't become a way out of the path.
    for asked in ["/dots../y", "/dots.", "/dots%2e%2e/y"] {
        let request = format!("GET {asked} HTTP/1.1\r\nHost: default.test\r\n\r\n");
        assert_eq!(ask(&mut plain, request).await.status(), 400, "{asked}");
    }
    // Operators know routes by what clients write.
    let line = gateway.wait_for(|line| line["path"] == "/api/v1/x", 1, "a line");
    assert_eq!(line["route"], "/api/v1");
}

/// A server that redirects and sets cookies, and a route to it with these further lines.
async fn redirecting(lines: &str) -> (Backend, Gateway) {
    let fields = "Content-Location: /x.en\r\nRefresh: 5; url=/x\r\nSet-Cookie: a=1; Path=/\r\n\
                  Set-Cookie: b=2; Path=/x; HttpOnly\r\nSet-Cookie: __Host-c=3; Path=/; Secure\r\n";
    let backend = Backend::saying(format!(
        "HTTP/1.1 302 Found\r\nLocation: /login?next=/x#top\r\n{fields}Content-Length: 0\r\n\r\n"
    ))
    .await;
    let routes = format!("[[route]]\npath = \"/wss\"\nproxy = \"http://{}/\"\n{lines}\n", backend.address);
    let gateway = start(&routes);
    (backend, gateway)
}

#[tokio::test]
async fn answers_come_back_with_the_prefix() {
    for (lines, expect) in [
        (
            "",
            [
                "/wss/login?next=/x#top",
                "/wss/x.en",
                "5; url=/wss/x",
                "a=1; Path=/wss",
                "b=2; Path=/wss/x; HttpOnly",
                "__Host-c=3; Path=/; Secure",
            ],
        ),
        (
            "rewrite_location = false",
            [
                "/login?next=/x#top",
                "/x.en",
                "5; url=/x",
                "a=1; Path=/",
                "b=2; Path=/x; HttpOnly",
                "__Host-c=3; Path=/; Secure",
            ],
        ),
    ] {
        let (_backend, gateway) = redirecting(lines).await;
        let names = ["location", "content-location", "refresh", "set-cookie"];
        let request = "GET /wss/x HTTP/1.1\r\nHost: default.test\r\n\r\n";
        let answer = ask(&mut http1(&gateway).await, request).await;
        let got: Vec<_> = names.iter().flat_map(|name| answer.head.all(name)).collect();
        assert_eq!(got, expect);
        // A WebSocket that isn't opened.
        let refused = WebSocket::connect(http1(&gateway).await, "default.test", "/wss/x", "").await;
        let answer = refused.err().unwrap();
        let got: Vec<_> = names.iter().flat_map(|name| answer.all(name)).collect();
        assert_eq!(got, expect);
        let mut h2 = http2(&gateway).await;
        let answer = h2.ask(h2.request(Method::GET, "/wss/x")).await;
        let all = |name: &&str| {
            answer.head.headers.get_all(*name).into_iter().map(|v| v.to_str().unwrap().to_owned())
        };
        assert_eq!(names.iter().flat_map(all).collect::<Vec<_>>(), expect);
    }
}

#[tokio::test]
async fn only_addresses_of_this_server_are_rewritten() {
    for (location, expect) in [
        ("http://SERVER/x", "/wss/x"),
        ("http://default.test/x", "http://default.test/wss/x"),
        ("https://default.test", "https://default.test/wss/"),
        ("next", "/wss/dir/next"),
        ("https://default.test:8443/x", "https://default.test:8443/x"),
        ("https://other.test/x", "https://other.test/x"),
        ("//other.test/x", "//other.test/x"),
    ] {
        let backend = Backend::start(move |mut tcp: TcpStream| async move {
            use tokio::io::AsyncWriteExt;
            let server = tcp.local_addr().unwrap().to_string();
            while support::http1::read_head(&mut tcp).await.is_some() {
                let location = location.replace("SERVER", &server);
                let answer =
                    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
                tcp.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let gateway =
            start(&format!("[[route]]\npath = \"/wss\"\nproxy = \"http://{}/\"\n", backend.address));
        let request = "GET /wss/dir/page HTTP/1.1\r\nHost: default.test\r\n\r\n";
        let answer = ask(&mut http1(&gateway).await, request).await;
        assert_eq!(answer.head.get("location"), Some(expect), "{location}");
    }
}
