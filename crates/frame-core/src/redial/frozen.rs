//! A session whose server can be replaced, on its way to another process.

use net_io::state::{StateError, StateReader, StateWriter};

use super::walk::{Track, Walker};
use super::{Options, Phase, RedialStream, Redialer};
use crate::handle::SessionHandle;
use crate::head::Sender;

/// What this release knows. Raised with each field that is added.
const VERSION: u8 = 1;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> RedialStream<S> {
    /// It can be taken apart: it has a server, which is not about to be left.
    #[must_use]
    pub fn is_movable(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Passing) && self.server.is_some()
    }

    /// The server's stream, and bytes of which [`Self::thaw`] makes the rest; `None` unless [`Self::is_movable`].
    #[must_use]
    pub fn freeze(self) -> Option<(S, Vec<u8>)> {
        let Self {
            options: _,  // the route's
            redialer: _, // the session's
            handle: _,   // that of the registry
            server,
            phase,
            up,
            message,
            down,
            behind,
            held,
            held_sent,
            hold: _,  // of a session without a server
            claim: _, // counted again
            to_client,
            is_asked,
            code: _, // of a server that is left
            how: _,
            told: _, // of a session that ends here
        } = self;
        let passing = match phase {
            Phase::Serving => false,
            Phase::Passing => true,
            Phase::Leaving(_) | Phase::Redialling(_) | Phase::Ended(_) => return None,
        };
        let mut out = StateWriter::new(NEEDS);
        out.bool(passing);
        up.write_state(&mut out);
        out.option(message.as_deref(), StateWriter::bytes);
        down.write_state(&mut out);
        out.bytes(&behind);
        out.bytes(&held[held_sent..]);
        out.bytes(&to_client);
        out.bool(is_asked);
        Some((server?, out.finish().to_vec()))
    }

    /// Goes on with what [`Self::freeze`] left.
    ///
    /// # Errors
    /// If the bytes are not what that writes.
    pub fn thaw(
        server: S,
        state: &[u8],
        redialer: Box<dyn Redialer<S>>,
        handle: SessionHandle,
        options: Options,
    ) -> Result<Self, StateError> {
        let mut fields = StateReader::new(state, VERSION)?;
        let mut stream = Self::new(server, redialer, handle, options);
        if fields.bool()? {
            stream.phase = Phase::Passing;
        }
        stream.up = Track::read_state(&mut fields)?;
        let message = fields.option(StateReader::bytes)?.map(<[u8]>::to_vec);
        // Where the option has come with a reload, a message under way is not held.
        stream.message = match (options.may_repeat, message) {
            (true, None) if !stream.up.is_between() => None,
            (true, message) => Some(message.unwrap_or_default()),
            (false, _) => None,
        };
        stream.down = Walker::read_state(&mut fields)?;
        stream.behind = fields.bytes()?.to_vec();
        stream.held = fields.bytes()?.to_vec();
        stream.claim.set(stream.held.capacity());
        stream.to_client = fields.bytes()?.to_vec();
        stream.is_asked = fields.bool()?;
        if (stream.up.sender(), stream.down.sender()) != (Sender::Client, Sender::Server) {
            return Err(StateError::Invalid("the sender of a direction"));
        }
        Ok(stream)
    }
}
