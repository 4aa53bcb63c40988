//! Which certificate answers for a name: an immutable map, built whole.
//!
//! In: certificates, the default's name, the time. Out: the set, and which certificate lost to
//! which other. Pure.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use crate::certificate::{Certificate, CertificateSource, Flaw, KeyType};
use crate::client_auth::{ClientAuth, ClientRules};
use crate::name::{CertName, normalize};

/// The certificates that answer for one name: at most one of each key type. Good ones come first, then
/// they are in the order of [`KeyType`].
type Entry = Vec<Arc<Certificate>>;

/// Immutable: what a ClientHello is answered from.
#[derive(Debug, Default)]
pub struct CertSet {
    exact: HashMap<Box<str>, Entry>,
    /// By the part behind `*.`.
    wildcard: HashMap<Box<str>, Entry>,
    ip: HashMap<IpAddr, Entry>,
    default: Option<Entry>,
    /// Names that are refused as long as they have no certificate of their own.
    awaited: HashSet<CertName>,
    certificates: Vec<Arc<Certificate>>,
    /// What clients have to show, by the names of the certificates that say so.
    client_auth: HashMap<CertName, Arc<ClientAuth>>,
    /// That of clients without a known name.
    default_auth: Option<Arc<ClientAuth>>,
}

/// What was chosen for a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selected {
    /// A certificate that is valid for the name the client asked for.
    Own,
    /// The default one: the client sent no name, or one that no certificate has.
    Default,
}

/// Why one of two certificates for one name and key type is not served for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The other is valid now and this one isn't.
    NotValidNow,
    /// The other has no flaw and this one has.
    Unfit(Flaw),
    /// The other was issued later.
    IssuedEarlier,
    /// They don't differ; the other was found first.
    FoundLater,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotValidNow => "is not valid now and the other is",
            Self::Unfit(Flaw::Authority) => "is a CA certificate and the other isn't",
            Self::Unfit(Flaw::NotForServers) => "is not for servers and the other is",
            Self::Unfit(Flaw::NotForSignatures) => "may not sign handshakes and the other may",
            Self::Unfit(Flaw::WeakSignature(_)) => "is signed with a broken algorithm and the other isn't",
            Self::Unfit(Flaw::MustStaple) => "requires a stapled OCSP response and the other doesn't",
            Self::IssuedEarlier => "was issued earlier",
            Self::FoundLater => "has the same dates and was found later",
        })
    }
}

/// One name for which a certificate is not served although it is valid for it.
#[derive(Debug, Clone)]
pub struct Lost {
    /// The name.
    pub name: CertName,
    /// Not served for it.
    pub loser: Arc<Certificate>,
    /// Served for it.
    pub winner: Arc<Certificate>,
    /// The reason.
    pub why: Why,
}

impl CertSet {
    /// Sorts `certificates` by name. Of two for one name and key type the one that is valid at
    /// `now` (seconds since 1970) is served, then the one without flaws, then the one issued later, then
    /// the first. One that is not valid or has a flaw is served only to clients that can't use a good one
    /// of another key type.
    ///
    /// `default` names the certificate for clients that ask for no name or an unknown one; it is
    /// up to the caller to see that it exists ([`Self::has_default`]).
    #[must_use]
    pub(crate) fn build(
        certificates: Vec<Arc<Certificate>>,
        default: Option<&CertName>,
        now: i64,
    ) -> (Self, Vec<Lost>) {
        let mut set = Self::default();
        let mut lost = Vec::new();
        for certificate in &certificates {
            for name in &certificate.leaf.names {
                let entry = match name {
                    CertName::Exact(name) => set.exact.entry(name.clone()).or_default(),
                    CertName::Wildcard(parent) => set.wildcard.entry(parent.clone()).or_default(),
                    CertName::Ip(ip) => set.ip.entry(*ip).or_default(),
                };
                lost.extend(insert(entry, name, certificate, now));
                // Also of one that loses: a name never becomes open to all because of another certificate.
                if let Some(client_auth) = &certificate.client_auth {
                    set.client_auth.entry(name.clone()).or_insert_with(|| client_auth.clone());
                }
            }
        }
        let default_name = default;
        let default = default.and_then(|name| match name {
            CertName::Exact(name) => set.find(name),
            CertName::Wildcard(parent) => set.wildcard.get(parent),
            CertName::Ip(ip) => set.ip.get(ip),
        });
        set.default = default.cloned();
        set.default_auth = default_name.and_then(|name| match name {
            CertName::Exact(name) => set.rules_of(name).flatten().cloned(),
            name => set.client_auth.get(name).cloned(),
        });
        set.certificates = certificates;
        (set, lost)
    }

