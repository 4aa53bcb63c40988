//! Which exchanges tie an identity to a connection, and not to a request: NTLM, and what Negotiate makes of it
//! (RFC 4559 §6). What comes next over such a connection is taken for the same user's.
//!
//! In: the head of a request, then that of its answer. Out: whether anybody else may have the connection. Pure.

use http::HeaderName;
use http::header::{AUTHORIZATION, HeaderMap, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};

/// The request takes part in the login of a connection.
#[must_use]
pub fn logs_in(request: &HeaderMap) -> bool {
    names_scheme(request, &AUTHORIZATION) || names_scheme(request, &PROXY_AUTHORIZATION)
}

/// The answer offers such a login, goes on with it, or ends it.
#[must_use]
pub fn challenges(answer: &HeaderMap) -> bool {
    names_scheme(answer, &WWW_AUTHENTICATE) || names_scheme(answer, &PROXY_AUTHENTICATE)
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
    use http::HeaderValue;

    use super::*;

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
                (AUTHORIZATION, true, false),
                (PROXY_AUTHORIZATION, true, false),
                (WWW_AUTHENTICATE, false, true),
                (PROXY_AUTHENTICATE, false, true),
            ] {
                let mut headers = HeaderMap::new();
                headers.append(&field, HeaderValue::from_static("Basic x"));
                headers.append(&field, HeaderValue::from_bytes(value).unwrap());
                assert_eq!(super::logs_in(&headers), expect && logs_in, "{field} {value:?}");
                assert_eq!(super::challenges(&headers), expect && challenges, "{field} {value:?}");
            }
        }
    }
}
