//! What a program does with its sessions: one trait, or three closures.

use std::error::Error;
use std::fmt;
use std::future::ready;
use std::pin::Pin;

use crate::closed::Closed;
use crate::message::Message;
use crate::refusal::Refusal;
use crate::session::Session;

/// Why a handler has failed. The session ends with 1011, and the log says why.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// What a program does with its sessions.
///
/// For one session, one call comes behind the other: `on_open`, `on_message` for each message in order, `on_close`. While
/// `on_message` runs, the session goes on: what was sent leaves, pings are answered, and one further message is read. So a
/// handler that takes its time holds up the client that it works for, and no other one. When the session ends meanwhile,
/// the handler goes on to its end, and what it sends is an error.
///
/// A panic ends the session with 1011, and is logged with its place.
///
/// ```
/// use wss_service::{Closed, Handler, HandlerError, Message, Refusal, Session, StatusCode};
///
/// struct Shout;
///
/// impl Handler for Shout {
///     async fn on_open(&self, session: &Session) -> Result<(), Refusal> {
///         if session.field("origin") == Some("https://domain.com") { Ok(()) } else { Err(StatusCode::FORBIDDEN.into()) }
///     }
///
///     async fn on_message(&self, session: &Session, message: Message) -> Result<(), HandlerError> {
///         if let Some(text) = message.as_text() {
///             session.send(text.to_uppercase()).await?;
///         }
///         Ok(())
///     }
///
///     async fn on_close(&self, session: &Session, closed: &Closed) {
///         println!("{:016x}: {} ({})", session.id(), closed.cause, closed.code);
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// A proper handshake has come. The client gets its answer when this returns: the session opens, or it is refused.
    /// What is sent to the session meanwhile has to fit into its outbox: it leaves behind the answer. The log shows the first
    /// line of a [`Refusal`]'s text.
    ///
    /// The session is among all already: what it joins and attaches here is there when the first message comes.
    ///
    /// # Cancel safety
    /// If the client goes before this has returned, the call is dropped, and there is no [`Self::on_close`]: what has to be
    /// undone, a guard has to undo, for instance one that is attached to the session.
    fn on_open(&self, session: &Session) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = session;
        ready(Ok(()))
    }

    /// A whole message has come.
    ///
    /// # Errors
    /// Any: the session ends with 1011.
    fn on_message(
        &self,
        session: &Session,
        message: Message,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// The session is over. It is called once for each session that [`Self::on_open`] has let in, also if its connection
    /// went before the session began; not if the service was dropped.
    fn on_close(&self, session: &Session, closed: &Closed) -> impl Future<Output = ()> + Send {
        let _ = (session, closed);
        ready(())
    }
}

/// What a closure may return for a message: nothing, or a result whose error ends the session.
pub trait IntoHandled {
    /// As [`Handler::on_message`] returns it.
    ///
    /// # Errors
    /// The closure's own.
    fn into_handled(self) -> Result<(), HandlerError>;
}

impl IntoHandled for () {
    fn into_handled(self) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl<E: Into<HandlerError>> IntoHandled for Result<(), E> {
    fn into_handled(self) -> Result<(), HandlerError> {
        self.map_err(Into::into)
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type OnOpen = dyn Fn(Session) -> Boxed<Result<(), Refusal>> + Send + Sync;
type OnMessage = dyn Fn(Session, Message) -> Boxed<Result<(), HandlerError>> + Send + Sync;
type OnClose = dyn Fn(Session, Closed) -> Boxed<()> + Send + Sync;

/// A handler that is made of closures ([`Service::on_message`](crate::Service::on_message) and its siblings). Without one
/// for messages, they are read and dropped.
#[derive(Default)]
pub struct Closures {
    open: Option<Box<OnOpen>>,
    message: Option<Box<OnMessage>>,
    close: Option<Box<OnClose>>,
}

impl Closures {
    pub(crate) fn set_open<F, Fut>(&mut self, f: F)
    where
        F: Fn(Session) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.open = Some(Box::new(move |session| Box::pin(f(session))));
    }

    pub(crate) fn set_message<F, Fut, R>(&mut self, f: F)
    where
        F: Fn(Session, Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: IntoHandled,
    {
        self.message = Some(Box::new(move |session, message| {
            let handling = f(session, message);
            Box::pin(async move { handling.await.into_handled() })
        }));
    }

    pub(crate) fn set_close<F, Fut>(&mut self, f: F)
    where
        F: Fn(Session, Closed) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.close = Some(Box::new(move |session, closed| Box::pin(f(session, closed))));
    }
}

impl fmt::Debug for Closures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closures")
            .field("on_open", &self.open.is_some())
            .field("on_message", &self.message.is_some())
            .field("on_close", &self.close.is_some())
            .finish()
    }
}

impl Handler for Closures {
    async fn on_open(&self, session: &Session) -> Result<(), Refusal> {
        match &self.open {
            Some(open) => open(session.clone()).await,
            None => Ok(()),
        }
    }

    async fn on_message(&self, session: &Session, message: Message) -> Result<(), HandlerError> {
        match &self.message {
            Some(handle) => handle(session.clone(), message).await,
            None => Ok(()),
        }
    }

    async fn on_close(&self, session: &Session, closed: &Closed) {
        if let Some(close) = &self.close {
            close(session.clone(), closed.clone()).await;
        }
    }
}
