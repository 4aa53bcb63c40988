//! A session of another protocol on its way to another process: all that is known of it, as plain values and as bytes.

use std::time::Duration;

use net_io::state::{StateBytes, StateError, StateReader, StateWriter};
use net_io::{BUFFER_LEN, Buffer};

use super::{Direction, Opaque, OpaqueState, Stage};
use crate::cause_state::{read_party, write_party};
use crate::clock::{Clock, READ_AT};
use crate::fair_queue::QueueState;
use crate::handle::{FreezeMode, SessionHandle};
use crate::measures::Measures;
use crate::outcome::Snapshot;
use crate::supervisor::Supervisor;

/// What this release knows. Raised with each field that is added.
const VERSION: u8 = 2;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;

impl<T: Clock> Opaque<T> {
    /// What becomes of the session if it was asked to freeze, and can at this moment. Nothing is left of it then.
    pub(super) fn freeze(&mut self, handle: &SessionHandle, now: Duration) -> Option<Box<OpaqueState>> {
        self.freeze_in(handle.freeze_mode()?, handle, now)
    }

    #[cold]
    fn freeze_in(
        &mut self,
        mode: FreezeMode,
        handle: &SessionHandle,
        now: Duration,
    ) -> Option<Box<OpaqueState>> {
        let is_between_writes = [&self.up, &self.down].iter().all(|way| !way.waits() && !way.needs_flush);
        if mode == FreezeMode::BetweenWrites && !is_between_writes {
            return None;
        }
        handle.on_frozen(self.snapshot(now));
        let Self { supervisor, up, down, queue_state, first, counted } = self;
        let opaque = Opaque {
            supervisor: supervisor.freeze(),
            up: std::mem::take(up),
            down: std::mem::take(down),
            queue_state: QueueState::unqueued(*queue_state != QueueState::Light),
            first: *first,
            counted: *counted,
        };
        Some(Box::new(OpaqueState { opaque, at: now }))
    }
}

impl OpaqueState {
    /// How the session was when it was frozen.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.opaque.snapshot(self.at)
    }

    /// The session, by another clock.
    pub(super) fn thaw<T: Clock>(self, clock: T) -> Opaque<T> {
        let Self { opaque: Opaque { supervisor, up, down, queue_state, first, counted }, at } = self;
        Opaque { supervisor: supervisor.thaw(clock, at), up, down, queue_state, first, counted }
    }

    /// Bytes of which another process, of this release or of another, makes the same state. Among them are up to
    /// [`BUFFER_LEN`] bytes of traffic for each direction.
    #[must_use]
    pub fn encode(&self) -> StateBytes {
        let Self { opaque: Opaque { supervisor, up, down, queue_state, first, counted }, at } = self;
        let mut out = StateWriter::new(NEEDS);
        supervisor.write_state(&mut out, *at);
        up.write_state(&mut out);
        down.write_state(&mut out);
        out.bool(*queue_state != QueueState::Light);
        out.option(*first, write_party);
        out.u64(*counted);
        out.section(|out| supervisor.measures.write_state(out, *at));
        out.finish()
    }

    /// Makes a state of the bytes of [`Self::encode`].
    ///
    /// # Errors
    /// If they were written by a release that is too new, or are no state that [`Self::encode`] writes.
    pub fn decode(state: &[u8]) -> Result<Box<Self>, StateError> {
        let mut fields = StateReader::new(state, VERSION)?;
        let mut opaque = Opaque {
            supervisor: Supervisor::read_state(&mut fields, READ_AT)?,
            up: Direction::read_state(&mut fields)?,
            down: Direction::read_state(&mut fields)?,
            queue_state: QueueState::unqueued(fields.bool()?),
            first: fields.option(read_party)?,
            counted: fields.u64()?,
        };
        if !fields.is_at_end() {
            opaque.supervisor.measures = Measures::read_state(&mut fields.section()?, READ_AT)?;
        }
        Ok(Box::new(Self { opaque, at: READ_AT }))
    }
}

impl Direction {
    fn write_state(&self, out: &mut StateWriter) {
        let Self { buffer, sent, filled, stage, needs_flush, read, written } = self;
        out.section(|out| {
            out.bytes(buffer.as_deref().map_or(&[], |buffer| &buffer[*sent..*filled]));
            out.u8(*stage as u8);
            out.bool(*needs_flush);
            out.u64(*read);
            out.u64(*written);
        });
    }

    fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let unsent = fields.bytes()?;
        if unsent.len() > BUFFER_LEN {
            return Err(StateError::Invalid("the bytes of a buffer"));
        }
        let mut buffer = None;
        if !unsent.is_empty() {
            buffer.insert(Buffer::take())[..unsent.len()].copy_from_slice(unsent);
        }
        let number = fields.u8()?;
        let stage = [Stage::Open, Stage::Read, Stage::Shut].into_iter().find(|stage| *stage as u8 == number);
        Ok(Self {
            buffer,
            sent: 0,
            filled: unsent.len(),
            stage: stage.ok_or(StateError::Invalid("the stage of a direction"))?,
            needs_flush: fields.bool()?,
            read: fields.count()?,
            written: fields.count()?,
        })
    }
}
