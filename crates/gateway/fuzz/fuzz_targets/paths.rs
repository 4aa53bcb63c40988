#![no_main]

#[path = "../../src/request/service/files/name.rs"]
mod name;

use gateway::site::answer::local;
use gateway::site::path::{RequestPath, RoutePath};
use name::parse;

#[path = "../relations/paths.rs"]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::paths(data));
