//! The task of a session: its endpoint, its outbox and its handler, polled together.
//!
//! The handler runs inside the task. While it does, the endpoint goes on: one further message is read and waits in
//! `ahead`, and then the client has to wait.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use frame_core::endpoint::{Endpoint, EndpointState, SharedFrame};
use frame_core::outcome::Outcome;
use frame_core::relay::ClientStream;

use crate::closed::{Cause, CloseCode, Closed};
use crate::handler::{Handler, HandlerError};
use crate::message::Message;
use crate::outbox::{Order, SendError, Sink};
use crate::panics::{Panic, caught};
use crate::session::Session;

/// Where the future of a session ends.
#[derive(Debug)]
pub(crate) enum Driven<S> {
    /// The session is over.
    Over(Box<Ran>),
    /// It was asked to freeze: no handler is at work, and nothing waits to be sent but what the endpoint had.
    Frozen(S, Box<EndpointState>),
}

/// How a session went.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) closed: Closed,
    pub(crate) outcome: Outcome,
    /// What the handler failed by.
    pub(crate) failure: Option<Failure>,
}

/// What a handler failed by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Error(HandlerError),
    #[error("{0}")]
    Panic(Panic),
}

impl Failure {
    /// How the session ends by it.
    fn order(&self) -> Order {
        let cause = match self {
            Self::Error(_) => Cause::HandlerFailed,
            Self::Panic(_) => Cause::HandlerPanicked,
        };
        Order { code: CloseCode::INTERNAL_ERROR, reason: "internal error".into(), cause }
    }
}

impl<S: ClientStream> Sink for Endpoint<S> {
    fn has_room(&self) -> bool {
        self.has_room()
    }

    fn queue(&mut self, frame: &SharedFrame) {
        self.queue_frame(frame);
    }
}

/// The endpoint, and what of it has not been handled.
struct Drive<'a, S> {
    endpoint: Endpoint<S>,
    session: &'a Session,
    ahead: Option<Message>,
    /// Bytes of the message that a handler has.
    handled_len: usize,
    own_cause: Option<Cause>,
}

/// Runs a session over an endpoint, to the end of its stream or until it has frozen. [`Handler::on_close`] is the
/// caller's to call.
pub(crate) async fn run<S, H>(endpoint: Endpoint<S>, session: &Session, handler: &Arc<H>) -> Driven<S>
where
    S: ClientStream,
    H: Handler,
{
    let mut drive = Drive { endpoint, session, ahead: None, handled_len: 0, own_cause: None };
    while let Some(message) = drive.next().await {
        drive.handled_len = message.as_bytes().len();
        // Called within: a handler may panic before it has made its future.
        let mut handling = pin!(caught(async move { handler.on_message(session, message).await }));
        let handled = poll_fn(|cx| {
            if let Poll::Ready(handled) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(handled));
            }
            drive.poll(cx, true).map(|()| None)
        })
        .await;
        drive.handled_len = 0;
        let failure = match handled {
            Some(handled) => failure_of(handled),
            None => {
                // The session is over, and the handler is not.
                session.outbox().end();
                let (outcome, handled) = tokio::join!(Box::pin(drive.endpoint.end()), handling);
                let ran = Ran::new(outcome, drive.own_cause, failure_of(handled));
                return Driven::Over(Box::new(ran));
            }
        };
        if let Some(failure) = failure {
            // What was sent before it leaves before the Close.
            session.outbox().close(failure.order());
            drive.until_over().await;
            return Driven::Over(Box::new(drive.end(Some(failure)).await));
        }
    }
    if drive.endpoint.is_over() {
        Driven::Over(Box::new(drive.end(None).await))
    } else {
        let (io, state) = drive.endpoint.freeze();
        Driven::Frozen(io, state)
    }
}

fn failure_of(handled: Result<Result<(), HandlerError>, Panic>) -> Option<Failure> {
    match handled {
        Ok(Ok(())) => None,
        // It is over anyway, and says itself why.
        Ok(Err(e)) if e.downcast_ref() == Some(&SendError::Over) => None,
        Ok(Err(e)) => Some(Failure::Error(e)),
        Err(panic) => Some(Failure::Panic(panic)),
    }
}

impl<S: ClientStream> Drive<'_, S> {
    /// The next message; `None` when the session is over or frozen. What comes behind a Close of ours is not read.
    async fn next(&mut self) -> Option<Message> {
        poll_fn(|cx| {
            if self.ahead.is_none() || self.session.is_over() {
                ready!(self.poll(cx, false));
            }
            Poll::Ready(self.ahead.take().filter(|_| !self.endpoint.is_over()))
        })
        .await
    }

    async fn until_over(&mut self) {
        poll_fn(|cx| self.poll(cx, true)).await;
    }

    /// Moves what can be moved. Ready when the session is over, or, unless a handler `is_busy`, when a message is there or
    /// the session has frozen: a handler is waited for, and so is all that others have sent.
    fn poll(&mut self, cx: &mut Context<'_>, is_busy: bool) -> Poll<()> {
        let outbox = self.session.outbox();
        loop {
            let left = outbox.take_into(&mut self.endpoint, cx);
            // A drain waits for a handler's answer as it does for a message in flight.
            let ahead_len = self.ahead.as_ref().map_or(0, |message| message.as_bytes().len());
            let received = (ahead_len + self.handled_len).max(usize::from(is_busy));
            self.endpoint.set_waiting_outside(left.bytes, received);
            if let Some(order) = left.order {
                self.close(order);
            }
            let stays = is_busy && self.endpoint.is_to_freeze();
            if self.ahead.is_some() || self.session.is_over() || stays {
                if self.endpoint.poll_unread(cx).is_ready() {
                    return Poll::Ready(());
                }
            } else if let Poll::Ready(message) = self.endpoint.poll_recv(cx) {
                self.ahead = message.map(Message::from);
                match &self.ahead {
                    Some(_) if is_busy => continue,
                    None if !self.endpoint.is_over() && (is_busy || !outbox.end_if_empty()) => {
                        // It freezes later. Whatever is missing wakes this task.
                    }
                    _ => return Poll::Ready(()),
                }
            }
            // What was written may have made room.
            if !(outbox.has_more() && self.endpoint.has_room()) {
                return Poll::Pending;
            }
        }
    }

    fn close(&mut self, order: Order) {
        if !self.endpoint.is_over() {
            self.own_cause = Some(order.cause);
        }
        self.endpoint.close(order.code.get(), &order.reason);
    }

    async fn end(self, failure: Option<Failure>) -> Ran {
        self.session.outbox().end();
        // In a box, since an idle session is as large as this future.
        let outcome = Box::pin(self.endpoint.end()).await;
        Ran::new(outcome, self.own_cause, failure)
    }
}

impl Ran {
    fn new(outcome: Outcome, own_cause: Option<Cause>, failure: Option<Failure>) -> Self {
        Self { closed: Closed::of(outcome.clone(), own_cause), outcome, failure }
    }
}

#[cfg(test)]
mod tests;
