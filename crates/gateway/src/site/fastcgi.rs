//! The scripts of a route, and the servers of FastCGI that run them. Pure.

use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;

use crate::site::endpoint::Endpoint;
use crate::site::files::Files;
use crate::site::server::Server;
use crate::site::upstream::Upstream;

/// The directory of scripts, and who runs them.
#[derive(Debug, Clone)]
pub struct Fastcgi {
    /// Its servers, and how they are reached.
    pub upstream: Arc<Upstream>,
    /// The directory. A request is for a script if its name there ends with `.php`.
    pub files: Arc<Files>,
    /// Other files of the directory are served.
    pub serves_files: bool,
    /// What the servers call the directory, without a slash at the end; `None`: as it is called here.
    pub document_root: Option<Box<str>>,
    /// Bodies of at most so many bytes are waited for before a server is asked; longer ones need a length, since scripts are
    /// told it first.
    pub body_len_max: u64,
}

impl Fastcgi {
    /// The index where nothing is said.
    pub const INDEX: &'static str = "index.php";
    /// Up to which length bodies are waited for where nothing is said. In bytes.
    pub const BODY_LEN_MAX: u64 = 1024 * 1024;

    /// Reads `unix:/path` or `host:port`. The settings are the defaults.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse_server(address: &str) -> Result<Server, String> {
        const EXAMPLE: &str = "such as \"unix:/run/php/php-fpm.sock\" or \"127.0.0.1:9000\"";
        if address.contains('@') {
            // A message that quotes it would repeat a password.
            return Err(format!("expected an address {EXAMPLE}; user names and passwords are not supported"));
        }
        let unexpected = || format!("expected an address {EXAMPLE}, found {address:?}");
        if let Some((scheme, _)) = address.split_once("://") {
            return Err(format!(
                "expected an address {EXAMPLE}, found {address:?}: leave out \"{scheme}://\""
            ));
        }
        let is_unix = address.starts_with("unix:");
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if let Ok(ip) = address.parse::<std::net::IpAddr>() {
            let written = std::net::SocketAddr::new(ip, 9000);
            return Err(format!("the port is missing in {address:?}: write \"{written}\""));
        }
        if !is_unix && (!has_port || address.contains(['/', '?', '#'])) {
            return Err(unexpected());
        }
        let url = if is_unix { address.to_owned() } else { format!("http://{address}") };
        let (endpoint, path) =
            Endpoint::parse(&url).map_err(|what| if is_unix { what } else { unexpected() })?;
        if path.is_some() { Err(unexpected()) } else { Ok(Server::new(endpoint)) }
    }

    /// The file is a script that the servers run.
    #[must_use]
    pub fn is_script(name: &OsStr) -> bool {
        let name = name.as_encoded_bytes();
        let extension = name.len().checked_sub(4).map(|at| &name[at..]);
        extension.is_some_and(|extension| extension.eq_ignore_ascii_case(b".php"))
    }
}

impl fmt::Display for Fastcgi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scripts in {} at fastcgi {}", self.files.directory.display(), self.upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for address in ["unix:/run/php/php-fpm.sock", "127.0.0.1:9000", "[::1]:9000", "php:9000"] {
            assert_eq!(&*Fastcgi::parse_server(address).unwrap().endpoint.address, address);
        }
        for (bad, why) in [
            ("http://127.0.0.1:9000", "leave out \"http://\""),
            ("fastcgi://127.0.0.1:9000", "leave out \"fastcgi://\""),
            ("127.0.0.1", "write \"127.0.0.1:9000\""),
            ("::1", "write \"[::1]:9000\""),
            ("a:0", "expected an address"),
            ("a:9000/x", "expected an address"),
            ("unix:run/php.sock", "absolute path"),
            ("unix:/run/php.sock:/x", "expected an address"),
            ("u:p@a:1", "not supported"),
            ("", "expected an address"),
        ] {
            let error = Fastcgi::parse_server(bad).expect_err(bad);
            assert!(error.contains(why) && !error.contains("u:p"), "{bad}: {error}");
        }
    }

    #[test]
    fn scripts() {
        for (name, is_script) in [
            ("index.php", true),
            ("a/b.PHP", true),
            (".php", true),
            ("index.php7", false),
            ("php", false),
            ("a.php/b", false),
            ("a.php~", false),
            ("", false),
        ] {
            assert_eq!(Fastcgi::is_script(OsStr::new(name)), is_script, "{name}");
        }
    }
}
