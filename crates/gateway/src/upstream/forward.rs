//! Fields on their way through (RFC 9110 §7.6): what belongs to one hop goes, what tells a backend
//! who its client is comes from us alone.
//!
//! In: a head as a peer sent it. Out: the head for the other side. Pure.

use std::net::IpAddr;

use http::header::{
    CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, MAX_FORWARDS, TE,
    TRAILER,
};
use http::{Method, Version, request};
use ipnet::IpNet;
use upgrade_handler::fields::{elements, has_token};
use upgrade_handler::hop_by_hop::{is_hop_by_hop, remove_hop_by_hop};

use crate::net::fields::remove_where;
use crate::net::listening::{UNIX_PEER, UNIX_PEER_NAME};
use crate::site::endpoint::Endpoint;
use crate::site::host::Host;
use crate::upstream::edits::Edits;

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What is known about the sender of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hop<'a> {
    /// The address at the other end of the connection.
    pub peer: IpAddr,
    /// The same as it is sent to backends.
    pub peer_field: &'a HeaderValue,
    /// The connection is encrypted.
    pub tls: bool,
    /// What was asked for.
    pub host: &'a Host,
    /// Proxies whose fields are trusted.
    pub trusted: &'a [IpNet],
    /// What the route changes of the fields; `None`: nothing.
    pub edits: Option<&'a Edits<'a>>,
    /// The position of the server that the client comes back to.
    pub preferred: Option<usize>,
}

impl Hop<'_> {
    /// The peer is one of the proxies whose word is believed.
    #[must_use]
    pub(crate) fn is_trusted(&self) -> bool {
        !self.trusted.is_empty() && is_in(self.trusted, self.peer)
    }

    /// The client's connection is encrypted: the peer's, or that to a trusted proxy, as it says.
    #[must_use]
    pub(crate) fn is_https(&self, headers: &HeaderMap) -> bool {
        let is_forwarded = || headers.get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https");
        self.tls || self.is_trusted() && is_forwarded()
    }

    /// What a server gets depends on which one it is.
    #[must_use]
    pub(crate) fn names_server(&self) -> bool {
        self.host.name.is_empty() || self.edits.is_some_and(Edits::names_server)
    }

    /// The client's address: the peer's, or the nearest untrusted one that trusted proxies name.
    #[must_use]
    pub(crate) fn client(&self, headers: &HeaderMap) -> IpAddr {
        if !self.is_trusted() {
            return self.peer;
        }
        let mut client = self.peer;
        let chain: Vec<&str> = elements(headers, X_FORWARDED_FOR).collect();
        for element in chain.into_iter().rev() {
            let Some(address) = address(element) else { return client };
            client = address;
            if !is_in(self.trusted, address) {
                return client;
            }
        }
        let real = headers.get(X_REAL_IP).filter(|_| client == self.peer);
        real.and_then(|ip| ip.to_str().ok()).and_then(address).unwrap_or(client)
    }
}

/// The client waits for 100 Continue before it sends its body (RFC 9110 §10.1.1).
#[must_use]
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// How many more hops an OPTIONS request may take (RFC 9110 §7.6.2); `None`: as many as it likes.
#[must_use]
pub(crate) fn hops_left(head: &request::Parts) -> Option<u32> {
    let field = if head.method == Method::OPTIONS { head.headers.get(MAX_FORWARDS)? } else { return None };
    field.to_str().ok()?.parse().ok()
}

fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical(); // ::ffff:10.0.0.1 is 10.0.0.1
    networks.iter().any(|network| network.contains(&address))
}

/// An address as it stands in X-Forwarded-For: some proxies add a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(ip, _)| ip);
    let address =
        bare.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().map(|socket| socket.ip()).ok());
    address.filter(|address| *address != UNIX_PEER) // it would be taken for a peer over a Unix socket
}

/// Room for the lines of [`request`](fn@request).
const LINES_LEN: usize = 256;

