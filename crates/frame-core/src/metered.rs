//! A client's stream that gives no more than so many messages and bytes in a time.
//!
//! In: the stream of a client behind its handshake, and [`Rates`]. Out: the same bytes, later, or an order to end the
//! session with 1008. To a session it is a stream like any other; a session without rates hasn't got one.
//!
//! A message counts when its first byte goes on, and so does a Ping, since its receiver has to answer it; bytes count as
//! they are on the wire. What is over a rate waits in the client's socket. Only what was read together with bytes
//! that may go on is held here, at most [`HELD_MAX`] bytes.

mod bucket;

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use net_io::memory::Claim;
use net_io::state::{StateError, StateReader, StateWriter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use self::bucket::Bucket;
pub use self::bucket::Rate;
use crate::client::{ClientStream, OnWire};
use crate::close::POLICY_VIOLATION;
use crate::handle::{EndMode, Order, RateLimit, SessionHandle};
use crate::head::{HEAD_MAX, Scan, Sender, scan_head};

/// Bytes that are read and may not go on yet, at most: as much as a TLS record has.
pub const HELD_MAX: usize = 16 * 1024;

/// What a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Messages and Pings.
    pub messages: Option<Rate>,
    /// Bytes of frames.
    pub bytes: Option<Rate>,
    /// What happens to a client that sends more.
    pub on_limit: OnLimit,
}

/// What happens to a client that sends more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLimit {
    /// It is not read for a while.
    Delay,
    /// Its session ends with 1008.
    Close,
}

/// How often clients have sent more than they may.
#[derive(Debug, Default)]
pub struct RateCounts {
    /// Pauses in reading.
    pub pauses: AtomicU64,
    /// Sessions that were ordered to end.
    pub closed: AtomicU64,
}

/// What a client has used of its rates.
#[derive(Debug)]
pub struct Meter {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    on_limit: OnLimit,
    /// Payload bytes of the current frame that are still to come.
    payload_left: u64,
    /// The front of a head, which has gone on.
    front: [u8; HEAD_MAX],
    front_len: usize,
    /// What was read and may not go on yet.
    held: Vec<u8>,
    claim: Claim,
    flow: Flow,
    handle: SessionHandle,
    counts: Arc<RateCounts>,
}

#[derive(Debug)]
enum Flow {
    /// Bytes go on.
    Open,
    /// Not before this moment.
    Paused(Pin<Box<Sleep>>),
    /// There was too much: the session is to be ordered to end.
    Exceeded,
    /// Bytes go on whatever they are: the session is ending, or what comes is no frame, which the session finds out.
    Unmetered,
}

impl Meter {
    /// Of a client that has sent nothing yet.
    #[must_use]
    pub fn new(rates: &Rates, handle: SessionHandle, counts: Arc<RateCounts>) -> Box<Self> {
        Box::new(Self {
            messages: rates.messages.map(Bucket::full),
            bytes: rates.bytes.map(Bucket::full),
            on_limit: rates.on_limit,
            payload_left: 0,
            front: [0; HEAD_MAX],
            front_len: 0,
            held: Vec::new(),
            claim: Claim::default(),
            flow: Flow::Open,
            handle,
            counts,
        })
    }

    /// Writes what [`Self::read_state`] reads.
    pub fn write_state(&self, out: &mut StateWriter) {
        let Self {
            messages,
            bytes,
            on_limit,
            payload_left,
            front,
            front_len,
            held,
            claim: _,
            flow,
            handle,    // the session's, but for what its client has sent too much of
            counts: _, // the process's
        } = self;
        let now = Instant::now();
        out.section(|out| {
            out.option(messages.as_ref(), |out, bucket| bucket.write_state(out, now));
            out.option(bytes.as_ref(), |out, bucket| bucket.write_state(out, now));
            out.bool(*on_limit == OnLimit::Close);
            out.u64(*payload_left);
            out.bytes(&front[..*front_len]);
            out.bytes(held);
            out.u8(match flow {
                Flow::Open | Flow::Paused(_) => 0, // it is found out again
                Flow::Exceeded => 1,
                Flow::Unmetered => 2,
            });
            out.option(handle.exceeded(), |out, limit| {
                out.u8(match limit {
                    RateLimit::Messages => 0,
                    RateLimit::Bytes => 1,
                });
            });
        });
    }

