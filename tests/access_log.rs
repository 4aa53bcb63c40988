//! `[log]`: lines of requests and sessions in a file, in other formats, or nowhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::ws::WebSocket;
use support::{PATIENCE, logfmt, until};

const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
const ADMIN: &str = "[admin]\naddress = \"127.0.0.3:0\"";
const FILE: &str = "[log]\naccess = \"./access.log\"";

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"])
}

fn start(lines: &str) -> Gateway {
    setup().start(&config(lines, ECHO))
}

async fn get(gateway: &Gateway, path: &str) {
    let mut io = gateway.connect_plain().await;
    ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n\r\n")).await;
}

async fn session(gateway: &Gateway) {
    let io = gateway.connect_plain().await;
    let mut socket = WebSocket::connect(io, "default.test", "/chat", "").await.unwrap().0;
    socket.echoes("hello").await;
    socket.close(1000).await;
    socket.expect_close(1000).await;
}

fn file(gateway: &Gateway) -> PathBuf {
    gateway.path().join("access.log")
}

/// The lines of a file, when there are so many.
async fn lines(file: &Path, count: usize) -> Vec<String> {
    let read = || fs::read_to_string(file).unwrap_or_default();
    until(async || read().lines().count() >= count).await;
    let text = read();
    assert!(text.ends_with('\n') && text.lines().count() == count, "{text}");
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_file_gets_the_lines_in_each_format() {
    for format in ["", "text", "json", "combined"] {
        let option = if format.is_empty() { String::new() } else { format!("\nformat = \"{format}\"") };
        let gateway = start(&format!("{FILE}{option}"));
        get(&gateway, "/a\"b?token=1").await;
        let first = lines(&file(&gateway), 1).await.remove(0);
        session(&gateway).await;
        let last = lines(&file(&gateway), 2).await.remove(1);
        match format {
            "combined" => {
                assert!(first.starts_with("127.0.0.1 - - [") && first.contains(":"), "{first}");
                assert!(first.contains(" +0000] \"GET /a\\x22b HTTP/1.1\" 426 "), "{first}");
                assert!(last.ends_with("\"GET /chat HTTP/1.1\" 101 5 \"-\" \"-\""), "{last}");
            }
            "text" => {
                let pairs = logfmt::parse(&first).unwrap();
                assert!(pairs.contains(&("path".to_owned(), Some("/a\"b".to_owned()))), "{first}");
                assert!(last.contains(" INFO session peer=127.0.0.1:"), "{last}");
            }
            _ => {
                let [first, last] = [first, last].map(|line| serde_json::from_str::<Value>(&line).unwrap());
                assert_eq!((&first["message"], &first["path"]), (&"request".into(), &"/a\"b".into()));
                assert_eq!((&last["message"], &last["received_bytes"]), (&"session".into(), &5.into()));
            }
        }
        assert!(gateway.lines("request").is_empty() && gateway.lines("session").is_empty());
    }
}

#[tokio::test]
async fn a_file_that_was_renamed_is_opened_again() {
    let gateway = start(FILE);
    let (file, old) = (file(&gateway), gateway.path().join("access.log.1"));
    for (n, signal) in ["USR1", "HUP"].into_iter().enumerate() {
        get(&gateway, "/before").await;
        lines(&file, 1).await;
        fs::rename(&file, &old).unwrap();
        get(&gateway, "/renamed").await;
        lines(&old, 2).await;
        gateway.signal(signal);
        match signal {
            "USR1" => gateway.wait("the access log has been opened again"),
            _ => gateway.wait("reloaded"),
        };
        get(&gateway, "/after").await;
        let after = lines(&file, 1).await;
        assert!(after[0].contains("/after"), "{n}: {after:?}");
        lines(&old, 2).await;
        fs::remove_file(&file).unwrap();
        gateway.signal("USR1");
        gateway.wait_nth("the access log has been opened again", n + usize::from(signal == "USR1"));
    }
}

/// The socket plays `/dev/log`.
#[tokio::test]
async fn the_systems_log_gets_lines_and_may_be_slow_or_gone() {
    const LINES: usize = 600;
    let routes = format!("{ECHO}[[route]]\npath = \"/down\"\nproxy = \"http://127.0.0.1:1\"\n");
    let gateway = setup().start(&config(&format!("{ADMIN}\n[log]\naccess = \"off\""), &routes));
    let path = gateway.path().join("log.sock");
    let lines = format!("{ADMIN}\n[log]\naccess = \"syslog:./log.sock\"\nformat = \"json\"");
    gateway.write_config(&config(&lines, &routes));
    let refused = gateway.reload();
    assert!(
        refused["first"].as_str().unwrap().contains("log.sock: the system's log can't be reached"),
        "{refused}"
    );
    let bind = || {
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let read = |socket: &UnixDatagram| {
        let mut datagram = [0; 8192];
        let len = socket.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..len].to_vec()).unwrap()
    };
    let socket = bind();
    assert_eq!(gateway.reload()["message"], "reloaded");
    for (path, priority, status) in [("/a\"b", 30, 426), ("/down", 28, 502)] {
        get(&gateway, path).await;
        let datagram = read(&socket);
        let head = format!("<{priority}>wssgate[{}]: ", gateway.pid());
        let line: Value = serde_json::from_str(datagram.strip_prefix(&head).unwrap()).unwrap();
        assert_eq!((&line["path"], &line["status"]), (&path.into(), &status.into()), "{datagram}");
    }
    // It takes nothing for a while: the gateway goes on, and no line is lost.
    let mut io = gateway.connect_plain().await;
    for n in 0..LINES {
        ask(&mut io, format!("GET /{n} HTTP/1.1\r\nHost: default.test\r\n\r\n")).await;
    }
    for n in 0..LINES {
        let datagram = read(&socket);
        assert!(datagram.contains(&format!("\"path\":\"/{n}\"")), "{n}: {datagram}");
    }
    assert_eq!(gateway.metric("wssgate_log_lines_lost_total").await, 0);
    // It begins again, and then it is gone.
    drop(socket);
    let socket = bind();
    get(&gateway, "/again").await;
    assert!(read(&socket).contains("/again"));
    drop(socket);
    fs::remove_file(&path).unwrap();
    get(&gateway, "/lost").await;
    gateway.wait("the access log can't be written: its lines are lost");
    until(async || gateway.metric("wssgate_log_lines_lost_total").await == 1).await;
    let socket = bind();
    get(&gateway, "/kept").await;
    assert!(read(&socket).contains("/kept"));
    gateway.signal("USR1");
    gateway.wait("SIGUSR1: the access log is no file, so there is nothing to open again");
}

