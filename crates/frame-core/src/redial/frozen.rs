//! The stream of a session whose servers may go, on its way to another process.
//!
//! The format is that of [`net_io::state`]. How long something is still waited for is in it as the time that is left.

use net_io::BUFFER_LEN;
use net_io::memory::Claim;
use net_io::state::{StateBytes, StateError, StateReader, StateWriter};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use super::walk::{Track, Walker};
use super::{
    Farewell, HELD_MAX, Leaving, Lost, Options, Phase, RedialState, RedialStream, Redialer, StillPhase,
    Transfer,
};
use crate::close::{Close, REASON_MAX};
use crate::handle::SessionHandle;
use crate::head::Sender;

/// What this release knows. Raised with each field that is added.
const VERSION: u8 = 1;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;
/// The longest text on how a server was lost.
const HOW_MAX: usize = 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> RedialStream<S> {
    /// Takes the stream apart between two polls. Nothing is read or written. A search for a server ends; the next process
    /// begins another one.
    #[must_use]
    pub fn freeze(self) -> (Option<S>, Box<RedialState>, Box<dyn Redialer<S>>) {
        let Self { redialer, handle, server, phase, mut transfer, claim: _ } = self; // what is held is counted there again
        let phase = match phase {
            Phase::Serving => StillPhase::Serving,
            Phase::Leaving(Leaving { closed, step, until }) => {
                StillPhase::Leaving(closed, step, until.deadline().saturating_duration_since(Instant::now()))
            }
            Phase::Redialling(lost, _) => StillPhase::Redialling(lost),
            Phase::Ended(client_has_closed) => StillPhase::Ended(client_has_closed),
            Phase::Passing => StillPhase::Passing,
        };
        transfer.is_asked |= handle.take_redial();
        (server, Box::new(RedialState { phase, transfer }), redialer)
    }

    /// Goes on with a stream that was taken apart, with the same server or with what became of its stream in another
    /// process.
    #[must_use]
    pub fn thaw(
        server: Option<S>,
        state: Box<RedialState>,
        mut redialer: Box<dyn Redialer<S>>,
        handle: SessionHandle,
    ) -> Self {
        let RedialState { phase, transfer } = *state;
        let phase = match phase {
            StillPhase::Serving => Phase::Serving,
            StillPhase::Leaving(closed, step, left) => {
                Phase::Leaving(Leaving { closed, step, until: Box::pin(sleep(left)) })
            }
            StillPhase::Redialling(lost) => Phase::Redialling(lost.clone(), redialer.redial(lost)),
            StillPhase::Ended(client_has_closed) => Phase::Ended(client_has_closed),
            StillPhase::Passing => Phase::Passing,
        };
        let claim = Claim::new(transfer.held.capacity());
        Self { redialer, handle, server, phase, transfer, claim }
    }
}

impl RedialState {
    /// Bytes of which another process, of this release or of another, makes the same state. Among them are up to some
    /// hundred kilobytes of the client's.
    #[must_use]
    pub fn encode(&self) -> StateBytes {
        let Self { phase, transfer } = self;
        let Transfer {
            options: Options { held_max, may_repeat },
            up,
            message,
            down,
            behind,
            held,
            held_sent,
            hold,
            to_client,
            is_asked,
            code,
            how,
            close_sent,
        } = transfer;
        let mut out = StateWriter::new(NEEDS);
        let out_ = &mut out;
        put_len(out_, *held_max);
        out_.bool(*may_repeat);
        phase.write_state(out_);
        up.write_state(out_);
        // One that is too long to be held stays so.
        let message = message.as_deref().map(|message| &message[..message.len().min(held_max + 1)]);
        out_.option(message, StateWriter::bytes);
        out_.section(|out| down.write_state(out));
        out_.bytes(behind);
        out_.bytes(held);
        put_len(out_, *held_sent);
        hold.write_state(out_);
        out_.bytes(to_client);
        out_.bool(*is_asked);
        out_.option(*code, StateWriter::u16);
        out_.option(how.as_deref(), put_how);
        out_.option(close_sent.as_ref(), |out, Close { code, reason }| {
            out.option(*code, StateWriter::u16);
            out.bytes(reason.as_bytes());
        });
        out.finish()
    }

