//! What is looked at: plain values. What can't be known is `None`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::ops::control::protocol::Status;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// What the gateway says of itself.
    pub(super) gateway: Option<Status>,
    /// Why it says nothing.
    pub(super) silence: String,
    /// `None`: no configuration was named.
    pub(super) config: Option<ConfigFacts>,
    /// File descriptors of the gateway's process.
    pub(super) descriptors: Option<Descriptors>,
    /// Local ports that connections to servers come from.
    pub(super) ports: Option<RangeInclusive<u16>>,
    /// Connections to servers.
    pub(super) towards: Vec<Towards>,
    /// Sockets that listen, of all programs.
    pub(super) listening: Vec<Listening>,
    /// The longest queue of connections that wait to be accepted.
    pub(super) somaxconn: Option<u64>,
    /// Connections that found such a queue full, since the machine was started, twice with a second in between.
    pub(super) overflows: Option<[u64; 2]>,
    /// Connections that the firewall knows, and how many it can.
    pub(super) conntrack: Option<[u64; 2]>,
    /// The clock is kept in step.
    pub(super) is_in_step: Option<bool>,
    /// The machine has an IPv6 address that others reach.
    pub(super) has_ipv6: Option<bool>,
    /// Names that clients use, and their IPv6 addresses.
    pub(super) names_with_ipv6: Vec<(String, IpAddr)>,
}

/// What the configuration says and names.
#[derive(Debug, Default)]
pub(super) struct ConfigFacts {
    pub(super) file: String,
    /// What forbids to run by it.
    pub(super) problems: Vec<String>,
    /// What is wrong with certificates, in sentences: issuers that are missing, for instance.
    pub(super) certificate_warnings: Vec<String>,
    /// Names of servers that can't be resolved, in sentences.
    pub(super) unresolved: Vec<String>,
    /// Sockets and keys that are not there, in sentences.
    pub(super) absent: Vec<String>,
    /// What else is odd, in sentences.
    pub(super) warnings: Vec<String>,
    /// Certificates that expire soon, in sentences.
    pub(super) expiring: Vec<String>,
    /// Addresses of listeners.
    pub(super) listeners: Vec<SocketAddr>,
}

/// File descriptors of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors {
    pub(super) used: u64,
    pub(super) max: u64,
}

/// Connections from one address of the machine to one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Towards {
    pub(super) from: IpAddr,
    pub(super) server: SocketAddr,
    pub(super) count: usize,
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    /// Connections that wait to be accepted.
    pub(super) waiting: u64,
    /// Whose it is, if this user may know.
    pub(super) owner: Option<Owner>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: u32,
    pub(super) program: String,
}
