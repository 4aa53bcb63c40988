//! Instructions of the hot paths, counted by valgrind and held against the counts in `instructions.toml`.
//!
//! An instruction count is the same on a busy and on a quiet machine, and nearly the same on two machines: valgrind
//! shows every program the same processor. The counts are those of the release
//! profile, which is what users run: another way of inlining changes a message by 3 %.
//!
//! ```sh
//! # counts and compares; an error if one is out of its bounds
//! cargo bench --profile release -p benches --bench instructions
//! # writes the counts of today into the file
//! cargo bench --profile release -p benches --bench instructions -- --write
//! ```
//!
//! Without valgrind nothing is counted, which is said. As a test (without `--bench`) each case runs a few rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "benches are as blunt as tests")]

use std::env;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;

use benches::count::{asked, has_valgrind, instructions};
use benches::pipe::pipe;
use benches::record::{OVERHEAD_MAX, ours};
use benches::work::handshake::Server;
use benches::work::relay::{Middle, ROOM};
use benches::work::{endpoint, http, relay};
use benches::{message, messages, runtime};
use frame_core::head::Sender;
use frame_core::scanner::Scanner;
use frame_core::sequence::Limits;
use support::pki::Key;
use support::tls::{TLS13, Tls};

/// That of the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml");
const HEADER: &str = "\
# Instructions of one round of each case, as valgrind counts them. Written by
# cargo bench --profile release -p benches --bench instructions -- --write
";
/// Rounds of the shorter run, in which buffers grow and caches fill.
const FIRST: u64 = 3;

struct Case {
    name: &'static str,
    /// How many rounds the longer run has more.
    rounds: u64,
    /// Percent by which a count may differ from that of the file, up or down.
    percent: f64,
    run: fn(u64),
}

const CASES: [Case; 11] = [
    Case { name: "scan 64 KiB of 64 B messages", rounds: 200, percent: 2.0, run: scan },
    Case { name: "relay one 64 B message", rounds: 10_000, percent: 2.0, run: |n| pass_on(n, 64) },
    Case { name: "relay one 4 KiB message", rounds: 10_000, percent: 2.0, run: |n| pass_on(n, 4096) },
    Case { name: "echo one 64 B message", rounds: 10_000, percent: 2.0, run: echo },
    Case { name: "seal a record of 4 KiB", rounds: 20_000, percent: 2.0, run: seal },
    Case { name: "seal and open a record of 4 KiB", rounds: 20_000, percent: 2.0, run: seal_and_open },
    Case { name: "HTTP/1.1 request", rounds: 20_000, percent: 2.0, run: request_http1 },
    Case { name: "HTTP/1.1 request, of two servers", rounds: 20_000, percent: 2.0, run: request_of_two },
    Case { name: "HTTP/2 request", rounds: 10_000, percent: 2.0, run: request_http2 },
    Case { name: "full handshake", rounds: 50, percent: 4.0, run: |n| shake_hands(n, false) },
    Case { name: "resumed handshake", rounds: 50, percent: 4.0, run: |n| shake_hands(n, true) },
];

fn scan(rounds: u64) {
    let (wire, _) = messages(64, true);
    let mut scanner = Scanner::new(Sender::Client, Limits { message_max: 16 << 20, deflate: false });
    for _ in 0..rounds {
        black_box(scanner.scan(black_box(&wire), None).0);
    }
}

fn pass_on(rounds: u64, len: usize) {
    let runtime = runtime();
    let _entered = runtime.enter(); // for timers
    let (client, near_client) = pipe(ROOM);
    let (backend, near_backend) = pipe(ROOM);
    let mut middle = pin!(relay::run(Middle::Relay, near_client, near_backend));
    let wire = message(len, true);
    let mut seen = vec![0; wire.len()];
    for _ in 0..rounds {
        relay::step(middle.as_mut(), &client, &backend, &wire, &mut seen);
    }
}

