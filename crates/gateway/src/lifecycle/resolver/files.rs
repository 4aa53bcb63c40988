//! `resolv.conf` and the hosts file, which may change at any time: containers, DHCP and VPNs rewrite them.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use hickory_resolver::Hosts;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::system_conf::parse_resolv_conf;

use crate::config::DnsSettings;
use crate::config::file::stamp;
use crate::site::names::TTL_MAX;
use crate::site::written::Stamp;

/// What the files say.
pub(super) struct Files {
    pub(super) config: ResolverConfig,
    pub(super) options: ResolverOpts,
    pub(super) hosts: Hosts,
    /// What couldn't be read.
    pub(super) problems: Vec<String>,
}

/// The stamps of both files; blocks.
pub(super) fn stamps(settings: &DnsSettings) -> [Stamp; 2] {
    [&settings.resolv_conf, &settings.hosts].map(|path| stamp(path))
}

/// Reads both files; blocks. Without a server, the one on this machine is asked, as resolv.conf(5) says.
pub(super) fn read(settings: &DnsSettings) -> Files {
    let mut problems = Vec::new();
    let mut problem = |path: &Path, error: &dyn std::fmt::Display| {
        problems.push(format!("{}: {error}", path.display()));
    };
    let text = fs::read(&settings.resolv_conf).or_else(|e| if_missing(e, Vec::new())).unwrap_or_else(|e| {
        problem(&settings.resolv_conf, &e);
        Vec::new()
    });
    let local = b"\nnameserver 127.0.0.1\n";
    let parsed = parse_resolv_conf(&text).or_else(|_| parse_resolv_conf([&text[..], local].concat()));
    let (mut config, mut options) = parsed.unwrap_or_else(|e| {
        problem(&settings.resolv_conf, &e);
        parse_resolv_conf(local).unwrap_or_default()
    });
    if !settings.servers.is_empty() {
        let servers = settings.servers.iter().map(|address| {
            let connection = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let both = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
            NameServerConfig::new(address.ip(), true, both)
        });
        let (domain, search, _) = config.into_parts();
        config = ResolverConfig::from_parts(domain, search, servers.collect());
    }
    options.use_hosts_file = ResolveHosts::Never; // they are looked into before
    // A name that gets an address is to be found soon.
    options.negative_max_ttl = Some(Duration::from_secs(5));
    options.positive_max_ttl = Some(TTL_MAX);
    options.cache_size = 256;
    let mut hosts = Hosts::default();
    let file = fs::File::open(&settings.hosts);
    let opened = file.and_then(|file| hosts.read_hosts_conf(file)).or_else(|e| if_missing(e, ()));
    if let Err(e) = opened {
        problem(&settings.hosts, &e);
    }
    Files { config, options, hosts, problems }
}

fn if_missing<T>(error: io::Error, otherwise: T) -> io::Result<T> {
    if error.kind() == io::ErrorKind::NotFound { Ok(otherwise) } else { Err(error) }
}
