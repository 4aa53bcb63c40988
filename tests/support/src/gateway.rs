//! The real binary, with a configuration of the test's, and its log.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::http1::ask;
use crate::pki::Pki;
use crate::tls::Tls;
use crate::{BoxIo, PATIENCE, logfmt};

/// What a process logs at a takeover whose sessions have moved.
pub const MOVED: &str = "sessions moved: they go on in the new process";
/// What the old process logs at its end.
pub const RETIRED: &str = "retired: the last connection has ended";

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    directory: TempDir,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

impl Log {
    /// A test that fails while it holds the log still wants to show it.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, lines: MutexGuard<'a, Lines>, left: Duration) -> MutexGuard<'a, Lines> {
        self.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0
    }
}

#[derive(Default)]
struct Lines {
    all: Vec<Value>,
    ended: bool,
}

/// A directory for a gateway that is not started yet.
pub struct Setup {
    binary: PathBuf,
    directory: TempDir,
    descriptors: Option<usize>,
    environment: Vec<(String, PathBuf)>,
    log_format: &'static str,
    activated: Option<[TcpListener; 2]>,
}

impl Setup {
    /// For the binary at `binary`: `env!("CARGO_BIN_EXE_wssgate")`.
    #[must_use]
    pub fn new(binary: &str) -> Self {
        let directory = TempDir::new().unwrap();
        // Other users can't read the keys in it.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self {
            binary: binary.into(),
            directory,
            descriptors: None,
            environment: Vec::new(),
            log_format: "json",
            activated: None,
        }
    }

    /// It may have so many files open and no more.
    #[must_use]
    pub fn with_descriptors(self, count: usize) -> Self {
        Self { descriptors: Some(count), ..self }
    }

    /// Where the configuration will be; relative paths in it are relative to here.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// With a certificate for these names, in the directory `certs` of the configuration.
    #[must_use]
    pub fn with_certificate(self, names: &[&str]) -> Self {
        Pki::new().issue(names).write(&self.path().join("certs"), "default");
        self
    }

    /// To be started by another path: of a copy, or of a symbolic link.
    #[must_use]
    pub fn at(self, binary: &Path) -> Self {
        Self { binary: binary.into(), ..self }
    }

    /// With another environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// With a log as people read it. Each line that is logfmt becomes an object of strings, with the line
    /// itself as `line`.
    #[must_use]
    pub fn with_text_log(self) -> Self {
        Self { log_format: "text", ..self }
    }

    /// With listening sockets, as a service manager would hand them over.
    #[must_use]
    pub fn activated(mut self, sockets: [TcpListener; 2]) -> Self {
        self.activated = Some(sockets);
        self
    }

    /// Starts the gateway and waits until it is ready.
    ///
    /// # Panics
    /// If it isn't.
    #[must_use]
    pub fn start(self, config: &str) -> Gateway {
        let gateway = self.launch(config);
        gateway.wait("ready");
        gateway
    }

    /// Starts the gateway, and doesn't wait.
    #[must_use]
    pub fn launch(self, config: &str) -> Gateway {
        std::fs::write(self.config_file(), config).unwrap();
        self.launch_as_it_is()
    }

    /// The configuration file, which may be made by hand.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("wssgate.toml")
    }

    /// Starts the gateway with a configuration file made by hand.
    #[must_use]
    pub fn launch_as_it_is(self) -> Gateway {
        let mut child = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::<Log>::default();
        let reader = log.clone();
        let is_text = self.log_format == "text";
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let value = if is_text { read_text(&line) } else { serde_json::from_str(&line).ok() };
                let value = value.unwrap_or(Value::String(line));
                reader.lock().all.push(value);
                reader.changed.notify_all();
            }
            reader.lock().ended = true;
            reader.changed.notify_all();
        });
        Gateway { child, directory: self.directory, log }
    }

    /// Starts the gateway with a log that the test doesn't read, and waits until it
    /// listens.
    ///
    /// # Panics
    /// If it doesn't.
    #[must_use]
    pub fn start_logging_to(self, config: &str, log: impl Into<Stdio>) -> Gateway {
        std::fs::write(self.config_file(), config).unwrap();
        let child = self.command().stderr(log).spawn().unwrap();
        let gateway = Gateway { child, directory: self.directory, log: Arc::default() };
        gateway.log.lock().ended = true; // as far as the test can see
        let deadline = Instant::now() + PATIENCE;
        while gateway.listening().len() < config.matches("[[listener]]").count() {
            assert!(Instant::now() < deadline, "it doesn't listen");
            thread::yield_now();
        }
        gateway
    }

    fn command(&self) -> Command {
        let mut command = match (self.descriptors, &self.activated) {
            (None, None) => Command::new(&self.binary),
            (Some(count), _) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {count} && exec \"$0\" \"$@\"")]).arg(&self.binary);
                shell
            }
            // Only a shell can put them where they belong without unsafe code.
            (None, Some(_)) => {
                let mut shell = Command::new("sh");
                shell.args([
                    "-c",
                    "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=first:second \
                     exec \"$0\" \"$@\" 3<&0 4<&1 0</dev/null 1>/dev/null",
                ]);
                shell.arg(&self.binary);
                shell
            }
        };
        command
            .args([
                "--log-format",
                self.log_format,
                "--log",
                "debug,h2=info,rustls=info,hyper=info,mio=info,hickory_net=info,hickory_proto=info,hickory_resolver=info",
                "--config",
            ])
            .arg(self.config_file())
            .env("RUST_BACKTRACE", "0")
            .env_remove("RUNTIME_DIRECTORY") // the environment of the test run must not matter
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(sockets) = &self.activated {
            let [first, second] = sockets.each_ref().map(|socket| OwnedFd::from(socket.try_clone().unwrap()));
            command.stdin(first).stdout(second);
        }
        command
    }
}

