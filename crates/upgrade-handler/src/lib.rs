//! The WebSocket handshake, both halves: with clients over HTTP/1.1 (RFC 6455 §4) and HTTP/2
//! (RFC 8441), with backends over HTTP/1.1.
//!
//! HTTP request in; accepted upgrade or refusal out. This crate knows neither TLS nor frames. In
//! the order of a handshake:
//!
//! - [`request`]: is it one? [`refusal`]: or why not; [`origin`]: may this page?
//! - [`upstream`]: what the backend is asked and whether its answer is true; [`key`],
//!   [`extensions`], [`fields`]: the pieces; [`casing`]: as the RFC spells them
//! - [`response`]: what the client is told
//! - [`handoff`] (HTTP/1.1), [`tunnel`] (HTTP/2): the stream that is left when HTTP is done;
//!   [`queued`]: what of it has left

pub mod casing;
pub mod extensions;
pub mod fields;
pub mod handoff;
pub mod key;
pub mod origin;
pub mod queued;
pub mod refusal;
pub mod request;
pub mod response;
pub mod tunnel;
pub mod upstream;
