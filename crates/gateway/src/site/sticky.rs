//! Cookies that bring a client back to the server that it had. Pure.
//!
//! In: the Cookie fields of a request. Out: the position of the server that it belongs to, the fields without the
//! cookie, and the cookie for the answer. The value is a mark of the server's address by a secret key: it says nothing
//! about the address, and only a gateway with the key can make one.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use tls_acceptor::SigningKeys;

use crate::site::cookie;
use crate::site::endpoint::Endpoint;
use crate::site::matcher::PathMatcher;
use crate::site::written::Place;

/// How clients come back to their server.
#[derive(Debug)]
pub struct Sticky {
    /// The name of the cookie.
    pub cookie: Box<str>,
    /// How long the client keeps it; `None`: until it is closed.
    pub max_age: Option<Duration>,
    /// Where the keys are; `None`: there is a random one.
    pub key_file: Option<PathBuf>,
    /// Where the configuration says so.
    pub written_at: Place,
    /// Those of the file, from when it was read.
    keys: OnceLock<SigningKeys>,
}

impl Sticky {
    /// The name of the cookie where nothing is said.
    pub const COOKIE: &str = "wssgate_server";

    /// Its file is not read yet: see [`Self::prepare`].
    #[must_use]
    pub fn new(cookie: &str) -> Self {
        let (max_age, key_file) = (None, None);
        Self { cookie: cookie.into(), max_age, key_file, written_at: Place::default(), keys: OnceLock::new() }
    }

    /// Sets the keys of the file; only the first count.
    pub fn prepare(&self, keys: SigningKeys) {
        let _ = self.keys.set(keys);
    }

    /// The keys of the file.
    #[must_use]
    pub(super) fn keys(&self) -> Option<&SigningKeys> {
        self.keys.get()
    }

    /// The cookie for an answer of a route that matches `path`. `is_secure`: it is only for encrypted connections.
    #[must_use]
    pub fn field(&self, value: u128, path: &PathMatcher, is_secure: bool) -> Option<HeaderValue> {
        let path = match path {
            PathMatcher::Prefix(path) => path.to_string(),
            PathMatcher::Exact(path) => path.as_str().to_owned(),
            PathMatcher::Regex(_) => "/".to_owned(),
        };
        // A semicolon would end the attribute (RFC 6265 §4.1.1).
        let path = if path.contains(';') { "/" } else { &path };
        let mut field = format!("{}={value:032x}; Path={path}", self.cookie);
        if let Some(max_age) = self.max_age {
            let _ = write!(field, "; Max-Age={}", max_age.as_secs().max(1)); // a String takes everything
        }
        field += if is_secure { "; Secure; HttpOnly; SameSite=Lax" } else { "; HttpOnly; SameSite=Lax" };
        HeaderValue::try_from(field).ok()
    }

    /// Takes the cookie out of a request's fields. Returns its values.
    pub fn take(&self, headers: &mut HeaderMap) -> Vec<u128> {
        cookie::take(headers, &self.cookie).iter().filter_map(|digits| value(digits)).collect()
    }
}

/// What [`Sticky::field`] has written.
fn value(digits: &[u8]) -> Option<u128> {
    let digits = std::str::from_utf8(digits).ok()?;
    let is_good = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_good.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

/// The marks of the servers of an upstream.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    /// By position.
    current: Vec<u128>,
    /// Those of earlier keys among them.
    known: HashMap<u128, usize>,
}

impl Marks {
    /// The marks of these servers of an upstream with the key `upstream`.
    pub(super) fn new<'a>(
        keys: &SigningKeys,
        upstream: &str,
        servers: impl Iterator<Item = &'a Endpoint>,
    ) -> Self {
        let mut marks = Self::default();
        for (i, server) in servers.enumerate() {
            let text = format!("sticky {upstream}\n{}", server.name());
            for (n, mark) in keys.marks(text.as_bytes()).map(u128::from_be_bytes).enumerate() {
                if n == 0 {
                    marks.current.push(mark);
                }
                marks.known.insert(mark, i);
            }
        }
        marks
    }

    /// The server with this mark.
    pub(super) fn find(&self, mark: u128) -> Option<usize> {
        self.known.get(&mark).copied()
    }

    /// The mark that a client of this server gets.
    pub(super) fn of(&self, server: usize) -> Option<u128> {
        self.current.get(server).copied()
    }
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;
    use crate::site::path::RoutePath;

    fn taken(lines: &[&'static str]) -> (Vec<u128>, Vec<String>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_static(line));
        }
        let values = Sticky::new("id").take(&mut headers);
        let left = headers.get_all(COOKIE).into_iter().map(|line| line.to_str().unwrap().to_owned());
        (values, left.collect())
    }

    #[test]
    fn the_cookie_is_taken_out_and_the_others_stay() {
        const A: &str = "id=0000000000000000000000000000000a";
        for (lines, values, left) in [
            (vec!["a=1; b=2"], vec![], vec!["a=1; b=2"]),
            (vec!["a=1;b=2", "id2=3"], vec![], vec!["a=1;b=2", "id2=3"]),
            (vec![A], vec![10], vec![]),
            (vec!["a=1;  id=0000000000000000000000000000000A ;b=2"], vec![10], vec!["a=1; b=2"]),
            (vec!["a=1", A, "b=2"], vec![10], vec!["a=1", "b=2"]),
            (vec!["id=1; a=x=y", "id; id=; id=+000000000000000000000000000000a"], vec![], vec!["a=x=y"]),
            (
                vec!["id=0000000000000000000000000000000a; id=0000000000000000000000000000000b"],
                vec![10, 11],
                vec![],
            ),
        ] {
            let left: Vec<String> = left.into_iter().map(str::to_owned).collect();
            assert_eq!(taken(&lines), (values, left), "{lines:?}");
        }
    }

    #[test]
    fn the_cookie_of_an_answer() {
        let prefix = |path: &str| PathMatcher::Prefix(RoutePath::parse(path).unwrap());
        let mut sticky = Sticky::new("id");
        let field = |sticky: &Sticky, path, is_secure| {
            sticky.field(10, &path, is_secure).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(
            field(&sticky, prefix("/wss"), true),
            "id=0000000000000000000000000000000a; Path=/wss; Secure; HttpOnly; SameSite=Lax"
        );
        sticky.max_age = Some(Duration::from_secs(86400));
        assert_eq!(
            field(&sticky, prefix("/"), false),
            "id=0000000000000000000000000000000a; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn each_server_has_a_mark_that_others_can_not_make() {
        let servers = [Endpoint::new("10.0.0.1", 80), Endpoint::new("10.0.0.2", 80)];
        let marks = |secret, upstream| Marks::new(&SigningKeys::new(&[secret; 32]), upstream, servers.iter());
        let ours = marks(7, "chat");
        for i in 0..2 {
            assert_eq!(ours.find(ours.of(i).unwrap()), Some(i));
            for others in [marks(8, "chat"), marks(7, "other")] {
                assert_eq!(ours.find(others.of(i).unwrap()), None);
            }
        }
        assert_eq!((ours.find(0), ours.of(2)), (None, None));
    }
}
