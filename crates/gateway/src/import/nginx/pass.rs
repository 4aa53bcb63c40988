//! The address in a `proxy_pass`. Pure.

use super::variables::{Facts, Unknown, Use, template};
use crate::import::spelling::encode;

/// What `proxy_pass` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pass {
    pub is_tls: bool,
    /// The server's address or an upstream's name, as nginx's `$proxy_host` is.
    pub authority: String,
    /// The path behind it, with groups of the location's pattern; `None`: paths go unchanged.
    pub path: Option<String>,
    /// It has a query, which servers get in nginx.
    pub has_query: bool,
}

/// Reads the address of a server.
///
/// # Errors
/// A variable in it that may have any value.
pub(super) fn pass(text: &str, facts: &Facts) -> Result<Pass, Unknown> {
    // What is passed on anyway.
    let mut text = text;
    let mut is_whole = false;
    for end in ["$request_uri", "$is_args$args", "?$args", "?$query_string", "$uri", "$document_uri"] {
        if let Some(rest) = text.strip_suffix(end) {
            is_whole |= end.ends_with("uri");
            text = rest;
        }
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (template(scheme, facts, Use::Constant)?, rest),
        None => {
            let whole = template(text, facts, Use::Constant)?;
            let (scheme, rest) = whole.split_once("://").unwrap_or(("http", &whole));
            return Ok(Pass {
                is_tls: is_tls(scheme),
                authority: rest.to_owned(),
                path: None,
                has_query: false,
            });
        }
    };
    let (authority, path) = match rest.strip_prefix("unix:") {
        Some(socket) => match socket.split_once(':') {
            Some((socket, path)) => (format!("unix:{socket}"), Some(path)),
            None => (format!("unix:{socket}"), None),
        },
        None => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (template(authority, facts, Use::Constant)?, (!path.is_empty()).then_some(path))
        }
    };
    let path = path.filter(|path| !(is_whole && matches!(*path, "" | "/")));
    let has_query = path.is_some_and(|path| path.contains('?'));
    let path = path.map(|path| path.split('?').next().unwrap_or(path));
    let path = path.map(|path| template(&sent(path), facts, Use::Path)).transpose()?;
    Ok(Pass { is_tls: is_tls(&scheme), authority, path, has_query })
}

/// The path as it may stand in a request: nginx sends blanks and other letters as they are, which few servers read.
fn sent(path: &str) -> String {
    let mut out = String::new();
    for c in path.chars() {
        if c.is_ascii_graphic() {
            out.push(c);
        } else {
            encode(c, &mut out);
        }
    }
    out
}

fn is_tls(scheme: &str) -> bool {
    matches!(scheme, "https" | "grpcs")
}
