//! A server that can be replaced: a session's stream to its server, behind which the server changes.
//!
//! In: the stream of a server behind a finished handshake, and a [`Redialer`] that knows how another is found. To the
//! [relay](mod@crate::relay) it is the one server of the session. In it:
//!
//! ```text
//!   Serving      frames pass both ways; it is noted where they stand
//!   Leaving      the server has closed, or is to be left: the client's message under way is finished, and the server is
//!                told Close. What the client sends then is held
//!   Redialling   what the client sends is held, up to a limit, behind which it waits in the client's socket; pings are
//!                answered here. With a new server it goes on as Serving, and what was held goes first
//!   Ended        there is none: the client is told Close
//!   Passing      the session ends as one that is not redialled
//! ```
//!
//! What leads from the one to the other is the table of `decide`. A message that has gone to a server as a whole is never
//! sent again, and none is cut: see there.

mod decide;
mod frozen;
mod walk;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fastwebsockets::{Frame, OpCode as FrameOpCode, Payload};
use net_io::memory::Claim;
use net_io::state::StateWriter;
use net_io::{BUFFER_LEN, Buffer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use self::decide::{Going, Place, Situation, UNEXPECTED, Verdict, decide};
use self::walk::{Piece, Step, Track, Walker};
use crate::close::{Close, GOING_AWAY, REASON_MAX};
use crate::handle::SessionHandle;
use crate::head::{OpCode, Sender};

/// How long a message under way is waited for when its server has closed or is to be left.
const FINISH_WAIT: Duration = Duration::from_secs(30);
/// How long a server that was told Close is given for its own, with all that it sends before.
const CLOSE_WAIT: Duration = Duration::from_secs(10);
/// The same for one that takes no more bytes.
const LOST_WAIT: Duration = Duration::from_secs(2);

/// The most that [`Options::held_max`] may be, in bytes.
pub const HELD_MAX: usize = BUFFER_LEN;

/// What is wanted of the replacement of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes of the client that are held while there is no server; more wait in its socket. At most [`HELD_MAX`].
    pub held_max: usize,
    /// A message of which a lost server has a part goes to the next server from its beginning, if it is held whole.
    pub may_repeat: bool,
}

/// A server that was lost, or was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Messages of the client that have gone to servers as a whole.
    pub messages: u64,
    /// The code of the server's Close, if it has sent one; of the gateway's, if it was left.
    pub code: Option<u16>,
    /// How, for the log.
    pub how: String,
}

/// A server that is being looked for; or what the client is told instead.
pub type Redialling<S> = Pin<Box<dyn Future<Output = Result<S, Close>> + Send>>;

/// How servers are found, and what becomes of those that were left.
pub trait Redialer<S>: fmt::Debug + Send {
    /// Begins to look for a server that goes on. Its stream stands behind the handshake.
    fn redial(&mut self, lost: Lost) -> Redialling<S>;
    /// Takes a server whose session has ended in order; its connection is still open.
    fn leave(&mut self, server: S);
    /// Writes what it knows, for another process. A search that is under way is begun again there.
    fn write_state(&self, out: &mut StateWriter);
    /// The session ends because one of its messages was passed on in part, and no other server can end that.
    fn cut(&mut self);
}

/// What is to be done with an operation, after something has changed.
enum Turn<T> {
    /// The operation's result.
    Done(T),
    /// It is to be looked at again.
    Again,
}

enum Phase<S> {
    Serving,
    Leaving(Leaving),
    /// What was lost, and the search for what goes on.
    Redialling(Lost, Redialling<S>),
    /// `true`: the client's Close has come.
    Ended(bool),
    Passing,
}

impl<S> fmt::Debug for Phase<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serving => "Serving",
            Self::Leaving(_) => "Leaving",
            Self::Redialling(..) => "Redialling",
            Self::Ended(_) => "Ended",
            Self::Passing => "Passing",
        })
    }
}

#[derive(Debug)]
struct Leaving {
    /// The server's Close has come.
    closed: bool,
    step: Farewell,
    /// When the rest is not waited for any more.
    until: Pin<Box<Sleep>>,
}

/// How far the gateway's own end of a server has come.
#[derive(Debug)]
enum Farewell {
    /// The client's message under way is finished.
    Finish,
    /// This Close goes to the server, of which so many bytes have gone.
    Close(Vec<u8>, usize),
    /// Nothing more goes to it; `true`: its Close was the last.
    Said(bool),
}

