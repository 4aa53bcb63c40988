//! What goes wrong around the gateway: what client, backend and log see of it, and that everybody
//! else is served on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::apart::apart;
use support::backend::{Backend, echo};
use support::cable::{Namespaces, Relay};
use support::gateway::{Gateway, Setup, config, route};
use support::http1::{ask, read_head};
use support::http2::Http2;
use support::pki::{Issued, Pki};
use support::tls::{Tls, leaf};
use support::ws::{BINARY, WebSocket, encode, handshake};
use support::{Io, full_size, soon, until};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");
const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

fn prepare() -> (Setup, Pki, Issued) {
    let setup = Setup::new(WSSGATE);
    let pki = Pki::new();
    let issued = pki.issue(&["default.test"]);
    issued.write(&setup.path().join("certs"), "default");
    (setup, pki, issued)
}

async fn open(address: SocketAddr) -> WebSocket {
    let io = Tls::new("default.test", &["http/1.1"]).connect(address).await.unwrap();
    WebSocket::connect(io, "default.test", "/", "").await.unwrap().0
}

async fn served_leaf(address: SocketAddr) -> Vec<u8> {
    leaf(&Tls::new("default.test", &[]).connect(address).await.unwrap()).to_vec()
}

/// Both ends of a session.
struct Pair {
    client: WebSocket,
    backend: WebSocket,
}

async fn pair(io: impl Io + 'static, sessions: &mut mpsc::UnboundedReceiver<WebSocket>) -> Pair {
    let (client, _) = WebSocket::connect(io, "default.test", "/", "").await.unwrap();
    Pair { client, backend: soon(sessions.recv()).await.unwrap() }
}

/// A backend that hands each session to the test.
async fn handing_over() -> (Backend, mpsc::UnboundedReceiver<WebSocket>) {
    let (tell, told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |tcp| {
        let tell = tell.clone();
        async move { drop(tell.send(WebSocket::serve(tcp, "").await.0)) }
    })
    .await;
    (backend, told)
}

