//! Sessions that have come from the process before this one.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use tracing::{info, warn};

use super::drain::{DrainPace, end_sessions};
use super::gateway::RunningGateway;
use super::upgrade::arrive::Arrival;
use crate::context::registry::Entry;
use crate::site;
use crate::site::drained::DrainTarget;

impl RunningGateway {
    /// No more sessions come. Those whose route this configuration hasn't, or that is drained, are sent away as after
    /// a reload.
    pub(super) fn settle_arrivals(&self, arrival: Option<Arrival>) {
        let Some(mut arrival) = arrival else { return };
        let summary = arrival.summary();
        let moves = &self.overview.moves;
        moves.taken.fetch_add(summary.sessions as u64, Ordering::Relaxed);
        let left: usize = arrival.left.values().sum();
        *moves.left.lock().unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut arrival.left);
        let site = self.site.clone();
        let drained = self.overview.drained.clone();
        let is_drained = move |entry: &Entry, servers: bool| {
            let drained = drained.load();
            let mut targets =
                drained.iter().filter(|target| matches!(target, DrainTarget::Server(_)) == servers);
            targets.any(|target| target.takes(&entry.route, entry.who.server().as_deref()))
        };
        let of_server = is_drained.clone();
        let of_route =
            move |entry: &Entry| site.load().sends_away(&entry.route.id) || is_drained(entry, false);
        let site::Drain { window, timeout, close_code: code, .. } = self.site.load().drain;
        let pace = DrainPace { window: window.min(timeout / 2), timeout, code, moves: false };
        let ended = end_sessions(&self.workers, pace, self.choices.subscribe(), of_route);
        let pace = DrainPace { moves: true, ..pace }; // what leads to the server has not gone
        let of_server = move |entry: &Entry| of_server(entry, true);
        let ended = ended + end_sessions(&self.workers, pace, self.choices.subscribe(), of_server);
        info!(
            sessions = summary.sessions,
            sessions_left = left,
            sessions_ended = ended,
            frozen_p99_ms = summary.frozen_p99.as_secs_f64() * 1e3,
            frozen_max_ms = summary.frozen_max.as_secs_f64() * 1e3,
            "sessions taken over"
        );
        if arrival.waiting() > 0 {
            warn!(
                sessions = arrival.waiting(),
                "the old process has not let go of sessions; they do not go on here"
            );
        }
    }
}
