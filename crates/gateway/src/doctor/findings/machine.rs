//! What the machine has left for the gateway, and whether its clock is right.

use super::{CLOCK, CONNTRACK, DESCRIPTORS, Findings, Level, PORTS, QUEUES, level_of, percent};
use crate::doctor::facts::{Descriptors, Facts, Listening, Towards};

/// A queue of connections that is shorter loses some when many clients come at once.
const SOMAXCONN_MIN: u64 = 1024;
/// Connections that wait to be accepted, from which a gateway is late.
const WAITING_MAX: u64 = 64;

impl Findings {
    pub(super) fn descriptors(&mut self, facts: &Facts) {
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

    pub(super) fn ports(&mut self, facts: &Facts) {
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

    pub(super) fn queues(&mut self, facts: &Facts) {
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

    pub(super) fn conntrack(&mut self, facts: &Facts) {
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

    pub(super) fn clock(&mut self, facts: &Facts) {
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
}
