//! A client's stream that compresses and inflates (permessage-deflate, RFC 7692), so that what is at its other end need not.
//!
//! In: the stream of a client with which compression was agreed upon. Out: the same messages as if it had not been. To a session
//! it is a stream like any other; one without compression hasn't got it.
//!
//! Nothing is gathered to be a whole message: what comes of a compressed one goes on as fragments of at most
//! [`PART_LEN`](reading::PART_LEN) bytes, and what is sent to the client is compressed in such parts. So a message takes no more
//! memory the longer it is; how long it may be is for the session to say, which sees it as it is when it is inflated.
//!
//! What breaks the rules of compression comes out as an error that has a [`Violation`](crate::violation::Violation) inside.

mod counts;
mod reading;
mod writing;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use net_io::memory::Claim;
use net_io::state::{StateError, StateReader, StateWriter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::counts::Counted;
pub use self::counts::{DeflatedCounts, WayCounts};
use self::reading::Reading;
use self::writing::Writing;
use crate::client::{ClientStream, OnWire};
use crate::deflate::{Budget, Codec, Share};

/// What a session with compression has besides its streams.
#[derive(Debug)]
pub struct Deflating {
    reading: Reading,
    writing: Writing,
    history_max: usize,
    _share: Option<Share>,
    /// Of all that waits, and of the inflater of a message in progress.
    held: Claim,
    counted: Option<Counted>,
}

impl Deflating {
    /// Of a client that has sent nothing yet, and was sent nothing. `history_max` is that of the codec's deflater.
    #[must_use]
    pub fn new(codec: Codec, history_max: usize) -> Box<Self> {
        let Codec { inflater, deflater, share } = codec;
        let (reading, writing) = (Reading::new(inflater), Writing::new(deflater));
        Box::new(Self { reading, writing, history_max, _share: share, held: Claim::default(), counted: None })
    }

    /// It is one of the sessions that are counted there, until it is dropped. For the thread that counts there.
    pub fn count_in(&mut self, counts: Arc<DeflatedCounts>) {
        self.counted = Some(Counted::new(counts));
    }

    /// It can be written down: no compressed message of the client's is in progress.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.reading.is_still()
    }

    /// Writes what [`Self::read_state`] reads. Only what [`Self::is_still`] can be.
    pub fn write_state(&self, out: &mut StateWriter) {
        let Self {
            reading,
            writing,
            history_max,
            _share: _,  // of this process
            held: _,    // counted again there
            counted: _, // of this process
        } = self;
        out.section(|out| {
            out.u32(u32::try_from(*history_max).unwrap_or(u32::MAX));
            reading.write_state(out);
            writing.write_state(out);
            let OnWire { from_client, to_client } = self.on_wire();
            out.u64(from_client);
            out.u64(to_client);
        });
    }

    /// Goes on where another process left off. What it keeps is of `budget`, even if there is not so much left: both ends have
    /// agreed upon it.
    ///
    /// # Errors
    /// If it is not what [`Self::write_state`] writes.
    pub fn read_state(fields: &mut StateReader<'_>, budget: &Budget) -> Result<Box<Self>, StateError> {
        let mut fields = fields.section()?;
        let history_max = usize::try_from(fields.u32()?).unwrap_or(usize::MAX);
        let mut reading = Reading::read_state(&mut fields)?;
        let mut writing = Writing::read_state(&mut fields, history_max)?;
        if !fields.is_at_end() {
            (reading.wire_bytes, writing.wire_bytes) = (fields.count()?, fields.count()?);
        }
        let share = budget.share_of_old(reading.kept_len() + writing.kept_len(history_max));
        let held = Claim::default();
        Ok(Box::new(Self { reading, writing, history_max, _share: Some(share), held, counted: None }))
    }

    fn on_wire(&self) -> OnWire {
        OnWire { from_client: self.reading.wire_bytes, to_client: self.writing.wire_bytes }
    }

    fn count(&mut self) {
        self.held.set(self.reading.memory() + self.writing.memory());
        if let Some(counted) = &self.counted {
            counted.count(&mut self.reading.passed, &mut self.writing.passed);
        }
    }
}

/// A client's stream with compression.
#[derive(Debug)]
pub struct Deflated<C> {
    client: C,
    deflating: Box<Deflating>,
}

impl<C> Deflated<C> {
    /// `client` is the stream below.
    pub fn new(client: C, deflating: Box<Deflating>) -> Self {
        Self { client, deflating }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &C {
        &self.client
    }

    /// Both.
    pub fn into_parts(self) -> (C, Box<Deflating>) {
        (self.client, self.deflating)
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Deflated<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { client, deflating } = self.get_mut();
        let read = deflating.reading.poll_read(client, cx, buf);
        deflating.count();
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Deflated<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { client, deflating } = self.get_mut();
        let written = deflating.writing.poll_write(client, cx, buf);
        deflating.count();
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { client, deflating } = self.get_mut();
        let drained = deflating.writing.poll_drain(client, cx);
        deflating.count();
        ready!(drained)?;
        Pin::new(client).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { client, deflating } = self.get_mut();
        ready!(deflating.writing.poll_drain(client, cx))?;
        Pin::new(client).poll_shutdown(cx)
    }
}

impl<C: ClientStream> ClientStream for Deflated<C> {
    fn begin_shutdown(&mut self) {
        self.client.begin_shutdown();
    }

    fn acknowledged(&self) -> Option<u64> {
        self.client.acknowledged()
    }

    fn is_paused(&self) -> bool {
        self.client.is_paused()
    }

    fn is_still(&self) -> bool {
        self.deflating.is_still() && self.client.is_still()
    }

    fn holds_message(&self) -> Option<bool> {
        Some(self.deflating.reading.memory() > 0)
    }

    fn on_wire(&self) -> Option<OnWire> {
        Some(self.deflating.on_wire())
    }
}

#[cfg(test)]
mod tests;
