//! An endpoint on its way to another process: all that it knows, as plain values and as bytes.
//!
//! The format is that of [`net_io::state`]. Moments are in it as the time that has passed since, or that is left until
//! then: the time in between does not count.

use bytes::BytesMut;
use net_io::BUFFER_LEN;
use net_io::memory::Claim;
use net_io::state::{StateBytes, StateError, StateReader, StateWriter};

use super::assembly::Assembly;
use super::outbox::Outbox;
use super::{Endpoint, EndpointState};
use crate::cause_state::{read_cause, write_cause};
use crate::client::ClientStream;
use crate::clock::{Exact, READ_AT};
use crate::frame_reader::FrameReader;
use crate::handle::{FreezeMode, SessionHandle};
use crate::head::CONTROL_PAYLOAD_MAX;
use crate::measures::Measures;
use crate::outcome::Traffic;
use crate::supervisor::Supervisor;
use crate::tap::{TapStart, WayStart};

/// What this release knows. Raised with each field that is added.
const VERSION: u8 = 2;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;
/// Bytes of messages, come or queued, above which a session doesn't freeze: it is smaller when they have gone.
const MESSAGES_LEN_MAX: usize = BUFFER_LEN;

impl<S: ClientStream> Endpoint<S> {
    /// It was asked to freeze, and can at this moment. `is_between_writes`: nothing of what it has passed on is under way.
    pub(super) fn freezes(&self, is_between_writes: bool) -> bool {
        self.handle.freeze_mode().is_some_and(|mode| self.can_freeze(mode, is_between_writes))
    }

    #[cold]
    fn can_freeze(&self, mode: FreezeMode, is_between_writes: bool) -> bool {
        if self.compressed.is_some() || !self.io.is_still() {
            return false;
        }
        match mode {
            FreezeMode::BetweenWrites => {
                is_between_writes && self.outbox.is_empty() && self.unanswered.is_none()
            }
            FreezeMode::AsItIs => self.assembly.len() + self.outbox.len() <= MESSAGES_LEN_MAX,
        }
    }

    /// Takes the endpoint apart between two calls, whether it was asked to freeze or not. Nothing is read or written.
    #[must_use]
    pub fn freeze(self) -> (S, Box<EndpointState>) {
        let now = self.supervisor.now();
        self.handle.on_frozen(self.snapshot(now));
        let sent = self.sent_traffic();
        let Self {
            io,
            reader,
            assembly,
            outbox,
            handle: _,
            mut supervisor,
            read_bytes,
            moved,
            counted,
            waiting_outside: _, // of who has them
            cause,
            received,
            sent: _,             // with what was taken since
            read_since_yield: _, // of this thread
            unanswered,
            compressed: _, // it hasn't got it: see can_freeze
            held: _,       // counted again there
        } = self;
        let has_moved = moved != counted;
        let supervisor = supervisor.freeze();
        let state = EndpointState {
            reader,
            assembly,
            outbox,
            supervisor,
            read_bytes,
            has_moved,
            cause,
            received,
            sent,
            unanswered,
            at: now,
        };
        (io, Box::new(state))
    }

    /// Goes on with an endpoint that was taken apart, over the same stream or over what became of it in another process.
    #[must_use]
    pub fn thaw(io: S, state: Box<EndpointState>, handle: SessionHandle) -> Self {
        let EndpointState {
            mut reader,
            assembly,
            outbox,
            supervisor,
            read_bytes,
            has_moved,
            cause,
            received,
            sent,
            unanswered,
            at,
        } = *state;
        reader.count_sizes(handle.sizes()[0].cloned());
        handle.on_thawed(&received, &sent);
        Self {
            io,
            reader,
            assembly,
            outbox,
            handle,
            supervisor: supervisor.thaw(Exact::begun(at), at),
            read_bytes,
            moved: has_moved.into(),
            counted: 0,
            waiting_outside: 0,
            cause,
            received,
            sent,
            read_since_yield: 0,
            unanswered,
            compressed: None,
            held: Claim::default(),
        }
    }
}

impl EndpointState {
    /// Where a tap of the session begins.
    #[must_use]
    pub fn tap_start(&self) -> TapStart {
        let to_client = WayStart { skip: self.outbox.len() as u64, ..WayStart::default() };
        TapStart::Within { from_client: self.reader.read_so_far(), to_client }
    }

    /// Bytes of which another process, of this release or of another, makes the same state. Among them are up to some
    /// hundred kilobytes of messages.
    #[must_use]
    pub fn encode(&self) -> StateBytes {
        let mut out = StateWriter::new(NEEDS);
        self.write_state(&mut out);
        out.finish()
    }

    /// Makes a state of the bytes of [`Self::encode`].
    ///
    /// # Errors
    /// If they were written by a release that is too new, or are no state that [`Self::encode`] writes.
    pub fn decode(state: &[u8]) -> Result<Box<Self>, StateError> {
        Self::read_state(&mut StateReader::new(state, VERSION)?).map(Box::new)
    }

    pub(super) fn write_state(&self, out: &mut StateWriter) {
        let Self {
            reader,
            assembly,
            outbox,
            supervisor,
            read_bytes,
            has_moved,
            cause,
            received,
            sent,
            unanswered,
            at,
        } = self;
        out.section(|out| {
            reader.write_state(out);
            assembly.write_state(out);
            outbox.write_state(out);
            supervisor.write_state(out, *at);
            out.u64(*read_bytes);
            out.bool(*has_moved);
            out.option(cause.as_ref(), write_cause);
            received.write_state(out);
            sent.write_state(out);
            out.option(unanswered.as_deref(), StateWriter::bytes);
            out.section(|out| {
                supervisor.measures.write_state(out, *at);
                out.u64(reader.largest());
                out.u64(sent.largest);
            });
        });
    }

    pub(super) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let mut state = Self {
            reader: FrameReader::read_state(&mut fields)?,
            assembly: Assembly::read_state(&mut fields)?,
            outbox: Outbox::read_state(&mut fields)?,
            supervisor: Supervisor::read_state(&mut fields, READ_AT)?,
            read_bytes: fields.count()?,
            has_moved: fields.bool()?,
            cause: fields.option(read_cause)?,
            received: Traffic::read_state(&mut fields)?,
            sent: Traffic::read_state(&mut fields)?,
            unanswered: fields.option(|fields| {
                let ping = BytesMut::from(fields.bytes()?);
                if ping.len() <= CONTROL_PAYLOAD_MAX { Ok(ping) } else { Err(StateError::Invalid("a ping")) }
            })?,
            at: READ_AT,
        };
        if !fields.is_at_end() {
            let mut fields = fields.section()?;
            state.supervisor.measures = Measures::read_state(&mut fields, READ_AT)?;
            state.reader.set_largest(fields.u64()?);
            state.sent.largest = fields.u64()?;
        }
        Ok(state)
    }
}
