//! Values from their text, and what to write in place of another program's syntax. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use tls_acceptor::{CertName, ServerName};

use crate::net::listening::{BadAddress, ListenAddress, UNIX_PEER, UNIX_PEER_NAME};
use crate::site::access::Per;
use crate::site::balance::HashKey;
use crate::site::endpoint::Endpoint;
use crate::site::host::HostPattern;
use crate::site::matcher::PathRegex;
use crate::site::path::{ExactPath, RoutePath};
use crate::site::rate::Rate;

const DURATION: &str = "expected a duration such as \"30s\", \"5m\" or \"1h\"";
/// Durations are added to the present time, so there has to be a longest one.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
const SIZE: &str = "expected a size such as \"16MiB\" or \"64KB\"";

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = duration_or_zero(text)?;
    if duration.is_zero() {
        return Err(format!("{DURATION}, found {text:?}"));
    }
    Ok(duration)
}

/// A duration that may be `"0s"`.
pub(super) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("a unit is missing in {text:?}: write \"{text}s\" for seconds, or \"{text}ms\""));
    }
    // humantime reads a capital M as months, which is rarely meant.
    if let Some(number) = text.trim_end().strip_suffix('M').filter(|number| !number.is_empty()) {
        return Err(format!("M would be months in {text:?}: write \"{number}m\" for minutes"));
    }
    let duration = humantime::parse_duration(text).map_err(|_| format!("{DURATION}, found {text:?}"))?;
    if duration > LONGEST {
        return Err(format!("{text:?} is longer than ten years"));
    }
    Ok(duration)
}

pub(super) fn duration_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" { Ok(None) } else { duration(text).map(Some).map_err(|e| e + "; \"off\" turns it off") }
}

/// Bytes a second.
pub(super) fn rate_or_off(text: &str) -> Result<Option<NonZeroU64>, String> {
    const RATE: &str = "expected a rate such as \"500B/s\" or \"1KiB/s\", or \"off\"";
    if text == "off" {
        return Ok(None);
    }
    let Some(bytes) = text.trim().strip_suffix("/s") else { return Err(format!("{RATE}, found {text:?}")) };
    match NonZeroU64::new(size(bytes)?) {
        Some(rate) => Ok(Some(rate)),
        None => Err(format!("{RATE}, found {text:?}")),
    }
}

/// A size in bytes, with its unit.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '));
    let number = text[..text.len() - unit.len()].trim();
    if number.is_empty() {
        return Err(format!("{SIZE}, found {text:?}"));
    }
    match unit {
        "" => {
            Err(format!("a unit is missing in {text:?}: write \"{number}B\" for bytes, or \"{number}MiB\""))
        }
        // nginx's and HAProxy's 16m are 16 MiB, others' are 16 MB.
        "k" | "K" | "m" | "M" | "g" | "G" | "t" | "T" => Err(format!(
            "{unit} has two meanings in {text:?}: write \"{number}{0}iB\", or \"{number}{0}B\" for powers of \
             ten",
            unit.to_ascii_uppercase()
        )),
        _ => match text.parse::<bytesize::ByteSize>() {
            Ok(size) if unit.ends_with(['b', 'B']) => Ok(size.as_u64()),
            _ => Err(format!("{SIZE}, found {text:?}")),
        },
    }
}

/// The message for a number without a unit, where a duration is expected.
pub(super) fn number_for_duration(digits: &str) -> String {
    format!(
        "expected a duration in quotes and with its unit, such as \"{digits}s\", found the number {digits}"
    )
}

/// The address of a DNS server, on port 53 unless it says another.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let ip = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    ip.or_else(|_| text.parse()).map_err(|_| {
        format!("expected the IP address of a DNS server, such as \"10.0.0.2\" or \"10.0.0.2:5353\", found {text:?}")
    })
}

