//! The stream that leaves the handshake: records over TCP.

pub(crate) mod frozen;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use net_io::Tcp;
use net_io::memory::Claim;
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::handshake::{Finished, Secrets};
use crate::record::{
    CLOSE_NOTIFY, Cipher, Content, ContentType, Fault, HEADER_LEN, Incoming, KEY_UPDATE, NO_RENEGOTIATION,
    OVERHEAD_MAX, OpenedRecord, PLAINTEXT_MAX, RECORD_MAX, TicketReader, alert,
};

/// Records sealed for one write.
const SEAL_MAX: usize = 16;
/// Bytes of the network's that one thread handles at a time. Nothing of them is kept between
/// polls, so it is enough for all its connections.
const SCRATCH_LEN: usize = ALONG_MAX + SEAL_MAX * (PLAINTEXT_MAX + OVERHEAD_MAX);
/// Slices that are sealed together in one record.
const PIECES_MAX: usize = 16;
/// Bytes of unsent records that go along with the next ones.
const ALONG_MAX: usize = 4096;
/// Room for the records of a stream that gathers what is written: four whole ones, and some short ones.
const GATHERED_LEN: usize = ALONG_MAX + 4 * (PLAINTEXT_MAX + OVERHEAD_MAX);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// A buffer of [`GATHERED_LEN`] that no stream uses: each needs it only until its flush.
    static FREE: Cell<Option<Box<Held>>> = const { Cell::new(None) };
}

/// Lends the thread's scratch space, [`SCRATCH_LEN`] bytes that hold other connections' old traffic.
fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(SCRATCH_LEN, 0); // once
        work(scratch)
    })
}

/// TLS over TCP, the server's end or the client's.
///
/// A clean end of the peer's (close_notify) reads as the end of the stream, a TCP end without
/// it as [`io::ErrorKind::UnexpectedEof`], a broken record as [`io::ErrorKind::InvalidData`].
/// `poll_shutdown` sends close_notify and ends TCP's write half; a drop sends nothing, which tells
/// the peer that something was cut off.
///
/// Records are opened into the reader's buffer and sealed from the writer's; the stream holds bytes
/// only of a record that has not come whole, that the network does not take, or that waits for a flush
/// ([`TlsStream::gather_writes`]).
pub struct TlsStream {
    tcp: Tcp,
    state: TlsState,
}

/// A [`TlsStream`] without its socket. By itself it seals nothing and opens nothing: the same sequence numbers must not
/// be used twice, so of a state and what it was encoded to only one may become a stream again.
pub struct TlsState {
    incoming: Incoming,
    outgoing: Cipher,
    /// What the next keys are made of; TLS 1.2 has no others, and these are its keys. Another process that takes the
    /// connection over makes its ciphers from them.
    secrets: Secrets,
    reading: Reading,
    /// Records that are not opened yet.
    wire: Vec<u8>,
    /// Content that was too long for its reader.
    ahead: Pending,
    /// Records that the network has not taken yet.
    unsent: Pending,
    /// Some of these are the stream's own, or a new key is due: a reader that finds nothing sends them. While it
    /// is not set a reader leaves `unsent` alone, since all of it is the writer's, who has to flush it.
    /// A reader that can't send is woken when it can: "pending" of [`Tcp::poll_send`] means that tokio holds the
    /// task's waker, or has woken it because its budget is spent (tokio's `runtime/io/registration.rs`,
    /// `poll_ready`). tokio holds one waker for each direction (`runtime/io/scheduled_io.rs`, `Waiters`), so the
    /// same task has to read and to write.
    control_pending: bool,
    /// Nothing has been sent since the handshake: its last records, session tickets or a client's Finished, are all
    /// that is unsent. They
    /// may come at any time (RFC 8446 §4.6.1), so a client that has asked for something gets them with the answer,
    /// and a flush has nothing to do until there is one. A new key is due before the next data and no earlier
    /// (§4.6.3); so it may wait for that answer too.
    tickets_pending: bool,
    /// The client has asked for a new key of ours. It is sent when what was unsent has left, or before the next data:
    /// then one answer does for all that were asked for meanwhile, and they don't pile up.
    key_wanted: bool,
    /// Nothing more may be said: close_notify or a fatal alert was the last (RFC 8446 §6.1).
    close_sent: bool,
    /// What is written waits for the shutdown, which has been promised ([`TlsStream::begin_shutdown`]) and sends all.
    parting: bool,
    /// See [`TlsStream::gather_writes`].
    gathers: bool,
}

