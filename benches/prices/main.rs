//! What an option of a route costs a plain request over HTTP/1.1, in instructions, as valgrind counts them.
//!
//! ```sh
//! cargo bench -p benches --bench prices            # all rows
//! cargo bench -p benches --bench prices -- compress # rows whose names contain the word
//! ```
//!
//! Files are not among them, since valgrind doesn't know openat2(2).
//!
//! A row is one round with the option, less one round of the same request without it. Without valgrind nothing is
//! counted, which is said. As a test (without `--bench`) each row runs a few rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "benches are as blunt as tests")]

mod rows;

use std::collections::HashMap;
use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use benches::count::{asked, has_valgrind, instructions};
use benches::runtime;
use rows::{ALL, Priced, run};

/// That of the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of the shorter run, in which buffers grow and caches fill.
const FIRST: u64 = 500;
/// How many rounds the longer run has more.
const ROUNDS: u64 = 2000;

/// Instructions of one round.
fn count(priced: &Priced) -> i64 {
    instructions(priced.name, FIRST, ROUNDS).cast_signed()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mut out = io::stdout();
    if let Some((name, rounds)) = asked(&arguments) {
        let priced = ALL.iter().find(|priced| priced.name == name).expect("a row of this name");
        runtime().block_on(run(priced, rounds));
        return ExitCode::SUCCESS;
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        for priced in ALL {
            runtime().block_on(run(priced, 3));
            writeln!(out, "{}: ok", priced.name).unwrap();
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
    for priced in ALL.iter().filter(|priced| words.iter().all(|word| priced.name.contains(word.as_str()))) {
        let own = count(priced);
        counted.insert(priced.name, own);
        let Some(base) = priced.base else {
            writeln!(out, "| {} (the whole request) | {own} |", priced.name).unwrap();
            continue;
        };
        let base = *counted
            .entry(base)
            .or_insert_with(|| count(ALL.iter().find(|other| other.name == base).expect("a base")));
        writeln!(out, "| {} | {:+} |", priced.name, own - base).unwrap();
    }
    ExitCode::SUCCESS
}
