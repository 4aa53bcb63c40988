//! What whole-gateway scenarios, benches and crate tests share. Nothing here leans on the code
//! under test: frames, handshakes and HTTP are implemented again.
//!
//! - [`pki`]: a certificate authority that lives as long as a test
//! - [`authority`]: the same, asked by ACME
//! - [`gateway`]: the real binary with a configuration of the test's, and its log
//! - [`logfmt`]: the log's lines as text, read strictly
//! - [`tls`], [`http1`], [`http2`], [`ws`]: clients
//! - [`backend`], [`http2_server`], [`fastcgi`]: servers behind the gateway, good and bad
//! - [`dns`]: a DNS server whose answers change
//! - [`cable`]: a way to the gateway that can be cut
//! - [`apart`]: a test in namespaces of its own
//! - [`book`]: the pages of `docs/` and their configurations
//! - [`swarm`]: thousands of clients and their backend, as processes of their own
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "helpers of tests are as blunt as tests"
)]

pub mod apart;
pub mod authority;
pub mod backend;
pub mod book;
pub mod both;
pub mod cable;
pub mod dns;
pub mod fastcgi;
pub mod gateway;
pub mod http1;
pub mod http2;
pub mod http2_server;
pub mod logfmt;
pub mod pki;
pub mod swarm;
pub mod tls;
pub mod ws;

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// Any stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Any stream, boxed.
pub type BoxIo = Box<dyn Io>;

/// Scenarios run at the size that tests/README.md promises, not at the one that every test run can afford:
/// `WSSGATE_TEST_SIZE=full`.
///
/// # Panics
/// If it says anything else, but nothing.
#[must_use]
pub fn full_size() -> bool {
    match std::env::var("WSSGATE_TEST_SIZE").as_deref() {
        Ok("full") => true,
        Ok("") | Err(_) => false,
        Ok(other) => panic!("WSSGATE_TEST_SIZE is {other:?}, not \"full\""),
    }
}

/// Long enough for any step on any machine. Only a step that never comes waits so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what has to come.
///
/// # Panics
/// If it doesn't.
#[track_caller]
pub fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("nothing came within {PATIENCE:?} at {caller}"),
        }
    }
}

/// Asks again and again until it is so.
///
/// # Panics
/// If it doesn't come to be so.
#[track_caller]
pub fn until(mut is_so: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    soon(async move {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}
