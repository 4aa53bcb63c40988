//! A bridge: the client's binary messages are the bytes of a stream, and the bytes that come back are binary messages.
//!
//! In: an endpoint, and the stream to a backend. Out: an [`Outcome`]. Where a message ends means nothing, so long ones
//! are passed on in parts: no more than a part waits for the backend, and no more than the outbox for the client, and
//! neither direction waits for the other. Text is refused with 1003.
//!
//! | what ends | what the other side gets |
//! |---|---|
//! | the client sends a Close | all of its bytes, then the end of the stream; what the backend still says goes before the Close that answers |
//! | the backend's stream ends | all of its bytes, then Close 1000; what the client sends before its Close still goes to the backend |
//! | the backend's stream fails | what came before, then Close 1011 |
//! | the client is lost, or breaks a rule | a reset, since an end in order would say that nothing is missing |
//!
//! A bridge can be frozen at any moment before its end: a [`BridgeState`] is what it knows, and [`bridge_from`] goes on
//! with that.

mod frozen;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use net_io::Buffer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::{Endpoint, EndpointState, FRAME_COST, Message, MessageKind, QUANTUM_LEN, violation};
use crate::client::ClientStream;
use crate::close::Close;
use crate::frame_reader::Frame;
use crate::handle::SessionHandle;
use crate::head::OpCode;
use crate::outcome::{Cause, Ended, Exit, Outcome, Party};
use crate::policy::CLOSE_WAIT;
use crate::relay::Ending;
use crate::violation::Violation;

/// The longest message that is sent.
const MESSAGE_LEN: usize = 64 * 1024;
/// How long a backend is waited for that says nothing after the client's Close. Browsers wait two seconds for the
/// answer to it.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);
const NORMAL: u16 = 1000;

/// Passes bytes between a client's binary messages and `backend` until the session is over, or is frozen: then the
/// client's stream comes back with the state. At the session's end the backend's stream is shut down or, where
/// [`Outcome::backend`] is [`Exit::Reset`], left to the caller to be reset.
///
/// # Cancel safety
/// None: a dropped bridge leaves both streams in the middle of something, good only to be dropped.
pub fn bridge<S, B>(
    endpoint: Box<Endpoint<S>>,
    backend: &mut B,
) -> impl Future<Output = Ending<(S, Box<BridgeState>)>> + use<'_, S, B>
where
    S: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let bridge = Bridge {
        endpoint,
        backend,
        unwritten: BytesMut::new(),
        needs_flush: false,
        write_error: None,
        backend_end: None,
    };
    run(bridge)
}

/// Goes on with a bridge that was frozen, with the same two streams or with what became of them in another process.
pub fn bridge_from<S, B>(
    state: Box<BridgeState>,
    client: S,
    backend: &mut B,
    handle: SessionHandle,
) -> impl Future<Output = Ending<(S, Box<BridgeState>)>> + use<'_, S, B>
where
    S: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
{
    run(state.thaw(client, backend, handle))
}

async fn run<S, B>(mut bridge: Bridge<'_, S, B>) -> Ending<(S, Box<BridgeState>)>
where
    S: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| bridge.poll(cx)).await;
    if bridge.endpoint.is_over() {
        // In a box, as the endpoint: an idle session is as large as this future.
        Ending::Over(Box::pin(bridge.end()).await)
    } else {
        Ending::Frozen(bridge.freeze())
    }
}

// Every idle session has one, beside its endpoint.
const _: () = assert!(size_of::<Bridge<'_, (), ()>>() <= 104);

struct Bridge<'a, S, B> {
    endpoint: Box<Endpoint<S>>,
    backend: &'a mut B,
    /// Bytes of the client that the backend has not taken. While there are any, the client is not read.
    unwritten: BytesMut,
    /// The backend was given something since its stream was flushed.
    needs_flush: bool,
    /// The backend takes no more.
    write_error: Option<Ended>,
    /// The backend says no more: this ends the session when the client has all that it said.
    backend_end: Option<Cause>,
}

/// A bridge that was frozen. It goes on with [`bridge_from`].
#[derive(Debug)]
pub struct BridgeState {
    endpoint: EndpointState,
    unwritten: BytesMut,
    needs_flush: bool,
    write_error: Option<Ended>,
    backend_end: Option<Cause>,
}

