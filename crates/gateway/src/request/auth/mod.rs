//! Who sends a request: the steps of `[route.access]` that find it out, in their fixed order. The first that refuses
//! the request ends it.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue};
use upgrade_handler::RequestKind;

use crate::context::Connection;
use crate::context::identity::Identity;
use crate::request::reply::{RequestError, Served};
use crate::site::auth::Auth;
use crate::site::route::Route;
use crate::upstream::edits::Edits;
use crate::upstream::forward::Hop;

/// What is known of a request before its sender is.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "each step uses some of it")]
pub(super) struct Asker<'a> {
    /// Over which it came.
    pub connection: &'a Arc<Connection>,
    /// That serves it.
    pub route: &'a Arc<Route>,
    /// The client's address.
    pub client: IpAddr,
    /// How the sender is known to backends.
    pub hop: Hop<'a>,
}

/// What was found out about the sender of a request.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What the session keeps.
    pub identity: Identity,
    /// Fields for the backend, all of which are [`Reserved`](crate::site::auth::Reserved): the client can't send them, nor have them removed.
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

/// Finds out who sends the request. What only the gateway may read of it is taken out of `head`, and of `kind`.
///
/// # Errors
/// What the client is answered.
pub(super) async fn identify(
    asker: Asker<'_>,
    auth: &Auth,
    head: &mut Parts,
    kind: &mut RequestKind,
) -> Result<Result<Findings, Served>, RequestError> {
    // First, whether or not a value follows, and whoever sent it: a trusted proxy may not have asked either.
    auth.reserved.strip(&mut head.headers);
    let mut found = Findings::default();
    // The order is in the reference, at [route.access].
    if let Some(identity) = certificate(asker.connection) {
        found.identity = identity;
    }
    // basic
    // JWT
    // forward auth
    let _ = (asker, kind);
    Ok(Ok(found))
}

/// Who the client is by the certificate that it has shown.
pub(super) fn certificate(connection: &Connection) -> Option<Identity> {
    let subject = &connection.tls.as_ref()?.certificate()?.subject;
    (!subject.is_empty()).then(|| Identity { subject: Some(subject.clone()), ..Identity::default() })
}

/// Puts the fields in front of what the route itself changes.
pub(super) fn tell<'a>(fields: &'a [(HeaderName, HeaderValue)], edits: &mut Edits<'a>) {
    let put = fields.iter().map(|(name, value)| (true, name, name.as_str(), value.clone().into()));
    edits.put.splice(0..0, put);
}
