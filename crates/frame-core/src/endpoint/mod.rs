//! A server endpoint: where a session ends at the gateway itself.
//!
//! A `FrameReader` has all progress of what comes, so that [`Endpoint::recv`] can be dropped at any point. What is
//! sent waits in an outbox and is written at once when there is nothing more to be received.
//! [`bridge`](mod@bridge) serves sessions whose messages are the bytes of a stream.
//!
//! [`Endpoint::freeze`] takes an endpoint apart between any two calls, and [`Endpoint::thaw`] goes on with it, in this
//! process or in another.

mod assembly;
pub mod bridge;
mod compressed;
mod frozen;
mod inflate;
mod outbox;
mod shared_frame;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use net_io::memory::Claim;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use self::assembly::Assembly;
pub use self::assembly::{Message, MessageKind};
use self::compressed::{Compressed, too_much};
use self::outbox::Outbox;
pub use self::shared_frame::SharedFrame;
use crate::client::ClientStream;
use crate::clock::Exact;
use crate::close::Close;
use crate::fair_queue::yield_to_driver;
use crate::frame_reader::{Frame, FrameReader, ReadError};
use crate::handle::SessionHandle;
use crate::head::OpCode;
use crate::keepalive::PongOwner;
use crate::outcome::{Cause, Ended, Exit, IDLE_CODE, Outcome, Party, Snapshot, Traffic};
use crate::policy::{CLOSE_WAIT, Policy};
use crate::scanner::ControlPayload;
use crate::supervisor::{Due, Supervisor};
use crate::violation::Violation;

/// What a session may read before other sessions are polled, in bytes of payload; each frame counts as
/// [`FRAME_COST`] more.
const QUANTUM_LEN: usize = 256 * 1024;
/// Decoding a frame takes as long as copying so many bytes, or longer.
const FRAME_COST: usize = 512;

/// The session is over; [`Endpoint::end`] says why. Or it is to be frozen: [`Endpoint::is_over`] tells these apart.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
#[error("the session is over")]
pub struct SessionOver;

/// The server's end of a WebSocket.
#[derive(Debug)]
pub struct Endpoint<S> {
    io: S,
    reader: FrameReader,
    assembly: Assembly,
    outbox: Outbox,
    handle: SessionHandle,
    supervisor: Supervisor<Exact>,
    /// Bytes read up to [`Self::note_progress`].
    read_bytes: u64,
    /// Messages, or pieces of a stream, that have moved; and up to [`Self::note_progress`].
    moved: u64,
    counted: u64,
    /// Bytes of the client's that wait outside of the endpoint.
    waiting_outside: usize,
    cause: Option<Cause>,
    received: Traffic,
    sent: Traffic,
    /// What was read since other sessions were polled.
    read_since_yield: usize,
    /// The last ping that came while the outbox was full (RFC 6455 §5.5.3: it is enough to answer that one).
    unanswered: Option<BytesMut>,
    /// Where permessage-deflate was agreed upon. In a box, since most sessions have none.
    compressed: Option<Box<Compressed>>,
    /// Of the message in progress, and of what is queued.
    held: Claim,
}

// Every idle session with an endpoint has one.
const _: () = assert!(size_of::<Endpoint<()>>() <= 688);

/// An endpoint that was taken apart. It goes on with [`Endpoint::thaw`].
#[derive(Debug)]
pub struct EndpointState {
    reader: FrameReader,
    assembly: Assembly,
    outbox: Outbox,
    supervisor: Supervisor<()>,
    read_bytes: u64,
    /// Something has moved that the supervisor hasn't been told of.
    has_moved: bool,
    cause: Option<Cause>,
    received: Traffic,
    sent: Traffic,
    unanswered: Option<BytesMut>,
    /// The time by the endpoint's clock.
    at: Duration,
}

impl<S: ClientStream> Endpoint<S> {
    /// Takes over a stream behind a finished handshake. Bytes that the client sent along with it
    /// must come out of `io` first. `policy.limits.deflate` must be false: nothing is inflated. See [`Self::compressed`].
    pub fn new(io: S, policy: Policy, handle: SessionHandle) -> Self {
        let mut reader = FrameReader::new(policy.limits);
        reader.count_sizes(handle.sizes()[0].cloned());
        Self {
            io,
            reader,
            assembly: Assembly::default(),
            outbox: Outbox::default(),
            handle,
            supervisor: Supervisor::new(&policy, Exact::begin()),
            read_bytes: 0,
            moved: 0,
            counted: 0,
            waiting_outside: 0,
            cause: None,
            received: Traffic::default(),
            sent: Traffic::default(),
            read_since_yield: 0,
            unanswered: None,
            compressed: None,
            held: Claim::default(),
        }
    }

