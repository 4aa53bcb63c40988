//! The addresses of all servers, as `[[listener]]`s: those that the same servers share become one.

use super::context::Context;
use super::listen::Listen;
use super::server::Server;
use super::times;
use crate::import::book::Outcome;
use crate::import::hosts::{Reach, listener_name};
use crate::import::sheet::{Section, Value, every_address};

/// What one `[[listener]]` has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// What routes call it.
    pub name: String,
    pub addresses: Vec<String>,
    pub port: u16,
    pub has_tls: bool,
    pub has_http2: bool,
    pub has_proxy_protocol: bool,
    /// The servers that listen there, by their position.
    pub servers: Vec<usize>,
    /// The one of them that takes what no other one takes.
    pub default: usize,
}

/// Finds the listeners. What one server says about an address holds for all that share it, as in nginx.
pub(super) fn group(servers: &mut [Server<'_>]) -> Vec<Group> {
    let mut sockets: Vec<(Listen, Vec<usize>, usize)> = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        for listen in &server.listens {
            match sockets.iter_mut().find(|(other, ..)| other.address == listen.address) {
                None => sockets.push((listen.clone(), vec![index], index)),
                Some((other, sharers, default)) => {
                    other.has_tls |= listen.has_tls;
                    other.has_http2 |= listen.has_http2;
                    other.has_proxy_protocol |= listen.has_proxy_protocol;
                    *default = if listen.is_default { index } else { *default };
                    if !sharers.contains(&index) {
                        sharers.push(index);
                    }
                }
            }
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    for (listen, sharers, default) in sockets {
        let http2 = sharers.iter().any(|index| servers[*index].scope.is_on("http2"));
        let port = (!listen.address.starts_with("unix:")).then_some(listen.port);
        let is_taken = |name: &str| groups.iter().any(|group: &Group| group.name == name);
        let new = Group {
            name: listener_name(port, listen.has_tls, is_taken),
            addresses: vec![listen.address],
            port: listen.port,
            has_tls: listen.has_tls,
            has_http2: listen.has_http2 || http2,
            has_proxy_protocol: listen.has_proxy_protocol,
            servers: sharers,
            default,
        };
        let is_same = |other: &&mut Group| {
            Group { name: new.name.clone(), addresses: new.addresses.clone(), ..(**other).clone() } == new
        };
        match groups.iter_mut().find(is_same) {
            Some(other) => other.addresses.extend(new.addresses),
            None => groups.push(new),
        }
    }
    for (index, server) in servers.iter_mut().enumerate() {
        let of_server = groups.iter().filter(|group| group.servers.contains(&index));
        let tls: Vec<bool> = of_server.clone().map(|group| group.has_tls).collect();
        let scheme = match tls[..] {
            [] => None,
            [first, ref rest @ ..] => rest.iter().all(|other| *other == first).then_some(first),
        };
        if let Some(has_tls) = scheme {
            server
                .facts
                .constants
                .insert("scheme".to_owned(), if has_tls { "https" } else { "http" }.to_owned());
        }
        server.has_tls = tls.contains(&true);
    }
    groups
}

impl Group {
    pub(super) fn reach(&self) -> Reach {
        let Self { name, has_tls, servers, default, .. } = self.clone();
        Reach { name, has_tls, servers, default }
    }
}

/// Writes the listeners.
pub(super) fn write(context: &mut Context<'_>, groups: &[Group], servers: &[Server<'_>]) {
    for group in groups {
        let mut section = Section::new("[[listener]]");
        section.set("name", group.name.clone(), None);
        section.set("address", group.addresses.clone(), None);
        let scope = &servers[group.default].scope;
        if group.has_tls {
            tls(context, group, servers, &mut section);
        } else {
            section.set("tls", false, None);
        }
        if group.has_proxy_protocol {
            let from: Vec<String> = scope
                .all("set_real_ip_from")
                .iter()
                .map(|directive| directive.arg(0).to_owned())
                .filter(|text| text != "unix:")
                .collect();
            if from.is_empty() {
                section.comment(
                    "listen … proxy_protocol: nginx wants the header from every client; write the addresses of your \
                     balancers in place of these, since any client that may connect can claim an address",
                );
                section.set("proxy_protocol", every_address(), None);
            } else {
                section.set("proxy_protocol", from, None);
            }
        }
        for (name, key) in
            [("keepalive_timeout", "keep_alive_timeout"), ("client_header_timeout", "header_timeout")]
        {
            let Some(directive) = scope.find(name) else { continue };
            match times::duration(directive.arg(0)) {
                Some(text) => context.book.key(&mut section, directive, key, text),
                None => {
                    context.book.lacks(&mut section, directive, "a listener has a time of its own for that");
                }
            }
        }
        context.site.listeners.push(section);
    }
    for server in servers {
        for name in ["http2", "keepalive_timeout", "client_header_timeout", "ssl_protocols"] {
            for directive in server
                .scope
                .own_all(name)
                .filter(|directive| !context.book.knows(directive))
                .collect::<Vec<_>>()
            {
                context.book.mark(directive, Outcome::ByItself);
            }
        }
    }
}

/// What TLS needs: versions and protocols are those of the listener's first server.
fn tls(context: &mut Context<'_>, group: &Group, servers: &[Server<'_>], section: &mut Section) {
    let scope = &servers[group.default].scope;
    if !group.has_http2 {
        section.comment("no http2 here: remove this line to offer HTTP/2, too");
        section.set("alpn", Value::List(vec!["http/1.1".into()]), None);
    }
    if let Some(protocols) = scope.find("ssl_protocols") {
        let has = |version: &str| protocols.args.iter().any(|arg| arg == version);
        if has("TLSv1") || has("TLSv1.1") {
            let how = "TLS 1.0 and 1.1 are not offered (RFC 8996)";
            context.book.nearly(section, protocols, ("min_version", "1.2"), how);
        } else if has("TLSv1.2") {
            if !has("TLSv1.3") {
                section.comment(format!("{}: {}: TLS 1.3 is offered, too", protocols.at, protocols.shown()));
            }
            context.book.key(section, protocols, "min_version", "1.2");
        } else {
            context.book.key(section, protocols, "min_version", "1.3");
        }
    }
    for index in &group.servers {
        certificates(context, &servers[*index]);
    }
    let default = &servers[group.default];
    let has_certificate = !default.scope.all("ssl_certificate").is_empty();
    if let Some(name) = default.hosts.iter().find(|host| !host.starts_with('*')).filter(|_| has_certificate)
        && context.site.certificates.get("default").is_none()
    {
        context.site.certificates.set("default", name.clone(), None);
    }
}

