//! One direction of a relay: it reads, scans and writes, and inserts frames of the gateway between two others.
//!
//! The buffer holds three stretches: bytes that the sink has taken, scanned bytes that it has not taken, and bytes
//! that are too few to be judged (at most the front of a head or of a control frame).
//!
//! ```text
//!   0 ........ sent ........ scanned ........ filled ........ BUFFER_LEN
//!     gone           to write      to scan         to read
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use fastwebsockets::{Frame, OpCode, Payload};
use net_io::count::Sizes;
use net_io::state::{StateError, StateReader, StateWriter};
use net_io::{BUFFER_LEN, Buffer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::close::Close;
use crate::head::Sender;
use crate::keepalive::{Keepalive, PongOwner};
use crate::outcome::{Ended, Traffic};
use crate::scanner::{Boundary, ControlKind, Next, Scanner, Tally};
use crate::tap::WayStart;
use crate::violation::{Violation, violation_of};

/// Rounds of reading or scanning in one poll, before the other direction is polled.
pub(super) const ROUNDS_MAX: u32 = 8;

/// What is done with the bytes of the source. The numbers are those of the format in which a session goes to another
/// process, and don't change; so below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// They go on to the sink.
    Relay = 0,
    /// They go nowhere, but a Close among them is awaited.
    AwaitClose = 1,
    /// They go nowhere; only the end is awaited.
    Discard = 2,
    /// They are not read (RFC 6455 §7.1.7).
    Stopped = 3,
    /// There are no more.
    Ended = 4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    Open = 0,
    /// A Close is on its way or there; nothing may follow it (RFC 6455 §5.5.1).
    Closed = 1,
    /// Its write half is shut down.
    Shut = 2,
    Failed = 3,
    /// It was given a part of a frame whose rest goes nowhere: nothing may follow.
    CutOff = 4,
}

/// A frame that the gateway inserts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InsertedKind {
    Ping,
    Close,
}

#[derive(Debug)]
struct Inserted {
    kind: InsertedKind,
    boundary: Boundary,
    wire: Vec<u8>,
    /// Bytes of `wire` that the sink has taken; `None` while it waits for its boundary.
    sent: Option<usize>,
}

/// What the relay must be told.
#[derive(Debug)]
pub(super) enum Event {
    /// The source sent a Close, and it went on to the sink (`passed`) or not.
    Close { close: Close, passed: bool },
    /// The source broke a rule. It is not read any more; what came before goes on.
    Violation(Violation),
    /// The source has ended.
    Ended(Ended),
    /// The sink takes no more bytes.
    SinkFailed(Ended),
    /// The gateway's ping is on the network.
    PingSent,
    /// The client has answered the latest ping of the gateway.
    Pong,
    /// The rounds of this poll are used up; the other direction is next.
    Yield,
}

impl Source {
    fn of(number: u8) -> Option<Self> {
        [Self::Relay, Self::AwaitClose, Self::Discard, Self::Stopped, Self::Ended]
            .into_iter()
            .find(|source| *source as u8 == number)
    }
}

impl Sink {
    fn of(number: u8) -> Option<Self> {
        [Self::Open, Self::Closed, Self::Shut, Self::Failed, Self::CutOff]
            .into_iter()
            .find(|sink| *sink as u8 == number)
    }
}

impl Inserted {
    fn write_state(&self, out: &mut StateWriter) {
        let Self { kind, boundary, wire, sent } = self;
        out.section(|out| {
            out.bool(*kind == InsertedKind::Close);
            out.bool(*boundary == Boundary::Message);
            out.bytes(wire);
            out.option(sent.and_then(|sent| u32::try_from(sent).ok()), StateWriter::u32);
        });
    }

    fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let kind = if fields.bool()? { InsertedKind::Close } else { InsertedKind::Ping };
        let boundary = if fields.bool()? { Boundary::Message } else { Boundary::Frame };
        let wire = fields.bytes()?.to_vec();
        let sent = fields.option(StateReader::u32)?.map(|sent| usize::try_from(sent).unwrap_or(usize::MAX));
        if sent.is_some_and(|sent| sent > wire.len()) {
            return Err(StateError::Invalid("an inserted frame"));
        }
        Ok(Self { kind, boundary, wire, sent })
    }
}

