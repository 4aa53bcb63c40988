//! Fields of one hop: between two neighbours on the way of a message, and not passed on (RFC 9110 §7.6.1). Pure.

use http::header::{CONNECTION, HeaderMap, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};

use crate::fields::tokens;

/// Fields of one hop, whether or not Connection names them.
static HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A field of this name (in lower case) belongs to one hop. Most names differ from all of these in their length already.
#[inline]
#[must_use]
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade")
}

/// Removes the fields of one hop, and those that Connection names.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Most heads have none; comparing all names finds that faster than a look-up of each.
    if !headers.keys().any(|name| is_hop_by_hop(name.as_str())) {
        return;
    }
    let named: Vec<HeaderName> =
        tokens(headers, CONNECTION).filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    #[test]
    fn fields_of_one_hop_are_known_by_their_names() {
        assert!(HOP_BY_HOP.iter().all(|name| is_hop_by_hop(name.as_str())));
        let others = ["trailer", "host", "content-length", "keep-alive2"];
        assert!(!others.into_iter().any(is_hop_by_hop));
    }

    #[test]
    fn they_go_and_what_connection_names_goes_with_them() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "X-One, close"),
            ("x-one", "1"),
            ("keep-alive", "5"),
            ("x-two", "2"),
            ("te", "trailers"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-two"]);
    }
}
