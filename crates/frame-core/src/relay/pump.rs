//! One direction of a relay: read, scan, write, and now and then a frame of our own in between.
//!
//! The buffer holds three stretches: bytes the sink has taken, good bytes it hasn't, and bytes that
//! can't be judged yet (at most the front of a head or of a control frame).
//!
//! ```text
//!   0 ........ sent ........ good ........ filled ........ BUFFER_LEN
//!     gone           to write      to scan         to read
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use fastwebsockets::{Frame, OpCode, Payload};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::close::Close;
use crate::head::Sender;
use crate::keepalive::{Answers, Keepalive};
use crate::outcome::Ended;
use crate::pool::Buffer;
use crate::scanner::{Boundary, ControlKind, Next, Scanner, Tally};
use crate::violation::Violation;

/// Full buffers one poll may move before the other direction has its turn.
pub(super) const ROUNDS_MAX: u32 = 8;

/// What is done with the bytes of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// They go on to the sink.
    Relay,
    /// They go nowhere, but a Close among them is awaited.
    Watch,
    /// They go nowhere; only the end is awaited.
    Drain,
    /// They are not read (RFC 6455 §7.1.7).
    Stopped,
    /// There are no more.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    Open,
    /// A Close is on its way or there; nothing may follow it (RFC 6455 §5.5.1).
    Closed,
    /// Its write half is shut down.
    Shut,
    Failed,
}

/// A frame of the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ping,
    Close,
}

#[derive(Debug)]
struct Own {
    kind: Kind,
    boundary: Boundary,
    wire: Vec<u8>,
    /// Bytes of `wire` that the sink has taken; `None` while it waits for its place.
    sent: Option<usize>,
}

/// What the relay has to know.
#[derive(Debug)]
pub(super) enum Event {
    /// The source sent a Close, and it went on to the sink (`passed`) or not.
    Close { close: Close, passed: bool },
    /// The source broke a rule. It is read no further; what came before goes on.
    Violation(Violation),
    /// The source has ended.
    Ended(Ended),
    /// The sink takes no more.
    SinkFailed(Ended),
    /// The gateway's ping is on the network.
    PingLeft,
    /// Bytes were moved for long enough; the other direction is next.
    Yield,
}

#[derive(Debug)]
pub(super) struct Pump {
    scanner: Scanner,
    source: Source,
    sink: Sink,
    buffer: Option<Buffer>,
    sent: usize,
    good: usize,
    filled: usize,
    /// Bytes behind `good` that are left out of the stream once all before them is written.
    cut: usize,
    /// The unjudged bytes while no buffer is held.
    carry: Option<Box<[u8]>>,
    own: Option<Box<Own>>,
    /// A Close queued behind a ping that is half written.
    own_next: Option<Box<Own>>,
    /// Something was written since the last flush.
    dirty: bool,
    /// The scanner wants more bytes than there are.
    starved: bool,
    /// The sink takes nothing at the moment, so the source isn't read.
    blocked: bool,
    /// A Close of the source stops here: the sink gets one of the gateway's own.
    hold_close: bool,
    shut_when_written: bool,
    wire_bytes: u64,
    /// The sink has taken something since somebody last looked.
    wrote: bool,
}

impl Pump {
    /// The direction whose frames `scanner` sees.
    pub(super) fn new(scanner: Scanner) -> Self {
        Self {
            scanner,
            source: Source::Relay,
            sink: Sink::Open,
            buffer: None,
            sent: 0,
            good: 0,
            filled: 0,
            cut: 0,
            carry: None,
            own: None,
            own_next: None,
            dirty: false,
            starved: true,
            blocked: false,
            hold_close: false,
            shut_when_written: false,
            wire_bytes: 0,
            wrote: false,
        }
    }

