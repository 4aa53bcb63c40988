//! URLs of Redis. Pure.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is, and who logs in there.
#[derive(Clone)]
pub(in crate::cluster) struct RedisUrl {
    pub(super) place: Place,
    pub(super) is_tls: bool,
    pub(super) settings: RedisConnectionInfo,
    /// Who logs in at sentinels.
    pub(super) sentinel_settings: RedisConnectionInfo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
    Sentinels { sentinels: Vec<(String, u16)>, service: String },
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisUrl")
            .field("place", &self.place)
            .field("is_tls", &self.is_tls)
            .finish_non_exhaustive()
    }
}

impl RedisUrl {
    /// # Errors
    /// What is wrong, without the URL.
    pub(in crate::cluster) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("there is no `://`")?;
        match scheme {
            "redis" | "valkey" => Self::tcp(rest, false),
            "rediss" | "valkeys" => Self::tcp(rest, true),
            "redis+unix" | "valkey+unix" | "unix" => Self::unix(rest),
            "redis+sentinel" | "valkey+sentinel" => Self::sentinels(rest, false),
            "rediss+sentinel" | "valkeys+sentinel" => Self::sentinels(rest, true),
            _ => Err(
                "the scheme is none of redis, rediss, redis+unix, redis+sentinel, rediss+sentinel, nats, tls"
                    .to_owned(),
            ),
        }
    }

    fn tcp(rest: &str, is_tls: bool) -> Result<Self, String> {
        if rest.contains(['?', '#']) {
            return Err("nothing may stand behind `?` or `#`; in a password they are %3F and %23".to_owned());
        }
        let (address, settings) = read(&format!("redis://{rest}"))?;
        let ConnectionAddr::Tcp(host, port) = address else { return Err("there is no host".to_owned()) };
        Ok(Self { place: Place::Tcp { host, port }, is_tls, settings, sentinel_settings: nobody() })
    }

    fn unix(rest: &str) -> Result<Self, String> {
        let (address, settings) = read(&format!("unix://{rest}"))?;
        let ConnectionAddr::Unix(path) = address else { return Err("there is no path".to_owned()) };
        Ok(Self { place: Place::Unix(path), is_tls: false, settings, sentinel_settings: nobody() })
    }

    fn sentinels(rest: &str, is_tls: bool) -> Result<Self, String> {
        let (authority, path) = rest.split_once('/').ok_or("there is no `/` and name of a service")?;
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (service, database) = path.split_once('/').unwrap_or((path, "0"));
        if service.is_empty() {
            return Err("there is no name of a service".to_owned());
        }
        let mut sentinels = Vec::new();
        for host in hosts.split(',') {
            let (address, _) = read(&format!("redis://{host}"))?;
            let ConnectionAddr::Tcp(name, port) = address else {
                return Err("there is no host".to_owned());
            };
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            sentinels.push((name, if port == PORT && !has_port { SENTINEL_PORT } else { port }));
        }
        let (_, settings) = read(&format!("redis://{user}localhost/{database}"))?;
        let place = Place::Sentinels { sentinels, service: service.to_owned() };
        Ok(Self { place, is_tls, settings, sentinel_settings: sentinel_login(query)? })
    }
}

/// `sentinel_username=NAME&sentinel_password=SECRET`, as other clients call them.
fn sentinel_login(query: &str) -> Result<RedisConnectionInfo, String> {
    let mut settings = nobody();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| "user or password is not UTF-8".to_owned())?;
        settings = match name {
            "sentinel_username" => settings.set_username(value),
            "sentinel_password" => settings.set_password(value),
            _ => {
                return Err("behind `?` it may have sentinel_username and sentinel_password alone".to_owned());
            }
        };
    }
    match (settings.username(), settings.password()) {
        (Some(_), None) => Err("there is a sentinel_username, but no sentinel_password".to_owned()),
        _ => Ok(settings),
    }
}

fn nobody() -> RedisConnectionInfo {
    resp3(RedisConnectionInfo::default())
}

