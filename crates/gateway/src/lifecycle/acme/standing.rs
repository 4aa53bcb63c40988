//! How a certificate stands: what is in the storage of it, and what follows from that.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::CertificateIdentifier;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tls_acceptor::{Awaited, CertName, Certificate, Plan};

use super::account::Suggestion;
use super::schedule::{self, Validity};
use super::storage::Storage;
use crate::config::AcmeSettings;
use crate::config::acme_settings::ON_DEMAND;
use crate::ops::acme::AcmeInfo;

/// The part of the storage with the notes of names that were ordered on demand: whose are there are remembered.
pub(super) const DEMANDED: &str = "demanded";

/// A certificate that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) names: Vec<CertName>,
    /// It is not in the configuration: a client has asked for it.
    pub(super) is_on_demand: bool,
}

impl Wish {
    /// A name that clients have asked for.
    pub(super) fn on_demand(name: &str) -> Self {
        Self { names: vec![CertName::Exact(name.into())], is_on_demand: true }
    }

    /// The file of the certificate with its key.
    pub(super) fn file(&self) -> String {
        if self.is_on_demand {
            format!("{ON_DEMAND}/{}.pem", self.id())
        } else {
            AcmeSettings::stored(&self.names)
        }
    }

    /// Where it stands before it takes the place of the old one.
    pub(super) fn aside(&self) -> String {
        let directory = if self.is_on_demand { ON_DEMAND } else { "certificates" };
        format!("{directory}/.{}.new", self.id())
    }

    pub(super) fn notes_file(&self) -> String {
        let directory = if self.is_on_demand { DEMANDED } else { "state" };
        format!("{directory}/{}.json", self.id())
    }

    fn id(&self) -> String {
        AcmeSettings::id(&self.names)
    }

    /// Its name, if clients have asked for it.
    pub(super) fn demanded(&self) -> Option<&str> {
        match &self.names[..] {
            [CertName::Exact(name)] if self.is_on_demand => Some(name),
            _ => None,
        }
    }
}

/// All certificates that are wanted: those of the configuration, and then those that clients have asked for; blocks.
///
/// # Errors
/// The system's.
pub(super) fn wishes(settings: &AcmeSettings, storage: &Storage) -> io::Result<Vec<Wish>> {
    let configured = settings.certificates.iter();
    let mut all: Vec<_> =
        configured.map(|names| Wish { names: names.clone(), is_on_demand: false }).collect();
    if settings.on_demand.is_some() {
        let demanded = storage.list(DEMANDED)?;
        let demanded = demanded.iter().filter_map(|file| file.strip_suffix(".json")).map(Wish::on_demand);
        let is_configured =
            |wish: &Wish| settings.certificates.iter().flatten().any(|name| wish.names[..] == [name.clone()]);
        all.extend(demanded.filter(|wish| !is_configured(wish)));
    }
    Ok(all)
}

/// What is kept of a certificate beside itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Notes {
    /// Orders in a row that came to nothing.
    pub(super) failures: u32,
    /// The earliest moment for the next.
    pub(super) next: Option<i64>,
    /// Why the last one did.
    pub(super) problem: Option<String>,
    /// By which settings that was: [`settings_id`].
    pub(super) settings: Option<String>,
    pub(super) suggestion: Option<Suggestion>,
}

/// How a certificate stands.
pub(super) struct Standing {
    pub(super) wish: Wish,
    /// A client waits for it.
    pub(super) is_awaited: bool,
    certificate: Option<Arc<Certificate>>,
    pub(super) validity: Option<Validity>,
    pub(super) notes: Notes,
}

