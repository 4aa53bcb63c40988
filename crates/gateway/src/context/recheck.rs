//! Live sessions that an authorization server has let in are asked for again, one after the other, spread over time.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use net_io::unix_secs;
use tracing::{info, warn};

use crate::context::identity::{Recheck, spread};
use crate::context::registry::Entry;
use crate::context::{Worker, authority};
use crate::site::auth::Forward;
use crate::upstream::ask::{AskError, ask, let_go};

/// How long after a question without an answer the next one is asked, at most.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Begins to ask for the sessions whose turn it is.
pub(crate) fn begin_due(worker: &Arc<Worker>) {
    for id in worker.sessions.take_rechecks(unix_secs()) {
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
    match ask_again(worker, forward, recheck).await {
        Ok(None) => Some(unix_secs() + spread(interval, 0.9..1.1)),
        Ok(Some(status)) => {
            let status = status.as_u16();
            info!(id, subject, route, status, "a session ends: the authorization server refuses it now");
            authority::end(entry);
            None
        }
        Err(_) => {
            if recheck.age(unix_secs()) > (interval.mul_f64(1.1) + auth.recheck_grace).as_secs() {
                warn!(
                    id,
                    subject,
                    route,
                    "a session ends: the authorization server could not be asked (recheck_grace)"
                );
                authority::end(entry);
                return None;
            }
            Some(unix_secs() + spread(interval.min(RETRY_MAX), 0.5..1.0))
        }
    }
}

/// Asks the authorization server once more whether a client may have its session. `Some`: it refuses, with this status.
///
/// # Errors
/// If there is no answer, of which the log has been told.
pub(crate) async fn ask_again(
    worker: &Worker,
    forward: &Forward,
    recheck: &Recheck,
) -> Result<Option<StatusCode>, AskError> {
    let asked = ask(&worker.auth_pool, forward, recheck.question()).await;
    let (head, answer, lease) = asked.inspect_err(|e| worker.auth_outages.note(forward, e))?;
    if !head.status.is_success() {
        return Ok(Some(head.status));
    }
    recheck.confirm(unix_secs());
    let_go(answer, lease, forward).await;
    Ok(None)
}
