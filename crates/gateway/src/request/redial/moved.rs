//! What a session that outlives its servers has kept, on its way to another process: the handshake that is repeated, what
//! was agreed upon, and how long it has looked for servers.

use std::sync::{Arc, Mutex};

use frame_core::redial::Redialer;
use http::header::HeaderValue;
use net_io::state::{StateError, StateReader, StateWriter};
use tokio::time::Instant;
use upgrade_handler::{Agreed, Handoff};

use super::{HEAD_MAX, KeptHead, SessionRedialer, Shared};
use crate::context::redial::RedialStatus;
use crate::session::redial::Redialled;
use crate::site::redial::Search;
use crate::upstream::stream::BackendStream;

impl SessionRedialer {
    /// Writes what [`read`] reads.
    pub(super) fn write_kept(&self, out: &mut StateWriter) {
        let Self { shared, since } = self;
        let Shared {
            connection: _, // the session's, as what follows
            route: _,
            client: _,
            host: _,
            id: _,
            kept: KeptHead { target, fields },
            agreed: Agreed { protocol, extensions, deflate },
            status,
            unable: _, // such a session stays
            search: _, // below
        } = &**shared;
        // During a search there is no server with which it has lived. Another search begins there.
        let time_with_server = if status.is_searching() { Default::default() } else { since.elapsed() };
        out.section(|out| {
            out.bytes(target.as_bytes());
            out.bytes(fields);
            out.option(protocol.as_ref(), |out, value| out.bytes(value.as_bytes()));
            out.option(extensions.as_ref(), |out, value| out.bytes(value.as_bytes()));
            out.bool(*deflate);
            shared.search().write_state(out);
            out.duration(time_with_server);
        });
    }
}

/// What finds servers for a session that has come from another process.
///
/// # Errors
/// If it is not what the other process writes.
pub(crate) fn read(
    fields: &mut StateReader<'_>,
    session: &Redialled<'_>,
    status: &Arc<RedialStatus>,
) -> Result<Box<dyn Redialer<Handoff<BackendStream>>>, StateError> {
    let Redialled { report, route, id, known: _ } = session;
    let mut fields = fields.section()?;
    let target = fields.text()?.into();
    let head = fields.bytes()?.to_vec();
    if head.len() > HEAD_MAX {
        return Err(StateError::Invalid("a handshake"));
    }
    let kept = KeptHead { target, fields: head };
    let agreed = Agreed {
        protocol: fields.option(value)?,
        extensions: fields.option(value)?,
        deflate: fields.bool()?,
    };
    let search = Mutex::new(Search::read_state(&mut fields)?);
    let time_with_server = fields.duration()?;
    let shared = Shared {
        connection: report.connection().clone(),
        route: Arc::clone(route),
        client: report.client(),
        host: report.host(),
        id: *id,
        kept,
        agreed,
        status: status.clone(),
        unable: None,
        search,
    };
    let now = Instant::now();
    let since = now.checked_sub(time_with_server).unwrap_or(now);
    Ok(Box::new(SessionRedialer { shared: Arc::new(shared), since }))
}

fn value(fields: &mut StateReader<'_>) -> Result<HeaderValue, StateError> {
    HeaderValue::from_bytes(fields.bytes()?).map_err(|_| StateError::Invalid("the value of a field"))
}