fn read(url: &str) -> Result<(ConnectionAddr, RedisConnectionInfo), String> {
    let info = url.into_connection_info().map_err(|e| e.to_string())?;
    Ok((info.addr().clone(), resp3(info.redis_settings().clone())))
}

/// Always RESP3, in which answers and messages can be told apart.
fn resp3(settings: RedisConnectionInfo) -> RedisConnectionInfo {
    settings.set_protocol(ProtocolVersion::RESP3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Place {
        RedisUrl::parse(url).unwrap().place
    }

    #[test]
    fn urls_lead_to_places() {
        let tcp = |host: &str, port| Place::Tcp { host: host.to_owned(), port };
        assert_eq!(place("redis://10.0.0.7"), tcp("10.0.0.7", 6379));
        assert_eq!(place("rediss://:secret@a.test:7000/3"), tcp("a.test", 7000));
        assert_eq!(place("redis+unix:///run/redis.sock?pass=x"), Place::Unix("/run/redis.sock".into()));
        let sentinels = vec![("a.test".to_owned(), 26379), ("b.test".to_owned(), 7000)];
        let service = "chat".to_owned();
        assert_eq!(
            place("redis+sentinel://:secret@a.test,b.test:7000/chat/1"),
            Place::Sentinels { sentinels, service }
        );
    }

    #[test]
    fn sentinels_have_users_and_passwords_of_their_own() {
        let login = |url: &str| {
            let RedisUrl { settings, sentinel_settings, .. } = RedisUrl::parse(url).unwrap();
            let found = [&settings, &sentinel_settings]
                .map(|s| (s.username().map(ToOwned::to_owned), s.password().map(ToOwned::to_owned)));
            assert_eq!(sentinel_settings.db(), 0);
            found
        };
        let who = |user: Option<&str>, password: Option<&str>| {
            (user.map(ToOwned::to_owned), password.map(ToOwned::to_owned))
        };
        let url = "redis+sentinel://ann:a@a.test,b.test/chat/1";
        assert_eq!(login(url), [who(Some("ann"), Some("a")), who(None, None)]);
        let password = format!("{url}?sentinel_password=b%26%20b");
        assert_eq!(login(&password), [who(Some("ann"), Some("a")), who(None, Some("b& b"))]);
        let both = "rediss+sentinel://a.test/chat?sentinel_username=bob&sentinel_password=b";
        assert_eq!(login(both), [who(None, None), who(Some("bob"), Some("b"))]);
    }

    #[test]
    fn urls_say_who_logs_in() {
        for url in ["redis://ann:p%40ss@a.test/3", "rediss+sentinel://ann:p%40ss@a.test,b.test/chat/3"] {
            let RedisUrl { settings, is_tls, .. } = RedisUrl::parse(url).unwrap();
            assert_eq!(
                (settings.username(), settings.password(), settings.db()),
                (Some("ann"), Some("p@ss"), 3)
            );
            assert_eq!(is_tls, url.starts_with("rediss"));
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        let bad = [
            "a.test",
            "http://:secret@a.test",
            "redis://:secret@a.test/x",
            "redis://:secret@",
            "redis://:secret@a.test/0?sentinel_password=secret",
            "rediss://:secret@a.test/#insecure",
            "redis+sentinel://:secret@a.test",
            "redis+sentinel://:secret@a.test/",
            "redis+sentinel://:secret@a.test:x/chat",
            "redis+sentinel://a.test/chat?password=secret",
            "redis+sentinel://a.test/chat?sentinel_username=secret",
            "redis+sentinel://a.test/chat?sentinel_password=secret%FF",
        ];
        for url in bad {
            let error = RedisUrl::parse(url).map(|_| ()).unwrap_err();
            assert!(!error.is_empty() && !error.contains("secret"), "{url}: {error}");
        }
        let shown = format!("{:?}", RedisUrl::parse("redis://:secret@a.test").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