impl Standing {
    /// Reads a certificate and its notes; blocks.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn look(storage: &Storage, wish: Wish, is_awaited: bool) -> io::Result<Self> {
        let certificate = read_certificate(&wish.names, storage.path(&wish.file()));
        let validity = certificate.as_ref().map(|certificate| validity(certificate, &wish.names));
        let notes = storage.read(&wish.notes_file())?.unwrap_or_default();
        Ok(Self { wish, is_awaited, certificate, validity, notes })
    }

    /// As the authority calls the certificate (RFC 9773 §4.1).
    pub(super) fn identifier(&self) -> Option<CertificateIdentifier<'static>> {
        let der = self.certificate.as_ref()?.key.cert.first()?;
        CertificateIdentifier::try_from(der).ok().map(CertificateIdentifier::into_owned)
    }

    /// What the authority suggests for this certificate, as far as it has been asked.
    pub(super) fn suggestion(&self) -> Option<&Suggestion> {
        let of = self.identifier()?.to_string();
        self.notes.suggestion.as_ref().filter(|suggestion| suggestion.of == of)
    }

    pub(super) fn is_valid(&self, now: i64) -> bool {
        self.validity.is_some_and(|validity| validity.not_after > now)
    }

    /// The last order has failed by other settings than these: the next one need not wait.
    pub(super) fn has_failed_by_others(&self, settings: &AcmeSettings) -> bool {
        self.notes.failures > 0 && self.notes.settings.as_ref() != Some(&settings_id(settings, &self.wish))
    }

    /// When it is ordered; `None`: when a client asks for it.
    pub(super) fn due(&self, now: i64) -> Option<i64> {
        let is_wanted = !self.wish.is_on_demand
            || self.is_awaited
            || self.is_valid(now)
            // It was asked for, and no order has come to an end since.
            || (self.validity.is_none() && self.notes.failures == 0);
        let suggested = self.suggestion().and_then(|suggestion| suggestion.at);
        is_wanted.then(|| schedule::due(self.validity, suggested, self.notes.next))
    }

    /// When the authority is asked whether that is the right moment; `None`: there is nothing to ask.
    pub(super) fn question_due(&self, now: i64) -> Option<i64> {
        self.due(now)?;
        self.identifier()?;
        Some(
            self.suggestion().map_or(0, |suggestion| suggestion.good_until).max(self.notes.next.unwrap_or(0)),
        )
    }

    /// When there is something to do.
    pub(super) fn next(&self, now: i64) -> i64 {
        let (due, question) = (self.due(now), self.question_due(now));
        due.into_iter().chain(question).min().unwrap_or(i64::MAX)
    }

    /// No client has asked for the name since its certificate has expired, or its order has failed, and that was long ago.
    pub(super) fn is_forgotten(&self, now: i64) -> bool {
        let ended = self.validity.map_or(0, |validity| validity.not_after).max(self.notes.next.unwrap_or(0));
        self.wish.is_on_demand && self.due(now).is_none() && schedule::is_long_ago(ended, now)
    }

    pub(super) fn info(&self, now: i64) -> AcmeInfo {
        let state = match self.validity {
            None => "missing",
            Some(validity) if validity.not_after <= now => "expired",
            Some(_) => "valid",
        };
        AcmeInfo {
            names: AcmeSettings::texts(&self.wish.names),
            on_demand: self.wish.is_on_demand,
            state: state.to_owned(),
            expires: self.validity.map(|validity| validity.not_after),
            next_order: self.due(now).map(|due| due.max(now)),
            failures: self.notes.failures,
            problem: self.notes.problem.clone(),
        }
    }
}

/// The certificate that comes next, by its position, and in how many seconds. Of those that are due, one of the
/// configuration comes before those that clients have asked for, which could hold it up for hours.
pub(super) fn next(standings: &[Standing], now: i64) -> Option<(usize, u64)> {
    let order = |standing: &Standing| {
        let next = standing.next(now);
        (next.max(now), standing.wish.is_on_demand, next)
    };
    let (first, standing) = standings.iter().enumerate().min_by_key(|(_, standing)| order(standing))?;
    Some((first, u64::try_from(standing.next(now).saturating_sub(now)).unwrap_or(0)))
}

