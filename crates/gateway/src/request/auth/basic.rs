//! Users with passwords (RFC 7617).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use super::findings::{Asker, Findings};
use crate::context::identity::User;
use crate::context::passwords::Busy;
use crate::request::reply::ErrorResponse;
use crate::site::auth::Basic;

/// Finds out which user sends the request.
///
/// # Errors
/// 401; 503 if too many passwords wait to be verified.
pub(super) async fn check(
    asker: Asker<'_>,
    basic: &Basic,
    headers: &mut HeaderMap,
    found: &mut Findings,
) -> Result<(), ErrorResponse> {
    let unauthorized = |cause: &'static str| {
        ErrorResponse::new(StatusCode::UNAUTHORIZED, "a user name and a password are needed")
            .with(WWW_AUTHENTICATE, basic.challenge())
            .because(cause)
    };
    let credentials = match credentials(headers) {
        Credentials::Absent => return Err(unauthorized("basic: there is no user name and password")),
        Credentials::Malformed => {
            asker.failed();
            return Err(unauthorized("basic: the Authorization field is malformed"));
        }
        Credentials::Given(credentials) => credentials,
    };
    let parts = credentials.split_once(':');
    let Some((user, password)) = parts else { return Err(unauthorized("basic: there is no password")) };
    let Some(users) = basic.users.get() else { return Err(unauthorized("basic: the users were not read")) };
    let passwords = &asker.connection.worker.passwords;
    match passwords.verify(users, user, password.as_bytes()).await {
        Ok(Some(line)) => {
            found.identity.name(user);
            found.identity.user = Some(User { name: user.into(), line });
        }
        Ok(None) => {
            asker.failed();
            return Err(unauthorized("basic: the user name or the password is wrong"));
        }
        Err(Busy) => {
            let sentence = "too many passwords are being verified; try again later";
            return Err(ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
                .with(RETRY_AFTER, HeaderValue::from_static("2")));
        }
    }
    if let Some(name) = &basic.user_header
        && let Ok(value) = HeaderValue::from_bytes(user.as_bytes())
    {
        found.fields.push((name.clone(), value));
    }
    if !basic.pass_password {
        headers.remove(AUTHORIZATION);
    }
    Ok(())
}

/// What stands in Authorization.
#[derive(Debug, PartialEq, Eq)]
enum Credentials {
    /// Nothing, or another scheme.
    Absent,
    /// Not what RFC 7617 §2 says.
    Malformed,
    /// User and password, with a colon between them.
    Given(String),
}

fn credentials(headers: &HeaderMap) -> Credentials {
    let mut lines = headers.get_all(AUTHORIZATION).into_iter();
    let Some(line) = lines.next() else { return Credentials::Absent };
    if lines.next().is_some() {
        return Credentials::Malformed; // the backend might read another one than we do
    }
    let line = line.as_bytes();
    let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (scheme, rest) = line.split_at(at);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Credentials::Absent;
    }
    let decoded = STANDARD.decode(rest.trim_ascii());
    match decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
        // RFC 7617 §2: no control characters, and no user without a colon behind it.
        Some(text) if !text.chars().any(char::is_control) && text.contains(':') => Credentials::Given(text),
        _ => Credentials::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorization_in_every_form() {
        let of = |lines: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(AUTHORIZATION, HeaderValue::from_bytes(line).unwrap());
            }
            credentials(&headers)
        };
        let given = |text: &str| Credentials::Given(text.to_owned());
        for (line, expect) in [
            (&b"Basic YWxpY2U6c2VjcmV0"[..], given("alice:secret")),
            (b"bAsIc YWxpY2U6c2VjcmV0", given("alice:secret")),
            (b"Basic   YWxpY2U6c2VjcmV0  ", given("alice:secret")),
            (b"Basic YWxpY2U6", given("alice:")),
            (b"Basic OnNlY3JldA==", given(":secret")),
            (b"Basic YTpiOmM=", given("a:b:c")),
            (b"Basic w6Q6w7Y=", given("\u{e4}:\u{f6}")),
            (b"Basic YWxpY2U=", Credentials::Malformed), // no colon
            (b"Basic YTpiOmM", Credentials::Malformed),  // no padding
            (b"Basic !!!!", Credentials::Malformed),
            (b"Basic", Credentials::Malformed),
            (b"Basic ", Credentials::Malformed),
            (b"Basic YWxp Y2U6c2VjcmV0", Credentials::Malformed),
            (b"Basic YWxpY2U6c2VjcmV0, Basic YTpi", Credentials::Malformed),
            (b"Basic YQA6Yg==", Credentials::Malformed), // a NUL
            (b"Basic YQ0KWDogYjpj", Credentials::Malformed), // a line end
            (b"Basic 5Db2", Credentials::Malformed),     // no UTF-8
            (b"Basic\tYWxpY2U6c2VjcmV0", Credentials::Absent),
            (b"BasicYWxpY2U6c2VjcmV0", Credentials::Absent),
            (b"Bearer YWxpY2U6c2VjcmV0", Credentials::Absent),
            (b"", Credentials::Absent),
            (b"\xff", Credentials::Absent),
        ] {
            assert_eq!(of(&[line]), expect, "{}", String::from_utf8_lossy(line));
        }
        assert_eq!(of(&[]), Credentials::Absent);
        assert_eq!(of(&[b"Basic YWxpY2U6c2VjcmV0", b"Bearer x"]), Credentials::Malformed);
    }
}
