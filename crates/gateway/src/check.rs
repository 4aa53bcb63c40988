//! `wssgate check`: what a configuration would do, as tables.

mod choice;
mod limits;

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::PathBuf;

use comfy_table::Table;
use frame_core::policy::Policy;
use tls_acceptor::{Certificate, Expiries, Loaded, TicketKeys};

pub use self::choice::choice;
use self::limits::time;
use crate::config::Listener;
use crate::config::{AcmeSettings, Config};
use crate::lifecycle::Candidate;
use crate::net::options;
use crate::ops::table::{section, table};
use crate::site::route::{Action, Route};

/// Everything a configuration says and its certificates hold. `now` in seconds since 1970.
#[must_use]
pub fn tables(candidate: &Candidate, now: i64) -> String {
    let Candidate { config, loaded, ticket_keys, .. } = candidate;
    let mut text = String::new();
    if !config.included.is_empty() {
        section(&mut text, "Files", &files_read(config));
    }
    section(&mut text, "Listeners", &listeners(config));
    section(&mut text, "Routes", &routes(config));
    section(&mut text, "Limits", &limits::limits(config));
    if config.has_tls() {
        section(&mut text, "Certificates", &certificates(config, loaded, now));
    }
    if let Some(acme) = &config.acme {
        section(&mut text, "Certificates of [acme]", &ordered(config, acme, loaded, now));
    }
    if !loaded.lost.is_empty() {
        section(
            &mut text,
            "Certificates that are not served, although they are valid for the name",
            &lost(loaded),
        );
    }
    if let Some(keys) = ticket_keys {
        section(&mut text, "Ticket keys", &tickets(keys));
    }
    for warning in candidate.warnings().chain(ports(config)) {
        let _ = writeln!(text, "warning: {}", config.hidden.hide(&warning));
    }
    for expiry in Expiries::default().news(&loaded.set, now) {
        let _ = writeln!(text, "warning: {expiry}");
    }
    text
}

/// Addresses that can't be listened on now.
fn ports(config: &Config) -> Vec<String> {
    let admin = config.admin.as_ref().and_then(|admin| admin.address.ip());
    let addresses = config.listeners.iter().filter_map(|listener| listener.address.ip()).chain(admin);
    let taken = |address| match options::try_bind(address)?.kind() {
        ErrorKind::AddrInUse => Some(format!(
            "{address} is in use: another program listens there (`ss -ltnp` shows which one). If it is this gateway under another user, there is nothing to do"
        )),
        ErrorKind::AddrNotAvailable => Some(format!(
            "{} is not an address of this machine at the moment, so the gateway can't listen on {address}",
            address.ip()
        )),
        _ => None, // a service manager may be allowed what this user isn't
    };
    addresses.filter_map(taken).collect()
}

fn files_read(config: &Config) -> Table {
    let mut table = table(&["file", "is"]);
    table.add_row([config.file.display().to_string(), "the configuration".to_owned()]);
    for file in &config.included {
        table.add_row([config.hidden.hide(&file.display().to_string()), "included".to_owned()]);
    }
    table
}

fn listeners(config: &Config) -> Table {
    let mut table = table(&["address", "protocol", "handshake", "request head"]);
    for Listener { address, tls, limits, .. } in &config.listeners {
        let (protocol, handshake) = match tls {
            Some(tls) => {
                let alpn: Vec<_> = tls.alpn.iter().map(|alpn| alpn.as_str()).collect();
                let version = match tls.min_version {
                    tls_acceptor::MinVersion::Tls12 => "1.2",
                    tls_acceptor::MinVersion::Tls13 => "1.3",
                };
                (format!("TLS {version}+: {}", alpn.join(", ")), time(tls.handshake_timeout))
            }
            None => ("plain text: http/1.1".to_owned(), "-".to_owned()),
        };
        table.add_row([
            config.hidden.hide(&address.to_string()),
            protocol,
            handshake,
            time(limits.header_timeout),
        ]);
    }
    table
}

fn routes(config: &Config) -> Table {
    let mut table = table(&["name", "host", "path", "goes to", "WebSockets"]);
    for route in &config.routes {
        let Route { id, matcher, action, rewrite, policy, origins, upgrades, .. } = &**route;
        let name = if *id == matcher.id() { "-" } else { id.as_str() };
        let hosts: Vec<_> = matcher.hosts.iter().map(ToString::to_string).collect();
        let host = if hosts.is_empty() { "any".to_owned() } else { hosts.join("\n") };
        let path = format!("{}{}", matcher.path, matcher.conditions_shown());
        let target = match action {
            Action::Proxy(upstream) => {
                let address = match (&upstream.name, &upstream.servers[..]) {
                    (None, [server]) => server.endpoint.url(),
                    _ => upstream.to_string(),
                };
                rewrite.as_ref().map_or(address.clone(), |rewrite| format!("{address}, {rewrite}"))
            }
            other => other.to_string(),
        };
        let mut sockets = describe(policy);
        if let Some(origins) = origins {
            let origins: Vec<_> = origins.iter().map(ToString::to_string).collect();
            sockets.push(format!("origins {}", origins.join(" ")));
        }
        if let Some(names) = upgrades {
            sockets.push(format!("upgrade {}", names.join(" ")));
        }
        let row = [name, &host, &path, &target, &sockets.join(", ")];
        table.add_row(row.map(|text| config.hidden.hide(text)));
    }
    table
}

