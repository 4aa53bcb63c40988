//! Sessions whose clients are no longer allowed to have them: they end with Close 3000.

use std::time::Duration;

use frame_core::close::UNAUTHORIZED;
use frame_core::handle::{EndMode, Order};
use tracing::info;

use crate::context::registry::{Entry, Registry};

/// How long messages in flight are waited for.
const MESSAGES_WAIT: Duration = Duration::from_secs(5);

/// Ends a session whose client is not allowed to have it any more.
pub(crate) fn end(entry: &Entry) {
    let mode = EndMode::AfterMessages { within: MESSAGES_WAIT };
    entry.handle.end(Order { code: UNAUTHORIZED, mode });
}

/// Ends the sessions whose authorization has ended at `now`, in seconds of Unix time.
pub(crate) fn end_expired(sessions: &Registry, now: i64) {
    for (id, entry) in sessions.take_expired(u64::try_from(now).unwrap_or(0)) {
        end(&entry);
        let (subject, route) = (entry.who.subject(), entry.route.id.as_str());
        info!(id, subject, route, client = %entry.who.client, "a session ends: its authorization has expired");
    }
}
