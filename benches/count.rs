//! Instructions of one round of a case, as valgrind counts them.
//!
//! The program runs itself twice, with `--run NAME ROUNDS`. What the longer run has more, divided by the rounds that it
//! has more, is one round without the start.

use std::env;
use std::process::Command;

/// It is installed.
pub fn has_valgrind() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok()
}

/// The name and the rounds that the program is to run, if it is counted.
pub fn asked(arguments: &[String]) -> Option<(&str, u64)> {
    match arguments {
        [run, name, rounds] if run == "--run" => Some((name, rounds.parse().unwrap())),
        _ => None,
    }
}

/// Counts one round. Buffers grow and caches fill in the `first` ones, and `rounds` more are counted.
pub fn instructions(name: &str, first: u64, rounds: u64) -> u64 {
    (total(name, first + rounds) - total(name, first)) / rounds
}

fn total(name: &str, rounds: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(env::current_exe().unwrap())
        .args(["--run", name, &rounds.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    let total = said.lines().find_map(|line| line.split_once("I   refs:"));
    total.unwrap().1.trim().replace(',', "").parse().unwrap()
}
