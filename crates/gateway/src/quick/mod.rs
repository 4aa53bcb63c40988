//! What runs at one command, without a configuration file: `wssgate proxy`, `files`, `echo`, and the demonstration.
//!
//! In: what the command line says. Out: the text of a configuration, which is also what `--write` writes, and what a
//! person is told. There is no other way from one to the other, so the file that is written runs the same.

mod backend;
pub(crate) mod certificate;
mod error;
mod listen;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use self::backend::Backend;
use self::certificate::DevelopmentCertificate;
use self::error::QuickError;
pub use self::listen::Listen;
use crate::lifecycle::ConfigSource;
use crate::site::host::HostPattern;

/// What is to be served.
#[derive(Debug, Clone)]
pub enum Service {
    /// A backend.
    Proxy(Backend),
    /// The files of a directory.
    Files(PathBuf),
    /// An echo, and a page to try it with.
    Echo,
}

/// An authority that speaks ACME.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The URL of its directory.
    pub directory: String,
    /// The file with what its server is trusted by; `None`: as the system does.
    pub ca: Option<PathBuf>,
}

/// What the command line says.
#[derive(Debug)]
pub struct Order {
    /// What is to be served.
    pub service: Service,
    /// The names that other machines know; none: this machine alone.
    pub hosts: Vec<String>,
    /// Where.
    pub listen: Option<Listen>,
    /// Who issues the certificates of these names; `None`: Let's Encrypt.
    pub authority: Option<Authority>,
    /// The file that the configuration is written to.
    pub write: Option<PathBuf>,
}

impl Order {
    /// What runs if there is no configuration at all.
    #[must_use]
    pub fn demonstration() -> Self {
        Self { service: Service::Echo, hosts: Vec::new(), listen: None, authority: None, write: None }
    }
}

/// What one command runs.
#[derive(Debug)]
pub struct Quick {
    /// What to run.
    pub source: ConfigSource,
    order: Order,
    certificate: DevelopmentCertificate,
}

impl Quick {
    /// Makes the certificate if there is none, looks whether all is there that is needed, and writes the file, if there
    /// is to be one. `is_taking_over`: the file was written, and the ports taken, by the gateway before.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn prepare(order: Order, is_taking_over: bool) -> Result<Self, QuickError> {
        let certificate = DevelopmentCertificate::find()?;
        if order.hosts.is_empty() {
            certificate.prepare()?;
        }
        if let (Some(file), true) = (&order.write, is_taking_over) {
            return Ok(Self { source: ConfigSource::File(file.clone()), order, certificate });
        }
        let backend = match &order.service {
            Service::Proxy(backend) => Some(backend),
            Service::Files(_) | Service::Echo => None,
        };
        let own_port = backend.and_then(Backend::own_port);
        let is_public = !order.hosts.is_empty();
        let chosen =
            if is_public { listen::public(order.listen) } else { listen::addresses(order.listen, own_port) };
        let addresses =
            chosen.map_err(|(address, error)| QuickError::Listen { address, error, is_public })?;
        if let Some((backend, what)) =
            backend.and_then(|backend| Some((backend, backend.mistake(&addresses)?)))
        {
            return Err(QuickError::Backend { backend: backend.to_string(), what });
        }
        let text = config(&order, &certificate.directory, &addresses)?;
        let source = match &order.write {
            None => ConfigSource::BuiltIn { text },
            Some(file) => {
                write(file, &text)?;
                ConfigSource::File(file.clone())
            }
        };
        Ok(Self { source, order, certificate })
    }

    /// What a person is told when connections are accepted, on these addresses; blocks.
    #[must_use]
    pub fn welcome(&self, addresses: &[SocketAddr], has_colors: bool) -> String {
        let (bold, plain) = if has_colors { ("\x1b[1;36m", "\x1b[0m") } else { ("", "") };
        let mut text = String::new();
        let port = addresses.iter().map(SocketAddr::port).find(|&port| port != 80).unwrap_or(443);
        let mut hosts: Vec<String> = self.order.hosts.iter().map(|name| with_port(name, port)).collect();
        if hosts.is_empty() {
            hosts.push(addresses.first().map_or_else(|| "localhost".to_owned(), host));
        }
        let wss = match self.order.service {
            Service::Files(_) => None,
            Service::Proxy(_) => Some("/"),
            Service::Echo => Some("/wss"),
        };
        let serves = match &self.order.service {
            Service::Proxy(backend) => format!("passes on to {backend}"),
            Service::Files(directory) => format!("serves the files of {}", directory.display()),
            Service::Echo => "echoes, and has a page to try it".to_owned(),
        };
        let _ = write!(text, "\n  wssgate {serves}\n\n");
        for host in &hosts {
            let _ = writeln!(text, "  {bold}https://{host}/{plain}");
            if let Some(path) = wss {
                let _ = writeln!(text, "  {bold}wss://{host}{path}{plain}");
            }
        }
        if let Service::Proxy(backend) = &self.order.service
            && let Some(absence) = backend.absence()
        {
            let _ = write!(
                text,
                "\n  Nothing answers at {backend} yet ({absence}): start the server there.\n  \
                 Until then requests get 502; the gateway needs no restart.\n"
            );
        }
        if let Some(file) = &self.order.write {
            let file = file.display();
            let _ = write!(text, "\n  {file} is written. From now on `wssgate {file}` does the same.\n");
        }
        text.push_str(&self.about_certificate(&hosts[0]));
        text.push_str("\n  Ctrl-C ends it.\n\n");
        text
    }

    /// Whether clients trust it, and where it is. `host` is what one may ask for.
    fn about_certificate(&self, host: &str) -> String {
        let chain = self.certificate.chain();
        let chain = chain.display();
        if !self.order.hosts.is_empty() {
            let storage = storage(&self.certificate.directory);
            let authority = self.order.authority.as_ref();
            let authority = authority.map_or("Let's Encrypt", |authority| &authority.directory);
            format!(
                "\n  The certificate comes from {authority}, and is kept in {}.\n  \
                 Until the first one is there, clients are refused; what is missing for it is said below.\n",
                storage.display()
            )
        } else if self.certificate.has_authority() {
            format!("\n  The certificate ({chain}) is signed by this machine's authority.\n")
        } else {
            format!(
                "\n  Browsers don't trust its certificate yet: run `wssgate trust` once, or accept the warning.\n  \
                 For instance: curl --cacert {chain} https://{host}/\n"
            )
        }
    }
}