#[derive(Debug)]
pub(super) struct Pump {
    scanner: Scanner,
    source: Source,
    sink: Sink,
    buffer: Option<Buffer>,
    sent: usize,
    scanned: usize,
    filled: usize,
    /// Bytes behind `scanned` that are left out of the stream once all before them is written.
    omitted: usize,
    /// The unscanned bytes while no buffer is held.
    unscanned: Option<Box<[u8]>>,
    inserted: Option<Box<Inserted>>,
    /// A Close queued behind a ping that is half written.
    inserted_next: Option<Box<Inserted>>,
    /// Something was written since the last flush.
    needs_flush: bool,
    /// The scanner wants more bytes than there are.
    needs_bytes: bool,
    /// The sink takes nothing at the moment, so the source is not read.
    blocked: bool,
    /// A Close of the source does not go on: the sink gets one from the gateway.
    intercept_close: bool,
    shut_when_written: bool,
    wire_bytes: u64,
    /// The sink has taken something since [`Self::take_progress`].
    progress: bool,
}

impl Pump {
    /// The direction whose frames `scanner` scans.
    pub(super) fn new(scanner: Scanner) -> Self {
        Self {
            scanner,
            source: Source::Relay,
            sink: Sink::Open,
            buffer: None,
            sent: 0,
            scanned: 0,
            filled: 0,
            omitted: 0,
            unscanned: None,
            inserted: None,
            inserted_next: None,
            needs_flush: false,
            needs_bytes: true,
            blocked: false,
            intercept_close: false,
            shut_when_written: false,
            wire_bytes: 0,
            progress: false,
        }
    }

    /// Nothing that has begun to be written is unwritten.
    pub(super) fn is_between_writes(&self) -> bool {
        let has_begun = |own: &Inserted| own.sent.is_some();
        self.sink == Sink::Failed
            || (self.sent == self.scanned
                && !self.needs_flush
                && !self.inserted.as_deref().is_some_and(has_begun))
    }

    /// The pump as it is. What it leaves is of no use.
    pub(super) fn freeze(&mut self) -> Self {
        if self.sent == self.scanned && self.omitted == 0 && self.needs_bytes {
            drop(self.release_buffer());
        }
        std::mem::replace(self, Self::new(Scanner::disabled(self.scanner.sender())))
    }

    /// Where the source stands, as far as it has been read.
    pub(super) fn read_so_far(&self) -> WayStart {
        let ahead = match (&self.unscanned, &self.buffer) {
            (Some(unscanned), _) => unscanned,
            (None, Some(buffer)) => &buffer[self.scanned + self.omitted..self.filled],
            (None, None) => &[][..],
        };
        WayStart {
            skip: self.scanner.payload_left(),
            ahead: ahead.to_vec(),
            is_over: !matches!(self.source, Source::Relay | Source::AwaitClose),
        }
    }

    /// Where the sink stands, as far as it has been given something.
    pub(super) fn written_so_far(&self) -> WayStart {
        let begun = self.inserted.as_deref().and_then(|own| Some(own.wire.len() - own.sent?));
        let queued = self.scanned - self.sent + begun.unwrap_or_default();
        WayStart {
            skip: self.scanner.payload_left().saturating_add(queued as u64),
            ahead: Vec::new(),
            is_over: matches!(self.sink, Sink::Shut | Sink::Failed | Sink::CutOff),
        }
    }

    /// As if so many bytes were to be left out.
    #[cfg(test)]
    pub(super) fn omit_for_test(&mut self, len: usize) {
        self.omitted = len;
    }

    /// Writes what [`Self::read_state`] reads.
    pub(super) fn write_state(&self, out: &mut StateWriter) {
        let Self {
            scanner,
            source,
            sink,
            buffer,
            sent,
            scanned,
            filled,
            omitted,
            unscanned,
            inserted,
            inserted_next,
            needs_flush,
            needs_bytes,
            blocked,
            intercept_close,
            shut_when_written,
            wire_bytes,
            progress,
        } = self;
        out.section(|out| {
            scanner.write_state(out);
            out.u8(*source as u8);
            out.u8(*sink as u8);
            out.bytes(buffer.as_deref().map_or(&[], |buffer| &buffer[*sent..*scanned]));
            out.bytes(match (unscanned, buffer) {
                (Some(unscanned), _) => unscanned,
                (None, Some(buffer)) => &buffer[*scanned..*filled],
                (None, None) => &[],
            });
            out.u32(u32::try_from(*omitted).unwrap_or(u32::MAX));
            out.option(inserted.as_deref(), |out, own| own.write_state(out));
            out.option(inserted_next.as_deref(), |out, own| own.write_state(out));
            for flag in [needs_flush, needs_bytes, blocked, intercept_close, shut_when_written, progress] {
                out.bool(*flag);
            }
            out.u64(*wire_bytes);
        });
    }