pub(super) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    if text.trim().starts_with("unix:") {
        return text.trim().parse().map_err(|e: BadAddress| e.to_string());
    }
    if text.trim().starts_with('/') {
        return Err(format!("expected an address: write \"unix:{}\" to listen on this socket", text.trim()));
    }
    socket_address(text).map(ListenAddress::Ip)
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| {
        let port = |port: &str| port.parse::<u16>().is_ok();
        let what = "expected an IP address and a port";
        if text.contains([',', ' ']) {
            return format!("{what}, found {text:?}; for several addresses write a [[listener]] for each");
        }
        if let Some(only) =
            text.strip_prefix("*:").or(text.strip_prefix(':')).or(Some(text)).filter(|p| port(p))
        {
            return format!(
                "{what}, found {text:?}; write \"0.0.0.0:{only}\" for every IPv4 address, and a second one \
                 with \"[::]:{only}\" for IPv6"
            );
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return format!("the port is missing in {text:?}: write \"{}\"", SocketAddr::new(ip, 443));
        }
        if let Some((name, digits)) = text.rsplit_once(':').filter(|(_, digits)| port(digits)) {
            let address = if name == "localhost" { "127.0.0.1" } else { "0.0.0.0" };
            return format!("{what}, found the name {name:?}; write \"{address}:{digits}\" for instance");
        }
        format!("{what}, such as \"0.0.0.0:443\" or \"[::]:443\", found {text:?}")
    })
}

pub(super) fn source_address(text: &str) -> Result<IpAddr, String> {
    let what = "expected an IP address of this machine, such as \"10.0.0.1\"";
    match text.trim().trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
            Err(format!("{what}, found {text:?}, which no connection comes from"))
        }
        Ok(ip) => Ok(ip),
        Err(_) if text.parse::<SocketAddr>().is_ok() => {
            Err(format!("{what}, found {text:?}: write it without a port, since the system chooses one"))
        }
        Err(_) => Err(format!("{what}, found {text:?}")),
    }
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if text == UNIX_PEER_NAME {
        return Ok(UNIX_PEER.into());
    }
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| match text {
        "*" | "all" => format!("{text:?} would trust every client; name the proxies, such as \"10.0.0.0/8\""),
        _ => format!("expected an address or a network such as \"10.0.0.0/8\", found {text:?}"),
    })
}

pub(super) fn host(text: &str) -> Result<HostPattern, String> {
    if let Some(what) = foreign_host(text) {
        return Err(what);
    }
    HostPattern::parse(text).ok_or_else(|| {
        format!(
            "expected a host name such as \"domain.com\" or \"*.domain.com\" (without a port), found {text:?}"
        )
    })
}

fn foreign_host(text: &str) -> Option<String> {
    let every = "to serve every host leave host out";
    Some(match text {
        "_" => format!("\"_\" stands for no certain host in nginx; {every}"),
        "*" | "" => format!("{every} in place of {text:?}"),
        _ if text.starts_with('~') => format!(
            "regular expressions are not supported for hosts, found {text:?}; write \"*.domain.com\" for every name \
             with one label before domain.com"
        ),
        _ if text.contains(['$', '{']) => {
            format!("variables are not supported, found {text:?}; write the name itself")
        }
        _ if text.contains("://") => format!("a host has no scheme, found {text:?}: write the name alone"),
        _ if text.contains([',', ' ']) => {
            format!("several hosts are a list, found {text:?}: write [\"a.com\", \"b.com\"]")
        }
        _ => match text.strip_prefix('.') {
            Some(name) if HostPattern::parse(name).is_some() => format!(
                "{text:?} is written \"*.{name}\" here, which is every name with one label before it; for \
                 {name} itself, too, write [\"{name}\", \"*.{name}\"]"
            ),
            _ => return international(text),
        },
    })
}

/// The message for a name with letters that DNS doesn't have.
fn international(name: &str) -> Option<String> {
    (!name.is_ascii()).then(|| {
        format!(
            "{name:?} is an internationalized name: write its ASCII form, which begins with xn-- (the \
             program idn2 prints it)"
        )
    })
}

