//! A session whose handshake was accepted, to its end and its line in the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frame_core::deflate::Codec;
use frame_core::endpoint::Endpoint;
use frame_core::relay::ClientStream;
use tokio::time::timeout;

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
        let Shared { handler, settings, end, .. } = &*self.shared;
        let (session, policy) = (self.entered.session(), settings.policy());
        let handle = session.handle().clone();
        let endpoint = match self.codec.take() {
            None => Endpoint::new(io, policy, handle),
            Some(codec) => Endpoint::compressed(io, policy, handle, *codec),
        };
        let running = drive::run(endpoint, session, handler);
        let ran = tokio::select! {
            biased;
            driven = running => match driven {
                Driven::Over(ran) => Some(ran),
                Driven::Frozen(..) => None, // its handle is ours, and asks for none
            },
            () = end.cut.cancelled() => None,
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
