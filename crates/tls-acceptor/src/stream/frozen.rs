//! A stream without its socket, on its way to another process: all that the next record depends on, as bytes.
//!
//! The format is that of [`net_io::state`]. Its secrets leave the memory of this process only in what
//! [`TlsState::encode`] returns; that, the state and the bytes of the reader are zeroised after use (the reader's by
//! the caller that has read them).

use net_io::Tcp;
use net_io::state::{StateError, StateReader, StateWriter};
use zeroize::Zeroizing;

use super::{Pending, Reading, TlsState, TlsStream};
use crate::handshake::Secrets;
use crate::record::{Cipher, CipherState, Fault, Incoming, IncomingState, Protection, Secret};

/// What this release knows. Raised with each field that is added.
const VERSION: u8 = 1;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;

impl std::fmt::Debug for TlsState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsState").field("reading", &self.reading).finish_non_exhaustive()
    }
}

impl TlsStream {
    /// Takes the stream apart where it is, in the middle of a record or of a message. Nothing is read or written.
    #[must_use]
    pub fn freeze(self) -> (Tcp, TlsState) {
        (self.tcp, self.state)
    }

    /// Goes on where [`Self::freeze`] left off.
    #[must_use]
    pub fn thaw(tcp: Tcp, state: TlsState) -> Self {
        Self { tcp, state }
    }
}

impl TlsState {
    /// Bytes of which another process, of this release or of another, makes the same state.
    ///
    /// # Errors
    /// If the cipher is of a kind that has no number in the format; no handshake leaves one.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let Self {
            incoming,
            outgoing,
            secrets: Secrets { peer, own },
            reading,
            wire,
            ahead,
            unsent,
            control_pending,
            tickets_pending,
            key_wanted,
            close_sent,
            parting,
            gathers: _, // the next owner of the stream asks for it again
        } = self;
        let IncomingState { cipher, quiet, message, tickets } = incoming.state().map_err(invalid)?;
        let outgoing = outgoing.state().map_err(invalid)?;
        let mut out = StateWriter::new(NEEDS);
        out.u8(cipher.protection as u8);
        write_direction(&mut out, &cipher, peer);
        write_direction(&mut out, &outgoing, own);
        out.u32(quiet);
        out.bytes(&message);
        out.option(tickets.as_ref(), |out, (head, left)| {
            out.bytes(head);
            out.u32(*left);
        });
        let (kind, alert) = match reading {
            Reading::Open => (0, 0),
            Reading::Closed => (1, 0),
            Reading::GivenUp(alert) => (2, *alert),
            Reading::Failed(fault) => (3, fault.alert),
        };
        out.u8(kind);
        out.u8(alert);
        out.bytes(wire);
        out.bytes(ahead.left());
        out.bytes(unsent.left());
        for flag in [control_pending, tickets_pending, key_wanted, close_sent, parting] {
            out.bool(*flag);
        }
        Ok(out.finish())
    }

    /// Makes a state of the bytes of [`Self::encode`]. It needs no more memory than they do.
    ///
    /// # Errors
    /// If they were written by a release that is too new, or are no state that [`Self::encode`] writes.
    pub fn decode(state: &[u8]) -> Result<Self, StateError> {
        let mut fields = StateReader::new(state, VERSION)?;
        let protection = Protection::of(fields.u8()?).ok_or(StateError::Invalid("the cipher suite"))?;
        let (cipher, peer) = read_direction(&mut fields, protection)?;
        let (outgoing, own) = read_direction(&mut fields, protection)?;
        let (quiet, message) = (fields.u32()?, fields.bytes()?.to_vec());
        let tickets = fields.option(|fields| Ok((fields.bytes()?.to_vec(), fields.u32()?)))?;
        let incoming = IncomingState { cipher, quiet, message, tickets };
        let reading = match (fields.u8()?, fields.u8()?) {
            (0, 0) => Reading::Open,
            (1, 0) => Reading::Closed,
            (2, alert) => Reading::GivenUp(alert),
            (3, alert) => Reading::Failed(Fault::of(alert).ok_or(StateError::Invalid("an alert"))?),
            _ => return Err(StateError::Invalid("the end of what the peer sends")),
        };
        Ok(Self {
            incoming: Incoming::from_state(incoming, &peer).map_err(invalid)?,
            outgoing: Cipher::from_state(outgoing, &own).map_err(invalid)?,
            secrets: Secrets { peer, own },
            reading,
            wire: fields.bytes()?.to_vec(),
            ahead: Pending::new(fields.bytes()?.to_vec()),
            unsent: Pending::new(fields.bytes()?.to_vec()),
            control_pending: fields.bool()?,
            tickets_pending: fields.bool()?,
            key_wanted: fields.bool()?,
            close_sent: fields.bool()?,
            parting: fields.bool()?,
            gathers: false,
        })
    }
}

fn invalid(_: Fault) -> StateError {
    StateError::Invalid("the protection of records")
}

fn write_direction(out: &mut StateWriter, cipher: &CipherState, secret: &Secret) {
    let CipherState { protection, iv, sequence, limit } = cipher;
    out.section(|out| {
        out.bytes(secret.bytes());
        out.option((!protection.is_tls13()).then_some(iv), StateWriter::array);
        out.u64(*sequence);
        out.u64(*limit);
    });
}

fn read_direction(
    fields: &mut StateReader<'_>,
    protection: Protection,
) -> Result<(CipherState, Secret), StateError> {
    let mut fields = fields.section()?;
    let make = if protection.is_tls13() { Secret::new } else { Secret::of_key };
    let secret = make(fields.bytes()?).ok_or(StateError::Invalid("a secret"))?;
    let iv = fields.option(StateReader::array)?;
    if iv.is_some() == protection.is_tls13() {
        return Err(StateError::Invalid("a nonce"));
    }
    let (sequence, limit) = (fields.count()?, fields.u64()?);
    let iv = iv.unwrap_or_default();
    Ok((CipherState { protection, iv, sequence, limit }, secret))
}
