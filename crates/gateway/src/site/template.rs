//! Texts with placeholders, such as `https://{host}{path}`: read once, filled in for each request. Pure.
//!
//! A value is put in as it is, never decoded. `{` before anything but a name in small letters or a digit is itself, so that
//! JSON can be written; `{{` is one `{`.

use std::fmt;

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// The host that was asked for, without its port.
    Host,
    /// The path as it was sent.
    Path,
    /// The query as it was sent, with its `?`; nothing where there is none.
    Query,
    /// The part of the path behind the route's own, as it was sent.
    Rest,
    /// The client's address.
    Client,
    /// The port that was asked for.
    Port,
    /// The method.
    Method,
    /// `https` or `http`.
    Scheme,
    /// The name in the TLS handshake; empty without one.
    ServerName,
    /// The version of TLS; empty without TLS.
    TlsVersion,
    /// The subject of the client's certificate (RFC 4514); empty without one.
    CertificateSubject,
    /// SHA-256 of the client's certificate, in hexadecimal digits; empty without one.
    CertificateFingerprint,
    /// The client's certificate as RFC 9440 writes it; empty without one.
    Certificate,
    /// The id of the request.
    RequestId,
    /// The backend's own name, with its port.
    Upstream,
    /// What a group of the route's `path_regex` has matched, counted from 1.
    Group(u8),
}

/// Names of placeholders, as a configuration writes them.
const NAMES: [(&str, Placeholder); 24] = [
    ("host", Placeholder::Host),
    ("path", Placeholder::Path),
    ("query", Placeholder::Query),
    ("rest", Placeholder::Rest),
    ("client", Placeholder::Client),
    ("port", Placeholder::Port),
    ("method", Placeholder::Method),
    ("scheme", Placeholder::Scheme),
    ("server_name", Placeholder::ServerName),
    ("tls_version", Placeholder::TlsVersion),
    ("certificate_subject", Placeholder::CertificateSubject),
    ("certificate_fingerprint", Placeholder::CertificateFingerprint),
    ("certificate", Placeholder::Certificate),
    ("request_id", Placeholder::RequestId),
    ("upstream", Placeholder::Upstream),
    ("1", Placeholder::Group(1)),
    ("2", Placeholder::Group(2)),
    ("3", Placeholder::Group(3)),
    ("4", Placeholder::Group(4)),
    ("5", Placeholder::Group(5)),
    ("6", Placeholder::Group(6)),
    ("7", Placeholder::Group(7)),
    ("8", Placeholder::Group(8)),
    ("9", Placeholder::Group(9)),
];

/// What a request for a redirect or a fixed answer has to put in.
pub const OF_TARGET: &[Placeholder] = &[
    Placeholder::Host,
    Placeholder::Path,
    Placeholder::Query,
    Placeholder::Rest,
    Placeholder::Group(1),
    Placeholder::Group(2),
    Placeholder::Group(3),
    Placeholder::Group(4),
    Placeholder::Group(5),
    Placeholder::Group(6),
    Placeholder::Group(7),
    Placeholder::Group(8),
    Placeholder::Group(9),
];

/// What a request has to put into the path that a server gets: the groups, which are the last of these.
pub const OF_REWRITE: &[Placeholder] = OF_TARGET.split_at(OF_TARGET.len() - 9).1;

/// What a field may have.
pub const OF_FIELD: &[Placeholder] = &[
    Placeholder::Host,
    Placeholder::Path,
    Placeholder::Query,
    Placeholder::Rest,
    Placeholder::Client,
    Placeholder::Port,
    Placeholder::Method,
    Placeholder::Scheme,
    Placeholder::ServerName,
    Placeholder::TlsVersion,
    Placeholder::RequestId,
    Placeholder::Upstream,
    Placeholder::CertificateSubject,
    Placeholder::CertificateFingerprint,
    Placeholder::Certificate,
];

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Box<[Piece]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Value(Placeholder),
}

