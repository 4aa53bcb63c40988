//! Where tokens are in a request, and how they are taken out of it. Pure.

use std::fmt;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::uri::PathAndQuery;
use http::{HeaderName, Uri};

use crate::site::cookie;

/// Where a token may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// `Authorization: Bearer …` (RFC 6750 §2.1).
    Header,
    /// The cookie of this name.
    Cookie(Box<str>),
    /// The parameter of this name (RFC 6750 §2.3).
    Query(Box<str>),
    /// Behind this in the name of a subprotocol, since pages can't send fields with a handshake.
    Subprotocol(Box<str>),
}

impl TokenPlace {
    /// Reads `header`, `cookie:NAME`, `query:NAME` or `subprotocol:PREFIX`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "header" {
            return Some(Self::Header);
        }
        let (kind, name) = text.split_once(':')?;
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        match kind {
            "cookie" => Some(Self::Cookie(name.into())),
            // What stands in a target as it is (RFC 3986 §2.3).
            "query" if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) => {
                Some(Self::Query(name.into()))
            }
            "subprotocol" => Some(Self::Subprotocol(name.into())),
            _ => None,
        }
    }

    /// A place that the backend never sees the token in: what came there ends up in logs, or in answers.
    #[must_use]
    pub fn is_always_cleared(&self) -> bool {
        matches!(self, Self::Query(_) | Self::Subprotocol(_))
    }

    /// The first token in this place. With `clears`, all of them are taken out.
    pub fn take(&self, headers: &mut HeaderMap, uri: &mut Uri, clears: bool) -> Option<Box<str>> {
        match self {
            Self::Header => {
                let found = headers.get_all(AUTHORIZATION).into_iter().find_map(bearer).map(Into::into);
                if clears && found.is_some() {
                    let rest = headers.get_all(AUTHORIZATION).into_iter();
                    let rest: Vec<HeaderValue> =
                        rest.filter(|value| bearer(value).is_none()).cloned().collect();
                    headers.remove(AUTHORIZATION);
                    for value in rest {
                        headers.append(AUTHORIZATION, value);
                    }
                }
                found
            }
            Self::Cookie(name) => {
                let text = |value: &[u8]| std::str::from_utf8(value).ok().map(Into::into);
                let found = cookie::value(headers, name).and_then(text);
                if clears {
                    cookie::take(headers, name);
                }
                found
            }
            Self::Query(name) => {
                let query = uri.query()?;
                let of = |part: &&str| {
                    let (key, value) = part.split_once('=').unwrap_or((part, ""));
                    (key == &**name).then(|| value.into())
                };
                let token = query.split('&').find_map(|part| of(&part));
                if clears && token.is_some() {
                    let rest: Vec<&str> = query.split('&').filter(|part| of(part).is_none()).collect();
                    let path = uri.path();
                    let text = match &*rest.join("&") {
                        "" => path.to_owned(),
                        rest => format!("{path}?{rest}"),
                    };
                    let mut parts = uri.clone().into_parts();
                    // Parts of what was a target are one; if not, nothing of it goes on.
                    parts.path_and_query =
                        Some(PathAndQuery::try_from(text).unwrap_or(PathAndQuery::from_static("/")));
                    *uri = Uri::from_parts(parts).unwrap_or_default();
                }
                token
            }
            Self::Subprotocol(prefix) => {
                let of = |part: &str| {
                    part.strip_prefix(&**prefix).filter(|token| !token.is_empty()).map(Into::into)
                };
                take_subprotocol(headers, clears, of)
            }
        }
    }

    /// The name of the subprotocol carries a token.
    #[must_use]
    pub fn is_in(&self, subprotocol: &str) -> bool {
        matches!(self, Self::Subprotocol(prefix) if subprotocol.len() > prefix.len() && subprotocol.starts_with(&**prefix))
    }
}

