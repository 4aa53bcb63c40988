//! The development certificate: made once for this machine's loopback names, and kept.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use time::{Duration, OffsetDateTime};
use tls_acceptor::Plan;

/// The certificate that a client gets. If an authority of this machine's has issued it, that one follows.
const CHAIN: &str = "cert.pem";
const KEY: &str = "key.pem";
/// Beside the directory: in it the gateway would look for its key, which no longer exists.
const AUTHORITY: &str = "authority.pem";

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// There is nowhere to keep it.
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
    /// It can't be made.
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

/// The development certificate, as it lies on disk.
#[derive(Debug)]
pub(crate) struct DevelopmentCertificate {
    /// Where it and its key are.
    pub(crate) directory: PathBuf,
}

impl DevelopmentCertificate {
    /// Finds its place. There may be nothing in it yet.
    ///
    /// # Errors
    /// If there is no place for it.
    pub(crate) fn find() -> Result<Self, CertificateError> {
        let here = std::env::current_dir().unwrap_or_default();
        let directory = directory(&here, |name| std::env::var_os(name).map(Into::into));
        Ok(Self { directory: directory.ok_or(CertificateError::NoPlace)? })
    }

    /// Makes one if there is none, or none that is still good.
    ///
    /// # Errors
    /// If it can't be stored.
    pub(crate) fn prepare(&self) -> Result<(), CertificateError> {
        if self.is_good() { Ok(()) } else { self.make() }
    }

    /// There is one with its key, and it is valid for another week.
    pub(crate) fn is_good(&self) -> bool {
        let Ok(loaded) = tls_acceptor::load(&Plan::directory(&self.directory), None) else { return false };
        let now = net_io::unix_now();
        loaded.set.lookup("localhost").unwrap_or_default().iter().any(|c| c.leaf.days_left(now) >= 7)
    }

    /// Makes one that no authority has signed.
    ///
    /// # Errors
    /// If it can't be stored.
    pub(crate) fn make(&self) -> Result<(), CertificateError> {
        let key = KeyPair::generate()?;
        let certificate = params()?.self_signed(&key)?;
        self.replace(&certificate.pem(), &key)
    }

    /// Takes another one. `chain` is the certificate and its authority's, in PEM.
    ///
    /// # Errors
    /// If it can't be stored.
    pub(crate) fn replace(&self, chain: &str, key: &KeyPair) -> Result<(), CertificateError> {
        write(&self.directory, chain, &key.serialize_pem())
            .map_err(|error| CertificateError::Io { directory: self.directory.clone(), error })
    }

    /// Where the certificate of this machine's authority is, if there is one.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.with_file_name(AUTHORITY)
    }

    /// This machine's authority has signed it.
    pub(crate) fn has_authority(&self) -> bool {
        let read = |file| fs::read_to_string(file).ok();
        let (Some(chain), Some(authority)) = (read(self.chain()), read(self.authority())) else {
            return false;
        };
        chain.ends_with(&authority)
    }

    /// The file that a client has to trust.
    #[must_use]
    pub(crate) fn chain(&self) -> PathBuf {
        self.directory.join(CHAIN)
    }
}

/// `certs/dev` in this project's repository, elsewhere the user's state directory.
fn directory(here: &Path, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let is_ours =
        |path: &&Path| path.join("crates/gateway/src/quick/mod.rs").is_file() && path.join("certs").is_dir();
    if let Some(repository) = here.ancestors().find(is_ours) {
        return Some(repository.join("certs/dev"));
    }
    // The XDG specification wants relative paths to be ignored.
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state =
        state.or_else(|| Some(variable("HOME").filter(|path| path.is_absolute())?.join(".local/state")));
    Some(state?.join("wssgate/dev"))
}

/// What the certificate says.
pub(crate) fn params() -> Result<CertificateParams, rcgen::Error> {
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
    Ok(params)
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let certificate = DevelopmentCertificate { directory: place.clone() };
        assert!(!certificate.is_good());
        certificate.make().unwrap();
        assert!(certificate.is_good());
        assert_eq!(fs::metadata(place.join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(place.join(CHAIN), "broken").unwrap();
        assert!(!certificate.is_good());
        certificate.make().unwrap();
        assert!(certificate.is_good());
    }
}