/// By this it is seen that what an order depends on has changed since the last one failed.
pub(super) fn settings_id(settings: &AcmeSettings, wish: &Wish) -> String {
    let AcmeSettings { directory, challenge, contact, authorities, key_type, profile, .. } = settings;
    let external = settings.external_account.as_ref().map(|known| (&known.key_id, &known.hmac_key));
    let dns = (&settings.dns_command, settings.dns_wait);
    let all = (directory, challenge, contact, authorities, key_type, profile, external, dns, &wish.names);
    let digest = Sha256::digest(format!("{all:?}"));
    BASE64_URL_SAFE_NO_PAD.encode(&digest[..16])
}

/// What is in a file of a certificate; `None`: nothing that could be served.
fn read_certificate(names: &[CertName], file: PathBuf) -> Option<Arc<Certificate>> {
    let plan = Plan { awaited: vec![Awaited { names: names.to_vec(), file }], ..Plan::default() };
    let loaded = tls_acceptor::load(&plan, None).ok()?;
    loaded.set.certificates().first().cloned()
}

fn validity(certificate: &Certificate, names: &[CertName]) -> Validity {
    let leaf = &certificate.leaf;
    Validity { not_before: leaf.not_before, not_after: leaf.not_after, fits: has_all(&leaf.names, names) }
}

fn has_all(found: &[CertName], wanted: &[CertName]) -> bool {
    found.len() == wanted.len() && wanted.iter().all(|name| found.contains(name))
}

/// Puts a certificate in place; `None`: it is none, or not for these names, or its key is another one. Blocks.
///
/// # Errors
/// The system's; then the old one is still there.
pub(super) fn install(storage: &Storage, wish: &Wish, pem: &str) -> io::Result<Option<Validity>> {
    let aside = wish.aside();
    storage.write(&aside, pem.as_bytes())?;
    let found = read_certificate(&wish.names, storage.path(&aside));
    storage.remove(&aside);
    match found {
        Some(certificate) if has_all(&certificate.leaf.names, &wish.names) => {
            storage.write(&wish.file(), pem.as_bytes())?;
            Ok(Some(validity(&certificate, &wish.names)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn standing(name: &str, is_on_demand: bool, validity: Option<Validity>, next: Option<i64>) -> Standing {
        let wish = Wish { is_on_demand, ..Wish::on_demand(name) };
        let notes = Notes { next, ..Notes::default() };
        Standing { wish, is_awaited: false, certificate: None, validity, notes }
    }

    #[test]
    fn a_failure_counts_for_the_settings_that_it_had() {
        let settings = |contact: &str| {
            let listener =
                "[[listener]]\naddress = \"127.0.0.1:443\"\n[[route]]\npath = \"/\"\nservice = \"echo\"\n";
            let acme =
                format!("[acme]\nnames = [\"a.test\"]\ncontact = \"{contact}\"\nstorage = \"/acme\"\n");
            Config::parse("/wssgate.toml".as_ref(), &format!("{listener}{acme}")).0.acme.unwrap()
        };
        let (first, second) = (settings("a@a.test"), settings("b@a.test"));
        let mut standing = standing("a.test", true, None, Some(1000));
        assert!(!standing.has_failed_by_others(&first), "it has not failed");
        standing.notes.failures = 1;
        assert!(standing.has_failed_by_others(&first), "an earlier release has not said by which");
        standing.notes.settings = Some(settings_id(&first, &standing.wish));
        assert!(!standing.has_failed_by_others(&first) && standing.has_failed_by_others(&second));
    }

    #[test]
    fn names_that_clients_ask_for_hold_up_nothing() {
        let due = Validity { not_before: 0, not_after: 900, fits: true }; // since 600
        let all = [
            standing("later.test", false, None, Some(1500)),
            standing("asked.test", true, None, None),
            standing("renewed.test", false, Some(due), None),
            standing("missing.test", false, None, None),
        ];
        assert_eq!(next(&all, 1000), Some((3, 0)));
        assert_eq!(next(&all[..3], 1000), Some((2, 0)));
        assert_eq!(next(&all[..2], 1000), Some((1, 0)));
        assert_eq!(next(&all[..1], 1000), Some((0, 500)));
        assert_eq!(next(&[], 1000), None);
    }
}
