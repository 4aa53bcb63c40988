//! Whether a client may still have its session, before a server is asked to go on with it.
//!
//! In: the route's rules of now, and what the session has kept of its request. A refusal ends the session with Close
//! 3000, as a reload or an authorization server does that refuses a live session. Where nothing can be found out, or the
//! client wants too much, the session goes on looking.

use std::time::Duration;

use frame_core::close::UNAUTHORIZED;
use http::HeaderMap;
use net_io::unix_secs;
use tokio::time::Instant;

use super::{Attempt, Shared, close};
use crate::context::authority;
use crate::context::recheck::ask_again;
use crate::request::access::has_shown_enough;
use crate::site::access::Access;
use crate::site::redial::RedialFailure;

impl Shared {
    /// Judges what can be judged at once: the certificate, the address, the user, the token, and how much the client wants.
    ///
    /// # Errors
    /// What becomes of this attempt.
    pub(super) fn judge(&self, access: Option<&Access>, headers: &HeaderMap) -> Result<(), Attempt> {
        let refused = |why| Err(Attempt::Over(RedialFailure::Refused, close(UNAUTHORIZED, why)));
        if !has_shown_enough(&self.connection, &self.host) {
            return refused("other certificates of clients are asked for now");
        }
        let Some(entry) = self.connection.worker.sessions.get(self.id) else { return Ok(()) };
        let who = &entry.who;
        // A certificate's, too, which needs no rules of the route.
        if who
            .identity
            .as_ref()
            .and_then(|identity| identity.expiry)
            .is_some_and(|expiry| expiry <= unix_secs())
        {
            return refused("the authorization has expired");
        }
        let Some(access) = access else { return Ok(()) };
        if !authority::has_shown_enough(who, access) || !authority::admits(who, access) {
            return refused("this client may not use this service any more");
        }
        let quotas = &self.connection.worker.quotas;
        if let Some(rate) = access.requests {
            let id = quotas.client(&self.route, &access.per, self.client, headers, who.subject());
            if let Err(wait) = quotas.request(id, rate) {
                return Err(Attempt::Failed("too many requests of this client".to_owned(), wait));
            }
        }
        Ok(())
    }

    /// Asks the authorization server again, if the route has one. It has a time of its own to answer: only that in which
    /// it did not is taken from the search.
    ///
    /// # Errors
    /// What becomes of this attempt.
    pub(super) async fn confirm(&self, access: Option<&Access>) -> Result<(), Attempt> {
        let worker = &self.connection.worker;
        let forward = access.and_then(|access| access.auth.as_ref()?.forward.as_ref());
        let (Some(forward), Some(entry)) = (forward, worker.sessions.get(self.id)) else { return Ok(()) };
        let Some(recheck) = entry.who.identity.as_deref().and_then(|identity| identity.recheck.as_ref())
        else {
            return Ok(()); // `judge` has refused it
        };
        let begun = Instant::now();
        match ask_again(worker, forward, recheck).await {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let why = format!("the authorization server answered {}", status.as_u16());
                Err(Attempt::Over(RedialFailure::Refused, close(UNAUTHORIZED, &why)))
            }
            Err(e) => {
                self.search().spend(begun.elapsed());
                let cause = format!("the authorization server {}: {e}", forward.endpoint.url());
                Err(Attempt::Failed(cause, Duration::ZERO))
            }
        }
    }
}
