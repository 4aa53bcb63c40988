//! A leaf, and certificates that may be its issuers → the chain that is sent. Pure.
//!
//! The leaf comes first, then issuer after issuer (RFC 8446 §4.4.2), from the leaf's own file if it has
//! them, else from the directory. What else of the file belongs to the chain, such as a cross-signed
//! issuer, follows. Duplicate certificates are sent once; those that are not part of the chain are not sent.

use std::collections::HashMap;
use std::sync::LazyLock;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::CertificateDer;

use crate::certificate::{Facts, LeafError, Role};
use crate::chain_fault::ChainFault;
use crate::der::{SEQUENCE, element, expect};

/// No chain comes near it.
const LINKS_MAX: usize = 16;

/// A certificate that may be part of a chain.
#[derive(Debug)]
pub(crate) struct ChainLink {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) facts: Facts,
}

impl ChainLink {
    pub(crate) fn read(der: CertificateDer<'static>) -> Result<Self, LeafError> {
        let facts = Facts::of(&der)?;
        Ok(Self { der, facts })
    }

    fn is_self_issued(&self) -> bool {
        self.facts.subject == self.facts.issuer
    }
}

/// The issuers of a directory, by name.
#[derive(Debug, Default)]
pub(crate) struct IssuerPool<'a> {
    by_subject: HashMap<&'a [u8], Vec<&'a ChainLink>>,
}

impl<'a> IssuerPool<'a> {
    pub(crate) fn of(links: impl Iterator<Item = &'a ChainLink>) -> Self {
        let mut by_subject: HashMap<_, Vec<_>> = HashMap::new();
        for link in links.filter(|link| link.facts.role != Role::Server) {
            by_subject.entry(&link.facts.subject[..]).or_default().push(link);
        }
        Self { by_subject }
    }

    fn issuers(&self, link: &ChainLink) -> impl Iterator<Item = &'a ChainLink> {
        self.by_subject.get(&link.facts.issuer[..]).into_iter().flatten().copied()
    }
}

/// What is sent, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) certs: Vec<CertificateDer<'static>>,
    pub(crate) faults: Vec<ChainFault>,
}

/// The chain of `own[at]`, at `now` (seconds since 1970). `own` is the leaf's file, in its order.
pub(crate) fn chain(own: &[ChainLink], at: usize, pool: &IssuerPool<'_>, now: i64) -> Chain {
    let mut path: Vec<&ChainLink> = vec![&own[at]];
    let mut is_rooted = false;
    while let Some(last) = path.last().copied().filter(|_| path.len() < LINKS_MAX) {
        if last.is_self_issued() {
            is_rooted = true;
            break;
        }
        let is_new = |link: &&ChainLink| path.iter().all(|other| other.der != link.der) && issued(link, last);
        // Of several with the same name and key the one that is valid.
        let valid_first = |link: &&ChainLink| !link.facts.is_valid(now);
        if let Some(issuer) = own.iter().filter(is_new).min_by_key(valid_first) {
            path.push(issuer);
        } else if let Some(issuer) = pool.issuers(last).filter(is_new).min_by_key(valid_first) {
            if issuer.is_self_issued() {
                is_rooted = true;
                break; // clients have it, or don't believe it
            }
            path.push(issuer);
        } else {
            break;
        }
    }
    let mut faults = Vec::new();
    if path.len() == 1 && !is_rooted {
        faults.push(ChainFault::NoIssuer { issuer: own[at].facts.issuer_name.clone() });
    }
    for issuer in path.iter().skip(1).filter(|issuer| !issuer.is_self_issued()) {
        let name = issuer.facts.subject_name.clone();
        if now > issuer.facts.not_after {
            faults.push(ChainFault::Expired { name });
        } else if now < issuer.facts.not_before {
            faults.push(ChainFault::NotYetValid { name });
        } else if let Some(algorithm) = issuer.facts.weak_signature {
            faults.push(ChainFault::WeakSignature { name, algorithm });
        }
    }
    // Other paths from the same leaf: an issuer that is signed by two others.
    let mut all = path;
    while let Some(more) = own.iter().find(|link| {
        all.iter().all(|other| other.der != link.der) && all.iter().any(|child| issued(link, child))
    }) {
        all.push(more);
    }
    // A leaf of its own is judged by itself.
    let mut strays: Vec<&ChainLink> = Vec::new();
    for link in own.iter().filter(|link| !link.facts.is_leaf()) {
        if all.iter().chain(&strays).all(|other| other.der != link.der) {
            strays.push(link);
        }
    }
    if let Some(first) = strays.first() {
        faults.push(ChainFault::Stray { name: first.facts.subject_name.clone(), more: strays.len() - 1 });
    }
    Chain { certs: all.into_iter().map(|link| link.der.clone()).collect(), faults }
}

/// `parent` has signed `child`.
fn issued(parent: &ChainLink, child: &ChainLink) -> bool {
    let same_id = match (&parent.facts.key_id, &child.facts.authority_key_id) {
        (Some(id), Some(authority)) => Some(id == authority),
        _ => None,
    };
    let same_name = parent.facts.subject == child.facts.issuer;
    // Names may be written in two ways (RFC 5280 §7.1).
    match (same_name, same_id) {
        (true, Some(true)) => true, // an id is a hash of the key
        (false, None | Some(false)) => false,
        (_, same_id) => is_signed_by(&child.der, &parent.facts.public_key).unwrap_or(same_id != Some(false)),
    }
}

static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| default_provider().signature_verification_algorithms);

/// `None`: the signature is of an algorithm that isn't known here.
fn is_signed_by(child: &[u8], public_key: &[u8]) -> Option<bool> {
    // RFC 5280 §4.1: what is signed, the algorithm, the signature.
    let tbs = expect(expect(child, SEQUENCE)?.content, SEQUENCE)?;
    let algorithm = expect(tbs.rest, SEQUENCE)?;
    let (_, signature) = element(algorithm.rest)?.content.split_first()?;
    let key_algorithm = expect(expect(public_key, SEQUENCE)?.content, SEQUENCE)?;
    let (_, key) = element(key_algorithm.rest)?.content.split_first()?;
    let mut algorithms =
        ALGORITHMS.all.iter().filter(|a| *a.signature_alg_id() == *algorithm.content).peekable();
    algorithms.peek()?;
    Some(
        algorithms
            .filter(|a| *a.public_key_alg_id() == *key_algorithm.content)
            .any(|a| a.verify_signature(key, tbs.whole, signature).is_ok()),
    )
}

#[cfg(test)]
mod tests;
