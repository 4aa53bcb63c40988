//! The control socket, and the subcommands that speak to it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::backend::echo;
use support::gateway::{Gateway, RETIRED, Setup, config, route, send_signal};
use support::http1::{Answer, ask, read_head};
use support::ws::{WebSocket, handshake};
use support::{soon, until};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");
const CONTROL: &str = "[control]\nsocket = \"control.sock\"\n";
const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

fn setup() -> Setup {
    Setup::new(BINARY).with_certificate(&["default.test"])
}

fn with_control(top: &str, routes: &str) -> String {
    config(top, &(routes.to_owned() + CONTROL))
}

/// The number of the line that begins so.
fn line_of(config: &str, begin: &str) -> usize {
    1 + config.lines().position(|line| line.starts_with(begin)).unwrap()
}

/// What a subcommand has said.
struct CommandOutput {
    ok: bool,
    out: String,
    err: String,
}

impl CommandOutput {
    /// The last line, as JSON.
    fn json(&self) -> Value {
        serde_json::from_str(self.out.lines().last().unwrap()).unwrap()
    }
}

/// Runs the binary against the gateway with this configuration, on another thread: backends live
/// on this one.
async fn run(directory: &Path, arguments: &str) -> CommandOutput {
    let file = directory.join("wssgate.toml");
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--config").arg(file).env_remove("RUNTIME_DIRECTORY").output().unwrap()
    });
    let output = soon(output).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    CommandOutput { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
}

async fn done(gateway: &Gateway, arguments: &str) -> CommandOutput {
    let said = run(gateway.path(), arguments).await;
    assert!(said.ok, "{arguments}: {}{}", said.out, said.err);
    said
}

async fn refused(gateway: &Gateway, arguments: &str) -> String {
    let said = run(gateway.path(), arguments).await;
    assert!(!said.ok, "{arguments}: {}{}", said.out, said.err);
    said.err
}

fn plain(gateway: &Gateway) -> SocketAddr {
    gateway.addresses()[1]
}

async fn open(gateway: &Gateway, path: &str) -> WebSocket {
    let tcp = TcpStream::connect(plain(gateway)).await.unwrap();
    WebSocket::connect(tcp, "default.test", path, "").await.unwrap().0
}

async fn get(gateway: &Gateway, path: &str) -> Answer {
    let mut io = TcpStream::connect(plain(gateway)).await.unwrap();
    ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n\r\n")).await
}

async fn listed(gateway: &Gateway) -> Vec<Value> {
    let said = done(gateway, "sessions --json").await;
    let mut lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().unwrap();
    assert_eq!(last, json!({"ok": true, "sessions": lines.len()}));
    lines.into_iter().map(|line| line["session"].clone()).collect()
}

