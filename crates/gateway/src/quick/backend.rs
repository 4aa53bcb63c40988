//! What `wssgate proxy` is given: a port, an address or a Unix socket, as people write them. Whether it answers.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::site::endpoint::{Endpoint, Place};
use crate::site::tcp::TcpServer;

/// A backend on this machine or near it is there within this time, or it is not there.
const PATIENCE: Duration = Duration::from_millis(500);

/// What requests and WebSockets are passed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// As `proxy` of a route has it.
    address: String,
    place: Place,
}

/// It is no backend; a sentence that says what to write.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadBackend(String);

impl FromStr for Backend {
    type Err = BadBackend;

    fn from_str(text: &str) -> Result<Self, BadBackend> {
        let address = address(text).map_err(BadBackend)?;
        let place = match address.strip_prefix("tcp://") {
            Some(rest) => TcpServer::parse(rest).map(|upstream| upstream.first().endpoint.place.clone()),
            None => Endpoint::parse(&address).map(|(endpoint, _)| endpoint.place),
        };
        Ok(Self { address, place: place.map_err(BadBackend)? })
    }
}

fn address(text: &str) -> Result<String, String> {
    if text.contains("://") || text.starts_with("unix:") {
        return Ok(text.to_owned());
    }
    let digits = text.strip_prefix(':').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return match digits.parse::<u16>() {
            Ok(port) if port > 0 => Ok(format!("http://{}", SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
            _ => Err(format!("expected a port from 1 to 65535, found {text}")),
        };
    }
    if text.starts_with(['/', '.']) {
        let path = std::path::absolute(text).map_err(|e| e.to_string())?;
        return Ok(format!("unix:{}", path.display()));
    }
    if text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Ok(format!("http://{text}"));
    }
    Err(format!(
        "expected a port such as 8282, an address such as 10.0.0.7:8282 or https://domain.com, or a Unix socket such as \
         ./app.sock, found {text:?}"
    ))
}

impl Backend {
    /// Its port, if it is on this machine.
    pub(super) fn own_port(&self) -> Option<u16> {
        let Place::Tcp { host, port } = &self.place else { return None };
        let host = host.trim_matches(['[', ']']);
        let is_own = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        is_own.then_some(*port)
    }

    /// Why it can't be meant, whether or not it answers; blocks. The gateway listens on these addresses.
    pub(super) fn mistake(&self, addresses: &[SocketAddr]) -> Option<String> {
        if let Some(port) = self.own_port().filter(|&port| port != 0)
            && addresses.iter().any(|address| address.port() == port)
        {
            return Some(format!(
                "wssgate itself would listen on port {port}; choose another one with --listen"
            ));
        }
        let Place::Unix(path) = &self.place else { return None };
        let kind = fs::metadata(Path::new(&**path)).ok()?.file_type(); // it may come
        if kind.is_dir() {
            return Some(format!("a directory, not a Unix socket; its files: wssgate files {path}"));
        }
        (!kind.is_socket())
            .then(|| "a file, not a Unix socket; give the one that the server listens on".to_owned())
    }

    /// Why a connection to it can't be opened now; blocks.
    #[must_use]
    pub fn absence(&self) -> Option<io::Error> {
        match &self.place {
            Place::Unix(path) => UnixStream::connect(Path::new(&**path)).err(),
            Place::Tcp { host, port } => {
                let host = host.trim_matches(['[', ']']);
                let addresses = match (host, *port).to_socket_addrs() {
                    Ok(addresses) => addresses,
                    Err(e) => return Some(e),
                };
                let mut absence = Some(io::ErrorKind::NotFound.into());
                for address in addresses {
                    absence = TcpStream::connect_timeout(&address, PATIENCE).err();
                    if absence.is_none() {
                        break;
                    }
                }
                absence
            }
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_as_people_write_them() {
        for (text, expect) in [
            ("8282", "http://127.0.0.1:8282"),
            (":8282", "http://127.0.0.1:8282"),
            ("localhost:3000", "http://localhost:3000"),
            ("10.0.0.7:80", "http://10.0.0.7:80"),
            ("[::1]:80", "http://[::1]:80"),
            ("https://domain.com/x", "https://domain.com/x"),
            ("ws://a:1", "ws://a:1"),
            ("tcp://127.0.0.1:5900", "tcp://127.0.0.1:5900"),
            ("/run/app.sock", "unix:/run/app.sock"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(text.parse::<Backend>().unwrap().to_string(), expect);
        }
        let relative = "./app.sock".parse::<Backend>().unwrap().to_string();
        assert!(relative.starts_with("unix:/") && relative.ends_with("/app.sock"), "{relative}");
        for (text, why) in [
            ("", "expected a port such as 8282"),
            ("0", "from 1 to 65535"),
            ("99999", "from 1 to 65535"),
            ("localhost", "expected a port such as 8282"),
            ("ftp://a", "expected an address"),
            ("tcp://a", "the port is missing"),
            ("http://user:secret@a", "user names and passwords"),
        ] {
            let error = text.parse::<Backend>().expect_err(text).to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn what_can_not_be_meant() {
        let temp = tempfile::TempDir::new().unwrap();
        let place = |name: &str| temp.path().join(name).display().to_string();
        fs::write(place("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
        let addresses = ["127.0.0.1:8443", "[::1]:8443"].map(|address| address.parse().unwrap());
        for (backend, says) in [
            ("8443", Some("wssgate itself would listen on port 8443")),
            ("localhost:8443", Some("wssgate itself")),
            ("https://[::1]:8443", Some("wssgate itself")),
            ("8444", None),
            ("10.0.0.7:8443", None),
            (
                temp.path().to_str().unwrap(),
                Some("a directory, not a Unix socket; its files: wssgate files /"),
            ),
            (&place("file"), Some("a file, not a Unix socket")),
            (&place("socket"), None),
            (&place("later"), None),
        ] {
            let found = backend.parse::<Backend>().unwrap().mistake(&addresses);
            let is_right = match (says, &found) {
                (Some(says), Some(found)) => found.contains(says),
                (says, found) => says.is_none() && found.is_none(),
            };
            assert!(is_right, "{backend}: {found:?}");
        }
    }

    #[test]
    fn what_is_there_and_what_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let backend = |scheme: &str| format!("{scheme}://{address}").parse::<Backend>().unwrap();
        for scheme in ["http", "wss", "tcp"] {
            assert!(backend(scheme).absence().is_none());
        }
        drop(listener);
        assert_eq!(backend("tcp").absence().unwrap().kind(), io::ErrorKind::ConnectionRefused);
        let socket: Backend = "/nowhere/app.sock".parse().unwrap();
        assert_eq!(socket.absence().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