/// Makes a client's request head one for a backend over HTTP/1.1. What we say ourselves about the client comes back
/// as lines for the wire, which stand behind the head's own: in the map they would cost three times as much.
#[must_use]
pub(crate) fn request(head: &mut request::Parts, from: &Hop<'_>, server: &Endpoint) -> Vec<u8> {
    if let Some(hops @ 1..) = hops_left(head) {
        head.headers.insert(MAX_FORWARDS, (hops - 1).into());
    }
    let client = from.client(&head.headers);
    let trusted = from.is_trusted();
    let headers = &mut head.headers;
    // Most heads have nothing of all this, which one walk over the names shows.
    let (mut has_hop_by_hop, mut has_spoofable, mut has_cookies) = (false, false, false);
    for name in headers.keys() {
        has_cookies |= *name == COOKIE;
        let name = name.as_str();
        has_hop_by_hop |= is_hop_by_hop(name);
        has_spoofable |= !may_pass(name, trusted);
    }
    // First what the client may remove, then ours: it can't have these removed.
    let wants_trailers = has_hop_by_hop && has_token(headers, TE, "trailers");
    if has_hop_by_hop {
        remove_hop_by_hop(headers);
    }
    if has_spoofable {
        remove_where(headers, |name| !may_pass(name.as_str(), trusted));
    }
    if has_cookies {
        join_cookies(headers);
    }

    if from.host.name.is_empty() {
        // Over HTTP/1.1 there has to be a Host, and many a backend refuses an empty one.
        headers.insert(HOST, server.field());
    } else if !headers.iter().any(|(name, field)| *name == HOST && *field == from.host.field) {
        headers.insert(HOST, from.host.field.clone());
    }
    let peer = from.peer_field;
    let mut lines = Vec::with_capacity(LINES_LEN);
    if client == from.peer {
        put_line(b"X-Real-IP: ", peer.as_bytes(), &mut lines);
    } else {
        put_line(b"X-Real-IP: ", address_field(client).as_bytes(), &mut lines);
    }
    let chain = if trusted { forwarded_for(headers) } else { String::new() };
    if chain.is_empty() {
        put_line(b"X-Forwarded-For: ", peer.as_bytes(), &mut lines);
    } else {
        let chain = [chain.as_bytes(), peer.as_bytes()].join(&b", "[..]);
        put_line(b"X-Forwarded-For: ", &chain, &mut lines);
    }
    let says = |name: HeaderName| trusted && headers.contains_key(name);
    if !says(X_FORWARDED_PROTO) {
        let proto: &[u8] = if from.tls { b"https" } else { b"http" };
        put_line(b"X-Forwarded-Proto: ", proto, &mut lines);
    }
    if !from.host.name.is_empty() && !says(X_FORWARDED_HOST) {
        put_line(b"X-Forwarded-Host: ", from.host.field.as_bytes(), &mut lines);
    }
    put_line(b"Via: ", via(head.version), &mut lines); // RFC 9110 §7.6.3: behind those of others
    if wants_trailers {
        // RFC 9110 §6.5.1, §10.1.4: we do pass trailers on.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("TE"));
    }
    if let Some(edits) = from.edits {
        edits.apply(headers, &mut lines, server);
    }
    head.version = Version::HTTP_11;
    lines
}

/// Takes out what trusted proxies say about the client's address: the elements of X-Forwarded-For come back.
fn forwarded_for(headers: &mut HeaderMap) -> String {
    headers.remove(X_REAL_IP);
    let chain = elements(headers, X_FORWARDED_FOR).collect::<Vec<_>>().join(", ");
    headers.remove(X_FORWARDED_FOR);
    chain
}

/// `name` ends with a colon and a space.
#[inline]
fn put_line(name: &[u8], value: &[u8], lines: &mut Vec<u8>) {
    lines.extend_from_slice(name);
    lines.extend_from_slice(value);
    lines.extend_from_slice(b"\r\n");
}

/// Takes up lines as the gateway writes them.
pub(crate) fn append_lines(lines: &[u8], headers: &mut HeaderMap) {
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let value = HeaderValue::from_bytes(value[1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
}

/// An address as it is sent to backends.
#[must_use]
pub(crate) fn address_field(address: IpAddr) -> HeaderValue {
    if address == UNIX_PEER {
        return HeaderValue::from_static(UNIX_PEER_NAME);
    }
    value(&address.to_canonical().to_string())
}

/// Addresses and host names are always field values.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
}

fn via(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"1.0 wssgate",
        Version::HTTP_2 => b"2.0 wssgate",
        _ => b"1.1 wssgate",
    }
}

/// Whether a client's word on itself is passed on. With underscores these names mean the same to
/// CGI and its successors, and honest clients don't send them.
#[inline]
pub(crate) fn may_pass(name: &str, trusted: bool) -> bool {
    // None of the others begins so.
    !matches!(name.as_bytes().first(), Some(b'f' | b'p' | b'w' | b'x')) || is_harmless(name, trusted)
}

fn is_harmless(name: &str, trusted: bool) -> bool {
    if is_between_us(name) {
        return false;
    }
    if name == "proxy" {
        return false; // becomes HTTP_PROXY in CGI's environment ("httpoxy")
    }
    if name.bytes().any(|b| b == b'_') {
        let dashed = name.replace('_', "-");
        return !is_about_client(&dashed);
    }
    trusted || !is_about_client(name)
}

/// The name of a field that this gateway and its backends say to each other alone.
fn is_between_us(name: &str) -> bool {
    matches!(name.as_bytes().first_chunk(), Some(b"wssgate-" | b"wssgate_"))
}