#[tokio::test]
async fn status_and_sessions_tell_how_it_is() {
    let (backend, _seen) = echo().await;
    let routes = route("/wss", backend.address) + "[[route]]\npath = \"/own\"\nservice = \"echo\"\n";
    let gateway = setup().start(&with_control("max_connections = 50", &routes));
    let (mut relayed, mut own) = (open(&gateway, "/wss").await, open(&gateway, "/own").await);
    relayed.echoes("three").await;
    relayed.echoes("four").await;
    own.echoes("12").await;

    let status = done(&gateway, "status --json").await.json()["status"].clone();
    assert_eq!((&status["state"], &status["pid"]), (&json!("ready"), &json!(gateway.pid())));
    assert_eq!((&status["generation"], &status["sessions"]), (&json!(1), &json!(2)));
    assert_eq!((&status["connections"], &status["connections_max"]), (&json!(2), &json!(50)));
    assert_eq!(status["nearest_expiry"]["name"], "default.test");
    let expect = json!([
        {"route": "/wss", "to": backend.address.to_string(), "sessions": 1, "state": "served"},
        {"route": "/own", "to": "echo service", "sessions": 1, "state": "served"},
    ]);
    assert_eq!(status["routes"], expect);
    let table = done(&gateway, "status").await.out;
    let connections = "connections   2 of 50 (max_connections) open, 2 so far";
    for expect in
        [connections, "state         ready", "generation    1", "first expiry  in ", "/own   echo service"]
    {
        assert!(table.contains(expect), "no {expect:?} in\n{table}");
    }

    let sessions = listed(&gateway).await;
    let [first, second] = &sessions[..] else { panic!("{sessions:?}") };
    let (relay, end) = if first["route"] == "/wss" { (first, second) } else { (second, first) };
    assert_eq!((&relay["to"], &relay["protocol"]), (&json!(backend.address.to_string()), &json!("HTTP/1.1")));
    assert_eq!((&relay["received_messages"], &relay["received_bytes"]), (&json!(2), &json!(9)));
    assert_eq!((&relay["sent_messages"], &relay["sent_bytes"]), (&json!(2), &json!(9)));
    assert_eq!((&end["received_messages"], &end["sent_bytes"]), (&json!(1), &json!(2)));
    assert_eq!((&relay["state"], &relay["client"]), (&json!("open"), &json!("127.0.0.1")));
    assert!(relay["age_ms"].as_u64() >= relay["idle_ms"].as_u64(), "{relay}");
    let table = done(&gateway, "sessions").await.out;
    assert!(table.lines().count() == 3 && table.contains("2 (9 B)"), "{table}");

    // The log calls a session by the same name, also one over HTTP/1.1 that ends badly.
    drop(relayed);
    let line = gateway.wait("session");
    assert_eq!((&line["id"], &line["peer"]), (&relay["id"], &relay["peer"]));
    own.echoes("undisturbed").await;
}

#[tokio::test]
async fn a_session_whose_client_is_not_read_is_delayed() {
    let routes = "[[route]]\npath = \"/own\"\nservice = \"echo\"\n[route.websocket]\nmessages = \"1/h\"\n";
    let gateway = setup().start(&with_control("", routes));
    let mut own = open(&gateway, "/own").await;
    own.echoes("the first").await;
    assert_eq!(listed(&gateway).await[0]["state"], "open");
    own.text("one too many").await;
    until(async || listed(&gateway).await[0]["state"] == "delayed").await;
}

#[tokio::test]
async fn any_number_of_sessions_is_listed() {
    const COUNT: usize = 600;
    let gateway = setup().start(&with_control("", ECHO));
    let mut sockets = Vec::new();
    for _ in 0..COUNT {
        sockets.push(open(&gateway, "/").await);
    }
    for socket in &mut sockets {
        socket.echoes("x").await; // so they all run
    }
    let sessions = listed(&gateway).await;
    let ids: HashSet<u64> = sessions.iter().map(|session| session["id"].as_u64().unwrap()).collect();
    assert_eq!((sessions.len(), ids.len()), (COUNT, COUNT));
    assert!(sessions.iter().all(|session| session["sent_messages"] == 1), "each was asked, and has answered");
}

