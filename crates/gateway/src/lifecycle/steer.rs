//! What the control socket demands of the main loop.

use std::collections::BTreeSet;
use std::sync::Arc;

use frame_core::close::SERVICE_RESTART;
use tracing::info;

use super::drain::{DrainPace, end_sessions};
use super::gateway::RunningGateway;
use super::prober::Down;
use crate::context::registry::Entry;
use crate::net::clock;
use crate::ops::control::protocol::{ControlResponse, DrainReport};
use crate::ops::control::server::{Change, close};
use crate::site;
use crate::site::drained::DrainTarget;

impl RunningGateway {
    /// Does what can be done at once.
    pub(super) fn change(&self, what: Change) -> ControlResponse {
        match what {
            Change::Drain(target) => self.drain(target),
            Change::Undrain(target) => self.undrain(&target),
            Change::Close(request) => close(&self.overview, &request),
        }
    }

    fn drain(&self, target: DrainTarget) -> ControlResponse {
        let known = self.targets();
        if !known.contains(&target) {
            return ControlResponse::error(unknown(&target, &known));
        }
        let name = target.to_string();
        let moves = matches!(target, DrainTarget::Server(_));
        let drained = self.overview.drained.clone();
        // First no new sessions come, then the existing ones are closed: none is missed.
        drained.store(drained.load_full().with(target.clone()).into());
        self.mark_drained();
        let chosen = move |entry: &Entry| {
            target.takes(&entry.route, entry.who.server().as_deref()) && drained.load().contains(&target)
        };
        let site::Drain { window, timeout, close_code: code, .. } = self.site.load().drain;
        let window = window.min(timeout / 2);
        let pace = DrainPace { window, timeout, code, moves };
        let sessions = end_sessions(&self.workers, pace, self.choices.subscribe(), chosen);
        info!(
            what = name,
            sessions,
            drain_window_s = window.as_secs_f64(),
            close_code = code,
            "drained by order"
        );
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        ControlResponse {
            drain: Some(DrainReport { target: name, drained: true, sessions, window_ms }),
            ..ControlResponse::done()
        }
    }

    fn undrain(&self, target: &DrainTarget) -> ControlResponse {
        let drained = self.overview.drained.load_full();
        let name = target.to_string();
        if !drained.contains(target) {
            let now: Vec<_> = drained.iter().map(ToString::to_string).collect();
            let now = if now.is_empty() {
                "no route or backend is".to_owned()
            } else {
                format!("drained: {}", now.join(", "))
            };
            return ControlResponse::error(format!("{name} is not drained; {now}"));
        }
        self.overview.drained.store(drained.without(target).into());
        self.mark_drained();
        self.choices.send_replace(());
        info!(what = name, "served again by order");
        ControlResponse {
            drain: Some(DrainReport { target: name, ..DrainReport::default() }),
            ..ControlResponse::done()
        }
    }

    /// What a reload leaves drained: what is still there.
    pub(super) fn keep_drained(&self) {
        let drained = self.overview.drained.load_full();
        if drained.iter().next().is_some() {
            let known = self.targets();
            self.overview.drained.store(drained.filter(|target| known.contains(target)).into());
        }
        self.mark_drained();
    }

    /// Tells the servers which of them are drained.
    fn mark_drained(&self) {
        let drained = self.overview.drained.load_full();
        let site = self.site.load_full();
        for current in site.upstreams().into_iter().map(|upstream| upstream.current()) {
            for server in current.states() {
                let target = DrainTarget::Server(server.endpoint.name());
                server.set_drained(drained.contains(&target), clock::now());
            }
        }
    }

    /// Names lead to other servers.
    pub(super) fn follow_servers(&mut self) {
        let site = self.site.load_full();
        self.mark_drained();
        self.prober.follow(&site);
        self.choices.send_replace(());
    }

    /// Closes the sessions of a server that is down, or that its name no longer leads to.
    pub(super) fn close_down(&self, server: Down) {
        let address = server.endpoint.to_string();
        let site::Drain { window, timeout, .. } = self.site.load().drain;
        let window = window.min(timeout / 2);
        // Those that are left when it is up again stay.
        let chosen = move |entry: &Entry| {
            (server.is_down() || server.has_left())
                && entry.who.server().is_some_and(|its| Arc::ptr_eq(&its, &server))
        };
        let pace = DrainPace { window, timeout, code: SERVICE_RESTART, moves: true };
        let sessions = end_sessions(&self.workers, pace, self.choices.subscribe(), chosen);
        info!(
            backend = address,
            sessions,
            drain_window_s = window.as_secs_f64(),
            close_code = SERVICE_RESTART,
            "the sessions of a backend that is down or has left are closed"
        );
    }

    /// Everything that can be drained: what the site has, and what live sessions still use.
    fn targets(&self) -> BTreeSet<DrainTarget> {
        let site = self.site.load_full();
        let mut targets: BTreeSet<_> =
            site.all_routes().iter().flat_map(|route| DrainTarget::all_of(route)).collect();
        for route in self.workers.iter().flat_map(|worker| worker.sessions.routes()) {
            targets.extend(DrainTarget::all_of(&route));
        }
        targets
    }
}

fn unknown(target: &DrainTarget, known: &BTreeSet<DrainTarget>) -> String {
    let name = target.to_string();
    let kind = if matches!(target, DrainTarget::Route(_)) { "route" } else { "backend" };
    let is_kind = |other: &&DrainTarget| {
        matches!(other, DrainTarget::Route(_)) == matches!(target, DrainTarget::Route(_))
    };
    let names: Vec<_> = known.iter().filter(is_kind).map(ToString::to_string).collect();
    let near = names.iter().map(|known| (strsim::damerau_levenshtein(&name, known), known));
    match near.filter(|(distance, _)| *distance <= 1 + name.len() / 4).min() {
        Some((_, near)) => format!("there is no {kind} {name}; did you mean {near}?"),
        None if names.is_empty() => format!("there is no {kind} {name}; there are no {kind}s"),
        None => format!("there is no {kind} {name}; the {kind}s are: {}", names.join(", ")),
    }
}
