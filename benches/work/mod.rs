//! What is measured: timed by Criterion in the benches of the same names, counted by `instructions`.

pub mod endpoint;
pub mod handshake;
pub mod http;
pub mod relay;
