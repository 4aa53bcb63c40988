//! Sessions that go on have a line every so often, where the access log wants that: each is asked what it has carried.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::context::Worker;
use crate::context::registry::Entry;
use crate::telemetry::record::Progress;

/// Sessions that are asked together.
const AT_ONCE: usize = 64;
/// How long they have to answer: they are on this thread, so that each of them has had its turn by then.
const PATIENCE: Duration = Duration::from_secs(1);
/// From one look at all sessions to the next, as a part of the interval, and at most.
const LOOKS: u32 = 10;
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// When a worker has looked last for sessions whose turn it is.
#[derive(Debug)]
pub(crate) struct ProgressLines {
    looked: Instant,
}

impl ProgressLines {
    /// The first look is from now on.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { looked: Instant::now() }
    }

    /// Begins to write the lines that are due, if it is time for a look.
    pub(crate) fn look(&mut self, worker: &Arc<Worker>) {
        let now = Instant::now();
        let Some(interval) = worker.sinks.progress_interval() else {
            self.looked = now;
            return;
        };
        if now - self.looked < (interval / LOOKS).min(LOOK_INTERVAL_MAX) {
            return;
        }
        let before = std::mem::replace(&mut self.looked, now);
        let due = worker.sessions.ids_of(|entry| is_due(entry.who.started, before, now, interval));
        if !due.is_empty() {
            tokio::spawn(write(worker.clone(), due));
        }
    }
}

/// Between the two looks a multiple of `interval` has passed since `started`.
fn is_due(started: Instant, before: Instant, now: Instant, interval: Duration) -> bool {
    let count = |at: Instant| (at.saturating_duration_since(started)).as_nanos() / interval.as_nanos().max(1);
    count(now) > count(before)
}

/// Writes the lines of these sessions. Those that have ended meanwhile have another.
async fn write(worker: Arc<Worker>, due: Vec<u64>) {
    for ids in due.chunks(AT_ONCE) {
        let entries = ids.iter().filter_map(|&id| Some((id, worker.sessions.get(id)?)));
        let asked: Vec<_> = entries.map(|(id, entry)| (id, entry.handle.request_snapshot(), entry)).collect();
        let deadline = Instant::now() + PATIENCE;
        for (id, answer, Entry { route, who, .. }) in asked {
            let Ok(Ok(snapshot)) = timeout_at(deadline, answer).await else { continue };
            worker.sinks.progress(&Progress {
                id,
                peer: who.peer,
                client: who.client,
                protocol: who.protocol,
                route: &route.id,
                backend: who.server().as_ref().map(|server| &*server.endpoint.address),
                subject: who.subject(),
                redials: who.redial.status().map(|status| status.redials()),
                started: who.started,
                snapshot: &snapshot,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_multiple_of_the_interval_is_due_once() {
        let (second, interval) = (Duration::from_secs(1), Duration::from_secs(600));
        let start = Instant::now();
        let started = start + Duration::from_millis(4_300);
        let looks: Vec<_> = (0..3000).map(|n| start + n * second).collect();
        let due: Vec<_> = looks
            .windows(2)
            .filter(|pair| is_due(started, pair[0], pair[1], interval))
            .map(|pair| (pair[1] - start).as_secs())
            .collect();
        assert_eq!(due, [605, 1205, 1805, 2405]);
        assert!(!is_due(looks[9], looks[1], looks[5], interval), "it is yet to begin");
        assert!(is_due(start, start, looks[9], second), "one line for several that were missed");
    }
}