impl Template {
    /// Reads a text in which the placeholders that are `known` may stand.
    ///
    /// # Errors
    /// A sentence about a placeholder that is not known.
    pub fn parse(text: &str, known: &[Placeholder]) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            plain.push_str(&rest[..at]);
            let behind = &rest[at + 1..];
            if let Some(escaped) = behind.strip_prefix('{') {
                plain.push('{');
                rest = escaped;
                continue;
            }
            let Some(name) = name_of(behind) else {
                plain.push('{');
                rest = behind;
                continue;
            };
            let value = NAMES.iter().find(|(other, value)| *other == name && known.contains(value));
            let Some((_, value)) = value else { return Err(unknown(name, known)) };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Value(*value));
            rest = &behind[name.len() + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Self(pieces.into()))
    }

    /// The text, if it has no placeholder.
    #[must_use]
    pub fn constant(&self) -> Option<&str> {
        match &*self.0 {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The placeholder stands in it.
    #[must_use]
    pub fn contains(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Piece::Value(placeholder))
    }

    /// A value of the client's certificate stands in it.
    #[must_use]
    pub fn is_about_client(&self) -> bool {
        [Placeholder::CertificateSubject, Placeholder::CertificateFingerprint, Placeholder::Certificate]
            .into_iter()
            .any(|placeholder| self.contains(placeholder))
    }

    /// The parts before, between and behind those places where the placeholder stands.
    #[must_use]
    pub fn split(&self, placeholder: Placeholder) -> Vec<Self> {
        self.0.split(|piece| *piece == Piece::Value(placeholder)).map(|part| Self(part.into())).collect()
    }

    /// The highest group of a pattern that stands in it; 0: none.
    #[must_use]
    pub fn groups(&self) -> usize {
        let group = |piece: &Piece| match piece {
            Piece::Value(Placeholder::Group(number)) => usize::from(*number),
            _ => 0,
        };
        self.0.iter().map(group).max().unwrap_or(0)
    }

    /// The text up to the first placeholder.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.0.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// The text with every value in its place.
    #[must_use]
    pub fn fill<'a>(&'a self, value: impl Fn(Placeholder) -> &'a str) -> String {
        let mut filled = String::new();
        for piece in &self.0 {
            filled.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Value(placeholder) => value(*placeholder),
            });
        }
        filled
    }
}

/// The name at the beginning of `text`, if a placeholder stands there.
fn name_of(text: &str) -> Option<&str> {
    let name = &text[..text.find('}')?];
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let is_group = matches!(name.as_bytes(), [b'1'..=b'9']);
    (is_name || is_group).then_some(name)
}

fn unknown(name: &str, known: &[Placeholder]) -> String {
    let known = known.iter().filter(|placeholder| !matches!(placeholder, Placeholder::Group(2..)));
    let known: Vec<_> = known.map(|placeholder| format!("{{{}}}", placeholder.name())).collect();
    format!(
        "the placeholder {{{name}}} is not known here; known are {}; write {{{{ for a brace that is no placeholder",
        known.join(", ")
    )
}

impl Placeholder {
    fn name(self) -> &'static str {
        NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => f.write_str(text)?,
                Piece::Value(placeholder) => write!(f, "{{{}}}", placeholder.name())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let template = Template::parse(text, OF_TARGET)?;
        Ok(template.fill(|placeholder| match placeholder {
            Placeholder::Host => "domain.com",
            Placeholder::Path => "/a%2fb",
            Placeholder::Query => "?c={path}",
            _ => "",
        }))
    }

    #[test]
    fn values_are_put_in_and_never_read_again() {
        for (text, expect) in [
            ("", ""),
            ("plain", "plain"),
            ("https://{host}{path}{query}", "https://domain.com/a%2fb?c={path}"),
            ("{rest}{rest}/", "/"),
            ("{\"ok\": {\"a\": 1}}", "{\"ok\": {\"a\": 1}}"),
            ("{{host}", "{host}"),
            ("{} {", "{} {"),
            ("${HOME}", "${HOME}"),
            ("a}{host}", "a}domain.com"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expect), "{text}");
        }
    }

    #[test]
    fn a_placeholder_that_is_not_known_is_named() {
        for text in ["{uri}", "a{hosts}", "{path_regex}"] {
            let what = filled(text).unwrap_err();
            assert!(what.contains("known are {host}, {path}, {query}, {rest}"), "{what}");
        }
        assert!(Template::parse("{host}", &[Placeholder::Path]).is_err());
    }

    #[test]
    fn it_shows_what_was_written() {
        let template = Template::parse("https://{host}/new{rest}", OF_TARGET).unwrap();
        assert_eq!(template.to_string(), "https://{host}/new{rest}");
        assert_eq!((template.prefix(), template.constant()), ("https://", None));
        assert_eq!(Template::parse("/new", OF_TARGET).unwrap().constant(), Some("/new"));
        assert!(template.contains(Placeholder::Host) && !template.contains(Placeholder::Path));
        let parts: Vec<_> = template.split(Placeholder::Host).iter().map(ToString::to_string).collect();
        assert_eq!(parts, ["https://", "/new{rest}"]);
        assert_eq!(template.split(Placeholder::Path), [template]);
    }
}
