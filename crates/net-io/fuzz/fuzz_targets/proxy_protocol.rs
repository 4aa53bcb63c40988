#![no_main]

use net_io::proxy_protocol::{Header, HeaderFault, HeaderReader, REST_LEN_MAX};

#[path = "../relations.rs"]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::proxy_protocol(data));
