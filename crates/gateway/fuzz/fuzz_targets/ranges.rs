#![no_main]

#[path = "../../src/request/service/files/ranges.rs"]
mod parts;

use parts::{Multipart, Selection, content_range, select};

#[path = "../relations/ranges.rs"]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::ranges(data));