    /// Makes a state of the bytes of [`Self::encode`].
    ///
    /// # Errors
    /// If they were written by a release that is too new, or are no state that [`Self::encode`] writes.
    pub fn decode(state: &[u8]) -> Result<Box<Self>, StateError> {
        let mut fields = StateReader::new(state, VERSION)?;
        let fields = &mut fields;
        let options = Options { held_max: get_len(fields)?.min(HELD_MAX), may_repeat: fields.bool()? };
        let phase = StillPhase::read_state(fields)?;
        let transfer = Transfer {
            options,
            up: Track::read_state(fields, Sender::Client)?,
            message: fields.option(|fields| some_bytes(fields, HELD_MAX + 1))?,
            down: Walker::read_state(&mut fields.section()?, Sender::Server)?,
            behind: some_bytes(fields, 256)?,
            held: some_bytes(fields, 2 * HELD_MAX + BUFFER_LEN)?,
            held_sent: get_len(fields)?,
            hold: Track::read_state(fields, Sender::Client)?,
            to_client: some_bytes(fields, 256)?,
            is_asked: fields.bool()?,
            code: fields.option(StateReader::u16)?,
            how: fields.option(get_how)?,
            close_sent: fields.option(|fields| {
                let (code, reason) = (fields.option(StateReader::u16)?, fields.bytes()?);
                let reason = std::str::from_utf8(reason).ok().filter(|reason| reason.len() <= TOLD_MAX);
                Ok(Close { code, reason: reason.ok_or(StateError::Invalid("the reason of a Close"))?.into() })
            })?,
        };
        if transfer.held_sent > transfer.held.len() {
            return Err(StateError::Invalid("the bytes of a client"));
        }
        Ok(Box::new(Self { phase, transfer }))
    }
}

/// The client is told no more of a reason than a Close holds, and the log is.
const TOLD_MAX: usize = 8 * REASON_MAX;

impl StillPhase {
    fn write_state(&self, out: &mut StateWriter) {
        out.section(|out| match self {
            Self::Serving => out.u8(0),
            Self::Leaving(closed, step, left) => {
                out.u8(1);
                out.bool(*closed);
                out.duration(*left);
                match step {
                    Farewell::Finish => out.u8(0),
                    Farewell::Close(close, sent) => {
                        out.u8(1);
                        out.bytes(close);
                        put_len(out, *sent);
                    }
                    Farewell::Said(is_last) => {
                        out.u8(2);
                        out.bool(*is_last);
                    }
                }
            }
            Self::Redialling(Lost { messages, code, how }) => {
                out.u8(2);
                out.u64(*messages);
                out.option(*code, StateWriter::u16);
                put_how(out, how);
            }
            Self::Ended(client_has_closed) => {
                out.u8(3);
                out.bool(*client_has_closed);
            }
            Self::Passing => out.u8(4),
        });
    }

    fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        const INVALID: StateError = StateError::Invalid("the phase of a redialled session");
        let mut fields = fields.section()?;
        let fields = &mut fields;
        Ok(match fields.u8()? {
            0 => Self::Serving,
            1 => {
                let (closed, left) = (fields.bool()?, fields.duration()?);
                let step = match fields.u8()? {
                    0 => Farewell::Finish,
                    1 => {
                        let (close, sent) = (some_bytes(fields, 256)?, get_len(fields)?);
                        if sent > close.len() {
                            return Err(INVALID);
                        }
                        Farewell::Close(close, sent)
                    }
                    2 => Farewell::Said(fields.bool()?),
                    _ => return Err(INVALID),
                };
                Self::Leaving(closed, step, left.min(super::FINISH_WAIT))
            }
            2 => {
                let messages = fields.count()?;
                let code = fields.option(StateReader::u16)?;
                Self::Redialling(Lost { messages, code, how: get_how(fields)? })
            }
            3 => Self::Ended(fields.bool()?),
            4 => Self::Passing,
            _ => return Err(INVALID),
        })
    }
}

fn put_len(out: &mut StateWriter, len: usize) {
    out.u32(u32::try_from(len).unwrap_or(u32::MAX));
}

fn get_len(fields: &mut StateReader<'_>) -> Result<usize, StateError> {
    Ok(usize::try_from(fields.u32()?).unwrap_or(usize::MAX))
}

fn put_how(out: &mut StateWriter, how: &str) {
    let mut len = how.len().min(HOW_MAX);
    while !how.is_char_boundary(len) {
        len -= 1;
    }
    out.bytes(&how.as_bytes()[..len]);
}

fn get_how(fields: &mut StateReader<'_>) -> Result<String, StateError> {
    let how =
        std::str::from_utf8(fields.bytes()?).map_err(|_| StateError::Invalid("how a server was lost"))?;
    if how.len() <= HOW_MAX { Ok(how.to_owned()) } else { Err(StateError::Invalid("how a server was lost")) }
}

fn some_bytes(fields: &mut StateReader<'_>, max: usize) -> Result<Vec<u8>, StateError> {
    let bytes = fields.bytes()?;
    if bytes.len() <= max { Ok(bytes.to_vec()) } else { Err(StateError::Invalid("the bytes of a client")) }
}
