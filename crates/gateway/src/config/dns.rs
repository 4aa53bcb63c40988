//! `[dns]`: how the names of servers are looked up.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::kind::{self, List};
use super::option::options;

/// What the DNS is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// The servers that are asked; none: those of `resolv_conf`.
    pub servers: Vec<SocketAddr>,
    /// What has the servers, the search list, and options.
    pub resolv_conf: PathBuf,
    /// What is looked into before the DNS is asked.
    pub hosts: PathBuf,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self { servers: Vec::new(), resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

options! {
    /// How the names of backends are looked up. Without this section it is as the system's files say. The files are read
    /// again when they change.
    struct DnsOptions: "[dns]";

    /// The DNS servers that are asked: addresses, with a port where that is not 53.
    servers: List<kind::DnsServer>, otherwise = "those of `resolv_conf`; and names that the DNS does not have are looked up by the system's library, which may know other sources";
    /// The file with the servers, the search list, and options (resolv.conf(5)).
    resolv_conf: kind::File, otherwise = "`\"/etc/resolv.conf\"`";
    /// The file that is looked into first (hosts(5)).
    hosts: kind::File, otherwise = "`\"/etc/hosts\"`";
}

pub(super) fn read(section: Option<DnsOptions>) -> DnsSettings {
    let default = DnsSettings::default();
    let Some(section) = section else { return default };
    DnsSettings {
        servers: section.servers.map(|at| at.value).unwrap_or_default(),
        resolv_conf: section.resolv_conf.map_or(default.resolv_conf, |at| at.value),
        hosts: section.hosts.map_or(default.hosts, |at| at.value),
    }
}
