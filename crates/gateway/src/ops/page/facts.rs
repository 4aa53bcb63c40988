//! What the page shows of the gateway beside its sessions, as plain values.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use net_io::unix_now;
use serde::Serialize;
use tls_acceptor::Certificate;

use crate::ops::control::protocol::Status;
use crate::ops::control::status::status;
use crate::ops::ends::EndInfo;
use crate::ops::overview::Overview;
use crate::ops::page::shown;
use crate::ops::reloads::ReloadInfo;
use crate::site::hidden::Hidden;
use crate::telemetry::log;

/// A certificate that soon ends is something to look at, in days.
pub(super) const EXPIRY_DAYS: i64 = 14;

/// The gateway at one moment.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub(super) status: Status,
    pub(super) certificates: Vec<CertificateInfo>,
    /// What is valid for a name and not served for it.
    pub(super) not_served: Vec<LostInfo>,
    /// About the certificates in use.
    pub(super) certificate_warnings: Vec<String>,
    pub(super) workers: Vec<WorkerInfo>,
    pub(super) log_lines_lost: u64,
    /// The latest first.
    pub(super) reloads: Vec<ReloadInfo>,
    /// The latest first.
    pub(super) ended: Vec<EndInfo>,
}

/// A certificate.
#[derive(Debug, Serialize)]
pub(super) struct CertificateInfo {
    pub(super) names: Vec<String>,
    pub(super) key: &'static str,
    pub(super) issuer: String,
    pub(super) serial: String,
    pub(super) files: Vec<String>,
    /// Seconds of Unix time.
    pub(super) not_after: i64,
    /// Whole days, rounded down.
    pub(super) days_left: i64,
    pub(super) is_valid_yet: bool,
    /// It is served for a name at least.
    pub(super) is_served: bool,
}

/// A certificate that has lost a name to another.
#[derive(Debug, Serialize)]
pub(super) struct LostInfo {
    pub(super) name: String,
    pub(super) files: Vec<String>,
    pub(super) why: String,
    pub(super) served_instead: Vec<String>,
}

/// A worker.
#[derive(Debug, Serialize)]
pub(super) struct WorkerInfo {
    pub(super) worker: usize,
    pub(super) sessions: usize,
    /// Connections so far.
    pub(super) accepted: u64,
    /// Bytes that it holds for peers.
    pub(super) memory_held: u64,
    /// Requests and handshakes that it has refused because memory was short.
    pub(super) memory_refused: u64,
    /// Sessions and connections that it has given up for that.
    pub(super) memory_closed: u64,
}

impl Facts {
    /// Those of now.
    pub(super) fn gather(overview: &Overview) -> Self {
        let site = overview.site.load_full();
        let loaded = &overview.certificates.current().loaded;
        let now = unix_now();
        let served: Vec<*const Certificate> = loaded.set.served().map(Arc::as_ptr).collect();
        let certificates = loaded.set.certificates().iter().map(|certificate| CertificateInfo {
            names: certificate.leaf.names.iter().map(ToString::to_string).collect(),
            key: certificate.leaf.key_type.as_str(),
            issuer: certificate.leaf.issuer.clone(),
            serial: certificate.leaf.serial.clone(),
            files: files(&certificate.files, &site.hidden),
            not_after: certificate.leaf.not_after,
            days_left: certificate.leaf.days_left(now),
            is_valid_yet: certificate.leaf.not_before <= now,
            is_served: served.contains(&Arc::as_ptr(certificate)),
        });
        let not_served = loaded.lost.iter().map(|lost| LostInfo {
            name: lost.name.to_string(),
            files: files(&lost.loser.files, &site.hidden),
            why: lost.why.to_string(),
            served_instead: files(&lost.winner.files, &site.hidden),
        });
        let parts = overview.sessions.iter().zip(&overview.accepted).zip(&overview.pressure).enumerate();
        let workers = parts.map(|(worker, ((sessions, accepted), pressure))| WorkerInfo {
            worker,
            sessions: sessions.len(),
            accepted: accepted.load(Ordering::Relaxed),
            memory_held: pressure.held.load(Ordering::Relaxed),
            memory_refused: pressure.refused.load(Ordering::Relaxed),
            memory_closed: pressure.shed.load(Ordering::Relaxed),
        });
        Self {
            status: status(overview),
            certificates: certificates.collect(),
            not_served: not_served.collect(),
            certificate_warnings: loaded.warnings.iter().map(|w| site.hidden.hide(&w.to_string())).collect(),
            workers: workers.collect(),
            log_lines_lost: log::lines_lost() + overview.access_log.lines_lost(),
            reloads: overview.reloads.last(),
            ended: overview.ends.last(),
        }
    }

    /// What an operator should look at first, in sentences; each with whether it is bad already.
    pub(super) fn attention(&self) -> Vec<(bool, String)> {
        let mut found = Vec::new();
        let status = &self.status;
        if status.state != "ready" {
            found.push((false, format!("The gateway is not simply ready: {}.", status.state)));
        }
        for upstream in &status.upstreams {
            let down: Vec<_> = upstream.servers.iter().filter(|server| server.state != "up").collect();
            if let [first, ..] = down[..] {
                let all = down.len() == upstream.servers.len();
                let (count, of) = (down.len(), upstream.servers.len());
                let why = first.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                let name = &upstream.upstream;
                found.push((
                    all,
                    format!(
                        "{count} of {of} servers of {name} get no requests: {} is {}{why}.",
                        first.server, first.state
                    ),
                ));
            }
        }
        for certificate in self.certificates.iter().filter(|certificate| certificate.is_served) {
            let names = certificate.names.join(", ");
            match certificate.days_left {
                days if days < 0 => found.push((true, format!("The certificate of {names} has expired."))),
                days if days <= EXPIRY_DAYS => {
                    found.push((false, format!("The certificate of {names} expires in {days} days.")));
                }
                _ => {}
            }
        }
        found.extend(
            self.certificate_warnings.iter().map(|warning| (false, format!("Certificates: {warning}"))),
        );
        if let Some(last) = self.reloads.first().filter(|last| last.taken.is_none()) {
            let problems = shown::counted(last.problem_count as u64, "problem");
            found.push((
                true,
                format!(
                    "The last reload was refused, with {problems}; the configuration before it stays in use."
                ),
            ));
        }
        if !status.drained.is_empty() {
            found.push((false, format!("Drained: {}.", status.drained.join(", "))));
        }
        if self.log_lines_lost > 0 {
            found.push((
                false,
                format!(
                    "{} lines of the log are lost, because it is read or written too slowly.",
                    self.log_lines_lost
                ),
            ));
        }
        found
    }
}

fn files(paths: &[PathBuf], hidden: &Hidden) -> Vec<String> {
    paths.iter().map(|path| hidden.hide(&path.display().to_string())).collect()
}
