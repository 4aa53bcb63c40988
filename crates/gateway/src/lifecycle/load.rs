//! A configuration and its certificates, read and validated together; nothing is changed by it.

use std::path::PathBuf;

use tls_acceptor::{Loaded, Problem as CertificateProblem};

use crate::config::{Config, Problem, Problems};

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// The program itself.
    BuiltIn {
        /// TOML.
        text: String,
    },
}

/// A configuration that can be carried out, with its certificates at hand.
#[derive(Debug)]
pub struct Candidate {
    /// What the file says.
    pub config: Config,
    /// What the certificate files hold.
    pub loaded: Loaded,
}

/// Reads and validates everything; blocks. `previous` are the certificates in use, for what can
/// be kept of them.
///
/// # Errors
/// Every problem: of the file and of the certificates it names.
pub fn load(source: &Source, previous: Option<&Loaded>) -> Result<Candidate, Problems> {
    let (config, mut problems) = match source {
        Source::File(file) => Config::read(file),
        Source::BuiltIn { text } => Config::parse(&PathBuf::from("built-in.toml"), text),
    };
    let plan = &config.certificates;
    let wants_certificates = plan.directory.is_some() || !plan.named.is_empty();
    let loaded = if wants_certificates {
        match tls_acceptor::load(plan, previous) {
            Ok(loaded) => loaded,
            Err(found) => {
                problems.extend(found.iter().map(|problem| place(&config, problem)));
                Loaded::default()
            }
        }
    } else {
        Loaded::default()
    };
    if problems.is_empty() {
        return Ok(Candidate { config, loaded });
    }
    problems.sort_by_key(|problem| problem.place);
    Err(Problems(problems))
}

/// Where in the configuration the reason for a certificate's problem is.
fn place(config: &Config, problem: &CertificateProblem) -> Problem {
    let places = &config.certificate_places;
    let place = match problem {
        CertificateProblem::Named { position, .. } => {
            places.named.get(*position).copied().unwrap_or(places.section)
        }
        CertificateProblem::Directory { .. } => places.directory,
        CertificateProblem::Default { .. } => places.default,
        CertificateProblem::Nothing { .. } => places.section,
    };
    config.problem(place, problem.to_string())
}
