//! Servers: which one a connection leads to. Pure.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use http::uri::Authority;
use http::{HeaderValue, Uri};
use tls_acceptor::{ConnectorSettings, ServerName};

use crate::site::known_name::KnownName;
use crate::site::path::RoutePath;
use crate::site::server_tls::ServerTls;
use crate::site::sources::Sources;

/// A server. A connection to one of two equal endpoints serves requests for the other.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where it listens.
    pub place: Place,
    /// The same as the log has it. Endpoints are compared by this, by what their TLS trusts, by
    /// their header, and by where connections to them come from.
    pub address: Box<str>,
    /// TLS towards it.
    pub tls: Option<Arc<ServerTls>>,
    /// What each connection begins with, of the PROXY protocol: such a connection is one client's.
    pub header: Option<Box<[u8]>>,
    /// Where connections to it come from; `None`: the system chooses.
    pub sources: Option<Arc<Sources>>,
    /// What a `Host` of its own is: the name that its address was found by; `None`: the address.
    authority: Option<Box<str>>,
    /// What is known of its name, or of the name that its address was found by.
    name: OnceLock<Arc<KnownName>>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On a port of a host.
    Tcp {
        /// A name or an address; IPv6 in brackets.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// On a Unix socket, whose path is absolute.
    Unix(Box<str>),
}

/// The longest path of a Unix socket, without the NUL behind it (unix(7)).
const UNIX_PATH_MAX: usize = 107;

const EXAMPLE: &str = "such as \"http://127.0.0.1:8080\" or \"unix:/run/app.sock\"";

