//! How a route finds out who sends a request. Pure.

use http::{HeaderMap, HeaderName};

/// How a route finds out who sends a request, beyond the client's address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// The fields that tell the backend what was found out: clients can't send them.
    pub reserved: Reserved,
}

/// Names of fields that only the gateway sets. Clients send them in no spelling: to CGI and its successors `_` is `-`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved(Vec<Box<str>>);

impl Reserved {
    /// Nothing but the gateway may set these fields.
    pub fn extend<'a>(&mut self, names: impl IntoIterator<Item = &'a HeaderName>) {
        self.0.extend(names.into_iter().map(|name| dashed(name).into_boxed_str()));
        self.0.sort_unstable();
        self.0.dedup();
    }

    /// The name is one of them, in some spelling.
    #[must_use]
    pub fn covers(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|reserved| is_spelling(name, reserved))
    }

    /// Takes them out of what a client has sent.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let found: Vec<_> = headers.keys().filter(|name| self.covers(name)).cloned().collect();
        for name in found {
            headers.remove(name);
        }
    }
}

fn dashed(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// `name` is lower case, as all names of this type.
fn is_spelling(name: &HeaderName, reserved: &str) -> bool {
    let bytes = name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
    name.as_str().len() == reserved.len() && bytes.eq(reserved.bytes())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn every_spelling_is_taken_out_and_no_other_name() {
        let mut reserved = Reserved::default();
        reserved.extend([&HeaderName::from_static("remote-user"), &HeaderName::from_static("x_group")]);
        let mut headers = HeaderMap::new();
        let names =
            ["remote-user", "remote_user", "x-group", "x_group", "remote-users", "remoteuser", "xgroup"];
        for name in names {
            headers.append(name, HeaderValue::from_static("evil"));
            headers.append(name, HeaderValue::from_static("twice"));
        }
        headers.append(HeaderName::from_bytes(b"Remote_User").unwrap(), HeaderValue::from_static("evil"));
        reserved.strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["remote-users", "remoteuser", "xgroup"]);
    }
}
