//! `wssgate tap`: the frames of live sessions as they pass, seen over the control socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::process::Stdio;
use std::sync::Arc;

use flate2::{Compress, Compression, FlushCompress};
use serde_json::{Value, json};
use support::backend::{Backend, Seen, echo};
use support::gateway::{Gateway, RETIRED, Setup, config, route};
use support::http2::Http2;
use support::soon;
use support::ws::{BINARY as BINARY_FRAME, PING, WebSocket};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Notify;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");
const CONTROL: &str = "[control]\nsocket = \"control.sock\"\ntap = true\n";
const ECHO: &str = "[[route]]\npath = \"/own\"\nservice = \"echo\"\n";

fn start(top: &str, routes: &str) -> Gateway {
    Setup::new(BINARY).with_certificate(&["default.test"]).start(&config(top, &(routes.to_owned() + CONTROL)))
}

fn tap_command(gateway: &Gateway, arguments: &str) -> Command {
    let mut command = Command::new(BINARY);
    command
        .arg("tap")
        .args(arguments.split_whitespace())
        .arg("--config")
        .arg(gateway.path().join("wssgate.toml"));
    command.env_remove("RUNTIME_DIRECTORY").kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A tap that runs, and its lines.
struct Tap {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tap {
    /// One with JSON lines.
    fn start(gateway: &Gateway, arguments: &str) -> Self {
        let mut child = tap_command(gateway, &format!("{arguments} --json")).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The session that is watched from now on.
    async fn tapped(&mut self) -> Value {
        let line = self.line().await;
        assert!(line["tapped"].is_object(), "{line}");
        line["tapped"].clone()
    }

    async fn line(&mut self) -> Value {
        let line = soon(self.lines.next_line()).await.unwrap().expect("a line");
        serde_json::from_str(&line).unwrap()
    }

    async fn frame(&mut self) -> Value {
        let line = self.line().await;
        assert!(line["frame"].is_object(), "{line}");
        line["frame"].clone()
    }

    /// The last line, when the tap has ended.
    async fn end(mut self) -> Value {
        let mut last = Value::Null;
        while let Some(line) = soon(self.lines.next_line()).await.unwrap() {
            last = serde_json::from_str(&line).unwrap();
        }
        soon(self.child.wait()).await.unwrap();
        last
    }
}

/// What a tap says that ends by itself.
async fn said(gateway: &Gateway, arguments: &str) -> (bool, String, String) {
    let output = soon(tap_command(gateway, arguments).output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// A tap for people that has begun, and the line that says so.
async fn begin(gateway: &Gateway, arguments: &str) -> (Child, String) {
    let mut child = tap_command(gateway, arguments).spawn().unwrap();
    let mut line = String::new();
    soon(BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line)).await.unwrap();
    (child, line)
}

async fn open_with(gateway: &Gateway, path: &str, fields: &str) -> WebSocket {
    let tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    WebSocket::connect(tcp, "default.test", path, fields).await.unwrap().0
}

async fn open(gateway: &Gateway, path: &str) -> WebSocket {
    open_with(gateway, path, "").await
}

async fn session_ids(gateway: &Gateway) -> Vec<u64> {
    let mut command = Command::new(BINARY);
    command.args(["sessions", "--json", "--config"]).arg(gateway.path().join("wssgate.toml"));
    let output = soon(command.output()).await.unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    values.filter_map(|line| line["session"]["id"].as_u64()).collect()
}

async fn only_session(gateway: &Gateway) -> u64 {
    let ids = session_ids(gateway).await;
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids[0]
}

fn of(frame: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| frame[*name].clone()).collect()
}

const HEAD: [&str; 5] = ["from", "opcode", "fin", "len", "text"];

#[tokio::test]
async fn the_frames_of_a_live_session_are_shown_as_they_pass() {
    let (backend, _seen) = echo().await;
    let gateway = start("", &route("/wss", backend.address));
    let mut socket = open(&gateway, "/wss").await;
    socket.echoes("before").await;
    let id = only_session(&gateway).await;
    let mut tap = Tap::start(&gateway, &format!("{id} --text=5 --hex=2"));
    let tapped = tap.tapped().await;
    assert_eq!(
        of(&tapped, &["session", "client", "route", "from_beginning"]),
        json!([id, "127.0.0.1", "/wss", false])
    );
    socket.echoes("hello, world").await;
    let up = tap.frame().await;
    assert_eq!(of(&up, &HEAD), json!(["client", "text", true, 12, "hello"]));
    assert_eq!(of(&up, &["session", "masked", "rsv1", "hex"]), json!([id, true, false, "6865"]));
    assert_eq!(of(&tap.frame().await, &HEAD), json!(["gateway", "text", true, 12, "hello"]));
    assert!(up["time"].as_str().unwrap().ends_with('Z'));
    socket.send(0x02, b"a fragment").await;
    assert_eq!(of(&tap.frame().await, &HEAD), json!(["client", "binary", false, 10, "a fra"]));
    tap.frame().await;
    socket.send(0x80, b"").await;
    assert_eq!(of(&tap.frame().await, &HEAD), json!(["client", "continuation", true, 0, ""]));
    tap.frame().await;
    socket.send(PING, b"").await;
    assert_eq!(tap.frame().await["opcode"], "ping");
    tap.frame().await;
    socket.close(1000).await;
    assert_eq!(of(&tap.frame().await, &["opcode", "close_code"]), json!(["close", 1000]));
    assert_eq!(of(&tap.frame().await, &["opcode", "close_code", "from"]), json!(["close", 1000, "gateway"]));
    let ended = tap.line().await;
    assert_eq!(ended["ended"]["session"], id);
    assert!(ended["ended"]["why"].as_str().unwrap().contains("closed by client"), "{ended}");
    let last = tap.end().await;
    assert_eq!(of(&last, &["ok"]), json!([true]));
    assert_eq!(of(&last["tap"], &["frames", "dropped"]), json!([10, 0]));
    let (begins, ends) = (gateway.wait("a tap begins"), gateway.wait("a tap has ended"));
    let uid = rustix::process::getuid().as_raw();
    assert_eq!((&begins["uid"], &begins["id"], &ends["uid"]), (&json!(uid), &json!(id), &json!(uid)));
    assert!(begins["pid"].is_u64() && begins["pid"] == ends["pid"], "{begins} {ends}");
}

#[tokio::test]
async fn lines_for_people_can_drive_no_terminal() {
    let gateway = start("", ECHO);
    let mut socket = open(&gateway, "/own").await;
    let id = only_session(&gateway).await;
    let (running, begun) = begin(&gateway, &format!("{id} --text --count=2")).await;
    socket.text("\u{1b}[2J\u{9b}31m\u{7}\r\nend").await;
    socket.text("\u{202e}").await;
    let output = soon(running.wait_with_output()).await.unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}");
    assert!(out.contains(r#""\u001b[2J\u009b31m\u0007\r\nend""#), "{out}");
    let line = out.lines().next().unwrap();
    for part in ["  client ->  text          FIN", &format!("Z  {id}  ")] {
        assert!(line.contains(part), "no {part:?} in {line:?}");
    }
    assert!(!out.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\r', '\u{7}']), "{out:?}");
    assert!(begun.starts_with(&format!("session {id} from now on: client 127.0.0.1")), "{begun}");
    // The session knows nothing of it.
    for expect in ["\u{1b}[2J\u{9b}31m\u{7}\r\nend", "\u{202e}"] {
        assert_eq!(socket.receive().await.unwrap().payload, expect.as_bytes());
    }
    socket.echoes("undisturbed").await;
}

#[tokio::test]
async fn the_next_session_of_a_route_is_seen_from_its_beginning() {
    let (backend, _seen) = echo().await;
    let gateway = start("", &(route("/wss", backend.address) + ECHO));
    let mut tap = Tap::start(&gateway, "--route /wss --client 127.0.0.1 --next --text");
    gateway.wait("a tap begins");
    let mut other = open(&gateway, "/own").await;
    other.echoes("not this one").await;
    let mut socket = open(&gateway, "/wss").await;
    socket.echoes("the first").await;
    let mut later = open(&gateway, "/wss").await;
    later.echoes("nor this one").await;
    let tapped = tap.tapped().await;
    assert_eq!(of(&tapped, &["route", "from_beginning"]), json!(["/wss", true]));
    assert_eq!(tap.frame().await["text"], "the first");
    assert_eq!(tap.frame().await["text"], "the first");
    drop(socket);
    assert_eq!(tap.end().await["tap"]["frames"], 2);
}

#[tokio::test]
async fn all_live_sessions_of_a_route_or_a_client_are_watched_by_one() {
    let gateway = start("", &(ECHO.to_owned() + "[[route]]\npath = \"/more\"\nservice = \"echo\"\n"));
    let mut sockets =
        [open(&gateway, "/own").await, open(&gateway, "/own").await, open(&gateway, "/more").await];
    let mut tap = Tap::start(&gateway, "--route /own --text");
    let ids = [tap.tapped().await, tap.tapped().await].map(|tapped| tapped["session"].as_u64().unwrap());
    for (socket, text) in sockets.iter_mut().zip(["one", "two", "three"]) {
        socket.echoes(text).await;
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        let frame = tap.frame().await;
        assert!(ids.contains(&frame["session"].as_u64().unwrap()));
        seen.push(frame["text"].as_str().unwrap().to_owned());
    }
    seen.sort_unstable();
    assert_eq!(seen, ["one", "one", "two", "two"]);
    // One watcher a session: another one gets those that are left.
    let mut second = Tap::start(&gateway, "--client 127.0.0.1 --text");
    let mut taken = Vec::new();
    for _ in 0..3 {
        let line = second.line().await;
        taken.extend(line["taken"]["session"].as_u64());
    }
    taken.sort_unstable();
    let mut expect = ids.to_vec();
    expect.sort_unstable();
    assert_eq!(taken, expect);
    let (ok, _, err) = said(&gateway, &ids[0].to_string()).await;
    assert!(!ok && err.contains("another tap watches it"), "{err}");
    for (arguments, expect) in [
        ("--route /none", "no live session matches"),
        ("--client 127.0.0.9", "no live session matches"),
        ("--route 127.0.0.1:1", "is no route"),
        ("999", "there is no live session 999"),
    ] {
        let (ok, out, err) = said(&gateway, arguments).await;
        assert!(!ok && err.contains(expect), "{arguments}: {out}{err}");
    }
}

#[tokio::test]
async fn a_reload_turns_taps_on_and_off() {
    let gateway = start("", ECHO);
    let mut socket = open(&gateway, "/own").await;
    let id = only_session(&gateway).await;
    let mut tap = Tap::start(&gateway, &format!("{id} --text"));
    tap.tapped().await;
    let on = config("", &(ECHO.to_owned() + CONTROL));
    gateway.write_config(&on.replace("tap = true", "tap = false"));
    gateway.reload();
    let last = tap.end().await;
    assert_eq!(last["tap"]["why"], "taps were turned off by a reload");
    let (ok, _, err) = said(&gateway, &id.to_string()).await;
    assert!(!ok && err.contains("write tap = true in [control]"), "{err}");
    socket.echoes("unseen").await;
    gateway.write_config(&on);
    gateway.reload();
    let mut tap = Tap::start(&gateway, &format!("{id} --text"));
    tap.tapped().await;
    socket.echoes("seen").await;
    assert_eq!(tap.frame().await["text"], "seen");
}

#[tokio::test]
async fn there_are_sixteen_taps_at_most_and_commands_have_their_own_places() {
    let gateway = start("", ECHO);
    let mut taps = Vec::new();
    for _ in 0..16 {
        taps.push(Tap::start(&gateway, "--next --route /own"));
    }
    gateway.wait_nth("a tap begins", 15);
    let (ok, _, err) = said(&gateway, "--next --route /own").await;
    assert!(!ok && err.contains("16 taps are running"), "{err}");
    assert_eq!(session_ids(&gateway).await, [] as [u64; 0], "other commands are answered");
    let mut one = taps.pop().unwrap();
    one.child.start_kill().unwrap();
    soon(one.child.wait()).await.unwrap();
    gateway.wait("a tap has ended");
    let _another = Tap::start(&gateway, "--next --route /own");
    gateway.wait_nth("a tap begins", 16);
}

#[tokio::test]
async fn who_asks_and_reads_nothing_slows_no_session() {
    let gateway = start("", ECHO);
    let mut socket = open(&gateway, "/own").await;
    let id = only_session(&gateway).await;
    let mut silent = UnixStream::connect(gateway.path().join("control.sock")).await.unwrap();
    let ask = json!({"command": "tap", "id": id, "tap": {"bytes": 65536}});
    silent.write_all(format!("{ask}\n").as_bytes()).await.unwrap();
    gateway.wait("a tap begins");
    let message = vec![7; 50_000];
    for _ in 0..400 {
        socket.send(BINARY_FRAME, &message).await;
        assert_eq!(socket.receive().await.unwrap().payload.len(), message.len());
    }
    drop(silent);
    let ended = gateway.wait("a tap has ended");
    assert!(ended["dropped"].as_u64().unwrap() > 100, "{ended}");
    assert_eq!(ended["cause"], "who asked has gone");
    socket.echoes("still there").await;
    // What was dropped is counted where the next frame is.
    let mut tap = Tap::start(&gateway, &id.to_string());
    tap.tapped().await;
    socket.echoes("x").await;
    assert_eq!(tap.frame().await["dropped"], Value::Null);
}

#[tokio::test]
async fn messages_are_inflated_where_their_history_is_known() {
    const TEXT: &str = "the quick brown fox jumps over the lazy dog, and then it rests";
    const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let backend = Backend::start(async |tcp| {
        let (socket, _) = WebSocket::serve(tcp, DEFLATE).await;
        support::backend::echo_frames(socket).await;
    })
    .await;
    let gateway = start("", &route("/wss", backend.address));
    let mut tap = Tap::start(&gateway, "--next --text --route /wss");
    gateway.wait("a tap begins");
    let mut socket = open_with(&gateway, "/wss", DEFLATE).await;
    let mut deflate = Compress::new(Compression::default(), false);
    let mut compressed = |text: &str| {
        let mut out = Vec::with_capacity(1000);
        deflate.compress_vec(text.as_bytes(), &mut out, FlushCompress::Sync).unwrap();
        out.truncate(out.len() - 4);
        out
    };
    let tapped = tap.tapped().await;
    assert_eq!(of(&tapped, &["deflate", "from_beginning"]), json!([true, true]));
    for _ in 0..2 {
        socket.send(0xC1, compressed(TEXT)).await;
        for _ in 0..2 {
            let frame = tap.frame().await;
            assert_eq!(of(&frame, &["text", "inflated_len", "rsv1"]), json!([TEXT, TEXT.len(), true]));
        }
    }
    tap.child.start_kill().unwrap();
    gateway.wait("a tap has ended");
    let mut tap = Tap::start(&gateway, &format!("{} --text", tapped["session"]));
    tap.tapped().await;
    socket.send(0xC1, compressed(TEXT)).await;
    let frame = tap.frame().await;
    assert_eq!(frame["note"], "compressed; history is missing");
}

#[tokio::test]
async fn messages_that_the_gateway_inflates_are_shown_inflated() {
    const TEXT: &str = "the quick brown fox jumps over the lazy dog, and then it rests";
    let (backend, _seen) = echo().await;
    let terminate = "[route.websocket]\ncompression = \"terminate\"\ncompression_history = \"32KiB\"\n";
    let gateway = start("", &(route("/wss", backend.address) + terminate));
    let mut socket = open_with(&gateway, "/wss", "Sec-WebSocket-Extensions: permessage-deflate\r\n").await;
    let mut deflate = Compress::new(Compression::default(), false);
    let mut send = async |text: &str| {
        let mut out = Vec::with_capacity(1000);
        deflate.compress_vec(text.as_bytes(), &mut out, FlushCompress::Sync).unwrap();
        out.truncate(out.len() - 4);
        socket.send(0xC1, out).await;
        socket.receive().await.unwrap();
    };
    send(TEXT).await;
    let id = only_session(&gateway).await;
    let mut tap = Tap::start(&gateway, &format!("{id} --text"));
    assert_eq!(of(&tap.tapped().await, &["deflate", "from_beginning"]), json!([false, false]));
    send(TEXT).await; // it refers to the one before, which the tap has not seen
    for from in ["client", "gateway"] {
        let frame = tap.frame().await;
        assert_eq!(of(&frame, &["from", "len", "text", "rsv1"]), json!([from, TEXT.len(), TEXT, false]));
    }
}

#[tokio::test]
async fn other_kinds_of_sessions_show_frames_where_there_are_some() {
    let tcp = Backend::start(async |mut tcp| {
        let mut bytes = [0; 3];
        while tcp.read_exact(&mut bytes).await.is_ok() {
            tcp.write_all(&bytes).await.unwrap();
        }
    })
    .await;
    let other = Backend::start(async |mut tcp| {
        support::http1::read_head(&mut tcp).await.unwrap();
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n";
        tcp.write_all(answer).await.unwrap();
        let mut bytes = [0; 3];
        while tcp.read_exact(&mut bytes).await.is_ok() {
            tcp.write_all(&bytes).await.unwrap();
        }
    })
    .await;
    let routes = format!(
        "[[route]]\npath = \"/tcp\"\nproxy = \"tcp://{}\"\n[[route]]\npath = \"/other\"\nproxy = \"http://{}\"\nupgrade = [\"other\"]\n",
        tcp.address, other.address
    );
    let gateway = start("", &routes);
    // A server behind tcp:// has bytes, its client has frames.
    let mut socket = open(&gateway, "/tcp").await;
    let mut tap = Tap::start(&gateway, "--route /tcp --text");
    tap.tapped().await;
    socket.send(BINARY_FRAME, b"abc").await;
    assert_eq!(of(&tap.frame().await, &HEAD), json!(["client", "binary", true, 3, "abc"]));
    assert_eq!(of(&tap.frame().await, &HEAD), json!(["gateway", "binary", true, 3, "abc"]));
    drop(socket);
    tap.end().await;
    // Another protocol has none.
    let mut io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    let ask = "GET /other HTTP/1.1\r\nHost: default.test\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n";
    io.write_all(ask.as_bytes()).await.unwrap();
    support::http1::read_head(&mut io).await.unwrap();
    let mut tap = Tap::start(&gateway, "--route /other --text");
    tap.tapped().await;
    io.write_all(b"raw").await.unwrap();
    assert_eq!(of(&tap.frame().await, &HEAD), json!(["client", "bytes", null, 3, "raw"]));
    assert_eq!(of(&tap.frame().await, &HEAD), json!(["gateway", "bytes", null, 3, "raw"]));
}

#[tokio::test]
async fn what_is_no_frame_is_shown_and_ends_the_session() {
    let gateway = start("", ECHO);
    let mut socket = open(&gateway, "/own").await;
    let mut tap = Tap::start(&gateway, "--route /own");
    tap.tapped().await;
    socket.send_raw(&[0x83, 0x80, 0, 0, 0, 0]).await;
    let frame = tap.frame().await;
    assert_eq!(frame["opcode"], "violation");
    assert!(frame["violation"].as_str().unwrap().contains("opcode"), "{frame}");
    assert_eq!(tap.frame().await["close_code"], 1002);
    assert!(tap.line().await["ended"]["why"].as_str().unwrap().contains("client broke a rule"));
}

#[tokio::test]
async fn a_takeover_ends_the_tap_and_no_session() {
    let (backend, _seen) = echo().await;
    let gateway = start("", &route("/wss", backend.address));
    let mut socket = open(&gateway, "/wss").await;
    let mut tap = Tap::start(&gateway, "--route /wss --text");
    let tapped = tap.tapped().await;
    socket.echoes("before").await;
    gateway.take_over();
    gateway.wait(RETIRED);
    let mut lines = Vec::new();
    while let Some(line) = soon(tap.lines.next_line()).await.unwrap() {
        lines.push(line);
    }
    assert!(
        lines.iter().any(|line| line.contains("it has moved to another process: tap it there")),
        "{lines:?}"
    );
    let mut tap = Tap::start(&gateway, &format!("{} --text", tapped["session"]));
    tap.tapped().await;
    socket.echoes("after").await;
    assert_eq!(tap.frame().await["text"], "after");
}

#[tokio::test]
async fn a_file_for_wireshark_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let gateway = start("", ECHO);
    let mut socket = open(&gateway, "/own").await;
    let id = only_session(&gateway).await;
    let file = gateway.path().join("frames.pcapng");
    std::fs::write(&file, "what was there before, and everybody could read").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (running, _) = begin(&gateway, &format!("{id} --count 2 --write {}", file.display())).await;
    socket.echoes("into the file").await;
    let output = soon(running.wait_with_output()).await.unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout.iter().filter(|b| **b == b'\n').count(), 2, "lines are shown as well");
    let written = std::fs::read(&file).unwrap();
    assert!(written.starts_with(&[0x0A, 0x0D, 0x0D, 0x0A]));
    assert!(written.windows(9).any(|part| part == b"websocket"));
    assert!(written.windows(13).any(|part| part == b"into the file"), "to the client it has no mask");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_session_over_http2_is_watched_like_others() {
    let gateway = start("", ECHO);
    let mut client = Http2::connect(gateway.connect_tls("h2").await, "default.test").await;
    let (mut socket, _) = client.websocket("/own", &[]).await.unwrap();
    let mut tap = Tap::start(&gateway, "--route /own --text");
    tap.tapped().await;
    socket.echoes("over HTTP/2").await;
    assert_eq!(of(&tap.frame().await, &HEAD), json!(["client", "text", true, 11, "over HTTP/2"]));
    assert_eq!(tap.frame().await["from"], "gateway");
}

/// Wireshark waits for the head of what it reads while it comes, and refuses a file without one.
#[tokio::test]
async fn a_file_is_one_for_wireshark_before_the_first_frame() {
    let gateway = start("", ECHO);
    let mut live = tap_command(&gateway, "--next --write -").spawn().unwrap();
    let mut head = [0; 4];
    soon(live.stdout.as_mut().unwrap().read_exact(&mut head)).await.unwrap();
    assert_eq!(head, [0x0A, 0x0D, 0x0D, 0x0A]);
}

#[tokio::test]
async fn who_has_gone_is_noticed_whatever_was_said_before() {
    let gateway = start("", ECHO);
    let _socket = open(&gateway, "/own").await;
    let id = only_session(&gateway).await;
    let mut asking = UnixStream::connect(gateway.path().join("control.sock")).await.unwrap();
    let ask = json!({"command": "tap", "id": id, "tap": {"bytes": 2}});
    asking.write_all(format!("{ask}\n\n\n").as_bytes()).await.unwrap();
    gateway.wait("a tap begins");
    let mut said = BufReader::new(asking).lines();
    assert!(soon(said.next_line()).await.unwrap().unwrap().contains("\"tapped\""));
    drop(said);
    assert_eq!(gateway.wait("a tap has ended")["cause"], "who asked has gone");
}

/// The client's side is one stream, whatever becomes of its server.
#[tokio::test]
async fn a_session_that_is_redialled_is_watched_on() {
    let lose = Arc::<Notify>::default();
    let seen = Seen::default();
    let (told, heads) = (lose.clone(), seen.clone());
    let backend = Backend::start(move |tcp| {
        let (told, heads) = (told.clone(), heads.clone());
        async move {
            let (socket, head) = WebSocket::serve(tcp, "").await;
            heads.push(head);
            tokio::select! {
                () = support::backend::echo_frames(socket) => {}
                () = told.notified() => {} // it loses the session
            }
        }
    })
    .await;
    let address = backend.address;
    let upstream = format!(
        "[[upstream]]\nname = \"pool\"\nservers = [\"http://{address}\"]\nsession_lost = \"redial\"\n\
         redial_interval = \"50ms\"\n[[route]]\npath = \"/wss\"\nproxy = \"pool\"\n"
    );
    let gateway = start("", &upstream);
    let mut socket = open(&gateway, "/wss").await;
    let mut tap = Tap::start(&gateway, "--route /wss --text");
    let id = tap.tapped().await["session"].clone();
    let seen_by = async |tap: &mut Tap, text: &str| {
        assert_eq!(of(&tap.frame().await, &HEAD), json!(["client", "text", true, text.len(), text]));
        assert_eq!(of(&tap.frame().await, &HEAD), json!(["gateway", "text", true, text.len(), text]));
    };
    let lost = async |count: usize| {
        lose.notify_one();
        support::until(async || seen.count() == count).await;
    };
    socket.echoes("one").await;
    seen_by(&mut tap, "one").await;
    lost(2).await;
    socket.echoes("two").await;
    seen_by(&mut tap, "two").await;
    // It moves to another process, and can be watched there.
    gateway.take_over();
    let ended = tap.line().await;
    let why = "it has moved to another process: tap it there";
    assert_eq!(of(&ended["ended"], &["session", "why"]), json!([id, why]));
    gateway.wait(RETIRED);
    let mut tap = Tap::start(&gateway, &format!("{id} --text"));
    assert_eq!(of(&tap.tapped().await, &["session", "from_beginning"]), json!([id, false]));
    lost(3).await;
    socket.echoes("three").await;
    seen_by(&mut tap, "three").await;
    // Without the tap it goes on, and goes on being redialled.
    tap.child.start_kill().unwrap();
    gateway.wait_nth("a tap has ended", 1);
    lost(4).await;
    socket.echoes("four").await;
}