fn describe(policy: &Policy) -> Vec<String> {
    let mut words = Vec::new();
    match policy.ping_interval {
        Some(interval) => words.push(format!("ping {} + {}", time(interval), time(policy.pong_timeout))),
        None => words.push("no pings".to_owned()),
    }
    if let Some(idle) = policy.idle_timeout {
        words.push(format!("idle {}", time(idle)));
    }
    if let Some(lifetime) = policy.lifetime {
        words.push(format!("lifetime {}", time(lifetime)));
    }
    if policy.limits.message_max != u64::MAX {
        words.push(format!("messages up to {}", bytesize::ByteSize(policy.limits.message_max)));
    }
    words
}

fn certificates(config: &Config, loaded: &Loaded, now: i64) -> Table {
    let mut table = table(&["names", "key", "issuer", "days left", "serial", "files"]);
    let default = config.certificates.default.as_ref();
    for certificate in loaded.set.certificates() {
        let leaf = &certificate.leaf;
        let names: Vec<_> = leaf
            .names
            .iter()
            .map(|name| if Some(name) == default { format!("{name} (default)") } else { name.to_string() })
            .collect();
        let state = match leaf.days_left(now) {
            _ if now < leaf.not_before => "NOT YET VALID".to_owned(),
            days if days < 0 => format!("{days} EXPIRED"),
            days => days.to_string(),
        };
        table.add_row([
            names.join("\n"),
            leaf.key_type.as_str().to_owned(),
            leaf.issuer.clone(),
            state,
            leaf.serial.clone(),
            config.hidden.hide(&files(certificate).join("\n")),
        ]);
    }
    table
}

/// The certificates that are ordered, and how they stand in the storage.
fn ordered(config: &Config, acme: &AcmeSettings, loaded: &Loaded, now: i64) -> Table {
    let mut table = table(&["names", "challenge", "state", "authority"]);
    for names in &acme.certificates {
        let file = acme.file(names);
        let mut found =
            loaded.set.certificates().iter().filter(|certificate| certificate.files.contains(&file));
        let state = match found.next() {
            Some(certificate) if certificate.leaf.not_after <= now => "expired".to_owned(),
            Some(certificate) => format!("{} days left", certificate.leaf.days_left(now)),
            None => "not there yet".to_owned(),
        };
        let names = AcmeSettings::texts(names).join("\n");
        table.add_row([&names, acme.challenge.as_str(), &state, &acme.directory]);
    }
    if let Some(on_demand) = &acme.on_demand {
        let listed = on_demand.allowed.names();
        let listed = listed.map(|names| names.into_iter().map(ToString::to_string).collect::<Vec<_>>());
        let names = listed.map_or_else(|| "any name".to_owned(), |names| names.join("\n"));
        let asked = on_demand.ask.as_ref().map(|ask| format!("\nif {} allows it", config.hidden.hide(ask)));
        let directory = acme.on_demand_directory();
        let is_one = |file: &PathBuf| file.parent() == Some(&*directory);
        let found =
            loaded.set.certificates().iter().filter(|certificate| certificate.files.iter().any(is_one));
        table.add_row([
            &(names + &asked.unwrap_or_default()),
            acme.challenge.as_str(),
            &format!("on demand, {} there", found.count()),
            &acme.directory,
        ]);
    }
    table
}

fn lost(loaded: &Loaded) -> Table {
    let mut table = table(&["name", "not served", "reason", "served instead"]);
    for lost in &loaded.lost {
        table.add_row([
            lost.name.to_string(),
            files(&lost.loser).join("\n"),
            format!("it {}", lost.why),
            files(&lost.winner).join("\n"),
        ]);
    }
    table
}

fn tickets(keys: &TicketKeys) -> Table {
    let mut table = table(&["key", "used to"]);
    for (i, name) in keys.names().enumerate() {
        table.add_row([name, if i == 0 { "encrypt and decrypt".to_owned() } else { "decrypt".to_owned() }]);
    }
    table
}

fn files(certificate: &Certificate) -> Vec<String> {
    certificate.files.iter().map(|file| file.display().to_string()).collect()
}