impl Gateway {
    /// A TLS connection to default.test, with this protocol.
    ///
    /// # Panics
    /// If there is none.
    pub async fn connect_tls(&self, alpn: &str) -> BoxIo {
        Box::new(Tls::new("default.test", &[alpn]).connect(self.address()).await.unwrap())
    }

    /// A connection to the listener without TLS of [`config`].
    ///
    /// # Panics
    /// If there is none.
    pub async fn connect_plain(&self) -> BoxIo {
        Box::new(TcpStream::connect(self.addresses()[1]).await.unwrap())
    }

    /// Where its configuration is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The addresses listened on, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let lines = self.lines("listening");
        lines.iter().filter_map(|line| line["address"].as_str().unwrap().parse().ok()).collect() // or Unix sockets
    }

    /// The first of them.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// Where the admin listener is.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.lines("admin listener").last().expect("one")["address"].as_str().unwrap().parse().unwrap()
    }

    /// What `/metrics` says of `name` now: the sum over all labels, or that one sample if its labels are in the name.
    ///
    /// # Panics
    /// If it says nothing of it.
    pub async fn metric(&self, name: &str) -> u64 {
        let mut tcp = TcpStream::connect(self.admin()).await.unwrap();
        let page = ask(&mut tcp, "GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n").await.text();
        let is_asked = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let samples = page.lines().filter(is_asked);
        let values: Vec<u64> =
            samples.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(!values.is_empty(), "no {name} in {page}");
        values.iter().sum()
    }

    /// All log lines so far.
    #[must_use]
    pub fn all_lines(&self) -> Vec<Value> {
        self.log.lock().all.clone()
    }

    /// All log lines so far with this message. A thread of the gateway's writes the log, so what has just happened
    /// may not be there yet: wait for it first.
    #[must_use]
    pub fn lines(&self, message: &str) -> Vec<Value> {
        let lines = self.log.lock();
        lines.all.iter().filter(|line| line["message"] == message).cloned().collect()
    }

    /// The next log line with this message, be it there already or not.
    #[track_caller]
    pub fn wait(&self, message: &str) -> Value {
        self.wait_nth(message, 0)
    }

    /// The `n`th log line with this message, counted from 0.
    #[track_caller]
    pub fn wait_nth(&self, message: &str, n: usize) -> Value {
        self.wait_for(|line| line["message"] == message, n, message)
    }

    /// The `n`th log line that `matches`.
    #[track_caller]
    pub fn wait_for(&self, matches: impl Fn(&Value) -> bool, n: usize, what: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lock();
        loop {
            if let Some(line) = lines.all.iter().filter(|line| matches(line)).nth(n) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !lines.ended, "no log line {what:?}; there is:\n{}", show(&lines.all));
            lines = self.log.wait(lines, left);
        }
    }

    /// Everything it has said.
    #[must_use]
    pub fn log(&self) -> String {
        show(&self.log.lock().all)
    }

    /// Sends a signal: "HUP", "TERM", …
    pub fn signal(&self, name: &str) {
        send_signal(self.pid(), name);
    }

    /// The processes that have taken over from the one that was started, one from the other.
    #[must_use]
    pub fn successors(&self) -> Vec<u32> {
        self.lines("taken over").iter().map(|line| pid(&line["pid"])).collect()
    }

    /// Sends SIGUSR2 to the process that accepts connections, waits until another one does, and
    /// returns that one's id.
    #[track_caller]
    pub fn take_over(&self) -> u32 {
        let before = self.successors();
        send_signal(before.last().copied().unwrap_or(self.pid()), "USR2");
        pid(&self.wait_nth("taken over", before.len())["pid"])
    }

    /// Writes a new configuration.
    pub fn write_config(&self, config: &str) {
        std::fs::write(self.path().join("wssgate.toml"), config).unwrap();
    }

    /// Sends SIGHUP and returns the line that says how it went.
    #[track_caller]
    pub fn reload(&self) -> Value {
        let is_end = |line: &Value| {
            line["message"] == "reloaded"
                || line["message"] == "reload refused: the old generation stays in use"
        };
        let before = self.log.lock().all.iter().filter(|line| is_end(line)).count();
        self.signal("HUP");
        self.wait_for(is_end, before, "the end of a reload")
    }

    /// Resident memory now, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        kib(self.pid(), "VmRSS:")
    }

    /// The most of it while `what` happened, in KiB.
    pub fn most_resident_kib(&self, what: impl FnOnce()) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap(); // forgets the peak so far
        what();
        kib(self.pid(), "VmHWM:")
    }

    /// The addresses listened on, as the kernel knows them: for a gateway whose log isn't read.
    #[must_use]
    pub fn listening(&self) -> BTreeSet<SocketAddrV4> {
        const LISTEN: &str = "0A";
        let own: BTreeSet<String> = self.descriptors().into_iter().collect();
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid())).unwrap();
        let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row[3] == LISTEN && own.contains(&format!("socket:[{}]", row[9])))
            .map(|row| {
                let (ip, port) = row[1].split_once(':').unwrap();
                let ip = u32::from_str_radix(ip, 16).unwrap().to_le_bytes();
                SocketAddrV4::new(ip.into(), u16::from_str_radix(port, 16).unwrap())
            })
            .collect()
    }

    /// What its open files are, as the kernel names them.
    #[must_use]
    pub fn descriptors(&self) -> Vec<String> {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        // One may be closed meanwhile.
        let links = all.map_while(Result::ok).filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.map(|link| link.display().to_string()).collect()
    }

    /// CPU time that it has used, to 10 ms.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Processes that it has started.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let children = tasks
            // A thread may have ended meanwhile.
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default());
        children
            .flat_map(|line| line.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// If it doesn't come.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lock();
        while !lines.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the gateway doesn't end; it says:\n{}", show(&lines.all));
            lines = self.log.wait(lines, left);
        }
        drop(lines);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the gateway doesn't end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// It ended by itself, not by a signal, and is content.
    #[track_caller]
    pub fn ends_well(&mut self) {
        let status = self.wait_end();
        assert!(status.success() && status.signal().is_none(), "{status}:\n{}", self.log());
    }

    /// Its last process gets SIGTERM, and all of them have ended well.
    #[track_caller]
    pub fn ends_with_its_last_process(mut self) {
        send_signal(self.successors().last().copied().unwrap_or(self.pid()), "TERM");
        self.ends_well();
    }
}

