//! Which route takes a request: hosts, paths, conditions and listeners.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::process::Command;

use http::Method;
use support::backend::echo;
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::http2::Http2;
use support::pki::Pki;
use support::tls::Tls;
use support::ws::WebSocket;
use tokio::net::TcpStream;

/// A gateway with a TLS listener (`addresses()[0]`) and a plain one, whose names are `tls` and `plain`.
fn start(routes: &str) -> (Gateway, String) {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    Pki::new().issue(&["default.test", "a.test"]).write(&setup.path().join("certs"), "a");
    let text = config("drain_window = \"100ms\"", routes);
    let text = text.replacen("[[listener]]", "[[listener]]\nname = \"tls\"", 1);
    let text = text.replace("tls = false", "tls = false\nname = \"plain\"");
    (setup.start(&text), text)
}

fn route(name: &str, keys: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\nservice = \"echo\"\n{keys}\n")
}

/// The route of the `n`th request, as the log says.
fn taken(gateway: &Gateway, n: usize) -> String {
    gateway.wait_nth("request", n)["route"].as_str().unwrap_or("none").to_owned()
}

async fn http2(gateway: &Gateway) -> Http2 {
    let io = Tls::new("a.test", &["h2"]).connect(gateway.address()).await.unwrap();
    Http2::connect(io, "a.test").await
}

#[tokio::test]
async fn requests_go_to_the_most_exact_route_whose_conditions_are_met() {
    let routes = [
        route("rest", "path = \"/\""),
        route("site", "host = [\"a.test\", \"*.a.test\"]\npath = \"/\""),
        route("exact", "host = \"a.test\"\npath_exact = \"/x\""),
        route(
            "api",
            "host = \"a.test\"\npath = \"/\"\nwhen = { method = \"PUT\", header = { X-Api = \"2\" } }",
        ),
        route("number", "host = \"b.test\"\npath_regex = '/(\\d+)'"),
        route("inner", "host = \"a.test\"\npath = \"/\"\nlistener = \"plain\""),
    ];
    let (gateway, _) = start(&routes.concat());
    let mut client = http2(&gateway).await;
    let mut n = 0;
    for (method, host, path, field, expect) in [
        (Method::GET, "a.test", "/y", "", "site"),
        (Method::GET, "a.test", "/x", "", "exact"),
        (Method::GET, "a.test", "/x/", "", "site"),
        (Method::PUT, "a.test", "/y", "2", "api"),
        (Method::PUT, "a.test", "/y", "1", "site"),
        (Method::GET, "c.test", "/17", "", "rest"),
    ] {
        let mut request = client.request(method, path);
        if !field.is_empty() {
            request.headers_mut().insert("x-api", field.parse().unwrap());
        }
        *request.uri_mut() = format!("https://{host}{path}").parse().unwrap();
        client.ask(request).await;
        assert_eq!(taken(&gateway, n), expect, "{host}{path} {field}");
        n += 1;
    }
    let mut plain = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    for (head, expect) in [
        ("GET /y HTTP/1.1\r\nHost: a.test", "inner"),
        ("GET /x HTTP/1.1\r\nHost: a.test", "exact"),
        ("PUT /y HTTP/1.1\r\nHost: a.test\r\nX-Api: 2\r\nContent-Length: 0", "api"),
        ("GET /y HTTP/1.1\r\nHost: www.A.test.", "site"),
        ("GET /17 HTTP/1.1\r\nHost: b.test", "number"),
        ("GET /x17 HTTP/1.1\r\nHost: b.test", "rest"),
    ] {
        ask(&mut plain, format!("{head}\r\n\r\n")).await;
        assert_eq!(taken(&gateway, n), expect, "{head}");
        n += 1;
    }
}