/// A name that certificates are issued for.
pub(super) fn certificate_name(text: &str) -> Result<CertName, String> {
    let ip = text.parse().map(CertName::Ip).ok();
    ip.or_else(|| CertName::parse(text)).ok_or_else(|| {
        international(text)
            .unwrap_or_else(|| format!("expected a host name such as \"domain.com\", found {text:?}"))
    })
}

pub(super) fn path(text: &str) -> Result<RoutePath, String> {
    match foreign_path(text) {
        Some(what) => Err(what),
        None => RoutePath::parse(text),
    }
}

pub(super) fn exact_path(text: &str) -> Result<ExactPath, String> {
    match foreign_path(text) {
        Some(what) => Err(what),
        None => ExactPath::parse(text),
    }
}

/// A pattern of paths. One that can't match any path is a mistake.
pub(super) fn path_regex(text: &str) -> Result<PathRegex, String> {
    if let Some(modifier) = ["~*", "~"].into_iter().find(|modifier| text.starts_with(modifier)) {
        let rest = text[modifier.len()..].trim_start();
        return Err(format!("{modifier:?} is nginx's sign for a pattern; write the pattern alone, {rest:?}"));
    }
    let regex = PathRegex::parse(text)?;
    let begin = text.trim_start_matches('^');
    let is_literal = begin.starts_with(|c: char| c.is_ascii_alphanumeric()) && !begin.contains('|');
    if is_literal || begin.starts_with("\\.") {
        return Err(format!(
            "the pattern has to match the whole path, which begins with a slash, so {text:?} never does; write \
             {:?}",
            format!("/.*{begin}")
        ));
    }
    Ok(regex)
}

pub(super) fn method(text: &str) -> Result<http::Method, String> {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    match METHODS.contains(&text) {
        true => text.parse().map_err(|_| format!("{text:?} is no method")),
        false => Err(format!("expected one of {}, found {text:?}", METHODS.join(", "))),
    }
}

/// A name that the configuration gives to one of its parts.
pub(super) fn name(text: &str) -> Result<Arc<str>, String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(is_good) {
        return Err(format!("expected a name of letters, digits, -, _ and ., found {text:?}"));
    }
    Ok(text.into())
}

/// So many in so much time.
pub(super) fn frequency(text: &str) -> Result<Rate, String> {
    Rate::parse(text).ok_or_else(|| {
        format!("expected a number of times such as \"50/s\", \"600/m\" or \"1000/h\", found {text:?}")
    })
}

/// What is counted as one client.
pub(super) fn per(text: &str) -> Result<Per, String> {
    let header = text.strip_prefix("header:").and_then(|name| name.parse().ok());
    match text {
        "client" => Ok(Per::Client),
        "subject" | "jwt:sub" => Ok(Per::Subject),
        _ => header.map(Per::Header).ok_or_else(|| {
            format!(
                "expected \"client\", \"subject\", or a field such as \"header:X-Api-Key\", found {text:?}"
            )
        }),
    }
}

pub(super) fn token(text: &str) -> Result<Box<str>, String> {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(is_good) {
        return Err(format!("expected a name such as \"mqtt\", found {text:?}"));
    }
    Ok(text.into())
}

