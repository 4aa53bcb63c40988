//! The form of a request, before anything is asked on its behalf.

use http::Request;

use super::*;

fn head(method: &str, version: Version, target: &str, fields: &[(&str, &[u8])]) -> Parts {
    let mut request = Request::builder().method(method).version(version).uri(target);
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

fn status(checked: Result<(), ErrorResponse>) -> u16 {
    checked.err().map_or(200, |decline| decline.status.as_u16())
}

#[test]
fn targets_have_a_path() {
    for (method, text, expect) in [
        ("GET", "/a?b", Some("/a?b")),
        ("OPTIONS", "*", Some("*")),
        ("GET", "http://a.test/x", Some("/x")),
        ("GET", "https://a.test/x", Some("/x")),
        ("GET", "ws://a.test/x", Some("/x")),
        ("GET", "wss://a.test", Some("/")),
        ("GET", "http://a.test?x", Some("/?x")),
        ("OPTIONS", "http://a.test?x", Some("/?x")),
        ("GET", "*", None),
        ("GET", "a.test", None),
        ("GET", "ftp://a.test/", None),
    ] {
        let mut head = head(method, Version::HTTP_11, text, &[]);
        let found = target(&mut head).ok().and_then(|()| head.uri.path_and_query());
        assert_eq!(found.map(PathAndQuery::as_str), expect, "{method} {text}");
    }
}

#[test]
fn every_request_is_for_one_host() {
    let (http_10, http_11, http_2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
    let known = OnceLock::new(); // by one request after the other
    for (version, target, hosts, expect) in [
        (http_11, "/", &["A.test:8443"][..], Some("a.test")),
        (http_11, "/", &[], None),
        (http_11, "/", &["a.test", "a.test"], None),
        (http_11, "/", &["a b"], None),
        (http_11, "http://a.test/", &[], None),
        (http_11, "http://a.test/", &["b.test"], Some("a.test")),
        (http_10, "/", &[], Some("")),
        (http_10, "/", &["a.test"], Some("a.test")),
        (http_10, "http://a.test/", &[], Some("a.test")),
        (http_2, "/", &[], None),
        (http_2, "https://a.test/", &[], Some("a.test")),
        (http_2, "https://a.test/", &["A.test"], Some("a.test")),
        (http_2, "https://a.test/", &["b.test"], None),
    ] {
        let fields: Vec<_> = hosts.iter().map(|host| ("host", host.as_bytes())).collect();
        let found = host(&head("GET", version, target, &fields), &known);
        let found = found.ok().map(|host| host.name.to_string());
        assert_eq!(found.as_deref(), expect, "{version:?} {target} {hosts:?}");
    }
}

#[test]
fn blanks_around_values_are_refused_over_http2_alone() {
    for (value, http2) in [(&b"a b"[..], 200), (b"", 200), (b" a", 400), (b"a\t", 400)] {
        let check = |version| status(blanks(&head("GET", version, "/", &[("x-a", value)])));
        assert_eq!((check(Version::HTTP_2), check(Version::HTTP_11)), (http2, 200), "{value:?}");
    }
}

#[test]
fn bodies_are_chunked_once_or_not_coded() {
    for (lines, expect) in [
        (&[][..], 200),
        (&["Chunked"], 200),
        (&["chunked, Chunked"], 400),
        (&["chunked", "chunked"], 400),
        (&["gzip"], 501),
        (&["gzip, chunked"], 501),
        (&["gzip", "chunked"], 501),
    ] {
        let fields: Vec<_> = lines.iter().map(|line| ("transfer-encoding", line.as_bytes())).collect();
        let head = head("POST", Version::HTTP_11, "/", &fields);
        assert_eq!(status(transfer_coding(&head)), expect, "{lines:?}");
    }
}