    /// Every certificate, those that lost included, in the order they were found.
    #[must_use]
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    /// Clients that ask for one of these names don't get the default certificate in place of its own.
    pub(crate) fn refuse_awaited<'a>(&mut self, names: impl Iterator<Item = &'a CertName>) {
        self.awaited = names.cloned().collect();
    }

    /// The name will have a certificate of its own, if it has none yet.
    pub(crate) fn is_awaited(&self, name: &CertName) -> bool {
        self.awaited.contains(name)
    }

    /// The same for a host, in lower case: the name itself, or a wildcard that it fits.
    #[must_use]
    pub fn awaits(&self, name: &str) -> bool {
        !self.awaited.is_empty()
            && (self.is_awaited(&CertName::Exact(name.into()))
                || name
                    .split_once('.')
                    .is_some_and(|(_, parent)| self.is_awaited(&CertName::Wildcard(parent.into()))))
    }

    /// The certificates that answer for some name, in the order they were found.
    pub fn served(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        let served: HashSet<_> = self.names().flat_map(|(_, entry)| entry).map(Arc::as_ptr).collect();
        self.certificates.iter().filter(move |certificate| served.contains(&Arc::as_ptr(certificate)))
    }

    /// Every name, and when the first of the certificates that answer for it expires, in seconds since
    /// 1970.
    pub(crate) fn expiries(&self) -> impl Iterator<Item = (CertName, i64)> {
        let first = |entry: &[Arc<Certificate>]| entry.iter().map(|c| c.leaf.not_after).min();
        self.names().filter_map(move |(name, entry)| Some((name, first(entry)?)))
    }

    /// Some certificate answers clients without a (known) name.
    #[must_use]
    pub fn has_default(&self) -> bool {
        self.default.is_some()
    }

    /// The certificates that answer clients without a (known) name.
    pub(crate) fn default_entry(&self) -> &[Arc<Certificate>] {
        self.default.as_deref().unwrap_or_default()
    }

    /// Every name with the certificates that answer for it.
    pub fn names(&self) -> impl Iterator<Item = (CertName, &[Arc<Certificate>])> {
        let exact = self.exact.iter().map(|(n, e)| (CertName::Exact(n.clone()), &e[..]));
        let wildcard = self.wildcard.iter().map(|(n, e)| (CertName::Wildcard(n.clone()), &e[..]));
        let ip = self.ip.iter().map(|(ip, e)| (CertName::Ip(*ip), &e[..]));
        exact.chain(wildcard).chain(ip)
    }

    /// The exact name, else the wildcard one label up. `name` as a client sent it.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Option<&[Arc<Certificate>]> {
        self.find(&normalize(name)).map(|entry| &entry[..])
    }

    /// Some certificate that is valid at `now` answers for `name`, which is in lower case.
    pub(crate) fn is_served(&self, name: &str, now: i64) -> bool {
        self.find(name).is_some_and(|entry| entry.iter().any(|certificate| certificate.leaf.is_valid(now)))
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        self.exact.get(name).or_else(|| {
            let (label, parent) = name.split_once('.')?;
            if label.is_empty() { None } else { self.wildcard.get(parent) }
        })
    }

    /// Answers a ClientHello: own certificate, default, or `None`, which is also the answer for a name whose certificate
    /// is awaited. Among an entry's key types the
    /// client's signature schemes choose; if it can use none, the handshake has to fail over the
    /// certificate, so one is returned anyway.
    #[must_use]
    pub fn resolve(
        &self,
        server_name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<(Selected, &Arc<CertifiedKey>)> {
        let own = server_name.and_then(|name| self.find(&normalize(name)));
        let (selected, entry) = match own {
            Some(entry) => (Selected::Own, entry),
            None if server_name.is_some_and(|name| self.awaits(&normalize(name))) => return None,
            None => (Selected::Default, self.default.as_ref()?),
        };
        let usable = entry.iter().find(|c| c.key.key.choose_scheme(schemes).is_some());
        usable.or_else(|| entry.first()).map(|certificate| (selected, &certificate.key))
    }

    /// Clients of some name have to show a certificate, or may.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        !self.client_auth.is_empty()
    }

    /// What a client has to show that asks for this name, as it sent it; `None`: nothing. A name without a certificate
    /// has the rules of the default one.
    #[must_use]
    pub fn client_auth(&self, server_name: Option<&str>) -> Option<&Arc<ClientAuth>> {
        if self.client_auth.is_empty() {
            return None;
        }
        match server_name.and_then(|name| self.rules_of(&normalize(name))) {
            Some(of_name) => of_name,
            None => self.default_auth.as_ref(),
        }
    }

    /// Names the rules of [`Self::client_auth`].
    #[must_use]
    pub fn client_rules(&self, server_name: Option<&str>) -> Option<ClientRules> {
        self.client_auth(server_name).map(|client_auth| client_auth.rules)
    }

    /// The rules of the entry that answers for `name`; the outer `None`: there is no such entry.
    fn rules_of(&self, name: &str) -> Option<Option<&Arc<ClientAuth>>> {
        if self.exact.contains_key(name) {
            return Some(self.client_auth.get(&CertName::Exact(name.into())));
        }
        let (label, parent) = name.split_once('.')?;
        let is_known = !label.is_empty() && self.wildcard.contains_key(parent);
        is_known.then(|| self.client_auth.get(&CertName::Wildcard(parent.into())))
    }

    /// What clients have to show that ask for this name of a certificate.
    pub(crate) fn auth_of(&self, name: &CertName) -> Option<&Arc<ClientAuth>> {
        self.client_auth.get(name)
    }

    /// Certificates whose clients would have to follow two rules: their positions in the plan, with one of the names.
    pub(crate) fn conflicts(&self) -> impl Iterator<Item = (usize, CertName)> {
        self.certificates.iter().filter_map(|certificate| {
            let (CertificateSource::Named(position), Some(own)) =
                (&certificate.origin, &certificate.client_auth)
            else {
                return None;
            };
            let is_other =
                |name: &&CertName| self.client_auth.get(*name).is_some_and(|rules| rules.files != own.files);
            Some((*position, certificate.leaf.names.iter().find(is_other)?.clone()))
        })
    }

    /// One certificate of this set answers for both names: for one that has none, the default.
    #[must_use]
    pub fn share(&self, a: &str, b: &str) -> bool {
        let entry = |name| self.lookup(name).unwrap_or(self.default_entry());
        entry(a).iter().any(|a| entry(b).iter().any(|b| Arc::ptr_eq(a, b)))
    }
}

