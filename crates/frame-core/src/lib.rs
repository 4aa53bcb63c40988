//! WebSocket frames for a gateway, strict by RFC 6455.
//!
//! Bytes in; frames, limits and an outcome out. This crate never learns an address, a route or a
//! certificate. In the order in which bytes travel:
//!
//! - [`head`], [`sequence`], [`utf8`], [`close`]: what the RFC says, pure; [`violation`]: what the
//!   one who breaks it is told
//! - [`scanner`]: heads checked, payloads stepped over; [`keepalive`]: whose pong is this? Pure.
//! - [`relay`](mod@relay): two directions between a client and a backend, one outcome
//! - [`guard`], [`endpoint`]: fastwebsockets made strict, for sessions that end at the gateway
//! - [`control`]: how a live session is ended from outside; [`clock`]: what it reads the time from
//! - [`turns`]: sessions that move much wait for each other, so that small messages don't
//! - [`pool`]: receive buffers that idle connections don't hold

pub mod clock;
pub mod close;
pub mod control;
pub mod endpoint;
pub mod guard;
pub mod head;
pub mod keepalive;
pub mod memory;
pub mod pool;
pub mod relay;
pub mod scanner;
pub mod sequence;
pub mod turns;
pub mod utf8;
pub mod violation;

pub mod alarm;
#[cfg(test)]
mod test_io;

pub use self::relay::relay;
