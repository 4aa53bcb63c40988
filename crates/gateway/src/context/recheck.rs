//! Live sessions that an authorization server has let in are asked for again, one after the other, spread over time.

use std::sync::Arc;
use std::time::Duration;

use net_io::unix_now;
use tracing::{info, warn};

use crate::context::identity::spread;
use crate::context::registry::Entry;
use crate::context::{Worker, authority};
use crate::upstream::ask::{ask, let_go};

/// How long after a question without an answer the next one is asked, at most.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Begins to ask for the sessions whose turn it is.
pub(crate) fn begin_due(worker: &Arc<Worker>) {
    for id in worker.sessions.take_rechecks(now()) {
        let worker = worker.clone();
        tokio::spawn(async move {
            let Ok(_turn) = worker.rechecks.acquire().await else { return };
            if let Some(entry) = worker.sessions.get(id) {
                let next = again(&worker, id, &entry).await;
                worker.sessions.recheck_at(id, next);
            }
        });
    }
}

/// Asks for one session, and says when it is asked for next; `None`: not any more.
async fn again(worker: &Worker, id: u64, entry: &Entry) -> Option<u64> {
    let recheck = entry.who.identity.as_deref()?.recheck.as_ref()?;
    // By the settings of now: the server may have moved.
    let route = worker.site().route(&entry.route.id)?.clone();
    let auth = route.access.as_ref()?.auth.as_ref()?;
    let (forward, interval) = (auth.forward.as_ref()?, auth.recheck?);
    let (subject, route) = (entry.who.subject(), route.id.as_str());
    match ask(&worker.auth_pool, forward, recheck.question()).await {
        Ok((head, answer, lease)) if head.status.is_success() => {
            recheck.confirm(now());
            let_go(answer, lease, forward).await;
            Some(now() + spread(interval, 0.9..1.1))
        }
        Ok((head, ..)) => {
            let status = head.status.as_u16();
            info!(id, subject, route, status, "a session ends: the authorization server refuses it now");
            authority::end(entry);
            None
        }
        Err(e) => {
            worker.auth_outages.note(forward, &e);
            if recheck.age(now()) > (interval.mul_f64(1.1) + auth.recheck_grace).as_secs() {
                warn!(
                    id,
                    subject,
                    route,
                    "a session ends: the authorization server could not be asked (recheck_grace)"
                );
                authority::end(entry);
                return None;
            }
            Some(now() + spread(interval.min(RETRY_MAX), 0.5..1.0))
        }
    }
}

fn now() -> u64 {
    u64::try_from(unix_now()).unwrap_or(0)
}
