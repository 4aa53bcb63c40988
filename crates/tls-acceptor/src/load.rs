//! A plan → a complete [`CertSet`], or every problem.
//!
//! A certificate that the plan names must be good. One found by scanning the directory is judged
//! alone: a broken file, or a subdirectory that can't be read, leaves the last good certificate of
//! its names in place, is reported, and never stops the others from being renewed. Only if the
//! default name, or everything, would be left without a certificate is the whole refused.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cert_set::{CertSet, Lost};
use crate::certificate::{Certificate, CertificateSource, Flaw};
use crate::chain_fault::ChainFault;
use crate::client_auth::ClientAuthFiles;
use crate::directory::{Scanned, demanded, scan};
use crate::material::{ENDINGS, FileProblem, KnownKeys, Permissions};
use crate::name::CertName;
use crate::named::named;
use net_io::unix_now;

/// What is to be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Scanned with everything below it.
    pub directory: Option<PathBuf>,
    /// Certificates named one by one.
    pub named: Vec<Named>,
    /// Certificates that may not be there yet.
    pub awaited: Vec<Awaited>,
    /// A directory, which may not be there yet, in which `NAME.pem` has the certificate for `NAME` with its key.
    pub on_demand: Option<PathBuf>,
    /// The name whose certificate answers clients without SNI or with an unknown one; without it
    /// they are refused.
    pub default: Option<CertName>,
}

impl Plan {
    /// Everything below one directory, and no default.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self { directory: Some(path.into()), ..Self::default() }
    }
}

/// A chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// One file, or the leaf's and those of its issuers.
    pub chain: Vec<PathBuf>,
    /// The file of the private key.
    pub key: PathBuf,
    /// What clients have to show that ask for one of its names; `None`: nothing.
    pub client_auth: Option<ClientAuthFiles>,
}

/// A certificate that may not be there yet, since an authority is still asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// Without a certificate, clients that ask for one of these names are refused: they never get the default one.
    pub names: Vec<CertName>,
    /// Where its chain and its key will be, in one file.
    pub file: PathBuf,
}

/// Why a plan can't be carried out. Nothing changes then.
#[derive(Debug, thiserror::Error)]
pub enum CertificateProblem {
    /// A certificate named in the plan.
    #[error("{problem}")]
    Named {
        /// Its position in [`Plan::named`].
        position: usize,
        /// Which file, and what.
        problem: FileProblem,
    },
    /// The directory as a whole.
    #[error("{}: can't be read: {error}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// Two certificates for one name, with different rules for its clients.
    #[error(
        "clients of {name} would have to follow two rules: another certificate for this name has another client_auth; \
         write the same one at both"
    )]
    ClientAuth {
        /// The position of the second of them in [`Plan::named`].
        position: usize,
        /// A name of both.
        name: CertName,
    },
    /// No certificate is valid for the default name.
    #[error("no certificate is valid for the default name {name}{}", list(files))]
    Default {
        /// [`Plan::default`].
        name: CertName,
        /// Files that may be the reason.
        files: Vec<String>,
    },
    /// Nothing at all was found.
    #[error("no certificate was found{}{}", looked(directory.as_deref()), list(files))]
    Nothing {
        /// [`Plan::directory`].
        directory: Option<PathBuf>,
        /// Files that may be the reason.
        files: Vec<String>,
    },
}

fn looked(directory: Option<&Path>) -> String {
    directory.map_or_else(String::new, |directory| {
        let directory = directory.display();
        format!(
            " in {directory}: a certificate and its private key are looked for in files whose names end in \
             {ENDINGS}, in the directory and below it"
        )
    })
}

fn list(files: &[String]) -> String {
    if files.is_empty() { String::new() } else { format!(" ({})", files.join("; ")) }
}

