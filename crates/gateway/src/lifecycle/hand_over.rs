//! SIGUSR2, as this process lives it: it starts the program again, and lets it go on in its place.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{error, info};

use super::gateway::RunningGateway;
use super::meanwhile::{Arriving, BothProcesses};
use super::messages::millis;
use super::upgrade::leave::{Meanwhile, MoveCount};
use super::upgrade::old::{Successor, Takeover, TakeoverError};
use super::upgrade::retire::stop_accepting;
use super::work::Work;
use crate::context::under_way::Totals;

/// The longest that a new gateway may take to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that were accepted here may still open sessions, which move, too. They are waited for no longer than
/// this.
const LATECOMERS_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked whether there are some.
const LATECOMERS_INTERVAL: Duration = Duration::from_millis(50);

impl RunningGateway {
    /// Begins to start the program again.
    pub(crate) fn take_over(&self) -> Work {
        let limit = START_TIMEOUT.min(self.site.load().takeover_timeout);
        info!(
            pid = std::process::id(), program = %self.program.path.display(),
            "takeover: starting the new process"
        );
        let drained = self.overview.drained.load().iter().map(ToString::to_string).collect();
        let (tickets, site, names) = (self.tickets.clone(), self.site.clone(), self.resolver.names().clone());
        let inheritance =
            self.inherited.inheritance(tickets, drained, site, names, self.outside.lend(), self.commands());
        Work::Takeover(Takeover::start(self.program.clone(), limit, inheritance))
    }

    /// Moves sessions to the new process, lets it go, accepts nothing more, and returns the process id of who does.
    /// Nothing changes if there is none, but that sessions which it had taken are lost.
    pub(crate) async fn hand_over(
        &mut self,
        result: Result<Successor, TakeoverError>,
        started: Instant,
        arriving: &mut Arriving<'_>,
    ) -> Option<u32> {
        let mut count = MoveCount::default();
        let moving = Instant::now();
        self.overview.moves.is_going_on.store(true, Ordering::Relaxed);
        let successor = match self.let_go(result, &mut count, arriving).await {
            Ok(successor) => successor,
            Err(e) => {
                self.overview.moves.is_going_on.store(false, Ordering::Relaxed);
                self.carry_on(&e, started, count.moved);
                return None;
            }
        };
        self.acme.stop(); // before the new process begins to order
        stop_accepting(&self.workers, &successor.listeners);
        for address in &successor.listeners {
            self.overview.sockets.release(address);
        }
        info!(
            pid = std::process::id(),
            successor = successor.pid,
            successor_version = successor.version,
            sockets = successor.sockets,
            sessions = self.overview.live(),
            sessions_moved = count.moved,
            takeover_timeout_s = self.site.load().takeover_timeout.as_secs_f64(),
            took_ms = millis(started),
            "handed over: this process accepts no new connections and ends with its last session"
        );
        if successor.takes_sessions {
            self.move_latecomers(&successor, &mut count, moving, arriving).await;
        }
        self.outside.close_admin(&self.overview.sockets).await;
        self.notifier.hand_over(successor.pid).await;
        self.outside.close_control(); // before the new process is notified, and takes the path
        // What has come by then. If the new process fails, clients are told to ask again.
        let _ = BothProcesses { gateway: self, successor: &successor, arriving }.obey().await;
        Some(successor.pid)
    }

    /// Moves sessions to the new process, and has it accept. Nearly all sessions move before it does: if they can't,
    /// this process still accepts.
    async fn let_go(
        &self,
        result: Result<Successor, TakeoverError>,
        count: &mut MoveCount,
        arriving: &mut Arriving<'_>,
    ) -> Result<Successor, TakeoverError> {
        let successor = result?;
        let wait = self.site.load().handover_wait;
        let mut both = BothProcesses { gateway: self, successor: &successor, arriving };
        both.tell_drained().await?;
        successor.take_sessions(&self.workers, &self.transit, wait, count, &mut both).await?;
        let is_to_end = arriving.signals.are_ending().await;
        successor.go().await?;
        if is_to_end {
            successor.end().await;
        }
        Ok(successor)
    }

    /// Moves the sessions that were opened while the others moved, or are opened now, and says what stays.
    async fn move_latecomers(
        &self,
        successor: &Successor,
        count: &mut MoveCount,
        started: Instant,
        arriving: &mut Arriving<'_>,
    ) {
        let wait = self.site.load().handover_wait;
        let before = count.moved;
        let deadline = Instant::now() + LATECOMERS_WAIT;
        loop {
            // Before the pass: what is opened during it is found by the next.
            let is_last = self.undecided() == 0 || Instant::now() >= deadline;
            let mut both = BothProcesses { gateway: self, successor, arriving };
            if let Err(e) =
                successor.take_sessions(&self.workers, &self.transit, wait, count, &mut both).await
            {
                error!(
                    successor = successor.pid, cause = %e, sessions_lost = count.moved,
                    "the new process has failed after it had taken over; start the gateway again"
                );
                return;
            }
            if is_last {
                break;
            }
            sleep(LATECOMERS_INTERVAL).await;
        }
        successor.send_left(count).await;
        let sessions_left: usize = count.left.values().sum();
        let under_way = self.under_way();
        let reasons: Vec<_> = count.left.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
        info!(
            successor = successor.pid,
            sessions_moved = count.moved,
            after_handover = count.moved - before,
            sessions_left,
            left = (!reasons.is_empty()).then(|| reasons.join(", ")),
            requests_left =
                under_way.exchanges.saturating_sub(self.overview.live() + under_way.event_streams),
            event_streams_left = under_way.event_streams,
            connections_left = self.connections(),
            took_ms = millis(started),
            "sessions moved: they go on in the new process"
        );
    }

    /// Connections that serve requests, or may.
    fn connections(&self) -> usize {
        self.workers.iter().map(|worker| worker.tasks.len().saturating_sub(worker.sessions.len())).sum()
    }

    /// Connections and tasks that may still open a session that can move.
    fn undecided(&self) -> usize {
        self.connections().saturating_sub(self.under_way().settled)
    }

    fn under_way(&self) -> Totals {
        let all = self.workers.iter().map(|worker| worker.under_way.totals());
        all.fold(Totals::default(), |sum, one| Totals {
            exchanges: sum.exchanges + one.exchanges,
            event_streams: sum.event_streams + one.event_streams,
            settled: sum.settled + one.settled,
        })
    }

    fn carry_on(&self, why: &TakeoverError, started: Instant, lost: usize) {
        if lost == 0 {
            error!(
                cause = %why, took_ms = millis(started),
                "takeover failed: this process continues to serve, and nothing has changed"
            );
            return;
        }
        self.overview.moves.lost.fetch_add(lost as u64, Ordering::Relaxed);
        error!(
            cause = %why, sessions_lost = lost, took_ms = millis(started),
            "takeover failed: this process continues to serve, but the sessions that the new one had taken are lost"
        );
    }
}
