//! What an option of a route costs a plain request over HTTP/1.1, or a message, in instructions, as valgrind counts them.
//!
//! ```sh
//! cargo bench -p benches --bench prices            # all rows
//! cargo bench -p benches --bench prices -- compress # rows whose names contain the word
//! ```
//!
//! Files are not among them, since valgrind doesn't know openat2(2).
//!
//! A row is one round with the option, less one round of the same request or message without it. Without valgrind nothing is
//! counted, which is said. As a test (without `--bench`) each row runs a few rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "benches are as blunt as tests")]

mod messages;
mod rows;

use std::collections::HashMap;
use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use benches::count::{asked, has_valgrind, instructions};
use benches::runtime;
use rows::ALL;

/// That of the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of the shorter run, in which buffers grow and caches fill.
const FIRST: u64 = 500;
/// How many rounds the longer run has more.
const ROUNDS: u64 = 2000;

/// A row of the table.
struct Row {
    name: &'static str,
    /// The same without the option; `None`: its price is the whole round.
    base: Option<&'static str>,
    run: Box<dyn Fn(u64)>,
}

impl Row {
    /// Instructions of one round.
    fn count(&self) -> i64 {
        instructions(self.name, FIRST, ROUNDS).cast_signed()
    }
}

fn rows() -> Vec<Row> {
    let requests = ALL.iter().map(|priced| Row {
        name: priced.name,
        base: priced.base,
        run: Box::new(|rounds| runtime().block_on(rows::run(priced, rounds))),
    });
    let message = |name, base| Row { name, base, run: Box::new(move |rounds| messages::run(name, rounds)) };
    let messages = [
        message(messages::PLAIN, None),
        message(messages::MESSAGES, Some(messages::PLAIN)),
        message(messages::BYTES, Some(messages::PLAIN)),
        message(messages::BOTH, Some(messages::PLAIN)),
    ];
    requests.chain(messages).collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (rows, mut out) = (rows(), io::stdout());
    let row = |name: &str| rows.iter().find(|row| row.name == name).expect("a row of this name");
    if let Some((name, rounds)) = asked(&arguments) {
        (row(name).run)(rounds);
        return ExitCode::SUCCESS;
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        for row in &rows {
            (row.run)(3);
            writeln!(out, "{}: ok", row.name).unwrap();
        }
        return ExitCode::SUCCESS;
    }
    if !has_valgrind() {
        writeln!(out, "NOT COUNTED: valgrind is not installed").unwrap();
        return ExitCode::SUCCESS;
    }
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let mut counted: HashMap<&str, i64> = HashMap::new();
    writeln!(out, "| option | instructions |\n|---|---:|").unwrap();
    for priced in rows.iter().filter(|row| words.iter().all(|word| row.name.contains(word.as_str()))) {
        let own = priced.count();
        counted.insert(priced.name, own);
        let Some(base) = priced.base else {
            writeln!(out, "| {} (the whole) | {own} |", priced.name).unwrap();
            continue;
        };
        let base = *counted.entry(base).or_insert_with(|| row(base).count());
        writeln!(out, "| {} | {:+} |", priced.name, own - base).unwrap();
    }
    ExitCode::SUCCESS
}