#[tokio::test]
async fn a_log_that_can_not_be_written_delays_no_request() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let (stalled, into_stalled) = std::io::pipe().unwrap();
    let (gone, into_gone) = std::io::pipe().unwrap();
    drop(gone);
    for (what, log) in [
        ("a full disk", full().into()),
        ("a reader that has stalled", std::process::Stdio::from(into_stalled)),
        ("a reader that has gone", into_gone.into()),
    ] {
        let (setup, pki, _) = prepare();
        let mut gateway = setup.start_logging_to(&config("drain_window = \"1ms\"", ECHO), log);
        let address = SocketAddr::V4(*gateway.listening().first().unwrap());
        let mut live = open(address).await;
        // Far more lines than a pipe takes.
        let mut plain =
            TcpStream::connect(SocketAddr::V4(*gateway.listening().last().unwrap())).await.unwrap();
        for _ in 0..500 {
            let path = "x".repeat(1000);
            let answer = ask(&mut plain, format!("GET /{path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
            assert_eq!(answer.status(), 426, "{what}");
        }
        live.echoes(what).await;
        let renewed = pki.issue(&["default.test"]);
        renewed.write(&gateway.path().join("certs"), "default");
        gateway.signal("HUP");
        until(async || served_leaf(address).await == *renewed.der).await;
        live.echoes(what).await;
        let before = Instant::now();
        gateway.signal("TERM");
        live.expect_close(1001).await;
        live.close(1001).await;
        live.expect_end().await;
        gateway.ends_well();
        assert!(before.elapsed() < Duration::from_secs(10), "{what}: {:?}", before.elapsed());
    }
    drop(stalled);
}

#[tokio::test]
async fn what_peers_send_makes_no_long_log_line() {
    let (setup, _, _) = prepare();
    let gateway = setup.start(&config("", ECHO));
    let mut plain = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    // A quotation mark is two bytes in the log.
    let path = format!("/{}", "\"".repeat(8000));
    let answer = ask(&mut plain, format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
    assert_eq!(answer.status(), 426);
    let line = gateway.wait("request");
    assert_eq!(line["path"], format!("{}… (cut, 8001 bytes in all)", &path[..512]));
    let method = "M".repeat(8000);
    let answer = ask(&mut plain, format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
    assert_eq!(answer.status(), 426);
    let line = gateway.wait_nth("request", 1);
    assert_eq!(line["method"], format!("{}… (cut, 8000 bytes in all)", &method[..1024]));
    assert!(gateway.log().lines().all(|line| line.len() < 2000), "{}", gateway.log());
}

/// What has taken all room there is.
struct Filler {
    path: PathBuf,
    file: File,
}

impl Filler {
    fn of(disk: &Path) -> Self {
        let path = disk.join("filler");
        let mut filler = Self { file: File::create(&path).unwrap(), path };
        filler.take_all();
        filler
    }

    fn take_all(&mut self) {
        let error = loop {
            if let Err(e) = self.file.write_all(&[0; PAGE]) {
                break e;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }

    /// Writes `text` to the file at `path` as `cp` would, with room for `pages` only.
    fn cuts(&mut self, path: &Path, text: &str, pages: usize) {
        let mut file = File::create(path).unwrap();
        self.take_all();
        self.file.set_len(self.file.metadata().unwrap().len() - (pages * PAGE) as u64).unwrap();
        assert_eq!(file.write_all(text.as_bytes()).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(file.metadata().unwrap().len(), (pages * PAGE) as u64);
    }

    fn goes(self) {
        fs::remove_file(self.path).unwrap();
    }
}

const PAGE: usize = 4096;

/// The certificates, the control socket, a log and what the demonstration keeps lie on a disk that is
/// full; then nothing more can be made on it at all.
#[test]
fn on_a_full_disk_everybody_is_served_on() {
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let prepare = "mount -t tmpfs -o size=64k,nr_inodes=50 tmpfs \"$WSSGATE_TEST_PLACE\"";
    if let Some(disk) = apart("on_a_full_disk_everybody_is_served_on", &ways, prepare) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(a_full_disk(&disk));
    }
}

async fn a_full_disk(disk: &Path) {
    let (pki, certs) = (Pki::new(), disk.join("certs"));
    // Long enough to be cut in its middle.
    let names: Vec<String> = (0..20).map(|n| format!("n-{n}.{}test", "a-long-domain.".repeat(15))).collect();
    let names: Vec<&str> = ["default.test"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let issued = pki.issue(&names);
    assert!(issued.fullchain.len() > PAGE);
    issued.write(&certs, "default");
    let text = config("drain_window = \"1ms\"", ECHO)
        .replace("\"certs\"", &format!("\"{}\"", certs.display()))
        .replace("watch = false\n", "");
    let control = |name: &str| format!("{text}[control]\nsocket = \"{}\"\n", disk.join(name).display());
    let gateway = Setup::new(WSSGATE).start(&control("control.sock"));
    let log = disk.join("log");
    let mut logging = Setup::new(WSSGATE).start_logging_to(&text, File::create(&log).unwrap());
    let addresses = [gateway.address(), SocketAddr::V4(*logging.listening().first().unwrap())];
    let mut live = Vec::new();
    for address in addresses {
        live.push(open(address).await);
    }
    let mut filler = Filler::of(disk);

    // A renewal that finds no room.
    let renewed = pki.issue(&names);
    filler.cuts(&certs.join("default.crt"), &renewed.fullchain, 1);
    filler.cuts(&certs.join("default.key"), &renewed.key, 0);
    let says = |words: &str| {
        let matches = |line: &serde_json::Value| {
            line["message"] == "certificates" && line["problem"].as_str().unwrap().contains(words)
        };
        gateway.wait_for(matches, 0, words);
    };
    says("certs/default.crt: is not valid PEM");
    says("certs/default.crt and ");
    let report = gateway.reload();
    assert_eq!(report["message"], "reloaded");
    assert!(report["names_kept"].as_str().unwrap().contains("default.test"), "{report}");
    logging.signal("HUP");
    for (address, live) in addresses.into_iter().zip(&mut live) {
        live.echoes("still").await;
        assert_eq!(served_leaf(address).await, *issued.der);
        open(address).await.echoes("new").await;
    }
    let answer = asked(&gateway, "reload");
    assert!(answer.0 && answer.1.contains("certs/default.crt: is not valid PEM"), "{}", answer.1);

    // The demonstration says what to do.
    let state = disk.join("state/wssgate/dev");
    let mut demo = Command::new(WSSGATE);
    let demo = demo.current_dir(gateway.path()).env("XDG_STATE_HOME", disk.join("state")).output().unwrap();
    let said = String::from_utf8_lossy(&demo.stderr);
    let expect = format!("can't be stored in {}: No space left on device", state.display());
    assert!(
        !demo.status.success() && said.contains(&expect) && said.contains("free some space there"),
        "{said}"
    );
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "nothing half made is left behind");

    // There is room again: no signal is needed.
    filler.goes();
    renewed.write(&certs, "default");
    assert!(gateway.wait("renewed")["names_replaced"].as_str().unwrap().contains("default.test"));
    for (address, live) in addresses.into_iter().zip(&mut live) {
        until(async || served_leaf(address).await == *renewed.der).await;
        live.echoes("still").await;
    }

    // Not even an empty file can be made: a reload and a takeover that want one are refused.
    let all_there_are = (0..).take_while(|n| File::create(disk.join(format!("file-{n}"))).is_ok());
    let files = all_there_are.count();
    gateway.write_config(&control("other.sock"));
    let report = gateway.reload();
    assert_eq!(report["message"], "reload refused: the old generation stays in use");
    let first = report["first"].as_str().unwrap();
    assert!(
        first.contains("other.sock: No space left on device") && first.contains("free some space"),
        "{first}"
    );
    gateway.signal("USR2");
    let failed = gateway.wait("takeover failed: this process continues to serve, and nothing has changed");
    assert!(failed["cause"].as_str().unwrap().contains("free some space there"), "{failed}");
    assert!(asked(&gateway, &format!("status --socket {}", disk.join("control.sock").display())).0);
    gateway.write_config(&control("control.sock"));
    (0..files).for_each(|n| fs::remove_file(disk.join(format!("file-{n}"))).unwrap());
    for live in &mut live {
        live.echoes("still").await;
    }

    // What could not be written is lost; what is said from now on isn't.
    logging.signal("TERM");
    live[1].expect_close(1001).await;
    live[1].close(1001).await;
    logging.ends_well();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.ends_with("\"drained: the last connection has ended\"}\n"), "{log}");
}

/// Whether a subcommand succeeds, and what it says.
fn asked(gateway: &Gateway, arguments: &str) -> (bool, String) {
    let file = gateway.path().join("wssgate.toml");
    let mut command = Command::new(WSSGATE);
    let output = command.args(arguments.split(' ')).arg("--config").arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn certificates_that_a_full_disk_has_cut_short_are_not_served() {
    let (setup, pki, issued) = prepare();
    let gateway = setup.start(&config("", ECHO));
    let certs = gateway.path().join("certs");
    let mut live = open(gateway.address()).await;
    let renewed = pki.issue(&["default.test"]);
    // What `install` and `cp` leave behind.
    for (chain, key) in [(0, 0), (300, 0), (renewed.fullchain.len() - 30, 100), (usize::MAX, 0)] {
        let cut = |text: &str, len: usize| text[..len.min(text.len())].to_owned();
        fs::write(certs.join("default.crt"), cut(&renewed.fullchain, chain)).unwrap();
        fs::write(certs.join("default.key"), cut(&renewed.key, key)).unwrap();
        let report = gateway.reload();
        assert_eq!((&report["message"], &report["names_kept"]), (&"reloaded".into(), &"default.test".into()));
        assert_eq!(served_leaf(gateway.address()).await, *issued.der);
        live.echoes("still").await;
    }
    renewed.write(&certs, "default");
    assert_eq!(gateway.reload()["names_replaced"], "default.test");
    assert_eq!(served_leaf(gateway.address()).await, *renewed.der);
    live.echoes("still").await;
}

#[tokio::test]
async fn a_certificate_directory_that_goes_keeps_its_certificates_until_it_is_back() {
    let (setup, pki, issued) = prepare();
    let gateway = setup.start(&config("", ECHO));
    let certs = gateway.path().join("certs");
    let mut live = open(gateway.address()).await;
    fs::remove_dir_all(&certs).unwrap();
    let report = gateway.reload();
    assert_eq!(report["message"], "reload refused: the old generation stays in use");
    assert!(
        report["first"].as_str().unwrap().contains(&format!("{}: can't be read", certs.display())),
        "{report}"
    );
    assert_eq!(served_leaf(gateway.address()).await, *issued.der);
    open(gateway.address()).await.echoes("new").await;
    live.echoes("still").await;
    // The configuration, too.
    let file = gateway.path().join("wssgate.toml");
    fs::rename(&file, file.with_extension("away")).unwrap();
    let report = gateway.reload();
    assert_eq!(report["message"], "reload refused: the old generation stays in use");
    assert!(report["first"].as_str().unwrap().contains("wssgate.toml"), "{report}");
    fs::rename(file.with_extension("away"), &file).unwrap();
    let renewed = pki.issue(&["default.test"]);
    renewed.write(&certs, "default");
    assert_eq!(gateway.reload()["names_replaced"], "default.test");
    assert_eq!(served_leaf(gateway.address()).await, *renewed.der);
    live.echoes("still").await;
}

const SHORTAGE: &str = "connections can't be accepted and wait in the kernel's queue: raise the limit on open files, or add memory";

#[tokio::test]
async fn without_descriptors_connections_wait_and_are_accepted_later() {
    const LIMIT: usize = 80;
    let (backend, seen) = echo().await;
    let (setup, _, _) = prepare();
    let config = config("workers = 2", &route("/", backend.address));
    let gateway = setup
        .with_descriptors(LIMIT)
        .start(&config.replace("tls = false", "tls = false\nheader_timeout = \"5m\""));
    let (tls, plain) = (gateway.address(), gateway.addresses()[1]);
    let mut live = open(tls).await;
    // A session takes two, so that either one is left for the last client and none for its backend,
    // or none at all: then one more is made free.
    let mut spare = Some(TcpStream::connect(plain).await.unwrap());
    let mut sessions = Vec::new();
    let last = loop {
        let mut tcp = TcpStream::connect(plain).await.unwrap();
        tcp.write_all(handshake("a.test", "/", "").as_bytes()).await.unwrap();
        let answer = match timeout(Duration::from_secs(1), read_head(&mut tcp)).await {
            Ok(answer) => answer,
            Err(_) => {
                drop(spare.take());
                read_head(&mut tcp).await
            }
        };
        match answer.unwrap().status() {
            101 => sessions.push(tcp),
            status => break (tcp, status),
        }
        assert!(sessions.len() < LIMIT, "there is no limit");
    };
    assert_eq!((last.1, seen.count()), (503, sessions.len() + 1), "no backend was asked for the last");
    let line = gateway.wait_for(|line| line["status"] == 503, 0, "the request");
    assert!(line["cause"].as_str().unwrap().contains("open files"), "{line}");
    // None is left: new clients wait, and so does the gateway.
    let mut waiting: Vec<TcpStream> = Vec::new();
    for _ in 0..20 {
        // Silent clients would be disconnected for others.
        let mut client = TcpStream::connect(plain).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        waiting.push(client);
    }
    gateway.wait(SHORTAGE);
    let cpu = gateway.cpu_time();
    sleep(Duration::from_secs(2)).await;
    let used = gateway.cpu_time() - cpu;
    assert!(used < Duration::from_millis(200), "it spins: {used:?} in 2 s");
    assert_eq!(gateway.lines(SHORTAGE).len(), 1, "{}", gateway.log());
    live.echoes("still").await;
    // What can't be read is no reason to forget what was.
    let report = gateway.reload();
    assert_eq!(report["message"], "reload refused: the old generation stays in use");
    assert!(report["first"].as_str().unwrap().contains("open files"), "{report}");
    live.echoes("still").await;
    // Some are free.
    let opened = sessions.len();
    drop((spare, sessions, last));
    until(async || gateway.lines("session").len() == opened).await;
    for client in &mut waiting {
        let answer = ask(client, "Host: a.test\r\n\r\n").await;
        assert_eq!(answer.status(), 200);
    }
    drop(waiting);
    until(async || {
        drop(TcpStream::connect(plain).await.unwrap());
        sleep(Duration::from_millis(100)).await; // or these would be the next shortage
        !gateway.lines("connections are accepted again").is_empty()
    })
    .await;
    open(tls).await.echoes("new").await;
    assert_eq!(gateway.reload()["message"], "reloaded");
    live.echoes("still").await;
}

/// Clients have taken every descriptor. A request for the state of the gateway is still answered, or an
/// orchestrator would end it. A renewal is not forgotten.
#[tokio::test]
async fn without_descriptors_operators_are_answered_and_certificates_renewed_later() {
    const LIMIT: usize = 60;
    let (setup, pki, _) = prepare();
    let outside = "[admin]\naddress = \"127.0.0.3:0\"\n[control]\nsocket = \"control.sock\"\n";
    let text = config("workers = 2", &(ECHO.to_owned() + outside))
        .replace("watch = false\n", "")
        .replace("tls = false", "tls = false\nheader_timeout = \"5m\"");
    let gateway = setup.with_descriptors(LIMIT).start(&text);
    let (tls, plain, admin) = (gateway.address(), gateway.addresses()[1], gateway.admin());
    let control = gateway.path().join("control.sock");
    let mut live = open(tls).await;
    // Silent clients would be disconnected for others.
    let mut unfinished = Vec::new();
    for _ in 0..LIMIT {
        let mut client = TcpStream::connect(plain).await.unwrap();
        client.write_all(b"GET").await.unwrap();
        unfinished.push(client);
    }
    gateway.wait(SHORTAGE);
    until(async || taken(&gateway, LIMIT) == LIMIT).await;
    for _ in 0..10 {
        is_alive(TcpStream::connect(admin).await.unwrap()).await;
        is_ready(UnixStream::connect(&control).await.unwrap()).await;
    }
    // Others have all that is kept back for them.
    let mut in_the_way = Vec::new();
    for _ in 0..8 {
        let admin = TcpStream::connect(admin).await.unwrap();
        in_the_way.push((admin, UnixStream::connect(&control).await.unwrap()));
    }
    let mut alive = Box::pin(is_alive(TcpStream::connect(admin).await.unwrap()));
    let mut ready = Box::pin(is_ready(UnixStream::connect(&control).await.unwrap()));
    let cpu = gateway.cpu_time();
    let period = Duration::from_secs(2);
    assert!(
        timeout(period, async {
            tokio::select! { () = &mut alive => {}, () = &mut ready => {} }
        })
        .await
        .is_err()
    );
    let used = gateway.cpu_time() - cpu;
    assert!(used < period / 10, "it spins: {used:?} in {period:?}");
    drop(in_the_way);
    alive.await;
    ready.await;
    let renewed = pki.issue(&["default.test"]);
    renewed.write(&gateway.path().join("certs"), "default");
    let line =
        gateway.wait("certificate files can't be watched for changes; they are checked at intervals instead");
    assert!(line["cause"].as_str().unwrap().contains("certs: can't be read: Too many open files"), "{line}");
    live.echoes("still").await;
    assert_eq!(gateway.lines(SHORTAGE).len(), 1, "{}", gateway.log());
    // Some are free again: no signal is needed.
    drop(unfinished);
    let line = gateway.wait("renewed");
    assert_eq!(line["names_replaced"], "default.test", "{}", gateway.log());
    gateway.wait("certificate files are watched for changes again");
    assert_eq!(served_leaf(tls).await, *renewed.der);
    let mut together = Vec::new();
    for _ in 0..4 {
        let admin = TcpStream::connect(admin).await.unwrap();
        together.push((admin, UnixStream::connect(&control).await.unwrap()));
    }
    for (admin, control) in together.into_iter().rev() {
        is_alive(admin).await;
        is_ready(control).await;
    }
    live.echoes("still").await;
}

/// How many of its descriptors below `limit` are in use; it may have inherited one above.
fn taken(gateway: &Gateway, limit: usize) -> usize {
    let all = fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().map_while(Result::ok);
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<usize>().ok());
    numbers.filter(|number| *number < limit).count()
}

/// So says the admin listener.
async fn is_alive(mut admin: TcpStream) {
    let answer = ask(&mut admin, "GET /healthz HTTP/1.1\r\nHost: admin\r\n\r\n").await;
    assert_eq!((answer.status(), answer.text()), (200, "alive\n".to_owned()));
}

/// So says the control socket.
async fn is_ready(mut control: UnixStream) {
    control.write_all(b"{\"command\":\"status\"}\n").await.unwrap();
    let mut line = String::new();
    soon(BufReader::new(control).read_line(&mut line)).await.unwrap();
    assert!(line.contains("\"state\":\"ready\""), "{line}");
}

/// 50 clients that read nothing, before backends that never stop: what waits for them stays where it
/// came from. A minute later they are given up, which only the full size waits for.
#[tokio::test]
async fn clients_that_stop_reading_cost_no_memory_and_are_given_up() {
    const FROZEN: usize = 50;
    let flood = Backend::start(|tcp| async move {
        let (mut socket, _) = WebSocket::serve(tcp, "").await;
        let frames = encode(BINARY, &[7; 16 << 10], false).repeat(4);
        while socket.io.write_all(&frames).await.is_ok() {}
    })
    .await;
    let (backend, _seen) = echo().await;
    let (setup, _, _) = prepare();
    let routes = route("/", backend.address) + &route("/flood", flood.address);
    let gateway = setup.start(&config("", &routes));
    let tls = Tls::new("default.test", &["http/1.1"]);
    let mut live = open(gateway.address()).await;
    live.echoes("before").await;
    let before = gateway.resident_kib();
    let mut frozen = Vec::new();
    for _ in 0..FROZEN {
        let io = tls.connect(gateway.address()).await.unwrap();
        frozen.push(WebSocket::connect(io, "default.test", "/flood", "").await.unwrap().0);
    }
    let begun = Instant::now();
    let watched = if full_size() { Duration::from_secs(75) } else { Duration::from_secs(3) };
    let mut highest = 0;
    while begun.elapsed() < watched {
        let asked = Instant::now();
        live.echoes("meanwhile").await;
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        highest = highest.max(gateway.resident_kib());
        sleep(Duration::from_millis(20)).await;
    }
    // A buffer of the gateway's each, and what a connection costs.
    let most = FROZEN as u64 * 512;
    assert!(highest.saturating_sub(before) < most, "{before} KiB before, {highest} KiB with them");
    if full_size() {
        for n in 0..FROZEN {
            let line = gateway.wait_nth("session", n);
            assert_eq!((&line["ended_by"], &line["close_code"]), (&"client".into(), &1006.into()), "{line}");
            assert_eq!(line["cause"], "client took nothing of what waits for it for a minute");
        }
    }
}

/// Clients that read nothing, more and more of them, before a backend that never stops: what waits for them
/// stays below `max_memory`, new sessions are refused while there is no room, the slowest go, and who reads is
/// served on.
#[tokio::test]
async fn clients_that_stop_reading_are_given_up_before_they_take_all_memory() {
    const LIMIT: u64 = 16 << 20;
    let flood = Backend::start(|tcp| async move {
        let (mut socket, _) = WebSocket::serve(tcp, "").await;
        let frames = encode(BINARY, &[7; 16 << 10], false).repeat(4);
        while socket.io.write_all(&frames).await.is_ok() {}
    })
    .await;
    let (backend, _seen) = echo().await;
    let (setup, _, _) = prepare();
    let routes = route("/", backend.address)
        + &route("/flood", flood.address)
        + "[route.websocket]\nping_interval = \"off\"\n[admin]\naddress = \"127.0.0.3:0\"\n";
    let gateway = setup.start(&config("workers = 1\nmax_memory = \"16MiB\"", &routes));
    let tls = Tls::new("default.test", &["http/1.1"]);
    let mut live = open(gateway.address()).await;
    live.echoes("before").await;
    let before = gateway.resident_kib();
    let (mut frozen, mut highest, mut refused) = (Vec::new(), 0, 0);
    let mut more = async || {
        let io = tls.connect(gateway.address()).await.unwrap();
        match WebSocket::connect(io, "default.test", "/flood", "").await {
            Ok((socket, _)) => frozen.push(socket),
            Err(head) => {
                assert_eq!((head.status(), head.get("retry-after")), (503, Some("10")));
                refused += 1;
            }
        }
        refused
    };
    let begun = Instant::now();
    // Until some were refused and some were closed, and the same once more.
    for closed in [1, 40] {
        loop {
            let refused = more().await;
            let asked = Instant::now();
            live.echoes("meanwhile").await;
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
            let held = gateway.metric("wssgate_memory_held_bytes").await;
            highest = highest.max(held);
            if refused > 0 && gateway.metric("wssgate_memory_closed_total").await >= closed {
                break;
            }
            assert!(begun.elapsed() < support::PATIENCE, "{refused} refused, {held} bytes held");
        }
    }
    assert!(highest < LIMIT, "{highest} bytes held");
    let resident = gateway.resident_kib().saturating_sub(before) * 1024;
    assert!(resident < 2 * LIMIT, "{resident} bytes");
    assert_eq!(gateway.metric("wssgate_memory_limit_bytes").await, LIMIT);
    assert!(gateway.metric("wssgate_memory_refused_total").await > 0);
    let line = gateway.wait("session");
    assert_eq!((&line["ended_by"], &line["close_code"]), (&"gateway".into(), &1013.into()), "{line}");
    gateway.wait_for(
        |line| line["message"].as_str().is_some_and(|text| text.starts_with("max_memory is nearly used up")),
        0,
        "about the memory",
    );
    // No client waits any more: there is room again.
    drop(frozen);
    until(async || gateway.metric("wssgate_memory_held_bytes").await < LIMIT / 2).await;
    live.echoes("after").await;
    open(gateway.address()).await.echoes("new").await;
}

/// Each reset request has cost a connection to a backend: who does little else is sent away.
#[tokio::test]
async fn a_client_that_resets_its_requests_is_sent_away() {
    let (tell, mut asked) = mpsc::unbounded_channel();
    let silent = Backend::start(move |mut tcp| {
        let tell = tell.clone();
        async move {
            let _ = read_head(&mut tcp).await;
            let _ = tell.send(());
            let _ = tcp.read_u8().await; // the gateway gives up when its client has
        }
    })
    .await;
    let (setup, _, _) = prepare();
    let gateway = setup.start(&config("workers = 1", &route("/", silent.address)));
    let io = Tls::new("default.test", &["h2"]).connect(gateway.address()).await.unwrap();
    let mut http2 = Http2::connect(io, "default.test").await;
    let mut resets = 0;
    loop {
        let request = http2.request(http::Method::GET, "/");
        tokio::select! {
            told = asked.recv() => told.unwrap(),
            answer = http2.send(request, true) => {
                assert!(answer.is_err());
                break;
            }
        }
        // What is dropped is reset (CANCEL).
        resets += 1;
        assert!(resets < 3000);
    }
    assert!(resets >= 200, "{resets}");
    gateway.wait("connection closed: the client resets its requests before they are answered");
}

/// A client that a fault has reached, and another one; the gateway notices by pings, tells the log,
/// ends the backend's side, keeps nothing.
async fn is_found_by_pings(cable: Option<Namespaces>) {
    let (setup, _, _) = prepare();
    let (backend, mut sessions) = handing_over().await;
    let routes = route("/", backend.address)
        + "[route.websocket]\nping_interval = \"300ms\"\npong_timeout = \"500ms\"\n";
    let listening_on = if cable.is_some() { Namespaces::GATEWAY } else { "127.0.0.1" };
    let gateway = setup.start(&config("", &routes).replacen("127.0.0.1", listening_on, 1));
    let relay = Relay::start(gateway.address()).await;
    let tls = Tls::new("default.test", &["http/1.1"]);
    let before = gateway.descriptors().len();
    // First, since a connection to another namespace may take its time.
    let far = match &cable {
        Some(cable) => cable.connect(gateway.address()),
        None => relay.connect().await,
    };
    let mut other = pair(tls.connect(gateway.address()).await.unwrap(), &mut sessions).await;
    let mut cut_off = pair(tls.over(far).await.unwrap(), &mut sessions).await;
    match &cable {
        Some(cable) => cable.cut(),
        None => relay.cut(),
    }
    // What is under way is lost, and neither side is told.
    cut_off.backend.text("lost").await;
    let other_lives = async {
        loop {
            other.client.text("still").await;
            other.backend.expect_text("still").await;
            sleep(Duration::from_millis(50)).await; // often enough to need no ping
        }
    };
    let noticed = async { soon(cut_off.backend.io.read_u8()).await.unwrap_err() };
    tokio::select! {
        () = other_lives => unreachable!(),
        _ = noticed => {} // no Close: as if the client had been the backend's own
    }
    let line = gateway.wait("session");
    assert_eq!((&line["ended_by"], &line["close_code"]), (&"client".into(), &1006.into()));
    assert_eq!(line["cause"], "client answered no ping within pong_timeout");
    assert_eq!(line["sent_messages"], 1);
    until(async || gateway.descriptors().len() == before + 2).await; // the other one's
}

#[tokio::test]
async fn a_client_behind_a_relay_that_swallows_everything_is_found_by_pings() {
    is_found_by_pings(None).await;
}

/// With packets that are lost, where a test may have network namespaces (as root on Linux, with
/// `ip`); elsewhere by the relay.
#[test]
fn a_client_whose_network_is_cut_is_found_by_pings() {
    let test = || {
        // A thread of its own, since a namespace is a thread's.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cable = Namespaces::enter();
        runtime.block_on(is_found_by_pings(cable));
    };
    std::thread::spawn(test).join().unwrap();
}
