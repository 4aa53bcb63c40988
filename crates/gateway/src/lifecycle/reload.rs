//! SIGHUP: all files are read again, checked as a whole, and swapped in; or nothing changes.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use frame_core::close::{GOING_AWAY, UNAUTHORIZED};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::access_log;
use super::drain::{self, DrainPace};
use super::gateway::RunningGateway;
use super::load::{Candidate, load};
use super::messages::{cannot_listen, log_warnings, millis, shown};
use super::work::{Asker, Read, Work};
use crate::config::{Config, Problems};
use crate::context::authority;
use crate::context::registry::Entry;
use crate::net::listening::ListenAddress;
use crate::net::{clock, options};
use crate::ops::control::protocol::{ControlResponse, ExpiryInfo, Reloaded};
use crate::site::Site;
use crate::site::route::Route;
use crate::worker::Command;

/// So many routes are named whose sessions end.
const ROUTES_SHOWN: usize = 9;

impl RunningGateway {
    /// Begins to read all files again.
    pub(super) fn read(&self, askers: Vec<Asker>) -> Work {
        let (source, certificates) = (self.source.clone(), self.certificates.clone());
        let (resolver, token_keys) = (self.resolver.clone(), self.token_keys.clone());
        let candidate = tokio::spawn(async move {
            let load = move || load(&source, Some(&certificates.current().loaded));
            let mut candidate = spawn_blocking(load).await?;
            if let Ok(candidate) = &mut candidate {
                let Config { routes, dns, .. } = &candidate.config;
                (candidate.unresolved, ()) =
                    tokio::join!(resolver.prepare(routes, dns), token_keys.prepare(routes));
            }
            Ok(candidate)
        });
        Work::Reload { candidate, started: Instant::now(), askers }
    }

    /// Nothing changes unless all of it is sound.
    pub(super) fn reload(&mut self, Read { candidate, started, askers }: Read) {
        let result = match candidate {
            Ok(Ok(candidate)) => self.swap(candidate),
            Ok(Err(problems)) => Err(problems),
            Err(e) => Err(Problems(vec![self.source.problem(format!("the reload panicked: {e}"))])),
        };
        self.overview.is_reload_refused.store(result.is_err(), Ordering::Relaxed);
        let answer = match result {
            Ok(mut report) => {
                self.overview.reloads_taken.fetch_add(1, Ordering::Relaxed);
                report.took_ms = millis(started);
                log_reload(&report);
                ControlResponse { reload: Some(report), ..ControlResponse::done() }
            }
            Err(Problems(problems)) => {
                self.resolver.keep(self.site.load().all_routes());
                self.token_keys.keep(self.site.load().all_routes());
                self.overview.reloads_refused.fetch_add(1, Ordering::Relaxed);
                for problem in &problems {
                    error!(problem = %problem, "this problem prevents the reload");
                }
                error!(
                    generation = self.generation,
                    problems = problems.len(),
                    first = problems.first().map(ToString::to_string),
                    "reload refused: the old generation stays in use"
                );
                let why = format!("reload refused: generation {} stays in use", self.generation);
                let problems = problems.iter().map(ToString::to_string).collect();
                ControlResponse { problems, ..ControlResponse::error(why) }
            }
        };
        self.overview.reloads.push(&answer);
        for asker in askers {
            let _ = asker.send(answer.clone()); // it may have lost patience
        }
        self.notifier.ready(&self.status());
    }

    /// Ends the sessions whose clients may not have them any more, by what the sessions know of them.
    pub(super) fn end_unauthorized(&self) {
        let site = &self.site.load_full();
        let sessions = self
            .workers
            .iter()
            .flat_map(|worker| worker.sessions.select(|entry| !authority::is_allowed(entry, site)));
        let count = sessions.map(|entry| authority::end(&entry)).count();
        if count > 0 {
            info!(
                sessions = count,
                close_code = UNAUTHORIZED,
                "sessions end: their clients are no longer allowed to have them"
            );
        }
    }

    /// The routes whose sessions `site` sends away, those with the most sessions first, and how many they are.
    fn routes_ended(&self, site: &Site) -> Vec<String> {
        let counts = self.overview.live_by_route().into_iter();
        let mut gone: Vec<_> = counts.filter(|(id, count)| *count > 0 && site.sends_away(id)).collect();
        gone.sort_unstable_by_key(|(_, count)| Reverse(*count));
        let mut shown: Vec<String> =
            gone.iter().take(ROUTES_SHOWN).map(|(id, count)| format!("{id} ({count})")).collect();
        if gone.len() > ROUTES_SHOWN {
            shown.push(format!("and {} more", gone.len() - ROUTES_SHOWN));
        }
        shown
    }

    /// Asks authorization servers for live sessions as often as the routes of now say, if `old` said something else.
    fn recheck(&self, old: &Site) {
        fn interval(route: &Route) -> Option<Duration> {
            route.access.as_ref()?.auth.as_ref()?.recheck
        }
        let site = self.site.load_full();
        for worker in &self.workers {
            worker.sessions.recheck_by(|id| {
                let before = old.route(id).and_then(|route| interval(route));
                site.route(id).map(|route| &**route).filter(|route| interval(route) != before)
            });
        }
    }

    /// Why there can't be a new listener; perhaps its address is taken by one of the gateway's own,
    /// which is open as long as the reload may still be refused.
    fn cannot_listen(&self, address: &ListenAddress, e: &std::io::Error) -> String {
        let taken = e.kind() == std::io::ErrorKind::AddrInUse;
        let listening = self.listening.values().filter_map(ListenAddress::ip);
        let mut own = listening.chain(self.outside.admin_address().and_then(ListenAddress::ip));
        let collides = |own| address.ip().is_some_and(|address| options::collide(own, address));
        match own.find(|own| taken && collides(*own)) {
            Some(own) => format!(
                "can't listen on {address}: the gateway itself listens on {own}; this change needs a restart"
            ),
            None => cannot_listen(address, e),
        }
    }