/// A path in the syntax of another program: ours is a prefix, and every character means itself.
fn foreign_path(text: &str) -> Option<String> {
    let modifier = ["~*", "~", "^~", "="].into_iter().find(|modifier| {
        text.strip_prefix(modifier).is_some_and(|rest| rest.trim_start().starts_with(['/', '^', '\\']))
    });
    let pattern = text.strip_prefix(modifier.unwrap_or_default()).unwrap_or(text);
    let pattern = pattern.trim_start().trim_start_matches('^');
    let ends_in_dollar = pattern.ends_with('$');
    let is_pattern = pattern.contains(['*', '[', ']', '{', '}', '^', '|', '\\'])
        || pattern.len() < text.len()
        || ends_in_dollar
        || [".+", "(?", "(."].iter().any(|word| pattern.contains(word));
    let variable = pattern
        .split('$')
        .skip(1)
        .any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
    if modifier.is_none() && !is_pattern && !variable {
        return None;
    }
    // What is left of it up to the last whole segment before the pattern.
    let clean = pattern.find(['*', '[', '{', '(', '^', '|', '\\', '$', '+']).unwrap_or(pattern.len());
    let mut prefix = &pattern[..clean];
    if clean < pattern.len() && !prefix.ends_with('/') && !pattern[clean..].starts_with('$') {
        prefix = &prefix[..prefix.rfind('/').map_or(0, |at| at + 1)];
    }
    let prefix = prefix.trim_end_matches('/');
    let example = if prefix.starts_with('/') { prefix } else { "/" };
    Some(format!(
        "a path is a plain prefix here: it matches itself and everything below it; found {text:?}, which is a \
         pattern: write path_regex in place of path, or {example:?}"
    ))
}

/// The name of a backend, for TLS.
pub(super) fn tls_name(text: &str) -> Result<ServerName, String> {
    ServerName::parse(text).ok_or_else(|| {
        international(text)
            .unwrap_or_else(|| format!("expected a host name such as \"app.internal\", found {text:?}"))
    })
}

/// A protocol, with its version if it has one (RFC 9110 §7.8).
pub(super) fn protocol(text: &str) -> Result<Box<str>, String> {
    let what = "expected a protocol as it stands in the Upgrade field, such as \"websocket\" or \"SPDY/3.1\"";
    let (name, version) = text.split_once('/').map_or((text, None), |(name, version)| (name, Some(version)));
    if token(name).is_err() || version.is_some_and(|version| token(version).is_err()) {
        return Err(format!("{what}, found {text:?}"));
    }
    // Request smuggling: what the server takes for requests would be checked by nothing here.
    if ["h2c", "http", "tls"].iter().any(|hidden| name.eq_ignore_ascii_case(hidden)) {
        return Err(format!("{text:?} would carry requests that no rule of the gateway sees; remove it"));
    }
    Ok(text.into())
}

/// A server, and the path behind its address.
pub(super) fn endpoint(text: &str) -> Result<(Endpoint, Option<RoutePath>), String> {
    let text = text.trim();
    if let Some(what) = foreign_upstream(text) {
        return Err(what);
    }
    match text.split_once("://") {
        // A scheme may be in capitals (RFC 3986 §3.1).
        Some((scheme, rest)) => Endpoint::parse(&format!("{}://{rest}", scheme.to_ascii_lowercase())),
        None => Endpoint::parse(text),
    }
}

fn foreign_upstream(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if text.contains(['$', '{']) {
        return Some(format!(
            "expected an address such as \"http://127.0.0.1:8080\", found {text:?}; for a variable of the environment \
             write ${{NAME}}"
        ));
    }
    if text.starts_with('/') {
        return Some(format!("expected an address: write \"unix:{text}\" for the backend on this socket"));
    }
    if text.starts_with("unix:") || rest.starts_with("unix:") {
        return None;
    }
    if text.contains([',', ' ', ';']) {
        return Some(format!(
            "several servers are a list, found {text:?}: write [\"http://10.0.0.1:8080\", \
             \"http://10.0.0.2:8080\"]"
        ));
    }
    match scheme.to_ascii_lowercase().as_str() {
        "" if rest.parse::<u16>().is_ok() => {
            Some(format!("expected an address with its scheme: write \"http://127.0.0.1:{rest}\""))
        }
        "" if Endpoint::parse(&format!("http://{rest}")).is_ok() => {
            Some(format!("expected an address with its scheme: write \"http://{rest}\""))
        }
        "h2c" | "fcgi" | "fastcgi" | "ajp" | "uwsgi" | "grpc" | "srv" => {
            Some(format!("{scheme}:// is not supported yet, found {text:?}; backends have to speak HTTP/1.1"))
        }
        _ => None,
    }
}