#[tokio::test]
async fn websockets_and_requests_of_one_path_go_to_different_places() {
    let (backend, _seen) = echo().await;
    let sockets = format!(
        "[[route]]\nname = \"sockets\"\npath = \"/\"\nproxy = \"http://{}\"\nwhen = {{ upgrade = true }}\n\
         [[route]]\nname = \"mqtt\"\npath = \"/\"\nservice = \"echo\"\nwhen = {{ upgrade = true, subprotocol = \"mqtt\" }}\n",
        backend.address
    );
    let page = "[[route]]\nname = \"page\"\npath = \"/\"\nservice = \"console\"\n";
    let (gateway, _) = start(&(sockets + page));
    let mut client = http2(&gateway).await;
    assert_eq!(client.ask(client.request(Method::GET, "/")).await.status(), 200);
    assert_eq!(taken(&gateway, 0), "page");
    for (n, (fields, expect)) in
        [("", "sockets"), ("Sec-WebSocket-Protocol: chat, mqtt\r\n", "mqtt")].iter().enumerate()
    {
        let io = Tls::new("a.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
        let (mut socket, _) = WebSocket::connect(io, "a.test", "/", fields).await.unwrap();
        socket.echoes("hello").await;
        socket.close(1000).await;
        socket.expect_close(1000).await;
        assert_eq!(gateway.wait_nth("session", n)["route"], *expect);
    }
    let (mut socket, _) = client.websocket("/", &[("sec-websocket-protocol", "mqtt")]).await.unwrap();
    socket.echoes("hello").await;
    socket.close(1000).await;
    socket.expect_close(1000).await;
    assert_eq!(gateway.wait_nth("session", 2)["route"], "mqtt");
}

#[tokio::test]
async fn a_route_with_a_name_is_the_same_whatever_else_changes() {
    let routes = route("chat", "path = \"/chat\"") + &route("gone", "path = \"/gone\"");
    let (gateway, text) = start(&routes);
    let open = async |path| {
        let io = Tls::new("a.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
        WebSocket::connect(io, "a.test", path, "").await.unwrap().0
    };
    let (mut chat, mut gone) = (open("/chat").await, open("/gone").await);
    let moved = route("chat", "host = \"a.test\"\npath = \"/moved\"\nwhen = { method = \"GET\" }");
    gateway.write_config(&text.replace(&routes, &(moved + &route("new", "path = \"/gone\""))));
    let report = gateway.reload();
    assert_eq!((&report["routes_added"], &report["routes_removed"]), (&1.into(), &1.into()));
    assert_eq!(report["sessions_ended"], 1);
    gone.expect_close(1001).await;
    chat.echoes("still there").await;
}

#[tokio::test]
async fn groups_of_a_pattern_are_put_into_redirects() {
    let routes = "[[route]]\npath_regex = '/user/(\\w+)(/.*)?'\nredirect = \"https://a.test/u/{1}{2}{query}\"\n\
                  [[route]]\npath_regex = '/say/(.*)'\nrespond = { body = \"{1}!\" }\n";
    let (gateway, _) = start(routes);
    let mut client = http2(&gateway).await;
    for (path, expect) in
        [("/user/kim/x%2Fy?a=b", "https://a.test/u/kim/x%2Fy?a=b"), ("/user/kim", "https://a.test/u/kim")]
    {
        let answer = client.ask(client.request(Method::GET, path)).await;
        assert_eq!((answer.status(), answer.head.headers["location"].to_str().unwrap()), (302, expect));
    }
    assert_eq!(client.ask(client.request(Method::GET, "/user/")).await.status(), 404);
    assert_eq!(client.ask(client.request(Method::GET, "/say/hello")).await.text(), "hello!");
    // The same for a handshake.
    let refused = client.websocket("/user/kim/x", &[]).await.err().unwrap();
    assert_eq!(refused.head.headers["location"], "https://a.test/u/kim/x");
}

#[tokio::test]
async fn operators_call_a_route_by_its_name_or_by_its_host_and_path() {
    let routes =
        route("chat", "host = [\"a.test\", \"b.test\"]\npath = \"/chat\"") + &route("rest", "path = \"/\"");
    let (gateway, _) = start(&(routes + "[control]\nsocket = \"control.sock\"\n"));
    let control = async |command: &str, target: &str| {
        let socket = gateway.path().join("control.sock");
        let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        let output = process.args([command, target, "--socket"]).arg(socket).output().await.unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{command} {target}: {text}");
    };
    let status = async |path: &str| {
        let mut plain = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
        ask(&mut plain, format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await.status()
    };
    for (drain, undrain) in [("chat", "b.test/chat"), ("a.test/chat", "chat")] {
        control("drain", drain).await;
        assert_eq!((status("/chat").await, status("/x").await), (503, 426), "{drain}");
        control("undrain", undrain).await;
        assert_eq!(status("/chat").await, 426, "{undrain}");
    }
}

#[tokio::test]
async fn check_shows_which_route_takes_a_request() {
    let (gateway, _) =
        start(&(route("all", "path = \"/\"") + &route("x", "host = \"a.test\"\npath_exact = \"/x\"")));
    let check = |request: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wssgate"));
        let command = command.arg("check").arg(gateway.path().join("wssgate.toml"));
        let output = command.args(["--request", request, "-H", "X-Api: 2"]).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), text)
    };
    let (good, text) = check("GET https://a.test/x");
    assert!(good && text.contains("The route x takes it: echo service"), "{text}");
    assert!(text.contains("x has a more exact host"), "{text}");
    let (good, text) = check("/x");
    assert!(!good && text.contains("expected \"GET https://domain.com/x\""), "{text}");
}
