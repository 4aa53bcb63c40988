//! `listen` and `server_name`: which connections and hosts a server takes. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::import::tree::Directive;
use crate::site::host::HostPattern;

/// One `listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listen {
    /// As our listeners have it: `0.0.0.0:80`, `[::]:443` or `unix:/path`.
    pub address: String,
    /// That of the address; 0 for a Unix socket.
    pub port: u16,
    pub is_default: bool,
    pub has_tls: bool,
    pub has_http2: bool,
    pub has_proxy_protocol: bool,
    /// Parameters that have no counterpart.
    pub unknown: Vec<String>,
}

/// Where a server listens that doesn't say it.
pub(super) fn unsaid() -> Listen {
    Listen {
        address: "0.0.0.0:80".to_owned(),
        port: 80,
        is_default: false,
        has_tls: false,
        has_http2: false,
        has_proxy_protocol: false,
        unknown: Vec::new(),
    }
}

/// Reads a `listen`, which may stand for two addresses (`ipv6only=off`).
///
/// # Errors
/// A sentence about an address that isn't one.
pub(super) fn listens(directive: &Directive) -> Result<Vec<Listen>, String> {
    let mut listen = Listen { ..unsaid() };
    let (address, port) = address(directive.arg(0))?;
    (listen.address, listen.port) = (address, port);
    let mut is_dual = false;
    for parameter in directive.args.iter().skip(1) {
        match parameter.as_str() {
            "default_server" | "default" => listen.is_default = true,
            "ssl" => listen.has_tls = true,
            "http2" | "spdy" => listen.has_http2 = true,
            "proxy_protocol" => listen.has_proxy_protocol = true,
            "ipv6only=off" => is_dual = true,
            // The gateway does as well as these.
            "ipv6only=on" | "reuseport" | "deferred" | "bind" => {}
            text if text.starts_with("so_keepalive=") || text.starts_with("backlog=") => {}
            other => listen.unknown.push(other.to_owned()),
        }
    }
    if directive.args.iter().any(|parameter| parameter == "quic") {
        return Ok(Vec::new()); // UDP: HTTP/3 has no counterpart
    }
    let mut listens = vec![listen];
    if is_dual && listens[0].address.starts_with("[::]") {
        listens.push(Listen { address: format!("0.0.0.0:{port}"), ..listens[0].clone() });
    }
    Ok(listens)
}

fn address(text: &str) -> Result<(String, u16), String> {
    if text.starts_with("unix:") {
        return Ok((text.to_owned(), 0));
    }
    let wrong = || format!("{text:?} is not an address and port");
    if let Ok(port) = text.parse::<u16>() {
        return Ok((SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).to_string(), port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (text, 80),
    };
    let ip: IpAddr = match host {
        "*" | "" => Ipv4Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        "[::]" => Ipv6Addr::UNSPECIFIED.into(),
        host => {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            bare.parse()
                .map_err(|_| format!("{text:?} is not an address: listeners have no names of hosts"))?
        }
    };
    Ok((SocketAddr::new(ip, port).to_string(), port))
}

/// One name of a `server_name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// As our routes have it.
    Host(String),
    /// `.domain.com`, which is two of ours.
    Both(String),
    /// It stands for no host: `_` and its like.
    None,
    /// There is no counterpart, and why.
    Unknown(&'static str),
}

/// Reads a name.
pub(super) fn name(text: &str) -> Name {
    match text {
        "_" | "__" | "--" | "_default_" | "!@#" => return Name::None,
        "" => return Name::Unknown("requests without Host are served by the routes for every host"),
        "*" => return Name::Unknown("a * alone is no name; routes without host are for every host"),
        "$hostname" => return Name::Unknown("write the name of the machine"),
        _ => {}
    }
    if text.starts_with('~') {
        return Name::Unknown(
            "hosts have no regular expressions; write the names, or \"*.domain.com\" for one label",
        );
    }
    if text.ends_with(".*") {
        return Name::Unknown("a host ends with a name; write each of the names");
    }
    let lower = text.to_ascii_lowercase();
    if let Some(bare) = lower.strip_prefix('.') {
        return match HostPattern::parse(bare) {
            Some(_) => Name::Both(bare.to_owned()),
            None => Name::Unknown("this is no name of a host"),
        };
    }
    match HostPattern::parse(&lower) {
        Some(_) => Name::Host(lower),
        None => Name::Unknown("this is no name of a host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::tree::At;

    fn read(args: &str) -> Result<Vec<Listen>, String> {
        let at = At { file: "test".into(), line: 1 };
        let args = args.split(' ').map(str::to_owned).collect();
        listens(&Directive { id: 0, name: "listen".to_owned(), args, at, block: None })
    }

    #[test]
    fn addresses_are_ours() {
        for (text, addresses) in [
            ("80", &["0.0.0.0:80"][..]),
            ("*:8080", &["0.0.0.0:8080"]),
            ("[::]:443 ssl", &["[::]:443"]),
            ("[::]:80 ipv6only=off", &["[::]:80", "0.0.0.0:80"]),
            ("127.0.0.1", &["127.0.0.1:80"]),
            ("[::1]", &["[::1]:80"]),
            ("localhost:8000", &["127.0.0.1:8000"]),
            ("unix:/run/x.sock", &["unix:/run/x.sock"]),
        ] {
            let found = read(text).unwrap();
            assert_eq!(
                found.iter().map(|listen| listen.address.as_str()).collect::<Vec<_>>(),
                addresses,
                "{text}"
            );
        }
        for text in ["domain.com:80", "99999", "1.2.3.4:x", "[::1"] {
            assert!(read(text).is_err(), "{text}");
        }
        let all = &read("443 ssl http2 default_server proxy_protocol reuseport fastopen=3").unwrap()[0];
        assert!(all.has_tls && all.has_http2 && all.is_default && all.has_proxy_protocol);
        assert_eq!(all.unknown, ["fastopen=3"]);
        assert_eq!(read("443 quic reuseport").unwrap(), []);
    }

    #[test]
    fn names_are_ours() {
        assert_eq!(name("WWW.Domain.com"), Name::Host("www.domain.com".to_owned()));
        assert_eq!(name("*.domain.com"), Name::Host("*.domain.com".to_owned()));
        assert_eq!(name(".domain.com"), Name::Both("domain.com".to_owned()));
        assert_eq!(name("_"), Name::None);
        for text in ["", "~^a$", "www.*", "*", "a b", "*.*.a"] {
            assert!(matches!(name(text), Name::Unknown(_)), "{text}");
        }
    }
}