/// The certificates of a server.
fn certificates(context: &mut Context<'_>, server: &Server<'_>) {
    let (chains, keys) = (server.scope.all("ssl_certificate"), server.scope.all("ssl_certificate_key"));
    for (chain, key) in chains.iter().zip(&keys) {
        let mut section = Section::new("[[certificate]]");
        if chain.arg(0).contains('$') || key.arg(0).contains('$') || chain.arg(0).starts_with("data:") {
            let meaning =
                "names of certificates have no variables; write [certificates] with their directory";
            context.book.misses(&mut context.site.certificates, chain, meaning);
            context.book.lacks(&mut context.site.certificates, key, meaning);
            continue;
        }
        let paths = [chain, key].map(|directive| context.places.conf(directive.arg(0)));
        context.book.key(&mut section, chain, "chain", paths[0].clone());
        context.book.key(&mut section, key, "key", paths[1].clone());
        clients(context, server, &mut section);
        let is_same = |other: &&mut Section| {
            other.get("chain") == section.get("chain") && other.get("key") == section.get("key")
        };
        match context.site.named_certificates.iter_mut().find(is_same) {
            Some(other) => {
                let rules = ["client_auth.ca", "client_auth.required", "client_auth.crl"];
                if rules.iter().any(|key| other.get(key) != section.get(key)) {
                    let meaning = "another server has the same certificate with other rules for clients' certificates, of which \
                                   there is one set for a certificate here: the stricter are written, for all of them";
                    context.book.misses(other, chain, meaning);
                    other.unset("client_auth.required");
                    if let Some(ca) =
                        section.get("client_auth.ca").filter(|_| other.get("client_auth.ca").is_none())
                    {
                        other.set("client_auth.ca", ca.clone(), None);
                    }
                }
            }
            None => context.site.named_certificates.push(section),
        }
    }
}

/// What clients have to show.
fn clients(context: &mut Context<'_>, server: &Server<'_>, section: &mut Section) {
    let Some(verify) = server.scope.find("ssl_verify_client") else { return };
    let book = &mut context.book;
    match verify.arg(0) {
        "off" => return book.itself(section, verify, "clients need no certificate"),
        "on" => {}
        "optional" => book.key(section, verify, "client_auth.required", false),
        _ => {
            let meaning = "certificates that no authority of the list has issued are refused";
            return book.misses(section, verify, meaning);
        }
    }
    let Some(ca) = server.scope.find("ssl_client_certificate") else {
        return book.misses(
            section,
            verify,
            "there is no ssl_client_certificate, whose authorities it needs",
        );
    };
    book.mark(verify, Outcome::Key);
    book.key(section, ca, "client_auth.ca", context.places.conf(ca.arg(0)));
    if let Some(crl) = server.scope.find("ssl_crl") {
        book.key(section, crl, "client_auth.crl", context.places.conf(crl.arg(0)));
    }
}
