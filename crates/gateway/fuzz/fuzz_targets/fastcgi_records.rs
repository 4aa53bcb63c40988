#![no_main]

#[path = "../../src/upstream/fastcgi/record.rs"]
#[allow(dead_code)]
mod record;

use record::{BadRecord, Records, Said};

#[path = "../relations/fastcgi_records.rs"]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::records(data));
