//! A certificate authority that lives as long as a test: nothing of it is ever committed.

use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RevokedCertParams, SanType,
    SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// The kind of a server's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// P-256.
    Ecdsa,
    /// 2048 bits.
    Rsa,
    /// Curve25519.
    Ed25519,
}

impl Key {
    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Self::Ecdsa => &PKCS_ECDSA_P256_SHA256,
            Self::Rsa => &PKCS_RSA_SHA256,
            Self::Ed25519 => &PKCS_ED25519,
        }
    }
}

/// A root, and an intermediate that issues.
pub struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// What to issue.
#[derive(Debug, Clone)]
pub struct Order {
    /// DNS names, wildcards, or addresses.
    pub names: Vec<String>,
    /// Which kind of key.
    pub key: Key,
    /// Days from now at which it becomes valid.
    pub from_days: i64,
    /// Days from now at which it expires.
    pub until_days: i64,
    /// The serial number.
    pub serial: u64,
}

impl Order {
    /// An ECDSA certificate for `names`, issued yesterday, good for 90 days.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            key: Key::Ecdsa,
            from_days: -1,
            until_days: 89,
            serial: 1,
        }
    }
}

/// A certificate with its key, as PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf alone.
    pub leaf: String,
    /// The intermediate alone.
    pub chain: String,
    /// Leaf and intermediate.
    pub fullchain: String,
    /// PKCS #8.
    pub key: String,
    /// The leaf as DER.
    pub der: CertificateDer<'static>,
}

impl Issued {
    /// Writes `name.crt` (full chain) and `name.key`, which only its owner can read.
    pub fn write(&self, directory: &Path, name: &str) {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join(format!("{name}.crt")), &self.fullchain).unwrap();
        let key = directory.join(format!("{name}.key"));
        std::fs::write(&key, &self.key).unwrap();
        std::fs::set_permissions(key, Permissions::from_mode(0o600)).unwrap();
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// Makes a root and an intermediate.
    #[must_use]
    pub fn new() -> Self {
        let root = CertifiedIssuer::self_signed(ca("Test Root"), KeyPair::generate().unwrap()).unwrap();
        let intermediate =
            CertifiedIssuer::signed_by(ca("Test Intermediate"), KeyPair::generate().unwrap(), &root).unwrap();
        Self { root, intermediate }
    }

    /// The root as clients trust it.
    #[must_use]
    pub fn root(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// The root as PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The chain for a certificate signing request, as PEM.
    #[must_use]
    pub fn sign_request(&self, request: &CertificateSigningRequestParams) -> String {
        request.signed_by(&self.intermediate).unwrap().pem() + &self.intermediate.pem()
    }

    /// The key of the intermediate, as PEM.
    #[must_use]
    pub fn intermediate_key(&self) -> String {
        self.intermediate.key().serialize_pem()
    }

    /// An ECDSA certificate for `names`.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_as(&Order::new(names))
    }

    /// A certificate to measure.
    #[must_use]
    pub fn issue_as(&self, order: &Order) -> Issued {
        self.issue_for(order, &KeyPair::generate_for(order.key.algorithm()).unwrap())
    }

    /// A certificate for a key that exists already.
    #[must_use]
    pub fn issue_for(&self, order: &Order, key: &KeyPair) -> Issued {
        self.issue_changed(order, key, |_| {})
    }

    /// The intermediate as PEM: an authority for the certificates of clients.
    #[must_use]
    pub fn intermediate_pem(&self) -> String {
        self.intermediate.pem()
    }

    /// A client's certificate, with this common name.
    #[must_use]
    pub fn issue_client(&self, common_name: &str, serial: u64) -> Issued {
        self.issue_client_for(common_name, serial, Duration::days(90))
    }

    /// The same, which expires in so much time.
    #[must_use]
    pub fn issue_client_for(&self, common_name: &str, serial: u64, valid: Duration) -> Issued {
        let order = Order { serial, ..Order::new(&[]) };
        self.issue_changed(&order, &KeyPair::generate().unwrap(), |params| {
            params.not_after = OffsetDateTime::now_utc() + valid;
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "Clients");
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// The list of the certificates that the intermediate has revoked, as PEM; it expires after so many days.
    #[must_use]
    pub fn revocation_list(&self, serials: &[u64], until_days: i64) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = serials.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now - Duration::days(1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now - Duration::days(2),
            next_update: now + Duration::days(until_days),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.intermediate).unwrap().pem().unwrap()
    }

    /// A certificate that is not as the others are.
    #[must_use]
    pub fn issue_changed(
        &self,
        order: &Order,
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a server");
        params.serial_number = Some(SerialNumber::from(order.serial));
        params.subject_alt_names = order.names.iter().map(|name| host(name)).collect();
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::days(order.from_days);
        params.not_after = now + Duration::days(order.until_days);
        change(&mut params);
        let leaf = params.signed_by(key, &self.intermediate).unwrap();
        let chain = self.intermediate.pem();
        Issued {
            leaf: leaf.pem(),
            fullchain: leaf.pem() + &chain,
            chain,
            key: key.serialize_pem(),
            der: leaf.der().clone(),
        }
    }
}

/// What `openssl req -x509` makes of `names`: signed by itself, and marked as a CA's.
#[must_use]
pub fn self_signed(names: &[&str]) -> Issued {
    let mut params = ca("a server");
    params.subject_alt_names = names.iter().map(|name| host(name)).collect();
    let key = KeyPair::generate().unwrap();
    let leaf = params.self_signed(&key).unwrap();
    Issued {
        leaf: leaf.pem(),
        chain: String::new(),
        fullchain: leaf.pem(),
        key: key.serialize_pem(),
        der: leaf.der().clone(),
    }
}

fn host(name: &str) -> SanType {
    match name.parse::<IpAddr>() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) => SanType::DnsName(name.try_into().unwrap()),
    }
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
