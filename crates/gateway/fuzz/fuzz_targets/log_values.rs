#![no_main]

#[path = "../../src/telemetry/escape.rs"]
#[allow(dead_code)]
mod escape;

use escape::{Escaped, escape_len, escape_word, quote};

#[path = "../relations/log_values.rs"]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::log_values(data));