    /// Goes on where another pump left off.
    pub(super) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let mut pump = Self::new(Scanner::read_state(&mut fields)?);
        pump.source = Source::of(fields.u8()?).ok_or(StateError::Invalid("the state of a source"))?;
        pump.sink = Sink::of(fields.u8()?).ok_or(StateError::Invalid("the state of a sink"))?;
        let (unsent, unscanned) = (fields.bytes()?, fields.bytes()?);
        pump.omitted = usize::try_from(fields.u32()?).unwrap_or(usize::MAX);
        if unsent.len() + unscanned.len() > BUFFER_LEN || pump.omitted > unscanned.len() {
            return Err(StateError::Invalid("the bytes of a buffer"));
        }
        pump.inserted = fields.option(Inserted::read_state)?.map(Box::new);
        pump.inserted_next = fields.option(Inserted::read_state)?.map(Box::new);
        for flag in [
            &mut pump.needs_flush,
            &mut pump.needs_bytes,
            &mut pump.blocked,
            &mut pump.intercept_close,
            &mut pump.shut_when_written,
            &mut pump.progress,
        ] {
            *flag = fields.bool()?;
        }
        pump.wire_bytes = fields.count()?;
        if !unsent.is_empty() || pump.omitted > 0 || !pump.needs_bytes {
            let mut buffer = Buffer::take();
            (pump.scanned, pump.filled) = (unsent.len(), unsent.len() + unscanned.len());
            buffer[..pump.scanned].copy_from_slice(unsent);
            buffer[pump.scanned..pump.filled].copy_from_slice(unscanned);
            pump.buffer = Some(buffer);
        } else if unscanned.len() < BUFFER_LEN {
            pump.unscanned = (!unscanned.is_empty()).then(|| unscanned.into());
        } else {
            return Err(StateError::Invalid("a buffer without room")); // a read of nothing would look like an end
        }
        Ok(pump)
    }

    /// Whose frames these are.
    pub(super) fn sender(&self) -> Sender {
        self.scanner.sender()
    }

    /// Bytes read from the source so far.
    pub(super) fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }

    pub(super) fn tally(&self) -> Tally {
        self.scanner.tally()
    }

    /// What it has carried.
    pub(super) fn traffic(&self) -> Traffic {
        Traffic::new(self.tally(), self.wire_bytes, self.scanner.largest())
    }

    /// From now on messages are counted there by size.
    pub(super) fn count_sizes(&mut self, sizes: Option<Arc<Sizes>>) {
        self.scanner.count_sizes(sizes);
    }

    /// The largest message had so many bytes, in another process.
    pub(super) fn set_largest(&mut self, largest: u64) {
        self.scanner.set_largest(largest);
    }

    /// Whether the sink has taken something since this was last asked.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// The sink has room, so the source is read.
    pub(super) fn is_reading(&self) -> bool {
        !self.blocked
    }

    /// Nothing waits for the sink, and the gateway inserts nothing.
    pub(super) fn is_calm(&self) -> bool {
        !self.blocked && self.inserted.is_none()
    }

    /// What the sink was given ends between two frames.
    pub(super) fn at_frame_boundary(&self) -> bool {
        self.sink != Sink::CutOff && self.scanner.at(Boundary::Frame)
    }

    /// No Close has been given to the sink, and it can still take one.
    pub(super) fn can_close(&self) -> bool {
        self.sink == Sink::Open
            && !self.inserted.iter().chain(&self.inserted_next).any(|o| o.kind == InsertedKind::Close)
    }

    /// [`Self::send_close`] between two frames would still change something.
    pub(super) fn takes_close(&self) -> bool {
        let waits = |own: &Inserted| own.kind == InsertedKind::Close && own.boundary == Boundary::Message;
        self.can_close() || self.inserted.as_deref().is_some_and(waits)
    }

    /// What the source sends goes on to the sink.
    pub(super) fn is_relaying(&self) -> bool {
        self.source == Source::Relay
    }

    /// Everything meant for the sink is on the network.
    pub(super) fn is_written(&self) -> bool {
        self.sink == Sink::Failed
            || (self.sent == self.scanned
                && self.inserted.is_none()
                && self.inserted_next.is_none()
                && !self.needs_flush)
    }

    /// A Close, passed on or inserted, is on the network.
    pub(super) fn close_written(&self) -> bool {
        matches!(self.sink, Sink::Closed | Sink::Shut) && self.is_written()
    }

    /// A Close of the source is next for the sink, and the last.
    pub(super) fn is_answering(&self) -> bool {
        self.sink == Sink::Closed && self.sent < self.scanned && self.inserted.is_none()
    }

    /// Something was queued since the last poll that can be written right away.
    pub(super) fn wants_poll(&self) -> bool {
        !self.blocked && self.inserted_has_place()
    }

    pub(super) fn sink_failed(&self) -> bool {
        self.sink == Sink::Failed
    }

    /// Inserts a ping between two frames.
    pub(super) fn send_ping(&mut self, payload: &[u8]) {
        if self.inserted.is_none() && self.sink == Sink::Open {
            let frame = Frame::new(true, OpCode::Ping, None, Payload::Borrowed(payload));
            self.inserted = Some(self.inserted_frame(InsertedKind::Ping, Boundary::Frame, frame));
        }
    }

    /// Inserts a Close at the next `boundary`. From there on nothing from the source goes on, and only its own Close
    /// is awaited. Nothing happens if the sink has a Close already.
    pub(super) fn send_close(&mut self, code: u16, reason: &str, boundary: Boundary) {
        if let Some(own) = self.inserted.as_mut().filter(|own| own.kind == InsertedKind::Close) {
            if boundary == Boundary::Frame {
                own.boundary = boundary;
            }
            return;
        }
        if !self.can_close() {
            return;
        }
        let own = self.inserted_frame(InsertedKind::Close, boundary, Frame::close(code, reason.as_bytes()));
        match &self.inserted {
            Some(ping) if ping.sent.is_some() => self.inserted_next = Some(own),
            _ => self.inserted = Some(own), // a ping that still waits is not needed any more
        }
    }

    fn inserted_frame(&self, kind: InsertedKind, boundary: Boundary, mut frame: Frame<'_>) -> Box<Inserted> {
        if self.scanner.sender() == Sender::Client {
            frame.mask(); // towards the backend the gateway is the client (RFC 6455 §5.1)
        }
        let mut wire = Vec::new();
        let len = frame.write(&mut wire).len();
        wire.truncate(len);
        Box::new(Inserted { kind, boundary, wire, sent: None })
    }

    /// A Close of the source is noted but not passed on.
    pub(super) fn intercept_close(&mut self) {
        self.intercept_close = true;
    }

    /// Nothing more from the source goes on; its Close is still awaited.
    pub(super) fn discard_until_close(&mut self) {
        if self.source != Source::Relay {
            return;
        }
        self.source = Source::AwaitClose;
        if self.sink == Sink::Open && !self.scanner.at(Boundary::Frame) {
            self.sink = Sink::CutOff;
            self.inserted = None; // nothing has begun inside a frame
        }
    }

    /// Shuts the sink's write half down once everything is written.
    pub(super) fn shut_when_written(&mut self) {
        self.shut_when_written = true;
    }

    /// Moves bytes until nothing moves, or something happens that the relay must know. A buffer that is
    /// needed is taken from `spare`, if there is one, and one that is not needed any more is put there. `left` is how
    /// many bytes may still be read; when it is 0, nothing is read.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        keepalive: &mut Keepalive,
        spare: &mut Option<Buffer>,
        left: &mut usize,
    ) -> Poll<Event>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        self.blocked = false;
        for _ in 0..ROUNDS_MAX {
            if self.sent < self.scanned || self.omitted > 0 || self.inserted.is_some() {
                match ready!(self.poll_write_all(cx, sink)) {
                    Ok(None) => {}
                    Ok(Some(event)) => return Poll::Ready(event),
                    Err(e) => return Poll::Ready(self.fail_sink(&e)),
                }
            }
            if !self.needs_bytes
                && matches!(self.source, Source::Relay | Source::AwaitClose)
                && let Some(event) = self.scan(keepalive)
            {
                return Poll::Ready(event);
            }
            let unwritten = self.sent < self.scanned || self.omitted > 0;
            if unwritten || !self.needs_bytes || self.inserted_has_place() {
                continue;
            }
            if let Some(event) = ready!(self.poll_read(cx, source, sink, spare, left)) {
                return Poll::Ready(event);
            }
        }
        Poll::Ready(Event::Yield)
    }

    /// Writes the scanned bytes, then the inserted frame if this is its boundary.
    fn poll_write_all<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut W,
    ) -> Poll<io::Result<Option<Event>>> {
        if self.sink == Sink::Failed {
            self.sent = self.scanned;
            self.inserted = None;
            self.inserted_next = None;
        }
        while self.sent < self.scanned {
            let Some(buffer) = &self.buffer else { break };
            let write = Pin::new(&mut *sink).poll_write(cx, &buffer[self.sent..self.scanned]);
            self.blocked = write.is_pending();
            let n = ready!(write).and_then(not_zero)?;
            self.sent += n;
            self.progress = true;
            self.needs_flush = true;
        }
        if self.omitted > 0 {
            self.scanned += self.omitted;
            self.sent = self.scanned;
            self.omitted = 0;
        }
        while self.inserted_has_place() {
            let Some(own) = self.inserted.as_mut() else { break };
            let sent = own.sent.get_or_insert(0);
            if own.kind == InsertedKind::Close && self.sink == Sink::Open {
                self.sink = Sink::Closed;
                if self.source == Source::Relay {
                    self.source = Source::AwaitClose;
                }
            }
            while *sent < own.wire.len() {
                let write = Pin::new(&mut *sink).poll_write(cx, &own.wire[*sent..]);
                self.blocked = write.is_pending();
                *sent += ready!(write).and_then(not_zero)?;
                self.needs_flush = true;
            }
            let flush = Pin::new(&mut *sink).poll_flush(cx);
            self.blocked = flush.is_pending();
            ready!(flush)?;
            self.needs_flush = false;
            let kind = own.kind;
            self.inserted = self.inserted_next.take();
            if kind == InsertedKind::Ping {
                return Poll::Ready(Ok(Some(Event::PingSent)));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// The inserted frame is next on the wire: it has begun, or this is the boundary it waits for.
    fn inserted_has_place(&self) -> bool {
        self.sent == self.scanned
            && self.inserted.as_ref().is_some_and(|own| own.sent.is_some() || self.scanner.at(own.boundary))
    }

    fn scan(&mut self, keepalive: &mut Keepalive) -> Option<Event> {
        let buffer = self.buffer.as_ref()?;
        let stop_at = self.inserted.as_ref().filter(|own| own.sent.is_none()).map(|own| own.boundary);
        let (passed, next) = self.scanner.scan(&buffer[self.scanned..self.filled], stop_at);
        let relayed = self.source == Source::Relay;
        self.scanned += passed;
        if !relayed {
            self.sent = self.scanned;
        }
        let frame = match next {
            Ok(Next::Need(_)) => {
                self.needs_bytes = true;
                return None;
            }
            Ok(Next::Boundary) => return None,
            Ok(Next::Control(frame)) => frame,
            Err(violation) => {
                self.filled = self.scanned;
                self.needs_bytes = true;
                self.source = if relayed { Source::Stopped } else { Source::Discard };
                return relayed.then_some(Event::Violation(violation));
            }
        };
        let (passed, event) = match frame.kind {
            ControlKind::Ping(_) => {
                if relayed && self.scanner.sender() == Sender::Server {
                    keepalive.on_backend_ping();
                }
                (relayed, None)
            }
            ControlKind::Pong(payload) => match self.scanner.sender() {
                Sender::Server => (relayed, None),
                Sender::Client => match keepalive.on_pong(&payload) {
                    PongOwner::Gateway { is_latest } => (false, is_latest.then_some(Event::Pong)),
                    PongOwner::Backend => (relayed, None),
                },
            },
            ControlKind::Close(close) => {
                let passed = relayed && !self.intercept_close;
                self.source = Source::Discard;
                if passed {
                    self.sink = Sink::Closed;
                    self.inserted = self.inserted.take().filter(|own| own.sent.is_some());
                }
                (passed, Some(Event::Close { close, passed }))
            }
        };
        if passed {
            self.scanned += frame.frame_len;
        } else if self.sent == self.scanned {
            self.scanned += frame.frame_len;
            self.sent = self.scanned;
        } else {
            self.omitted = frame.frame_len;
        }
        if self.source == Source::Discard {
            self.filled = self.scanned + self.omitted;
            self.needs_bytes = true;
        }
        event
    }

    /// Reads once. If nothing is there to be read, it flushes, and gives its buffer back.
    fn poll_read<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        spare: &mut Option<Buffer>,
        left: &mut usize,
    ) -> Poll<Option<Event>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let read = if *left == 0 || matches!(self.source, Source::Stopped | Source::Ended) {
            Poll::Pending
        } else {
            let buffer = self.buffer.get_or_insert_with(|| spare.take().unwrap_or_else(Buffer::take));
            if let Some(unscanned) = self.unscanned.take() {
                buffer[..unscanned.len()].copy_from_slice(&unscanned);
                (self.sent, self.scanned, self.filled) = (0, 0, unscanned.len());
            } else if self.scanned > 0 {
                buffer.copy_within(self.scanned..self.filled, 0);
                (self.sent, self.scanned, self.filled) = (0, 0, self.filled - self.scanned);
            }
            let mut free = ReadBuf::new(&mut buffer[self.filled..]);
            Pin::new(source).poll_read(cx, &mut free).map_ok(|()| free.filled().len())
        };
        match read {
            Poll::Pending => {
                if let Some(buffer) = self.release_buffer() {
                    *spare = Some(buffer);
                }
                if self.needs_flush && self.sink != Sink::Failed {
                    match Pin::new(&mut *sink).poll_flush(cx) {
                        Poll::Ready(Ok(())) => self.needs_flush = false,
                        Poll::Ready(Err(e)) => return Poll::Ready(Some(self.fail_sink(&e))),
                        Poll::Pending => {}
                    }
                }
                if self.shut_when_written && self.is_written() && self.sink != Sink::Failed {
                    match ready!(Pin::new(sink).poll_shutdown(cx)) {
                        Ok(()) => (self.shut_when_written, self.sink) = (false, Sink::Shut),
                        Err(e) => return Poll::Ready(Some(self.fail_sink(&e))),
                    }
                }
                Poll::Pending
            }
            Poll::Ready(Ok(0)) => Poll::Ready(Some(self.end_source(Ended::Eof))),
            Poll::Ready(Ok(n)) => {
                self.wire_bytes += n as u64;
                *left = left.saturating_sub(n);
                if self.source == Source::Discard {
                    (self.sent, self.scanned, self.filled) = (0, 0, 0);
                } else {
                    self.filled += n;
                    self.needs_bytes = false;
                }
                Poll::Ready(None)
            }
            Poll::Ready(Err(e)) => Poll::Ready(Some(match violation_of(&e) {
                Some(violation) if self.source == Source::Relay => {
                    (self.source, self.filled) = (Source::Stopped, self.scanned);
                    Event::Violation(violation)
                }
                _ => self.end_source(Ended::from(&e)),
            })),
        }
    }

    /// Gives the buffer back; bytes that are not scanned are kept in a small one of their own.
    fn release_buffer(&mut self) -> Option<Buffer> {
        let buffer = self.buffer.take()?;
        let unscanned = &buffer[self.scanned..self.filled];
        self.unscanned = (!unscanned.is_empty()).then(|| unscanned.into());
        (self.sent, self.scanned, self.filled) = (0, 0, 0);
        Some(buffer)
    }

    fn end_source(&mut self, ended: Ended) -> Event {
        self.source = Source::Ended;
        self.filled = self.scanned;
        drop(self.release_buffer());
        Event::Ended(ended)
    }

    fn fail_sink(&mut self, e: &io::Error) -> Event {
        self.sink = Sink::Failed;
        self.shut_when_written = false;
        self.blocked = false;
        self.discard_until_close();
        Event::SinkFailed(Ended::from(e))
    }
}

/// A sink that takes no byte of a slice that has some will never take any.
fn not_zero(n: usize) -> io::Result<usize> {
    if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) }
}
