//! The WebSocket handshake, both halves: with clients over HTTP/1.1 (RFC 6455 §4) and HTTP/2
//! (RFC 8441), and with backends the same.
//!
//! HTTP request in; accepted upgrade or refusal out. This crate knows neither TLS nor frames. In
//! the order of a handshake:
//!
//! - [`classify`]: is it one? [`Refusal`]: or why not; [`origin`]: may this page?
//! - [`ask`], [`verify`], over HTTP/2 [`ask_http2`], [`verify_http2`]: what the backend is asked and whether its answer
//!   is true; [`Key`], `extensions`,
//!   [`fields`], [`hop_by_hop`]: the pieces; [`casing`]: as the RFC spells them
//! - [`accept`]: what the client is told
//! - [`named`](fn@named), [`ask_named`], [`verify_named`], [`accept_named`]: the same for other protocols, of which only
//!   the name is known
//! - [`Handoff`] (HTTP/1.1), [`Tunnel`] (HTTP/2): the stream that is left when HTTP is done;
//!   [`Queued`]: what of it has left
//! - [`turn`], [`flood`]: below HTTP/2, for what h2 writes and reads; [`resets`]: requests that a client gives up

pub mod casing;
mod deflate;
mod extensions;
pub mod fields;
pub mod flood;
mod handoff;
pub mod hop_by_hop;
mod key;
mod named;
pub mod origin;
mod queued;
mod refusal;
mod request;
pub mod resets;
mod response;
mod tunnel;
pub mod turn;
mod upstream;

pub use self::deflate::{Contexts, Deflate};
pub use self::extensions::{BadAnswer, Offer};
pub use self::handoff::{Handoff, from_hyper};
pub use self::key::Key;
pub use self::named::{accept_named, ask_named, named, verify_named};
pub use self::queued::Queued;
pub use self::refusal::Refusal;
pub use self::request::{HandshakeTransport, RequestKind, Upgrade, classify, offered};
pub use self::response::accept;
pub use self::tunnel::Tunnel;
pub use self::upstream::{Agreed, FalseAnswer, Repair, ask, ask_http2, verify, verify_http2};
