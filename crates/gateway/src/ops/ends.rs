//! Sessions that have ended: how many of each route, and how the last ones did. Kept for the page, and only while there is
//! one.
//!
//! A worker comes here once a session, at its end. What it leaves is bounded: a count for each route until the next
//! look takes them away, and the last [`LAST_MAX`] ends with their texts cut. Of live sessions there is what they had
//! carried at the last look, 60 bytes each: so every byte is counted once, whether its session lives or has ended.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frame_core::close::POLICY_VIOLATION;
use frame_core::outcome::{Cause, Outcome};
use net_io::unix_now;
use serde::Serialize;
use tokio::time::Instant;

use crate::net::listening::ClientName;
use crate::site::route_id::RouteId;
use crate::telemetry::peer::cut;
use crate::telemetry::record::{Kind, Record, Sink};

/// So many ends are remembered.
pub(crate) const LAST_MAX: usize = 50;

/// What has ended; shared by all workers.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionEnds(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Pages that show them; two while one takes the place of the other.
    watchers: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// When the last look began.
    looked: Option<Instant>,
    /// What live sessions had carried then.
    before: HashMap<u64, Carried>,
    by_route: HashMap<RouteId, EndCounts>,
    last: VecDeque<EndInfo>,
}

/// Ends of a route's sessions, and what these have carried since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EndCounts {
    /// As WebSockets are meant to end.
    pub(crate) normal: u32,
    /// Any other way.
    pub(crate) abnormal: u32,
    /// Since the last look.
    pub(crate) carried: Carried,
}

/// What one session or several have carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Whole messages, both ways.
    pub(crate) messages: u64,
    /// Payload from clients.
    pub(crate) received_bytes: u64,
    /// Payload to clients.
    pub(crate) sent_bytes: u64,
}

impl Carried {
    /// Both together.
    pub(crate) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
    }

    /// What has come since `before`; what can't be known counts as nothing.
    #[must_use]
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(before.messages),
            received_bytes: self.received_bytes.saturating_sub(before.received_bytes),
            sent_bytes: self.sent_bytes.saturating_sub(before.sent_bytes),
        }
    }
}

/// How a session has ended. Texts from peers are cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct EndInfo {
    /// When, in seconds of Unix time.
    pub(crate) at: i64,
    /// Its number, if it had one.
    pub(crate) id: Option<u64>,
    /// The client's address.
    pub(crate) client: String,
    /// Who the client was, where its route found that out.
    pub(crate) subject: Option<String>,
    /// What it had asked for.
    pub(crate) host: String,
    /// The same, without the query.
    pub(crate) path: String,
    /// Its route.
    pub(crate) route: String,
    /// The id of its request, if it had one.
    pub(crate) request_id: Option<String>,
    /// What its peers were told, or 1005 or 1006.
    pub(crate) close_code: u16,
    /// It should not have ended so.
    pub(crate) is_abnormal: bool,
    /// In words, with the reason that a peer gave.
    pub(crate) cause: String,
    /// From its request to its end.
    pub(crate) duration_ms: u64,
    /// Whole messages, both ways.
    pub(crate) messages: u64,
    /// Payload, both ways.
    pub(crate) bytes: u64,
}

impl SessionEnds {
    /// There is a page that shows them, until the result is dropped.
    #[must_use]
    pub(crate) fn watch(&self) -> EndsWatched<'_> {
        self.0.watchers.fetch_add(1, Ordering::Relaxed);
        EndsWatched(self)
    }

    /// What the live session `id` of this age has carried since the last look. `now`: in its life, if it has answered.
    #[must_use]
    pub(crate) fn moved(&self, id: u64, age: Duration, now: Option<Carried>) -> Carried {
        self.lock().moved(id, age, now)
    }

    /// A look is over that began at `looked`, and these sessions are live.
    pub(crate) fn settle(&self, looked: Instant, live: &HashSet<u64>) {
        let mut kept = self.lock();
        kept.looked = Some(looked);
        kept.before.retain(|id, _| live.contains(id));
    }

    /// Ends by route since this was last called.
    #[must_use]
    pub(crate) fn take(&self) -> HashMap<RouteId, EndCounts> {
        std::mem::take(&mut self.lock().by_route)
    }

    /// The last ones, the latest first.
    #[must_use]
    pub(crate) fn last(&self) -> Vec<EndInfo> {
        self.lock().last.iter().rev().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn moved(&mut self, id: u64, age: Duration, now: Option<Carried>) -> Carried {
        let before = self.before.get(&id).copied();
        // One that was too busy to answer is taken to be where it was.
        let now = now.or(before).unwrap_or_default();
        self.before.insert(id, now);
        // One that is older than the last look and wasn't seen by it comes from another process: when it has carried what
        // it has isn't known.
        let is_new = self.looked.is_some_and(|looked| age <= looked.elapsed());
        match before {
            Some(before) => now.since(before),
            None if is_new => now,
            None => Carried::default(),
        }
    }
}