    fn unlisten(&self, address: &ListenAddress) {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Unlisten { address: address.clone() });
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
            let is_lost = self.overview.sockets.is_lost(&listener.address);
            if self.listening.contains_key(&listener.address) && !is_lost {
                continue;
            }
            if is_lost {
                warn!(address = %listener.address, "the socket has been removed or replaced: it is made again");
            }
            match self.inherited.listen(&listener.address, self.workers.len()) {
                Ok(sockets) => opened.push(sockets),
                Err(e) => {
                    let what = self.cannot_listen(&listener.address, &e);
                    problems.push(config.problem(listener.place, what));
                }
            }
        }
        let mut inherited = std::mem::take(&mut self.inherited);
        let explain = |address: &ListenAddress, e: &std::io::Error| self.cannot_listen(address, e);
        let sockets = &self.overview.sockets;
        let outside = self.outside.open(config, &mut inherited, sockets, &mut problems, explain);
        self.inherited = inherited;
        let access = access_log::prepare(&self.access_log, config, &mut problems);
        let generation = self.generation + 1;
        let built = Site::build(&config.site(), generation, Some(&old), &self.certificates, &self.tickets);
        let (site, access) = match (built, access) {
            (Ok(site), Some(access)) if problems.is_empty() => (Arc::new(site), access),
            (Ok(_), _) => return Err(Problems(problems)),
            (Err(e), _) => {
                problems.push(self.source.problem(e.to_string()));
                return Err(Problems(problems));
            }
        };
        // From here on nothing can fail: certificates, ticket keys, then site.
        self.generation = generation;
        self.access_log.settle(access);
        log_warnings(&candidate);
        let warnings = candidate.warnings().collect();
        let Candidate { config, loaded, ticket_keys, .. } = candidate;
        self.certificates.answer_challenges(site.challenges.clone().map(|challenges| challenges as _));
        let certificates = self.certificates.swap(loaded, generation);
        self.tickets.adopt(ticket_keys.as_ref());
        self.renewal.follow(config.watch, &config.certificates, &self.certificates.current().loaded);
        self.acme.follow(config.acme.as_ref());
        self.log_expiries();
        self.resolver.publish(site.all_routes(), clock::now());
        self.site.store(site.clone());
        self.resolver.keep(site.all_routes());
        self.token_keys.keep(site.all_routes());
        let listeners_added = opened.iter().filter(|l| !self.listening.contains_key(&l.address)).count();
        for listener in opened {
            // In place of a Unix socket that clients can't find any more; its connections live on.
            if self.listening.contains_key(&listener.address) {
                self.unlisten(&listener.address);
            }
            self.listen(listener);
        }
        self.outside.settle(&config, outside, &self.access);
        let gone: Vec<ListenAddress> =
            self.listening.keys().filter(|address| site.listener_state(address).is_none()).cloned().collect();
        for address in &gone {
            self.listening.remove(address);
            self.overview.sockets.remove(address);
            info!(%address, "no longer listening");
            self.unlisten(address);
        }
        let routes_added = site.route_ids().difference(old.route_ids()).count();
        let routes_removed = old.route_ids().difference(site.route_ids()).count();
        let current = self.site.clone();
        let has_gone = move |entry: &Entry| current.load().sends_away(&entry.route.id);
        self.choices.send_replace(());
        let pace = DrainPace {
            window: site.drain.window,
            timeout: site.drain.timeout,
            code: GOING_AWAY,
            moves: false,
        };
        let routes_ended = self.routes_ended(&site);
        let ended = drain::end_sessions(&self.workers, pace, self.choices.subscribe(), has_gone);
        self.end_unauthorized();
        self.recheck(&old);
        self.keep_drained();
        self.prober.follow(&site);
        let strings = |names: &[tls_acceptor::CertName]| names.iter().map(ToString::to_string).collect();
        Ok(Reloaded {
            generation,
            names_added: strings(&certificates.added),
            names_removed: strings(&certificates.removed),
            names_replaced: strings(&certificates.replaced),
            names_kept: strings(&certificates.kept),
            names_unchanged: certificates.unchanged,
            nearest_expiry: certificates
                .nearest_expiry
                .map(|(days, name)| ExpiryInfo { name: name.to_string(), days }),
            ticket_key: ticket_keys.and_then(|keys| keys.names().next()),
            routes: site.route_ids().len(),
            routes_added,
            routes_removed,
            listeners_added,
            listeners_removed: gone.len(),
            sessions_ended: ended,
            routes_ended,
            warnings,
            took_ms: 0, // known in the end
        })
    }
}

/// One line.
fn log_reload(report: &Reloaded) {
    info!(
        generation = report.generation,
        names_added = shown(&report.names_added),
        names_removed = shown(&report.names_removed),
        names_replaced = shown(&report.names_replaced),
        names_kept = shown(&report.names_kept),
        names_unchanged = report.names_unchanged,
        nearest_expiry_days = report.nearest_expiry.as_ref().map(|first| first.days),
        nearest_expiry = report.nearest_expiry.as_ref().map(|first| &*first.name),
        ticket_key = report.ticket_key,
        routes = report.routes,
        routes_added = report.routes_added,
        routes_removed = report.routes_removed,
        listeners_added = report.listeners_added,
        listeners_removed = report.listeners_removed,
        sessions_ended = report.sessions_ended,
        sessions_ended_of = shown(&report.routes_ended),
        took_ms = report.took_ms,
        "reloaded"
    );
}
