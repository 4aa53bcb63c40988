//! URLs of NATS. Pure.

use percent_encoding::percent_decode_str;

const PORT: u16 = 4222;

/// Where NATS is, and who logs in there.
#[derive(Clone)]
pub(in crate::cluster) struct NatsUrl {
    pub(super) servers: Vec<(String, u16)>,
    pub(super) is_tls: bool,
    pub(super) user: Option<String>,
    /// Without a user it is a token.
    pub(super) secret: Option<String>,
}

impl std::fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsUrl")
            .field("servers", &self.servers)
            .field("is_tls", &self.is_tls)
            .finish_non_exhaustive()
    }
}

impl NatsUrl {
    /// `None`: another engine's.
    ///
    /// # Errors
    /// What is wrong, without the URL.
    pub(in crate::cluster) fn parse(url: &str) -> Option<Result<Self, String>> {
        match url.split_once("://")? {
            ("nats", rest) => Some(Self::read(rest, false)),
            ("tls", rest) => Some(Self::read(rest, true)),
            _ => None,
        }
    }

    pub(in crate::cluster) fn says_who(&self) -> bool {
        self.user.is_some() || self.secret.is_some()
    }

    fn read(rest: &str, is_tls: bool) -> Result<Self, String> {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, hosts) = match rest.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, rest),
        };
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            text.map(String::from).map_err(|_| "user or password is not UTF-8".to_owned())
        };
        let (user, secret) = match login.map(|login| login.split_once(':').ok_or(login)) {
            None => (None, None),
            Some(Err(token)) => (None, Some(decoded(token)?)),
            Some(Ok((user, password))) => (Some(decoded(user)?), Some(decoded(password)?)),
        };
        let servers = hosts.split(',').map(server).collect::<Result<_, _>>()?;
        Ok(Self { servers, is_tls, user, secret })
    }
}

fn server(text: &str) -> Result<(String, u16), String> {
    let is_port = |(_, port): &(&str, &str)| !port.ends_with(']');
    let (host, port) = match text.rsplit_once(':').filter(is_port) {
        Some((host, port)) => (host, port.parse().map_err(|_| "a port is no number".to_owned())?),
        None => (text, PORT),
    };
    let is_host =
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    is_host.then(|| (host.to_owned(), port)).ok_or_else(|| "there is no host, or it is no name".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> NatsUrl {
        NatsUrl::parse(url).unwrap().unwrap()
    }

    #[test]
    fn urls_lead_to_servers() {
        let server = |host: &str, port| (host.to_owned(), port);
        assert_eq!(parsed("nats://a.test").servers, [server("a.test", 4222)]);
        let several = parsed("tls://ann:p%40ss@a.test:7000,[::1],[::2]:8000/");
        assert_eq!(several.servers, [server("a.test", 7000), server("[::1]", 4222), server("[::2]", 8000)]);
        assert_eq!(
            (several.is_tls, several.user.as_deref(), several.secret.as_deref()),
            (true, Some("ann"), Some("p@ss"))
        );
        let token = parsed("nats://token@a.test");
        assert_eq!((token.user, token.secret.as_deref()), (None, Some("token")));
        assert!(NatsUrl::parse("redis://a.test").is_none() && NatsUrl::parse("a.test").is_none());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for url in ["nats://", "nats://:secret@", "nats://u:secret@a:x", "nats://secret@a/b", "tls://a,,b"] {
            let error = NatsUrl::parse(url).unwrap().map(|_| ()).unwrap_err();
            assert!(!error.contains("secret"), "{url}: {error}");
        }
        assert!(!format!("{:?}", parsed("nats://u:secret@a.test")).contains("secret"));
    }
}
