//! Live sessions, asked what they have carried.

use std::time::Duration;

use frame_core::outcome::Snapshot;
use tokio::time::{Instant, timeout_at};

use crate::context::redial::SessionRedial;
use crate::context::registry::Entry;
use crate::net::listening::{ClientName, PeerName};
use crate::ops::control::protocol::{SessionInfo, TrafficInfo};
use crate::ops::overview::Overview;

/// Sessions that are asked together.
pub(crate) const SESSIONS_AT_ONCE: usize = 256;
/// How long they have to answer.
const SESSION_TIME: Duration = Duration::from_millis(200);

/// The ids of all live sessions, the oldest first.
#[must_use]
pub(crate) fn ids(overview: &Overview) -> Vec<u64> {
    let mut ids: Vec<u64> = overview.sessions.iter().flat_map(|registry| registry.ids()).collect();
    ids.sort_unstable();
    ids
}

/// Asks the sessions with these ids, [`SESSIONS_AT_ONCE`] at most. Those that have ended are left out. One task asks at a
/// time, so that many viewers wake no session more often than one.
pub(crate) async fn ask(overview: &Overview, ids: &[u64]) -> Vec<SessionInfo> {
    let _one_at_a_time = overview.asking.lock().await;
    let asked: Vec<_> = ids
        .iter()
        .filter_map(|&id| {
            overview.session(id).map(|entry| (id, entry.handle.request_snapshot(), Seen::from(entry)))
        })
        .collect();
    let deadline = Instant::now() + SESSION_TIME;
    let site = overview.site.load_full();
    let mut sessions = Vec::with_capacity(asked.len());
    for (id, answer, seen) in asked {
        let snapshot = timeout_at(deadline, answer).await;
        let mut session = seen.session(id, snapshot.ok().and_then(Result::ok));
        session.route = site.hidden.hide(&session.route);
        session.to = site.hidden.hide(&session.to);
        sessions.push(session);
    }
    sessions
}

/// What is known of a session without asking it; nothing of it keeps the session's end from being
/// seen.
struct Seen {
    session: SessionInfo,
    started: Instant,
}

impl From<Entry> for Seen {
    fn from(Entry { handle, route, who, .. }: Entry) -> Self {
        let is_ordered = handle.order().is_some();
        let status = who.redial.status();
        let is_searching = status.is_some_and(|status| status.is_searching());
        let no_redial = match &who.redial {
            SessionRedial::Unable(why) => Some((*why).to_owned()),
            SessionRedial::Off | SessionRedial::On(_) => None,
        };
        Self {
            session: SessionInfo {
                peer: PeerName(who.peer).to_string(),
                client: ClientName(who.client).to_string(),
                route: route.id.to_string(),
                to: route.action.to_string(),
                protocol: who.protocol.to_owned(),
                subject: who.subject().map(Into::into),
                state: match (is_ordered, is_searching) {
                    (false, true) => "redialling",
                    (false, false) if handle.is_delayed() => "delayed",
                    _ => state(is_ordered),
                }
                .to_owned(),
                redials: status.map(|status| status.redials()),
                no_redial,
                stalled_ms: handle.stalled_for().map(millis),
                ..SessionInfo::default()
            },
            started: who.started,
        }
    }
}

impl Seen {
    fn session(self, id: u64, snapshot: Option<Snapshot>) -> SessionInfo {
        let mut session = SessionInfo { id, age_ms: millis(self.started.elapsed()), ..self.session };
        if let Some(Snapshot { from_client, from_backend, idle, is_closing, .. }) = snapshot {
            if is_closing {
                session.state = state(true).to_owned();
            }
            session.traffic = Some(TrafficInfo {
                // By another clock than the age, which it must not exceed.
                idle_ms: millis(idle).min(session.age_ms),
                received_messages: from_client.messages,
                received_bytes: from_client.payload_bytes,
                sent_messages: from_backend.messages,
                sent_bytes: from_backend.payload_bytes,
            });
        }
        session
    }
}

fn state(is_closing: bool) -> &'static str {
    if is_closing { "closing" } else { "open" }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
