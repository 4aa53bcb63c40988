//! Upgrades to other protocols than WebSocket, by their names (RFC 9110 §7.8). Pure.
//!
//! In: a client's request, and the protocols that may be passed on. Out: what a server is asked, whether its 101 is true,
//! and what the client is told. Nothing else is known of these protocols.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, TE, UPGRADE};
use http::{Response, StatusCode, Version, request, response};

use crate::fields::{has_token, tokens};
use crate::upstream::FalseAnswer;

/// The protocols that a client asks for and that are `allowed`, in the order of its preference. A version is a part of
/// the name: `SPDY/3.1` is not `SPDY/3`.
#[must_use]
pub fn named(headers: &HeaderMap, allowed: &[Box<str>]) -> Vec<Box<str>> {
    let is_allowed = |protocol: &&str| allowed.iter().any(|name| name.eq_ignore_ascii_case(protocol));
    tokens(headers, UPGRADE).filter(is_allowed).map(Into::into).collect()
}

/// Has a request that is ready to be passed on ask for `protocols`.
pub fn ask_named(head: &mut request::Parts, protocols: &[Box<str>]) {
    head.version = Version::HTTP_11;
    head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(protocols) = HeaderValue::from_str(&protocols.join(", ")) {
        head.headers.insert(UPGRADE, protocols);
    }
    head.headers.remove(TE); // it would have to be in Connection as well (RFC 9110 §10.1.4)
}

/// Checks a 101, and returns the protocol that was chosen, or several, where one runs over another.
///
/// # Errors
/// If it isn't what RFC 9110 §7.8 demands, or has a protocol that was not `asked` for.
pub fn verify_named(answer: &response::Parts, asked: &[Box<str>]) -> Result<HeaderValue, FalseAnswer> {
    if answer.version != Version::HTTP_11 {
        return Err(FalseAnswer::Version);
    }
    if !has_token(&answer.headers, CONNECTION, "upgrade") {
        return Err(FalseAnswer::NoConnection);
    }
    let chosen: Vec<&str> = tokens(&answer.headers, UPGRADE).collect();
    let is_asked = |protocol: &&str| asked.iter().any(|name| name.eq_ignore_ascii_case(protocol));
    if chosen.is_empty() || !chosen.iter().all(is_asked) {
        return Err(FalseAnswer::NotAsked);
    }
    HeaderValue::from_str(&chosen.join(", ")).map_err(|_| FalseAnswer::NotAsked)
}

/// Tells the client which protocol comes now. `headers` are the server's other fields, end-to-end ones only.
#[must_use]
pub fn accept_named(protocol: HeaderValue, mut headers: HeaderMap) -> Response<()> {
    headers.insert(UPGRADE, protocol);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.remove(CONTENT_LENGTH); // RFC 9110 §8.6
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn names(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|&name| name.into()).collect()
    }

    #[test]
    fn only_what_is_allowed_is_asked_for() {
        let allowed = names(&["tcp", "SPDY/3.1"]);
        for (upgrade, expect) in [
            ("tcp", &["tcp"][..]),
            ("h2c, spdy/3.1,TCP", &["spdy/3.1", "TCP"]),
            ("SPDY/3, tcp/1, t", &[]),
            ("h2c", &[]),
            ("", &[]),
        ] {
            let headers = HeaderMap::from_iter([(UPGRADE, HeaderValue::from_static(upgrade))]);
            assert_eq!(named(&headers, &allowed), names(expect), "{upgrade}");
        }
        let mut head = Request::post("/exec").header("te", "trailers").body(()).unwrap().into_parts().0;
        ask_named(&mut head, &names(&["SPDY/3.1", "tcp"]));
        assert_eq!(
            (&head.headers["upgrade"], &head.headers["connection"]),
            (&HeaderValue::from_static("SPDY/3.1, tcp"), &HeaderValue::from_static("Upgrade"))
        );
        assert!(!head.headers.contains_key("te"));
        assert_eq!(head.method, "POST");
    }

    #[test]
    fn answers_that_are_true_and_false() {
        let answer = |version, fields: &[(&str, &str)]| {
            let mut answer = Response::builder().status(101).version(version);
            for (name, value) in fields {
                answer = answer.header(*name, *value);
            }
            verify_named(&answer.body(()).unwrap().into_parts().0, &names(&["tcp", "SPDY/3.1"]))
        };
        let both = |upgrade| answer(Version::HTTP_11, &[("upgrade", upgrade), ("connection", "Upgrade")]);
        assert_eq!(both("TCP").unwrap(), "TCP");
        assert_eq!(both("tcp, SPDY/3.1").unwrap(), "tcp, SPDY/3.1");
        for upgrade in ["websocket", "tcp, websocket", "", "SPDY/3"] {
            assert_eq!(both(upgrade), Err(FalseAnswer::NotAsked), "{upgrade}");
        }
        assert_eq!(answer(Version::HTTP_11, &[("upgrade", "tcp")]), Err(FalseAnswer::NoConnection));
        assert_eq!(answer(Version::HTTP_10, &[("upgrade", "tcp")]), Err(FalseAnswer::Version));
    }

    #[test]
    fn the_client_gets_101_with_the_protocol() {
        let headers = HeaderMap::from_iter([
            (CONTENT_LENGTH, HeaderValue::from_static("0")),
            (http::header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.docker.raw-stream")),
        ]);
        let answer = accept_named(HeaderValue::from_static("tcp"), headers);
        assert_eq!(
            (answer.status(), &answer.headers()["upgrade"]),
            (StatusCode::SWITCHING_PROTOCOLS, &HeaderValue::from_static("tcp"))
        );
        assert_eq!(answer.headers()["connection"], "Upgrade");
        assert!(answer.headers().contains_key("content-type"));
        assert!(!answer.headers().contains_key("content-length"));
    }
}
