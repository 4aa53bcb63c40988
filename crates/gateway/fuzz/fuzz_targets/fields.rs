#![no_main]

#[path = "../../src/request/service/files/conditions.rs"]
mod conditions;

#[path = "../../src/request/coding.rs"]
mod coding;

mod site {
    pub(crate) use gateway::site::{auth, endpoint, host};
}

#[path = "../../src/net"]
mod net {
    pub(crate) mod fields;
    #[allow(dead_code)]
    pub(crate) mod listening;
}

#[path = "../../src/upstream"]
mod upstream {
    #[allow(dead_code)]
    pub(crate) mod edits;
    #[allow(dead_code)]
    pub(crate) mod forward;
}

use coding::{Coding, accepted};
use conditions::{Validators, Verdict, judge};
use site::endpoint::Endpoint;
use site::host::Host;
use upstream::forward::{self, Hop, address_field};

#[path = "../relations/fields.rs"]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::fields(data));