// Every session over TLS holds one.
const _: () = assert!(size_of::<TlsStream>() <= 360 + RUNTIME_HANDLE);
/// The socket has one: 8 bytes, and 16 in a program that has tokio's multi-thread runtime, too.
const RUNTIME_HANDLE: usize = size_of::<tokio::runtime::Handle>();

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("tcp", &self.tcp)
            .field("reading", &self.state.reading)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    /// The client said that it sends no more.
    Closed,
    /// The client ended the connection, with this alert.
    GivenUp(u8),
    Failed(Fault),
}

/// Bytes that are taken from the front, and hold no memory once they are gone.
#[derive(Debug, Default)]
struct Pending(Option<Box<Held>>);

#[derive(Debug, Default)]
struct Held {
    /// Behind `end` there is room.
    bytes: Vec<u8>,
    taken: usize,
    end: usize,
    /// Nothing is said of a few records of the stream's own.
    held: Claim,
}

impl Pending {
    fn new(bytes: Vec<u8>) -> Self {
        let held =
            |bytes: Vec<u8>| Held { held: Claim::new(bytes.capacity()), end: bytes.len(), bytes, taken: 0 };
        Self((!bytes.is_empty()).then(|| Box::new(held(bytes))))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn left(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |held| &held.bytes[held.taken..held.end])
    }

    fn take(&mut self, n: usize) {
        if let Some(held) = &mut self.0 {
            held.taken += n;
            if held.taken >= held.end
                && let Some(held) = self.0.take()
            {
                held.give_back();
            }
        }
    }

    /// A record more may be gathered, and a new key before it.
    fn has_room(&self) -> bool {
        const NEXT_MAX: usize = PLAINTEXT_MAX + OVERHEAD_MAX + ALONG_MAX / 2;
        self.0.as_ref().is_none_or(|held| held.end + NEXT_MAX <= GATHERED_LEN)
    }

    /// Puts what `fill` writes behind what is there: it gets all of the buffer, of [`GATHERED_LEN`] bytes at least, and
    /// where the free part begins, and says where that begins now.
    fn gather<T>(&mut self, fill: impl FnOnce(&mut [u8], usize) -> (T, usize)) -> T {
        let held = self.0.get_or_insert_with(Held::with_room);
        if held.bytes.len() < GATHERED_LEN {
            held.bytes.resize(GATHERED_LEN, 0); // a few records of the stream's own were there first
        }
        held.held.set(held.bytes.len());
        let filled;
        (filled, held.end) = fill(&mut held.bytes, held.end);
        if held.end == 0 {
            self.0 = None;
        }
        filled
    }
}

impl Held {
    fn with_room() -> Box<Self> {
        let free = FREE.take();
        free.unwrap_or_else(|| Box::new(Self { bytes: vec![0; GATHERED_LEN], ..Self::default() }))
    }

    /// It may be another stream's buffer.
    fn give_back(mut self: Box<Self>) {
        if self.bytes.len() != GATHERED_LEN {
            return;
        }
        (self.taken, self.end) = (0, 0);
        self.held.set(0);
        FREE.set(Some(self));
    }
}

impl TlsStream {
    /// The server's end.
    pub(crate) fn new(tcp: Tcp, finished: Finished) -> Result<Self, rustls::Error> {
        Self::over(tcp, finished, Incoming::new)
    }

    /// The client's end.
    pub(crate) fn of_client(
        tcp: Tcp,
        finished: Finished,
        tickets: TicketReader,
    ) -> Result<Self, rustls::Error> {
        Self::over(tcp, finished, |cipher| Incoming::of_server(cipher, tickets))
    }

    fn over(
        tcp: Tcp,
        finished: Finished,
        incoming: impl FnOnce(Cipher) -> Incoming,
    ) -> Result<Self, rustls::Error> {
        let Finished { suite, keys, secrets, unsent, wire, .. } = finished;
        let state = TlsState {
            incoming: incoming(Cipher::new(suite, keys.rx)?),
            outgoing: Cipher::new(suite, keys.tx)?,
            secrets,
            reading: Reading::Open,
            wire,
            ahead: Pending::default(),
            control_pending: !unsent.is_empty(),
            tickets_pending: true,
            unsent: Pending::new(unsent),
            key_wanted: false,
            close_sent: false,
            parting: false,
            gathers: false,
        };
        Ok(Self { tcp, state })
    }