/// What a URL has for this address.
fn host(address: &SocketAddr) -> String {
    let port = address.port();
    let host = if address.ip().is_loopback() || address.ip().is_unspecified() {
        "localhost".to_owned()
    } else {
        SocketAddr::new(address.ip(), 0).to_string().trim_end_matches(":0").to_owned()
    };
    with_port(&host, port)
}

fn with_port(host: &str, port: u16) -> String {
    if port == 443 { host.to_owned() } else { format!("{host}:{port}") }
}

/// Where certificates for other machines are kept: beside the development certificate.
fn storage(certificates: &Path) -> PathBuf {
    certificates.with_file_name("acme")
}

/// `--host`: a name that an authority gives a certificate for, without a record in the DNS.
pub(crate) fn public_host(text: &str) -> Result<String, String> {
    let is_name = HostPattern::parse(text).is_some()
        && !text.starts_with('*')
        && text.contains('.')
        && text.parse::<std::net::IpAddr>().is_err();
    if is_name {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!(
        "expected a name that other machines find this one by, such as chat.domain.com, found {text:?}"
    ))
}

fn config(order: &Order, certificates: &Path, addresses: &[SocketAddr]) -> Result<String, QuickError> {
    let addresses = list(addresses.iter().map(ToString::to_string));
    let routes = routes(order)?;
    if !order.hosts.is_empty() {
        let names = list(order.hosts.iter().cloned());
        let storage = quoted(&storage(certificates).display().to_string());
        let (plain, acme) = (plain_listener(order), acme(order.authority.as_ref())?);
        return Ok(format!(
            "[[listener]]\n\
             address = {addresses}\n\
             \n\
             {plain}[acme] # with it you agree to the terms of service of {whose}\n\
             names = [{names}]\n\
             storage = {storage}\n\
             {acme}\n\
             {routes}",
            whose = if order.authority.is_some() { "the authority" } else { "Let's Encrypt" },
        ));
    }
    let certificates = quoted(&certificates.display().to_string());
    Ok(format!(
        "drain_window = \"1s\" # Ctrl-C\n\
         drain_timeout = \"5s\"\n\
         \n\
         [[listener]]\n\
         address = {addresses}\n\
         \n\
         [certificates]\n\
         directory = {certificates} # the development certificate\n\
         default = \"localhost\"\n\
         \n\
         {routes}"
    ))
}

/// Port 80 leads to port 443, if that is where this gateway listens.
fn plain_listener(order: &Order) -> String {
    let addresses = listen::plain(order.listen);
    if addresses.is_empty() {
        return String::new();
    }
    let addresses = list(addresses.iter().map(ToString::to_string));
    format!("[[listener]]\naddress = {addresses}\ntls = false\nredirect = \"https\"\n\n")
}

