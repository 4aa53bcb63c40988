//! What the gateway answers by itself: redirects, fixed answers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use http::Method;
use support::BoxIo;
use support::backend::Backend;
use support::both::{Answer, both, http1};
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::http2::Http2;
use support::tls::Tls;
use tokio::net::TcpStream;

fn start(routes: &str) -> Gateway {
    start_in(Setup::new(env!("CARGO_BIN_EXE_wssgate")), routes)
}

fn start_in(setup: Setup, routes: &str) -> Gateway {
    setup.with_certificate(&["default.test"]).start(&config("", routes))
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

/// Whatever a route does, and where there is none.
#[tokio::test]
async fn a_client_that_accepts_json_alone_is_told_errors_so() {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    std::fs::create_dir(setup.path().join("www")).unwrap();
    std::fs::write(setup.path().join("htpasswd"), "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n").unwrap();
    let route =
        |path: &str, more: String| format!("[[route]]\nhost = \"default.test\"\npath = \"{path}\"\n{more}\n");
    let respond = |access: &str| format!("respond = 200\naccess = {{ {access} }}");
    let gateway = start_in(
        setup,
        &(route("/ping", "respond = 200".to_owned())
            + &route("/down", format!("proxy = \"http://{}\"", Backend::unreachable()))
            + &route("/files", "files = { directory = \"www\" }".to_owned())
            + &route("/denied", respond("deny = [\"0.0.0.0/0\"]"))
            + &route("/password", respond("basic = { file = \"htpasswd\" }"))
            + &route(
                "/edited",
                "files = { directory = \"www\" }\nresponse_headers.remove = \"X\"".to_owned(),
            )),
    );
    let json = "application/json";
    for (method, path, status, reason) in [
        (Method::GET, "/none", 404, "Not Found"),
        (Method::TRACE, "/none", 405, "Method Not Allowed"),
        (Method::GET, "/down", 502, "Bad Gateway"),
        (Method::GET, "/files/none", 404, "Not Found"),
        (Method::POST, "/files/none", 405, "Method Not Allowed"),
        (Method::GET, "/denied", 403, "Forbidden"),
        (Method::GET, "/password", 401, "Unauthorized"),
        (Method::GET, "/edited/none", 404, "Not Found"),
        (Method::GET, "/ping/%2e%2e", 400, "Bad Request"),
    ] {
        let expect = format!("{{\"status\":{status},\"error\":\"{reason}\"}}\n");
        both(&gateway, method.clone(), path, &[("accept", json)], |answer| {
            assert_eq!((answer.status, answer.get("content-type")), (status, Some(json)), "{method} {path}");
            assert_eq!(answer.text(), expect, "{method} {path}");
        })
        .await;
    }
    // A handshake where there is no WebSocket service.
    let fields = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Accept", json),
    ];
    let answer = http1(&gateway, &Method::GET, "/ping", &fields).await;
    assert_eq!((answer.status, answer.get("content-type")), (404, Some(json)));
    for accept in ["application/json, */*", "text/html,application/json", "*/*", "text/plain"] {
        for path in ["/none", "/down", "/files/none"] {
            both(&gateway, Method::GET, path, &[("accept", accept)], |answer| {
                let expect = Some("text/plain; charset=utf-8");
                assert_eq!(answer.get("content-type"), expect, "{accept} {path}");
                assert!(answer.text().starts_with(&answer.status.to_string()), "{}", answer.text());
            })
            .await;
        }
    }
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

#[tokio::test]
async fn error_pages() {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let www = setup.path().join("www");
    std::fs::create_dir(&www).unwrap();
    std::fs::write(www.join("404.html"), "<p>nothing here").unwrap();
    std::fs::write(www.join("502.txt"), "be back soon").unwrap();
    let failing = "HTTP/1.1 404 Not Found\r\nContent-Type: text/css\r\nETag: \"x\"\r\nX-Kept: 1\r\nContent-Length: 3\r\n\r\nown";
    let backend = Backend::saying(failing).await;
    let pages = "error_pages = { 404 = \"www/404.html\", 502 = \"www/502.txt\" }\n";
    let proxy = |path: &str, address, more: &str| {
        format!("[[route]]\npath = \"{path}\"\nproxy = \"http://{address}\"\n{pages}{more}\n")
    };
    let gateway = start_in(
        setup,
        &(format!("[[route]]\npath = \"/\"\nfiles = {{ directory = \"www\", cache = \"1h\" }}\n{pages}")
            + &proxy("/own", backend.address, "")
            + &proxy("/intercepted", backend.address, "intercept_errors = true")
            + &proxy("/down", Backend::unreachable(), "[route.response_headers]\nset = { X-Too = \"1\" }")
            + &format!("[[route]]\npath = \"/says\"\nrespond = {{ status = 404, body = \"so\" }}\n{pages}")
            + &format!("[[route]]\npath = \"/empty\"\nrespond = 404\n{pages}")),
    );
    let html = "text/html; charset=utf-8";
    for (path, accept, status, content_type, body) in [
        ("/none", "*/*", 404, html, "<p>nothing here"),
        ("/none", "application/json", 404, "application/json", "{\"status\":404,\"error\":\"Not Found\"}\n"),
        ("/404.html", "*/*", 200, html, "<p>nothing here"),
        ("/own", "text/html", 404, "text/css", "own"),
        ("/intercepted", "text/html", 404, html, "<p>nothing here"),
        (
            "/intercepted",
            "application/json",
            404,
            "application/json",
            "{\"status\":404,\"error\":\"Not Found\"}\n",
        ),
        ("/down", "text/html", 502, "text/plain; charset=utf-8", "be back soon"),
        ("/says", "*/*", 404, "text/plain; charset=utf-8", "so"),
        ("/empty", "*/*", 404, html, "<p>nothing here"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let is_head = method == Method::HEAD;
            if is_head && path == "/own" {
                continue; // the server of this test doesn't know HEAD
            }
            both(&gateway, method, path, &[("accept", accept)], |answer| {
                assert_eq!(answer.status, status, "{path} {accept}");
                assert_eq!(answer.get("content-type"), Some(content_type), "{path} {accept}");
                assert!(
                    answer.whole && answer.text() == if is_head { "" } else { body },
                    "{path}: {answer:?}"
                );
                if path == "/intercepted" {
                    assert_eq!((answer.get("etag"), answer.get("x-kept")), (None, Some("1")));
                }
                assert_eq!(answer.get("x-too").is_some(), path == "/down");
            })
            .await;
        }
    }
    // Pages of other methods keep what belongs to the status.
    both(&gateway, Method::POST, "/none", &[("accept", "application/json")], |answer| {
        assert_eq!((answer.status, answer.get("allow")), (405, Some("GET, HEAD")));
        assert_eq!(answer.text(), "{\"status\":405,\"error\":\"Method Not Allowed\"}\n");
    })
    .await;
}
