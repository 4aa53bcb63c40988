//! The authority of this machine: what it may vouch for, and the only certificate that it signs.

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use time::{Duration, OffsetDateTime};

use crate::quick::certificate::{CertificateError, DevelopmentCertificate, params};

const NAME: &str = "wssgate development authority ";
/// The longest that Apple's systems take from an authority that a person has added.
const LIFETIME: Duration = Duration::days(825);

/// An authority whose key no longer exists.
#[derive(Debug)]
pub(super) struct Authority {
    /// As stores show it, with a number of its own.
    pub(super) name: String,
    /// Its certificate.
    pub(super) file: PathBuf,
}

impl Authority {
    /// The one that is there.
    pub(super) fn read(certificate: &DevelopmentCertificate) -> Option<Self> {
        let file = certificate.authority();
        // The first line is no part of the PEM, and says the name.
        let text = fs::read_to_string(&file).ok()?;
        let name = text.lines().next()?.strip_prefix("# ")?.to_owned();
        name.starts_with(NAME).then_some(Self { name, file })
    }

    /// A new one, which signs the development certificate. Its key is dropped here.
    pub(super) fn sign(certificate: &DevelopmentCertificate) -> Result<Self, CertificateError> {
        let name = format!("{NAME}{:08x}", rand::random::<u32>());
        let (authority_params, key) = (authority_params(&name), KeyPair::generate()?);
        let authority = format!("# {name}\n{}", authority_params.self_signed(&key)?.pem());
        let leaf_key = KeyPair::generate()?;
        let mut leaf = params()?;
        (leaf.not_before, leaf.not_after) = (authority_params.not_before, authority_params.not_after);
        leaf.use_authority_key_identifier_extension = true;
        let leaf = leaf.signed_by(&leaf_key, &Issuer::from_params(&authority_params, &key))?;
        drop(key);
        certificate.replace(&(leaf.pem() + &authority), &leaf_key)?;
        let file = certificate.authority();
        fs::write(&file, authority)
            .map_err(|error| CertificateError::Io { directory: certificate.directory.clone(), error })?;
        Ok(Self { name, file })
    }

    /// A file's name in directories of authorities.
    pub(super) fn file_name(&self) -> String {
        format!("wssgate-development-{}.crt", self.name.trim_start_matches(NAME))
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // RFC 5280 §4.2.1.10: names of any other host, and any other address, are refused.
    let loopback_v6 = std::net::Ipv6Addr::LOCALHOST.octets();
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::V4([127, 0, 0, 0], [255, 0, 0, 0])),
            GeneralSubtree::IpAddress(CidrSubnet::V6(loopback_v6, [255; 16])),
        ],
        excluded_subtrees: Vec::new(),
    });
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = params.not_before + LIFETIME;
    params
}
