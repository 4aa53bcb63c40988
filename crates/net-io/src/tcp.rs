//! Stream sockets by the shortest way: no system call that can only say "nothing yet", and no more than a look at
//! what the runtime knows where nothing has happened. They are TCP's, and Unix sockets, which differ in nothing here.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker, ready};

use nix::sys::socket::GetSockOpt;
use nix::{getsockopt_impl, libc, sockopt_impl};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::coop::{has_budget_remaining, poll_proceed};

use crate::sweep;

/// The front of `struct tcp_info` (linux/tcp.h), which has only ever grown at its end: 8 bytes, 24 words of 4, three
/// of 8. Linux has this much of it since 4.1.
type TcpInfo = [u64; 16];
/// Where `tcpi_bytes_acked` is in it.
const BYTES_ACKED: usize = 15;

sockopt_impl!(
    /// What the kernel knows of a connection.
    Info, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfo);

/// A stream socket of tokio's that costs less.
#[derive(Debug)]
pub struct Socket<S> {
    io: S,
    /// Who is woken when there is something to read; `None`: it has been woken, or no task waits.
    reader: Option<RegisteredWaker>,
}

/// A [`TcpStream`] that costs less.
pub type Tcp = Socket<TcpStream>;

/// A [`UnixStream`] that costs less.
pub type Unix = Socket<UnixStream>;

/// What a [`Socket`] needs of tokio's sockets, which have these methods each for itself.
pub trait TokioStream: AsyncRead + AsyncWrite + AsFd + Unpin {
    /// Does `work` if the runtime thinks that the socket is ready ([`TcpStream::try_io`]).
    fn try_io<R>(&self, interest: Interest, work: impl FnOnce() -> io::Result<R>) -> io::Result<R>;
    /// Ready when there may be something to read ([`TcpStream::poll_read_ready`]).
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ready when something may be taken ([`TcpStream::poll_write_ready`]).
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

macro_rules! tokio_stream {
    ($stream:ty) => {
        impl TokioStream for $stream {
            #[inline]
            fn try_io<R>(&self, interest: Interest, work: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
                <$stream>::try_io(self, interest, work)
            }

            #[inline]
            fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$stream>::poll_read_ready(self, cx)
            }

            #[inline]
            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$stream>::poll_write_ready(self, cx)
            }
        }
    };
}

tokio_stream!(TcpStream);
tokio_stream!(UnixStream);

/// A task, as long as the runtime holds a waker of it: until there is something to read, when it takes the
/// waker and says so to [`TcpStream::try_io`] (tokio's `runtime/io/scheduled_io.rs`, `wake` and
/// `poll_readiness`). So its memory is not another task's meanwhile.
/// That takes a runtime whose tasks run on the thread of its driver. On another the driver says that there is something,
/// the task reads it and leaves its waker for what comes next, and only then the driver takes the waker: so there a
/// reader registers whenever it waits.
#[derive(Debug, PartialEq, Eq)]
struct RegisteredWaker {
    data: usize,
    vtable: NonZeroUsize,
}

impl RegisteredWaker {
    /// A task that should have been woken: a second look has found what it waits for. (No vtable is there.)
    const SUSPECT: Self = Self { data: 0, vtable: NonZeroUsize::MIN };
    /// Never known: tasks run on other threads than the driver. It stays. (In place of a flag, which each idle session
    /// would hold.)
    const UNKNOWN: Self = Self { data: 1, vtable: NonZeroUsize::MIN };

    fn of(waker: &Waker) -> Self {
        Self { data: waker.data().addr(), vtable: NonNull::from_ref(waker.vtable()).addr() }
    }
}

/// To be called in the runtime of the socket.
impl<S> From<S> for Socket<S> {
    fn from(io: S) -> Self {
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        let is_on_its_thread = matches!(flavor, Ok(RuntimeFlavor::CurrentThread));
        Self { io, reader: (!is_on_its_thread).then_some(RegisteredWaker::UNKNOWN) }
    }
}

