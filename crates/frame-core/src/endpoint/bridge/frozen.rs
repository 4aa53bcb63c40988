//! A bridge on its way to another process: the state of its endpoint, and what is between that and the backend.

use bytes::BytesMut;
use net_io::state::{StateBytes, StateError, StateReader, StateWriter};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Bridge, BridgeState, Endpoint, EndpointState};
use crate::cause_state::{read_cause, read_ended, write_cause, write_ended};
use crate::client::ClientStream;
use crate::frame_reader::PART_LEN;
use crate::handle::SessionHandle;
use crate::tap::TapStart;

/// What this release knows. Raised with each field that is added.
const VERSION: u8 = 2;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;

impl<S, B> Bridge<'_, S, B>
where
    S: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
{
    /// What it knows, and the client's stream.
    pub(super) fn freeze(self) -> (S, Box<BridgeState>) {
        let Self { endpoint, backend: _, unwritten, needs_flush, write_error, backend_end } = self;
        let (client, endpoint) = endpoint.freeze();
        let endpoint = *endpoint;
        (client, Box::new(BridgeState { endpoint, unwritten, needs_flush, write_error, backend_end }))
    }
}

impl BridgeState {
    /// Where a tap of the session begins.
    #[must_use]
    pub fn tap_start(&self) -> TapStart {
        self.endpoint.tap_start()
    }

    pub(super) fn thaw<S, B>(self, client: S, backend: &mut B, handle: SessionHandle) -> Bridge<'_, S, B>
    where
        S: ClientStream,
    {
        let Self { endpoint, unwritten, needs_flush, write_error, backend_end } = self;
        let endpoint = Box::new(Endpoint::thaw(client, Box::new(endpoint), handle));
        Bridge { endpoint, backend, unwritten, needs_flush, write_error, backend_end }
    }

    /// Bytes of which another process, of this release or of another, makes the same state. Among them are up to some
    /// hundred kilobytes of traffic.
    #[must_use]
    pub fn encode(&self) -> StateBytes {
        let Self { endpoint, unwritten, needs_flush, write_error, backend_end } = self;
        let mut out = StateWriter::new(NEEDS);
        endpoint.write_state(&mut out);
        out.bytes(unwritten);
        out.bool(*needs_flush);
        out.option(*write_error, write_ended);
        out.option(backend_end.as_ref(), write_cause);
        out.finish()
    }

    /// Makes a state of the bytes of [`Self::encode`].
    ///
    /// # Errors
    /// If they were written by a release that is too new, or are no state that [`Self::encode`] writes.
    pub fn decode(state: &[u8]) -> Result<Box<Self>, StateError> {
        let mut fields = StateReader::new(state, VERSION)?;
        let endpoint = EndpointState::read_state(&mut fields)?;
        let unwritten = BytesMut::from(fields.bytes()?);
        if unwritten.len() > PART_LEN {
            return Err(StateError::Invalid("the bytes for a backend"));
        }
        Ok(Box::new(Self {
            endpoint,
            unwritten,
            needs_flush: fields.bool()?,
            write_error: fields.option(read_ended)?,
            backend_end: fields.option(read_cause)?,
        }))
    }
}
