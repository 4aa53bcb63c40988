#![no_main]

use gateway::site::jwt::keys::KeySet;
use gateway::site::jwt::place::TokenPlace;
use gateway::site::jwt::Jwt;
use gateway::site::jwt::source::{KeySource, TokenKeys};
use gateway::site::jwt::verify::verify;
use gateway::site::written::Place;

#[path = "../relations/tokens.rs"]
mod relations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relations::tokens(data));
