//! What a worker counts of itself: its time, and what belongs to no route and no listener.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use frame_core::outcome::{Cause, Outcome};
use frame_core::violation::Violation;
use net_io::count::{Count, Durations};
use tokio::runtime::{Handle, RuntimeMetrics};

use crate::site::counts::{CAUSES, CODES, Cut, RouteCounts, cause, code, place};

/// What a worker counts. It writes, and others read.
#[derive(Debug, Default)]
pub struct WorkerCounts {
    /// Requests that found no route.
    pub unrouted: RouteCounts,
    /// Sessions that have ended, by cause ([`CAUSES`]) and close code ([`CODES`]).
    pub closes: [[Count; CODES.len()]; CAUSES.len()],
    /// Requests that were refused with 429, by the option that refused them ([`RATES`]).
    pub limited: [Count; RATES.len()],
    /// Sessions that have ended since a message was larger than their route allows.
    pub too_big: Count,
    /// How late its timers were when it came to them: one look a second.
    pub delays: Durations,
    /// Time that it has worked, in nanoseconds.
    pub busy_ns: Count,
    /// The longest time that it has worked without a pause, in nanoseconds: in this minute, and in the one before.
    longest_ns: [Count; 2],
    looks: Count,
    /// Its thread's number for the operating system.
    pub tid: OnceLock<i32>,
}

/// Options of `[route.access]` by which requests are refused with 429.
pub(crate) const RATES: [&str; 4] = ["failures", "requests", "handshakes", "sessions"];

/// Looks after which [`WorkerCounts::longest`] forgets: those of a minute.
const LOOKS: u64 = 60;

thread_local! {
    static TURNS: RefCell<Option<Turns>> = const { RefCell::new(None) };
}

/// The runtime's own account of this thread's time: it reads the clock anyway, so that a turn costs no other look.
struct Turns {
    runtime: RuntimeMetrics,
    counts: Arc<WorkerCounts>,
}

impl WorkerCounts {
    /// Begins on the worker's thread, within its runtime.
    pub fn begin(self: &Arc<Self>) {
        let _ = self.tid.set(rustix::thread::gettid().as_raw_nonzero().get()); // it was not known before
        TURNS.set(Some(Turns { runtime: Handle::current().metrics(), counts: self.clone() }));
    }

    /// A session has ended.
    pub fn closed(&self, outcome: Result<&Outcome, Cut>) {
        let told = outcome.map_or("1006", |outcome| code(outcome.cause.close_code()));
        if matches!(
            outcome.map(|outcome| &outcome.cause),
            Ok(Cause::Violation { violation: Violation::MessageTooBig { .. }, .. })
        ) {
            self.too_big.one();
        }
        self.closes[place(&CAUSES, cause(outcome))][place(&CODES, told)].one();
    }

    /// Once a second: a timer of the worker's was so late.
    pub fn look(&self, late: Duration) {
        self.delays.add(late);
        self.looks.one();
        if self.looks.get().is_multiple_of(LOOKS) {
            let [current, last] = &self.longest_ns;
            last.set(current.get());
            current.set(0);
        }
    }

    /// The longest time that the worker has worked without a pause, in the last minute or two.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_ns.iter().map(Count::get).max().unwrap_or(0))
    }

    fn turned(&self, busy: Duration) {
        let busy_ns = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        let turn = busy_ns.saturating_sub(self.busy_ns.get());
        self.busy_ns.set(busy_ns);
        if turn > self.longest_ns[0].get() {
            self.longest_ns[0].set(turn);
        }
    }
}

/// To be called by the runtime whenever its thread has slept.
pub(crate) fn on_wake() {
    TURNS.with_borrow(|turns| {
        if let Some(Turns { runtime, counts }) = turns {
            counts.turned(runtime.worker_total_busy_duration(0));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turn_is_forgotten_after_a_minute_or_two() {
        let counts = WorkerCounts::default();
        let ms = Duration::from_millis;
        for busy in [3, 10, 12] {
            counts.turned(ms(busy));
        }
        assert_eq!((counts.longest(), counts.busy_ns.get()), (ms(7), 12_000_000));
        (0..LOOKS).for_each(|_| counts.look(Duration::ZERO));
        counts.turned(ms(13));
        assert_eq!(counts.longest(), ms(7));
        (0..LOOKS).for_each(|_| counts.look(Duration::ZERO));
        assert_eq!(counts.longest(), ms(1));
    }
}
