//! What the facts mean: findings, each with the command that shows it and what to do. Pure.

mod addresses;
mod machine;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::facts::{ConfigFacts, Facts};
use crate::ops::control::protocol::Status;

/// What is looked at, in this order.
pub(super) const AREAS: [&str; 12] = [
    GATEWAY,
    CONFIGURATION,
    CERTIFICATES,
    SERVERS,
    NAMES,
    DESCRIPTORS,
    PORTS,
    QUEUES,
    CONNTRACK,
    CLOCK,
    LOG,
    ADDRESSES,
];
const GATEWAY: &str = "gateway";
const CONFIGURATION: &str = "configuration";
const CERTIFICATES: &str = "certificates";
const SERVERS: &str = "servers";
const NAMES: &str = "names";
const DESCRIPTORS: &str = "descriptors";
const PORTS: &str = "ports";
const QUEUES: &str = "queues";
const CONNTRACK: &str = "conntrack";
const CLOCK: &str = "clock";
const LOG: &str = "log";
const ADDRESSES: &str = "addresses";

/// Parts of a whole, in percent, from which it is nearly used up.
const NEARLY: u64 = 80;
/// The same for what is about to fail.
const FULL: u64 = 95;
/// Days that a certificate has left, from which it should have been renewed.
const DAYS_MIN: i64 = 14;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Clients notice it.
    Problem,
    /// They will.
    Warning,
    /// It is good to know.
    Note,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "PROBLEM",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// One of [`AREAS`].
    pub(super) area: &'static str,
    pub(super) what: String,
    /// The command that shows it.
    pub(super) see: String,
    /// What to do.
    pub(super) todo: String,
}

/// Those of [`AREAS`] that something is known of.
pub(super) fn looked_at(facts: &Facts) -> Vec<&'static str> {
    let (gateway, config) = (facts.gateway.is_some(), facts.config.is_some());
    let is_known = |area: &&str| match *area {
        CONFIGURATION => config,
        CERTIFICATES | NAMES | ADDRESSES => gateway || config,
        SERVERS | LOG => gateway,
        DESCRIPTORS => facts.descriptors.is_some(),
        PORTS => facts.ports.is_some(),
        QUEUES => facts.overflows.is_some() && facts.somaxconn.is_some(),
        CONNTRACK => facts.conntrack.is_some(),
        CLOCK => facts.is_in_step.is_some(),
        _ => true,
    };
    AREAS.into_iter().filter(is_known).collect()
}

/// All findings, the worst first.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut all = Findings(Vec::new());
    all.gateway(facts);
    if let Some(config) = &facts.config {
        all.config(config);
    }
    if let Some(status) = &facts.gateway {
        all.certificates(status);
        all.servers(status);
        all.log(status);
    }
    all.descriptors(facts);
    all.ports(facts);
    all.queues(facts);
    all.conntrack(facts);
    all.clock(facts);
    all.addresses(facts);
    all.0.sort_by_key(|finding| finding.level);
    all.0
}

/// How many percent of `max` that is.
fn percent(used: u64, max: u64) -> u64 {
    used.saturating_mul(100) / max.max(1)
}

