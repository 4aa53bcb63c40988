//! What whole-gateway scenarios, benches and crate tests share.
//!
//! - [`pki`]: a certificate authority that lives as long as a test
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are as blunt as tests"
)]

pub mod pki;
