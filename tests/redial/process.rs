//! Servers as processes of their own, which can be killed. Each says on stdout what it reads, so that this outlives it.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use support::http1::read_head;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::conversation::{Fate, Orders, Read, converse, switching};

const PART: &str = "--server";

/// Becomes the server that the command line names, until it is told to go; `false` if it names none.
pub(crate) fn play_part() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [part, name, address] = &arguments[..] else { return false };
    if part != PART {
        return false;
    }
    Builder::new_current_thread().enable_all().build().unwrap().block_on(serve(name, address));
    true
}

/// Serves until stdin says with which code to close, or ends. Then it accepts no more, and reads each session to its end.
async fn serve(name: &str, address: &str) {
    let listener = TcpListener::bind(address).await.unwrap();
    print_line(&json!({ "address": listener.local_addr().unwrap() }));
    let (orders, told) = watch::channel(Orders { count: 0, fate: Fate::Dies });
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line).unwrap();
        let fate = if read == 0 { Fate::Dies } else { Fate::Closes(line.trim().parse().unwrap()) };
        orders.send_replace(Orders { count: 1, fate });
        std::thread::park(); // dropped, the orders would be to die
    });
    let mut going = told.clone();
    let mut sessions = JoinSet::new();
    for connection in 0.. {
        tokio::select! {
            accepted = listener.accept() => {
                let (tcp, _) = accepted.unwrap();
                tcp.set_nodelay(true).unwrap();
                sessions.spawn(session(name.to_owned(), connection, tcp, told.clone()));
            }
            _ = going.changed() => break,
        }
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

async fn session(name: String, connection: u64, mut tcp: TcpStream, told: watch::Receiver<Orders>) {
    let Some(head) = read_head(&mut tcp).await else { return };
    if tcp.write_all(switching(&head, "").as_bytes()).await.is_err() {
        return;
    }
    let number = |name| head.get(name).map_or(0, |value| value.parse::<u64>().unwrap());
    print_line(&json!({
        "connection": connection,
        "session": head.get("wssgate-session"),
        "client": head.get("x-own"),
        "resume": number("wssgate-resume"),
        "messages": number("wssgate-messages"),
    }));
    converse(&name, tcp, (told, 0), |what| {
        let (text, echoed) = match what {
            Read::Begin => return,
            Read::Text(text) => (text, true),
            Read::LateText(text) => (text, false),
        };
        let number: u64 = text.split(' ').next().unwrap().parse().unwrap();
        print_line(&json!({ "connection": connection, "text": number, "echoed": echoed }));
    })
    .await;
}

fn print_line(line: &Value) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").unwrap();
    stdout.flush().unwrap();
}

/// One session of a server.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// The client's own name.
    pub(crate) client: String,
    pub(crate) session: String,
    /// What the handshake has said.
    pub(crate) resume: u64,
    pub(crate) messages: u64,
    /// Numbers of the texts that it has read whole.
    pub(crate) texts: Vec<u64>,
    /// Those that it has begun to echo.
    pub(crate) echoed: Vec<u64>,
}

/// A server that runs; killed when dropped.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    child: Child,
    stdin: Option<ChildStdin>,
    served: Arc<Mutex<Vec<Served>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it and waits until it listens. Each of its handshakes adds one to `handshakes`.
    pub(crate) fn start(name: &str, address: Option<SocketAddr>, handshakes: &Arc<AtomicU64>) -> Self {
        let address = address.map_or_else(|| "127.0.0.1:0".to_owned(), |address| address.to_string());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([PART, name, &address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let parse = |line: std::io::Result<String>| serde_json::from_str::<Value>(&line.unwrap());
        let first = parse(lines.next().expect("it listens")).unwrap();
        let served = Arc::<Mutex<Vec<Served>>>::default();
        let (all, handshakes) = (served.clone(), handshakes.clone());
        let reader = std::thread::spawn(move || {
            let mut places = std::collections::BTreeMap::new();
            for line in lines {
                let Ok(line) = parse(line) else { return }; // it was killed in a line
                let number = |name: &str| line[name].as_u64().unwrap();
                let mut all = all.lock().unwrap();
                if let Some(text) = line["text"].as_u64() {
                    let served: &mut Served = &mut all[places[&number("connection")]];
                    served.texts.push(text);
                    served.echoed.extend(Some(text).filter(|_| line["echoed"] == true));
                } else {
                    places.insert(number("connection"), all.len());
                    all.push(Served {
                        client: line["client"].as_str().unwrap().to_owned(),
                        session: line["session"].as_str().unwrap().to_owned(),
                        resume: number("resume"),
                        messages: number("messages"),
                        ..Served::default()
                    });
                    handshakes.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let address = first["address"].as_str().unwrap().parse().unwrap();
        Self { address, stdin: child.stdin.take(), child, served, reader: Some(reader) }
    }

    /// It closes all its sessions with this code, reads each until it is answered, and ends. What it has served.
    pub(crate) fn close(mut self, code: u16) -> Vec<Served> {
        writeln!(self.stdin.as_mut().unwrap(), "{code}").unwrap();
        let status = self.end();
        assert!(status.success(), "{status}");
        std::mem::take(&mut self.served.lock().unwrap())
    }

    /// SIGKILL. What it has served.
    pub(crate) fn kill(mut self) -> Vec<Served> {
        self.child.kill().unwrap();
        self.end();
        std::mem::take(&mut self.served.lock().unwrap())
    }

    fn end(&mut self) -> ExitStatus {
        let reader = self.reader.take().expect("it runs");
        reader.join().unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