/// Something that an operator should look at, although the load went through.
#[derive(Debug)]
pub enum Warning {
    /// A file of the directory that was left out.
    File(FileProblem),
    /// The last good certificate of a file that is broken or can't be looked at, still served.
    Kept(Arc<Certificate>),
    /// A certificate that is served but not valid yet. (One that has expired is [`expiry`](crate::expiry)'s.)
    NotValidYet(Arc<Certificate>),
    /// Files with private keys that every user of this machine can read or write.
    Open {
        /// One of them.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
        /// How many more there are.
        more: usize,
    },
    /// A certificate that is served although clients refuse such ones.
    Unfit(Arc<Certificate>, Flaw),
    /// A revocation list that has expired: all clients with a certificate are refused.
    ExpiredList(PathBuf),
    /// A certificate that is served with issuers that clients may stumble over, or without any.
    Chain(Arc<Certificate>, ChainFault),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(problem) => problem.fmt(f),
            Self::Kept(c) => {
                let files: Vec<_> = c.files.iter().map(|f| f.display().to_string()).collect();
                write!(
                    f,
                    "the last good certificate of {} stays in use: {} can't be used at the moment",
                    names(c),
                    files.join(" and ")
                )
            }
            Self::NotValidYet(certificate) => write!(
                f,
                "{}: the certificate of {} IS NOT VALID YET; it is still served",
                first_file(certificate),
                names(certificate)
            ),
            Self::Open { file, mode, more } => {
                write!(f, "{}: every user of this machine has access to the private key", file.display())?;
                write!(f, " (mode {mode:04o})")?;
                if *more > 0 {
                    write!(f, ", and to {more} more")?;
                }
                f.write_str(
                    "; run `chmod o=` on the file, and replace the key if another user may have read it",
                )
            }
            Self::Unfit(certificate, flaw) => {
                write!(f, "{}: the certificate of {} {flaw}", first_file(certificate), names(certificate))
            }
            Self::ExpiredList(file) => write!(
                f,
                "{}: the revocation list HAS EXPIRED, so clients with a certificate are refused; get a newer list from \
                 the authority",
                file.display()
            ),
            Self::Chain(certificate, fault) => {
                write!(f, "{}: the certificate of {}: {fault}", first_file(certificate), names(certificate))
            }
        }
    }
}

/// A certificate's names, for messages.
pub(crate) fn names(certificate: &Certificate) -> String {
    certificate.leaf.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

pub(crate) fn first_file(certificate: &Certificate) -> String {
    certificate.files.first().map(|file| file.display().to_string()).unwrap_or_default()
}

/// A plan carried out.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What to serve from now on.
    pub set: CertSet,
    /// Warnings for the operator.
    pub warnings: Vec<Warning>,
    /// Which certificate lost to which other.
    pub lost: Vec<Lost>,
    pub(crate) known_keys: KnownKeys,
}

/// Reads all files of `plan`; blocks. `previous` is the set in use, for what can be kept.
///
/// # Errors
/// Every problem that forbids to use the result.
pub fn load(plan: &Plan, previous: Option<&Loaded>) -> Result<Loaded, Vec<CertificateProblem>> {
    carry_out(plan, previous, None)
}

/// Reads all files of the `plan` that `served` came from; blocks. No operator waits for the answer, so
/// everything is checked by itself here: what is named, the directory, and the default keep their last good
/// certificate, with a warning.
///
/// # Errors
/// If nothing at all would be left.
pub fn renew(plan: &Plan, served: &Loaded) -> Result<Loaded, Vec<CertificateProblem>> {
    carry_out(plan, Some(served), Some(&served.set))
}