impl<S: AsFd> AsFd for Socket<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl Tcp {
    /// Takes the socket out of this runtime. Nothing is read from it, and it stays non-blocking.
    ///
    /// # Errors
    /// If the runtime's poller refuses to let go of it; the socket is closed then.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        let Self { io, reader: _ } = self; // the runtime wakes its task no more
        io.into_std()
    }

    /// Puts a non-blocking socket into the runtime that this is called in.
    ///
    /// # Errors
    /// If the runtime's poller does not take it.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn from_std(socket: std::net::TcpStream) -> io::Result<Self> {
        TcpStream::from_std(socket).map(Self::from)
    }

    /// How many bytes of ours the peer's machine has acknowledged so far (RFC 4898, `tcpEStatsAppHCThruOctetsAcked`).
    /// They may still wait there for the peer. A system call.
    #[must_use]
    pub fn acknowledged(&self) -> Option<u64> {
        Info.get(&self.io).ok().map(|info| info[BYTES_ACKED])
    }
}

impl Unix {
    /// Takes the socket out of this runtime. Nothing is read from it, and it stays non-blocking.
    ///
    /// # Errors
    /// If the runtime's poller refuses to let go of it; the socket is closed then.
    pub fn into_std(self) -> io::Result<std::os::unix::net::UnixStream> {
        let Self { io, reader: _ } = self; // the runtime wakes its task no more
        io.into_std()
    }

    /// Puts a non-blocking socket into the runtime that this is called in.
    ///
    /// # Errors
    /// If the runtime's poller does not take it.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn from_std(socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        UnixStream::from_std(socket).map(Self::from)
    }
}

