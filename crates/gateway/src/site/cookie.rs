//! Cookies in the fields of a request (RFC 6265 §4.2.1): their values, and how they are taken out. Pure.

use http::header::{COOKIE, HeaderMap, HeaderValue};

/// The value of a cookie, the first of its name.
#[must_use]
pub fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs =
        headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(parts).find_map(|(own, value)| value.filter(|_| own == name.as_bytes()))
}

/// Takes every cookie of this name out of a request's fields. Returns their values, of which a client may have several
/// for several paths: the first is that of the longest (RFC 6265 §5.4).
pub fn take(headers: &mut HeaderMap, name: &str) -> Vec<Vec<u8>> {
    let is_ours = |pair: &&[u8]| parts(pair).0 == name.as_bytes();
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).into_iter().cloned().collect();
    let pairs =
        |line: &'_ HeaderValue| line.as_bytes().split(|byte| *byte == b';').any(|pair| is_ours(&pair));
    if !lines.iter().any(pairs) {
        return Vec::new();
    }
    headers.remove(COOKIE);
    let mut found = Vec::new();
    for line in &lines {
        let pairs = line.as_bytes().split(|byte| *byte == b';');
        let (ours, others): (Vec<&[u8]>, Vec<_>) = pairs.partition(is_ours);
        found.extend(ours.into_iter().filter_map(|pair| parts(pair).1).map(<[u8]>::to_vec));
        let rest = others.into_iter().map(<[u8]>::trim_ascii).collect::<Vec<_>>().join(&b"; "[..]);
        if let Some(rest) = HeaderValue::from_bytes(&rest).ok().filter(|rest| !rest.is_empty()) {
            headers.append(COOKIE, rest);
        }
    }
    found
}

/// The name and the value; `None`: there is no `=`.
fn parts(pair: &[u8]) -> (&[u8], Option<&[u8]>) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (pair[..at].trim_ascii(), Some(pair[at + 1..].trim_ascii())),
        None => (pair.trim_ascii(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_name_are_taken_out_and_other_bytes_stay() {
        let mut headers = HeaderMap::new();
        for line in [&b"a=\xff; t = x=y ;t"[..], b"t=", b"tt=1;b"] {
            headers.append(COOKIE, HeaderValue::from_bytes(line).unwrap());
        }
        assert_eq!(value(&headers, "t"), Some(&b"x=y"[..]));
        assert_eq!((value(&headers, "b"), value(&headers, "T")), (None, None));
        assert_eq!(take(&mut headers, "t"), [&b"x=y"[..], b""]);
        let left: Vec<_> = headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(left, [&b"a=\xff"[..], b"tt=1; b"]);
        assert!(take(&mut headers, "t").is_empty());
    }
}