/// Reads the path of a probe.
pub(super) fn probe_path(text: &str) -> Result<Box<str>, String> {
    if !text.starts_with('/') || text.parse::<http::uri::PathAndQuery>().is_err() {
        return Err(format!("expected a path such as \"/healthz\", found {text:?}"));
    }
    Ok(text.into())
}

/// Reads what a hash is made of.
pub(super) fn hash_key(text: &str) -> Result<HashKey, String> {
    const EXPECTED: &str = "expected \"client\", \"header:NAME\", \"cookie:NAME\" or \"query:NAME\"";
    let found = || format!("{EXPECTED}, found {text:?}");
    match text.split_once(':') {
        None if text == "client" => Ok(HashKey::Client),
        Some((_, "")) | None => Err(found()),
        Some(("header", name)) => {
            HeaderName::from_bytes(name.as_bytes()).map(HashKey::Header).map_err(|_| found())
        }
        Some(("cookie", name)) => token(name).map(HashKey::Cookie),
        Some(("query", name)) => Ok(HashKey::Query(name.into())),
        Some(_) => Err(found()),
    }
}

/// A media type with its parameters.
pub(super) fn media_type(text: &str) -> Result<HeaderValue, String> {
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let is_type = essence.split_once('/').is_some_and(|(one, other)| is_token(one) && is_token(other));
    HeaderValue::from_str(text)
        .ok()
        .filter(|_| is_type && text.is_ascii())
        .ok_or_else(|| format!("expected a media type such as \"text/html; charset=utf-8\", found {text:?}"))
}