impl<S, B> Bridge<'_, S, B>
where
    S: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
{
    /// Moves bytes both ways until the session has a cause to end, or is to be frozen.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let open = self.poll_open(cx);
        let is_between_writes = self.unwritten.is_empty() && !self.needs_flush;
        if open.is_pending() && self.endpoint.freezes(is_between_writes) { Poll::Ready(()) } else { open }
    }

    /// Moves bytes both ways until the session has a cause to end.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.endpoint.supervisor.take_fired();
        loop {
            if self.endpoint.read_since_yield >= QUANTUM_LEN {
                self.endpoint.yield_turn(cx);
                return Poll::Pending;
            }
            let to_backend = self.poll_write(cx);
            self.endpoint.set_waiting_outside(0, self.unwritten.len());
            let to_client = self.poll_read(cx);
            // Last, as it arms the timers, and flushes what was just read.
            let takes_more = self.unwritten.is_empty();
            let read = self.endpoint.read_since_yield;
            match self.endpoint.poll_next(cx, |_| takes_more, Endpoint::take_bytes) {
                Poll::Ready(Some(bytes)) => {
                    if self.write_error.is_none() {
                        self.unwritten = bytes;
                    }
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if self.backend_end.is_some() && self.is_drained() => {
                    self.endpoint.cause = self.backend_end.take();
                    return Poll::Ready(());
                }
                Poll::Pending if self.endpoint.read_since_yield < read => return Poll::Pending, // others are next
                // With room in the outbox again the backend has to be asked again, so that it can wake the task.
                Poll::Pending if to_client.is_ready() || to_backend.is_ready() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Both sides have all that the other one has said.
    fn is_drained(&self) -> bool {
        self.unwritten.is_empty() && !self.needs_flush && self.endpoint.outbox.is_empty()
    }

    /// Gives the backend what the client has sent. Ready if something has moved.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut moved = Poll::Pending;
        while !self.unwritten.is_empty() {
            let written = match Pin::new(&mut *self.backend).poll_write(cx, &self.unwritten) {
                Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => written,
                Poll::Pending => return moved,
            };
            match written {
                Ok(n) => {
                    self.unwritten.advance(n);
                    self.needs_flush = true;
                    self.endpoint.moved += 1;
                }
                Err(e) => self.fail_write(&e),
            }
            moved = Poll::Ready(());
            if self.unwritten.is_empty() {
                self.unwritten = BytesMut::new(); // lets go of the memory behind it
            }
        }
        if self.needs_flush
            && let Poll::Ready(flushed) = Pin::new(&mut *self.backend).poll_flush(cx)
        {
            self.needs_flush = false;
            if let Err(e) = flushed {
                self.fail_write(&e);
                moved = Poll::Ready(());
            }
        }
        moved
    }

    /// What the backend has said before it went is still read.
    fn fail_write(&mut self, e: &io::Error) {
        self.write_error = Some(Ended::from(e));
        self.unwritten.clear();
        self.needs_flush = false;
    }

    /// Queues for the client what the backend says, while there is room. Ready if there was something.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.backend_end.is_some() {
            return Poll::Pending;
        }
        if self.endpoint.outbox.is_full() {
            // Ready if this makes room.
            let _ = self.endpoint.poll_outbox(cx);
            return if self.endpoint.outbox.is_full() { Poll::Pending } else { Poll::Ready(()) };
        }
        let read = ready!(self.poll_message(cx));
        let lost = |how| Cause::Lost { party: Party::Backend, how };
        self.backend_end = match (read, self.write_error) {
            (Ok(true), _) => return Poll::Ready(()),
            (_, Some(how)) => Some(lost(how)), // what is read then says less than that
            (Ok(false), None) => {
                let close = Close { code: Some(NORMAL), reason: "".into() };
                Some(Cause::Closed { by: Party::Backend, close })
            }
            (Err(e), None) => Some(lost(Ended::from(&e))),
        };
        Poll::Ready(())
    }

    /// Queues one message for the client; `false` at the end of the backend's stream.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut buffer = Buffer::take();
        let mut free = ReadBuf::new(&mut buffer[..MESSAGE_LEN]);
        ready!(Pin::new(&mut *self.backend).poll_read(cx, &mut free))?;
        let bytes = free.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(false));
        }
        self.endpoint.read_since_yield += FRAME_COST + bytes.len();
        self.endpoint.queue(Message { kind: MessageKind::Binary, payload: BytesMut::from(bytes) });
        Poll::Ready(Ok(true))
    }

    async fn end(mut self) -> Outcome {
        let is_whole = self.unwritten.is_empty() && self.write_error.is_none();
        let is_orderly = is_whole
            && match &self.endpoint.cause {
                Some(Cause::Closed { by: Party::Client, .. }) => {
                    let _ = self.backend.shutdown().await; // the client has said all
                    self.pass_last_words().await;
                    true
                }
                Some(Cause::Closed { .. } | Cause::Idle | Cause::Lifetime | Cause::Ordered { .. }) => true,
                Some(_) | None => false,
            };
        let mut outcome = self.endpoint.end_into(is_orderly.then_some(&mut *self.backend)).await;
        if is_orderly {
            let _ = self.backend.shutdown().await;
        } else {
            outcome.backend = Exit::Reset;
        }
        outcome
    }

    /// What the backend still says after the client's Close goes before the Close that answers it.
    async fn pass_last_words(&mut self) {
        let deadline = Instant::now() + CLOSE_WAIT;
        while self.backend_end.is_none() {
            let wait = deadline.min(Instant::now() + LAST_WORDS_WAIT);
            let Ok(Ok(true)) = timeout_at(wait, poll_fn(|cx| self.poll_message(cx))).await else { return };
            let flushed = timeout_at(deadline, poll_fn(|cx| self.endpoint.poll_flush(cx))).await;
            let Ok(Ok(())) = flushed else { return };
        }
    }
}

impl<S: ClientStream> Endpoint<S> {
    /// The bytes of a data frame.
    fn take_bytes(&mut self, frame: Frame) -> Result<Option<BytesMut>, Cause> {
        match frame.opcode {
            OpCode::Binary | OpCode::Continuation => {
                self.count_received(&frame);
                Ok(Some(frame.payload).filter(|bytes| !bytes.is_empty()))
            }
            OpCode::Text => Err(violation(Violation::NotBinary)),
            OpCode::Ping | OpCode::Pong | OpCode::Close => self.on_control(frame).map(|()| None),
        }
    }
}

#[cfg(test)]
mod tests;
