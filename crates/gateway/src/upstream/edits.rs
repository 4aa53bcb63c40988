//! Fields that a route gives to its backend. Pure.

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};

use crate::site::auth::Reserved;
use crate::site::endpoint::Endpoint;

/// What is changed of a request's fields, with every value in its place.
#[derive(Debug, Default)]
pub(crate) struct Edits<'a> {
    /// Names that clients send in no spelling, whether or not a value is put.
    pub reserved: Option<&'a Reserved>,
    /// Removed.
    pub remove: Vec<&'a HeaderName>,
    /// Put behind the others. Those with `true` stand in place of all others of their name.
    pub put: Vec<(bool, &'a HeaderName, &'a str, EditValue)>,
}

/// The value of a field that is put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EditValue {
    /// The same for every server.
    Whole(HeaderValue),
    /// The name of the server stands between these.
    AroundServer(Vec<String>),
}

impl From<HeaderValue> for EditValue {
    fn from(value: HeaderValue) -> Self {
        Self::Whole(value)
    }
}

impl EditValue {
    /// For this server; `None`: that is no value of a field.
    fn of(&self, server: &Endpoint) -> Option<HeaderValue> {
        match self {
            Self::Whole(value) => Some(value.clone()),
            Self::AroundServer(parts) => {
                let name = server.field();
                HeaderValue::try_from(parts.join(name.to_str().unwrap_or_default())).ok()
            }
        }
    }
}

impl Edits<'_> {
    /// Some value depends on the server.
    pub(crate) fn names_server(&self) -> bool {
        self.put.iter().any(|(.., value)| matches!(value, EditValue::AroundServer(_)))
    }

    /// Changes a head for `server`, and the lines of ours that stand behind it.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, lines: &mut Vec<u8>, server: &Endpoint) {
        if let Some(reserved) = self.reserved {
            reserved.strip(headers);
        }
        let removed = self.remove.iter().copied();
        let replaced = self.put.iter().filter(|(replaces, name, ..)| *replaces && **name != HOST);
        for name in removed.chain(replaced.map(|(_, name, ..)| *name)) {
            headers.remove(name);
            remove_line(name, lines);
        }
        for (_, name, spelled, value) in &self.put {
            let Some(value) = value.of(server) else { continue };
            if **name == HOST {
                headers.insert(HOST, value); // it has its place in front
                continue;
            }
            for part in [spelled.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
    }
}

/// Takes the lines of a field out of ours.
fn remove_line(name: &HeaderName, lines: &mut Vec<u8>) {
    let is_other = |line: &&[u8]| {
        let colon = line.iter().position(|byte| *byte == b':');
        colon.is_none_or(|at| !line[..at].eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    if lines.split_inclusive(|byte| *byte == b'\n').all(|line| is_other(&line)) {
        return;
    }
    *lines = lines.split_inclusive(|byte| *byte == b'\n').filter(is_other).flatten().copied().collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_changed_like_the_clients() {
        let name = HeaderName::from_static;
        let (a, b, real, via) = (name("x-a"), name("x-b"), name("x-real-ip"), name("via"));
        let value = HeaderValue::from_static;
        let mut headers: HeaderMap =
            [(a.clone(), value("1")), (b.clone(), value("2")), (HOST, value("a.test"))].into_iter().collect();
        let mut lines = b"X-Real-IP: 1.1.1.1\r\nVia: 1.1 wssgate\r\n".to_vec();
        let edits = Edits {
            reserved: None,
            remove: vec![&a, &via],
            put: vec![
                (true, &real, "X-Real-Ip", value("2.2.2.2").into()),
                (false, &b, "X-B", value("3").into()),
                (true, &HOST, "Host", EditValue::AroundServer(vec![String::new(), String::new()])),
            ],
        };
        assert!(edits.names_server());
        edits.apply(&mut headers, &mut lines, &Endpoint::new("b.test", 8080));
        assert_eq!(String::from_utf8(lines).unwrap(), "X-Real-Ip: 2.2.2.2\r\nX-B: 3\r\n");
        assert!(!headers.contains_key("x-a"));
        assert_eq!((&headers["x-b"], &headers["host"]), (&value("2"), &value("b.test:8080")));
    }
}