fn echo(rounds: u64) {
    let runtime = runtime();
    let _entered = runtime.enter(); // for timers
    let (client, near) = pipe(endpoint::ROOM);
    let mut endpoint = pin!(endpoint::echo(near));
    let (wire, mut seen) = (message(64, true), message(64, false));
    for _ in 0..rounds {
        endpoint::step(endpoint.as_mut(), &client, &wire, &mut seen);
    }
}

fn seal(rounds: u64) {
    let (mut sealer, _) = ours();
    let (content, mut wire) = ([0x5A; 4096], [0; 4096 + OVERHEAD_MAX]);
    for _ in 0..rounds {
        black_box(sealer.seal(black_box(&content), &mut wire));
    }
}

fn seal_and_open(rounds: u64) {
    let (mut sealer, mut opener) = ours();
    let (content, mut wire) = ([0x5A; 4096], [0; 4096 + OVERHEAD_MAX]);
    let mut opened = wire;
    for _ in 0..rounds {
        let len = sealer.seal(black_box(&content), &mut wire);
        assert_eq!(opener.open(black_box(&wire[..len]), &mut opened), content.len());
    }
}

fn request_http1(rounds: u64) {
    runtime().block_on(http::http1(rounds));
}

fn request_of_two(rounds: u64) {
    runtime().block_on(http::http1_of_two(rounds));
}

fn request_http2(rounds: u64) {
    runtime().block_on(http::http2(rounds, 1));
}

fn shake_hands(rounds: u64, resumed: bool) {
    runtime().block_on(async {
        let server = Server::new(Key::Ecdsa).await;
        let client = || Tls::with(TLS13, Some("a.test"), &[], &[]);
        let returning = client();
        server.connect(&returning).await;
        for _ in 0..rounds {
            match resumed {
                true => server.connect(&returning).await,
                false => server.connect(&client()).await,
            }
        }
    });
}

impl Case {
    /// Instructions of one round.
    fn count(&self) -> u64 {
        instructions(self.name, FIRST, self.rounds)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mut out = io::stdout();
    if let Some((name, rounds)) = asked(&arguments) {
        let case = CASES.iter().find(|case| case.name == name).expect("a case of this name");
        (case.run)(rounds);
        return ExitCode::SUCCESS;
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        for case in &CASES {
            (case.run)(FIRST);
            writeln!(out, "{}: ok", case.name).unwrap();
        }
        return ExitCode::SUCCESS;
    }
    if !has_valgrind() {
        writeln!(out, "NOT COUNTED: valgrind is not installed").unwrap();
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--write") {
        let mut text = HEADER.to_owned();
        for case in &CASES {
            text += &format!("{:?} = {}\n", case.name, case.count());
        }
        fs::write(FILE, text).unwrap();
        return ExitCode::SUCCESS;
    }
    compare(&mut out)
}

/// Counts each case and says how it differs from the file.
fn compare(out: &mut impl Write) -> ExitCode {
    let file = Path::new(FILE);
    let expected: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
    let mut code = ExitCode::SUCCESS;
    for case in &CASES {
        let Some(expected) = expected.get(case.name).and_then(toml::Value::as_integer) else {
            writeln!(out, "{}: not in {}; write it with --write", case.name, file.display()).unwrap();
            code = ExitCode::FAILURE;
            continue;
        };
        let count = case.count();
        let difference = (count as f64 / expected as f64 - 1.0) * 100.0;
        let mut verdict = String::new();
        if difference.abs() > case.percent {
            code = ExitCode::FAILURE;
            verdict = format!("  more than {} % off: find out why, or write it with --write", case.percent);
        }
        writeln!(out, "{:<32} {count:>9} instructions {difference:+6.1} %{verdict}", case.name).unwrap();
    }
    let verdict =
        if code == ExitCode::SUCCESS { "within their bounds" } else { "NOT all within their bounds" };
    writeln!(out, "{} cases {verdict}", CASES.len()).unwrap();
    code
}
