#![no_main]

#[path = "../../src/net"]
mod net {
    #[allow(dead_code)]
    pub(crate) mod proxy_protocol;
}

use net::proxy_protocol::{Header, HeaderFault, HeaderReader, REST_LEN_MAX};

#[path = "../relations/proxy_protocol.rs"]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::proxy_protocol(data));
