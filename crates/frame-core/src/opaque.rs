//! The bytes of another protocol than WebSocket, in both directions: nothing is known of them.
//!
//! In: two streams behind a finished upgrade (RFC 9110 §7.8), and the policy of the route. Out: an [`Outcome`], which
//! counts bytes and no messages. The end of one stream is passed on behind its last byte, and the other direction goes
//! on until it ends, too. Of the policy `idle_timeout` and `lifetime` count, since there is no ping. An order ends the session at
//! once: no boundary is known that it could wait for. A session can be frozen at any moment; [`opaque_from`] goes on with
//! its [`OpaqueState`].

mod frozen;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use net_io::{BUFFER_LEN, Buffer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;
use crate::fair_queue::QueueState;
use crate::handle::SessionHandle;
use crate::outcome::{Cause, Ended, Exit, Outcome, Party, Snapshot, Traffic};
use crate::policy::Policy;
use crate::relay::{ClientStream, Ending};
use crate::supervisor::{Due, Supervisor};

/// Bytes that a session may read from each peer before other sessions are polled, as in the relay.
const QUANTUM_LEN: usize = BUFFER_LEN;

/// Passes bytes on until both streams have ended, or the session has to end. Then a peer whose stream was not ended by
/// the other one may miss some of it: [`Outcome::client`] or [`Outcome::backend`] is [`Exit::Reset`], and the stream is
/// left to the caller to be reset.
///
/// # Cancel safety
/// None: a dropped call leaves both streams good only to be dropped.
pub fn opaque<'a, C, B, T>(
    client: &'a mut C,
    backend: &'a mut B,
    policy: Policy,
    handle: &'a SessionHandle,
    clock: T,
) -> impl Future<Output = Ending<Box<OpaqueState>>> + use<'a, C, B, T>
where
    C: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
    T: Clock,
{
    let mut opaque = Opaque::new(policy, clock);
    poll_fn(move |cx| opaque.poll(cx, client, backend, handle))
}

/// Goes on with a session that was frozen, with the same two streams or with what became of them in another process. By
/// `clock` it must be later than it was in the session's life.
pub fn opaque_from<'a, C, B, T>(
    state: Box<OpaqueState>,
    client: &'a mut C,
    backend: &'a mut B,
    handle: &'a SessionHandle,
    clock: T,
) -> impl Future<Output = Ending<Box<OpaqueState>>> + use<'a, C, B, T>
where
    C: ClientStream,
    B: AsyncRead + AsyncWrite + Unpin,
    T: Clock,
{
    let mut opaque = state.thaw(clock);
    handle.on_thawed(&opaque.up.traffic(), &opaque.down.traffic());
    poll_fn(move |cx| opaque.poll(cx, client, backend, handle))
}

#[derive(Debug)]
struct Opaque<T> {
    supervisor: Supervisor<T>,
    up: Direction,
    down: Direction,
    queue_state: QueueState,
    /// Whose stream has ended first.
    first: Option<Party>,
    /// Bytes that had moved when the supervisor was last told so.
    counted: u64,
}

/// A session that was frozen. It goes on with [`opaque_from`].
#[derive(Debug)]
pub struct OpaqueState {
    opaque: Opaque<()>,
    /// The time by its clock.
    at: Duration,
}

// Every idle session holds one.
const _: () = assert!(size_of::<Opaque<()>>() <= 368);

impl<T> Opaque<T> {
    fn snapshot(&self, now: Duration) -> Snapshot {
        Snapshot {
            from_client: self.up.traffic(),
            from_backend: self.down.traffic(),
            waits: self.supervisor.measures.waits(now),
            pings: None,
            idle: self.supervisor.idle(now),
            is_closing: self.first.is_some(),
        }
    }
}

impl<T: Clock> Opaque<T> {
    fn new(policy: Policy, clock: T) -> Self {
        Self {
            supervisor: Supervisor::new(&Policy { ping_interval: None, ..policy }, clock),
            up: Direction::default(),
            down: Direction::default(),
            queue_state: QueueState::default(),
            first: None,
            counted: 0,
        }
    }