/// What `[acme]` says of an authority.
fn acme(authority: Option<&Authority>) -> Result<String, QuickError> {
    let Some(Authority { directory, ca }) = authority else { return Ok(String::new()) };
    let mut lines = format!("directory = {}\n", quoted(directory));
    if let Some(ca) = ca {
        // The configuration may be written to another directory than the one that the file is named from.
        let ca = ca.canonicalize().map_err(|error| QuickError::Authority { file: ca.clone(), error })?;
        let _ = writeln!(lines, "ca = {}", quoted(&ca.display().to_string()));
    }
    Ok(lines)
}

fn routes(order: &Order) -> Result<String, QuickError> {
    let host = match &order.hosts[..] {
        [] => String::new(),
        hosts => format!("host = {}\n", list(hosts.iter().cloned())),
    };
    let route = |path: &str, action: &str| format!("[[route]]\n{host}path = \"{path}\"\n{action}\n");
    Ok(match &order.service {
        Service::Proxy(backend) => route("/", &format!("proxy = {}", quoted(&backend.to_string()))),
        Service::Files(directory) => {
            let error = |error| QuickError::Files { directory: directory.clone(), error };
            let directory = directory.canonicalize().map_err(error)?;
            if !directory.is_dir() {
                return Err(error(io::ErrorKind::NotADirectory.into()));
            }
            let directory = quoted(&directory.display().to_string());
            route("/", &format!("files = {{ directory = {directory}, listing = true }}"))
        }
        Service::Echo => {
            [route("/", "service = \"console\""), route("/wss", "service = \"echo\"")].join("\n")
        }
    })
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.map(|value| quoted(&value)).collect();
    format!("[{}]", values.join(", "))
}

fn write(file: &Path, text: &str) -> Result<(), QuickError> {
    let error = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => QuickError::Exists(file.display().to_string()),
        _ => QuickError::Write { file: file.to_owned(), error },
    };
    let mut out = OpenOptions::new().write(true).create_new(true).open(file).map_err(error)?;
    out.write_all(text.as_bytes()).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_configuration_is_one() {
        let temp = tempfile::TempDir::new().unwrap();
        let place = temp.path().join("a \"quoted\" place");
        std::fs::create_dir(&place).unwrap();
        let addresses = [SocketAddr::from(([127, 0, 0, 1], 8443))];
        for service in [Service::Proxy("8282".parse().unwrap()), Service::Files(place.clone()), Service::Echo]
        {
            let order = Order { service, ..Order::demonstration() };
            let text = config(&order, &place, &addresses).unwrap();
            let (read, problems) = Config::parse(Path::new("quick"), &text);
            assert_eq!(problems, [], "{text}");
            assert_eq!(read.certificates.directory, Some(place.clone()));
            let order = Order { hosts: vec!["chat.domain.com".into(), "domain.com".into()], ..order };
            let text = config(&order, &place, &addresses).unwrap();
            let (read, problems) = Config::parse(Path::new("quick"), &text);
            assert_eq!(problems, [], "{text}");
            assert!(read.listeners.iter().any(|listener| listener.redirect));
            // Something else has port 443, and port 80.
            let directory = "https://ca.internal/directory".to_owned();
            let authority = Some(Authority { directory: directory.clone(), ca: Some(place.clone()) });
            let order = Order { authority, listen: Some(Listen::Port(8443)), ..order };
            let text = config(&order, &place, &addresses).unwrap();
            let (read, problems) = Config::parse(Path::new("quick"), &text);
            assert_eq!(problems, [], "{text}");
            let acme = read.acme.unwrap();
            assert_eq!((acme.directory, acme.authorities), (directory, vec![place.canonicalize().unwrap()]));
            assert_eq!(read.listeners.len(), 1);
        }
    }

    #[test]
    fn names_that_other_machines_know() {
        assert_eq!(public_host("Chat.Domain.com").unwrap(), "chat.domain.com");
        for wrong in
            ["", "localhost", "*.domain.com", "127.0.0.1", "domain.com:443", "https://domain.com", "a b.com"]
        {
            assert!(public_host(wrong).unwrap_err().contains("such as chat.domain.com"), "{wrong}");
        }
    }

    #[test]
    fn what_urls_have_for_addresses() {
        for (address, expect) in [
            ("127.0.0.1:8443", "localhost:8443"),
            ("[::1]:443", "localhost"),
            ("0.0.0.0:9443", "localhost:9443"),
            ("10.0.0.7:443", "10.0.0.7"),
            ("[2001:db8::1]:9443", "[2001:db8::1]:9443"),
        ] {
            assert_eq!(host(&address.parse().unwrap()), expect);
        }
    }
}