/// A [`RedialStream`] that was taken apart. It goes on with [`RedialStream::thaw`].
#[derive(Debug)]
pub struct RedialState {
    phase: StillPhase,
    transfer: Transfer,
}

/// A [`Phase`] without what runs.
#[derive(Debug)]
enum StillPhase {
    Serving,
    /// The server's Close has come; how far the own end has; and how long the rest is still waited for.
    Leaving(bool, Farewell, Duration),
    Redialling(Lost),
    Ended(bool),
    Passing,
}

/// The stream of a session to its server, whichever that is at the moment.
#[derive(Debug)]
pub struct RedialStream<S> {
    redialer: Box<dyn Redialer<S>>,
    handle: SessionHandle,
    server: Option<S>,
    phase: Phase<S>,
    transfer: Transfer,
    claim: Claim,
}

/// How far the bytes of both directions have come: plain values, which go to another process as they are.
#[derive(Debug)]
struct Transfer {
    options: Options,
    /// What has gone to the server.
    up: Track,
    /// All of the message under way that has gone to the server, if it may be repeated and is not too long.
    message: Option<Vec<u8>>,
    /// What has gone on to the client.
    down: Walker,
    /// What has come from the server and is too little to be judged.
    behind: Vec<u8>,
    /// What the client has sent while there was no server, of which the new one has taken so many bytes.
    held: Vec<u8>,
    held_sent: usize,
    /// Of what is held.
    hold: Track,
    /// Frames of the gateway for the client.
    to_client: Vec<u8>,
    /// It is to leave its server.
    is_asked: bool,
    /// The code of the last server's Close, and how it was lost, if that is known.
    code: Option<u16>,
    how: Option<String>,
    /// What the client was told at the end.
    close_sent: Option<Close>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> RedialStream<S> {
    /// Begins with `server`. The session's `handle` may ask it to leave a server
    /// ([`SessionHandle::redial`]).
    #[must_use]
    pub fn new(server: S, redialer: Box<dyn Redialer<S>>, handle: SessionHandle, options: Options) -> Self {
        let options = Options { held_max: options.held_max.min(HELD_MAX), ..options };
        let transfer = Transfer {
            options,
            up: Track::new(Sender::Client),
            message: options.may_repeat.then(Vec::new),
            down: Walker::new(Sender::Server),
            behind: Vec::new(),
            held: Vec::new(),
            held_sent: 0,
            hold: Track::new(Sender::Client),
            to_client: Vec::new(),
            is_asked: false,
            code: None,
            how: None,
            close_sent: None,
        };
        let (server, phase) = (Some(server), Phase::Serving);
        Self { redialer, handle, server, phase, transfer, claim: Claim::default() }
    }

    /// What the client was told because no server could go on; `None`: it was told nothing of the kind.
    #[must_use]
    pub fn close_sent(&self) -> Option<&Close> {
        self.transfer.close_sent.as_ref()
    }

    /// Bytes of the client that no server has taken.
    #[must_use]
    pub fn held_len(&self) -> usize {
        self.transfer.held.len() - self.transfer.held_sent
    }

    /// The stream of the server, if there is one.
    pub fn server(&self) -> Option<&S> {
        self.server.as_ref()
    }

    fn situation(&self, going: Going) -> Situation {
        Situation {
            going,
            to_client: self.transfer.down.place(),
            to_server: self.transfer.up.place(),
            is_held: self
                .transfer
                .message
                .as_ref()
                .is_some_and(|message| message.len() <= self.transfer.options.held_max),
            may_repeat: self.transfer.options.may_repeat,
            is_closing: self.transfer.up.is_in_close(),
        }
    }

    /// Bytes have gone to the server.
    fn has_gone(&mut self, bytes: &[u8]) {
        let mut close = None;
        let between = self.transfer.up.take(bytes, |piece| {
            if let Piece::Control(OpCode::Close, payload, _) = piece {
                close = Some(*payload);
            }
        });
        // The client, or the gateway in its place, closes. The server answers, unless it has sent its Close before.
        match (close, &self.phase) {
            (Some(payload), Phase::Leaving(Leaving { closed: true, .. })) => {
                self.transfer.to_client = to_the_client(FrameOpCode::Close, &payload);
                return self.end(true);
            }
            (Some(_), _) => self.phase = Phase::Passing,
            (None, _) => {}
        }
        if let Some(message) = &mut self.transfer.message {
            let rest = match between {
                Some(at) => {
                    *message = Vec::new();
                    &bytes[at..]
                }
                None => bytes,
            };
            // One that is too long stays so, and is not held.
            if message.len() <= self.transfer.options.held_max {
                message.extend_from_slice(rest);
            }
        }
    }

    /// Nothing more goes to the server: what the client sends is held from now on.
    fn begin_hold(&mut self, repeat: bool) {
        let rest = self.transfer.held.split_off(self.transfer.held_sent);
        self.transfer.held.clear();
        self.transfer.held_sent = 0;
        self.transfer.hold = self.transfer.up.clone();
        if let (true, Some(message)) = (repeat, &mut self.transfer.message) {
            self.transfer.held = std::mem::take(message);
            self.transfer.held.truncate(self.transfer.held.len() - self.transfer.hold.front().len());
        }
        self.take_in(&rest);
    }

    /// Holds what the client sends, and answers what is for the gateway.
    fn take_in(&mut self, bytes: &[u8]) {
        let Transfer { hold, held, to_client, .. } = &mut self.transfer;
        let mut answered = false;
        hold.take(bytes, |piece| match piece {
            Piece::Data(data) => held.extend_from_slice(data),
            Piece::Control(OpCode::Ping, payload, _) => {
                // Only the last one has to be answered (RFC 6455 §5.5.3).
                *to_client = to_the_client(FrameOpCode::Pong, payload);
            }
            Piece::Control(OpCode::Close, payload, frame) => {
                if held.is_empty() {
                    *to_client = to_the_client(FrameOpCode::Close, payload);
                    answered = true;
                } else {
                    held.extend_from_slice(frame); // it is for the next server, behind what comes before it
                }
            }
            Piece::Control(..) => {} // whose ping a pong answers is gone
        });
        self.claim.set(self.transfer.held.capacity());
        if answered {
            self.end(true);
        }
    }

    /// There is no server any more.
    fn end(&mut self, client_has_closed: bool) {
        self.phase = Phase::Ended(client_has_closed);
        if let Some(server) = self.server.take() {
            self.redialer.leave(server);
        }
    }

    /// Tells the client that the session can't go on.
    fn close_client(&mut self, close: Close) {
        let mut payload = close.code.unwrap_or(UNEXPECTED).to_be_bytes().to_vec();
        let mut len = close.reason.len().min(REASON_MAX);
        while !close.reason.is_char_boundary(len) {
            len -= 1;
        }
        payload.extend_from_slice(&close.reason.as_bytes()[..len]);
        self.transfer.to_client = to_the_client(FrameOpCode::Close, &payload);
        self.transfer.close_sent = Some(close);
        self.end(false);
    }

    /// The server goes. Returns whether the session ends as one that is not redialled.
    fn go(&mut self, going: Going, how: &dyn fmt::Display) -> bool {
        match decide(&self.situation(going)) {
            Verdict::PassOn => {
                if going == Going::IsLost && !self.transfer.up.is_in_close() {
                    self.redialer.cut(); // a frame of the server was passed on in part
                }
                self.phase = Phase::Passing;
                return true;
            }
            Verdict::Cut(why) => {
                self.redialer.cut();
                self.close_client(Close { code: Some(UNEXPECTED), reason: why.into() });
            }
            Verdict::Finish => {
                let closed = matches!(going, Going::Closes(_));
                self.transfer.code = match going {
                    Going::Closes(code) => code,
                    Going::IsLeft | Going::IsLost => Some(GOING_AWAY),
                };
                let until = Box::pin(sleep(FINISH_WAIT));
                self.phase = Phase::Leaving(Leaving { closed, step: Farewell::Finish, until });
            }
            Verdict::Redial { repeat } => {
                // One that was left holds back what came since.
                if !matches!(&self.phase, Phase::Leaving(Leaving { step: Farewell::Said(_), .. })) {
                    self.begin_hold(repeat);
                }
                let in_order = matches!(
                    &self.phase,
                    Phase::Leaving(Leaving { closed: true, step: Farewell::Said(true), .. })
                );
                if let Some(server) = self.server.take().filter(|_| in_order) {
                    self.redialer.leave(server);
                }
                if !matches!(self.phase, Phase::Ended(_)) {
                    let how = self.transfer.how.take().unwrap_or_else(|| how.to_string());
                    let lost =
                        Lost { messages: self.transfer.up.messages(), code: self.transfer.code.take(), how };
                    self.phase = Phase::Redialling(lost.clone(), self.redialer.redial(lost));
                }
            }
        }
        false
    }

    /// The server takes no more bytes. It may have said something before.
    fn refuses(&mut self, e: &io::Error) {
        let situation = self.situation(Going::IsLost);
        if situation.is_closing {
            self.phase = Phase::Passing;
            return;
        }
        let repeat = matches!(
            decide(&Situation { to_client: Place::Between, ..situation }),
            Verdict::Redial { repeat: true }
        );
        self.transfer.how = Some(e.to_string());
        self.begin_hold(repeat);
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let closed = matches!(&self.phase, Phase::Leaving(Leaving { closed: true, .. }));
        let until = Box::pin(sleep(LOST_WAIT));
        self.phase = Phase::Leaving(Leaving { closed, step: Farewell::Said(false), until });
    }

    /// Holds as much as may be held. The rest waits in the client's socket.
    fn hold_some(&mut self, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = self.transfer.options.held_max.saturating_sub(self.transfer.held.len()).min(buf.len());
        if n == 0 {
            return Poll::Pending; // a new server wakes the task, and so does the end of the search for one
        }
        self.take_in(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    /// Writes what was held to a server with which the session ends.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let (Some(server), true) =
            (&mut self.server, self.transfer.held_sent < self.transfer.held.len())
        {
            self.transfer.held_sent +=
                ready!(Pin::new(server).poll_write(cx, &self.transfer.held[self.transfer.held_sent..]))
                    .and_then(not_zero)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was held to the new server.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.transfer.held_sent < self.transfer.held.len() && matches!(self.phase, Phase::Serving) {
            let Some(server) = &mut self.server else { break };
            let n = ready!(Pin::new(server).poll_write(cx, &self.transfer.held[self.transfer.held_sent..]))
                .and_then(not_zero)?;
            let at = self.transfer.held_sent;
            self.transfer.held_sent += n;
            let held = std::mem::take(&mut self.transfer.held);
            self.has_gone(&held[at..at + n]);
            self.transfer.held = held;
        }
        if self.transfer.held_sent > 0 && self.transfer.held_sent == self.transfer.held.len() {
            (self.transfer.held, self.transfer.held_sent) = (Vec::new(), 0);
            self.claim.set(0);
            if let Some(server) = &mut self.server {
                let _ = Pin::new(server).poll_flush(cx)?; // later writes flush it too
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Looks whether there is a new server.
    fn poll_redial(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Phase::Redialling(_, redialling) = &mut self.phase else { return Poll::Ready(()) };
        match ready!(redialling.as_mut().poll(cx)) {
            Ok(server) => {
                self.server = Some(server);
                self.phase = Phase::Serving;
                self.transfer.is_asked = false; // that was about an earlier one
                self.transfer.up.begin_again();
                self.transfer.down.begin_again();
                self.transfer.behind.clear();
                self.transfer.held.extend_from_slice(self.transfer.hold.front());
            }
            Err(close) => self.close_client(close),
        }
        Poll::Ready(())
    }

    /// Does what is next towards a server that is left. Ready when something has changed.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Phase::Leaving(leaving) = &mut self.phase else { return Poll::Ready(()) };
        if leaving.until.as_mut().poll(cx).is_ready() {
            self.go(Going::IsLost, &"it did not close in time");
            return Poll::Ready(());
        }
        match (&mut leaving.step, &mut self.server) {
            (Farewell::Finish, Some(server)) => {
                let rest = &self.transfer.held[self.transfer.held_sent..];
                let left = self.transfer.up.left_of_message(rest);
                if left > 0 {
                    match ready!(Pin::new(server).poll_write(cx, &rest[..left])).and_then(not_zero) {
                        Ok(n) => {
                            let (held, at) =
                                (std::mem::take(&mut self.transfer.held), self.transfer.held_sent);
                            self.transfer.held_sent += n;
                            self.has_gone(&held[at..at + n]);
                            self.transfer.held = held;
                        }
                        Err(e) => self.refuses(&e),
                    }
                } else if self.transfer.up.is_between() {
                    let code = self.transfer.code.unwrap_or(GOING_AWAY);
                    let mut close = Frame::close(code, b"");
                    close.mask(); // towards the server the gateway is the client (RFC 6455 §5.1)
                    leaving.step = Farewell::Close(wire(close), 0);
                    leaving.until = Box::pin(sleep(CLOSE_WAIT));
                    self.begin_hold(false);
                } else {
                    return Poll::Pending; // the client's next bytes are the rest
                }
            }
            (Farewell::Close(close, sent), Some(server)) => {
                let written = if *sent < close.len() {
                    let write = ready!(Pin::new(server).poll_write(cx, &close[*sent..])).and_then(not_zero);
                    write.map(|n| *sent += n)
                } else {
                    let flushed = ready!(Pin::new(server).poll_flush(cx));
                    flushed.map(|()| leaving.step = Farewell::Said(true))
                };
                if let Err(e) = written {
                    self.transfer.how = Some(e.to_string());
                    leaving.step = Farewell::Said(false);
                }
            }
            (Farewell::Said(_), _) if leaving.closed => {
                let how = self
                    .transfer
                    .code
                    .map_or_else(|| "it was left".to_owned(), |code| format!("it closed with {code}"));
                self.go(Going::IsLost, &how);
            }
            _ => return Poll::Pending,
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RedialStream<S> {
    /// Reads from the server, as far as what has come may go on to the client.
    fn poll_server(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Turn<io::Result<()>>> {
        let Some(server) = &mut self.server else { return Poll::Pending };
        let start = buf.filled().len();
        if buf.remaining() <= self.transfer.behind.len() {
            return Poll::Ready(Turn::Done(Err(io::ErrorKind::InvalidInput.into()))); // the relay's buffer is larger
        }
        buf.put_slice(&self.transfer.behind);
        let before = buf.filled().len();
        let read = Pin::new(server).poll_read(cx, buf);
        let ended = match read {
            Poll::Pending => {
                buf.set_filled(start);
                return Poll::Pending;
            }
            Poll::Ready(Ok(())) if buf.filled().len() > before => None,
            Poll::Ready(ended) => Some(ended),
        };
        if let Some(ended) = ended {
            buf.set_filled(start);
            let how = ended
                .as_ref()
                .map_or_else(ToString::to_string, |()| "its connection ended without a Close".to_owned());
            let passes = self.go(Going::IsLost, &how);
            return Poll::Ready(if passes { Turn::Done(ended) } else { Turn::Again });
        }
        self.transfer.behind.clear();
        let mut at = start;
        let close = loop {
            match self.transfer.down.step(&buf.filled()[at..]) {
                Ok(Step::Need) => break None,
                Ok(Step::Data(n)) => at += n,
                Ok(Step::Control(_, OpCode::Close, payload)) => break Some(payload),
                Ok(Step::Control(n, ..)) => at += n,
                Err(_) => {
                    self.phase = Phase::Passing; // the relay finds what is wrong
                    return Poll::Ready(Turn::Done(Ok(())));
                }
            }
        };
        if let Some(payload) = close {
            let Ok(Close { code, .. }) = Close::parse(&payload) else {
                self.phase = Phase::Passing;
                return Poll::Ready(Turn::Done(Ok(())));
            };
            if let Phase::Leaving(leaving) = &mut self.phase {
                leaving.closed = true;
            } else if self.go(Going::Closes(code), &"") {
                return Poll::Ready(Turn::Done(Ok(())));
            }
        } else {
            self.transfer.behind.extend_from_slice(&buf.filled()[at..]);
        }
        buf.set_filled(at);
        Poll::Ready(if at > start { Turn::Done(Ok(())) } else { Turn::Again })
    }

    /// Waits for the end of a server that has closed; what it sends is nothing any more (RFC 6455 §5.5.1).
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(server) = &mut self.server else { return Poll::Ready(()) };
        let mut buffer = Buffer::take();
        loop {
            let mut free = ReadBuf::new(&mut buffer);
            match ready!(Pin::new(&mut *server).poll_read(cx, &mut free)) {
                Ok(()) if !free.filled().is_empty() => {}
                ended => {
                    let how = ended.map_or_else(
                        |e| e.to_string(),
                        |()| "its connection ended before its Close was answered".to_owned(),
                    );
                    self.go(Going::IsLost, &how);
                    return Poll::Ready(());
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for RedialStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.transfer.is_asked |= this.handle.take_redial();
        loop {
            if !this.transfer.to_client.is_empty() && this.transfer.down.place() != Place::InFrame {
                let n = this.transfer.to_client.len().min(buf.remaining());
                buf.put_slice(&this.transfer.to_client[..n]);
                this.transfer.to_client.drain(..n);
                return Poll::Ready(Ok(()));
            }
            match &this.phase {
                Phase::Passing => {
                    let Some(server) = &mut this.server else { return Poll::Ready(Ok(())) };
                    let n = this.transfer.behind.len().min(buf.remaining());
                    if n > 0 {
                        buf.put_slice(&this.transfer.behind[..n]);
                        this.transfer.behind.drain(..n);
                        return Poll::Ready(Ok(()));
                    }
                    return Pin::new(server).poll_read(cx, buf);
                }
                Phase::Ended(client_has_closed) => {
                    return if *client_has_closed { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
                Phase::Redialling(..) => ready!(this.poll_redial(cx)),
                Phase::Serving => {
                    if std::mem::take(&mut this.transfer.is_asked) && !this.go(Going::IsLeft, &"") {
                        continue;
                    }
                    match this.poll_held(cx) {
                        Poll::Ready(Err(e)) => {
                            this.refuses(&e);
                            continue;
                        }
                        _ if !matches!(this.phase, Phase::Serving) => continue,
                        Poll::Ready(Ok(())) | Poll::Pending => {}
                    }
                    if let Turn::Done(read) = ready!(this.poll_server(cx, buf)) {
                        return Poll::Ready(read);
                    }
                }
                Phase::Leaving(Leaving { closed, .. }) => {
                    let closed = *closed;
                    if this.poll_farewell(cx).is_ready() {
                        continue;
                    }
                    if closed {
                        ready!(this.poll_end(cx));
                    } else if let Turn::Done(read) = ready!(this.poll_server(cx, buf)) {
                        return Poll::Ready(read);
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RedialStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            match &mut this.phase {
                Phase::Passing => {
                    // Behind the end of a server nothing is to be written any more, and what is left of it is the relay's to end.
                    ready!(this.poll_rest(cx))?;
                    let Some(server) = &mut this.server else { return Poll::Ready(Ok(buf.len())) };
                    return Pin::new(server).poll_write(cx, buf);
                }
                Phase::Ended(client_has_closed) => {
                    this.transfer.hold.take(buf, |piece| {
                        *client_has_closed |= matches!(piece, Piece::Control(OpCode::Close, ..));
                    });
                    return Poll::Ready(Ok(buf.len()));
                }
                Phase::Redialling(..) => {
                    if this.poll_redial(cx).is_pending() {
                        return this.hold_some(buf);
                    }
                }
                Phase::Serving => match ready!(this.poll_held(cx)) {
                    Err(e) => this.refuses(&e),
                    Ok(()) if !matches!(this.phase, Phase::Serving) => {}
                    Ok(()) => {
                        let Some(server) = &mut this.server else { return Poll::Pending };
                        match ready!(Pin::new(server).poll_write(cx, buf)) {
                            Ok(n) => {
                                this.has_gone(&buf[..n]);
                                return Poll::Ready(Ok(n));
                            }
                            Err(e) => this.refuses(&e),
                        }
                    }
                },
                Phase::Leaving(Leaving { step: Farewell::Finish, .. }) => {
                    if this.poll_farewell(cx).is_ready() {
                        continue;
                    }
                    if this.transfer.held_sent < this.transfer.held.len() {
                        return Poll::Pending;
                    }
                    let left = this.transfer.up.left_of_message(buf);
                    let Some(server) = &mut this.server else { return Poll::Pending };
                    match ready!(Pin::new(server).poll_write(cx, &buf[..left])) {
                        Ok(n) => {
                            this.has_gone(&buf[..n]);
                            cx.waker().wake_by_ref(); // the farewell may go on, which reading does
                            return Poll::Ready(Ok(n));
                        }
                        Err(e) => this.refuses(&e),
                    }
                }
                Phase::Leaving(_) => {
                    if this.poll_farewell(cx).is_pending() {
                        return this.hold_some(buf);
                    }
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match (&this.phase, &mut this.server) {
            (Phase::Passing, Some(server)) => Pin::new(server).poll_flush(cx),
            // A server that takes nothing more is noticed by reading.
            (Phase::Serving, Some(server)) => Pin::new(server).poll_flush(cx).map(|_| Ok(())),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Phase::Ended(client_has_closed) = &mut this.phase {
            *client_has_closed = true;
        }
        match &mut this.server {
            Some(server) => Pin::new(server).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// A frame of the gateway for the client.
fn to_the_client(opcode: FrameOpCode, payload: &[u8]) -> Vec<u8> {
    wire(Frame::new(true, opcode, None, Payload::Borrowed(payload)))
}

fn wire(mut frame: Frame<'_>) -> Vec<u8> {
    let mut wire = Vec::new();
    let len = frame.write(&mut wire).len();
    wire.truncate(len);
    wire
}

/// A sink that takes no byte of a slice that has some will never take any.
fn not_zero(n: usize) -> io::Result<usize> {
    if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) }
}

#[cfg(test)]
mod tests;