fn insert(entry: &mut Entry, name: &CertName, new: &Arc<Certificate>, now: i64) -> Option<Lost> {
    let Some(old) = entry.iter_mut().find(|c| c.leaf.key_type == new.leaf.key_type) else {
        entry.push(new.clone());
        entry.sort_by_key(|c| order(c, now));
        return None;
    };
    if Arc::ptr_eq(old, new) {
        return None;
    }
    let rank = |c: &Certificate| (c.leaf.is_valid(now), c.leaf.is_fit(), c.leaf.not_before);
    let (winner, loser) =
        if rank(new) > rank(old) { (new.clone(), old.clone()) } else { (old.clone(), new.clone()) };
    *old = winner.clone();
    entry.sort_by_key(|c| order(c, now));
    let why = match loser.leaf.flaws.first() {
        _ if loser.leaf.is_valid(now) != winner.leaf.is_valid(now) => Why::NotValidNow,
        Some(flaw) if winner.leaf.is_fit() => Why::Unfit(*flaw),
        _ if loser.leaf.not_before != winner.leaf.not_before => Why::IssuedEarlier,
        _ => Why::FoundLater,
    };
    Some(Lost { name: name.clone(), loser, winner, why })
}

/// Among the key types of an entry: what most clients accept, then what is cheaper.
fn order(certificate: &Certificate, now: i64) -> (Reverse<(bool, bool)>, KeyType) {
    let leaf = &certificate.leaf;
    (Reverse((leaf.is_valid(now), leaf.is_fit())), leaf.key_type)
}
