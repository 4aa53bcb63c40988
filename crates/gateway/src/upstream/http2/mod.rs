//! HTTP/2 towards servers, by h2: many requests over each connection, and WebSockets where the server offers them.
//!
//! - `connections`: those of one worker, by server; a request gets a stream of one that has room
//! - `connection`: one, driven by a task of its own; what the server's settings say of it; `open`: its open streams
//! - `head`: the head of a request as HTTP/2 has it
//! - `request`: a request is sent on a stream, until the head of its answer
//! - `answer`: the body of that answer
//! - `tunnel`: a stream that carries a WebSocket (RFC 8441)

pub(crate) mod answer;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod head;
pub(crate) mod open;
pub(crate) mod request;
pub(crate) mod tunnel;
