//! Thousands of live clients, and the backend behind them, as processes of their own: a test that
//! measures the gateway neither shares its descriptors with them nor its threads.
//!
//! A part is the test's own program started again, so such a test has `harness = false` and calls
//! [`play_part`] first. It is asked by lines on stdin and answers by lines of JSON on stdout; when
//! stdin ends, so does the part.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{BURST, Client, Running, Tally};
use kind::Kind;
use serde_json::{Value, json};
use tokio::runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::PATIENCE;
use crate::tls::Tls;

mod backend;
mod client;
mod kind;

/// The name that all clients ask for.
pub const SERVER_NAME: &str = "default.test";

const PART: &str = "--part";
/// Handshakes of one process that are under way at a time.
const CONNECTING: usize = 32;

/// Becomes the part that the command line names, until stdin ends; `false` if it names none.
#[must_use]
pub fn play_part() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((flag, part)) = arguments.split_first() else { return false };
    if flag != PART {
        return false;
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match part {
        [name] if name == "backend" => runtime.block_on(async {
            let backend = backend::start().await;
            print_line(&json!({ "address": backend.address.to_string() }));
            questions().wait_for(Option::is_none).await.unwrap();
        }),
        [name, job] if name == "clients" => {
            runtime.block_on(clients(&serde_json::from_str(job).unwrap()));
        }
        _ => panic!("no such part: {part:?}"),
    }
    true
}

fn print_line(line: &Value) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").unwrap();
    stdout.flush().unwrap();
}

/// The latest line on stdin, with its number; `None` at the end.
fn questions() -> watch::Receiver<Option<(u64, String)>> {
    let (tell, told) = watch::channel(Some((0, String::new())));
    std::thread::spawn(move || {
        for (n, line) in (1..).zip(std::io::stdin().lines()) {
            tell.send_replace(line.ok().map(|line| (n, line)));
        }
        tell.send_replace(None);
    });
    told
}

/// A part that runs, as the test sees it; killed when dropped.
#[derive(Debug)]
struct Part {
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Part {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(PART)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, answers: BufReader::new(stdout).lines() }
    }

    fn answer(&mut self) -> Value {
        let line = self.answers.next().expect("the part has ended").unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, question: &str) -> Value {
        writeln!(self.stdin, "{question}").unwrap();
        self.answer()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that echoes; killed when dropped, which its peers see as the end of a machine's process.
#[derive(Debug)]
pub struct EchoProcess {
    /// Where it listens.
    pub address: SocketAddr,
    _part: Part,
}

impl EchoProcess {
    /// Starts it and waits until it listens.
    #[must_use]
    pub fn start() -> Self {
        let mut part = Part::start(&["backend"]);
        let address = part.answer()["address"].as_str().unwrap().parse().unwrap();
        Self { address, _part: part }
    }
}

/// What clients are to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The TLS listener.
    pub gateway: SocketAddr,
    /// The path of the WebSocket.
    pub path: &'static str,
    /// Live sockets.
    pub sockets: usize,
    /// Where their source addresses begin, counted from 127.0.0.2; there are 200.
    pub first_source: usize,
    /// Messages a second, of all sockets together.
    pub per_second: u32,
    /// Sockets of all kinds: other versions and suites of TLS, changes of keys, long and deflated messages, halves of
    /// frames, slow readers. The backend has to be an [`EchoProcess`].
    pub mixed: bool,
}

/// A process with live sockets, on each of which numbered messages are echoed and compared.
#[derive(Debug)]
pub struct Clients {
    part: Part,
    sockets: u64,
}

/// What clients have seen since they were asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Messages that ask for another, since the beginning; for a burst as many as there are in it.
    pub sent: u64,
    /// Messages that came in answer, whole and in order, since the beginning.
    pub echoed: u64,
    /// All messages to the gateway, and from it, since the beginning.
    pub messages: [u64; 2],
    /// From when a message was due until its echo was there: the longest.
    pub worst: Duration,
    /// The same, for 99.9 % of them.
    pub p999: Duration,
    /// How sockets ended, by close code or in words, and how many, since the beginning.
    pub ended: BTreeMap<String, u64>,
    /// Echoes that were not what was due, since the beginning: some of them.
    pub wrong: Vec<String>,
}