    fn poll<C, B>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        handle: &SessionHandle,
    ) -> Poll<Ending<Box<OpaqueState>>>
    where
        C: ClientStream,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let now = self.supervisor.take_fired().unwrap_or_else(|| self.supervisor.now());
        let silent = self.supervisor.is_silent(cx, handle);
        if !silent && let Some(order) = self.supervisor.poll_order(cx, handle) {
            return self.end(Cause::Ordered { code: order.code });
        }
        let may_read = self.queue_state.may_read(cx);
        let quantum = if may_read { QUANTUM_LEN } else { 0 };
        let (mut left_up, mut left_down) = (quantum, quantum);
        let up = self.up.poll(cx, client, backend, &mut left_up);
        let down = self.down.poll(cx, backend, client, &mut left_down);
        for (direction, from, to) in
            [(up, Party::Client, Party::Backend), (down, Party::Backend, Party::Client)]
        {
            if let Poll::Ready(Err(broken)) = direction {
                return self.on_broken(broken, from, to);
            }
        }
        if self.first.is_none() {
            self.first = match (self.up.is_read(), self.down.is_read()) {
                (true, _) => Some(Party::Client),
                (false, true) => Some(Party::Backend),
                (false, false) => None,
            };
        }
        if up.is_ready() && down.is_ready() {
            let first = self.first.unwrap_or(Party::Client);
            return self.end(Cause::Finished { first });
        }
        let moved = [self.up.read, self.down.read, self.up.written, self.down.written]
            .into_iter()
            .fold(0, u64::wrapping_add);
        if moved != self.counted {
            self.supervisor.on_message(now);
        }
        handle.on_stall(self.up.waits() || self.down.waits(), moved != self.counted);
        self.counted = moved;
        self.supervisor.measures.on_waits(self.down.waits(), self.up.waits(), now);
        if !silent {
            handle.answer_snapshot(|| self.snapshot(now));
        }
        match self.supervisor.due(now, || None) {
            Due::Idle => return self.end(Cause::Idle),
            Due::Lifetime => return self.end(Cause::Lifetime),
            _ => {} // the rest is about messages and pings
        }
        if may_read {
            let wants_more = left_up == 0 || left_down == 0;
            self.queue_state.on_read(cx, 2 * quantum - left_up - left_down, wants_more);
        }
        if !silent && let Some(state) = self.freeze(handle, now) {
            return Poll::Ready(Ending::Frozen(state));
        }
        self.supervisor.poll_timer(cx);
        Poll::Pending
    }

    /// What is passed on from `from` to `to` can't go on.
    fn on_broken(&self, broken: Broken, from: Party, to: Party) -> Poll<Ending<Box<OpaqueState>>> {
        let (party, how) = match broken {
            Broken::Source(how) => (from, how),
            // It had said its last, in order, and has closed the connection: nothing more can follow.
            Broken::Sink(_) if self.first == Some(to) => return self.end(Cause::Finished { first: to }),
            Broken::Sink(how) => (to, how),
        };
        self.end(Cause::Lost { party, how })
    }

    fn end(&self, cause: Cause) -> Poll<Ending<Box<OpaqueState>>> {
        let exit = |direction: &Direction| match cause {
            Cause::Finished { .. } => Exit::Orderly,
            // An end in order would say that nothing is missing.
            _ if direction.is_whole() => Exit::Orderly,
            _ => Exit::Reset,
        };
        let (client, backend) = (exit(&self.down), exit(&self.up));
        let (from_client, from_backend) = (self.up.traffic(), self.down.traffic());
        let waits = self.supervisor.measures.waits(self.supervisor.now());
        Poll::Ready(Ending::Over(Outcome {
            cause,
            from_client,
            from_backend,
            waits,
            pings: None,
            client,
            backend,
        }))
    }
}

/// Which end of a direction has failed.
#[derive(Debug, Clone, Copy)]
enum Broken {
    Source(Ended),
    Sink(Ended),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The source has ended.
    Read,
    /// The sink is shut down.
    Shut,
}

/// One direction. It holds a buffer only while the sink doesn't take what is in it.
#[derive(Debug, Default)]
struct Direction {
    buffer: Option<Buffer>,
    sent: usize,
    filled: usize,
    stage: Stage,
    needs_flush: bool,
    /// Bytes so far.
    read: u64,
    written: u64,
}

impl Direction {
    /// Passes on what there is, `left` bytes at most; ready when all of the source, and its end, was passed on.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        left: &mut usize,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.poll_write(cx, sink)).map_err(|e| Broken::Sink(Ended::from(&e)))?;
            match self.stage {
                Stage::Shut => return Poll::Ready(Ok(())),
                Stage::Read => {
                    let shut = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                    self.stage = Stage::Shut;
                    shut.map_err(|e| Broken::Sink(Ended::from(&e)))?;
                }
                Stage::Open if *left == 0 => return Poll::Pending,
                Stage::Open => match self.poll_read(cx, source, left) {
                    Poll::Ready(read) => read.map_err(|e| Broken::Source(Ended::from(&e)))?,
                    Poll::Pending => {
                        if self.needs_flush {
                            let flushed = ready!(Pin::new(&mut *sink).poll_flush(cx));
                            flushed.map_err(|e| Broken::Sink(Ended::from(&e)))?;
                            self.needs_flush = false;
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut W,
    ) -> Poll<io::Result<()>> {
        let Some(buffer) = &self.buffer else { return Poll::Ready(Ok(())) };
        while self.sent < self.filled {
            let n = ready!(Pin::new(&mut *sink).poll_write(cx, &buffer[self.sent..self.filled]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
            self.written += n as u64;
            self.needs_flush = true;
        }
        self.buffer = None;
        Poll::Ready(Ok(()))
    }

    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        left: &mut usize,
    ) -> Poll<io::Result<()>> {
        let mut buffer = Buffer::take();
        let mut free = ReadBuf::new(&mut buffer[..]);
        ready!(Pin::new(source).poll_read(cx, &mut free))?;
        let len = free.filled().len();
        if len == 0 {
            self.stage = Stage::Read;
            return Poll::Ready(Ok(()));
        }
        *left = left.saturating_sub(len);
        self.read += len as u64;
        (self.buffer, self.sent, self.filled) = (Some(buffer), 0, len);
        Poll::Ready(Ok(()))
    }

    fn is_read(&self) -> bool {
        self.stage != Stage::Open
    }

    /// The sink has got all of the source, and its end.
    fn is_whole(&self) -> bool {
        self.stage == Stage::Shut
    }

    /// Something waits for the sink.
    fn waits(&self) -> bool {
        self.buffer.is_some()
    }

    fn traffic(&self) -> Traffic {
        Traffic { messages: 0, payload_bytes: self.read, wire_bytes: self.read, largest: 0 }
    }
}

#[cfg(test)]
mod tests;