    /// Goes on where another process left off.
    ///
    /// # Errors
    /// If it is not what [`Self::write_state`] writes.
    pub fn read_state(
        fields: &mut StateReader<'_>,
        handle: SessionHandle,
        counts: Arc<RateCounts>,
    ) -> Result<Box<Self>, StateError> {
        let now = Instant::now();
        let mut fields = fields.section()?;
        let messages = fields.option(|fields| Bucket::read_state(fields, now))?;
        let bytes = fields.option(|fields| Bucket::read_state(fields, now))?;
        let on_limit = if fields.bool()? { OnLimit::Close } else { OnLimit::Delay };
        let payload_left = fields.u64()?;
        let given = fields.bytes()?;
        let mut front = [0; HEAD_MAX];
        let front_len = given.len();
        front.get_mut(..front_len).ok_or(StateError::Invalid("the front of a head"))?.copy_from_slice(given);
        let held = fields.bytes()?.to_vec();
        if held.len() > HELD_MAX {
            return Err(StateError::Invalid("the bytes of a client"));
        }
        let flow = match fields.u8()? {
            0 => Flow::Open,
            1 => Flow::Exceeded,
            2 => Flow::Unmetered,
            _ => return Err(StateError::Invalid("the state of a rate")),
        };
        if !fields.is_at_end() {
            match fields.option(StateReader::u8)? {
                None => {}
                Some(0) => handle.exceed(RateLimit::Messages),
                Some(1) => handle.exceed(RateLimit::Bytes),
                Some(_) => return Err(StateError::Invalid("a limit")),
            }
        }
        let claim = Claim::new(held.capacity());
        let meter = Self {
            messages,
            bytes,
            on_limit,
            payload_left,
            front,
            front_len,
            held,
            claim,
            flow,
            handle,
            counts,
        };
        Ok(Box::new(meter))
    }

    /// How many of `bytes` may go on; less than all of them if a message is one too many.
    fn pass(&mut self, bytes: &[u8], now: Instant) -> usize {
        let Some(messages) = &mut self.messages else { return bytes.len() };
        let mut at = 0;
        while let Some(&first) = bytes.get(at) {
            if self.payload_left > 0 {
                let here = bytes.len() - at;
                let n = usize::try_from(self.payload_left).map_or(here, |left| left.min(here));
                self.payload_left -= n as u64;
                at += n;
                continue;
            }
            // Text, Binary, Ping (RFC 6455 §5.2): the first byte says it.
            if self.front_len == 0 && matches!(first & 0x0F, 1 | 2 | 9) && !messages.take(1, now) {
                break;
            }
            self.front[self.front_len] = first;
            self.front_len += 1;
            at += 1;
            match scan_head(&self.front[..self.front_len], Sender::Client) {
                Ok(Scan::Need(_)) if self.front_len < HEAD_MAX => {}
                Ok(Scan::Head(head)) => (self.payload_left, self.front_len) = (head.payload_len, 0),
                Ok(Scan::Need(_)) | Err(_) => {
                    self.flow = Flow::Unmetered;
                    return bytes.len();
                }
            }
        }
        at
    }

    /// How many bytes may be read now; 0: it has to be waited.
    fn room(&self, now: Instant) -> usize {
        let may_hold = self.messages.is_some() || self.on_limit == OnLimit::Close;
        let wanted = if may_hold { HELD_MAX } else { usize::MAX };
        match (&self.bytes, self.on_limit) {
            (Some(bytes), OnLimit::Delay) => {
                usize::try_from(bytes.available(now)).map_or(wanted, |room| room.min(wanted))
            }
            _ => wanted,
        }
    }

    /// `len` bytes were read. Says whether the client may send them.
    fn count(&mut self, len: usize, now: Instant) -> bool {
        self.bytes.as_mut().is_none_or(|bytes| bytes.take(len as u64, now))
    }