impl Endpoint {
    /// The server on this port of this host.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            place: Place::Tcp { host: host.into(), port },
            address: format!("{host}:{port}").into(),
            tls: None,
            header: None,
            sources: None,
            authority: None,
            name: OnceLock::new(),
        }
    }

    /// The server on this Unix socket.
    #[must_use]
    pub fn unix(path: &str) -> Self {
        Self {
            place: Place::Unix(path.into()),
            address: format!("unix:{path}").into(),
            tls: None,
            header: None,
            sources: None,
            authority: None,
            name: OnceLock::new(),
        }
    }

    /// Reads `http://host[:port][/path]` or `ws://…`, which means the same, `https://…` or `wss://…`, which is TLS with
    /// the default settings, and `unix:/path[:/path]`, with or without `http://` before it, as nginx writes it. The
    /// second path is what stands behind the address.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<(Self, Option<RoutePath>), String> {
        Self::parse_address(text).map_err(|what| {
            // What seems to be a path may be the rest of a password, which no message may repeat.
            if text.contains('@') {
                format!("expected an address {EXAMPLE}; user names and passwords in it are not supported")
            } else {
                what
            }
        })
    }

    /// Reads the URL of something that a server has: its address as [`Self::parse`] does, with a path and perhaps a query.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse_url(url: &str) -> Result<(Self, Uri), String> {
        let (address, query) = match url.split_once('?') {
            Some((address, query)) => (address, format!("?{query}")),
            None => (url, String::new()),
        };
        let (endpoint, path) = Self::parse(address)?;
        let path = path.map_or_else(|| "/".to_owned(), |path| path.to_string());
        let uri = format!("{path}{query}").parse();
        Ok((endpoint, uri.map_err(|_| format!("expected a path behind the address, found {path}{query}"))?))
    }

    fn parse_address(text: &str) -> Result<(Self, Option<RoutePath>), String> {
        let unexpected = || format!("expected an address {EXAMPLE}, found {text:?}");
        let (is_tls, rest) = match text.split_once("://") {
            Some(("http" | "ws", rest)) => (false, rest),
            Some(("https" | "wss", rest)) => (true, rest),
            None if text.starts_with("unix:") => (false, text),
            _ => return Err(unexpected()),
        };
        if let Some(path) = rest.strip_prefix("unix:") {
            if is_tls {
                return Err("TLS over a Unix socket is not supported: write http://, since no other machine can read along".into());
            }
            return Self::parse_unix(path);
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let path = path_behind(rest)?;
        let authority: Authority = authority.parse().map_err(|_| unexpected())?;
        if authority.as_str().contains('@') {
            return Err("user names and passwords in an address are not supported; remove them".into());
        }
        // `Authority::port` takes a number that is too large for none.
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| format!("expected a port number, found {port:?}"))?,
            None if is_tls => 443,
            None => 80,
        };
        if authority.host().is_empty() || port == 0 {
            return Err(unexpected());
        }
        let mut endpoint = Self::new(authority.host(), port);
        if is_tls {
            let name = ServerName::parse(authority.host()).ok_or_else(unexpected)?;
            endpoint.tls = Some(Arc::new(ServerTls::new(name, ConnectorSettings::default())));
        }
        Ok((endpoint, path))
    }

    fn parse_unix(text: &str) -> Result<(Self, Option<RoutePath>), String> {
        let (socket, behind) = text.split_once(':').unwrap_or((text, ""));
        if !socket.starts_with('/') || socket.ends_with('/') || socket.bytes().any(|b| b.is_ascii_control()) {
            return Err(format!(
                "expected the absolute path of a Unix socket, such as \"unix:/run/app.sock\", found {text:?}"
            ));
        }
        if socket.len() > UNIX_PATH_MAX {
            return Err(format!(
                "the path of a Unix socket may have {UNIX_PATH_MAX} bytes, and this one has {}: {socket:?}",
                socket.len()
            ));
        }
        Ok((Self::unix(socket), path_behind(behind)?))
    }

    /// The same server for one client alone, who is told to it by `header`.
    #[must_use]
    pub fn for_client(&self, header: Vec<u8>) -> Self {
        Self { header: Some(header.into()), ..self.clone() }
    }

    /// One of the servers that its name stands for, at an address that was found, or at a target of SRV records.
    #[must_use]
    pub fn resolved(&self, host: &str, port: u16) -> Self {
        let is_name = host.parse::<IpAddr>().is_err();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self {
            place: Place::Tcp { host: host.as_str().into(), port },
            address: format!("{host}:{port}").into(),
            authority: (!is_name).then(|| self.authority().into()),
            ..self.clone()
        }
    }

    /// The name of its host; `None`: it has an address.
    #[must_use]
    pub fn host_name(&self) -> Option<&str> {
        match &self.place {
            Place::Tcp { host, .. } if self.literal().is_none() => Some(host),
            _ => None,
        }
    }

    /// Its port; 0 on a Unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self.place {
            Place::Tcp { port, .. } => port,
            Place::Unix(_) => 0,
        }
    }

    /// Its address, if that needs no look-up.
    #[must_use]
    pub fn literal(&self) -> Option<SocketAddr> {
        let Place::Tcp { host, port } = &self.place else { return None };
        let ip: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
        Some((ip, *port).into())
    }

    /// What is known of its name is known here; only the first counts.
    pub(crate) fn named(&self, name: &Arc<KnownName>) {
        let _ = self.name.set(name.clone());
    }

    /// What is known of its name, if that is looked up.
    #[must_use]
    pub fn known(&self) -> Option<&Arc<KnownName>> {
        self.name.get()
    }

    /// How many addresses its name has lost.
    #[must_use]
    pub fn losses(&self) -> u32 {
        self.known().map_or(0, |name| name.losses())
    }

    /// Where connections to it come from; none: the system chooses.
    #[must_use]
    pub fn source_addresses(&self) -> &[IpAddr] {
        self.sources.as_ref().map_or(&[], |sources| sources.addresses())
    }

    /// It has an address that its name leads to now.
    #[must_use]
    pub fn is_found(&self) -> bool {
        let (Some(address), Some(name)) = (self.literal(), self.known()) else { return false };
        name.found().is_some_and(|found| found.of("", 0).contains(&address.ip()))
    }

    fn authority(&self) -> &str {
        match self.place {
            Place::Tcp { .. } => self.authority.as_deref().unwrap_or(&self.address),
            Place::Unix(_) => "localhost",
        }
    }

    /// As a `Host` of its own; on a Unix socket that is "localhost".
    #[must_use]
    pub fn field(&self) -> HeaderValue {
        let host = self.authority();
        HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static(""))
    }

    /// The address with its scheme.
    #[must_use]
    pub fn url(&self) -> String {
        match self.place {
            Place::Tcp { .. } if self.tls.is_some() => format!("https://{}", self.address),
            Place::Tcp { .. } => format!("http://{}", self.address),
            Place::Unix(_) => self.address.to_string(),
        }
    }

    /// The address in one spelling: names of hosts have no case.
    #[must_use]
    pub fn name(&self) -> Box<str> {
        match self.place {
            Place::Tcp { .. } => self.address.to_ascii_lowercase().into(),
            Place::Unix(_) => self.address.clone(),
        }
    }
}

