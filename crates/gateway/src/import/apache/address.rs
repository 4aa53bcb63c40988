//! Addresses of servers, as Apache writes them. Pure.

use crate::import::pattern;
use crate::import::tree::Directive;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// `http`, `https`, `ws`, `wss`, `h2`, `h2c` or `balancer`.
    pub scheme: String,
    /// Host and port, a Unix socket as we write it, or the name of a balancer.
    pub authority: String,
    /// What stands in place of the route's path; it may have groups of a pattern.
    pub path: Option<String>,
}

/// Reads an address.
///
/// # Errors
/// A sentence about why it has no counterpart.
pub(super) fn server(url: &str) -> Result<Server, String> {
    let (socket, url) = match url.strip_prefix("unix:").and_then(|rest| rest.split_once('|')) {
        Some((socket, url)) => (Some(format!("unix:{socket}")), url),
        None => (None, url),
    };
    let (scheme, rest) = url.split_once("://").ok_or("this is no address of a server")?;
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https" | "ws" | "wss" | "balancer" | "h2c" | "h2") {
        return Err(format!("the gateway doesn't speak {scheme} with servers"));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains(['$', '%', '@']) || path.contains("${") {
        return Err("the address of a server has no variables here".to_owned());
    }
    let path = path.split('?').next().unwrap_or(path);
    let path = (!path.is_empty()).then(|| path.to_owned());
    Ok(Server { scheme, authority: socket.unwrap_or_else(|| authority.to_owned()), path })
}

impl Server {
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.scheme.as_str(), "https" | "wss" | "h2")
    }

    /// The same server, whether or not the address is one for WebSockets.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.authority == other.authority
            && self.is_tls() == other.is_tls()
            && self.is_balancer() == other.is_balancer()
    }

    pub(super) fn is_balancer(&self) -> bool {
        self.scheme == "balancer"
    }

    pub(super) fn is_unix(&self) -> bool {
        self.authority.starts_with("unix:")
    }

    /// As `proxy` and `servers` have it.
    pub(super) fn address(&self) -> String {
        let scheme = match self.scheme.as_str() {
            "h2" => "https",
            "h2c" => "http",
            other => other,
        };
        if self.is_unix() { self.authority.clone() } else { format!("{scheme}://{}", self.authority) }
    }
}

/// Whether a `<Proxy>` section is for a server; `None`: that isn't known.
pub(super) fn section_holds(section: &Directive, of: &Server) -> Option<bool> {
    let url = section.arg(0);
    if url == "*" || section.name == "proxymatch" && pattern::matches_all(url).is_some() {
        return Some(true);
    }
    let (front, is_open) = url.strip_suffix('*').map_or((url, false), |front| (front, true));
    if section.name == "proxymatch" || front.contains(['*', '?', '~']) {
        return None;
    }
    let ours = format!("{}://{}/", of.scheme, of.authority);
    if is_open && ours.starts_with(front) {
        return Some(true);
    }
    let same = server(front).is_ok_and(|named| named.scheme == of.scheme && named.authority == of.authority);
    // A part of the server's paths.
    let is_part = same && server(front).is_ok_and(|named| !matches!(named.path.as_deref(), None | Some("/")));
    if is_part { None } else { Some(same) }
}