/// Ends are noted as long as this lives.
#[derive(Debug)]
pub(crate) struct EndsWatched<'a>(&'a SessionEnds);

impl Drop for EndsWatched<'_> {
    fn drop(&mut self) {
        if self.0.0.watchers.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.0.lock() = Kept::default();
        }
    }
}

impl Sink for SessionEnds {
    fn take(&self, record: &Record<'_>) {
        let Kind::Session { id, outcome: Ok(outcome) } = record.kind else { return };
        if self.0.watchers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let carried = carried(outcome);
        let is_abnormal = is_abnormal(&outcome.cause);
        let text = |value: Option<&str>| value.map(|value| cut(value).into_owned());
        let end = EndInfo {
            at: unix_now(),
            id,
            client: ClientName(record.client).to_string(),
            subject: text(record.subject),
            host: text(record.host).unwrap_or_default(),
            path: cut(record.path).into_owned(),
            route: record.route.map(ToString::to_string).unwrap_or_default(),
            request_id: text(record.request_id),
            close_code: outcome.cause.close_code(),
            is_abnormal,
            cause: cut(&outcome.cause.to_string()).into_owned(),
            duration_ms: u64::try_from(record.duration().as_millis()).unwrap_or(u64::MAX),
            messages: carried.messages,
            bytes: carried.received_bytes + carried.sent_bytes,
        };
        let mut kept = self.lock();
        let since_look = match id {
            Some(id) => {
                let moved = kept.moved(id, record.duration(), Some(carried));
                kept.before.remove(&id);
                moved
            }
            None => Carried::default(),
        };
        if let Some(route) = record.route {
            let counts = match kept.by_route.get_mut(route) {
                Some(counts) => counts,
                None => kept.by_route.entry(route.clone()).or_default(),
            };
            counts.normal += u32::from(!is_abnormal);
            counts.abnormal += u32::from(is_abnormal);
            counts.carried.add(since_look);
        }
        if kept.last.len() == LAST_MAX {
            kept.last.pop_front();
        }
        kept.last.push_back(end);
    }
}

fn carried(outcome: &Outcome) -> Carried {
    Carried {
        messages: outcome.from_client.messages + outcome.from_backend.messages,
        received_bytes: outcome.from_client.payload_bytes,
        sent_bytes: outcome.from_backend.payload_bytes,
    }
}

/// A session should not end so: something broke, or a rule was broken. Codes from 3000 are applications' own
/// (RFC 6455 §7.4.2).
fn is_abnormal(cause: &Cause) -> bool {
    match cause {
        Cause::Closed { close, .. } => !matches!(close.code, None | Some(1000 | 1001 | 3000..)),
        Cause::Finished { .. } | Cause::Idle | Cause::Lifetime => false,
        Cause::Ordered { code } => *code == POLICY_VIOLATION,
        Cause::Lost { .. } | Cause::Violation { .. } | Cause::PongTimeout | Cause::Stalled => true,
    }
}

#[cfg(test)]
mod tests {
    use frame_core::close::Close;
    use frame_core::outcome::{Ended, Party};

    use super::*;

    #[test]
    fn what_broke_is_told_from_what_was_meant() {
        let closed = |code| Cause::Closed { by: Party::Client, close: Close { code, reason: "".into() } };
        for normal in [
            closed(None),
            closed(Some(1000)),
            closed(Some(1001)),
            closed(Some(4400)),
            Cause::Idle,
            Cause::Ordered { code: 1012 },
        ] {
            assert!(!is_abnormal(&normal), "{normal:?}");
        }
        for broken in [
            closed(Some(1002)),
            closed(Some(1011)),
            Cause::Lost { party: Party::Client, how: Ended::Truncated },
            Cause::PongTimeout,
            Cause::Ordered { code: 1008 },
        ] {
            assert!(is_abnormal(&broken), "{broken:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_carried_is_counted_once_and_never_runs_backwards() {
        let carried = |n| Carried { messages: n, received_bytes: 2 * n, sent_bytes: 3 * n };
        let (ends, second) = (SessionEnds::default(), Duration::from_secs(1));
        let nothing = Carried::default();
        assert_eq!(ends.moved(1, second, Some(carried(9))), nothing, "it is not known when");
        ends.settle(Instant::now(), &HashSet::from([1]));
        tokio::time::advance(second).await;
        assert_eq!(ends.moved(1, second * 2, Some(carried(12))), carried(3));
        assert_eq!(ends.moved(1, second * 2, None), nothing, "it is busy");
        assert_eq!(ends.moved(1, second * 2, Some(carried(11))), nothing);
        assert_eq!(ends.moved(2, second / 2, Some(carried(5))), carried(5), "it is new");
        assert_eq!(ends.moved(3, second * 5, Some(carried(5))), nothing, "it has come from elsewhere");
        ends.settle(Instant::now(), &HashSet::from([2]));
        assert_eq!(ends.moved(2, second, Some(carried(6))), carried(1));
        assert_eq!(ends.lock().before.len(), 1, "those that have ended are forgotten");
    }
}
