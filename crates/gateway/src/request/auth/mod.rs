//! Who sends a request: the steps of `[route.access]` that find it out, in their fixed order. The first that refuses
//! the request ends it.

mod basic;
mod findings;
mod forward;
pub(super) mod jwt;

use http::request::Parts;
use upgrade_handler::RequestKind;

pub(super) use self::findings::{Asker, Findings, set_fields};
use crate::context::Connection;
use crate::context::identity::Identity;
use crate::request::reply::{RequestError, Served};
use crate::site::auth::Auth;

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
    // First, whether or not a value follows. A trusted proxy is no exception: it may not have authenticated the client.
    auth.reserved.strip(&mut head.headers);
    let mut found = Findings::default();
    // The order is in the reference, at [route.access].
    if let Some(identity) = certificate(asker.connection) {
        found.identity = identity;
    }
    if let Some(basic) = &auth.basic {
        basic::check(asker, basic, &mut head.headers, &mut found).await?;
    }
    if let Some(jwt) = &auth.jwt {
        jwt::judge(jwt, asker, (&mut found.identity, &mut found.fields)).await?;
    }
    if let Some(forward) = &auth.forward {
        // It may be asked again for a live session: from time to time, also if a reload wants that later, or before
        // another server gets it.
        let keeps_question = !matches!(kind, RequestKind::Plain);
        if let Some(answer) = forward::check(asker, forward, keeps_question, head, &mut found).await? {
            return Ok(Err(answer));
        }
    }
    Ok(Ok(found))
}

/// Who the client is by the certificate that it has shown, and until when.
pub(super) fn certificate(connection: &Connection) -> Option<Identity> {
    let certificate = connection.tls.as_ref()?.certificate()?;
    let subject = (!certificate.subject.is_empty()).then(|| certificate.subject.clone());
    let mut identity = Identity { subject, ..Identity::default() };
    identity.expires(u64::try_from(certificate.not_after).unwrap_or(0));
    Some(identity)
}
