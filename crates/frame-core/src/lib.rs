//! WebSocket frames for a gateway, strict by RFC 6455.
//!
//! Bytes in; frames, limits and an outcome out. This crate never learns an address, a route or a
//! certificate. Modules stand on floors, and each imports only what is listed above it:
//!
//! - [`head`], [`sequence`], `utf8`, [`close`]: what the RFC says, pure; [`violation`]: what a peer that breaks it
//!   is told
//! - [`deflate`]: compressed messages (RFC 7692). Pure.
//! - [`scanner`]: heads are checked, payloads are skipped. Pure.
//! - [`clock`], [`timer`]: time; `client`: what a session asks of its client's stream
//! - [`tap`]: a client's stream that copies the frames that pass, for who watches the session
//! - [`fair_queue`]: sessions that move much wait for each other, so that small messages don't
//! - [`policy`]: what a route demands of a session; [`outcome`]: how a session is, and how it ended;
//!   [`ledger`]: where what it carries is added up; [`handle`]: how it is ended or frozen from outside
//! - `cause_state`: why a session ends, as bytes for another process
//! - `keepalive`: when a client is pinged, and when it counts as gone. Pure.
//! - `supervisor`: a session's clock and timer, and what is due
//! - [`relay`](mod@relay): two directions between a client and a backend, one outcome
//! - [`metered`]: a client's stream that gives no more than the route allows
//! - [`deflated`]: a client's stream that compresses, for sessions that don't
//! - [`redial`]: a server that can be replaced, as the relay's backend
//! - `frame_reader`, [`endpoint`]: frames and messages, for sessions that end at the gateway;
//!   [`bridge`](fn@bridge): those whose messages are the bytes of a stream
//! - [`opaque`](mod@opaque): two directions of another protocol, of which nothing is known

mod cause_state;
mod client;
pub mod clock;
pub mod close;
pub mod deflate;
pub mod deflated;
pub mod endpoint;
pub mod fair_queue;
mod frame_reader;
pub mod handle;
pub mod head;
mod keepalive;
pub mod ledger;
mod measures;
pub mod metered;
pub mod opaque;
pub mod outcome;
pub mod policy;
pub mod redial;
pub mod relay;
pub mod scanner;
pub mod sequence;
mod supervisor;
pub mod tap;
#[cfg(test)]
mod test_io;
#[cfg(test)]
mod test_moving;
#[cfg(test)]
mod test_net;
pub mod timer;
mod utf8;
pub mod violation;

pub use self::endpoint::bridge::bridge;
pub use self::opaque::opaque;
pub use self::relay::relay;
