//! A configuration and its certificates, read and validated together; nothing is changed by it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tls_acceptor::{
    CertificateProblem, ConnectorSettings, Loaded, SigningKeys, TicketFileError, TicketKeys, TlsConnector,
};

use crate::config::{Config, Place, Problem, Problems, across, admin, users};
use crate::net::options;
use crate::site::jwt::source::KeySource;

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A file.
    File(PathBuf),
    /// The program itself.
    BuiltIn {
        /// TOML.
        text: String,
    },
    /// A program that this gateway is a part of.
    Given(Arc<Config>),
}

/// A configuration that can be carried out, with its certificates at hand.
#[derive(Debug)]
pub struct Candidate {
    /// What the file says.
    pub config: Config,
    /// What the certificate files hold.
    pub loaded: Loaded,
    /// What the file of ticket keys holds, if there is one.
    pub ticket_keys: Option<TicketKeys>,
    /// Files of keys for cookies, and their permissions if every user has access to them.
    pub cookie_keys: BTreeMap<PathBuf, Option<u32>>,
    /// Names of servers that can't be resolved, in sentences.
    pub unresolved: Vec<String>,
    /// What else is named and not there now, in sentences; only [`super::look_around()`] looks for it.
    pub absent: Vec<String>,
    /// Addresses that connections to servers can't come from now, in sentences.
    pub sourceless: Vec<String>,
}

impl Candidate {
    /// Everything that is wrong and doesn't forbid to carry it out.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let certificates = self.loaded.warnings.iter().map(ToString::to_string);
        certificates
            .chain(self.warnings_of_files())
            .chain(self.unresolved.iter().chain(&self.absent).cloned())
    }

    /// Those of them that are neither of certificates nor of what is missing elsewhere.
    pub fn warnings_of_files(&self) -> impl Iterator<Item = String> {
        let files = self.ticket_warning().into_iter().chain(self.cookie_warnings());
        self.across().into_iter().chain(files).chain(self.sourceless.iter().cloned())
    }

    /// What an operator should know of the files with keys of cookies.
    pub fn cookie_warnings(&self) -> impl Iterator<Item = String> {
        self.cookie_keys.iter().filter_map(|(file, mode)| {
            let (file, mode) = (file.display(), (*mode)?);
            Some(format!(
                "{file}: every user of this machine has access to the keys of cookies (mode {mode:04o}); run `chmod o=` on the file, and replace the keys if another user may have read them"
            ))
        })
    }

    /// What shows when its parts are looked at together.
    #[must_use]
    pub fn across(&self) -> Vec<String> {
        across::warnings(&self.config, &self.loaded.set)
    }

    /// What an operator should know of the ticket keys' file.
    #[must_use]
    pub fn ticket_warning(&self) -> Option<String> {
        let (file, _) = self.config.ticket_keys.as_ref()?;
        let mode = self.ticket_keys.as_ref()?.open_to_others()?;
        Some(format!(
            "{}: every user of this machine has access to the ticket keys (mode {mode:04o}); run `chmod o=` on the file, and replace the keys if another user may have read them",
            file.display()
        ))
    }
}

/// Reads and validates everything; blocks. `previous` are the certificates in use, for what can
/// be kept of them.
///
/// # Errors
/// Every problem: of the file and of the certificates it names.
pub fn load(source: &ConfigSource, previous: Option<&Loaded>) -> Result<Candidate, Problems> {
    let (config, mut problems) = match source {
        ConfigSource::File(file) => Config::read(file),
        ConfigSource::BuiltIn { text } => Config::parse(&PathBuf::from("built-in.toml"), text),
        ConfigSource::Given(config) => {
            let problems = config.check().err().map_or_else(Vec::new, |problems| problems.0);
            (Config::clone(config), problems)
        }
    };
    let plan = &config.certificates;
    let is_awaited = !plan.awaited.is_empty() || plan.on_demand.is_some();
    let wants_certificates = plan.directory.is_some() || !plan.named.is_empty() || is_awaited;
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
    problems.extend(config.missing_directories());
    problems.extend(prepare_tls(&config));
    problems.extend(users::prepare(&config));
    problems.extend(admin::prepare(&config));
    problems.extend(config.read_token_keys());
    let (cookie_keys, cookie_problems) = prepare_sticky(&config);
    problems.extend(cookie_problems);
    problems.sort_by_key(|problem| problem.place);
    let ticket_keys = config.ticket_keys.as_ref();
    let ticket_keys = ticket_keys.filter(|(_, place)| !config.unexpanded.contains(place));
    let ticket_keys = ticket_keys.and_then(|(file, place)| {
        let read = TicketKeys::read(file);
        read.map_err(|error| problems.extend(ticket_problems(&config, file, *place, error))).ok()
    });
    // The list is sorted by places, and of each the first problem is that of the variable.
    problems.dedup_by(|next, first| {
        next.place == first.place && next.file == first.file && config.unexpanded.contains(&first.place)
    });
    if problems.is_empty() {
        let sourceless = sourceless(&config);
        return Ok(Candidate {
            config,
            loaded,
            ticket_keys,
            cookie_keys,
            unresolved: Vec::new(),
            absent: Vec::new(),
            sourceless,
        });
    }
    Err(Problems(problems))
}

