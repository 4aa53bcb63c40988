//! One command without a configuration file: `wssgate proxy`, `files` and `echo`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use support::apart::apart;
use support::backend::{Backend, echo, echo_on};
use support::gateway::send_signal;
use support::http1::{Answer, ask};
use support::soon;
use support::tls::Tls;
use support::ws::WebSocket;
use support::{BoxIo, PATIENCE};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");

/// The program as one command starts it, with what it says to a person.
struct Quick {
    child: Child,
    /// Until connections are accepted.
    welcome: String,
    /// What it says later.
    live: Receiver<String>,
    address: SocketAddr,
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(home).env("XDG_STATE_HOME", home.join("state"));
    command
}

fn output(home: &Path, arguments: &[&str]) -> Output {
    command(home, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Quick {
    fn start(home: &Path, arguments: &[&str]) -> Self {
        let mut child =
            command(home, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take().unwrap();
        let (tell, live) = channel();
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let mut welcome = String::new();
        while !welcome.contains("Ctrl-C") {
            let len = stdout.read_line(&mut welcome).unwrap();
            assert!(len > 0, "{welcome}{:?}", live.iter().collect::<Vec<_>>());
        }
        let port = welcome.split("https://localhost:").nth(1).unwrap().split('/').next().unwrap();
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        Self { child, welcome, live, address }
    }

    async fn connect(&self) -> BoxIo {
        Box::new(Tls::new("localhost", &["http/1.1"]).connect(self.address).await.unwrap())
    }

    async fn get(&self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        ask(&mut *self.connect().await, request).await
    }

    async fn open(&self, path: &str) -> WebSocket {
        WebSocket::connect(self.connect().await, "localhost", path, "").await.unwrap().0
    }

    /// The next line for a person that contains `words`.
    fn line(&self, words: &str) -> String {
        let mut before = Vec::new();
        loop {
            let Ok(line) = self.live.recv_timeout(PATIENCE) else { panic!("no {words:?} after {before:?}") };
            if line.contains(words) {
                return line;
            }
            before.push(line);
        }
    }

    /// Ctrl-C, which ends it in order.
    fn interrupt(&mut self) {
        send_signal(self.child.id(), "INT");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Quick {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn proxy_puts_wss_in_front_of_a_port() {
    let home = TempDir::new().unwrap();
    let (backend, seen) = echo().await;
    let port = backend.address.port().to_string();
    let mut quick = Quick::start(home.path(), &["proxy", &port, "--listen", "127.0.0.1:0"]);
    let listens = quick.address.port();
    for expect in [
        format!("wss://localhost:{listens}/"),
        format!("passes on to http://127.0.0.1:{port}"),
        "cert.pem".into(),
    ] {
        assert!(quick.welcome.contains(&expect), "no {expect:?} in {}", quick.welcome);
    }
    assert!(
        !quick.welcome.contains("Nothing answers") && !quick.welcome.contains('\x1b'),
        "{}",
        quick.welcome
    );
    let mut socket = quick.open("/chat?token=secret").await;
    socket.echoes("tom").await;
    assert_eq!(quick.line("wss"), "wss /chat opened by 127.0.0.1");
    assert!(seen.last().line.contains("/chat?token=secret"), "{:?}", seen.last());
    socket.close(1000).await;
    socket.expect_close(1000).await;
    let line = quick.line("closed");
    assert!(line.starts_with("wss /chat closed by client with 1000 after "), "{line}");
    assert!(line.ends_with(" ms, 1 message received, 1 sent"), "{line}");
    let mut open = quick.open("/chat").await;
    open.echoes("tom").await;
    quick.interrupt();
    open.expect_close(1001).await;
    assert_eq!(quick.line("Ctrl-C"), "ending, with 1 WebSocket open; Ctrl-C again ends it at once");
    quick.line("drained: the last connection has ended");
}

#[tokio::test]
async fn proxy_takes_a_unix_socket() {
    let home = TempDir::new().unwrap();
    let (_backend, _seen) = echo_on(&home.path().join("app.sock"));
    let quick = Quick::start(home.path(), &["proxy", "./app.sock", "--listen", "127.0.0.1:0"]);
    quick.open("/").await.echoes("tom").await;
}

/// It starts anyway, says so, and needs no restart when the backend is there.
#[tokio::test]
async fn a_backend_that_is_not_there_is_named() {
    let home = TempDir::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let quick = Quick::start(home.path(), &["proxy", &address.to_string(), "--listen", "127.0.0.1:0"]);
    let expect = format!("Nothing answers at http://{address} yet (Connection refused");
    assert!(quick.welcome.contains(&expect), "{}", quick.welcome);
    assert_eq!(quick.get("/a").await.status(), 502);
    let line = quick.line("502");
    assert!(line.starts_with("502 GET /a in ") && line.contains("refused"), "{line}");
    let _backend = Backend::on(tokio::net::TcpListener::bind(address).await.unwrap(), async |mut io| {
        let _ = support::http1::read_head(&mut io).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let _ = tokio::io::AsyncWriteExt::write_all(&mut io, answer).await;
    });
    assert_eq!(quick.get("/b").await.text(), "hi");
    quick.line("200 GET /b in ");
}

#[tokio::test]
async fn files_of_a_directory() {
    let home = TempDir::new().unwrap();
    let site = home.path().join("my \"site\"");
    fs::create_dir(&site).unwrap();
    fs::write(site.join("a.txt"), "hello").unwrap();
    let quick = Quick::start(home.path(), &["files", "my \"site\"", "--listen", "127.0.0.1:0"]);
    assert!(!quick.welcome.contains("wss://"), "{}", quick.welcome);
    assert_eq!(quick.get("/a.txt").await.text(), "hello");
    assert!(quick.get("/").await.text().contains("a.txt"), "a listing");
    assert_eq!(quick.get("/b.txt").await.status(), 404);
    quick.line("404 GET /b.txt in ");
}

#[tokio::test]
async fn an_echo_and_its_page() {
    let home = TempDir::new().unwrap();
    let quick = Quick::start(home.path(), &["echo", "--listen", "127.0.0.1:0"]);
    let wss = format!("wss://localhost:{}/wss", quick.address.port());
    assert!(quick.welcome.contains(&wss), "{}", quick.welcome);
    quick.open("/wss").await.echoes("tom").await;
    assert!(quick.get("/").await.text().contains("WebSocket console"));
}

/// The file passes `check`, and the program runs the same by it.
#[tokio::test]
async fn the_file_that_is_written_runs_the_same() {
    let home = TempDir::new().unwrap();
    let (backend, _seen) = echo().await;
    let port = backend.address.port().to_string();
    let arguments = ["proxy", &port, "--listen", "127.0.0.1:0", "--write", "wssgate.toml"];
    let mut quick = Quick::start(home.path(), &arguments);
    assert!(quick.welcome.contains("`wssgate wssgate.toml` does the same"), "{}", quick.welcome);
    quick.open("/").await.echoes("tom").await;
    quick.interrupt();
    let checked = output(home.path(), &["check", "wssgate.toml"]);
    let shown = text(&checked.stdout);
    assert!(checked.status.success() && shown.contains(&format!("http://127.0.0.1:{port}")), "{shown}");
    assert!(!shown.contains("warning:"), "{shown}");
    let mut child = command(home.path(), &["wssgate.toml"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("listening address=")).unwrap();
    let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let io = Tls::new("localhost", &["http/1.1"]).connect(address).await.unwrap();
    let (mut socket, _) = WebSocket::connect(io, "localhost", "/", "").await.unwrap();
    socket.echoes("tom").await;
    child.kill().unwrap();
    child.wait().unwrap();
    // A file is never replaced.
    let again = output(home.path(), &arguments);
    assert!(!again.status.success());
    let said = text(&again.stderr);
    assert!(said.contains("wssgate.toml exists already: run by it (`wssgate wssgate.toml`)"), "{said}");
}

/// Which the file makes possible; without one there is no takeover.
#[tokio::test]
async fn what_runs_by_a_written_file_is_taken_over() {
    let home = TempDir::new().unwrap();
    let mut quick =
        Quick::start(home.path(), &["echo", "--listen", "127.0.0.1:0", "--write", "wssgate.toml"]);
    let mut socket = quick.open("/wss").await;
    socket.echoes("tom").await;
    send_signal(quick.child.id(), "USR2");
    let line = quick.line("taken over pid=");
    let pid: u32 = line.split("pid=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(quick.child.wait().unwrap().success());
    socket.echoes("tom").await;
    send_signal(pid, "INT");
    socket.expect_close(1001).await;
    let rest = move || quick.live.iter().any(|line| line.contains("drained: the last connection has ended"));
    assert!(soon(tokio::task::spawn_blocking(rest)).await.unwrap());
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let home = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let port = taken.port().to_string();
    fs::write(home.path().join("file"), "").unwrap();
    for (arguments, expect) in [
        (&["echo", "--listen", &port][..], format!("can't listen on {taken}: ")),
        (&["echo", "--listen", &port], "choose another port with --listen".to_owned()),
        (&["echo", "--listen", "domain.com"], "expected a port such as 9443".to_owned()),
        (&["echo", "--listen", "192.0.2.1:9443"], "this machine has no such address".to_owned()),
        (&["files", "nowhere"], "nowhere: No such file or directory".to_owned()),
        (&["files", "file"], "file: not a directory; give a directory".to_owned()),
        (&["proxy", "localhost"], "expected a port such as 8282".to_owned()),
        (&["proxy"], "<SERVER>".to_owned()),
        (&["proxy", "./file"], "file: a file, not a Unix socket".to_owned()),
        (&["proxy", "9443", "--listen", "9443"], "wssgate itself would listen on port 9443".to_owned()),
        (&["prxy", "8282"], "\"prxy\" is neither a command nor a file".to_owned()),
        (&["drain", "a", "b"], "unexpected argument 'b'".to_owned()),
        (&["echo", "--write", "nowhere/wssgate.toml"], "nowhere/wssgate.toml can't be written: ".to_owned()),
        (&["echo", "--config", "wssgate.toml"], "needs no configuration file".to_owned()),
    ] {
        let output = output(home.path(), arguments);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(&expect), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// On a terminal, which `script` of util-linux makes.
#[test]
fn a_terminal_gets_colors() {
    let home = TempDir::new().unwrap();
    let inner = format!("{BINARY} echo --listen 127.0.0.1:0");
    let mut child = Command::new("script")
        .args(["--quiet", "--flush", "--command", &inner, "/dev/null"])
        .current_dir(home.path())
        .env("XDG_STATE_HOME", home.path().join("state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    while !text(&said).contains("Ctrl-C") {
        assert!(stdout.read_until(b'\n', &mut said).unwrap() > 0, "{}", text(&said));
    }
    assert!(text(&said).contains("\x1b[1;36mhttps://localhost:"), "{}", text(&said));
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap(); // Ctrl-C
    stdout.read_to_end(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{}", text(&said));
}

/// Ports 443 and 80, in a network of its own, where no authority is reached: the certificate is awaited.
#[tokio::test]
async fn a_name_that_other_machines_know() {
    let test = "a_name_that_other_machines_know";
    let prepare = "ip link set lo up";
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    let Some(home) = apart(test, &ways, prepare) else { return };
    let (backend, _seen) = echo().await;
    let port = backend.address.port().to_string();
    // Nothing is written before it is known that both ports can be had.
    for taken in ["0.0.0.0:80", "0.0.0.0:443"] {
        let _held = TcpListener::bind(taken).unwrap();
        let refused = output(&home, &["echo", "--host", "chat.test.net", "--write", "wssgate.toml"]);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains(&format!("can't listen on {taken}: ")), "{said}");
        assert!(said.contains("a port that connections to port 443 are forwarded to"), "{said}");
    }
    let arguments = ["proxy", &port, "--host", "chat.test.net", "--write", "wssgate.toml"];
    let mut child = command(&home, &arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut welcome = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    while !welcome.contains("Ctrl-C") {
        assert!(stdout.read_line(&mut welcome).unwrap() > 0, "{welcome}");
    }
    assert!(welcome.contains("  wss://chat.test.net/\n"), "{welcome}");
    let mut plain = tokio::net::TcpStream::connect("127.0.0.1:80").await.unwrap();
    let request = "GET /a?b HTTP/1.1\r\nHost: chat.test.net\r\n\r\n";
    let answer = ask(&mut plain, request).await;
    let location = answer.head.get("location");
    assert_eq!((answer.status(), location), (308, Some("https://chat.test.net/a?b")));
    // Never another name's certificate.
    let client = Tls::new("chat.test.net", &[]);
    assert!(client.connect("127.0.0.1:443".parse().unwrap()).await.is_err());
    let checked = output(&home, &["check", "wssgate.toml"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    send_signal(child.id(), "INT");
    assert!(child.wait().unwrap().success());
    let wrong = output(&home, &["echo", "--host", "localhost"]);
    assert!(text(&wrong.stderr).contains("such as chat.domain.com"), "{}", text(&wrong.stderr));
}