/// The name of a field that says who the client is.
pub(crate) fn is_about_client(name: &str) -> bool {
    name == "x-real-ip" || name == FORWARDED.as_str() || name.starts_with("x-forwarded-")
}

/// HTTP/2 clients may send a cookie in crumbs (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).into_iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

/// Removes what a backend says to this gateway alone.
pub(crate) fn remove_between_us(headers: &mut HeaderMap) {
    remove_where(headers, |name| is_between_us(name.as_str()));
}

/// Removes what no client may say in trailers.
pub(crate) fn remove_spoofed(trailers: &mut HeaderMap) {
    remove_where(trailers, |name| !may_pass(name.as_str(), false));
}

/// Makes a backend's answer one for a client. `Trailer` stays: hyper passes on the trailers it
/// announces.
pub(crate) fn response(headers: &mut HeaderMap) {
    // Most answers have neither, which one walk over the names shows.
    let (mut has_own, mut has_hop_by_hop) = (false, false);
    for name in headers.keys() {
        let name = name.as_str();
        has_own |= is_between_us(name);
        has_hop_by_hop |= is_hop_by_hop(name);
    }
    if has_own {
        remove_between_us(headers);
    }
    if !has_hop_by_hop {
        return;
    }
    let trailer = headers.remove(TRAILER);
    remove_hop_by_hop(headers);
    if let Some(trailer) = trailer {
        headers.insert(TRAILER, trailer);
    }
}

