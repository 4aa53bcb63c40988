//! Sessions whose clients are no longer allowed to have them: they end with Close 3000.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use frame_core::close::UNAUTHORIZED;
use frame_core::handle::{EndMode, Order};
use tracing::{info, warn};

use crate::context::identity::Identity;
use crate::context::registry::{Entry, Registry, SessionOpener};
use crate::net::listening::ClientName;
use crate::site::Site;
use crate::site::access::Access;
use crate::site::auth::Forward;
use crate::upstream::ask::AskError;

/// Between two lines of the log.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// How long messages in flight are waited for.
const MESSAGES_WAIT: Duration = Duration::from_secs(5);

/// Questions without an answer, of which the log has one line a second.
#[derive(Debug, Default)]
pub struct Outages(Mutex<(u64, Option<Instant>)>);

impl Outages {
    /// There is one more.
    pub(crate) fn note(&self, server: &Forward, error: &AskError) {
        let now = Instant::now();
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (questions, at) = &mut *logged;
        *questions += 1;
        if at.is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL) {
            *at = Some(now);
            let questions = std::mem::take(questions);
            drop(logged);
            let url = server.endpoint.url();
            warn!(server = url, questions, cause = %error, "the authorization server can't be asked");
        }
    }
}

/// Whether the client may still have the session, by the settings of now. What is judged are values that the session
/// has kept of its request: the address of its client, the line of its user, and the issuer, audience and key of its
/// token.
#[must_use]
pub(crate) fn is_allowed(entry: &Entry, site: &Site) -> bool {
    let Some(route) = site.route(&entry.route.id) else { return true }; // that is another rule's
    route.access.as_ref().is_none_or(|access| admits(&entry.who, access))
}

/// Whether these rules allow a session to its client, by what the session has kept.
#[must_use]
pub(crate) fn admits(who: &SessionOpener, access: &Access) -> bool {
    if !access.admits(who.client) {
        return false;
    }
    let (Some(identity), Some(auth)) = (who.identity.as_deref(), &access.auth) else { return true };
    if let (Some(user), Some(basic)) = (&identity.user, &auth.basic) {
        let line = basic.users.get().and_then(|users| users.line(&user.name));
        if line != Some(user.line) {
            return false;
        }
    }
    if let (Some(token), Some(jwt)) = (&identity.token, &auth.jwt) {
        return jwt.takes(token.issuer.as_deref(), &token.audience, token.key_id.as_deref());
    }
    true
}

/// Whether a session has kept something for each step of these rules: one that was opened under other rules may not.
#[must_use]
pub(crate) fn has_shown_enough(who: &SessionOpener, access: &Access) -> bool {
    let Some(auth) = &access.auth else { return true };
    let nothing = Identity::default();
    let Identity { user, token, recheck, .. } = who.identity.as_deref().unwrap_or(&nothing);
    (auth.basic.is_none() || user.is_some())
        && (auth.jwt.is_none() || token.is_some())
        && (auth.forward.is_none() || recheck.is_some())
}

/// Ends a session whose client is not allowed to have it any more.
pub(crate) fn end(entry: &Entry) {
    let mode = EndMode::AfterMessages { within: MESSAGES_WAIT };
    entry.handle.end(Order { code: UNAUTHORIZED, mode });
}

/// Ends the sessions whose authorization has ended at `now`, in seconds of Unix time.
pub(crate) fn end_expired(sessions: &Registry, now: u64) {
    for (id, entry) in sessions.take_expired(now) {
        end(&entry);
        let (subject, route) = (entry.who.subject(), entry.route.id.as_str());
        info!(id, subject, route, client = %ClientName(entry.who.client), "a session ends: its authorization has expired");
    }
}
