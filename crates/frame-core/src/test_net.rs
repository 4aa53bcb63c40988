//! Streams that are driven by a seed: they give and take in parts, stall and break, and keep a waker only while they
//! have nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::client::ClientStream;

/// Steele and others' splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn millis(&mut self, end: usize) -> Duration {
        Duration::from_millis(self.below(end) as u64)
    }
}

/// The session's task, as the run queue sees it.
#[derive(Default)]
pub(crate) struct Task(pub(crate) AtomicBool);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection as the network has it.
pub(crate) struct Net {
    pub(crate) incoming: VecDeque<u8>,
    /// What comes behind `incoming`.
    pub(crate) end: Option<Option<io::ErrorKind>>,
    pub(crate) reader: Option<Waker>,
    pub(crate) out: Vec<u8>,
    pub(crate) room: usize,
    pub(crate) refuses: bool,
    pub(crate) writer: Option<Waker>,
    pub(crate) shut: bool,
    pub(crate) random: Random,
}

impl Net {
    /// One that takes so many bytes before they are asked for; `world` is the seed of what it does.
    pub(crate) fn new(room: usize, world: u64) -> Self {
        Self {
            incoming: VecDeque::new(),
            end: None,
            reader: None,
            out: Vec::new(),
            room,
            refuses: false,
            writer: None,
            shut: false,
            random: Random(world),
        }
    }
}

/// The relay's end of it.
pub(crate) struct Stream {
    pub(crate) net: Rc<RefCell<Net>>,
    /// Operations that are left to this turn, for both streams.
    pub(crate) budget: Rc<Cell<u32>>,
}

impl Stream {
    /// As tokio's: who has used its budget up is woken again, and registered nowhere.
    fn proceed(&self, cx: &Context<'_>) -> Poll<()> {
        match self.budget.get().checked_sub(1) {
            Some(left) => {
                self.budget.set(left);
                Poll::Ready(())
            }
            None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl ClientStream for Stream {}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.proceed(cx));
        let net = &mut *self.net.borrow_mut();
        if net.incoming.is_empty() {
            return match net.end {
                Some(None) => Poll::Ready(Ok(())),
                Some(Some(kind)) => Poll::Ready(Err(kind.into())),
                None => {
                    net.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let most = net.incoming.len().min(buf.remaining());
        let n = if net.random.one_in(3) { 1 + net.random.below(most) } else { most };
        net.incoming.drain(..n).for_each(|byte| buf.put_slice(&[byte]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.proceed(cx));
        let net = &mut *self.net.borrow_mut();
        if net.refuses {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let most = net.room.min(buf.len());
        if most == 0 {
            net.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = if net.random.one_in(3) { 1 + net.random.below(most) } else { most };
        net.out.extend_from_slice(&buf[..n]);
        net.room -= n;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.borrow_mut().shut = true;
        Poll::Ready(Ok(()))
    }
}