    /// The client has to wait, or to go.
    fn limit(&mut self, limit: RateLimit, now: Instant) {
        self.flow = match self.on_limit {
            OnLimit::Close => {
                self.handle.exceed(limit);
                Flow::Exceeded
            }
            OnLimit::Delay => {
                self.handle.set_delayed(true);
                self.counts.pauses.fetch_add(1, Ordering::Relaxed);
                let waits = [self.bytes.as_ref(), self.messages.as_ref()].into_iter().flatten();
                let wait = waits.map(|bucket| bucket.wait(now)).max().unwrap_or(Duration::ZERO);
                Flow::Paused(Box::pin(sleep_until(now + wait)))
            }
        };
    }

    /// Holds these bytes in front of what comes.
    fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.claim.set(self.held.capacity());
    }

    /// Gives what was held and may go on. Returns whether that was something.
    fn give(&mut self, buf: &mut ReadBuf<'_>, now: Instant) -> bool {
        let len = self.held.len().min(buf.remaining());
        let held = std::mem::take(&mut self.held);
        let passed = if matches!(self.flow, Flow::Open) { self.pass(&held[..len], now) } else { len };
        buf.put_slice(&held[..passed]);
        if passed < held.len() {
            self.held = held[passed..].to_vec(); // no larger than it has to be
        }
        self.claim.set(self.held.capacity());
        passed > 0
    }
}

/// A client's stream with a meter.
#[derive(Debug)]
pub struct Metered<C> {
    client: C,
    meter: Box<Meter>,
}

impl<C> Metered<C> {
    /// `client` gives what `meter` lets pass.
    pub fn new(client: C, meter: Box<Meter>) -> Self {
        Self { client, meter }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &C {
        &self.client
    }

    /// The stream below, and the meter with what was read and may not go on yet.
    pub fn into_parts(self) -> (C, Box<Meter>) {
        (self.client, self.meter)
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Metered<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { client, meter } = self.get_mut();
        loop {
            match &mut meter.flow {
                Flow::Open => {}
                Flow::Paused(sleep) => {
                    // Without a budget: "pending" must mean that the timer holds the task's waker.
                    ready!(pin!(unconstrained(sleep.as_mut())).poll(cx));
                    meter.flow = Flow::Open;
                    meter.handle.set_delayed(false);
                }
                Flow::Exceeded => {
                    meter.flow = Flow::Unmetered; // the rest of a frame and the client's Close are still read
                    meter.counts.closed.fetch_add(1, Ordering::Relaxed);
                    meter.handle.end(Order { code: POLICY_VIOLATION, mode: EndMode::Now });
                    cx.waker().wake_by_ref(); // with the order
                    return Poll::Pending;
                }
                Flow::Unmetered if meter.held.is_empty() => return Pin::new(&mut *client).poll_read(cx, buf),
                Flow::Unmetered => {}
            }
            let now = Instant::now();
            if !meter.held.is_empty() {
                if meter.give(buf, now) || buf.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
                meter.limit(RateLimit::Messages, now);
                continue;
            }
            let room = meter.room(now).min(buf.remaining());
            if room == 0 && buf.remaining() > 0 {
                meter.limit(RateLimit::Bytes, now);
                continue;
            }
            let mut free = ReadBuf::new(buf.initialize_unfilled_to(room));
            ready!(Pin::new(&mut *client).poll_read(cx, &mut free))?;
            let read = free.filled();
            let (passed, limit) = match meter.count(read.len(), now) {
                true => (meter.pass(read, now), RateLimit::Messages),
                false => (0, RateLimit::Bytes),
            };
            if passed < read.len() {
                meter.hold(&read[passed..]);
                meter.limit(limit, now);
            }
            buf.advance(passed);
            if passed > 0 || meter.held.is_empty() {
                return Poll::Ready(Ok(())); // nothing at all is the end
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Metered<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.client).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_shutdown(cx)
    }
}

impl<C: ClientStream> ClientStream for Metered<C> {
    fn begin_shutdown(&mut self) {
        self.client.begin_shutdown();
    }

    fn acknowledged(&self) -> Option<u64> {
        self.client.acknowledged()
    }

    fn is_paused(&self) -> bool {
        matches!(self.meter.flow, Flow::Paused(_))
    }

    fn is_still(&self) -> bool {
        self.client.is_still()
    }

    fn holds_message(&self) -> Option<bool> {
        self.client.holds_message()
    }

    fn on_wire(&self) -> Option<OnWire> {
        self.client.on_wire()
    }
}

#[cfg(test)]
mod tests;
