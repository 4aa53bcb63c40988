//! What the facts mean: findings, each with the command that shows it and what to do. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::facts::{ConfigFacts, Descriptors, Facts, Listening, Owner, Towards};
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
/// A queue of connections that is shorter loses some when many clients come at once.
const SOMAXCONN_MIN: u64 = 1024;
/// Connections that wait to be accepted, from which a gateway is late.
const WAITING_MAX: u64 = 64;
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
        for warning in &config.warnings {
            let area = if warning.contains("certificate") || warning.contains(".pem") {
                CERTIFICATES
            } else if warning.contains("resolve") || warning.contains("DNS") {
                NAMES
            } else {
                CONFIGURATION
            };
            self.add(Level::Warning, area, warning.clone(), &see, "what the sentence says");
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
            let see = format!(
                "wssgate status; openssl s_client -connect localhost:443 -servername {name} </dev/null"
            );
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

    fn descriptors(&mut self, facts: &Facts) {
        let Some(status) = &facts.gateway else { return };
        let see = format!("grep 'open files' /proc/{0}/limits; ls /proc/{0}/fd | wc -l", status.pid);
        let todo =
            "raise LimitNOFILE= of the unit (systemctl edit wssgate) and restart, or lower max_connections";
        let Some(Descriptors { used, max }) = facts.descriptors else {
            let what = "the gateway's descriptors can't be counted by this user".to_owned();
            self.add(Level::Note, DESCRIPTORS, what, &see, "run it as root, or as the gateway's user");
            return;
        };
        if let Some(level) = level_of(percent(used, max)) {
            let what =
                format!("{used} of {max} file descriptors are in use, with {} sessions", status.sessions);
            self.add(level, DESCRIPTORS, what, &see, todo);
        } else if let Some(connections) =
            status.connections_max.filter(|connections| connections.saturating_mul(2) > max)
        {
            let what = format!(
                "max_connections = {connections} needs up to {} file descriptors, two for each session, and the process may have {max}",
                connections.saturating_mul(2)
            );
            self.add(Level::Warning, DESCRIPTORS, what, &see, todo);
        }
    }

    fn ports(&mut self, facts: &Facts) {
        let Some(range) = &facts.ports else { return };
        let all = u64::from(range.end().saturating_sub(*range.start())) + 1;
        for Towards { from, server, count } in &facts.towards {
            let count = *count as u64;
            let Some(level) = level_of(percent(count, all)) else { continue };
            let what = format!(
                "{count} of {all} ports are used from {from} towards {server}: there can't be more connections"
            );
            let see = format!("ss -tan dst {server} | wc -l; sysctl net.ipv4.ip_local_port_range");
            let todo = "widen net.ipv4.ip_local_port_range, give the upstream source_addresses or more servers, or reach the server \
                        over a Unix socket";
            self.add(level, PORTS, what, &see, todo);
        }
    }

    fn queues(&mut self, facts: &Facts) {
        let see = "nstat -az TcpExtListenOverflows TcpExtListenDrops; ss -ltn";
        if let Some([before, after]) = facts.overflows {
            if after > before {
                let what = format!(
                    "{} connections of clients found a full queue within the last second",
                    after - before
                );
                let todo = "look whether the gateway's threads are busy (top -H); raise net.core.somaxconn; add workers or machines";
                self.add(Level::Problem, QUEUES, what, see, todo);
            } else if after > 0 {
                let what = format!(
                    "{after} connections have found a full queue since the machine was started, none at the moment"
                );
                self.add(
                    Level::Note,
                    QUEUES,
                    what,
                    see,
                    "nothing now; raise net.core.somaxconn if the number grows",
                );
            }
        }
        if let Some(max) = facts.somaxconn.filter(|max| *max < SOMAXCONN_MIN) {
            let what = format!("net.core.somaxconn is {max}: so few connections can wait to be accepted");
            let todo = "sysctl -w net.core.somaxconn=4096, and write it to /etc/sysctl.d; then start the gateway again";
            self.add(Level::Warning, QUEUES, what, "sysctl net.core.somaxconn", todo);
        }
        for Listening { address, waiting, .. } in self.own(facts) {
            if waiting >= WAITING_MAX {
                let what = format!("{waiting} connections wait to be accepted at {address}");
                let todo = "look whether its threads are busy (top -H), or descriptors are used up";
                self.add(Level::Problem, QUEUES, what, "ss -ltn", todo);
            }
        }
    }

    /// The gateway's sockets that listen, as far as it can be known.
    fn own(&self, facts: &Facts) -> Vec<Listening> {
        let Some(status) = &facts.gateway else { return Vec::new() };
        let is_own = |one: &&Listening| one.owner.as_ref().is_some_and(|owner| owner.pid == status.pid);
        facts.listening.iter().filter(is_own).cloned().collect()
    }

    fn conntrack(&mut self, facts: &Facts) {
        let Some([count, max]) = facts.conntrack else { return };
        if let Some(level) = level_of(percent(count, max)) {
            let what = format!(
                "the firewall's table of connections has {count} of {max} entries: new connections are dropped when it is full"
            );
            let todo = "sysctl -w net.netfilter.nf_conntrack_max=…, or don't track the gateway's ports (nft: notrack)";
            self.add(
                level,
                CONNTRACK,
                what,
                "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
                todo,
            );
        }
    }

    fn clock(&mut self, facts: &Facts) {
        let see = "timedatectl; chronyc tracking";
        match facts.is_in_step {
            Some(true) => {}
            Some(false) => {
                let what =
                    "the clock is not kept in step: certificates, tokens and tickets depend on it".to_owned();
                self.add(Level::Warning, CLOCK, what, see, "timedatectl set-ntp true, or start chrony");
            }
            None => {
                let what =
                    "nothing tells whether the clock is kept in step (in a container its host does that)"
                        .to_owned();
                self.add(Level::Note, CLOCK, what, see, "look at the host");
            }
        }
    }

    fn addresses(&mut self, facts: &Facts) {
        let configured = facts.config.iter().flat_map(|config| config.listeners.iter().copied());
        let said = facts
            .gateway
            .iter()
            .flat_map(|status| status.listeners.iter().filter_map(|text| text.parse().ok()));
        let mut listeners: Vec<SocketAddr> = configured.chain(said).collect();
        listeners.sort_unstable();
        listeners.dedup();
        self.strangers(facts, &listeners);
        self.families(facts, &listeners);
    }

    /// Other programs at the gateway's addresses.
    fn strangers(&mut self, facts: &Facts, listeners: &[SocketAddr]) {
        let status = facts.gateway.as_ref();
        for Listening { address, owner, .. } in &facts.listening {
            let Some(listener) = listeners.iter().find(|listener| overlaps(listener, address)) else {
                continue;
            };
            let whose = match owner {
                Some(Owner { pid, .. }) if status.is_some_and(|status| status.pid == *pid) => continue,
                // Processes of a takeover, or of a gateway that another control socket belongs to.
                Some(Owner { program, .. }) if status.is_some() && program == "wssgate" => continue,
                Some(Owner { pid, program }) => format!("{program} (process {pid})"),
                None if status.is_some() => continue, // probably the gateway itself
                None => "a program that this user can't see".to_owned(),
            };
            let what =
                format!("{whose} listens on {address}, which takes connections of the listener {listener}");
            let see = format!("ss -ltnp 'sport = :{}'", address.port());
            self.add(Level::Problem, ADDRESSES, what, &see, "stop it, or give the gateway another address");
        }
    }

    /// IPv4 without IPv6, or the other way round.
    fn families(&mut self, facts: &Facts, listeners: &[SocketAddr]) {
        for listener in listeners.iter().filter(|listener| listener.ip() == Ipv6Addr::UNSPECIFIED) {
            let port = listener.port();
            if port != 0 && !listeners.iter().any(|other| other.port() == port && other.is_ipv4()) {
                let what = format!(
                    "{listener} takes no IPv4, whatever net.ipv6.bindv6only says, and nothing listens on 0.0.0.0:{port}"
                );
                let todo = format!("address = [\"0.0.0.0:{port}\", \"[::]:{port}\"] in the listener");
                self.add(Level::Warning, ADDRESSES, what, "ss -ltn", todo);
            }
        }
        let has_public_v4 = listeners.iter().any(|one| is_public(one.ip()) && one.is_ipv4());
        let has_v6 = listeners.iter().any(|one| one.is_ipv6() && one.ip() != Ipv6Addr::LOCALHOST);
        if has_public_v4
            && !has_v6
            && let Some((name, address)) = facts.names_with_ipv6.first()
        {
            let what = format!(
                "{name} has the IPv6 address {address}, and the gateway listens on IPv4 alone: such clients wait, or fail"
            );
            let todo = "add \"[::]:443\" to the listener's address, or take the AAAA record away";
            self.add(Level::Warning, ADDRESSES, what, &format!("dig AAAA {name}; ss -ltn"), todo);
        }
        if has_v6
            && facts.has_ipv6 == Some(false)
            && let Some((name, address)) = facts.names_with_ipv6.first()
        {
            let what =
                format!("{name} has the IPv6 address {address}, and this machine has none that others reach");
            let todo = "give the machine its address, or take the AAAA record away";
            self.add(Level::Warning, ADDRESSES, what, "ip -6 address show scope global", todo);
        }
    }
}

fn is_public(ip: IpAddr) -> bool {
    !ip.is_loopback()
}

/// Connections to the first may come to the second.
fn overlaps(one: &SocketAddr, other: &SocketAddr) -> bool {
    let is_any = |ip: IpAddr| ip == Ipv4Addr::UNSPECIFIED || ip == Ipv6Addr::UNSPECIFIED;
    // A socket of both families listens on [::].
    let same_family = one.is_ipv4() == other.is_ipv4() || other.ip() == Ipv6Addr::UNSPECIFIED;
    one.port() == other.port()
        && one.port() != 0
        && same_family
        && (one.ip() == other.ip() || is_any(one.ip()) || is_any(other.ip()))
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
