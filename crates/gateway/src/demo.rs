//! What runs without a configuration: a page, an echo, and a certificate to try them with.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use time::{Duration, OffsetDateTime};
use tls_acceptor::Plan;

use crate::lifecycle::ConfigSource;

/// The first of these that is free.
const PORTS: std::ops::Range<u16> = 8443..8463;
const CHAIN: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Why the demonstration can't run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is nowhere to keep the certificate.
    #[error("there is no directory for the development certificate: set XDG_STATE_HOME or HOME")]
    NoPlace,
    /// The place can't be written to.
    #[error("the development certificate can't be stored in {}: {error}{}", directory.display(), hint(error))]
    Io {
        /// The place.
        directory: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The certificate can't be made.
    #[error("the development certificate can't be made: {0}")]
    Make(#[from] rcgen::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space there, and start the gateway again"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; this user needs permission to write there"
        }
        _ => "",
    }
}

/// The demonstration: its configuration, and its certificate.
#[derive(Debug)]
pub struct Demo {
    /// What to run.
    pub source: ConfigSource,
    /// The page to open.
    pub page: String,
    /// The WebSocket that echoes.
    pub echo: String,
    /// The certificate that a client has to trust.
    pub certificate: PathBuf,
    /// It was made just now.
    pub made: bool,
}

impl Demo {
    /// Makes the certificate if there is none, or none that is still good.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn prepare() -> Result<Self, DemoError> {
        let directory = directory(&std::env::current_dir().unwrap_or_default(), |name| {
            std::env::var_os(name).map(Into::into)
        })
        .ok_or(DemoError::NoPlace)?;
        let made = !is_good(&directory);
        if made {
            make(&directory)?;
        }
        let (addresses, port) = loopback();
        Ok(Self {
            source: ConfigSource::BuiltIn { text: config(&directory, &addresses, port) },
            page: format!("https://localhost:{port}/"),
            echo: format!("wss://localhost:{port}/wss"),
            certificate: directory.join(CHAIN),
            made,
        })
    }
}

/// `certs/dev` in this project's repository, elsewhere the user's state directory.
fn directory(here: &Path, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let is_ours =
        |path: &&Path| path.join("crates/gateway/src/demo.rs").is_file() && path.join("certs").is_dir();
    if let Some(repository) = here.ancestors().find(is_ours) {
        return Some(repository.join("certs/dev"));
    }
    // The XDG specification wants relative paths to be ignored.
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state =
        state.or_else(|| Some(variable("HOME").filter(|path| path.is_absolute())?.join(".local/state")));
    Some(state?.join("wssgate/dev"))
}

/// There is a certificate with its key, and it is valid for another week.
fn is_good(directory: &Path) -> bool {
    let Ok(loaded) = tls_acceptor::load(&Plan::directory(directory), None) else { return false };
    let now = net_io::unix_now();
    loaded.set.lookup("localhost").unwrap_or_default().iter().any(|c| c.leaf.days_left(now) >= 7)
}

fn make(directory: &Path) -> Result<(), DemoError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "wssgate development certificate");
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = params.not_before + Duration::days(365);
    let certificate = params.self_signed(&key)?;
    write(directory, &certificate.pem(), &key.serialize_pem())
        .map_err(|error| DemoError::Io { directory: directory.to_owned(), error })
}

/// Nothing that was there goes before both are whole.
fn write(directory: &Path, chain: &str, key: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let aside = |mode, content: &str| {
        let mut file =
            tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(directory)?;
        file.write_all(content.as_bytes())?;
        io::Result::Ok(file)
    };
    let (key, chain) = (aside(0o600, key)?, aside(0o644, chain)?);
    key.persist(directory.join(KEY))?;
    chain.persist(directory.join(CHAIN))?;
    Ok(())
}

/// The loopback addresses that this machine has, and a port that is free on all of them.
fn loopback() -> (Vec<IpAddr>, u16) {
    let is_free = |&ip: &IpAddr, port: u16| TcpListener::bind((ip, port)).is_ok();
    let mut addresses = vec![IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    addresses.retain(|ip| ip.is_ipv4() || is_free(ip, 0));
    // If none is free, the gateway says which one is taken, and how to see by whom.
    let port = PORTS.into_iter().find(|&port| addresses.iter().all(|ip| is_free(ip, port)));
    (addresses, port.unwrap_or(PORTS.start))
}

fn config(directory: &Path, addresses: &[IpAddr], port: u16) -> String {
    let listeners: String = addresses
        .iter()
        .map(|&ip| format!("[[listener]]\naddress = \"{}\"\n\n", SocketAddr::from((ip, port))))
        .collect();
    let directory = toml::Value::from(directory.display().to_string());
    format!(
        "{listeners}\
         [certificates]\n\
         directory = {directory}\n\
         default = \"localhost\"\n\
         \n\
         [[route]]\n\
         path = \"/\"\n\
         service = \"console\"\n\
         \n\
         [[route]]\n\
         path = \"/wss\"\n\
         service = \"echo\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_certificate_has_a_place() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let repository = repository.canonicalize().unwrap();
        let no_variable = |_: &str| None;
        assert_eq!(directory(&repository, no_variable), Some(repository.join("certs/dev")));
        assert_eq!(
            directory(&repository.join("crates/gateway"), no_variable),
            Some(repository.join("certs/dev"))
        );
        let elsewhere = Path::new("/");
        let home = |name: &str| (name == "HOME").then(|| "/home/tom".into());
        assert_eq!(directory(elsewhere, home), Some("/home/tom/.local/state/wssgate/dev".into()));
        let both = |name: &str| Some(if name == "HOME" { "/home/tom" } else { "/state" }.into());
        assert_eq!(directory(elsewhere, both), Some("/state/wssgate/dev".into()));
        let relative = |name: &str| Some(if name == "HOME" { "/home/tom" } else { "state" }.into());
        assert_eq!(directory(elsewhere, relative), Some("/home/tom/.local/state/wssgate/dev".into()));
        assert_eq!(directory(elsewhere, no_variable), None);
    }

    #[test]
    fn it_is_made_once_and_kept() {
        let temp = tempfile::TempDir::new().unwrap();
        let place = temp.path().join("a \"quoted\" place");
        assert!(!is_good(&place));
        make(&place).unwrap();
        assert!(is_good(&place));
        assert_eq!(fs::metadata(place.join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(place.join(CHAIN), "broken").unwrap();
        assert!(!is_good(&place));
        make(&place).unwrap();
        assert!(is_good(&place));
        let (config, problems) = Config::parse(Path::new("demo"), &config(&place, &loopback().0, 8443));
        assert_eq!(problems, []);
        assert_eq!(config.certificates.directory, Some(place));
    }
}
