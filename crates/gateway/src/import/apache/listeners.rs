//! The addresses of virtual hosts, as `[[listener]]`s: those with the same virtual hosts become one.

use super::certificates;
use super::context::Context;
use super::top;
use super::vhost::Vhost;
use crate::import::book::Outcome;
use crate::import::hosts::{Reach, listener_name};
use crate::import::sheet::{Section, Value, every_address};

/// Writes the listeners, with the certificates of those that speak TLS.
pub(super) fn write<'a>(context: &mut Context<'a>, vhosts: &mut [Vhost<'a>]) -> Vec<Reach> {
    let mut sockets: Vec<(String, u16, Vec<usize>)> = Vec::new();
    for (index, found) in vhosts.iter().enumerate() {
        for (address, port) in &found.addresses {
            match sockets.iter_mut().find(|(other, ..)| other == address) {
                None => sockets.push((address.clone(), *port, vec![index])),
                Some((.., sharers)) if !sharers.contains(&index) => sharers.push(index),
                Some(_) => {}
            }
        }
    }
    let mut reaches: Vec<(Reach, u16, Vec<String>)> = Vec::new();
    for (address, port, servers) in sockets {
        if let Some((.., addresses)) =
            reaches.iter_mut().find(|(other, of, _)| *of == port && other.servers == servers)
        {
            addresses.push(address);
            continue;
        }
        // What has TLS there has it for all, since a listener has it or not.
        let has_tls = servers.iter().any(|index| vhosts[*index].has_tls);
        let name =
            listener_name(Some(port), has_tls, |name| reaches.iter().any(|(other, ..)| other.name == name));
        let default =
            servers.iter().copied().find(|index| vhosts[*index].takes_every_host).unwrap_or(servers[0]);
        reaches.push((Reach { name, has_tls, servers, default }, port, vec![address]));
    }
    for (reach, _, addresses) in &reaches {
        let mut section = Section::new("[[listener]]");
        section.set("name", reach.name.clone(), None);
        section.set("address", addresses.clone(), None);
        if reach.has_tls {
            tls(context, &vhosts[reach.default], &mut section);
            for index in &reach.servers {
                let found = &mut vhosts[*index];
                if !found.has_tls {
                    let what = "a virtual host without SSLEngine shares its address with one that has it: it speaks TLS, too";
                    found.notes.note(what);
                }
                certificates::write(context, found);
            }
        } else {
            section.set("tls", false, None);
        }
        of_connections(context, &vhosts[reach.default], &mut section);
        context.site.listeners.push(section);
    }
    // What another one of a listener's virtual hosts says of it is not asked.
    for found in vhosts.iter() {
        for name in ["protocols", "sslprotocol", "keepalivetimeout", "remoteipproxyprotocol"] {
            for directive in found.scope.all(name) {
                if !context.book.knows(directive) {
                    let what = "a listener has what its first virtual host says";
                    context.book.lacks(&mut context.site.head, directive, what);
                }
            }
        }
    }
    reaches.into_iter().map(|(reach, ..)| reach).collect()
}

/// What holds for connections, with TLS or without.
fn of_connections(context: &mut Context<'_>, found: &Vhost<'_>, section: &mut Section) {
    let scope = &found.scope;
    if let Some(time) = scope.find("keepalivetimeout") {
        match top::seconds(time.arg(0)) {
            Some(text) => context.book.key(section, time, "keep_alive_timeout", text),
            None => context.book.lacks(section, time, "a listener has a time of its own for that"),
        }
    }
    let Some(header) = scope.find("remoteipproxyprotocol") else { return };
    if !header.arg(0).eq_ignore_ascii_case("on") {
        return context.book.itself(section, header, "the header is read where proxy_protocol says so");
    }
    if !scope.all("remoteipproxyprotocolexceptions").is_empty() {
        let what =
            "clients without the header can't be told by exceptions: write the addresses of your balancers";
        scope
            .all("remoteipproxyprotocolexceptions")
            .iter()
            .for_each(|d| context.book.misses(section, d, what));
    }
    let how = "Apache wants the header from every client; write the addresses of your balancers in place of these, since \
               any client that may connect can claim an address";
    context.book.remark(header, how);
    context.book.nearly(section, header, ("proxy_protocol", every_address()), how);
}

fn tls(context: &mut Context<'_>, found: &Vhost<'_>, section: &mut Section) {
    let scope = &found.scope;
    match scope.find("protocols") {
        Some(protocols) if protocols.args.iter().any(|arg| arg.eq_ignore_ascii_case("h2")) => {
            context.book.itself(section, protocols, "HTTP/2 and HTTP/1.1 are offered");
        }
        other => {
            if let Some(protocols) = other {
                context.book.mark(protocols, Outcome::Key);
            }
            section.comment("no h2 in Protocols: remove this line to offer HTTP/2, too");
            section.set("alpn", Value::List(vec!["http/1.1".into()]), None);
        }
    }
    let Some(protocol) = scope.find("sslprotocol") else { return };
    let versions = versions(&protocol.args);
    if versions == ["tlsv1.3"] {
        context.book.key(section, protocol, "min_version", "1.3");
    } else {
        let how = "TLS 1.2 and 1.3 are offered, and no older ones (RFC 8996)";
        context.book.nearly(section, protocol, ("min_version", "1.2"), how);
    }
}

/// Words are added and taken away, from the left to the right.
fn versions(words: &[String]) -> Vec<&'static str> {
    const ALL: [&str; 4] = ["tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3"];
    let mut versions: Vec<&str> = Vec::new();
    for word in words {
        let word = word.to_ascii_lowercase();
        let (takes, name) = match word.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, word.strip_prefix('+').unwrap_or(&word)),
        };
        let is_named = |version: &&str| name == "all" || *version == name;
        if takes {
            versions.retain(|version| !is_named(version));
        } else {
            versions.extend(ALL.into_iter().filter(is_named));
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_added_and_taken_away() {
        for (text, expect) in [
            ("all -SSLv3 -TLSv1 -TLSv1.1", vec!["tlsv1.2", "tlsv1.3"]),
            ("-all +TLSv1.3", vec!["tlsv1.3"]),
            ("TLSv1.2", vec!["tlsv1.2"]),
        ] {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            assert_eq!(versions(&words), expect, "{text}");
        }
    }
}