/// Names of files, which may be a pattern.
pub(super) fn files(pattern: &str) -> Result<String, String> {
    if pattern.is_empty() {
        return Err("expected a file or a pattern such as \"sites/*.toml\", found an empty string".to_owned());
    }
    if pattern.contains("**") {
        return Err(format!(
            "expected a file or a pattern, found {pattern:?}; * is for one level of directories, as in \"sites/*/*.toml\""
        ));
    }
    glob::Pattern::new(pattern).map_err(|e| {
        format!("{pattern:?} is not a pattern of files: {} at character {}", e.msg, e.pos + 1)
    })?;
    Ok(pattern.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1h 30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration_or_off("off").unwrap(), None);
        assert_eq!(duration("87840h").unwrap(), LONGEST);
        for (text, says) in [
            ("30", "write \"30s\""),
            ("5M", "write \"5m\" for minutes"),
            ("1h 5M", "write \"1h 5m\" for minutes"),
            ("0s", "expected a duration"),
            ("", "expected a duration"),
            ("M", "expected a duration"),
            ("9000years", "longer than ten years"),
            ("soon", "expected a duration"),
        ] {
            let what = duration(text).unwrap_err();
            assert!(what.contains(says), "{text}: {what}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("64KB", 64_000),
            ("64 KiB", 65_536),
            ("1.5 MiB", 1_572_864),
            ("1000B", 1000),
            ("16mb", 16_000_000),
        ] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for (text, says) in [
            ("16", "write \"16B\" for bytes, or \"16MiB\""),
            ("16m", "write \"16MiB\", or \"16MB\""),
            ("16K", "write \"16KiB\""),
            ("lots", "expected a size"),
            ("MiB", "expected a size"),
            ("1XB", "expected a size"),
            ("16Mi", "expected a size"),
        ] {
            let what = size(text).unwrap_err();
            assert!(what.contains(says), "{text}: {what}");
        }
    }

    #[test]
    fn addresses_of_listeners() {
        for (text, says) in [
            ("443", "write \"0.0.0.0:443\""),
            (":443", "write \"0.0.0.0:443\""),
            ("*:443", "write \"0.0.0.0:443\""),
            ("10.0.0.1", "write \"10.0.0.1:443\""),
            ("::1", "write \"[::1]:443\""),
            ("localhost:8443", "write \"127.0.0.1:8443\""),
            ("0.0.0.0:443, [::]:443", "a [[listener]] for each"),
            ("443 ssl", "a [[listener]] for each"),
            ("/run/w.sock", "write \"unix:/run/w.sock\""),
            ("x", "such as \"0.0.0.0:443\""),
        ] {
            let what = listen_address(text).unwrap_err();
            assert!(what.contains(says), "{text}: {what}");
        }
    }

    #[test]
    fn networks() {
        assert_eq!(network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert!(network("unix").unwrap().contains(&UNIX_PEER));
        for (text, says) in [
            ("*", "would trust every client"),
            ("all", "would trust every client"),
            ("10.0.0.0/33", "expected an address or a network"),
            ("proxy", "expected an address or a network"),
        ] {
            let what = network(text).unwrap_err();
            assert!(what.contains(says), "{text}: {what}");
        }
    }

    #[test]
    fn hosts_of_other_programs() {
        for (text, says) in [
            ("_", "leave host out"),
            ("*", "leave host out"),
            ("", "leave host out"),
            ("~^www\\.", "regular expressions are not supported"),
            ("$host", "variables are not supported"),
            ("{$HOST}", "variables are not supported"),
            (".domain.com", "is written \"*.domain.com\" here"),
            (".", "expected a host name"),
            ("https://domain.com", "write the name alone"),
            ("a.com, b.com", "several hosts are a list"),
            ("bücher.de", "begins with xn--"),
            ("domain.com:443", "without a port"),
        ] {
            let what = host(text).unwrap_err();
            assert!(what.contains(says), "{text}: {what}");
        }
        assert!(host("a_b.domain.com").is_ok());
    }

    #[test]
    fn paths_of_other_programs() {
        for (text, write) in [
            ("/app/*", "/app"),
            ("/*", "/"),
            ("*", "/"),
            ("/{path...}", "/"),
            ("/api/v[0-9]+", "/api"),
            ("/api/{id}/x", "/api"),
            ("~ ^/api/(.*)$", "/api"),
            ("~* \\.php$", "/"),
            ("= /exact", "/exact"),
            ("^~ /static/", "/static"),
            ("^/ws$", "/ws"),
            ("^/ws", "/ws"),
            ("/a/$_x", "/a"),
            ("/ws$", "/ws"),
            ("/a/$request_uri", "/a"),
            ("/a|/b", "/"),
        ] {
            let what = path(text).unwrap_err();
            assert!(what.ends_with(&format!("or {write:?}")), "{text}: {what}");
        }
        for text in ["/~user", "/c++", "/a(b)", "/odata/Users(1)", "/a$", "/$metadata/x"] {
            let refused = path(text).is_err();
            assert_eq!(refused, text.contains('$'), "{text}");
        }
    }

    #[test]
    fn servers_of_other_programs() {
        for (text, says) in [
            ("http://$BACKEND", "write ${NAME}"),
            ("${BACKEND}", "write ${NAME}"),
            ("{{upstreams 80}}", "write ${NAME}"),
            ("http://a:1, http://b:2", "several servers are a list"),
            ("http://a:1 http://b:2", "several servers are a list"),
            ("/run/a.sock", "write \"unix:/run/a.sock\""),
            ("unix:run/a.sock", "absolute path"),
            ("8282", "write \"http://127.0.0.1:8282\""),
            ("127.0.0.1:8282", "write \"http://127.0.0.1:8282\""),
            ("h2c://a:1", "h2c:// is not supported yet"),
            ("ftp://a", "expected an address"),
            ("https://unix:/run/a.sock", "over a Unix socket"),
        ] {
            let what = endpoint(text).unwrap_err();
            assert!(what.contains(says), "{text}: {what}");
        }
        for text in ["HTTP://a:1", "Ws://a:1", " http://a:1"] {
            assert_eq!(endpoint(text).unwrap().0.to_string(), "a:1", "{text}");
        }
    }
}
