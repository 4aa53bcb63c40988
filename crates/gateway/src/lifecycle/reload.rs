//! SIGHUP: everything is read anew, judged whole, and swapped; or nothing changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tls_acceptor::{CertName, ReloadReport};
use tokio::task::{JoinError, spawn_blocking};
use tracing::{error, info};

use super::{Candidate, Gateway, Work, cannot_listen, drain, load, millis, say_warnings};
use crate::config::{GOING_AWAY, Problems};
use crate::route::Route;
use crate::site::Site;
use crate::socket;
use crate::worker::Command;

impl Gateway {
    /// Begins to read everything anew.
    pub(super) fn read(&self) -> Work {
        let (source, certificates) = (self.source.clone(), self.certificates.clone());
        let candidate = spawn_blocking(move || load(&source, Some(&certificates.current().loaded)));
        Work::Reload { candidate, started: Instant::now() }
    }

    /// Nothing changes unless all of it is sound.
    pub(super) fn reload(
        &mut self,
        candidate: Result<Result<Candidate, Problems>, JoinError>,
        started: Instant,
    ) {
        let result = match candidate {
            Ok(Ok(candidate)) => self.swap(candidate),
            Ok(Err(problems)) => Err(problems),
            Err(e) => Err(Problems(vec![self.source.problem(format!("the reload panicked: {e}"))])),
        };
        match result {
            Ok(report) => {
                self.overview.reloads_taken.fetch_add(1, Ordering::Relaxed);
                report.say(started);
            }
            Err(Problems(problems)) => {
                self.overview.reloads_refused.fetch_add(1, Ordering::Relaxed);
                for problem in &problems {
                    error!(problem = %problem, "this forbids the reload");
                }
                error!(
                    generation = self.generation,
                    problems = problems.len(),
                    first = problems.first().map(ToString::to_string),
                    "reload refused: kept the old generation"
                );
            }
        }
        self.notifier.ready(&self.status());
    }

    /// Why there can't be a new listener; perhaps its address is taken by one of the gateway's own,
    /// which is open as long as the reload may still be refused.
    fn cannot_listen(&self, address: SocketAddr, e: &std::io::Error) -> String {
        let taken = e.kind() == std::io::ErrorKind::AddrInUse;
        let mut own = self.listening.values().copied().chain(self.outside.admin_address());
        match own.find(|own| taken && socket::collide(*own, address)) {
            Some(own) => format!(
                "can't listen on {address}: the gateway itself listens on {own}; this change needs a restart"
            ),
            None => cannot_listen(address, e),
        }
    }

    fn swap(&mut self, candidate: Candidate) -> Result<Reloaded, Problems> {
        let config = &candidate.config;
        let mut problems = Vec::new();
        if let Some(workers) = config.workers.filter(|workers| *workers != self.workers.len()) {
            let what = format!(
                "workers: changing their number ({} now, {workers} in the file) needs a restart",
                self.workers.len(),
            );
            problems.push(config.problem(config.workers_place, what));
        }
        let old = self.site.load_full();
        let mut opened = Vec::new();
        for listener in &config.listeners {
            if self.listening.contains_key(&listener.address) {
                continue;
            }
            match self.inherited.listen(listener.address, self.workers.len()) {
                Ok(sockets) => opened.push(sockets),
                Err(e) => {
                    let what = self.cannot_listen(listener.address, &e);
                    problems.push(config.problem(listener.place, what));
                }
            }
        }
        let mut inherited = std::mem::take(&mut self.inherited);
        let explain = |address, e: &std::io::Error| self.cannot_listen(address, e);
        let outside = self.outside.open(config, &mut inherited, &mut problems, explain);
        self.inherited = inherited;
        let generation = self.generation + 1;
        let built = Site::build(config, generation, Some(&old), &self.certificates, &self.tickets);
        let site = match built {
            Ok(site) if problems.is_empty() => Arc::new(site),
            Ok(_) => return Err(Problems(problems)),
            Err(e) => {
                problems.push(self.source.problem(e.to_string()));
                return Err(Problems(problems));
            }
        };
        // From here on nothing can fail: certificates, ticket keys, then site.
        self.generation = generation;
        say_warnings(&candidate);
        let Candidate { config, loaded, ticket_keys } = candidate;
        let certificates = self.certificates.swap(loaded, generation);
        self.tickets.adopt(ticket_keys.as_ref());
        self.renewal.follow(config.watch, &config.certificates, &self.certificates.current().loaded);
        self.say_expiries();
        self.site.store(site.clone());
        let listeners_added = opened.len();
        for listener in opened {
            self.listen(listener);
        }
        self.outside.settle(&config, outside, &self.overview);
        let gone: Vec<SocketAddr> =
            self.listening.keys().copied().filter(|address| site.door(*address).is_none()).collect();
        for address in &gone {
            self.listening.remove(address);
            info!(%address, "no longer listening");
            for worker in &self.workers {
                let _ = worker.commands.send(Command::Unlisten { address: *address });
            }
        }
        let routes_added = site.route_ids().difference(old.route_ids()).count();
        let routes_removed = old.route_ids().difference(site.route_ids()).count();
        let current = self.site.clone();
        let has_gone = move |route: &Route| current.load().sends_away(&route.id);
        let ended = drain::end_sessions(&self.workers, site.drain.window, GOING_AWAY, has_gone);
        Ok(Reloaded {
            certificates,
            ticket_key: ticket_keys.and_then(|keys| keys.names().next()),
            routes: site.route_ids().len(),
            routes_added,
            routes_removed,
            listeners_added,
            listeners_removed: gone.len(),
            sessions_ended: ended,
        })
    }
}

/// What a reload has changed.
struct Reloaded {
    certificates: ReloadReport,
    /// What the sealing key of the file is called.
    ticket_key: Option<String>,
    routes: usize,
    routes_added: usize,
    routes_removed: usize,
    listeners_added: usize,
    listeners_removed: usize,
    sessions_ended: usize,
}

impl Reloaded {
    /// One line.
    fn say(&self, started: Instant) {
        let c = &self.certificates;
        info!(
            generation = c.generation,
            names_added = shown(&c.added),
            names_removed = shown(&c.removed),
            names_replaced = shown(&c.replaced),
            names_kept = shown(&c.kept),
            names_unchanged = c.unchanged,
            nearest_expiry_days = c.nearest_expiry.as_ref().map(|(days, _)| days),
            nearest_expiry = c.nearest_expiry.as_ref().map(|(_, name)| name.to_string()),
            ticket_key = self.ticket_key,
            routes = self.routes,
            routes_added = self.routes_added,
            routes_removed = self.routes_removed,
            listeners_added = self.listeners_added,
            listeners_removed = self.listeners_removed,
            sessions_ended = self.sessions_ended,
            took_ms = millis(started),
            "reloaded"
        );
    }
}

/// The names for a line in the log: the first ten.
pub(super) fn shown(names: &[CertName]) -> Option<String> {
    const SHOWN: usize = 10;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    if names.len() > SHOWN {
        shown.push(format!("and {} more", names.len() - SHOWN));
    }
    (!shown.is_empty()).then(|| shown.join(", "))
}