#[tokio::test]
async fn the_answer_of_reload_is_the_report() {
    let gateway = setup().start(&with_control("", ECHO));
    let mut live = open(&gateway, "/").await;
    let more = with_control("", &(ECHO.to_owned() + "[[route]]\npath = \"/more\"\nservice = \"console\"\n"));
    gateway.write_config(&more);
    let report = done(&gateway, "reload --json").await.json()["reload"].clone();
    assert_eq!((&report["generation"], &report["routes_added"]), (&json!(2), &json!(1)));
    let logged = gateway.wait("reloaded");
    for key in ["generation", "routes", "routes_added", "names_unchanged", "sessions_ended", "took_ms"] {
        assert_eq!(report[key], logged[key], "{key}");
    }
    let table = done(&gateway, "reload").await.out;
    assert!(
        table.starts_with("Reloaded: generation 3\n") && table.contains("2 (0 added, 0 removed)"),
        "{table}"
    );

    let wrong_service = format!(":{}:11: service: expected", line_of(&more, "service = \"console\""));
    // Each problem with its place; what is wrong doesn't hide the socket.
    for (wrong, expect) in [
        (more.replace("\"console\"", "\"consul\""), wrong_service.as_str()),
        (more.replace("tls = false", "tsl = false"), "did you mean tls?"),
        (more + "[[route]\n", "this is not TOML"),
    ] {
        gateway.write_config(&wrong);
        let err = refused(&gateway, "reload").await;
        let mut lines = err.lines();
        let first = lines.next().unwrap();
        assert!(first.contains("/wssgate.toml:") && first.contains(expect), "{err}");
        assert_eq!(lines.last(), Some("wssgate: reload refused: generation 3 stays in use"), "{err}");
        let answer = run(gateway.path(), "reload --json").await.json();
        assert!(answer["problems"][0].as_str().unwrap().contains(expect), "{answer}");
    }
    let status = done(&gateway, "status --json").await.json()["status"].clone();
    assert_eq!((&status["reloads_taken"], &status["reloads_refused"]), (&json!(2), &json!(6)));
    live.echoes("undisturbed").await;
}

#[tokio::test]
async fn a_route_is_drained_until_that_is_taken_back() {
    let (backend, seen) = echo().await;
    let routes = route("/a", backend.address) + &route("/b", backend.address);
    let top = "drain_window = \"200ms\"\ndrain_close_code = 1012";
    let gateway = setup().start(&with_control(top, &routes));
    let mut going = [open(&gateway, "/a").await, open(&gateway, "/a").await];
    let mut staying = open(&gateway, "/b").await;
    let said = done(&gateway, "drain /a").await.out;
    assert_eq!(
        said,
        "/a is drained: it gets no new requests; sessions that will be closed within 200ms: 2\n"
    );
    for socket in &mut going {
        socket.expect_close(1012).await;
        socket.close(1012).await;
        socket.expect_end().await;
    }
    let is_drained = async || {
        let asked = seen.count();
        let answer = get(&gateway, "/a/x").await;
        assert_eq!((answer.status(), answer.head.get("retry-after")), (503, Some("10")));
        assert!(answer.text().contains("temporarily unavailable"), "{}", answer.text());
        let mut io = TcpStream::connect(plain(&gateway)).await.unwrap();
        io.write_all(handshake("default.test", "/a", "").as_bytes()).await.unwrap();
        assert_eq!(read_head(&mut io).await.unwrap().status(), 503);
        assert_eq!(seen.count(), asked, "the backend is not asked");
        let status = done(&gateway, "status --json").await.json()["status"].clone();
        assert_eq!((&status["drained"], &status["routes"][0]["state"]), (&json!(["/a"]), &json!("drained")));
        assert_eq!(status["routes"][1]["state"], "served");
    };
    is_drained().await;
    done(&gateway, "reload").await;
    is_drained().await;
    staying.echoes("here").await;
    assert_eq!(done(&gateway, "undrain /a").await.out, "/a is served again\n");
    open(&gateway, "/a").await.echoes("back").await;
    assert_eq!(refused(&gateway, "undrain /a").await, "wssgate: /a is not drained; no route or backend is\n");
    // It goes with its route.
    done(&gateway, "drain /a").await;
    gateway.write_config(&with_control(top, &route("/b", backend.address)));
    soon(async {
        // As long as it has sessions it can still be named.
        while done(&gateway, "reload --json").await.ok
            && done(&gateway, "status --json").await.json()["status"]["drained"] != json!([])
        {}
    })
    .await;
    gateway.write_config(&with_control(top, &routes));
    done(&gateway, "reload").await;
    assert_eq!(get(&gateway, "/a").await.status(), 200);
}