fn path_behind(rest: &str) -> Result<Option<RoutePath>, String> {
    match rest {
        "" => Ok(None),
        rest if rest.starts_with('/') => {
            RoutePath::parse(rest).map(Some).map_err(|what| format!("what stands behind the address: {what}"))
        }
        rest => Err(format!("an address ends with its path, found {rest:?} behind it: remove it")),
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Endpoint {}

impl PartialOrd for Endpoint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Endpoint {
    fn cmp(&self, other: &Self) -> Ordering {
        if std::ptr::eq(self, other) {
            return Ordering::Equal; // as nearly always in a pool
        }
        let by_tls = || match (&self.tls, &other.tls) {
            (None, None) => Ordering::Equal,
            (one, other) => one.as_ref().map(|tls| tls.key()).cmp(&other.as_ref().map(|tls| tls.key())),
        };
        self.address
            .cmp(&other.address)
            .then_with(by_tls)
            .then_with(|| self.header.cmp(&other.header))
            .then_with(|| self.source_addresses().cmp(other.source_addresses()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text: &str| {
            Endpoint::parse(text)
                .map(|(e, path)| (e.to_string(), path.map_or(String::new(), |path| path.to_string())))
        };
        for (text, address, path) in [
            ("http://127.0.0.1:8282", "127.0.0.1:8282", ""),
            ("ws://127.0.0.1:8282", "127.0.0.1:8282", ""),
            ("http://backend", "backend:80", ""),
            ("http://[::1]:8080", "[::1]:8080", ""),
            ("http://127.0.0.1:8080/", "127.0.0.1:8080", "/"),
            ("https://backend/x", "backend:443", "/x"),
            ("wss://[::1]", "[::1]:443", ""),
            ("ws://127.0.0.1:8282/wss", "127.0.0.1:8282", "/wss"),
            ("ws://127.0.0.1:8282/wss/", "127.0.0.1:8282", "/wss"),
            ("unix:/run/app.sock", "unix:/run/app.sock", ""),
            ("http://unix:/run/app.sock", "unix:/run/app.sock", ""),
            ("http://unix:/run/app.sock:/", "unix:/run/app.sock", "/"),
            ("ws://unix:/run/a b.sock:/x/y", "unix:/run/a b.sock", "/x/y"),
        ] {
            assert_eq!(parse(text), Ok((address.to_owned(), path.to_owned())), "{text}");
        }
        let error = parse("http://user:a//secret@127.0.0.1:1/").unwrap_err();
        assert!(error.contains("user names") && !error.contains("secret"), "{error}");
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_MAX));
        for (bad, why) in [
            ("127.0.0.1:8080", "expected an address"),
            ("https://unix:/run/app.sock", "over a Unix socket"),
            ("http://", "expected an address"),
            ("http://a:0", "expected an address"),
            ("http://a:99999", "port number"),
            ("http://user:secret@a", "user names"),
            ("http://a/../b", "behind the address"),
            ("http://a/wss?x", "without ?"),
            ("http://a?x", "ends with its path"),
            ("http://a b", "expected an address"),
            ("unix:run/app.sock", "absolute path"),
            ("unix:", "absolute path"),
            ("unix:/run/", "absolute path"),
            ("unix:/run/app.sock:x", "ends with its path"),
            (&long, "may have 107 bytes"),
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
