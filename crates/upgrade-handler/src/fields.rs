//! Lists in header fields (RFC 9110 §5.6).

use http::HeaderMap;
use http::header::{AsHeaderName, HeaderValue};

/// The elements of all lines of a list field, trimmed, empty ones left out. Commas in quoted
/// strings don't count. Lines that are not visible ASCII are passed over.
pub fn elements(headers: &HeaderMap<HeaderValue>, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| split(line, ','))
}

/// The elements of all lines of a field that is a list of tokens, trimmed, empty ones left out. A token has no
/// quotes (RFC 9110 §5.6.2), so an unfinished one doesn't hide those behind it, nor does a byte that is not
/// ASCII: only its own element is passed over.
pub fn tokens(headers: &HeaderMap<HeaderValue>, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|element| str::from_utf8(element.trim_ascii()).ok())
        .filter(|element| !element.is_empty() && element.is_ascii())
}

/// Some element of a list of tokens is this one, in whatever case (RFC 9110 §7.6.1, §7.8).
pub fn has_token(headers: &HeaderMap<HeaderValue>, name: impl AsHeaderName, token: &str) -> bool {
    tokens(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

/// Splits outside quoted strings; trims; leaves empty parts out.
pub(crate) fn split(text: &str, at: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == at => return !quoted,
            _ => {}
        }
        false
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let all = |text| split(text, ',').collect::<Vec<_>>();
        assert_eq!(all("a, b,,c ,"), ["a", "b", "c"]);
        assert_eq!(all(r#"a; x="1,2", b"#), [r#"a; x="1,2""#, "b"]);
        assert_eq!(all(r#"a="\",", b"#), [r#"a="\",""#, "b"]);
        assert_eq!(all(r"a\, b"), [r"a\", "b"], "only a quoted string has escapes (RFC 9110 §5.6.4)");
        assert_eq!(all(""), Vec::<&str>::new());
    }

    #[test]
    fn tokens_in_any_line_and_case() {
        let mut headers = HeaderMap::new();
        headers.append("connection", HeaderValue::from_static("keep-alive"));
        headers.append("connection", HeaderValue::from_static("x, UPGRADE"));
        assert!(has_token(&headers, "connection", "upgrade"));
        assert!(!has_token(&headers, "connection", "grade"));
        assert!(!has_token(&headers, "upgrade", "websocket"));
    }

    #[test]
    fn tokens_beside_what_is_none() {
        for (line, expect) in [
            (&b"a, \xff, b"[..], &["a", "b"][..]),
            ("a, ü, b".as_bytes(), &["a", "b"]),
            (b"a,\xfc x,\tb\t", &["a", "b"]),
            (b"a, \", b", &["a", "\"", "b"]),
            (b"a,b;q=\",c", &["a", "b;q=\"", "c"]),
            (b"a,, ,b,", &["a", "b"]),
        ] {
            let mut headers = HeaderMap::new();
            headers.append("connection", HeaderValue::from_bytes(line).unwrap());
            let all: Vec<_> = tokens(&headers, "connection").collect();
            assert_eq!(all, expect, "{line:?}");
        }
    }
}
