//! A relay on its way to another process: all that it knows, as plain values and as bytes.
//!
//! The format is that of [`net_io::state`]. Moments are in it as the time that has passed since, or that is left
//! until then: the time in between does not count.

use std::time::Duration;

use net_io::state::{StateBytes, StateError, StateReader, StateWriter};

use super::closing::Peer;
use super::pump::Pump;
use super::{Breach, Relay, RelayState};
use crate::cause_state::{
    read_cause, read_ended, read_party, read_violation, write_cause, write_ended, write_party,
    write_violation,
};
use crate::client::OnWire;
use crate::clock::{Clock, READ_AT};
use crate::fair_queue::QueueState;
use crate::handle::{FreezeMode, SessionHandle};
use crate::head::Sender;
use crate::measures::Measures;
use crate::outcome::Snapshot;
use crate::supervisor::Supervisor;
use crate::tap::TapStart;

/// What this release knows. Raised with each field that is added.
const VERSION: u8 = 2;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;

impl<T: Clock> Relay<T> {
    /// What becomes of this relay if it was asked to freeze, and can at this moment. Nothing is left of it then.
    #[cold]
    pub(super) fn freeze(
        &mut self,
        handle: &SessionHandle,
        now: Duration,
        wire: Option<OnWire>,
    ) -> Option<Box<RelayState>> {
        let mode = handle.freeze_mode()?;
        let is_between_writes = self.up.is_between_writes() && self.down.is_between_writes();
        if self.shutdown.is_some() || (mode == FreezeMode::BetweenWrites && !is_between_writes) {
            return None;
        }
        handle.on_frozen(self.snapshot(now).on_wire(wire));
        let Self {
            supervisor,
            up,
            down,
            client,
            backend,
            queue_state,
            peer_took,
            cause,
            breach,
            shutdown: _, // it has not begun
        } = self;
        let relay = Relay {
            supervisor: supervisor.freeze(),
            up: up.freeze(),
            down: down.freeze(),
            client: *client,
            backend: *backend,
            queue_state: QueueState::unqueued(*queue_state != QueueState::Light),
            peer_took: *peer_took,
            cause: cause.take(),
            breach: breach.take(),
            shutdown: None,
        };
        Some(Box::new(RelayState { relay, at: now }))
    }
}

impl RelayState {
    /// How the session was when it was frozen.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.relay.snapshot(self.at)
    }

    /// Where a tap of the session begins.
    #[must_use]
    pub fn tap_start(&self) -> TapStart {
        let Relay { up, down, .. } = &self.relay;
        TapStart::Within { from_client: up.read_so_far(), to_client: down.written_so_far() }
    }

    /// The relay, by another clock.
    pub(super) fn thaw<T: Clock>(self, clock: T) -> Relay<T> {
        let Self { relay, at } = self;
        let Relay { supervisor, up, down, client, backend, queue_state, peer_took, cause, breach, shutdown } =
            relay;
        let supervisor = supervisor.thaw(clock, at);
        Relay { supervisor, up, down, client, backend, queue_state, peer_took, cause, breach, shutdown }
    }

    /// Bytes of which another process, of this release or of another, makes the same state. Among them are up to
    /// [`BUFFER_LEN`](net_io::BUFFER_LEN) bytes of traffic for each direction.
    #[must_use]
    pub fn encode(&self) -> StateBytes {
        let Self { relay, at } = self;
        let Relay {
            supervisor,
            up,
            down,
            client,
            backend,
            queue_state,
            peer_took,
            cause,
            breach,
            shutdown: _, // it has not begun
        } = relay;
        let mut out = StateWriter::new(NEEDS);
        supervisor.write_state(&mut out, *at);
        up.write_state(&mut out);
        down.write_state(&mut out);
        write_peer(&mut out, client);
        write_peer(&mut out, backend);
        out.bool(*queue_state != QueueState::Light);
        out.bool(*peer_took);
        out.option(cause.as_deref(), write_cause);
        out.option(breach.as_deref(), |out, breach| {
            let Breach { by, violation, is_reported } = breach;
            write_party(out, *by);
            write_violation(out, *violation);
            out.bool(*is_reported);
        });
        out.section(|out| {
            supervisor.measures.write_state(out, *at);
            out.u64(up.traffic().largest);
            out.u64(down.traffic().largest);
        });
        out.finish()
    }

    /// Makes a state of the bytes of [`Self::encode`].
    ///
    /// # Errors
    /// If they were written by a release that is too new, or are no state that [`Self::encode`] writes.
    pub fn decode(state: &[u8]) -> Result<Box<Self>, StateError> {
        let mut fields = StateReader::new(state, VERSION)?;
        let mut supervisor = Supervisor::read_state(&mut fields, READ_AT)?;
        let (mut up, mut down) = (Pump::read_state(&mut fields)?, Pump::read_state(&mut fields)?);
        if (up.sender(), down.sender()) != (Sender::Client, Sender::Server) {
            return Err(StateError::Invalid("the sender of a direction"));
        }
        let (client, backend) = (read_peer(&mut fields)?, read_peer(&mut fields)?);
        let queue_state = QueueState::unqueued(fields.bool()?);
        let peer_took = fields.bool()?;
        let cause = fields.option(read_cause)?.map(Box::new);
        let breach = fields
            .option(|fields| {
                let (by, violation) = (read_party(fields)?, read_violation(fields)?);
                Ok(Breach { by, violation, is_reported: fields.bool()? })
            })?
            .map(Box::new);
        if !fields.is_at_end() {
            let mut fields = fields.section()?;
            supervisor.measures = Measures::read_state(&mut fields, READ_AT)?;
            up.set_largest(fields.u64()?);
            down.set_largest(fields.u64()?);
        }
        let relay = Relay {
            supervisor,
            up,
            down,
            client,
            backend,
            queue_state,
            peer_took,
            cause,
            breach,
            shutdown: None, // it has not begun
        };
        Ok(Box::new(Self { relay, at: READ_AT }))
    }
}

fn write_peer(out: &mut StateWriter, peer: &Peer) {
    let Peer { closed, ended, write_error } = peer;
    out.bool(*closed);
    out.option(*ended, write_ended);
    out.option(*write_error, write_ended);
}

fn read_peer(fields: &mut StateReader<'_>) -> Result<Peer, StateError> {
    Ok(Peer {
        closed: fields.bool()?,
        ended: fields.option(read_ended)?,
        write_error: fields.option(read_ended)?,
    })
}