#[tokio::test]
async fn a_server_is_drained_whichever_routes_lead_to_it() {
    let (first, _) = echo().await;
    let (second, _) = echo().await;
    let routes = route("/a", first.address) + &route("/b", first.address) + &route("/c", second.address);
    let gateway = setup().start(&with_control("drain_window = \"1ms\"", &routes));
    let mut going = [open(&gateway, "/a").await, open(&gateway, "/b").await];
    let mut staying = open(&gateway, "/c").await;
    let answer = done(&gateway, &format!("drain http://{} --json", first.address)).await.json();
    let target = first.address.to_string();
    assert_eq!(answer["drain"], json!({"target": target, "drained": true, "sessions": 2, "window_ms": 1}));
    for socket in &mut going {
        socket.expect_close(1001).await;
    }
    assert_eq!(get(&gateway, "/b").await.status(), 503);
    staying.echoes("here").await;
    assert_eq!(get(&gateway, "/c").await.status(), 200);
    done(&gateway, &format!("undrain {target}")).await;
    assert_eq!(get(&gateway, "/b").await.status(), 200);
}

#[tokio::test]
async fn what_a_drained_route_has_left_at_drain_timeout_is_cut() {
    let (backend, _) = echo().await;
    let top = "drain_window = \"1ms\"\ndrain_timeout = \"1s\"";
    let gateway = setup().start(&with_control(top, &route("/a", backend.address)));
    let mut socket = open(&gateway, "/a").await;
    socket.send(0x01, "never finished").await;
    assert_eq!(socket.receive().await.unwrap().b0, 0x01);
    done(&gateway, "drain /a").await;
    socket.expect_close(1001).await; // between two fragments
    gateway.wait("session");
}