/// A value that begins or ends with a space or a tab.
pub(crate) fn has_outer_blanks(value: &HeaderValue) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const PEER: &str = "192.0.2.7";

    /// The head that a backend sees.
    fn passed(trusted: &[&str], fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut request = Request::get("/");
        for &(name, value) in fields {
            request = request.header(name, value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let lines = String::from_utf8(pass(&mut head, trusted)).unwrap();
        for (name, value) in lines.lines().map(|line| line.split_once(": ").unwrap()) {
            head.headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        head.headers
    }

    fn pass(head: &mut request::Parts, trusted: &[&str]) -> Vec<u8> {
        let host = Host::parse(&HeaderValue::from_static("Domain.com:8443")).unwrap();
        let trusted: Vec<IpNet> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        let peer = PEER.parse().unwrap();
        let peer_field = &address_field(peer);
        super::request(
            head,
            &Hop {
                peer,
                peer_field,
                tls: true,
                host: &host,
                trusted: &trusted,
                edits: None,
                preferred: None,
            },
            &Endpoint::new("10.0.0.1", 80),
        )
    }

    #[track_caller]
    fn has(headers: &HeaderMap, expect: &[(&str, &str)]) {
        for (name, value) in expect {
            let all: Vec<_> = headers.get_all(*name).into_iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(all, [*value], "{name}");
        }
    }

    #[track_caller]
    fn lacks(headers: &HeaderMap, names: &[&str]) {
        for name in names {
            assert!(!headers.contains_key(*name), "{name}: {:?}", headers.get(*name));
        }
    }

    const OURS: [(&str, &str); 5] = [
        ("host", "Domain.com:8443"),
        ("x-real-ip", PEER),
        ("x-forwarded-for", PEER),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "Domain.com:8443"),
    ];

    #[test]
    fn max_forwards() {
        for (method, field, hops, after) in [
            ("OPTIONS", "0", Some(0), "0"), // and is not forwarded
            ("OPTIONS", "7", Some(7), "6"),
            ("OPTIONS", "many", None, "many"),
            ("GET", "7", None, "7"),
        ] {
            let request = http::Request::builder().method(method).header("max-forwards", field);
            let mut head = request.body(()).unwrap().into_parts().0;
            assert_eq!(hops_left(&head), hops, "{method} {field}");
            let _ = pass(&mut head, &[]);
            assert_eq!(head.headers["max-forwards"], after);
        }
    }

    #[test]
    fn forwarded_fields_of_a_client_are_not_trusted() {
        let headers = passed(
            &["10.0.0.0/8"],
            &[
                ("x-real-ip", "1.1.1.1"),
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-proto", "gopher"),
                ("x-forwarded-host", "evil"),
                ("x-forwarded-port", "1"),
                ("x-forwarded-prefix", "/evil"),
                ("x-forwarded-client-cert", "evil"),
                ("forwarded", "for=1.1.1.1"),
                ("x_forwarded_for", "1.1.1.1"),
                ("x-real_ip", "1.1.1.1"),
                ("x_real-ip", "1.1.1.1"),
                ("proxy", "http://evil"),
            ],
        );
        has(&headers, &OURS);
        lacks(
            &headers,
            &[
                "x-forwarded-port",
                "x-forwarded-prefix",
                "x-forwarded-client-cert",
                "forwarded",
                "x_forwarded_for",
                "x-real_ip",
                "x_real-ip",
                "proxy",
            ],
        );
    }

    #[test]
    fn forwarded_fields_of_a_trusted_proxy_are_kept() {
        let headers = passed(
            &["192.0.2.0/24", "10.0.0.0/8"],
            &[
                ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
                ("x-forwarded-for", "10.1.2.3"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "public.example"),
                ("x-forwarded-port", "80"),
                ("forwarded", "for=203.0.113.9"),
                ("x_forwarded_for", "7.7.7.7"),
            ],
        );
        has(
            &headers,
            &[
                ("x-real-ip", "203.0.113.9"),
                ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.1.2.3, 192.0.2.7"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "public.example"),
                ("x-forwarded-port", "80"),
                ("forwarded", "for=203.0.113.9"),
            ],
        );
        lacks(&headers, &["x_forwarded_for"]);
        let trusted = &[PEER][..].iter().map(|p| format!("{p}/32")).collect::<Vec<_>>();
        let trusted: Vec<&str> = trusted.iter().map(String::as_str).collect();
        for (fields, client) in [
            (&[][..], PEER),
            (&[("x-real-ip", "203.0.113.9")], "203.0.113.9"),
            (&[("x-forwarded-for", "nonsense")], PEER),
            (&[("x-forwarded-for", "203.0.113.9:4711")], "203.0.113.9"),
            (&[("x-forwarded-for", "\"[2001:db8::1]:4711\"")], "2001:db8::1"),
            (&[("x-forwarded-for", "2001:db8::1")], "2001:db8::1"),
            (&[("x-forwarded-for", "::")], PEER),
            (&[("x-real-ip", "[::]:80")], PEER),
        ] {
            has(&passed(&trusted, fields), &[("x-real-ip", client)]);
        }
    }

    #[test]
    fn fields_of_one_hop_go_and_ours_can_not_be_named_away() {
        let headers = passed(
            &[],
            &[
                ("connection", "keep-alive, X-Hop, Host, X-Real-IP, x-forwarded-for"),
                ("connection", "cookie"),
                ("x-hop", "1"),
                ("cookie", "named=away"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "gzip"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("authorization", "Bearer x"),
                ("origin", "https://domain.com"),
            ],
        );
        has(&headers, &OURS);
        has(
            &headers,
            &[("authorization", "Bearer x"), ("origin", "https://domain.com"), ("via", "1.1 wssgate")],
        );
        lacks(
            &headers,
            &[
                "connection",
                "x-hop",
                "cookie",
                "keep-alive",
                "proxy-connection",
                "te",
                "transfer-encoding",
                "upgrade",
            ],
        );
    }

    #[test]
    fn nothing_in_connection_hides_what_it_names() {
        for line in ["\u{e9}, x-hop", "x-hop, \u{e9}", "\", x-hop", "a=\"\\\", x-hop", ", ,x-hop,"] {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            headers.insert("x-hop", HeaderValue::from_static("1"));
            remove_hop_by_hop(&mut headers);
            lacks(&headers, &["connection", "x-hop"]);
        }
    }

    #[test]
    fn crumbs_make_one_cookie_and_trailers_may_come() {
        let headers =
            passed(&[], &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("via", "1.1 first")]);
        has(&headers, &[("cookie", "a=1; b=2"), ("te", "trailers"), ("connection", "TE")]);
        let vias: Vec<_> = headers.get_all("via").into_iter().collect();
        assert_eq!(vias, ["1.1 first", "1.1 wssgate"]);
    }

    #[test]
    fn answers_lose_the_fields_of_their_hop() {
        let mut headers: HeaderMap = [
            (CONNECTION, "close, x-hop, trailer"),
            (HeaderName::from_static("x-hop"), "1"),
            (http::header::UPGRADE, "h2c"),
            (TRAILER, "x-sum"),
            (http::header::SET_COOKIE, "a=b"),
        ]
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .into_iter()
        .collect();
        response(&mut headers);
        has(&headers, &[("trailer", "x-sum"), ("set-cookie", "a=b")]);
        lacks(&headers, &["connection", "x-hop", "upgrade"]);
    }

    #[test]
    fn the_version_that_a_request_came_over_is_in_via() {
        for (version, expect) in [
            (Version::HTTP_10, "1.0 wssgate"),
            (Version::HTTP_11, "1.1 wssgate"),
            (Version::HTTP_2, "2.0 wssgate"),
        ] {
            assert_eq!(via(version), expect.as_bytes());
        }
    }

    #[test]
    fn who_waits_for_100_continue() {
        for (expect, waits) in [("100-continue", true), ("100-Continue", true), ("200-ok", false)] {
            let headers = HeaderMap::from_iter([(EXPECT, HeaderValue::from_static(expect))]);
            assert_eq!(expects_continue(&headers), waits, "{expect}");
        }
        assert!(!expects_continue(&HeaderMap::new()));
    }
}
