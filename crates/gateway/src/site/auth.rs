//! How a route finds out who sends a request. Pure.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::net::fields::remove_where;
use crate::site::endpoint::Endpoint;
use crate::site::htpasswd::Htpasswd;
use crate::site::jwt::Jwt;
use crate::site::rate::Rate;
use crate::site::written::Place;

/// How a route finds out who sends a request, beyond the client's address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// The fields that tell the backend what was found out: clients can't send them.
    pub reserved: Reserved,
    /// After so many passwords and tokens that were refused, a client's requests are.
    pub failures: Option<Rate>,
    /// Users with passwords.
    pub basic: Option<Basic>,
    /// Every request needs a token.
    pub jwt: Option<Jwt>,
    /// A server that is asked about each request.
    pub forward: Option<Forward>,
    /// How often it is asked for live sessions again; `None`: never.
    pub recheck: Option<Duration>,
    /// How long a session lives on when it can't be asked.
    pub recheck_grace: Duration,
}

/// A server that is asked about each request.
#[derive(Debug, Clone)]
pub struct Forward {
    /// Where it is.
    pub endpoint: Arc<Endpoint>,
    /// Where the configuration names it.
    pub written_at: Place,
    /// Path and query of the question.
    pub uri: Uri,
    /// Fields of its answer that the backend gets.
    pub copy: Vec<HeaderName>,
    /// Which of them names the user.
    pub subject: Option<HeaderName>,
    /// How long it may take for its answer.
    pub timeout: Duration,
}

impl PartialEq for Forward {
    fn eq(&self, other: &Self) -> bool {
        let Self { endpoint, written_at: _, uri, copy, subject, timeout } = self;
        (endpoint, uri, copy, subject, timeout)
            == (&other.endpoint, &other.uri, &other.copy, &other.subject, &other.timeout)
    }
}

impl Eq for Forward {}

/// Users with passwords (RFC 7617).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basic {
    /// The users.
    pub users: UserFile,
    /// What clients are told of the place that the password is for.
    pub realm: Box<str>,
    /// The field in which the backend gets the user's name.
    pub user_header: Option<HeaderName>,
    /// The backend gets the password, too.
    pub pass_password: bool,
}

/// A file with users.
#[derive(Debug, Clone)]
pub struct UserFile {
    /// Where it is.
    pub path: PathBuf,
    /// Where the configuration names it.
    pub written_at: Place,
    /// What is in it, and whether every user of the machine can read it; from when it was read.
    read: OnceLock<(Arc<Htpasswd>, bool)>,
}

impl UserFile {
    /// It is not read yet: see [`Self::prepare`].
    #[must_use]
    pub fn new(path: PathBuf, written_at: Place) -> Self {
        Self { path, written_at, read: OnceLock::new() }
    }

    /// Sets what was read of it; only the first counts.
    pub fn prepare(&self, users: Htpasswd, is_open: bool) {
        let _ = self.read.set((Arc::new(users), is_open));
    }

    /// The users. They are there before requests are served.
    #[must_use]
    pub fn get(&self) -> Option<&Arc<Htpasswd>> {
        self.read.get().map(|(users, _)| users)
    }

    /// Every user of the machine can read it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.read.get().is_some_and(|(_, is_open)| *is_open)
    }
}

impl PartialEq for UserFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for UserFile {}

impl Basic {
    /// WWW-Authenticate.
    #[must_use]
    pub fn challenge(&self) -> HeaderValue {
        let realm = self.realm.replace('\\', "\\\\").replace('"', "\\\"");
        let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
        HeaderValue::from_str(&challenge).unwrap_or(HeaderValue::from_static("Basic realm=\"login\""))
    }
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

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name is one of them, in some spelling.
    #[must_use]
    pub fn covers(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|reserved| is_spelling(name, reserved))
    }

    /// Takes them out of the fields or the trailers that a client has sent.
    pub fn strip(&self, headers: &mut HeaderMap) {
        remove_where(headers, |name| self.covers(name));
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