/// Keeps a message open on `socket` until a Close comes, of this code.
async fn keeps_a_message_open(socket: &mut WebSocket, code: u16) {
    soon(async {
        loop {
            socket.send(0x00, "still here").await;
            let heard = socket.receive().await.expect("a Close, not the end");
            if heard.b0 == 0x88 {
                return assert_eq!(heard.payload, code.to_be_bytes());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_kept_open_does_not_outlast_close_and_a_removed_route() {
    let (backend, _) = echo().await;
    let top = "drain_window = \"1ms\"\ndrain_timeout = \"1s\"";
    let routes = route("/a", backend.address) + ECHO;
    let gateway = setup().start(&with_control(top, &routes));
    let mut relayed = open(&gateway, "/a").await;
    relayed.send(0x01, "never").await;
    assert_eq!(relayed.receive().await.unwrap().b0, 0x01);
    let id = listed(&gateway).await[0]["id"].clone();
    done(&gateway, &format!("close {id}")).await;
    keeps_a_message_open(&mut relayed, 1001).await;
    drop(relayed);
    gateway.wait("session");
    let mut removed = open(&gateway, "/a").await;
    removed.send(0x01, "never").await;
    assert_eq!(removed.receive().await.unwrap().b0, 0x01);
    gateway.write_config(&with_control(top, ECHO));
    done(&gateway, "reload").await;
    keeps_a_message_open(&mut removed, 1001).await;
    // The gateway's own end of a session, which says nothing back to a fragment.
    let mut echo = open(&gateway, "/").await;
    echo.echoes("x").await;
    echo.send(0x01, "never").await;
    let sessions = listed(&gateway).await;
    let open = sessions.iter().find(|session| session["state"] == "open").unwrap();
    done(&gateway, &format!("close {}", open["id"])).await;
    echo.expect_close(1001).await;
}

#[tokio::test]
async fn a_drain_that_was_taken_back_does_not_cut_the_sessions_of_the_next() {
    let (backend, _) = echo().await;
    let config = |timeout| {
        with_control(
            &format!("drain_window = \"1ms\"\ndrain_timeout = \"{timeout}\""),
            &route("/a", backend.address),
        )
    };
    let gateway = setup().start(&config("2s"));
    let before = std::time::Instant::now();
    done(&gateway, "drain /a").await;
    done(&gateway, "undrain /a").await;
    let mut socket = open(&gateway, "/a").await;
    socket.send(0x01, "be").await;
    assert_eq!(socket.receive().await.unwrap().b0, 0x01);
    gateway.write_config(&config("1h"));
    done(&gateway, "reload").await;
    done(&gateway, "drain /a").await;
    // Past the last moment of the first order the message is still let finish.
    while before.elapsed() < std::time::Duration::from_millis(2500) {
        socket.send(0x00, "gu").await;
        assert_eq!(socket.receive().await.unwrap().b0, 0x00);
    }
    socket.send(0x80, "n").await;
    assert_eq!(socket.receive().await.unwrap().b0, 0x80);
    socket.expect_close(1001).await;
}

#[tokio::test]
async fn unknown_names_are_errors() {
    let (backend, _) = echo().await;
    let routes = "[[route]]\nhost = \"domain.test\"\npath = \"/wss\"\nservice = \"echo\"\n".to_owned()
        + &route("/b", backend.address);
    let gateway = setup().start(&with_control("", &routes));
    let port = backend.address.port();
    for (arguments, expect) in [
        (
            "drain domain.test/ws",
            "there is no route domain.test/ws; did you mean domain.test/wss?".to_owned(),
        ),
        (
            "drain /nothing-like-it",
            "there is no route /nothing-like-it; the routes are: /b, domain.test/wss".to_owned(),
        ),
        (&format!("drain 127.0.0.2:{port}"), format!("did you mean 127.0.0.1:{port}?")),
        ("drain a@b", "expected a route such as".to_owned()),
        ("undrain /b", "/b is not drained; no route or backend is".to_owned()),
        ("close 4711", "there is no live session 4711; `wssgate sessions` lists them".to_owned()),
        ("drain", "to drain the whole gateway, send it SIGTERM".to_owned()),
        ("close one", "invalid value 'one'".to_owned()),
    ] {
        let err = refused(&gateway, arguments).await;
        assert!(err.contains(&expect), "{arguments}: {err}");
    }
}

#[tokio::test]
async fn one_session_is_closed_in_order() {
    let (backend, _) = echo().await;
    let gateway = setup().start(&with_control("", &route("/", backend.address)));
    let (mut first, mut second) = (open(&gateway, "/").await, open(&gateway, "/").await);
    first.send(0x01, "be").await;
    assert_eq!(first.receive().await.unwrap().b0, 0x01);
    second.echoes("x").await;
    let sessions = listed(&gateway).await;
    let of_first = sessions.iter().find(|session| session["received_messages"] == 0).unwrap();
    let said = done(&gateway, &format!("close {}", of_first["id"])).await.out;
    assert_eq!(said, format!("session {} will be closed after the message in flight\n", of_first["id"]));
    let sessions = listed(&gateway).await;
    assert_eq!(sessions.iter().filter(|session| session["state"] == "closing").count(), 1);
    first.send(0x80, "gun").await;
    assert_eq!(first.receive().await.unwrap().payload, b"gun");
    first.expect_close(1001).await;
    first.close(1001).await;
    first.expect_end().await;
    assert_eq!(gateway.wait("session")["id"], of_first["id"]);
    second.echoes("still here").await;
}

#[tokio::test]
async fn the_sessions_of_a_client_are_closed() {
    let (backend, _) = echo().await;
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]";
    let gateway = setup().start(&with_control(trusted, &route("/", backend.address)));
    let open_for = async |client: &str| {
        let tcp = TcpStream::connect(plain(&gateway)).await.unwrap();
        let fields = format!("X-Forwarded-For: {client}\r\n");
        WebSocket::connect(tcp, "default.test", "/", &fields).await.unwrap().0
    };
    let (mut first, mut second) = (open_for("192.0.2.1").await, open_for("192.0.2.1").await);
    let mut other = open_for("192.0.2.2").await;
    let said = done(&gateway, "close --client 192.0.2.1").await.out;
    assert_eq!(said, "2 sessions will be closed after the messages in flight\n");
    for socket in [&mut first, &mut second] {
        socket.expect_close(3000).await;
        socket.close(3000).await;
        socket.expect_end().await;
        assert_eq!(gateway.wait("session")["close_code"], 3000);
    }
    other.echoes("still here").await;
    assert_eq!(done(&gateway, "close --client 192.0.2.9").await.out, "there is no such session\n");
    assert_eq!(done(&gateway, "close --subject alice").await.out, "there is no such session\n");
    let both = run(gateway.path(), "close 7 --subject alice").await;
    assert!(both.err.contains("cannot be used with"), "{}", both.err);
}

#[tokio::test]
async fn without_a_gateway_it_says_what_to_do() {
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("wssgate.toml"), with_control("", ECHO)).unwrap();
    let path = temp.path().join("control.sock");
    let err = run(temp.path(), "status").await.err;
    assert!(err.contains(&format!("there is no control socket {}", path.display())), "{err}");
    drop(UnixListener::bind(&path).unwrap()); // as a killed gateway leaves it
    let err = run(temp.path(), "status").await.err;
    assert!(err.contains("no process answers") && err.contains("is not running any more"), "{err}");
    let other = temp.path().join("other.sock");
    let err = run(temp.path(), &format!("status --socket {}", other.display())).await.err;
    assert!(err.contains(&format!("there is no control socket {}", other.display())), "{err}");
    // A user that may not connect gets a clear error. Root may connect.
    let _live = UnixListener::bind(&other).unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::os::unix::net::UnixStream::connect(&other).is_err() {
        let err = run(temp.path(), &format!("status --socket {}", other.display())).await.err;
        assert!(err.contains("this user may not use the control socket"), "{err}");
    }
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_goes_with_the_process() {
    let setup = setup();
    let path = setup.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap()); // as a killed gateway leaves it
    let mut gateway = setup.start(&with_control("", ECHO));
    let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    done(&gateway, "status").await;
    // A second gateway doesn't take it away, nor does a reload put it over a file.
    let theirs = config("", &format!("{ECHO}[control]\nsocket = \"{}\"\n", path.display()));
    let mut second = self::setup().launch(&theirs);
    let line = second.wait("the configuration can't be used");
    let problem = line["problem"].as_str().unwrap();
    let (line, pid) = (line_of(&theirs, "socket = "), gateway.pid());
    let expect = format!("wssgate.toml:{line}:10: another process ({pid}) listens on");
    assert!(problem.contains(&expect), "{problem}");
    assert!(!second.wait_end().success());
    let file = with_control("", ECHO).replace("control.sock", "wssgate.toml");
    gateway.write_config(&file);
    let line = gateway.reload();
    assert!(line["first"].as_str().unwrap().contains("is not a socket"), "{line}");
    // It moves with a reload, and its old path goes. Who has asked for that is answered.
    let mut silent = UnixStream::connect(&path).await.unwrap();
    gateway.write_config(&with_control("", ECHO).replace("control.sock", "moved.sock"));
    let answer = done(&gateway, &format!("reload --json --socket {}", path.display())).await.json();
    assert_eq!(answer["reload"]["generation"], 2);
    gateway.wait("reloaded"); // its line comes behind the answer, and would be taken for that of the next reload
    assert_eq!(soon(silent.read(&mut [0])).await.unwrap(), 0, "other users are refused there");
    done(&gateway, "status").await;
    let moved = gateway.path().join("moved.sock");
    assert!(!path.exists() && moved.exists());
    // Another process's socket at the path is left alone.
    let theirs = UnixListener::bind(gateway.path().join("theirs")).unwrap();
    std::fs::rename(gateway.path().join("theirs"), &moved).unwrap();
    gateway.write_config(&config("", ECHO));
    assert_eq!(gateway.reload()["generation"], 3);
    assert!(std::os::unix::net::UnixStream::connect(&moved).is_ok() && theirs.local_addr().is_ok());
    gateway.write_config(&with_control("", ECHO));
    assert_eq!(gateway.reload()["generation"], 4);
    assert!(path.exists());
    gateway.signal("TERM");
    gateway.ends_well();
    assert!(!path.exists());
}

#[tokio::test]
async fn systemd_makes_room_for_it() {
    let setup = setup();
    let run = setup.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let gateway = setup.with("RUNTIME_DIRECTORY", &run).start(&config("", ECHO));
    let path = run.join("control.sock");
    assert_eq!(gateway.wait("control socket")["path"], path.display().to_string());
    done(&gateway, &format!("status --socket {}", path.display())).await;
}

#[tokio::test]
async fn it_goes_to_the_process_that_takes_over() {
    let (backend, _) = echo().await;
    let routes = route("/a", backend.address) + &route("/b", backend.address);
    let gateway = setup().start(&with_control("", &routes));
    let pid = async || done(&gateway, "status --json").await.json()["status"]["pid"].as_u64().unwrap();
    let mut live = open(&gateway, "/b").await;
    live.echoes("x").await;
    done(&gateway, "drain /a").await;
    // One that fails changes nothing.
    gateway.write_config(&with_control("", &routes.replace("proxy", "poxy")));
    gateway.signal("USR2");
    gateway.wait("takeover failed: this process continues to serve, and nothing has changed");
    assert_eq!(pid().await, u64::from(gateway.pid()));
    gateway.write_config(&with_control("", &routes));
    let new = gateway.take_over();
    let claimed = gateway.wait_nth("control socket", 1);
    assert!(claimed["path"].as_str().unwrap().ends_with("/control.sock"));
    assert_eq!(pid().await, u64::from(new));
    assert_eq!(get(&gateway, "/a").await.status(), 503, "drained is drained");
    assert_eq!(listed(&gateway).await.len(), 1, "sessions come along");
    live.echoes("undisturbed").await;
    live.close(1000).await;
    live.expect_close(1000).await;
    drop(live);
    gateway.wait(RETIRED);
    assert_eq!(pid().await, u64::from(new), "the old process has left the path alone");
    done(&gateway, "undrain /a").await;
    assert_eq!(get(&gateway, "/a").await.status(), 200);
    // Without sessions to keep, the old process ends at the very moment of the takeover.
    for n in 2..8 {
        let new = gateway.take_over();
        gateway.wait_nth("control socket", n);
        gateway.wait_nth(RETIRED, n - 1);
        assert_eq!(pid().await, u64::from(new));
    }
    let path = gateway.path().join("control.sock");
    send_signal(*gateway.successors().last().unwrap(), "TERM");
    let mut gateway = gateway;
    gateway.ends_well();
    assert!(!path.exists());
}

#[tokio::test]
async fn while_it_drains_it_answers_and_changes_nothing() {
    let (backend, _) = echo().await;
    let top = "drain_delay = \"10m\"\ndrain_timeout = \"1h\"";
    let gateway = setup().start(&with_control(top, &route("/", backend.address)));
    let mut socket = open(&gateway, "/").await;
    gateway.signal("TERM");
    gateway.wait("about to drain: not ready any more, but connections are still accepted; SIGINT ends the gateway at once");
    let status = done(&gateway, "status --json").await.json()["status"].clone();
    assert_eq!(status["state"], "about to drain: connections are still accepted");
    for arguments in ["reload", "drain /"] {
        let err = refused(&gateway, arguments).await;
        assert_eq!(err, "wssgate: this process is ending and accepts no more changes\n");
    }
    let id = listed(&gateway).await[0]["id"].clone();
    done(&gateway, &format!("close {id}")).await;
    socket.expect_close(1001).await;
}

#[tokio::test]
async fn requests_that_make_no_sense_are_answered() {
    let gateway = setup().start(&with_control("", ECHO));
    let path = gateway.path().join("control.sock");
    let mut lines = BufReader::new(UnixStream::connect(&path).await.unwrap());
    let mut say = async |request: &str| -> Value {
        lines.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        soon(lines.read_line(&mut line)).await.unwrap();
        serde_json::from_str(&line).unwrap()
    };
    for (request, expect) in [
        ("status", "expected a request such as"),
        ("", "expected a request such as"),
        ("{\"command\":\"halt\"}", "unknown command \"halt\"; this is wssgate"),
        ("{\"command\":\"drain\"}", "drain needs a target"),
        ("{\"command\":\"close\"}", "close needs the id"),
        ("{\"command\":\"close\",\"id\":-1}", "expected a request such as"),
    ] {
        let answer = say(request).await;
        assert_eq!(answer["ok"], false);
        assert!(answer["error"].as_str().unwrap().contains(expect), "{request}: {answer}");
    }
    assert_eq!(say("{\"command\":\"status\",\"what\":\"newer\"}").await["ok"], true);
    let answer = say(&"x".repeat(16 * 1024)).await;
    assert!(answer["error"].as_str().unwrap().contains("16384 bytes at most"), "{answer}");
    // Clients who say nothing don't keep others out.
    let mut silent = Vec::new();
    for _ in 0..15 {
        silent.push(UnixStream::connect(&path).await.unwrap());
    }
    done(&gateway, "status").await;
}

/// Values from the environment are used, and never shown: not by `check`, by `status`, by the message of a reload that
/// is refused. Files that are included are read again by each reload.
#[tokio::test]
async fn the_configuration_is_split_and_has_values_from_the_environment() {
    let (backend, _seen) = echo().await;
    let address = backend.address.to_string();
    let setup = setup().with("BACKEND", &address).with("SECRET_PATH", "/between-us");
    let sites = setup.path().join("sites");
    std::fs::create_dir(&sites).unwrap();
    let site = "[[route]]\npath = \"${SECRET_PATH}\"\nproxy = \"http://${BACKEND}\"\n";
    std::fs::write(sites.join("chat.toml"), site).unwrap();
    let gateway = setup.start(&with_control("include = [\"sites/*.toml\", \"site/*.toml\"]\n", ECHO));
    gateway.wait_for(
        |line| line["problem"].as_str().is_some_and(|text| text.contains("no file matches site/*.toml")),
        0,
        "a warning of the second pattern",
    );
    let again = done(&gateway, "reload").await;
    assert!(again.out.contains("no file matches site/*.toml"), "{}", again.out);
    let mut socket = open(&gateway, "/between-us").await;
    socket.echoes("through both").await;

    let hidden = |text: &str| assert!(!text.contains("between-us") && !text.contains(&address), "{text}");
    let status = done(&gateway, "status").await;
    hidden(&status.out);
    assert!(status.out.contains("${SECRET_PATH}") && status.out.contains("${BACKEND}"), "{}", status.out);
    hidden(&done(&gateway, "sessions").await.out);
    assert_eq!(listed(&gateway).await[0]["to"], "${BACKEND}");

    // By the name that the tables show.
    done(&gateway, "drain ${SECRET_PATH}").await;
    socket.expect_close(1001).await;
    hidden(&done(&gateway, "status").await.out);
    done(&gateway, "undrain ${SECRET_PATH}").await;

    std::fs::write(sites.join("more.toml"), "[[route]]\npath = \"/more\"\nservice = \"echo\"\n").unwrap();
    done(&gateway, "reload").await;
    let mut more = open(&gateway, "/more").await;
    more.echoes("more").await;
    std::fs::write(sites.join("more.toml"), "[[route]]\npath = \"${SECRET_PATH}\"\nservice = \"echo\"\n")
        .unwrap();
    let why = refused(&gateway, "reload").await;
    hidden(&why);
    assert!(why.contains("more.toml:1:1: the route ${SECRET_PATH} exists already"), "{why}");
    more.echoes("still here").await;
}