    /// What is written from now on may wait for a flush, up to 64 KiB of it, and leaves in as few system calls.
    pub fn gather_writes(&mut self) {
        self.state.gathers = true;
    }

    /// Session tickets that come now are kept.
    #[cfg(test)]
    pub(crate) fn keeps_tickets(&self) -> bool {
        self.state.incoming.keeps_tickets()
    }

    /// What is written from now on is little, and followed by a shutdown: up to 4 KiB of it may wait for
    /// that, and leave in one segment with close_notify and TCP's FIN. Until then it counts as flushed.
    pub fn begin_shutdown(&mut self) {
        self.state.parting = true;
    }

    /// See [`Tcp::acknowledged`]: bytes of records.
    #[must_use]
    pub fn acknowledged(&self) -> Option<u64> {
        self.tcp.acknowledged()
    }

    /// Reads from the network, and opens into `content` as many records as fit. Ready as soon as
    /// there is content or an end of it.
    fn poll_open(&mut self, cx: &mut Context<'_>, content: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = content.filled().len();
        with_scratch(|scratch| {
            // What has been read will fit, unless the reader has no room for one whole record.
            let room = content.remaining().max(RECORD_MAX).min(scratch.len());
            loop {
                // Opened where it is, however much the handshake has left.
                let kept = std::mem::take(&mut self.state.wire);
                if self.holds_record(&kept) {
                    let opened = self.open_all(&kept, content);
                    self.state.wire = kept.get(opened..).unwrap_or_default().to_vec();
                } else {
                    // Less than one record: it has room in the scratch space, and so has its rest.
                    let len = kept.len();
                    let mut free = ReadBuf::new(&mut scratch[len..room]);
                    let read = Pin::new(&mut self.tcp).poll_read(cx, &mut free);
                    let filled = len + free.filled().len();
                    if filled > len {
                        scratch[..len].copy_from_slice(&kept);
                        let opened = self.open_all(&scratch[..filled], content);
                        self.state.wire = scratch[opened..filled].to_vec();
                    } else {
                        self.state.wire = kept;
                        match read {
                            Poll::Ready(Ok(())) => {
                                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                            }
                            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                            Poll::Pending => {
                                if self.state.control_pending {
                                    let _ = self.poll_send(cx); // the next write reports a failure
                                }
                                return Poll::Pending;
                            }
                        }
                    }
                }
                if content.filled().len() > start
                    || !self.state.ahead.is_empty()
                    || self.state.reading != Reading::Open
                {
                    return Poll::Ready(Ok(()));
                }
            }
        })
    }

