//! `wssgate tap`: the frames of live sessions, as they pass.
//!
//! The gateway's end ([`serve`]) sends copies as they are on the wire, one JSON object a line. What is made of them is
//! the command's work ([`watch`]): unmasked, inflated ([`inflate`]) and shown so that no terminal obeys a peer
//! ([`show`]), or written for Wireshark ([`pcapng`]).

mod frame;
mod inflate;
mod pcapng;
pub(super) mod serve;
mod show;
pub mod watch;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The most of a frame's payload that is copied, in bytes.
pub const CAPTURE_LEN_MAX: usize = 64 * 1024;

/// Which sessions are watched, and how much of them is copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TapRequest {
    /// Those of this route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Those of this client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The next one that opens, and no live one.
    pub next: bool,
    /// Bytes of each payload; at most [`CAPTURE_LEN_MAX`].
    pub bytes: usize,
    /// Whole payloads, as far as that goes, of sessions whose messages may be compressed.
    pub inflate: bool,
}

/// A line of the answer before the last one: one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapLine {
    /// A session is watched from now on.
    Tapped(TappedSession),
    /// Something has passed.
    Copy(CopyInfo),
    /// A session is not watched any more.
    Ended {
        /// Its id.
        session: u64,
        /// Why.
        why: String,
    },
    /// A session that matches is watched by another tap.
    Taken {
        /// Its id.
        session: u64,
    },
}

/// A session that is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TappedSession {
    /// Its id.
    pub session: u64,
    /// The address at the other end of the connection.
    pub peer: String,
    /// The client's, which differs behind a trusted proxy.
    pub client: String,
    /// Host and path.
    pub route: String,
    /// Its backend or service.
    pub to: String,
    /// The gateway's address that the connection came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// Nothing of it has passed before.
    pub from_beginning: bool,
    /// Its messages may be compressed.
    pub deflate: bool,
}

/// What has passed, as it is on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyInfo {
    /// The session's id.
    pub session: u64,
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// It came from the client; else it went there.
    pub from_client: bool,
    /// What it is; a rule that it breaks is in `violation`.
    pub kind: Kind,
    /// Why it is no frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub violation: Option<String>,
    /// Of a frame that of its payload, in bytes.
    pub len: u64,
    /// Its front in base64: of a frame head and payload.
    pub wire: String,
    /// So many before it, of this session in this direction, found no room.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A frame.
    #[default]
    Frame,
    /// Bytes of another protocol than WebSocket.
    Bytes,
    /// What should be a frame, and is none.
    Violation,
}

/// How a tap has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TapReport {
    /// Why.
    pub why: String,
    /// Frames, or pieces of other protocols, that were sent.
    pub frames: u64,
    /// And those that found no room.
    pub dropped: u64,
}
