//! Which exchanges tie an identity to a connection, and not to a request: NTLM, and what Negotiate makes of it
//! (RFC 4559 §6). What comes next over such a connection is taken for the same user's.
//!
//! In: the head of a request, then that of its answer. Out: whether other clients' requests may use the connection. Pure.

use http::header::{
    AUTHORIZATION, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE,
};
use http::{StatusCode, response};

/// The request takes part in the login of a connection.
#[must_use]
#[inline]
pub(crate) fn logs_in(request: &HeaderMap) -> bool {
    // Comparing the few names of a request costs less than looking two of them up.
    request
        .keys()
        .any(|name| (*name == AUTHORIZATION || *name == PROXY_AUTHORIZATION) && names_scheme(request, name))
}

/// The answer offers such a login. What goes on with one or ends it answers a request that [`logs_in`].
#[must_use]
pub(crate) fn challenges(answer: &response::Parts) -> bool {
    let field = match answer.status {
        StatusCode::UNAUTHORIZED => WWW_AUTHENTICATE,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => PROXY_AUTHENTICATE,
        _ => return false, // RFC 9110 §11.6.1, §11.7.1: elsewhere it is no challenge to this request
    };
    names_scheme(&answer.headers, &field)
}

/// Some line of the field names one of these schemes. Quoted commas are not minded: one scheme too many costs a
/// kept connection, one too few mixes users.
fn names_scheme(headers: &HeaderMap, field: &HeaderName) -> bool {
    headers.get_all(field).into_iter().any(|line| {
        line.as_bytes().split(|byte| *byte == b',').any(|element| {
            let mut words = element.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            words.next().is_some_and(|scheme| {
                scheme.eq_ignore_ascii_case(b"NTLM") || scheme.eq_ignore_ascii_case(b"Negotiate")
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response};

    use super::*;

    fn answer(status: u16, headers: &HeaderMap) -> response::Parts {
        let mut head = Response::builder().status(status).body(()).unwrap().into_parts().0;
        head.headers = headers.clone();
        head
    }

    #[test]
    fn schemes_that_log_a_connection_in() {
        for (value, expect) in [
            (&b"NTLM"[..], true),
            (b"NTLM TlRMTVNTUAABAAAAB4IIAAAAAAAAAAAAAAAAAAAAAAA=", true),
            (b"ntlm\tTlRM", true),
            (b"Negotiate oYG2MIGz", true),
            (b"Basic realm=\"a, b\", NEGOTIATE", true),
            (b"Basic realm=\"\xE9\" ,NTLM", true),
            (b"Basic bnRsbTpuZWdvdGlhdGU=", false),
            (b"Bearer ntlm", false),
            (b"NTLMv2 x", false),
            (b"Digest username=\"negotiate\"", false),
            (b"", false),
        ] {
            for (field, logs_in, challenges) in [
                (AUTHORIZATION, true, 0),
                (PROXY_AUTHORIZATION, true, 0),
                (WWW_AUTHENTICATE, false, 401),
                (PROXY_AUTHENTICATE, false, 407),
            ] {
                let mut headers = HeaderMap::new();
                headers.append(&field, HeaderValue::from_static("Basic x"));
                headers.append(&field, HeaderValue::from_bytes(value).unwrap());
                assert_eq!(super::logs_in(&headers), expect && logs_in, "{field} {value:?}");
                for status in [200, 401, 403, 407] {
                    let challenged = super::challenges(&answer(status, &headers));
                    assert_eq!(challenged, expect && challenges == status, "{field} {value:?} {status}");
                }
            }
        }
    }
}