/// `fallback` holds what to serve instead of what would forbid the whole.
fn carry_out(
    plan: &Plan,
    previous: Option<&Loaded>,
    fallback: Option<&CertSet>,
) -> Result<Loaded, Vec<CertificateProblem>> {
    let now = unix_now();
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut certificates: Vec<Arc<Certificate>> = Vec::new();
    let mut known_keys = KnownKeys::after(previous.map(|loaded| &loaded.known_keys));

    for (position, wanted) in plan.named.iter().enumerate() {
        let origin = CertificateSource::Named(position);
        let before = || fallback?.certificates().iter().find(|c| c.origin == origin);
        match (named(&origin, &wanted.chain, &wanted.key, wanted.client_auth.as_ref(), now), before()) {
            (Ok((certificate, notes)), _) => {
                certificates.push(Arc::new(certificate));
                warnings.extend(notes.into_iter().map(Warning::File));
            }
            (Err(found), Some(kept)) => {
                warnings.extend(found.into_iter().map(Warning::File));
                warnings.push(Warning::Kept(kept.clone()));
                certificates.push(kept.clone());
            }
            (Err(found), None) => {
                problems
                    .extend(found.into_iter().map(|problem| CertificateProblem::Named { position, problem }));
            }
        }
    }
    let on_demand = plan.on_demand.as_deref().map(demanded).unwrap_or_default();
    let awaited = plan.awaited.iter().filter(|awaited| awaited.file.exists());
    for file in awaited.map(|awaited| &awaited.file).chain(&on_demand) {
        let files = std::slice::from_ref(file);
        let before = || previous?.set.certificates().iter().find(|c| c.files.starts_with(files));
        match named(&CertificateSource::Awaited, files, file, None, now) {
            Ok((certificate, notes)) => {
                certificates.push(Arc::new(certificate));
                warnings.extend(notes.into_iter().map(Warning::File));
            }
            Err(found) => {
                warnings.extend(found.into_iter().map(Warning::File));
                warnings.extend(before().cloned().map(Warning::Kept));
                certificates.extend(before().cloned());
            }
        }
    }
    if let Some(path) = &plan.directory {
        let scanned = match (scan(path, &mut known_keys, now), fallback) {
            (Err(error), Some(_)) => Ok(Scanned::nothing(path, error)),
            (scanned, _) => scanned,
        };
        match scanned {
            Ok(scanned) => {
                let kept = previous.map(|loaded| kept(&loaded.set, &scanned)).unwrap_or_default();
                certificates.extend(scanned.certificates.into_iter().map(Arc::new));
                warnings.extend(scanned.problems.into_iter().map(Warning::File));
                warnings.extend(kept.iter().cloned().map(Warning::Kept));
                certificates.extend(kept);
            }
            Err(error) => problems.push(CertificateProblem::Directory { path: path.clone(), error }),
        }
    }
    let (mut set, mut lost) = CertSet::build(certificates, plan.default.as_ref(), now);
    if let (Some(fallback), Some(_), false) = (fallback, &plan.default, set.has_default()) {
        let mut certificates = set.certificates().to_vec();
        if !certificates.is_empty() {
            certificates.extend(fallback.default_entry().iter().cloned());
            warnings.extend(fallback.default_entry().iter().cloned().map(Warning::Kept));
            (set, lost) = CertSet::build(certificates, plan.default.as_ref(), now);
        }
    }
    set.refuse_awaited(plan.awaited.iter().flat_map(|awaited| &awaited.names));
    problems
        .extend(set.conflicts().map(|(position, name)| CertificateProblem::ClientAuth { position, name }));
    if problems.is_empty() {
        let files = || {
            let file = |w: &Warning| if let Warning::File(p) = w { Some(p.to_string()) } else { None };
            warnings.iter().filter_map(file).collect()
        };
        match &plan.default {
            // What is served is not given up because its files have gone.
            _ if set.certificates().is_empty()
                && ((plan.awaited.is_empty() && plan.on_demand.is_none())
                    || fallback.is_some_and(|set| !set.certificates().is_empty())) =>
            {
                problems
                    .push(CertificateProblem::Nothing { directory: plan.directory.clone(), files: files() });
            }
            Some(name) if !set.has_default() && !set.is_awaited(name) => {
                problems.push(CertificateProblem::Default { name: name.clone(), files: files() });
            }
            _ => {}
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for certificate in set.served() {
        if now < certificate.leaf.not_before {
            warnings.push(Warning::NotValidYet(certificate.clone()));
        }
        let leaf_and_chain = (&certificate.leaf.flaws, &certificate.chain_faults);
        warnings.extend(leaf_and_chain.0.iter().map(|flaw| Warning::Unfit(certificate.clone(), *flaw)));
        warnings
            .extend(leaf_and_chain.1.iter().map(|fault| Warning::Chain(certificate.clone(), fault.clone())));
    }
    let expired = set.certificates().iter().filter_map(|c| c.client_auth.as_ref());
    let expired: BTreeSet<_> = expired.flat_map(|rules| rules.expired_lists.iter().cloned()).collect();
    warnings.extend(expired.into_iter().map(Warning::ExpiredList));
    warnings.extend(open_keys(&set));
    Ok(Loaded { set, warnings, lost, known_keys })
}

/// One warning for all: where one file is open, most are.
fn open_keys(set: &CertSet) -> Option<Warning> {
    let files: BTreeSet<&Path> = set.certificates().iter().filter_map(|c| c.key_file()).collect();
    let mut permissions = Permissions::default();
    let mut open = files.into_iter().filter_map(|file| Some((file, permissions.open_to_others(file)?)));
    let (file, mode) = open.next()?;
    Some(Warning::Open { file: file.to_owned(), mode, more: open.count() })
}

/// Certificates of the directory whose files may still be there but no longer make a certificate.
fn kept(previous: &CertSet, scanned: &Scanned) -> Vec<Arc<Certificate>> {
    let used: HashSet<_> = scanned.certificates.iter().flat_map(|c| &c.files).collect();
    let found: HashSet<_> = scanned.certificates.iter().map(Certificate::der).collect();
    let is_kept = |old: &&Arc<Certificate>| {
        let mut unusable = old.files.iter().filter(|file| scanned.may_be_there(file) && !used.contains(file));
        old.origin == CertificateSource::Directory && !found.contains(&old.der()) && unusable.next().is_some()
    };
    previous.certificates().iter().filter(is_kept).cloned().collect()
}

#[cfg(test)]
mod tests;
