//! What several parts of the lifecycle say.

use std::fmt::Display;
use std::time::Instant;

use tracing::warn;

use super::load::Candidate;
use crate::net::listening::ListenAddress;

/// For the log.
pub(super) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn log_warnings(candidate: &Candidate) {
    for warning in &candidate.loaded.warnings {
        warn!(problem = %warning, "certificates");
    }
    for warning in candidate.across() {
        warn!(problem = warning, "configuration");
    }
    if let Some(warning) = candidate.ticket_warning() {
        warn!(problem = warning, "ticket keys");
    }
    for warning in candidate.cookie_warnings() {
        warn!(problem = warning, "keys of cookies");
    }
    for warning in candidate.unresolved.iter().chain(&candidate.sourceless) {
        warn!(problem = warning, "configuration");
    }
}

pub(super) fn cannot_listen(address: &ListenAddress, e: &std::io::Error) -> String {
    use std::io::ErrorKind as Kind;
    let hint = match e.kind() {
        _ if address.ip().is_none() => "check the path",
        Kind::AddrInUse => "another program listens there already; `ss -ltnp` shows which one",
        Kind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE or root; see docs/install.md",
        Kind::AddrNotAvailable => "this machine has no such address",
        _ => "check the address",
    };
    format!("can't listen on {address}: {e}; {hint}")
}

/// The names for a line in the log: the first ten.
pub(super) fn shown(names: &[impl Display]) -> Option<String> {
    const SHOWN: usize = 10;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    if names.len() > SHOWN {
        shown.push(format!("and {} more", names.len() - SHOWN));
    }
    (!shown.is_empty()).then(|| shown.join(", "))
}