impl Clients {
    /// Starts them; returns before they are connected.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        let job = json!({
            "gateway": plan.gateway.to_string(), "path": plan.path, "sockets": plan.sockets,
            "first_source": plan.first_source, "per_second": plan.per_second, "mixed": plan.mixed,
        });
        let part = Part::start(&["clients", &job.to_string()]);
        Self { part, sockets: plan.sockets as u64 }
    }

    /// Waits until all are connected; then messages begin.
    pub fn connected(&mut self) {
        assert_eq!(self.part.answer(), json!("connected"));
    }

    /// What they have seen since this was asked last.
    pub fn seen(&mut self) -> Seen {
        Seen::read(&self.part.ask("seen"))
    }

    /// Waits until every socket has ended, and returns how.
    pub fn all_ended(&mut self) -> BTreeMap<String, u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen();
            if seen.ended.values().sum::<u64>() == self.sockets {
                return seen.ended;
            }
            assert!(Instant::now() < deadline, "some don't end: {seen:?}");
        }
    }

    /// Waits until as many messages again as there are sockets have come back.
    pub fn go_on(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let before = self.seen().echoed;
        while self.seen().echoed < before + self.sockets {
            assert!(Instant::now() < deadline, "nothing is echoed any more");
        }
    }

    /// Stops the process (SIGSTOP): its sockets stay open, but it doesn't read.
    pub fn freeze(&self) {
        let pid = Pid::from_raw(i32::try_from(self.part.child.id()).unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
    }

    /// No more messages; waits for those under way, and for the end of every socket.
    #[must_use]
    pub fn stop(mut self) -> Seen {
        Seen::read(&self.part.ask("stop"))
    }
}

impl Seen {
    fn read(line: &Value) -> Self {
        let micros = |key: &str| Duration::from_micros(line[key].as_u64().unwrap());
        let ended = line["ended"].as_object().unwrap().iter();
        Self {
            sent: line["sent"].as_u64().unwrap(),
            echoed: line["echoed"].as_u64().unwrap(),
            messages: [0, 1].map(|way| line["messages"][way].as_u64().unwrap()),
            worst: micros("worst_us"),
            p999: micros("p999_us"),
            ended: ended.map(|(how, count)| (how.clone(), count.as_u64().unwrap())).collect(),
            wrong: line["wrong"].as_array().unwrap().iter().map(ToString::to_string).collect(),
        }
    }
}

async fn clients(job: &Value) {
    let number = |key: &str| usize::try_from(job[key].as_u64().unwrap()).unwrap();
    let gateway: SocketAddr = job["gateway"].as_str().unwrap().parse().unwrap();
    let (sockets, first_source) = (number("sockets"), number("first_source"));
    let period = Duration::from_secs(sockets as u64 * BURST) / u32::try_from(number("per_second")).unwrap();
    let path: Arc<str> = job["path"].as_str().unwrap().into();
    let mixed = job["mixed"].as_bool().unwrap();
    let tls = Tls::new(SERVER_NAME, &["http/1.1"]);
    let connecting = Arc::new(Semaphore::new(CONNECTING));
    let tally = Arc::<Mutex<Tally>>::default();
    let (run, running) = watch::channel(Running::NotYet);
    let mut tasks = JoinSet::new();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for index in 0..sockets {
        let (tls, path, connecting, tell) = (tls.clone(), path.clone(), connecting.clone(), tell.clone());
        let (tally, mut running) = (tally.clone(), running.clone());
        tasks.spawn(async move {
            let mut client = {
                let _permit = connecting.acquire().await.unwrap();
                let source =
                    Ipv4Addr::new(127, 0, 0, u8::try_from(2 + (first_source + index) % 200).unwrap());
                let kind = if mixed { Kind::of(index) } else { Kind::USUAL };
                Client::connect(kind, &tls, source, gateway, &path, (index, tally.clone())).await
            };
            tell.send(()).unwrap();
            let begun = *running.wait_for(|running| *running != Running::NotYet).await.unwrap();
            // Moments are spread evenly over the period.
            let Running::Since(begun) = begun else { return };
            let share = index as f64 / sockets as f64;
            let how = client.converse(begun + period.mul_f64(share), period, running).await;
            *tally.lock().unwrap().ended.entry(how).or_default() += 1;
        });
    }
    for _ in 0..sockets {
        tokio::select! {
            _ = told.recv() => {}
            Some(Err(e)) = tasks.join_next() => panic!("a client could not connect: {e}"),
        }
    }
    print_line(&json!("connected"));
    run.send_replace(Running::Since(Instant::now()));
    let mut questions = questions();
    loop {
        match questions.changed().await.ok().and_then(|()| questions.borrow_and_update().clone()) {
            Some((_, question)) if question == "seen" => print_line(&tally.lock().unwrap().as_json()),
            Some((_, question)) if question == "stop" => break,
            other => return assert_eq!(other, None),
        }
    }
    run.send_replace(Running::NoMore);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    print_line(&tally.lock().unwrap().as_json());
}
