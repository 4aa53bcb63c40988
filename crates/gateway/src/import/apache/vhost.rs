//! Virtual hosts: their addresses and their names.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::context::Context;
use super::listen::Listens;
use super::scope::Scope;
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;
use crate::site::host::HostPattern;

/// A virtual host, or what is outside of them.
pub(super) struct Vhost<'a> {
    pub directive: Option<&'a Directive>,
    pub scope: Scope<'a>,
    /// As listeners have them, with their ports.
    pub addresses: Vec<(String, u16)>,
    pub hosts: Vec<String>,
    /// `ServerAlias *`
    pub takes_every_host: bool,
    pub has_tls: bool,
    /// Rules for clients' certificates that have no counterpart.
    pub lost: Vec<&'a Directive>,
    pub notes: Section,
}

impl<'a> Vhost<'a> {
    /// Reads one; `None`: what is outside of all.
    pub(super) fn of(
        context: &mut Context<'a>,
        directive: Option<&'a Directive>,
        scope: Scope<'a>,
        listens: &mut Listens,
    ) -> Vhost<'a> {
        let has_tls = scope.find("sslengine").is_some_and(|on| !on.arg(0).eq_ignore_ascii_case("off"));
        if let Some(engine) = scope.find("sslengine") {
            context.book.mark(engine, Outcome::Key);
        }
        let mut found = Vhost {
            directive,
            scope,
            addresses: Vec::new(),
            hosts: Vec::new(),
            takes_every_host: false,
            has_tls,
            lost: Vec::new(),
            notes: Section::default(),
        };
        let Some(directive) = directive else { return found };
        for text in &directive.args {
            let (host, port) =
                text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).unwrap_or((text, "*"));
            let port: Option<u16> = if port == "*" {
                None
            } else if let Ok(port) = port.parse() {
                Some(port)
            } else {
                context.book.misses(&mut found.notes, directive, "this is no address with a port");
                continue;
            };
            match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(ip) if !ip.is_unspecified() => {
                    let ports = port.map_or_else(|| listens.ports(), |port| vec![port]);
                    found
                        .addresses
                        .extend(ports.into_iter().map(|port| (SocketAddr::new(ip, port).to_string(), port)));
                }
                ip => {
                    if ip.is_err() && !matches!(host, "*" | "_default_") {
                        let what = "names of hosts are not looked up here: it is taken for every address";
                        context.book.remark(directive, what);
                        found.notes.note(format!("{}: {text}: {what}", directive.at));
                    }
                    found.addresses.extend(listens.of_port(port));
                }
            }
        }
        names(context, &mut found);
        found
    }

    /// As titles have it.
    pub(super) fn title(&self) -> String {
        let place = self.directive.map(|directive| format!(" ({})", directive.at)).unwrap_or_default();
        let names = if self.hosts.is_empty() { "every host".to_owned() } else { self.hosts.join(" ") };
        format!("{}{place}", names.chars().take(80).collect::<String>())
    }
}

/// `ServerName` and `ServerAlias`.
fn names(context: &mut Context<'_>, found: &mut Vhost<'_>) {
    let all: Vec<&Directive> = found
        .scope
        .own
        .iter()
        .copied()
        .filter(|d| matches!(d.name.as_str(), "servername" | "serveralias"))
        .collect();
    let mut seen = HashSet::new();
    for names in all {
        context.book.mark(names, Outcome::Key);
        for text in &names.args {
            let bare = text.rsplit_once("://").map_or(text.as_str(), |(_, bare)| bare);
            let bare = bare.split(':').next().unwrap_or(bare).to_ascii_lowercase();
            if bare == "*" {
                found.takes_every_host = true;
            } else if HostPattern::parse(&bare).is_some() {
                if bare.starts_with("*.") {
                    let what = format!(
                        "{}: {bare} is one label before the name here, and any text in Apache",
                        names.at
                    );
                    found.notes.note(what);
                }
                if seen.insert(bare.clone()) {
                    found.hosts.push(bare);
                }
            } else {
                let what = "this is no name of a host as routes have it: write the names, or \"*.domain.com\" for one label";
                context.book.remark(names, &format!("{text}: {what}"));
                found.notes.note(format!("{}: {text}: {what}", names.at));
            }
        }
    }
}
