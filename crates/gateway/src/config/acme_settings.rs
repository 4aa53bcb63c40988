//! What `[acme]` says, as values: which certificates are ordered, where and how.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use tls_acceptor::{Awaited, CertName, ConnectorSettings};

use crate::site::challenges::{ChallengeKind, Challenges};
use crate::site::on_demand::AllowedNames;
use crate::site::rate::Rate;

/// The part of the storage with certificates that were ordered on demand.
pub(crate) const ON_DEMAND: &str = "on-demand";
/// Where Let's Encrypt issues certificates.
pub(crate) const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Which certificates are ordered, where and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The names of each certificate, in the order of the file.
    pub certificates: Vec<Vec<CertName>>,
    /// Addresses that the authority may write to.
    pub contact: Vec<String>,
    /// How the names are proved.
    pub challenge: ChallengeKind,
    /// The URL of the authority's directory (RFC 8555 §7.1.1).
    pub directory: String,
    /// Files with authorities that the directory's own certificate is trusted by; none: the system's.
    pub authorities: Vec<PathBuf>,
    /// Where account, certificates and open orders are kept.
    pub storage: PathBuf,
    /// The key of each certificate.
    pub key_type: AcmeKeyType,
    /// What the authority calls the kind of certificate; `None`: it chooses.
    pub profile: Option<String>,
    /// The account with the authority that this one belongs to (RFC 8555 §7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// The program, and its first arguments, that puts records into the DNS.
    pub dns_command: Vec<String>,
    /// How long a record is given until it is everywhere.
    pub dns_wait: Duration,
    /// Names that get a certificate when a client asks for them; `None`: none does.
    pub on_demand: Option<OnDemandSettings>,
}

/// Which names get a certificate when a client asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDemandSettings {
    /// No others do.
    pub allowed: AllowedNames,
    /// The URL that has to allow each of them; `None`: none has to.
    pub ask: Option<String>,
    /// How long it may take.
    pub ask_timeout: Duration,
    /// How many new names there may be in which time.
    pub orders: Rate,
    /// How many names are remembered.
    pub names_max: NonZeroU32,
}

/// Another account that the authority knows already.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// As the authority calls it.
    pub key_id: String,
    /// What it has in common with the authority.
    pub hmac_key: Vec<u8>,
}

impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The kinds of keys that certificates are ordered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeKeyType {
    /// ECDSA over P-256.
    EcdsaP256,
    /// ECDSA over P-384.
    EcdsaP384,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 4096 bits.
    Rsa4096,
}

impl AcmeSettings {
    /// What a certificate is called in the storage: by its first name.
    #[must_use]
    pub fn id(names: &[CertName]) -> String {
        names.first().map(|name| name.to_string().replace('*', "_")).unwrap_or_default()
    }

    /// The names of a certificate, as people write them.
    #[must_use]
    pub fn texts(names: &[CertName]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    /// The file of a certificate with its key, within the storage.
    #[must_use]
    pub fn stored(names: &[CertName]) -> String {
        format!("certificates/{}.pem", Self::id(names))
    }

    /// Where that file is.
    #[must_use]
    pub fn file(&self, names: &[CertName]) -> PathBuf {
        self.storage.join(Self::stored(names))
    }

    /// What the certificates of this section are to those that load them.
    #[must_use]
    pub fn awaited(&self) -> Vec<Awaited> {
        let certificates = self.certificates.iter();
        certificates.map(|names| Awaited { names: names.clone(), file: self.file(names) }).collect()
    }

    /// Where the certificates are that were ordered on demand, each in the file of its name.
    #[must_use]
    pub fn on_demand_directory(&self) -> PathBuf {
        self.storage.join(ON_DEMAND)
    }

    /// What answers the authority.
    #[must_use]
    pub(crate) fn challenges(&self) -> Challenges {
        let names = self.certificates.iter().flatten();
        let names = names.filter_map(|name| match name {
            CertName::Exact(name) => Some(name.clone()),
            CertName::Wildcard(_) | CertName::Ip(_) => None, // only the DNS proves them
        });
        let on_demand = self.on_demand.as_ref().map(|on_demand| on_demand.allowed.clone());
        Challenges::new(self.storage.join("challenges"), names.collect(), on_demand)
    }

    /// By whom the directory's server is trusted.
    #[must_use]
    pub fn connector(&self) -> ConnectorSettings {
        ConnectorSettings { authorities: self.authorities.clone(), client_certificate: None }
    }
}
