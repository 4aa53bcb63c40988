#![no_main]

#[path = "../../src/net/proxy_protocol.rs"]
#[allow(dead_code)]
mod proxy_protocol;

use proxy_protocol::{Header, HeaderFault, HeaderReader, REST_LEN_MAX};

#[path = "../relations/proxy_protocol.rs"]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::proxy_protocol(data));
