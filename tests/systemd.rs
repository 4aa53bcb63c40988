//! The service manager's side: sockets that it hands over, and what it is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::fs::fstat;
use support::gateway::{Gateway, Setup, config, send_signal};
use support::http1::ask;
use support::ws::WebSocket;
use support::{PATIENCE, soon};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");
const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

fn setup() -> Setup {
    Setup::new(BINARY).with_certificate(&["default.test"])
}

async fn status(address: SocketAddr) -> u16 {
    let mut io = TcpStream::connect(address).await.unwrap();
    ask(&mut io, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await.status()
}

/// What a service manager recv.
struct Manager {
    _directory: TempDir,
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { _directory: directory, path, socket }
    }

    /// The next message, one line an element.
    #[track_caller]
    fn recv(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let len = self.socket.recv(&mut message).expect("a message");
        String::from_utf8(message[..len].to_vec()).unwrap().lines().map(Into::into).collect()
    }

    /// The next message that comes before the socket's time is up.
    fn recv_in_time(&self) -> Option<Vec<u8>> {
        let mut message = vec![0; 4096];
        match self.socket.recv(&mut message) {
            Ok(len) => Some(message[..len].to_vec()),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                None
            }
        }
    }

    #[track_caller]
    fn hears_ready(&self, status: &str) {
        let heard = self.recv();
        assert_eq!(heard[0], "READY=1", "{heard:?}");
        assert!(heard[1].starts_with("STATUS=") && heard[1].contains(status), "{heard:?}");
    }

    #[track_caller]
    fn hears_reloading(&self) {
        let heard = self.recv();
        assert_eq!(heard[0], "RELOADING=1", "{heard:?}");
        assert!(heard[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0, "{heard:?}");
    }
}

#[test]
fn systemd_is_notified_of_reloads_takeovers_and_the_end() {
    let manager = Manager::start();
    let text = config("", ECHO);
    let mut gateway = setup().with("NOTIFY_SOCKET", &manager.path).start(&text);
    manager.hears_ready("generation 1, 2 listeners, 1 routes");
    gateway.reload();
    manager.hears_reloading();
    manager.hears_ready("generation 2");
    gateway.write_config("nonsense");
    gateway.reload();
    manager.hears_reloading();
    manager.hears_ready("generation 2");
    gateway.write_config(&text);
    let mut new = 0;
    for _ in 0..2 {
        new = gateway.take_over();
        assert_eq!(manager.recv(), [format!("MAINPID={new}")]);
        assert_eq!(manager.recv(), ["BARRIER=1"]);
        manager.hears_ready("generation 1");
    }
    send_signal(new, "HUP");
    manager.hears_reloading();
    manager.hears_ready("generation 2");
    send_signal(new, "TERM");
    let heard = manager.recv();
    assert_eq!(heard[0], "STOPPING=1");
    let limit: u64 = heard[1].strip_prefix("EXTEND_TIMEOUT_USEC=").unwrap().parse().unwrap();
    assert!(limit > 30_000_000, "longer than drain_timeout");
    gateway.ends_well();
}

#[test]
fn the_watchdog_is_fed_by_the_process_that_is_the_service() {
    let manager = Manager::start();
    let setup = setup().with("NOTIFY_SOCKET", &manager.path).with("WATCHDOG_USEC", "200000");
    let gateway = setup.start(&config("", ECHO));
    let hears_watchdog = || {
        for _ in 0..3 {
            assert_eq!(manager.recv(), ["WATCHDOG=1"]);
        }
    };
    manager.hears_ready("");
    hears_watchdog();
    let new = gateway.take_over();
    loop {
        let heard = manager.recv();
        if heard == ["BARRIER=1"] {
            break;
        }
        assert!(heard == ["WATCHDOG=1"] || heard == [format!("MAINPID={new}")], "{heard:?}");
    }
    manager.hears_ready("");
    hears_watchdog();
}

/// A thread that hangs, as others see it, until this is dropped; by the test's own
/// thread, which is its debugger.
struct Held(Pid);

impl Held {
    /// The first worker of `gateway`; `None` where ptrace is forbidden.
    fn first_worker(gateway: &Gateway) -> Option<Self> {
        let threads = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
        let worker = threads
            .map(|thread| thread.unwrap().path())
            .find(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == "worker-0\n"));
        let id = Pid::from_raw(worker.unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap());
        match ptrace::seize(id, Options::empty()) {
            Err(Errno::EPERM | Errno::ENOSYS) => return None,
            seized => seized.unwrap(),
        }
        ptrace::interrupt(id).unwrap();
        waitpid(id, Some(WaitPidFlag::__WALL)).unwrap(); // until it stands still
        Some(Self(id))
    }
}

impl Drop for Held {
    /// In a test that fails, too: a thread that has a debugger can't even be killed for good.
    fn drop(&mut self) {
        ptrace::detach(self.0, None).unwrap();
    }
}