/// A session has the lines that are wanted of it, and they have the same id.
#[tokio::test]
async fn sessions_have_lines_when_they_open_and_every_so_often() {
    let log = |sessions: &str| format!("{FILE}\nformat = \"json\"\nsessions = {sessions}");
    let gateway = start(&log("[\"open\", \"every 1s\", \"end\"]"));
    let io = gateway.connect_plain().await;
    let mut socket = WebSocket::connect(io, "default.test", "/chat", "").await.unwrap().0;
    socket.echoes("hello").await;
    let read = || {
        let text = fs::read_to_string(file(&gateway)).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    until(async || read().len() >= 3).await;
    let lines = read();
    let (opened, goes_on) = (&lines[0], &lines[1]);
    assert_eq!((&opened["message"], &opened["path"]), (&"session opened".into(), &"/chat".into()));
    assert_eq!((&opened["status"], &opened["received_messages"]), (&101.into(), &Value::Null));
    assert_eq!((&goes_on["message"], &goes_on["received_bytes"]), (&"session goes on".into(), &5.into()));
    let [first, second] = [1, 2].map(|n| lines[n]["duration_ms"].as_u64().unwrap());
    assert!(first >= 900 && second >= first + 900, "{lines:?}");
    // A reload changes what live sessions have.
    gateway.write_config(&config(&log("[]"), ECHO));
    assert_eq!(gateway.reload()["message"], "reloaded");
    let other = session(&gateway);
    other.await;
    gateway.write_config(&config(&log("\"end\""), ECHO));
    assert_eq!(gateway.reload()["message"], "reloaded");
    socket.close(1000).await;
    socket.expect_close(1000).await;
    until(async || read().last().is_some_and(|line| line["message"] == "session")).await;
    let lines = read();
    assert!(lines.iter().all(|line| line["id"] == lines[0]["id"]), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line["message"] == "session").count(), 1);
}

#[tokio::test]
async fn a_reload_sends_lines_elsewhere_or_is_refused() {
    let gateway = start("[log]\naccess = \"off\"");
    get(&gateway, "/off").await;
    gateway.write_config(&config(FILE, ECHO));
    assert_eq!(gateway.reload()["message"], "reloaded");
    get(&gateway, "/file").await;
    let all = lines(&file(&gateway), 1).await;
    assert!(all[0].contains("/file"), "{all:?}");
    gateway.write_config(&config("[log]\naccess = \"./no/access.log\"", ECHO));
    let refused = gateway.reload();
    let first = refused["first"].as_str().unwrap();
    assert!(first.contains("no/access.log: can't be opened for writing: No such file"), "{refused}");
    get(&gateway, "/still").await;
    lines(&file(&gateway), 2).await;
    gateway.write_config(&config("", ECHO));
    assert_eq!(gateway.reload()["message"], "reloaded");
    get(&gateway, "/stderr").await;
    assert_eq!(gateway.wait("request")["path"], "/stderr");
    lines(&file(&gateway), 2).await;
}

#[tokio::test]
async fn a_full_disk_loses_lines_which_are_counted() {
    let gateway = start(&format!("{ADMIN}\n[log]\naccess = \"/dev/full\""));
    get(&gateway, "/lost").await;
    let line = gateway.wait("the access log can't be written: its lines are lost");
    assert_eq!(line["file"], "/dev/full");
    until(async || gateway.metric("wssgate_log_lines_lost_total").await == 1).await;
    get(&gateway, "/lost").await;
    until(async || gateway.metric("wssgate_log_lines_lost_total").await == 2).await;
    assert_eq!(gateway.lines("the access log can't be written: its lines are lost").len(), 1);
    gateway.write_config(&config(&format!("{ADMIN}\n{FILE}"), ECHO));
    gateway.reload();
    get(&gateway, "/kept").await;
    gateway.wait("the access log can be written again");
    lines(&file(&gateway), 1).await;
}

/// Whatever is the end of the process, each session has its line.
#[tokio::test]
async fn nothing_is_missing_at_the_end() {
    for hurried in [false, true] {
        let mut gateway = start(FILE);
        let mut sockets = Vec::new();
        for _ in 0..20 {
            let io = gateway.connect_plain().await;
            let mut socket = WebSocket::connect(io, "default.test", "/chat", "").await.unwrap().0;
            socket.echoes("hello").await;
            sockets.push(socket);
        }
        gateway.signal("TERM");
        gateway.wait("draining: no new connections are accepted; SIGINT ends the gateway at once");
        if hurried {
            gateway.signal("INT");
            gateway.wait("second signal: the gateway ends at once");
        } else {
            drop(sockets);
        }
        gateway.wait_end();
        let text = fs::read_to_string(file(&gateway)).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("\"session\"")).count(), 20, "{hurried}: {text}");
        assert_eq!(text.contains("cut: the gateway has ended"), hurried, "{text}");
    }
}
