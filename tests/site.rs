//! What the gateway answers by itself: redirects, fixed answers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use http::Method;
use support::BoxIo;
use support::both::{Answer, both, http1};
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::http2::Http2;
use support::pki::Pki;
use support::tls::Tls;
use tokio::net::TcpStream;

fn start(routes: &str) -> Gateway {
    start_in(Setup::new(env!("CARGO_BIN_EXE_wssgate")), routes)
}

fn start_in(setup: Setup, routes: &str) -> Gateway {
    Pki::new().issue(&["default.test"]).write(&setup.path().join("certs"), "default");
    setup.start(&config("", routes))
}

#[tokio::test]
async fn redirects_put_in_what_was_sent() {
    let gateway = start(
        "[[route]]\npath = \"/old\"\nredirect = { to = \"https://new.test/a{rest}{query}\", status = 308 }\n\
         [[route]]\npath = \"/\"\nredirect = \"https://{host}:8443{path}{query}\"\n\
         [[route]]\npath = \"/open\"\nredirect = { to = \"{rest}\", status = 303 }\n",
    );
    for (path, status, location) in [
        ("/old", 308, "https://new.test/a"),
        ("/old/b%2Fc%20d?e=%20&f", 308, "https://new.test/a/b%2Fc%20d?e=%20&f"),
        ("/%6fld/%78", 308, "https://new.test/a/%78"),
        ("/x?", 302, "https://default.test:8443/x?"),
        ("/open/a", 303, "/a"),
        ("/open//evil.test/%2e", 400, ""),
        ("/open//evil.test/a", 303, "/evil.test/a"),
        ("/open/\\evil.test", 303, "/evil.test"),
        ("/open", 303, "/"),
    ] {
        let expect = |answer: &Answer| {
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.get("location").unwrap_or_default(), location, "{path}");
        };
        if path.contains('\\') {
            expect(&http1(&gateway, &Method::GET, path, &[]).await); // the client's library refuses it
        } else {
            both(&gateway, Method::GET, path, &[], expect).await;
        }
    }
    // A client of WebSockets is sent there, too.
    let fields = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = http1(&gateway, &Method::GET, "/old/ws", &fields).await;
    assert_eq!((answer.status, answer.get("location")), (308, Some("https://new.test/a/ws")));
    // HTTP/1.0 without a host.
    let mut io: BoxIo = Box::new(TcpStream::connect(gateway.addresses()[1]).await.unwrap());
    assert_eq!(ask(&mut io, "GET /x HTTP/1.0\r\n\r\n").await.status(), 400);
}

#[tokio::test]
async fn fixed_answers() {
    let gateway = start(
        "[[route]]\npath = \"/ping\"\nrespond = { body = \"pong\\n\" }\n\
         [[route]]\npath = \"/json\"\n[route.respond]\nstatus = 503\n\
         body = \"{\\\"path\\\": \\\"{path}\\\"}\"\ncontent_type = \"application/json\"\n\
         [[route]]\npath = \"/gone\"\nrespond = 410\n",
    );
    for (method, path, status, content_type, body) in [
        (Method::GET, "/ping", 200, Some("text/plain; charset=utf-8"), "pong\n"),
        (Method::POST, "/ping/x", 200, Some("text/plain; charset=utf-8"), "pong\n"),
        (Method::HEAD, "/ping", 200, Some("text/plain; charset=utf-8"), ""),
        (Method::GET, "/json/a%20b?c", 503, Some("application/json"), "{\"path\": \"/json/a%20b\"}"),
        (Method::GET, "/gone", 410, None, ""),
    ] {
        both(&gateway, method, path, &[], |answer| {
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.get("content-type"), content_type, "{path}");
            assert_eq!(answer.text(), body, "{path}");
            assert!(answer.whole);
        })
        .await;
    }
    // 200 would open the tunnel over HTTP/2.
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    let mut client = Http2::connect(io, "default.test").await;
    let Err(answer) = client.websocket("/ping", &[]).await else { panic!("it is no WebSocket") };
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn check_tells_of_redirects_in_a_circle() {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let file = setup.config_file();
    let text = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n\
                [[route]]\npath = \"/a\"\nredirect = \"/b\"\n[[route]]\npath = \"/b\"\nredirect = \"/a\"\n";
    std::fs::write(&file, text).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate")).arg("check").arg(&file).output();
    let output = output.unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("warning: the redirect of the route /a leads clients in a circle"), "{shown}");
    assert!(shown.contains("redirect 302 to /b"), "{shown}");
}