    /// The next message, or `None` when the session is over, or was asked to freeze ([`SessionHandle::freeze`]):
    /// [`Self::is_over`] tells these apart. Before it waits, pings are answered, the client is pinged, and what was sent
    /// is flushed.
    ///
    /// # Cancel safety
    /// Safe: a dropped call loses nothing.
    pub async fn recv(&mut self) -> Option<Message> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// [`Self::recv`], for a task that waits for something else, too.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.supervisor.take_fired(); // here, since what comes may keep the timers waiting
        // Pongs are queued only while the client takes them.
        let received = self.poll_next(cx, |endpoint| !endpoint.outbox.is_full(), Self::on_frame);
        // A text that is wrong already is refused now, not when the rest of its frame has come.
        if received.is_pending()
            && let Some(part) = self.reader.take_text()
            && let Err(cause) = self.on_frame(part)
        {
            self.cause = Some(cause);
            return Poll::Ready(None);
        }
        if received.is_pending() && self.freezes(true) { Poll::Ready(None) } else { received }
    }

    /// The same without reading from the client: what is queued is written, and what is due is done. Ready when the
    /// session is over.
    pub fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.supervisor.take_fired();
        self.poll_next(cx, |_| false, |_, _| Ok(None::<()>)).map(drop)
    }

    /// What `take` makes of the next frames, or `None` when the session is over. The client is read while `reads` says
    /// so.
    fn poll_next<T>(
        &mut self,
        cx: &mut Context<'_>,
        reads: impl Fn(&Self) -> bool,
        take: impl Fn(&mut Self, Frame) -> Result<Option<T>, Cause>,
    ) -> Poll<Option<T>> {
        loop {
            if self.cause.is_none() {
                self.cause = self.ordered(self.is_in_message());
            }
            if self.cause.is_some() {
                return Poll::Ready(None);
            }
            let reading = reads(self);
            if reading && self.read_since_yield >= QUANTUM_LEN {
                self.yield_turn(cx);
                return Poll::Pending;
            }
            let frame = match reading {
                true if self.compressed.is_some() => self.poll_inflated(cx),
                true => self.poll_frame(cx),
                false => Poll::Pending,
            };
            if let Poll::Ready(frame) = frame {
                match frame.and_then(|frame| take(self, frame)) {
                    Ok(None) => {}
                    Ok(Some(taken)) => return Poll::Ready(Some(taken)),
                    Err(cause) => self.cause = Some(cause),
                }
                continue;
            }
            let full = self.outbox.is_full();
            let flushed = self.poll_outbox(cx).is_ready();
            let waits = !full || !flushed;
            if waits
                && self.cause.is_none()
                && self.poll_wait(cx, reads(self), self.is_in_message()).is_pending()
            {
                return Poll::Pending;
            }
        }
    }

    /// Others are next.
    fn yield_turn(&mut self, cx: &mut Context<'_>) {
        self.read_since_yield = 0;
        let now = self.note_progress(); // what comes may keep the timers waiting
        self.note_waits(now);
        if self.supervisor.has_reached_lifetime(now) {
            self.supervisor.on_lifetime(now);
        }
        yield_to_driver(cx);
    }

    /// The client has begun a message that isn't passed on yet.
    fn is_in_message(&self) -> bool {
        let is_inflating = self.compressed.as_ref().is_some_and(|compressed| compressed.is_inflating());
        self.reader.in_message() || is_inflating || self.waiting_outside > 0
    }

    /// An order to end whose time has come: it waits for a message in flight as long as it says.
    fn ordered(&mut self, in_flight: bool) -> Option<Cause> {
        let order = self.handle.order();
        if order.is_none() && !self.supervisor.is_ordered() {
            return None;
        }
        let now = self.supervisor.now();
        if let Some(order) = order {
            self.supervisor.on_order(order, now);
        }
        let ends = !in_flight || self.supervisor.is_ordered_now(now);
        if ends { self.supervisor.order_cause() } else { None }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Cause>> {
        let result = ready!(self.reader.poll_frame(&mut self.io, cx));
        self.read_since_yield += FRAME_COST + result.as_ref().map_or(0, |frame| frame.payload.len());
        Poll::Ready(result.map_err(cause_of))
    }

    fn on_frame(&mut self, frame: Frame) -> Result<Option<Message>, Cause> {
        let first = match frame.opcode {
            OpCode::Text => Some(MessageKind::Text),
            OpCode::Binary => Some(MessageKind::Binary),
            OpCode::Continuation => None,
            OpCode::Ping | OpCode::Pong | OpCode::Close => return self.on_control(frame).map(|()| None),
        };
        self.count_received(&frame);
        self.assembly.push(first, frame.fin, frame.payload).map_err(violation)
    }

    /// Counts a data frame.
    fn count_received(&mut self, frame: &Frame) {
        if !self.reader.is_compressed() {
            self.received.payload_bytes += frame.payload.len() as u64; // else they were counted on the wire
        }
        self.received.messages += u64::from(frame.fin);
        self.moved += u64::from(frame.fin);
    }

    fn on_control(&mut self, frame: Frame) -> Result<(), Cause> {
        match frame.opcode {
            OpCode::Ping if self.outbox.is_full() => self.unanswered = Some(frame.payload),
            OpCode::Ping => self.outbox.push(OpCode::Pong, frame.payload),
            OpCode::Pong => {
                let payload = ControlPayload::new(&frame.payload, None);
                if self.supervisor.keepalive.on_pong(&payload) == (PongOwner::Gateway { is_latest: true }) {
                    self.supervisor.on_pong();
                    self.supervisor.tell_answer(&self.handle);
                }
            }
            _ => {
                let close = Close::parse(&frame.payload).map_err(violation)?;
                return Err(Cause::Closed { by: Party::Client, close });
            }
        }
        Ok(())
    }

    /// Waits until something is due; the caller then looks at everything again. `reading`: the client is read;
    /// while it is not, its silence proves nothing.
    fn poll_wait(&mut self, cx: &mut Context<'_>, reading: bool, in_flight: bool) -> Poll<()> {
        let silent = self.supervisor.is_silent(cx, &self.handle);
        if !silent {
            self.supervisor.poll_order(cx, &self.handle);
        }
        self.cause = self.ordered(in_flight);
        if self.cause.is_some() {
            return Poll::Ready(());
        }
        let now = self.note_progress();
        if self.cause.is_some() {
            return Poll::Ready(());
        }
        if !silent {
            self.answer_snapshot(now);
        }
        if self.io.is_paused() {
            self.supervisor.on_message(now); // it is not idle
        }
        let keepalive = &mut self.supervisor.keepalive;
        keepalive.on_reading(reading && !self.io.is_paused(), now);
        keepalive.on_backlog(!self.outbox.is_empty(), self.outbox.take_progress(), now);
        self.note_waits(now);
        match self.supervisor.due(now, || None) {
            Due::Nothing => {
                self.supervisor.poll_timer(cx);
                return Poll::Pending;
            }
            Due::Ping(payload) => self.outbox.push(OpCode::Ping, BytesMut::from(&payload[..])),
            Due::PongTimeout => self.cause = Some(Cause::PongTimeout),
            Due::Stalled => self.cause = Some(Cause::Stalled),
            Due::Idle => self.cause = Some(Cause::Idle),
            Due::Lifetime => {
                self.supervisor.on_lifetime(now);
            }
            Due::OrderTimeout { .. } => self.cause = self.supervisor.order_cause(),
        }
        Poll::Ready(())
    }

    /// What waits at this moment.
    fn note_waits(&mut self, now: Duration) {
        self.supervisor.measures.on_waits(!self.outbox.is_empty(), self.waiting_outside > 0, now);
    }

    /// Reads the clock, and notes what has moved since the last time. Called before waiting and never for each
    /// message: while messages flow, the time of the last one is not needed.
    fn note_progress(&mut self) -> Duration {
        let now = self.supervisor.now();
        let read_bytes = self.reader.wire_bytes();
        if read_bytes != self.read_bytes {
            self.read_bytes = read_bytes;
            self.supervisor.keepalive.on_bytes(now);
        }
        let moved = self.moved != self.counted;
        if moved {
            self.counted = self.moved;
            self.supervisor.on_message(now);
        }
        let assembled = self.assembly.held();
        let mut held = self.reader.held() + assembled + self.outbox.len() + self.waiting_outside;
        if let Some(compressed) = &mut self.compressed {
            held += compressed.memory();
            if !compressed.charge(assembled) {
                self.cause.get_or_insert_with(too_much);
            }
        }
        self.held.set(held);
        // A message that comes slowly waits for its sender as much as one that leaves slowly.
        let holds_below = self.io.holds_message() == Some(true);
        self.handle.on_stall(held > 0 || holds_below, moved || self.outbox.progress);
        now
    }

    /// Answers [`SessionHandle::request_snapshot`].
    fn answer_snapshot(&self, now: Duration) {
        self.handle.answer_snapshot(|| self.snapshot(now));
    }

    fn snapshot(&self, now: Duration) -> Snapshot {
        Snapshot {
            from_client: self.received_traffic(),
            from_backend: self.sent_traffic(),
            waits: self.supervisor.measures.waits(now),
            pings: self.supervisor.measures.pings(),
            idle: self.supervisor.idle(now),
            is_closing: self.cause.is_some(),
        }
        .on_wire(self.io.on_wire())
    }

    fn received_traffic(&self) -> Traffic {
        Traffic { wire_bytes: self.reader.wire_bytes(), largest: self.reader.largest(), ..self.received }
    }

    fn sent_traffic(&self) -> Traffic {
        Traffic { wire_bytes: self.sent.wire_bytes + self.outbox.taken, ..self.sent }
    }

    /// Queues a message and, if the outbox is full, waits for the client to take some of it.
    ///
    /// # Errors
    /// [`SessionOver`] when the session has ended meanwhile, or was asked to freeze; then the message goes along.
    ///
    /// # Cancel safety
    /// Safe: the message is queued whole before the first wait.
    pub async fn send(&mut self, message: Message) -> Result<(), SessionOver> {
        if self.cause.is_some() {
            return Err(SessionOver);
        }
        self.queue(message);
        poll_fn(|cx| self.poll_sent(cx)).await
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SessionOver>> {
        self.supervisor.take_fired();
        // The client is not read meanwhile, and an order waits for this message too.
        let ready = !self.outbox.is_full()
            || self.poll_outbox(cx).is_ready()
            || self.poll_wait(cx, false, true).is_ready();
        match (ready, self.is_over()) {
            (true, false) => Poll::Ready(Ok(())),
            (true, true) => Poll::Ready(Err(SessionOver)),
            (false, _) if self.freezes(true) => Poll::Ready(Err(SessionOver)),
            (false, _) => Poll::Pending,
        }
    }

    /// [`Self::queue_frame`] may be called.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.outbox.is_full()
    }

    /// Queues a frame, which is written when the endpoint is polled next. Without [`Self::has_room`] it is taken all the
    /// same, and memory grows.
    pub fn queue_frame(&mut self, frame: &SharedFrame) {
        match &mut self.compressed {
            Some(compressed) if frame.is_data() => {
                let deflated = compressed.deflated(frame);
                self.push_frame(deflated.as_ref().unwrap_or(frame));
            }
            _ => self.push_frame(frame),
        }
    }

    fn push_frame(&mut self, frame: &SharedFrame) {
        if frame.is_data() {
            self.sent.messages += u64::from(frame.ends_message());
            self.sent.payload_bytes += frame.payload().len() as u64;
            // Of a message in parts, the largest part.
            let len = frame.payload().len() as u64;
            self.sent.largest = self.sent.largest.max(len);
            if let [_, Some(sizes)] = self.handle.sizes()
                && frame.ends_message()
            {
                sizes.add(len);
            }
            self.moved += 1;
        }
        self.outbox.push_shared(frame);
    }

    /// So many bytes of the session's wait outside of the endpoint, or are worked on: `queued` for the client, and `received`
    /// from it. Until there are none, an order to end waits for them as for a message in flight.
    pub fn set_waiting_outside(&mut self, queued: usize, received: usize) {
        self.waiting_outside = queued + received;
        if let Some(compressed) = &mut self.compressed {
            compressed.set_unhandled(received);
        }
    }

    /// How the session is seen and ended from outside.
    #[must_use]
    pub fn handle(&self) -> &SessionHandle {
        &self.handle
    }

    /// It was asked to freeze, and [`Self::recv`] ends as soon as it can: nothing new is to be begun.
    #[must_use]
    pub fn is_to_freeze(&self) -> bool {
        self.handle.freeze_mode().is_some()
    }

    /// The session has ended but for its Close, and [`Self::end`] is next.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.cause.is_some()
    }

    fn queue(&mut self, message: Message) {
        if self.compressed.is_some() {
            return self.queue_frame(&SharedFrame::message(message.kind, message.payload.freeze()));
        }
        let len = message.payload.len() as u64;
        self.sent.messages += 1;
        self.sent.payload_bytes += len;
        self.sent.largest = self.sent.largest.max(len);
        if let [_, Some(sizes)] = self.handle.sizes() {
            sizes.add(len);
        }
        self.moved += 1;
        self.outbox.push(message.kind.opcode(), message.payload);
    }

    /// Writes and flushes what is queued.
    fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.outbox.is_full()
            && let Some(ping) = self.unanswered.take()
        {
            self.outbox.push(OpCode::Pong, ping);
        }
        let flushed = ready!(self.poll_flush(cx));
        match flushed {
            Ok(()) if self.supervisor.keepalive.is_ping_queued() => {
                self.supervisor.on_ping_sent(self.supervisor.now());
            }
            Ok(()) => {}
            Err(e) => {
                let lost = Cause::Lost { party: Party::Client, how: Ended::from(&e) };
                self.cause.get_or_insert(lost);
            }
        }
        Poll::Ready(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_flush(&mut self.io, cx)
    }

    /// Begins the closing handshake; [`Self::end`] finishes it.
    pub fn close(&mut self, code: u16, reason: &str) {
        self.cause.get_or_insert_with(|| Cause::Closed {
            by: Party::Gateway,
            close: Close { code: Some(code), reason: reason.into() },
        });
    }

    /// Ends the session: the Close that its cause calls for, the client's answer, the end of the
    /// connection, each under a short deadline. Returns how it went.
    pub async fn end(self) -> Outcome {
        self.end_into::<tokio::io::Sink>(None).await
    }

    /// The same; what the client still sends before its Close goes to `sink`, if there is one.
    async fn end_into<W: AsyncWrite + Unpin>(mut self, sink: Option<&mut W>) -> Outcome {
        if self.cause.is_none() {
            self.close(1000, "");
        }
        let cause = self.cause.take().unwrap_or(Cause::PongTimeout);
        // A message that never will be whole is not kept while the client has time for its Close.
        self.assembly = Assembly::default();
        self.compressed = None;
        self.held.set(self.outbox.len());
        let close = match &cause {
            Cause::Closed { close, .. } => Some(close.clone()),
            Cause::Violation { violation, .. } => {
                Some(Close { code: Some(violation.close_code()), reason: violation.to_string().into() })
            }
            Cause::Idle => Some(Close { code: Some(IDLE_CODE), reason: "idle".into() }),
            Cause::Ordered { .. } | Cause::Lifetime => {
                Some(Close { code: Some(cause.close_code()), reason: "".into() })
            }
            Cause::Lost { party: Party::Backend, .. } => {
                Some(Close { code: Some(cause.close_code()), reason: "backend lost".into() })
            }
            Cause::Finished { .. } | Cause::Lost { .. } | Cause::PongTimeout | Cause::Stalled => None,
        };
        let client = match close {
            None => Exit::Cut,
            Some(close) => {
                self.outbox.push_close(&close);
                let deadline = Instant::now() + CLOSE_WAIT;
                // A violator's own Close is not waited for (RFC 6455 §7.1.7).
                let answered =
                    matches!(cause, Cause::Closed { by: Party::Client, .. } | Cause::Violation { .. });
                // RFC 6455 §7.1.1: both Closes, then the server ends TCP, and waits for the end.
                match tokio::time::timeout_at(deadline, self.finish(answered, sink)).await {
                    Ok(exit) => exit,
                    Err(_) if self.outbox.is_empty() => Exit::Orderly,
                    Err(_) => Exit::Cut,
                }
            }
        };
        let measures = &self.supervisor.measures;
        Outcome {
            cause,
            from_client: self.received_traffic(),
            from_backend: self.sent_traffic(),
            waits: measures.waits(self.supervisor.now()),
            pings: measures.pings(),
            client,
            backend: Exit::Orderly,
        }
        .on_wire(self.io.on_wire())
    }

    async fn finish<W: AsyncWrite + Unpin>(&mut self, answered: bool, mut sink: Option<&mut W>) -> Exit {
        if poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            return Exit::Cut;
        }
        let mut closed = answered;
        while !closed {
            match poll_fn(|cx| self.poll_frame(cx)).await {
                Ok(frame) if frame.opcode == OpCode::Close => closed = true,
                Ok(frame) => {
                    if matches!(frame.opcode, OpCode::Binary | OpCode::Continuation)
                        && let Some(sink) = &mut sink
                    {
                        self.count_received(&frame);
                        let _ = sink.write_all(&frame.payload).await; // it may be gone
                    }
                }
                Err(_) => break,
            }
        }
        if poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await.is_err() {
            return Exit::Orderly; // the client was faster
        }
        while poll_fn(|cx| self.poll_frame(cx)).await.is_ok() {}
        Exit::Orderly
    }
}

fn violation(violation: Violation) -> Cause {
    Cause::Violation { by: Party::Client, violation }
}

/// Whose fault a failed read is.
fn cause_of(e: ReadError) -> Cause {
    let how = match e {
        ReadError::Violation(broken) => return violation(broken),
        ReadError::Eof => Ended::Eof,
        ReadError::Io(e) => Ended::from(&e),
    };
    Cause::Lost { party: Party::Client, how }
}

#[cfg(test)]
mod tests;
