//! What must hold for the fields of any request: conditions, codings, and what is said about the client. Shared by the
//! fuzz target and the unit tests.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_ENCODING, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, request};

use super::{Coding, Endpoint, Hop, Host, Validators, Verdict, accepted, address_field, forward, judge};

/// The first byte chooses who sends the request and how old the file is, each line behind it is a field.
pub(crate) fn fields(data: &[u8]) {
    let Some((&choice, lines)) = data.split_first() else { return };
    let Ok(request) = Request::get("/").body(()) else { return };
    let mut head = request.into_parts().0;
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..at]);
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            head.headers.append(name, value);
        }
    }
    conditions(&head.headers, u64::from(choice >> 1));
    codings(&head.headers);
    client(head, choice & 1 == 1);
}

fn conditions(headers: &HeaderMap, age: u64) {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let ours = Validators { etag: HeaderValue::from_static("\"a,b\""), modified };
    let has = |name: &HeaderName| headers.contains_key(name);
    match judge(headers, &ours, modified + Duration::from_secs(age)) {
        Verdict::Failed => assert!(has(&IF_MATCH) || has(&IF_UNMODIFIED_SINCE)),
        Verdict::NotModified => assert!(has(&IF_NONE_MATCH) || has(&IF_MODIFIED_SINCE)),
        Verdict::Whole => assert!(has(&IF_RANGE)),
        Verdict::WithRange => {}
    }
}

fn codings(headers: &HeaderMap) {
    let all: Vec<u8> =
        headers.get_all(ACCEPT_ENCODING).iter().flat_map(HeaderValue::as_bytes).copied().collect();
    let text = String::from_utf8_lossy(&all).to_ascii_lowercase();
    let chosen: Vec<_> = accepted(headers, [Coding::Br, Coding::Zstd, Coding::Gzip]).collect();
    for (position, coding) in chosen.iter().enumerate() {
        assert!(
            text.contains(coding.as_str()) || text.contains('*'),
            "{coding:?} was not asked for: {text:?}"
        );
        assert!(!chosen[..position].contains(coding));
    }
}

fn client(mut head: request::Parts, trusted: bool) {
    let peer = IpAddr::from([192, 0, 2, 7]);
    let Some(host) = Host::parse(&HeaderValue::from_static("domain.com")) else { return };
    let trusted_networks = ["192.0.2.0/24", "10.0.0.0/8"].map(str::parse);
    let trusted_networks: Vec<_> = trusted_networks.into_iter().flatten().filter(|_| trusted).collect();
    let hop = Hop {
        peer,
        peer_field: &address_field(peer),
        tls: true,
        host: &host,
        trusted: &trusted_networks,
        edits: None,
        preferred: None,
    };
    let client = hop.client(&head.headers);
    assert!(trusted || client == peer, "the word of a client that is not trusted counts for nothing");
    let lines = forward::request(&mut head, &hop, &Endpoint::new("10.0.0.1", 80));
    let Ok(lines) = String::from_utf8(lines) else {
        assert!(trusted, "what this client sends is not repeated");
        return;
    };
    assert!(lines.ends_with("\r\n") && lines.matches(['\r', '\n']).count() == 2 * lines.lines().count());
    let of_name = |wanted: &str| {
        let ours = lines.lines().filter_map(|line| line.split_once(": "));
        let ours =
            ours.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned());
        let kept = head.headers.get_all(wanted).into_iter();
        ours.chain(kept.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of_name("x-real-ip"), [client.to_canonical().to_string()], "servers are told of one client");
    for name in head.headers.keys() {
        let read = name.as_str().replace('_', "-"); // as CGI and its successors read it
        let is_ours = read == "x-real-ip" || read == "forwarded" || read.starts_with("x-forwarded-");
        assert!(!is_ours || trusted && read == name.as_str(), "{name} says who the client is");
        let is_of_hop = ["keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "proxy"];
        assert!(!is_of_hop.contains(&name.as_str()), "{name} was for this hop");
    }
}
