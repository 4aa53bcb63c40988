//! What is known of a request before its sender is, and what is found out then.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::context::Connection;
use crate::context::identity::Identity;
use crate::site::route::Route;
use crate::upstream::edits::Edits;
use crate::upstream::forward::Hop;

/// What is known of a request before its sender is.
#[derive(Debug, Clone, Copy)]
pub(in crate::request) struct Asker<'a> {
    /// Over which it came.
    pub connection: &'a Arc<Connection>,
    /// That serves it.
    pub route: &'a Arc<Route>,
    /// The client's address.
    pub client: IpAddr,
    /// What was taken out of the request before it was served.
    pub taken: &'a Taken,
    /// How the sender is known to backends.
    pub hop: Hop<'a>,
}

impl Asker<'_> {
    /// The client has sent a password or a token that is wrong: it counts against its address.
    pub(in crate::request) fn failed(&self) {
        let auth = self.route.access.as_ref().and_then(|access| access.auth.as_ref());
        if let Some(rate) = auth.and_then(|auth| auth.failures) {
            let quotas = &self.connection.worker.quotas;
            let _ = quotas.request(quotas.failures(self.route, self.client), rate); // the next one is refused
        }
    }
}

/// What was taken out of a request. It is never shown.
#[derive(Default)]
pub(in crate::request) struct Taken {
    pub(super) token: Option<Box<str>>,
    /// The handshake offered tokens and no subprotocol, so that no answer to it is right: an answer may not choose what
    /// carries a token, nor leave out a subprotocol that a browser waits for.
    pub(super) offers_nothing: bool,
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").finish_non_exhaustive()
    }
}

/// What was found out about the sender of a request.
#[derive(Debug, Default)]
pub(in crate::request) struct Findings {
    /// What the session keeps.
    pub identity: Identity,
    /// Fields for the backend, all of which are [`Reserved`](crate::site::auth::Reserved): the client can't send them, nor have them removed.
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

/// Puts the fields in front of what the route itself changes.
pub(in crate::request) fn set_fields<'a>(fields: &'a [(HeaderName, HeaderValue)], edits: &mut Edits<'a>) {
    let put = fields.iter().map(|(name, value)| (true, name, name.as_str(), value.clone().into()));
    edits.put.splice(0..0, put);
}