/// Source addresses that this machine doesn't have.
fn sourceless(config: &Config) -> Vec<String> {
    let mut upstreams: Vec<_> = config.routes.iter().filter_map(|route| route.action.upstream()).collect();
    upstreams.sort_by_key(|upstream| upstream.key());
    let mut told = BTreeMap::new();
    for upstream in upstreams {
        for server in &upstream.servers {
            for address in server.endpoint.source_addresses() {
                told.entry(*address).or_insert_with(|| upstream.to_string());
            }
        }
    }
    told.retain(|address, _| !options::is_local(*address));
    let told = told.into_iter().map(|(address, upstream)| {
        format!(
            "source_addresses of {upstream}: {address} is not an address of this machine at the moment, so no connection \
             comes from it; correct it, or add it to the machine (`ip address add`)"
        )
    });
    told.collect()
}

/// Reads what TLS towards servers needs. Servers with the same settings share sessions that can be resumed.
fn prepare_tls(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut known: HashMap<&ConnectorSettings, Option<TlsConnector>> = HashMap::new();
    let upstreams = config.routes.iter().filter_map(|route| route.action.upstream());
    let servers = upstreams.flat_map(|upstream| &upstream.servers).map(|server| &server.endpoint);
    let auths = config.routes.iter().filter_map(|route| route.access.as_ref()?.auth.as_ref());
    let asked = auths.flat_map(|auth| {
        let forward = auth.forward.as_ref().map(|forward| &forward.endpoint);
        let keys = auth.jwt.as_ref().and_then(|jwt| match &jwt.keys.source {
            KeySource::Url(url) => Some(&url.endpoint),
            KeySource::File(_) => None,
        });
        forward.into_iter().chain(keys)
    });
    for endpoint in servers.chain(asked) {
        let Some(tls) = &endpoint.tls else { continue };
        let connector = known.entry(&tls.settings).or_insert_with(|| {
            let what = |e| format!("TLS towards {endpoint}: {e}");
            let problem = |e| problems.push(config.problem(tls.written_at, what(e)));
            TlsConnector::new(&tls.settings).map_err(problem).ok()
        });
        if let Some(connector) = connector {
            tls.prepare(connector.clone());
        }
    }
    problems
}

/// Reads the keys of cookies. Returns the files with their permissions, if others have access to them.
fn prepare_sticky(config: &Config) -> (BTreeMap<PathBuf, Option<u32>>, Vec<Problem>) {
    let (mut files, mut problems) = (BTreeMap::new(), Vec::new());
    let upstreams = config.routes.iter().filter_map(|route| route.action.upstream());
    for sticky in upstreams.filter_map(|upstream| upstream.sticky.as_ref()) {
        let Some(file) = &sticky.key_file else { continue };
        match TicketKeys::read(file) {
            Ok(keys) => {
                sticky.prepare(SigningKeys::of(&keys));
                files.insert(file.clone(), keys.open_to_others());
            }
            // Several routes may name the upstream.
            Err(_) if files.contains_key(file) => {}
            Err(error) => {
                files.insert(file.clone(), None);
                problems.extend(key_problems(config, "key_file", file, sticky.written_at, error));
            }
        }
    }
    (files, problems)
}

fn ticket_problems(config: &Config, file: &Path, place: Place, error: TicketFileError) -> Vec<Problem> {
    key_problems(config, "ticket_keys", file, place, error)
}

/// In the configuration, if the file as a whole is the problem, else in the file itself.
fn key_problems(
    config: &Config,
    key: &str,
    file: &Path,
    place: Place,
    error: TicketFileError,
) -> Vec<Problem> {
    match error {
        TicketFileError::Lines(lines) => lines
            .iter()
            .map(|problem| Problem {
                file: file.to_owned(),
                place: Place { file: 0, line: problem.line, column: 1 },
                what: problem.to_string(),
            })
            .collect(),
        TicketFileError::Io(_) | TicketFileError::NoKeyFile => {
            vec![config.problem(place, format!("{key}: {} {error}", file.display()))]
        }
    }
}

/// Where in the configuration the reason for a certificate's problem is.
fn place(config: &Config, problem: &CertificateProblem) -> Problem {
    let places = &config.certificate_places;
    let place = match problem {
        CertificateProblem::Named { position, problem } => {
            let named = config.certificates.named.get(*position).zip(places.named.get(*position));
            named.map_or(places.section, |(files, places)| {
                let is_key = problem.path == files.key
                    && (problem.error.is_of_key() || !files.chain.contains(&problem.path));
                let of_clients = files.client_auth.as_ref().is_some_and(|auth| {
                    auth.authorities.contains(&problem.path) || auth.revocation_lists.contains(&problem.path)
                });
                match (files.chain.contains(&problem.path), is_key) {
                    (false, _) if of_clients => places.client_auth,
                    (_, true) => places.key,
                    _ => places.chain,
                }
            })
        }
        CertificateProblem::ClientAuth { position, .. } => {
            places.named.get(*position).map_or(places.section, |places| places.client_auth)
        }
        CertificateProblem::Directory { .. } => places.directory,
        CertificateProblem::Default { .. } => places.default,
        CertificateProblem::Nothing { .. } => places.section,
    };
    config.problem(place, problem.to_string())
}

impl ConfigSource {
    /// A problem with the configuration as a whole.
    pub(super) fn problem(&self, what: String) -> Problem {
        let file = match self {
            Self::File(file) => file.clone(),
            Self::BuiltIn { .. } => PathBuf::new(),
            Self::Given(config) => config.file.clone(),
        };
        Problem { file, place: Place { file: 0, line: 1, column: 1 }, what }
    }
}