/// The first token in the names of the offered subprotocols.
fn take_subprotocol(
    headers: &mut HeaderMap,
    clears: bool,
    of: impl Fn(&str) -> Option<Box<str>>,
) -> Option<Box<str>> {
    const NAME: HeaderName = SEC_WEBSOCKET_PROTOCOL;
    let values = headers.get_all(NAME).into_iter();
    let all: Vec<String> =
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    let parts = || all.iter().flat_map(|value| value.split(',')).map(str::trim);
    let token = parts().find_map(&of)?;
    if clears {
        let rest: Vec<&str> = parts().filter(|part| !part.is_empty() && of(part).is_none()).collect();
        headers.remove(NAME);
        if let Ok(value) = HeaderValue::try_from(rest.join(", ").into_bytes())
            && !rest.is_empty()
        {
            headers.insert(NAME, value);
        }
    }
    Some(token)
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl fmt::Display for TokenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Subprotocol(prefix) => write!(f, "subprotocol:{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token, and what is left of the fields and the target.
    fn taken(
        place: &str,
        fields: &[(&'static str, &str)],
        target: &str,
    ) -> (Option<Box<str>>, String, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let mut uri = target.parse().unwrap();
        let token = TokenPlace::parse(place).unwrap().take(&mut headers, &mut uri, true);
        let left = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        (token, left.collect::<Vec<_>>().join("|"), uri.to_string())
    }

    #[test]
    fn tokens_are_found_and_taken_out_and_nothing_else_is() {
        for (place, fields, target, token, left, uri) in [
            ("header", &[("authorization", "Bearer a.b.c")][..], "/", Some("a.b.c"), "", "/"),
            ("header", &[("authorization", "bEARER  a.b.c ")], "/", Some("a.b.c"), "", "/"),
            ("header", &[("authorization", "Basic x")], "/", None, "authorization: Basic x", "/"),
            (
                "header",
                &[("authorization", "Basic x"), ("authorization", "Bearer t"), ("authorization", "Bearer u")],
                "/",
                Some("t"),
                "authorization: Basic x",
                "/",
            ),
            (
                "cookie:t",
                &[("cookie", "a=1; t=x.y.z; tt=2;t=w")],
                "/",
                Some("x.y.z"),
                "cookie: a=1; tt=2",
                "/",
            ),
            ("cookie:t", &[("cookie", "a=1"), ("cookie", "t=x")], "/", Some("x"), "cookie: a=1", "/"),
            ("cookie:t", &[("cookie", "t=x")], "/", Some("x"), "", "/"),
            ("cookie:t", &[("cookie", "T=x")], "/", None, "cookie: T=x", "/"),
            ("query:t", &[], "/p?a=1&t=x.y&t=z&b", Some("x.y"), "", "/p?a=1&b"),
            ("query:t", &[], "/p?t=x", Some("x"), "", "/p"),
            ("query:t", &[], "/p?tt=x&u=t=1", None, "", "/p?tt=x&u=t=1"),
            ("query:t", &[], "http://a.test/p?t=x&u", Some("x"), "", "http://a.test/p?u"),
            (
                "subprotocol:bearer.",
                &[
                    ("sec-websocket-protocol", "chat, bearer.x.y.z"),
                    ("sec-websocket-protocol", "mqtt,bearer.w"),
                ],
                "/",
                Some("x.y.z"),
                "sec-websocket-protocol: chat, mqtt",
                "/",
            ),
            ("subprotocol:bearer.", &[("sec-websocket-protocol", "bearer.x")], "/", Some("x"), "", "/"),
            (
                "subprotocol:b.",
                &[("sec-websocket-protocol", "b.")],
                "/",
                None,
                "sec-websocket-protocol: b.",
                "/",
            ),
        ] {
            let expect = (token.map(Into::into), left.to_owned(), uri.to_owned());
            assert_eq!(taken(place, fields, target), expect, "{place} {fields:?} {target}");
        }
    }

    #[test]
    fn places_as_they_are_written() {
        for good in ["header", "cookie:token", "query:access_token", "subprotocol:bearer."] {
            assert_eq!(TokenPlace::parse(good).unwrap().to_string(), good);
        }
        for bad in
            ["", "Header", "header:X", "cookie:", "cookie:a b", "query:a&b", "subprotocol:a,b", "body:t"]
        {
            assert_eq!(TokenPlace::parse(bad), None, "{bad}");
        }
    }
}
