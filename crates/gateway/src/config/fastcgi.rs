//! `[route.fastcgi]`: scripts that a server of FastCGI runs.

use std::net::IpAddr;
use std::sync::Arc;

use super::document::Document;
use super::files::FileName;
use super::kind::{self, List, Options, ShortForm};
use super::option::options;
use super::problem::Place;
use super::spec::At;
use super::upstream::{self, Upstreams};
use crate::site::fastcgi::Fastcgi;
use crate::site::files::Files;
use crate::site::health::{Probe, ProbeKind};
use crate::site::upstream::{Protocol, Upstream};

options! {
    /// Scripts of PHP, which a server of FastCGI runs, such as PHP-FPM. `fastcgi = "unix:/run/php/php-fpm.sock"` is
    /// short for a table with `server` alone. A script is a file in the directory whose name ends with `.php`; `/a.php/b` is
    /// not a request for the script `/a.php`. The text of a script is never served.
    struct FastcgiOptions: "[route.fastcgi]";

    /// The server, a list of servers, or the name of an `[[upstream]]`.
    server: List<kind::FastcgiServer>, required = "\"unix:/run/php/php-fpm.sock\"";
    /// The directory of the scripts.
    root: kind::File, otherwise = "the directory of `files`, whose other files are served then";
    /// The scripts that stand for their directory, the preferred one first.
    index: List<FileName>, otherwise = "that of `files`, or `\"index.php\"`";
    /// The script that runs in place of one that isn't there, as frameworks want it: `"/index.php"`.
    fallback: FileName, otherwise = "that of `files`";
    /// What the server calls the directory, if it sees it under another path, such as in a container.
    document_root: kind::PlainText, otherwise = "the same path";
}

impl ShortForm for FastcgiOptions {
    const KEY: &'static str = "server";
}

/// Reads the section of a route that has these `files`, if it has any.
pub(super) fn read(
    d: &mut Document<'_>,
    section: FastcgiOptions,
    files: Option<Arc<Files>>,
    upstreams: &Upstreams,
) -> Option<Fastcgi> {
    let server_place = section.place_of("server");
    let upstream = section.server.as_ref().and_then(|at| servers(d, &at.value, server_place, upstreams));
    let serves_files = files.is_some();
    let files = match files {
        Some(files) => {
            for key in ["root", "index", "fallback"].into_iter().filter(|key| section.has(key)) {
                let what = format!("{key}: the route's files say that already; remove it here");
                d.problem(section.place_of(key), what);
            }
            files
        }
        None => {
            if !section.has("root") {
                let what = "[route.fastcgi] needs root, for instance root = \"/var/www/html\", or the route needs files";
                d.missing(section.written().place, what);
            }
            let At { value: root, place } = section.root?;
            d.directory(root.clone(), place);
            let index = section.index.map_or_else(|| vec![Fastcgi::INDEX.into()], |at| at.value);
            let fallback = section.fallback.map(|at| at.value);
            Arc::new(Files { index, fallback, ..Files::new(root) })
        }
    };
    let document_root = section.document_root.and_then(|at| document_root(d, &at));
    let upstream = upstream?;
    Some(Fastcgi {
        body_len_max: upstream.buffer_request.unwrap_or(Fastcgi::BODY_LEN_MAX),
        upstream: Arc::new(upstream),
        files,
        serves_files,
        document_root,
    })
}

fn servers(
    d: &mut Document<'_>,
    targets: &[Box<str>],
    place: Place,
    upstreams: &Upstreams,
) -> Option<Upstream> {
    let is_name = |target: &str| !target.contains([':', '/']);
    if let [name] = targets
        && is_name(name)
    {
        let named = upstream::named(targets, upstreams);
        let unknown = |_| d.problem(place, format!("server: {}", unknown(name, upstreams)));
        let upstream = named.map_err(unknown).ok()??;
        if let Some(what) = unfit(&upstream) {
            d.problem(place, format!("server: the upstream {name:?} {what}, which FastCGI has not"));
        }
        return Some(upstream);
    }
    let servers = targets.iter().map(|target| Ok((Fastcgi::parse_server(target)?, None)));
    let together = servers.collect::<Result<_, String>>().and_then(upstream::together);
    let upstream = together.map_err(|what| d.problem(place, format!("server: {what}"))).ok()?;
    upstream.servers.iter().for_each(|server| d.server(&server.endpoint, place));
    Some(upstream)
}

/// What is wrong with a server that is neither an upstream nor an address with a port.
fn unknown(name: &str, upstreams: &Upstreams) -> String {
    if name.parse::<IpAddr>().is_ok() {
        return format!("the port is missing in {name:?}: write \"{name}:9000\"");
    }
    if name.parse::<u16>().is_ok() {
        return format!("the address is missing in {name:?}: write \"127.0.0.1:{name}\"");
    }
    let known = upstreams.known();
    format!(
        "no [[upstream]] has the name {name:?}; there are: {known}; for an address write its port, too: \"{name}:9000\""
    )
}

/// What an upstream has that is of HTTP.
fn unfit(upstream: &Upstream) -> Option<&'static str> {
    if upstream.servers.iter().any(|server| server.endpoint.tls.is_some()) {
        return Some("has a server with TLS");
    }
    if upstream.connector.proxy_protocol.is_some() {
        return Some("has the option proxy_protocol");
    }
    if upstream.connector.protocol != Protocol::Http1 {
        return Some("has the option protocol");
    }
    if upstream.redial.is_some() {
        return Some("has the option session_lost");
    }
    if upstream.keeps_names {
        return Some("has the option field_names");
    }
    if upstream.path.is_some() {
        return Some("has a path behind the address of a server");
    }
    match &upstream.probe {
        Some(Probe { kind: ProbeKind::Tcp, .. }) | None => None,
        Some(_) => Some("is probed over HTTP"),
    }
}

fn document_root(d: &mut Document<'_>, at: &At<String>) -> Option<Box<str>> {
    let root = at.value.trim_end_matches('/');
    if at.value.starts_with('/') && !root.contains('\0') {
        return Some(root.into());
    }
    let what = format!("document_root: expected an absolute path, found {:?}", at.value);
    d.problem(at.place, what);
    None
}
