//! Frames on their way to a client, one behind the other.

use std::cell::Cell;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use net_io::state::{StateError, StateReader, StateWriter};
use tokio::io::AsyncWrite;

use super::shared_frame::SharedFrame;
use crate::close::Close;
use crate::head::{OpCode, frame_head};

/// Queued bytes above which [`Endpoint::send`](super::Endpoint::send) waits for the client to take some.
pub(super) const OUTBOX_LEN: usize = 64 * 1024;
/// Payloads up to this length are copied behind one another; longer ones leave as they are.
pub(super) const COPY_MAX: usize = 4096;

thread_local! {
    /// A buffer that no outbox uses: most are empty again when the next one is filled.
    static FREE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What is queued. It holds no memory while there is nothing.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Frames one behind the other; if there is a `long` payload, its head is the last of them.
    pub(super) bytes: Vec<u8>,
    sent: usize,
    long: Option<Bytes>,
    dirty: bool,
    /// The client took something since this was last asked.
    pub(super) progress: bool,
    /// Bytes that the client took of this process.
    pub(super) taken: u64,
}

impl Outbox {
    /// The next frame has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.long.is_some() || self.bytes.len() - self.sent >= OUTBOX_LEN
    }

    /// Bytes that are queued.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.long.as_ref().map_or(0, Bytes::len)
    }

    pub(super) fn take_progress(&mut self) -> bool {
        mem::take(&mut self.progress)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.long.is_none() && self.bytes.is_empty() && !self.dirty
    }

    /// The caller waits while the outbox is full; only short control frames may come on top.
    pub(super) fn push(&mut self, opcode: OpCode, payload: BytesMut) {
        let (head, head_len) = frame_head(true, opcode, None, &payload);
        if payload.len() <= COPY_MAX {
            self.append(&head[..head_len], &payload);
        } else {
            self.push_long(&head[..head_len], payload.freeze());
        }
    }

    /// The same for a frame that others are sent, too: a long payload is not copied.
    pub(super) fn push_shared(&mut self, frame: &SharedFrame) {
        if frame.payload().len() <= COPY_MAX {
            self.append(frame.head(), frame.payload());
        } else {
            self.push_long(frame.head(), frame.payload().clone());
        }
    }

    pub(super) fn push_close(&mut self, close: &Close) {
        let mut payload = BytesMut::new();
        if let Some(code) = close.code {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(close.reason.as_bytes());
        }
        self.push(OpCode::Close, payload);
    }

    fn append(&mut self, head: &[u8], payload: &[u8]) {
        if let Some(long) = self.long.take() {
            // Behind a long payload on its way: append to it. Rare, and bounded by one frame.
            let mut whole = Vec::from(long);
            whole.extend_from_slice(head);
            whole.extend_from_slice(payload);
            self.long = Some(whole.into());
            return;
        }
        let bytes = self.room();
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(payload);
    }

    fn push_long(&mut self, head: &[u8], payload: Bytes) {
        if self.long.is_some() {
            return self.append(head, &payload);
        }
        self.room().extend_from_slice(head);
        self.long = Some(payload);
    }

    fn room(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = FREE.take();
        }
        &mut self.bytes
    }

    /// All has left.
    fn give_back(&mut self) {
        let mut bytes = mem::take(&mut self.bytes);
        self.sent = 0;
        bytes.clear();
        if bytes.capacity() <= 2 * OUTBOX_LEN {
            FREE.set(bytes);
        }
    }

    pub(super) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            self.sent += ready!(self.poll_write(io, cx, true))?;
        }
        if !self.bytes.is_empty() {
            self.give_back();
        }
        while self.long.as_ref().is_some_and(|long| !long.is_empty()) {
            let n = ready!(self.poll_write(io, cx, false))?;
            if let Some(long) = &mut self.long {
                let _ = long.split_to(n);
            }
        }
        self.long = None;
        if self.dirty {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        short: bool,
    ) -> Poll<io::Result<usize>> {
        let wire = match &self.long {
            Some(long) if !short => &long[..],
            _ => &self.bytes[self.sent..],
        };
        let n = ready!(Pin::new(io).poll_write(cx, wire))?;
        self.dirty = true;
        self.progress = true;
        self.taken += n as u64;
        Poll::Ready(if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) })
    }

    /// Writes what [`Self::read_state`] reads.
    pub(super) fn write_state(&self, out: &mut StateWriter) {
        let Self { bytes, sent, long, dirty, progress, taken: _ } = self; // of this process
        out.section(|out| {
            out.bytes(&bytes[*sent..]);
            out.option(long.as_deref(), StateWriter::bytes);
            out.bool(*dirty);
            out.bool(*progress);
        });
    }

    /// Frames that another process had queued.
    pub(super) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        Ok(Self {
            bytes: fields.bytes()?.to_vec(),
            sent: 0,
            long: fields.option(StateReader::bytes)?.map(Bytes::copy_from_slice),
            dirty: fields.bool()?,
            progress: fields.bool()?,
            taken: 0,
        })
    }
}