impl<S: TokioStream> Socket<S> {
    /// Ready when the network seems to take something: the runtime was told so, and since then no call has found
    /// it full, or has been taken in part ([`Self::try_all`]), which alone makes `try_io` refuse (tokio's
    /// `runtime/io/registration.rs`, `try_io` and `clear_readiness`). It may be wrong; then sending says so.
    #[inline]
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.io.try_io(Interest::WRITABLE, || Ok(())) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => self.io.poll_write_ready(cx),
        }
    }

    /// Sends the front of `bytes`, and says how many that were.
    #[inline]
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8], flags: SendFlags) -> Poll<io::Result<usize>> {
        loop {
            match self.try_send(bytes, flags) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.io.poll_write_ready(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }

    /// The same at once or not at all ([`io::ErrorKind::WouldBlock`]).
    #[inline]
    pub fn try_send(&self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        self.try_all(Interest::WRITABLE, bytes.len(), || {
            Ok(send(&self.io, bytes, flags | SendFlags::NOSIGNAL)?)
        })
    }

    fn note_reader(&mut self, reader: Option<RegisteredWaker>) {
        if self.reader != Some(RegisteredWaker::UNKNOWN) {
            self.reader = reader;
        }
    }

    /// The socket holds bytes, or an end, whatever the runtime knows of it.
    fn holds_something(&self) -> bool {
        let mut fds = [PollFd::new(&self.io, PollFlags::IN | PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Is polled by [`sweep::looking`] for a reader that waits to be woken. `None`: read as usual.
    fn look_again(&mut self, buf: &mut ReadBuf<'_>) -> Option<Poll<io::Result<()>>> {
        if self.io.try_io(Interest::READABLE, || Ok(())).is_ok() {
            return None; // the runtime knows: this very poll may be the wake-up
        }
        if !self.holds_something() {
            return Some(Poll::Pending);
        }
        if self.reader.replace(RegisteredWaker::SUSPECT) != Some(RegisteredWaker::SUSPECT) {
            return Some(Poll::Pending); // the runtime may be about to learn of it
        }
        sweep::found();
        self.reader = None;
        match recv(&self.io, buf.initialize_unfilled(), RecvFlags::empty()) {
            Ok((_, read)) => buf.advance(read),
            Err(_) => return None,
        }
        Some(Poll::Ready(Ok(())))
    }

    /// Does `work` on up to `len` bytes and says on how many. After fewer the socket has no more, or takes no
    /// more, and the runtime is told so: else another call would have to find it out.
    fn try_all(
        &self,
        interest: Interest,
        len: usize,
        work: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut done = 0;
        let result = self.io.try_io(interest, || {
            done = work()?;
            if (1..len).contains(&done) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match result {
            Err(e) if done == 0 => Err(e),
            _ => Ok(done),
        }
    }
}

impl<S: TokioStream> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.initialized().len() < buf.capacity() {
            // A part of the memory is uninitialised; only tokio may read into it.
            this.note_reader(None);
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        if sweep::is_looking()
            && this
                .reader
                .as_ref()
                .is_some_and(|who| [RegisteredWaker::of(cx.waker()), RegisteredWaker::SUSPECT].contains(who))
            && let Some(looked) = this.look_again(buf)
        {
            return looked;
        }
        loop {
            if this.io.try_io(Interest::READABLE, || Ok(())).is_err() {
                let who = RegisteredWaker::of(cx.waker());
                if this.reader.as_ref() == Some(&who) {
                    return Poll::Pending;
                }
                this.note_reader(None);
                // With a budget, "pending" means that the waker was registered (tokio's
                // `runtime/io/registration.rs`, `poll_ready`); without one it only says that this task has had
                // its share, and must not be taken for that.
                if !has_budget_remaining() {
                    let _ = ready!(poll_proceed(cx));
                }
                if this.io.poll_read_ready(cx)?.is_pending() {
                    this.note_reader(Some(who));
                    return Poll::Pending;
                }
            }
            let turn = ready!(poll_proceed(cx));
            this.note_reader(None);
            let free = buf.initialize_unfilled();
            let len = free.len();
            match this.try_all(Interest::READABLE, len, || Ok(recv(&this.io, free, RecvFlags::empty())?.0)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
                Ok(read) => {
                    turn.made_progress();
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: TokioStream> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, buf, SendFlags::empty())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the kernel has it
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    async fn pair() -> (Tcp, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0.into(), far)
    }

    /// Reads once into memory of either kind; `None` if there is nothing yet.
    fn read_now<S: TokioStream>(
        tcp: &mut Socket<S>,
        cx: &mut Context<'_>,
        is_initialized: bool,
    ) -> Option<usize> {
        let (mut bytes, mut memory) = ([0; 16], [std::mem::MaybeUninit::uninit(); 16]);
        let mut buf = if is_initialized { ReadBuf::new(&mut bytes) } else { ReadBuf::uninit(&mut memory) };
        match Pin::new(tcp).poll_read(cx, &mut buf) {
            Poll::Ready(result) => Some(result.map(|()| buf.filled().len()).unwrap()),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_unix_socket_wakes_its_reader_waits_for_room_and_is_looked_at() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut near = Unix::from(near);
        let reading = tokio::spawn(async move {
            let mut four = [0; 4];
            near.read_exact(&mut four).await.unwrap();
            (near, four)
        });
        far.write_all(b"ping").await.unwrap();
        let (mut near, four) = timeout(Duration::from_secs(10), reading).await.unwrap().unwrap();
        assert_eq!(&four, b"ping");
        let sending = tokio::spawn(async move {
            near.write_all(&[7; 1 << 20]).await.unwrap();
            near
        });
        let mut all = vec![0; 1 << 20];
        far.read_exact(&mut all).await.unwrap();
        assert!(all.iter().all(|byte| *byte == 7));
        let mut near = sending.await.unwrap();
        let mut far = far.into_std().unwrap();
        std::future::poll_fn(|cx| {
            let mut look =
                |near: &mut Unix| (sweep::looking(|| read_now(near, cx, true)), sweep::take_found());
            assert_eq!(look(&mut near), (None, 0)); // registers
            std::io::Write::write_all(&mut far, b"late").unwrap();
            assert_eq!(look(&mut near), (None, 0)); // the runtime may be about to learn of it
            assert_eq!(look(&mut near), (Some(4), 1));
            Poll::Ready(())
        })
        .await;
        drop(far);
        assert_eq!(near.read(&mut [0; 4]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn bytes_come_in_order_and_then_the_end() {
        let (mut near, mut far) = pair().await;
        far.write_all(b"0123456789").await.unwrap();
        drop(far);
        let mut four = [0; 4];
        near.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"0123");
        let mut rest = Vec::new();
        near.read_buf(&mut rest).await.unwrap(); // memory as it comes
        assert_eq!(rest, b"456789");
        assert_eq!(near.read(&mut four).await.unwrap(), 0);
        assert_eq!(near.read(&mut four).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_last_caller_is_woken_into_memory_of_any_kind() {
        for kinds in [[true, true], [true, false], [false, true]] {
            let (mut near, mut far) = pair().await;
            std::future::poll_fn(|cx| {
                assert_eq!(read_now(&mut near, cx, kinds[0]), None);
                assert_eq!(read_now(&mut near, cx, kinds[0]), None);
                Poll::Ready(())
            })
            .await;
            let (asked, has_asked) = tokio::sync::oneshot::channel();
            let reading = tokio::spawn(async move {
                let mut asked = Some(asked);
                std::future::poll_fn(|cx| {
                    let read = read_now(&mut near, cx, kinds[1]);
                    asked.take().map(|asked| asked.send(()));
                    read.map_or(Poll::Pending, Poll::Ready)
                })
                .await
            });
            has_asked.await.unwrap();
            far.write_all(b"ping").await.unwrap();
            assert_eq!(timeout(Duration::from_secs(10), reading).await.unwrap().unwrap(), 4);
        }
    }

    #[tokio::test]
    async fn a_reader_that_has_used_up_its_budget_is_still_woken() {
        let (mut near, mut far) = pair().await;
        far.write_all(b"first").await.unwrap();
        let (asked, has_asked) = tokio::sync::oneshot::channel();
        let reading = tokio::spawn(async move {
            let mut asked = Some(asked);
            let mut has_read = false;
            std::future::poll_fn(|cx| {
                let read = read_now(&mut near, cx, true);
                match read {
                    Some(len) if has_read => return Poll::Ready(len),
                    None if has_read => asked.take().map_or((), |asked| asked.send(()).unwrap()),
                    None => return Poll::Pending,
                    // The socket has no more, and the runtime knows it; then there is no budget left.
                    Some(_) => {
                        has_read = true;
                        while has_budget_remaining() {
                            let Poll::Ready(proceed) = poll_proceed(cx) else { break };
                            proceed.made_progress();
                        }
                        assert_eq!(read_now(&mut near, cx, true), None);
                    }
                }
                Poll::Pending // it is polled again only when it is woken
            })
            .await
        });
        has_asked.await.unwrap();
        far.write_all(b"ping").await.unwrap();
        assert_eq!(timeout(Duration::from_secs(10), reading).await.unwrap().unwrap(), 4);
    }

    #[test]
    fn a_socket_goes_from_one_runtime_to_another_and_loses_nothing() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (first, second) = (runtime(), runtime());
        let (socket, mut far) = first.block_on(async {
            let (mut near, mut far) = pair().await;
            far.write_all(b"one").await.unwrap();
            near.read_exact(&mut [0; 3]).await.unwrap();
            std::future::poll_fn(|cx| {
                assert_eq!(read_now(&mut near, cx, true), None);
                Poll::Ready(())
            })
            .await;
            far.write_all(b"two").await.unwrap();
            (near.into_std().unwrap(), far.into_std().unwrap())
        });
        drop(first);
        second.block_on(async {
            let mut near = Tcp::from_std(socket).unwrap();
            std::io::Write::write_all(&mut far, b"three").unwrap();
            let mut got = [0; 8];
            timeout(Duration::from_secs(10), near.read_exact(&mut got)).await.unwrap().unwrap();
            assert_eq!(&got, b"twothree");
            near.write_all(b"back").await.unwrap();
        });
        far.set_nonblocking(false).unwrap();
        let mut back = [0; 4];
        std::io::Read::read_exact(&mut far, &mut back).unwrap();
        assert_eq!(&back, b"back");
    }

    /// Notes that it was woken.
    #[derive(Default)]
    struct Woken(Notify);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.notify_one();
        }
    }

    #[tokio::test]
    async fn where_the_driver_may_have_another_thread_a_reader_registers_each_time() {
        let (near, mut far) = pair().await;
        let mut near = std::thread::spawn(|| Tcp::from(near.io)).join().unwrap(); // outside of the runtime
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        assert_eq!(read_now(&mut near, &mut cx, true), None);
        // The driver may take the waker for what has been read by now. Here another waker takes its place.
        assert!(near.io.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(read_now(&mut near, &mut cx, true), None);
        far.write_all(b"ping").await.unwrap();
        timeout(Duration::from_secs(10), woken.0.notified()).await.unwrap();
        assert_eq!(read_now(&mut near, &mut cx, true), Some(4));
    }

    #[tokio::test]
    async fn a_unix_socket_leaves_the_runtime_and_comes_back() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"kept").await.unwrap();
        let mut near = Unix::from_std(Unix::from(near).into_std().unwrap()).unwrap();
        let mut got = [0; 4];
        timeout(Duration::from_secs(10), near.read_exact(&mut got)).await.unwrap().unwrap();
        assert_eq!(&got, b"kept");
    }

    /// Waits until the kernel has something to read. The runtime doesn't learn of it meanwhile: its driver has no
    /// turn.
    fn block_until_held(tcp: &Tcp) {
        while !tcp.holds_something() {
            std::thread::yield_now();
        }
    }

    /// Bytes of which the runtime never learns are a delay: the second look finds them.
    #[tokio::test]
    async fn bytes_without_a_wake_up_are_found_by_the_second_look() {
        let (mut near, far) = pair().await;
        let mut far = far.into_std().unwrap();
        std::future::poll_fn(|cx| {
            let mut look =
                |near: &mut Tcp| (sweep::looking(|| read_now(near, cx, true)), sweep::take_found());
            assert_eq!(look(&mut near), (None, 0)); // registers
            assert_eq!(look(&mut near), (None, 0)); // nothing is there
            std::io::Write::write_all(&mut far, b"ping").unwrap();
            block_until_held(&near);
            assert_eq!(look(&mut near), (None, 0)); // the runtime may be about to learn of it
            assert_eq!(look(&mut near), (Some(4), 1));
            assert_eq!(look(&mut near), (None, 0));
            Poll::Ready(())
        })
        .await;
    }

    /// A wake-up that comes together with a look is not taken for a late one, nor lost.
    #[tokio::test]
    async fn a_look_that_is_also_the_wake_up_reads() {
        let (mut near, mut far) = pair().await;
        let mut polls = 0;
        let (asked, has_asked) = tokio::sync::oneshot::channel();
        let reading = tokio::spawn(async move {
            let mut asked = Some(asked);
            std::future::poll_fn(|cx| {
                polls += 1;
                let read = if polls == 1 {
                    read_now(&mut near, cx, true)
                } else {
                    sweep::looking(|| read_now(&mut near, cx, true))
                };
                if let Some(asked) = asked.take() {
                    asked.send(()).unwrap();
                }
                read.map_or(Poll::Pending, Poll::Ready)
            })
            .await
        });
        has_asked.await.unwrap();
        far.write_all(b"ping").await.unwrap();
        assert_eq!(timeout(Duration::from_secs(10), reading).await.unwrap().unwrap(), 4);
        assert_eq!(sweep::take_found(), 0);
    }

    #[tokio::test]
    async fn what_the_peer_has_not_read_is_acknowledged_as_far_as_it_has_room() {
        let (mut near, mut far) = pair().await;
        let acknowledged = near.acknowledged().unwrap();
        near.write_all(b"hello").await.unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
        // The acknowledgement has no time to come later than something to read.
        far.write_all(b"!").await.unwrap();
        near.read_exact(&mut [0; 1]).await.unwrap();
        assert_eq!(near.acknowledged().unwrap(), acknowledged + 5);
        // Without a reader it stands still, however much is sent.
        let sent = std::future::poll_fn(|cx| {
            let mut sent = 0;
            while let Poll::Ready(more) = near.poll_send(cx, &[0; 65_536], SendFlags::empty()) {
                sent += more.unwrap() as u64;
            }
            Poll::Ready(sent)
        })
        .await;
        let held = near.acknowledged().unwrap() - acknowledged - 5;
        assert!(held < sent, "{held} of {sent}");
    }

    #[tokio::test]
    async fn what_the_network_does_not_take_waits() {
        let (mut near, mut far) = pair().await;
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(8 << 20).collect();
        let expected = bytes.clone();
        let writing = tokio::spawn(async move { near.write_all(&bytes).await.map(|()| near) });
        let mut read = vec![0; expected.len()];
        far.read_exact(&mut read).await.unwrap();
        assert!(read == expected);
        drop(far);
        let mut near = writing.await.unwrap().unwrap();
        let mut rest = [0; 4];
        assert_eq!(near.read(&mut rest).await.unwrap(), 0);
    }
}