    /// The next record has come whole. (What is no record is for [`Self::open_all`] to judge.)
    fn holds_record(&self, wire: &[u8]) -> bool {
        match self.state.incoming.header(wire) {
            Ok(Some(header)) => header.record_len() <= wire.len(),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Opens what has come whole and has room; says how many bytes of `wire` that was.
    fn open_all(&mut self, wire: &[u8], content: &mut ReadBuf<'_>) -> usize {
        let mut at = 0;
        let mut delivered = false;
        while self.state.reading == Reading::Open {
            match self.open_next(&wire[at..], content, delivered) {
                Ok(None) => return at,
                Ok(Some((len, data))) => {
                    at += len;
                    delivered |= data;
                    if !self.state.ahead.is_empty() {
                        return at;
                    }
                }
                Err(fault) => self.fail(fault),
            }
        }
        wire.len() // what follows an end is ignored (RFC 8446 §6.1)
    }

    /// Opens one record; says how long it was, and whether it was data. `None` if it has not come
    /// whole, or has no room behind what was `delivered`.
    fn open_next(
        &mut self,
        wire: &[u8],
        content: &mut ReadBuf<'_>,
        delivered: bool,
    ) -> Result<Option<(usize, bool)>, Fault> {
        let Some(header) = self.state.incoming.header(wire)? else { return Ok(None) };
        let Some(body) = wire.get(HEADER_LEN..header.record_len()) else { return Ok(None) };
        let opened = if content.remaining() >= body.len() {
            let opened =
                self.state.incoming.open(header, body, content.initialize_unfilled_to(body.len()))?;
            if let OpenedRecord::Data(len) = opened {
                content.advance(len);
            }
            opened
        } else if delivered {
            return Ok(None);
        } else {
            let mut bytes = vec![0; body.len()];
            let opened = self.state.incoming.open(header, body, &mut bytes)?;
            if let OpenedRecord::Data(len) = opened {
                bytes.truncate(len);
                self.state.ahead = Pending::new(bytes);
            }
            opened
        };
        let data = matches!(opened, OpenedRecord::Data(_));
        match opened {
            OpenedRecord::Data(_) => self.state.control_pending &= !self.state.tickets_pending, // a client that has sent a request gets an answer
            OpenedRecord::Quiet => {}
            OpenedRecord::KeyUpdate { requested } => {
                self.state.incoming.renew_key(&mut self.state.secrets.peer)?;
                self.state.key_wanted |= requested;
                self.state.control_pending |= requested;
            }
            OpenedRecord::Renegotiation if self.state.unsent.is_empty() && !self.state.close_sent => {
                self.queue_record(ContentType::Alert, &alert(NO_RENEGOTIATION))?;
            }
            OpenedRecord::Renegotiation => {} // a client that doesn't read needs no answer; behind an end there is none
            OpenedRecord::Closed => self.state.reading = Reading::Closed,
            OpenedRecord::GivenUp(alert) => self.state.reading = Reading::GivenUp(alert),
        }
        Ok(Some((header.record_len(), data)))
    }

    fn fail(&mut self, fault: Fault) {
        self.state.reading = Reading::Failed(fault);
        if !self.state.close_sent {
            let _ = self.queue_record(ContentType::Alert, &alert(fault.alert));
            self.state.close_sent = true; // nothing may follow it
        }
    }

    /// Queues a record of the stream's own.
    fn queue_record(&mut self, content_type: ContentType, content: &[u8]) -> Result<(), Fault> {
        let Held { bytes, end, .. } = &mut **self.state.unsent.0.get_or_insert_default();
        let room = *end + content.len() + OVERHEAD_MAX;
        if bytes.len() < room {
            bytes.resize(room, 0);
        }
        let sealed = self.state.outgoing.seal(content_type, Content::Elsewhere(content), &mut bytes[*end..]);
        *end += sealed.unwrap_or(0);
        if *end == 0 {
            self.state.unsent = Pending::default();
        }
        self.state.control_pending = true;
        sealed.map(|_| ())
    }

    /// Says that the next records are under another key, and takes it (RFC 8446 §4.6.3).
    fn renew_key(&mut self) -> Result<(), Fault> {
        self.queue_record(ContentType::Handshake, &KEY_UPDATE)?;
        self.state.outgoing = self.state.outgoing.successor(&mut self.state.secrets.own)?;
        self.state.key_wanted = false;
        Ok(())
    }

    /// Gives the network what it has not taken yet.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send_with(cx, SendFlags::empty())
    }

    fn poll_send_with(&mut self, cx: &mut Context<'_>, flags: SendFlags) -> Poll<io::Result<()>> {
        loop {
            while !self.state.unsent.is_empty() {
                let n = ready!(self.tcp.poll_send(cx, self.state.unsent.left(), flags))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.state.unsent.take(n);
            }
            if !self.state.key_wanted || self.state.close_sent {
                self.state.control_pending = false;
                self.state.tickets_pending = false;
                return Poll::Ready(Ok(()));
            }
            self.renew_key().map_err(io::Error::other)?;
        }
    }

    /// Takes a new key if the client wants one, or if the old one is used up.
    fn refresh_key(&mut self) -> Result<(), Fault> {
        if self.state.key_wanted || (self.state.outgoing.is_used_up() && self.state.outgoing.is_tls13()) {
            return self.renew_key();
        }
        if !self.state.outgoing.is_used_up() {
            return Ok(());
        }
        // TLS 1.2 has no other key: this connection is over.
        if !self.state.close_sent {
            self.state.close_sent = true;
            self.queue_record(ContentType::Alert, &alert(CLOSE_NOTIFY))?;
        }
        Err(Fault::USED_UP)
    }

    /// Seals the front of `slices` behind `len` bytes that are in `wire` already; says how many
    /// bytes of them, and how long `wire` is now.
    fn seal_all(&mut self, slices: &[io::IoSlice<'_>], wire: &mut [u8], mut len: usize) -> (usize, usize) {
        let mut contents = Contents { slices, skip: 0 };
        let mut content_len = 0;
        while wire.len() - len >= PLAINTEXT_MAX + OVERHEAD_MAX && !self.state.outgoing.is_used_up() {
            let mut pieces = [&[][..]; PIECES_MAX];
            let content = match contents.next(&mut pieces) {
                [] => break,
                [one] => Content::Elsewhere(one),
                several => Content::Copied(several),
            };
            let Ok(n) = self.state.outgoing.seal(ContentType::ApplicationData, content, &mut wire[len..])
            else {
                break;
            };
            len += n;
            content_len += content.len();
        }
        (content_len, len)
    }
}

/// Cuts slices into the contents of records.
struct Contents<'a> {
    slices: &'a [io::IoSlice<'a>],
    /// Bytes of the first that are gone.
    skip: usize,
}

