//! A session whose handshake was accepted, to its end and its line in the log.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use frame_core::deflate::Codec;
use frame_core::endpoint::Endpoint;
use frame_core::relay::ClientStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::client::Connection;
use crate::closed::Closed;
use crate::drive::{self, Driven, Ran};
use crate::handler::Handler;
use crate::log;
use crate::panics::caught;
use crate::session::Session;
use crate::shared::Shared;

/// How long [`Handler::on_close`] may take when everything is cut.
const CUT_WAIT: Duration = Duration::from_secs(1);

/// A session that is among all sessions until this is dropped.
pub(crate) struct Entered(Session);

impl Entered {
    /// `None`: another session has its number.
    pub(crate) fn new(session: Session) -> Option<Self> {
        session.all_groups().enter(&session).then(|| Self(session))
    }

    pub(crate) fn session(&self) -> &Session {
        &self.0
    }

    /// Nothing is sent to it any more.
    pub(crate) fn depart(&self) {
        self.0.outbox().end();
        self.0.all_groups().depart(self.0.id());
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.depart();
        self.0.all_groups().forget(self.0.id());
    }
}

/// A session that waits for its stream.
pub(crate) struct Opened<H> {
    entered: Entered,
    shared: Arc<Shared<H>>,
    _connection: Connection,
    /// What speaks permessage-deflate, if that was agreed upon.
    codec: Option<Box<Codec>>,
    begun: Instant,
}

impl<H: Handler> Opened<H> {
    pub(crate) fn new(
        entered: Entered,
        shared: Arc<Shared<H>>,
        connection: Connection,
        codec: Option<Box<Codec>>,
    ) -> Self {
        shared.hub.note(|totals| totals.opened += 1);
        Self { entered, shared, _connection: connection, codec, begun: Instant::now() }
    }

    /// Runs it over the stream behind the answer.
    pub(crate) async fn run<S: ClientStream>(mut self, io: S) {
        let Shared { handler, settings, rules, end, .. } = &*self.shared;
        let (session, policy) = (self.entered.session(), settings.policy());
        let handle = session.handle().clone();
        let endpoint = match (self.codec.take(), &rules.compression) {
            (Some(codec), Some(ours)) => Endpoint::compressed(io, policy, handle, *codec, ours.share()),
            _ => Endpoint::new(io, policy, handle),
        };
        let running = drive::run(endpoint, session, handler);
        let ran = match unless_cut(running, &end.cut).await {
            Some(Driven::Over(ran)) => Some(ran),
            Some(Driven::Frozen(..)) => None, // its handle is ours, and asks for none
            None => None,
        };
        self.end(ran).await;
    }

    /// The connection went before the client had the answer.
    pub(crate) async fn abandon(self) {
        self.close(Closed::never_opened(), None).await;
    }

    async fn end(self, ran: Option<Box<Ran>>) {
        match ran {
            Some(ran) => self.close(ran.closed.clone(), Some(ran)).await,
            None => {
                let _ = timeout(CUT_WAIT, self.close(Closed::cut(), None)).await;
            }
        }
    }

    async fn close(self, closed: Closed, ran: Option<Box<Ran>>) {
        let session = self.entered.session();
        let took = self.begun.elapsed();
        self.entered.depart();
        let (outcome, failure) = match &ran {
            Some(ran) => (Some(&ran.outcome), ran.failure.as_ref()),
            None => (None, None),
        };
        self.shared.hub.note(|totals| {
            totals.ended += 1;
            totals.failed += u64::from(failure.is_some());
            totals.dropped += session.dropped_messages();
            if let Some(outcome) = outcome {
                let (received, sent) = (outcome.from_client, outcome.from_backend);
                totals.messages_in += received.messages;
                totals.bytes_in += received.payload_bytes;
                totals.messages_out += sent.messages;
                totals.bytes_out += sent.payload_bytes;
            }
        });
        log::session(session, took, &closed, outcome, failure);
        if let Err(panic) = caught(async { self.shared.handler.on_close(session, &closed).await }).await {
            log::panicked("on_close", &panic);
        }
    }
}

/// What `running` comes to; `None`: all is cut. As `select!`, but the place in the token's list, which is in no cache, is
/// looked at once for each waker and not whenever the session is woken.
async fn unless_cut<T>(running: impl Future<Output = T>, cut: &CancellationToken) -> Option<T> {
    let (mut running, mut cancelled) = (pin!(running), pin!(cut.cancelled()));
    let mut waker: Option<Waker> = None;
    poll_fn(|cx| {
        if let Poll::Ready(done) = running.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if !cut.is_cancelled() && waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        waker = Some(cx.waker().clone());
        cancelled.as_mut().poll(cx).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_runs_ends_by_itself_or_by_the_cut() {
        let cut = CancellationToken::new();
        assert_eq!(unless_cut(ready(1), &cut).await, Some(1));
        let mut waiting = Box::pin(unless_cut(pending::<()>(), &cut));
        assert_eq!((&mut waiting).now_or_never(), None); // by another waker than the task's
        let waiting = async { timeout(Duration::from_secs(10), waiting).await };
        let (waited, ()) = tokio::join!(waiting, async { cut.cancel() });
        assert_eq!(waited, Ok(None));
    }
}
