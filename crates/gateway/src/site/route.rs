//! A route: which requests it takes, and what is done with them. Pure.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use frame_core::ledger::{Carried, Ledger};
use frame_core::metered::Rates;
use frame_core::policy::Policy;
use frame_core::sequence::Limits;
use net_io::count::{ByWorker, Sizes};
use upgrade_handler::origin::OriginPattern;

use crate::site::access::Access;
use crate::site::answer::{Redirect, Respond};
use crate::site::counts::{RouteCounts, SENDERS};
use crate::site::extras::Extras;
use crate::site::fastcgi::Fastcgi;
use crate::site::files::Files;
use crate::site::matcher::Matcher;
use crate::site::rewrite::Rewrite;
use crate::site::route_id::RouteId;
use crate::site::tcp::TcpServer;
use crate::site::upstream::Upstream;

/// What is done with requests of a route.
#[derive(Debug)]
pub struct Route {
    /// Its name, or what it matches.
    pub id: RouteId,
    /// Which requests it takes.
    pub matcher: Matcher,
    /// Where they go.
    pub action: Action,
    /// How its server knows the paths of requests; `None`: as clients do.
    pub rewrite: Option<Rewrite>,
    /// What WebSocket sessions must obey.
    pub policy: Policy,
    /// What clients of its WebSockets may send; `None`: as much as they like.
    pub rates: Option<Rates>,
    /// What becomes of permessage-deflate.
    pub compression: Compression,
    /// Who may use it, and how much; `None`: every client, as much as it likes.
    pub access: Option<Box<Access>>,
    /// Pages that may open WebSockets; `None`: all.
    pub origins: Option<Vec<OriginPattern>>,
    /// What is done besides; `None`: nothing.
    pub extras: Option<Box<Extras>>,
    /// Protocols that requests may upgrade to, by their names; `None`: WebSocket alone.
    pub upgrades: Option<Box<[Box<str>]>>,
    /// See [`Self::counts`].
    pub(crate) counts: OnceLock<Arc<ByWorker<RouteCounts>>>,
}

impl Route {
    /// The rules for WebSockets where nothing is said. Messages have no limit.
    pub const POLICY: Policy = Policy {
        limits: Limits { message_max: u64::MAX, deflate: false }, // each handshake decides about `deflate`
        idle_timeout: None,
        lifetime: None,
        ping_interval: Some(Duration::from_secs(30)),
        pong_timeout: Duration::from_secs(10),
    };
    /// Messages that end at the gateway are held in memory, so they have a limit where nothing is said. In bytes.
    pub const SERVICE_MESSAGE_MAX: u64 = 16 * 1024 * 1024;

    /// A route with the default rules, for pages of every origin.
    #[must_use]
    pub fn new(matcher: Matcher, action: Action) -> Self {
        let policy = Self::policy(matches!(action, Action::Service(_)));
        Self {
            id: matcher.id(),
            matcher,
            action,
            rewrite: None,
            policy,
            rates: None,
            compression: Compression::Pass,
            access: None,
            origins: None,
            extras: None,
            upgrades: None,
            counts: OnceLock::new(),
        }
    }

    /// What each worker counts of it.
    #[must_use]
    pub fn counts(&self) -> &ByWorker<RouteCounts> {
        self.counts.get_or_init(Arc::default)
    }

    /// What was counted of `earlier`, which is the same route before a reload, goes on. To be called before anything is
    /// counted.
    pub(super) fn count_on(&self, earlier: Option<&Arc<Self>>) {
        if let Some(earlier) = earlier {
            let _ = self.counts.set(earlier.counts.get_or_init(Arc::default).clone());
        }
    }

    /// WebSockets may be opened.
    #[must_use]
    pub fn takes_websockets(&self) -> bool {
        let Some(names) = &self.upgrades else { return true };
        names.iter().any(|name| name.eq_ignore_ascii_case("websocket"))
    }

    /// The rules for WebSockets where nothing is said: for those that end at the gateway, or that a server has.
    #[must_use]
    pub fn policy(is_service: bool) -> Policy {
        let message_max =
            if is_service { Self::SERVICE_MESSAGE_MAX } else { Self::POLICY.limits.message_max };
        Policy { limits: Limits { message_max, ..Self::POLICY.limits }, ..Self::POLICY }
    }
}

impl Ledger for Route {
    fn add(&self, carried: &Carried) {
        self.counts().here().carried(carried);
    }

    fn ping(&self, took_us: u32) {
        self.counts().here().pings.add(Duration::from_micros(took_us.into()));
    }

    fn sizes(&self) -> [&Arc<Sizes>; SENDERS.len()] {
        self.counts().here().carried.each_ref().map(|way| &way.sizes)
    }
}

/// Where requests go.
#[derive(Debug, Clone)]
pub enum Action {
    /// To a backend.
    Proxy(Arc<Upstream>),
    /// To a server that speaks no HTTP: binary messages are the bytes of its TCP stream.
    Tcp(Arc<TcpServer>),
    /// To the gateway itself.
    Service(Service),
    /// To another place.
    Redirect(Arc<Redirect>),
    /// They all get the same answer.
    Respond(Arc<Respond>),
    /// To the files of a directory.
    Files(Arc<Files>),
    /// To the scripts of a directory, which a server runs.
    Fastcgi(Arc<Fastcgi>),
}

/// What becomes of permessage-deflate (RFC 7692) in the WebSockets of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Clients and servers agree upon it, and messages pass as they are.
    Pass,
    /// The gateway speaks it with clients, and servers are not offered it.
    Terminate {
        /// Bytes that a session keeps at most of what its client has sent, and of what it was sent: 32 KiB at most, 0 for none.
        history_max: usize,
    },
}

/// What the gateway can do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// WebSockets that say everything back.
    Echo,
    /// A page to try WebSockets with.
    Console,
}

impl Action {
    /// The servers that requests go to.
    #[must_use]
    pub fn upstream(&self) -> Option<&Arc<Upstream>> {
        match self {
            Self::Proxy(upstream) => Some(upstream),
            Self::Tcp(server) => Some(&server.upstream),
            Self::Fastcgi(fastcgi) => Some(&fastcgi.upstream),
            Self::Service(_) | Self::Redirect(_) | Self::Respond(_) | Self::Files(_) => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(upstream) => upstream.fmt(f),
            Self::Tcp(server) => server.fmt(f),
            Self::Service(Service::Echo) => f.write_str("echo service"),
            Self::Service(Service::Console) => f.write_str("console page"),
            Self::Redirect(redirect) => redirect.fmt(f),
            Self::Respond(respond) => respond.fmt(f),
            Self::Files(files) => files.fmt(f),
            Self::Fastcgi(fastcgi) => fastcgi.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_shown_in_words() {
        let told = [Service::Echo, Service::Console].map(|service| Action::Service(service).to_string());
        assert_eq!(told, ["echo service", "console page"]);
    }
}