impl<'a> Contents<'a> {
    /// The pieces of the next record; none at the end.
    fn next<'p>(&mut self, pieces: &'p mut [&'a [u8]; PIECES_MAX]) -> &'p [&'a [u8]] {
        let (mut count, mut room) = (0, PLAINTEXT_MAX);
        while let Some((slice, rest)) = self.slices.split_first() {
            let left = &slice[self.skip..];
            let piece = &left[..left.len().min(room)];
            if !piece.is_empty() {
                if count == PIECES_MAX || room == 0 {
                    break;
                }
                pieces[count] = piece;
                count += 1;
                room -= piece.len();
            }
            if piece.len() < left.len() {
                self.skip += piece.len();
                break;
            }
            (self.slices, self.skip) = (rest, 0);
        }
        &pieces[..count]
    }
}

impl AsFd for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        if this.state.ahead.is_empty() && this.state.reading == Reading::Open && buf.remaining() > 0 {
            ready!(this.poll_open(cx, buf))?;
        }
        if !this.state.ahead.is_empty() {
            let n = this.state.ahead.left().len().min(buf.remaining());
            buf.put_slice(&this.state.ahead.left()[..n]);
            this.state.ahead.take(n);
            return Poll::Ready(Ok(()));
        }
        match this.state.reading {
            _ if buf.filled().len() > start => Poll::Ready(Ok(())),
            Reading::Open | Reading::Closed => Poll::Ready(Ok(())),
            Reading::GivenUp(alert) => {
                let what =
                    format!("the {} aborted the connection (TLS alert {alert})", this.state.incoming.peer());
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)))
            }
            Reading::Failed(fault) => {
                let _ = this.poll_send(cx); // the alert
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)))
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if (this.state.tickets_pending && !this.state.control_pending) || this.state.parting {
            return Poll::Ready(Ok(())); // nothing was written yet, or it waits for the shutdown
        }
        this.poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.state.close_sent {
            this.state.close_sent = true;
            let _ = this.queue_record(ContentType::Alert, &alert(CLOSE_NOTIFY)); // RFC 8446 §6.1
        }
        this.state.parting = false;
        // It waits in the kernel for the FIN, and both leave in one segment.
        ready!(this.poll_send_with(cx, SendFlags::MORE))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.state.close_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bufs.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        // Nothing is sealed that has nowhere to go.
        ready!(this.tcp.poll_write_ready(cx))?;
        let is_full = if this.state.gathers {
            !this.state.unsent.has_room()
        } else {
            this.state.unsent.left().len() > ALONG_MAX / 2
        };
        if is_full {
            ready!(this.poll_send(cx))?;
        }
        if let Err(fault) = this.refresh_key() {
            let _ = this.poll_send(cx);
            return Poll::Ready(Err(io::Error::other(fault)));
        }
        if this.state.gathers {
            let mut unsent = std::mem::take(&mut this.state.unsent);
            let content_len = unsent.gather(|wire, end| this.seal_all(bufs, wire, end));
            this.state.unsent = unsent;
            this.state.parting &= this.state.unsent.left().len() <= ALONG_MAX;
            this.state.tickets_pending = false;
            return Poll::Ready(Ok(content_len));
        }
        with_scratch(|wire| {
            let start = this.state.unsent.left().len();
            wire[..start].copy_from_slice(this.state.unsent.left());
            let (content_len, len) = this.seal_all(bufs, wire, start);
            this.state.parting &= len <= ALONG_MAX;
            if this.state.parting {
                this.state.unsent = Pending::new(wire[..len].to_vec());
                return Poll::Ready(Ok(content_len));
            }
            let sent = match this.tcp.try_send(&wire[..len], SendFlags::empty()) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                sent => sent?,
            };
            this.state.unsent = Pending::new(wire[sent..len].to_vec());
            this.state.control_pending &= !this.state.unsent.is_empty();
            this.state.tickets_pending = false;
            Poll::Ready(Ok(content_len))
        })
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
