//! The head of a request as HTTP/2 has it (RFC 9113 §8.3.1): fields of the connection are gone, what stood in the
//! request line and in Host are pseudo-fields.
//!
//! In: a head that is ready for a server over HTTP/1.1. Out: the same for HTTP/2. Pure.

use http::header::{CONNECTION, HOST, HeaderMap, HeaderValue, TE, TRAILER};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Extensions, Uri, Version};
use upgrade_handler::hop_by_hop::remove_hop_by_hop;

use crate::site::endpoint::Endpoint;
use crate::upstream::forward::{append_lines, remove_spoofed};

/// Puts `lines`, the fields that stand behind the head's own over HTTP/1.1, into it, and gives it the form of HTTP/2.
/// TE stays as it is: it says "trailers" or isn't there.
pub(crate) fn request(head: &mut Parts, lines: &[u8], endpoint: &Endpoint) {
    append_lines(lines, &mut head.headers);
    head.headers.remove(CONNECTION); // RFC 9113 §8.2.2
    let host = head.headers.remove(HOST);
    let authority = host.as_ref().and_then(authority).or_else(|| authority(&endpoint.field()));
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    uri.scheme = Some(scheme(endpoint));
    uri.authority = authority;
    uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    head.uri = Uri::from_parts(uri).unwrap_or_default(); // a scheme, an authority and a path always fit together
    head.version = Version::HTTP_2;
    head.extensions = Extensions::new();
}

/// Gives a head that [`request`] has made the form of HTTP/1.1 again (RFC 9112 §3.2): what it is sent over says its length.
pub(crate) fn to_http1(head: &mut Parts) {
    let uri = std::mem::take(&mut head.uri).into_parts();
    let host = uri.authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    head.headers.insert(HOST, host.unwrap_or(HeaderValue::from_static("")));
    if head.headers.contains_key(TE) {
        head.headers.insert(CONNECTION, HeaderValue::from_static("TE")); // RFC 9110 §10.1.4
    }
    head.uri = uri.path_and_query.map(Uri::from).unwrap_or_default();
    head.version = Version::HTTP_11;
}

/// Gives a head that [`request`] has made the scheme of another server.
pub(crate) fn set_scheme(head: &mut Parts, endpoint: &Endpoint) {
    let scheme = scheme(endpoint);
    if head.uri.scheme() == Some(&scheme) {
        return;
    }
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    uri.scheme = Some(scheme);
    head.uri = Uri::from_parts(uri).unwrap_or_default(); // the same
}

/// That of the connection, and not the client's, which X-Forwarded-Proto tells: servers compare the two.
fn scheme(endpoint: &Endpoint) -> Scheme {
    if endpoint.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
}

fn authority(field: &HeaderValue) -> Option<Authority> {
    Authority::try_from(field.as_bytes()).ok()
}

/// Makes trailers ones that may be sent over HTTP/2.
pub(super) fn trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    remove_spoofed(trailers);
    trailers.remove(TRAILER);
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn made(host: Option<&str>, uri: &str, endpoint: &Endpoint) -> Parts {
        let mut head = Request::builder().method("OPTIONS").uri(uri).header("te", "trailers");
        head = head.header("connection", "TE").header("cookie", "a=b");
        if let Some(host) = host {
            head = head.header("host", host);
        }
        let mut head = head.body(()).unwrap().into_parts().0;
        request(&mut head, b"X-Real-IP: 192.0.2.7\r\nVia: 1.0 a\r\nVia: 1.1 wssgate\r\n", endpoint);
        head
    }

    #[test]
    fn heads() {
        let plain = Endpoint::new("10.0.0.1", 8080);
        let tls = Endpoint::parse("https://app.internal").unwrap().0;
        let unix = Endpoint::unix("/run/app.sock");
        for (host, uri, endpoint, expect) in [
            (Some("domain.com:8443"), "/a/b?c", &plain, "http://domain.com:8443/a/b?c"),
            (Some("[::1]:80"), "/", &tls, "https://[::1]:80/"),
            (None, "/x", &tls, "https://app.internal:443/x"),
            (Some(""), "/x", &plain, "http://10.0.0.1:8080/x"),
            (None, "/x", &unix, "http://localhost/x"),
            (Some("domain.com"), "*", &plain, "http://domain.com*"),
        ] {
            let head = made(host, uri, endpoint);
            assert_eq!(head.uri.to_string(), expect);
            assert_eq!(head.uri.path(), uri.split('?').next().unwrap());
            assert_eq!(head.version, Version::HTTP_2);
        }
        let headers = made(Some("domain.com"), "/", &plain).headers;
        for (name, expect) in
            [("te", "trailers"), ("cookie", "a=b"), ("x-real-ip", "192.0.2.7"), ("via", "1.0 a|1.1 wssgate")]
        {
            let all: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(all.join("|"), expect, "{name}");
        }
        assert!(!headers.contains_key("connection") && !headers.contains_key("host"));
    }

    #[test]
    fn a_head_goes_back_to_http1() {
        let server = Endpoint::new("10.0.0.1", 8080);
        for (host, uri) in [("domain.com:8443", "/a/b?c"), ("domain.com", "/"), ("[::1]:80", "/x")] {
            let mut head = made(Some(host), uri, &server);
            to_http1(&mut head);
            assert_eq!((head.uri.to_string(), head.version), (uri.to_owned(), Version::HTTP_11));
            for (name, value) in [("host", host), ("connection", "TE"), ("x-real-ip", "192.0.2.7")] {
                assert_eq!(head.headers[name], value);
            }
        }
    }
}