#[tokio::test]
async fn the_watchdog_hears_nothing_while_a_worker_hangs() {
    let manager = Manager::start();
    let setup = setup().with("NOTIFY_SOCKET", &manager.path).with("WATCHDOG_USEC", "100000");
    let gateway = setup.start(&config("workers = 2", ECHO));
    manager.hears_ready("");
    assert_eq!(manager.recv(), ["WATCHDOG=1"]);
    let mut live = Vec::new();
    for _ in 0..16 {
        let tcp = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
        live.push(WebSocket::connect(tcp, "default.test", "/", "").await.unwrap().0);
    }
    let Some(held) = Held::first_worker(&gateway) else {
        return eprintln!("no worker was made to hang: ptrace is forbidden on this machine");
    };
    // What was said before; a message may be on its way still, and then there would be twenty more.
    manager.socket.set_nonblocking(true).unwrap();
    while manager.recv_in_time().is_some() {}
    manager.socket.set_nonblocking(false).unwrap();
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let heard = std::iter::from_fn(|| manager.recv_in_time()).take(5).count();
    assert!(heard <= 1, "{heard}");
    let mut echoing = JoinSet::new();
    for mut socket in live {
        echoing.spawn(async move { socket.echoes("x").await });
    }
    // The other worker's are served as ever.
    soon(echoing.join_next()).await.unwrap().unwrap();
    drop(held);
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..3 {
        assert_eq!(manager.recv(), ["WATCHDOG=1"]);
    }
    // And those that had to wait.
    while let Some(echoed) = soon(echoing.join_next()).await {
        echoed.unwrap();
    }
}

#[tokio::test]
async fn sockets_of_the_service_manager_are_used_and_handed_on() {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (wanted, spare) = (bind(), bind());
    let (address, other) = (wanted.local_addr().unwrap(), spare.local_addr().unwrap());
    let text = config("workers = 3", ECHO).replacen("127.0.0.2:0", &address.to_string(), 1);
    // A client connects before the gateway runs.
    let mut early = TcpStream::connect(address).await.unwrap();
    let sockets = || [wanted.try_clone().unwrap(), spare.try_clone().unwrap()];
    let mut gateway = setup().activated(sockets()).start(&text);
    let answer = ask(&mut early, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
    assert_eq!(answer.status(), 426);
    drop(early);
    let nobody = "no listener uses this socket of the service manager: add a [[listener]] with this address, or remove the socket there";
    let warning = gateway.wait(nobody);
    assert_eq!((&warning["name"], &warning["address"]), (&"second".into(), &other.to_string().into()));
    // A reload that wants the other one.
    let both = format!("{text}[[listener]]\naddress = \"{other}\"\ntls = false\n");
    gateway.write_config(&both);
    assert_eq!(gateway.reload()["message"], "reloaded");
    assert_eq!(status(other).await, 426);
    gateway.write_config(&text);
    assert_eq!(gateway.reload()["listeners_removed"], 1);
    gateway.write_config(&both);
    assert_eq!(gateway.reload()["listeners_added"], 1);
    assert_eq!(status(other).await, 426);
    // The next processes have them, too.
    for workers in [1, 4] {
        gateway.write_config(&both.replace("workers = 3", &format!("workers = {workers}")));
        gateway.take_over();
        for _ in 0..10 {
            assert_eq!((status(address).await, status(other).await), (426, 426));
        }
    }
    send_signal(*gateway.successors().last().unwrap(), "TERM");
    gateway.ends_well();
    // The service manager's they are still.
    let mut waiting = TcpStream::connect(address).await.unwrap();
    let _again = setup().activated(sockets()).start(&text);
    let answer = ask(&mut waiting, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
    assert_eq!(answer.status(), 426);
}

#[test]
fn lines_for_the_journal_have_their_priority() {
    for in_journal in [true, false] {
        let setup = setup();
        fs::write(setup.config_file(), config("", ECHO)).unwrap();
        let (read, write) = io::pipe().unwrap();
        let file = fstat(&write).unwrap();
        let inode = if in_journal { file.st_ino } else { file.st_ino + 1 };
        let mut gateway = Command::new(BINARY)
            .arg("--config")
            .arg(setup.config_file())
            .env("JOURNAL_STREAM", format!("{}:{inode}", file.st_dev))
            .stderr(write)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(read).lines().map_while(Result::ok);
        let mut line = |with: &str| lines.find(|line| line.contains(with)).unwrap();
        let begins_with = |line: &str, priority| {
            assert_eq!(line.starts_with(priority), in_journal, "{line}");
            assert_eq!(line.starts_with('<'), in_journal, "{line}");
        };
        begins_with(&line(" ready "), "<6>");
        fs::write(setup.config_file(), "nonsense").unwrap();
        send_signal(gateway.id(), "HUP");
        begins_with(&line("reload refused"), "<3>");
        send_signal(gateway.id(), "TERM");
        begins_with(&line("drained: the last connection has ended"), "<6>");
        assert!(gateway.wait().unwrap().success());
    }
}