fn level_of(percent: u64) -> Option<Level> {
    match percent {
        FULL.. => Some(Level::Problem),
        NEARLY.. => Some(Level::Warning),
        _ => None,
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, area: &'static str, what: String, see: &str, todo: impl Into<String>) {
        self.0.push(Finding { level, area, what, see: see.to_owned(), todo: todo.into() });
    }

    fn gateway(&mut self, facts: &Facts) {
        let Some(status) = &facts.gateway else {
            let todo = "start it (systemctl start wssgate), or name its configuration (--config FILE) or its control socket \
                        (--socket PATH)";
            let see = "systemctl status wssgate; journalctl -u wssgate";
            return self.add(Level::Problem, GATEWAY, facts.silence.clone(), see, todo);
        };
        if !status.state.starts_with("ready") {
            let what = format!("it is not ready: {}", status.state);
            self.add(
                Level::Problem,
                GATEWAY,
                what,
                "wssgate status",
                "wait, if it is starting or draining; else start it again",
            );
        }
        if let Some(max) = status.connections_max
            && let Some(level) = level_of(percent(status.connections, max))
        {
            let what = format!("{} of {max} connections are open", status.connections);
            let todo = "raise max_connections, if memory and descriptors allow it; see who has them: wssgate sessions";
            self.add(level, GATEWAY, what, "wssgate status", todo);
        }
        if !status.drained.is_empty() {
            let what = format!("drained by an operator: {}", status.drained.join(", "));
            let todo = "when the maintenance is over: wssgate undrain TARGET";
            self.add(Level::Note, GATEWAY, what, "wssgate status", todo);
        }
        if status.reloads_refused > 0 {
            let what = format!("{} reloads were refused since it was started", status.reloads_refused);
            let todo = "mend what the check says, then: wssgate reload";
            self.add(Level::Note, CONFIGURATION, what, "wssgate check FILE", todo);
        }
    }

    fn config(&mut self, config: &ConfigFacts) {
        let see = format!("wssgate check {}", config.file);
        for problem in &config.problems {
            let todo = "mend it: a reload and a start are refused until then";
            self.add(Level::Problem, CONFIGURATION, problem.clone(), &see, todo);
        }
        for (area, sentences, todo) in [
            (
                CERTIFICATES,
                &config.certificate_warnings,
                "what the sentence says; a chain file has the certificate and then its issuers (certbot's fullchain.pem)",
            ),
            (NAMES, &config.unresolved, "correct the name, or the resolver (/etc/resolv.conf, [dns])"),
            (SERVERS, &config.absent, "what the sentence says"),
            (CONFIGURATION, &config.warnings, "what the sentence says"),
        ] {
            for sentence in sentences {
                self.add(Level::Warning, area, sentence.clone(), &see, todo);
            }
        }
        for expiry in &config.expiring {
            let todo = "renew it (certbot renew, or whatever does that here), and look why that has not happened by itself";
            self.add(Level::Warning, CERTIFICATES, expiry.clone(), &see, todo);
        }
    }

    fn certificates(&mut self, status: &Status) {
        if let Some(nearest) = &status.nearest_expiry
            && nearest.days < DAYS_MIN
        {
            let (name, days) = (&nearest.name, nearest.days);
            let (level, what) = if days < 0 {
                (Level::Problem, format!("the certificate of {name} that is served HAS EXPIRED"))
            } else {
                (Level::Warning, format!("the certificate of {name} that is served expires in {days} days"))
            };
            let at = tls_place(status);
            let see = format!("wssgate status; openssl s_client -connect {at} -servername {name} </dev/null");
            let todo = "renew it; if the file is new already, the log says why it is not taken (wssgate reload tells it, too)";
            self.add(level, CERTIFICATES, what, &see, todo);
        }
        for order in &status.acme {
            if let Some(problem) = &order.problem {
                let level = if order.state == "valid" { Level::Warning } else { Level::Problem };
                let what =
                    format!("the certificate of {} can't be ordered: {problem}", order.names.join(", "));
                self.add(
                    level,
                    CERTIFICATES,
                    what,
                    "wssgate status; wssgate acme try FILE",
                    "what the sentence says",
                );
            }
        }
    }

    fn servers(&mut self, status: &Status) {
        for upstream in &status.upstreams {
            let up = upstream.servers.iter().filter(|server| server.state == "up").count();
            for server in &upstream.servers {
                if server.state == "up" || server.state == "drained" {
                    continue;
                }
                let level = if up == 0 { Level::Problem } else { Level::Warning };
                let why = server.why.as_ref().or(server.probe_problem.as_ref());
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                let left = if up == 0 {
                    "; no server of it is up".to_owned()
                } else {
                    format!("; {up} others are up")
                };
                let what =
                    format!("{} of {} is {}{why}{left}", server.server, upstream.upstream, server.state);
                let see = format!("wssgate upstreams; curl -v {}", url(&server.server));
                self.add(
                    level,
                    SERVERS,
                    what,
                    &see,
                    "start it, or look at the network between here and there",
                );
            }
            if upstream.waiting > 0 {
                let what =
                    format!("{} requests wait for a server of {}", upstream.waiting, upstream.upstream);
                let todo = "add servers, or raise max_sessions of those that are there";
                self.add(Level::Warning, SERVERS, what, "wssgate upstreams", todo);
            }
            for name in &upstream.names {
                if let Some(problem) = &name.problem {
                    let level = if name.found.is_empty() { Level::Problem } else { Level::Warning };
                    let what = format!("{} of {} can't be resolved: {problem}", name.name, upstream.upstream);
                    let see = format!(
                        "dig {}; cat /etc/resolv.conf",
                        name.name.split(' ').next_back().unwrap_or_default()
                    );
                    self.add(
                        level,
                        NAMES,
                        what,
                        &see,
                        "correct the name, or the resolver; what was found before is used until then",
                    );
                }
            }
        }
    }

    fn log(&mut self, status: &Status) {
        if status.log_lines_lost > 0 {
            let what = format!(
                "{} lines of the log are lost: it was written or read too slowly",
                status.log_lines_lost
            );
            let todo = "look at the disk (df, iostat) or at who reads stderr; write the access log to a file of its own: [log] access";
            let see = "journalctl -u wssgate | grep -i lost; df -h";
            self.add(Level::Warning, LOG, what, see, todo);
        }
    }
}

/// Where a client on this machine gets a certificate: at port 443, or at the first port that is listened on.
fn tls_place(status: &Status) -> SocketAddr {
    let own = |one: SocketAddr| match one.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (Ipv4Addr::LOCALHOST, one.port()).into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (Ipv6Addr::LOCALHOST, one.port()).into(),
        _ => one,
    };
    let known = |one: &SocketAddr| one.port() != 0; // else the system has chosen it
    let mut all = status.listeners.iter().filter_map(|text| text.parse().ok()).filter(known).map(own);
    let first = all.clone().next();
    all.find(|one| one.port() == 443).or(first).unwrap_or((Ipv4Addr::LOCALHOST, 443).into())
}

fn url(server: &str) -> String {
    match server.strip_prefix("unix:") {
        Some(path) => format!("--unix-socket {path} http://localhost/"),
        None if server.contains("://") => server.to_owned(),
        None => format!("http://{server}/"),
    }
}

#[cfg(test)]
mod tests;