    /// Bytes read from the source so far.
    pub(super) fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }

    pub(super) fn tally(&self) -> Tally {
        self.scanner.tally()
    }

    /// Whether the sink has taken something since this was last asked.
    pub(super) fn take_wrote(&mut self) -> bool {
        std::mem::take(&mut self.wrote)
    }

    /// The sink has room, so the source is read.
    pub(super) fn is_reading(&self) -> bool {
        !self.blocked
    }

    /// Nothing waits for the sink, and nothing is to be said to it but what comes from the source.
    pub(super) fn is_calm(&self) -> bool {
        !self.blocked && self.own.is_none()
    }

    /// What the sink was given ends between two frames.
    pub(super) fn at_frame_boundary(&self) -> bool {
        self.scanner.at(Boundary::Frame)
    }

    /// No Close has been given to the sink, and it can still take one.
    pub(super) fn can_close(&self) -> bool {
        self.sink == Sink::Open && !self.own.iter().chain(&self.own_next).any(|o| o.kind == Kind::Close)
    }

    /// [`Self::send_close`] between two frames would still change something.
    pub(super) fn takes_close(&self) -> bool {
        let waits = |own: &Own| own.kind == Kind::Close && own.boundary == Boundary::Message;
        self.can_close() || self.own.as_deref().is_some_and(waits)
    }

    /// What the source sends goes on to the sink.
    pub(super) fn is_relaying(&self) -> bool {
        self.source == Source::Relay
    }

    /// Everything meant for the sink is on the network.
    pub(super) fn is_written(&self) -> bool {
        self.sink == Sink::Failed
            || (self.sent == self.good && self.own.is_none() && self.own_next.is_none() && !self.dirty)
    }

    /// A Close, passed on or our own, is on the network.
    pub(super) fn close_written(&self) -> bool {
        matches!(self.sink, Sink::Closed | Sink::Shut) && self.is_written()
    }

    /// A Close of the source is next for the sink, and the last.
    pub(super) fn is_answering(&self) -> bool {
        self.sink == Sink::Closed && self.sent < self.good && self.own.is_none()
    }

    /// Something was queued since the last poll that can be written right away.
    pub(super) fn wants_poll(&self) -> bool {
        !self.blocked && self.own_has_place()
    }

    pub(super) fn sink_failed(&self) -> bool {
        self.sink == Sink::Failed
    }

    /// Puts a ping between two frames.
    pub(super) fn send_ping(&mut self, payload: &[u8]) {
        if self.own.is_none() && self.sink == Sink::Open {
            let frame = Frame::new(true, OpCode::Ping, None, Payload::Borrowed(payload));
            self.own = Some(self.own_frame(Kind::Ping, Boundary::Frame, frame));
        }
    }

    /// Puts a Close at the next `boundary`; from there on nothing of the source's goes on, and
    /// only its own Close is awaited. Nothing happens if the sink has a Close already.
    pub(super) fn send_close(&mut self, code: u16, reason: &str, boundary: Boundary) {
        if let Some(own) = self.own.as_mut().filter(|own| own.kind == Kind::Close) {
            if boundary == Boundary::Frame {
                own.boundary = boundary;
            }
            return;
        }
        if !self.can_close() {
            return;
        }
        let own = self.own_frame(Kind::Close, boundary, Frame::close(code, reason.as_bytes()));
        match &self.own {
            Some(ping) if ping.sent.is_some() => self.own_next = Some(own),
            _ => self.own = Some(own), // a ping that has no place yet is not needed any more
        }
    }

    fn own_frame(&self, kind: Kind, boundary: Boundary, mut frame: Frame<'_>) -> Box<Own> {
        if self.scanner.sender() == Sender::Client {
            frame.mask(); // towards the backend the gateway is the client (RFC 6455 §5.1)
        }
        let mut wire = Vec::new();
        let len = frame.write(&mut wire).len();
        wire.truncate(len);
        Box::new(Own { kind, boundary, wire, sent: None })
    }

    /// A Close of the source is noted but not passed on.
    pub(super) fn hold_close(&mut self) {
        self.hold_close = true;
    }

    /// Nothing more of the source's goes on; its Close is still awaited.
    pub(super) fn watch(&mut self) {
        if self.source == Source::Relay {
            self.source = Source::Watch;
        }
    }

    /// Shuts the sink's write half down once everything is written.
    pub(super) fn shut_when_written(&mut self) {
        self.shut_when_written = true;
    }

    /// Moves bytes until nothing moves, or something happens that the relay must know. A buffer that is
    /// needed is taken from `spare`, if there is one, and one that isn't any more is put there. What is read
    /// is taken from `left`, and once that is used up nothing more is read.
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
            if self.sent < self.good || self.cut > 0 || self.own.is_some() {
                match ready!(self.poll_write_all(cx, sink)) {
                    Ok(None) => {}
                    Ok(Some(event)) => return Poll::Ready(event),
                    Err(e) => return Poll::Ready(self.fail_sink(&e)),
                }
            }
            if !self.starved
                && matches!(self.source, Source::Relay | Source::Watch)
                && let Some(event) = self.scan(keepalive)
            {
                return Poll::Ready(event);
            }
            let unwritten = self.sent < self.good || self.cut > 0;
            if unwritten || !self.starved || self.own_has_place() {
                continue;
            }
            if let Some(event) = ready!(self.poll_read(cx, source, sink, spare, left)) {
                return Poll::Ready(event);
            }
        }
        Poll::Ready(Event::Yield)
    }

    /// Writes the good bytes, then our own frame if this is its place.
    fn poll_write_all<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut W,
    ) -> Poll<io::Result<Option<Event>>> {
        if self.sink == Sink::Failed {
            self.sent = self.good;
            self.own = None;
            self.own_next = None;
        }
        while self.sent < self.good {
            let Some(buffer) = &self.buffer else { break };
            let write = Pin::new(&mut *sink).poll_write(cx, &buffer[self.sent..self.good]);
            self.blocked = write.is_pending();
            let n = ready!(write).and_then(not_zero)?;
            self.sent += n;
            self.wrote = true;
            self.dirty = true;
        }
        if self.cut > 0 {
            self.good += self.cut;
            self.sent = self.good;
            self.cut = 0;
        }
        while self.own_has_place() {
            let Some(own) = self.own.as_mut() else { break };
            let sent = own.sent.get_or_insert(0);
            if own.kind == Kind::Close && self.sink == Sink::Open {
                self.sink = Sink::Closed;
                if self.source == Source::Relay {
                    self.source = Source::Watch;
                }
            }
            while *sent < own.wire.len() {
                let write = Pin::new(&mut *sink).poll_write(cx, &own.wire[*sent..]);
                self.blocked = write.is_pending();
                *sent += ready!(write).and_then(not_zero)?;
                self.dirty = true;
            }
            let flush = Pin::new(&mut *sink).poll_flush(cx);
            self.blocked = flush.is_pending();
            ready!(flush)?;
            self.dirty = false;
            let kind = own.kind;
            self.own = self.own_next.take();
            if kind == Kind::Ping {
                return Poll::Ready(Ok(Some(Event::PingLeft)));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Our own frame is next on the wire: begun, or at the boundary it waits for.
    fn own_has_place(&self) -> bool {
        self.sent == self.good
            && self.own.as_ref().is_some_and(|own| own.sent.is_some() || self.scanner.at(own.boundary))
    }

    fn scan(&mut self, keepalive: &mut Keepalive) -> Option<Event> {
        let buffer = self.buffer.as_ref()?;
        let stop_at = self.own.as_ref().filter(|own| own.sent.is_none()).map(|own| own.boundary);
        let (passed, next) = self.scanner.scan(&buffer[self.good..self.filled], stop_at);
        let relayed = self.source == Source::Relay;
        self.good += passed;
        if !relayed {
            self.sent = self.good;
        }
        let control = match next {
            Ok(Next::Need(_)) => {
                self.starved = true;
                return None;
            }
            Ok(Next::Boundary) => return None,
            Ok(Next::Control(control)) => control,
            Err(violation) => {
                self.filled = self.good;
                self.starved = true;
                self.source = if relayed { Source::Stopped } else { Source::Drain };
                return relayed.then_some(Event::Violation(violation));
            }
        };
        let (passed, event) = match control.kind {
            ControlKind::Ping(_) => {
                if relayed && self.scanner.sender() == Sender::Server {
                    keepalive.on_backend_ping();
                }
                (relayed, None)
            }
            ControlKind::Pong(payload) => {
                let client = self.scanner.sender() == Sender::Client;
                let ours = client && keepalive.on_pong(&payload) == Answers::Gateway;
                (relayed && !ours, None)
            }
            ControlKind::Close(close) => {
                let passed = relayed && !self.hold_close;
                self.source = Source::Drain;
                if passed {
                    self.sink = Sink::Closed;
                    self.own = self.own.take().filter(|own| own.sent.is_some());
                }
                (passed, Some(Event::Close { close, passed }))
            }
        };
        if passed {
            self.good += control.frame_len;
        } else if self.sent == self.good {
            self.good += control.frame_len;
            self.sent = self.good;
        } else {
            self.cut = control.frame_len;
        }
        if self.source == Source::Drain {
            self.filled = self.good + self.cut;
            self.starved = true;
        }
        event
    }

    /// Reads once. Before it sleeps it flushes, and gives its buffer back.
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
            if let Some(carry) = self.carry.take() {
                buffer[..carry.len()].copy_from_slice(&carry);
                (self.sent, self.good, self.filled) = (0, 0, carry.len());
            } else if self.good > 0 {
                buffer.copy_within(self.good..self.filled, 0);
                (self.sent, self.good, self.filled) = (0, 0, self.filled - self.good);
            }
            let mut free = ReadBuf::new(&mut buffer[self.filled..]);
            Pin::new(source).poll_read(cx, &mut free).map_ok(|()| free.filled().len())
        };
        match read {
            Poll::Pending => {
                if let Some(buffer) = self.rest() {
                    *spare = Some(buffer);
                }
                if self.dirty && self.sink != Sink::Failed {
                    match Pin::new(&mut *sink).poll_flush(cx) {
                        Poll::Ready(Ok(())) => self.dirty = false,
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
                if self.source == Source::Drain {
                    (self.sent, self.good, self.filled) = (0, 0, 0);
                } else {
                    self.filled += n;
                    self.starved = false;
                }
                Poll::Ready(None)
            }
            Poll::Ready(Err(e)) => Poll::Ready(Some(self.end_source(Ended::from(&e)))),
        }
    }

    /// Gives the buffer away; what can't be judged yet is kept, it is short.
    fn rest(&mut self) -> Option<Buffer> {
        let buffer = self.buffer.take()?;
        let unjudged = &buffer[self.good..self.filled];
        self.carry = (!unjudged.is_empty()).then(|| unjudged.into());
        (self.sent, self.good, self.filled) = (0, 0, 0);
        Some(buffer)
    }

    fn end_source(&mut self, ended: Ended) -> Event {
        self.source = Source::Ended;
        self.filled = self.good;
        drop(self.rest());
        Event::Ended(ended)
    }

    fn fail_sink(&mut self, e: &io::Error) -> Event {
        self.sink = Sink::Failed;
        self.shut_when_written = false;
        self.blocked = false;
        self.watch();
        Event::SinkFailed(Ended::from(e))
    }
}

/// A sink that takes nothing of a non-empty slice never will.
fn not_zero(n: usize) -> io::Result<usize> {
    if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) }
}