/// What the kernel says of the memory of a process, in KiB: `VmRSS:`, `VmHWM:`.
///
/// # Panics
/// If it says nothing.
#[must_use]
pub fn kib(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn show(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn pid(value: &Value) -> u32 {
    value.as_u64().and_then(|pid| pid.try_into().ok()).unwrap()
}

/// Sends a signal: "HUP", "TERM", …
///
/// # Panics
/// If there is no such process.
pub fn send_signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for pid in self.successors() {
            // Ids are used again; the directory is this gateway's own.
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&arguments).contains(self.directory.path().to_str().unwrap()) {
                send_signal(pid, "KILL");
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log());
        }
    }
}

/// A line of the log as text: the time, the level, the message, and pairs.
fn read_text(line: &str) -> Option<Value> {
    let pairs = logfmt::parse(line).ok()?;
    let message: Vec<_> =
        pairs.iter().skip(2).map_while(|(word, value)| value.is_none().then_some(&**word)).collect();
    let fields = pairs.iter().filter_map(|(name, value)| Some((name.clone(), Value::from(value.clone()?))));
    let whole = [("message".to_owned(), message.join(" ").into()), ("line".to_owned(), line.into())];
    Some(fields.chain(whole).collect())
}

/// A configuration with a TLS listener, a plain one, and the certificates in `certs`, of which
/// `default.test` is the default; they are not watched, so that a test knows when they are read. `top` are
/// keys of the top level, `routes` all the rest.
#[must_use]
pub fn config(top: &str, routes: &str) -> String {
    format!(
        "{top}\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\naddress = \"127.0.0.2:0\"\ntls = false\n\
         [certificates]\ndirectory = \"certs\"\ndefault = \"default.test\"\nwatch = false\n\
         {routes}\n"
    )
}

/// A route for any host.
#[must_use]
pub fn route(path: &str, backend: SocketAddr) -> String {
    format!("[[route]]\npath = \"{path}\"\nproxy = \"http://{backend}\"\n")
}
