//! One WebSocket, as the program has it: a handle that any task may use.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use frame_core::endpoint::{MessageKind, SharedFrame};
use frame_core::handle::SessionHandle;
use frame_core::outcome::RoundTrips;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderName, Version};
use upgrade_handler::fields::elements;

use crate::client::{Link, Opening, Tls};
use crate::closed::{Cause, CloseCode, short_reason};
use crate::groups::{Groups, Member};
use crate::message::Message;
use crate::outbox::{Order, Outbox, SendError};

/// One WebSocket. Cheap to clone, and usable from any task, also after the session has ended: what is sent then is an
/// error, [`SendError::Over`].
///
/// In `on_open` a session may already be sent to; it leaves behind the answer to the handshake.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    id: u64,
    link: Arc<Link>,
    opening: Opening,
    outbox: Outbox,
    handle: SessionHandle,
    groups: Arc<Groups<Session>>,
    data: Mutex<Data>,
}

/// Values by their types.
type Data = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

impl Session {
    /// A session that is in no group yet, and not among all.
    pub(crate) fn new(
        link: Arc<Link>,
        opening: Opening,
        outbox: Outbox,
        groups: Arc<Groups<Self>>,
        handle: SessionHandle,
    ) -> Self {
        let (id, data) = (rand::random(), Mutex::default());
        Self(Arc::new(Inner { id, link, opening, outbox, handle, groups, data }))
    }

    /// Its number: random, and the same for its whole life.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Where the connection comes from: the client, or the last proxy before this service.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.0.link.peer
    }

    /// The client's address, as trusted proxies and balancers say it
    /// ([`Service::trusted_proxies`](crate::Service::trusted_proxies),
    /// [`Service::proxy_protocol`](crate::Service::proxy_protocol)).
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.0.opening.client
    }

    /// The address of this service that the connection came to. `None` in a session of [`Attached`](crate::Attached).
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.0.link.local
    }

    /// What the TLS handshake has brought: server name, version, the client's certificate. `None` without TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.0.link.tls.as_ref()
    }

    /// The version of HTTP by which it was opened.
    #[must_use]
    pub fn http_version(&self) -> Version {
        self.0.opening.version
    }

    /// The path of the request, as the client wrote it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.opening.path
    }

    /// What stood behind the `?`, as the client wrote it.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.0.opening.query.as_deref()
    }

    /// All fields of the request.
    #[must_use]
    pub fn fields(&self) -> &HeaderMap {
        &self.0.opening.fields
    }

    /// The first value of a field, if it is visible ASCII.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let name = HeaderName::try_from(name).ok()?;
        self.0.opening.fields.get(name)?.to_str().ok()
    }

    /// Subprotocols that the client has offered, in the order of its preference.
    pub fn offered_subprotocols(&self) -> impl Iterator<Item = &str> {
        elements(&self.0.opening.fields, SEC_WEBSOCKET_PROTOCOL)
    }

    /// The one that is spoken ([`Service::subprotocols`](crate::Service::subprotocols)).
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.0.opening.protocol.as_deref()
    }

    /// Attaches a value of the program's own. There is one of each type; returns the one before. It is dropped with the last
    /// handle of the session.
    pub fn attach<T: Send + Sync + 'static>(&self, value: T) -> Option<Arc<T>> {
        let before = self.data().insert(TypeId::of::<T>(), Arc::new(value))?;
        before.downcast().ok()
    }

    /// The attached value of this type.
    #[must_use]
    pub fn data_of<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = self.data().get(&TypeId::of::<T>())?.clone();
        value.downcast().ok()
    }

    /// Queues a message for the client. If its outbox is full, this waits, or does what
    /// [`Settings::slow_client`](crate::Settings::slow_client) says. Messages of one task arrive in their order.
    ///
    /// # Errors
    /// [`SendError::Over`] if the session is over.
    ///
    /// # Cancel safety
    /// Safe: a dropped call has sent the message or nothing of it.
    pub async fn send(&self, message: impl Into<Message> + Send) -> Result<(), SendError> {
        let frame = message.into().into_frame();
        self.0.outbox.send(&frame).await
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// [`SendError::Full`] where [`Self::send`] would wait, [`SendError::Over`] if the session is over.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.0.outbox.offer(&message.into().into_frame())
    }

    /// Begins a text message that is sent in parts, as fragments (RFC 6455 §5.4). What others send meanwhile arrives
    /// behind it.
    ///
    /// # Errors
    /// [`SendError::Over`] if the session is over.
    ///
    /// # Cancel safety
    /// Safe. It waits while another such message is open.
    pub async fn begin_text(&self) -> Result<TextParts, SendError> {
        Ok(TextParts(self.begin(MessageKind::Text).await?))
    }

    /// The same for a binary message.
    ///
    /// # Errors
    /// As [`Self::begin_text`].
    pub async fn begin_binary(&self) -> Result<BinaryParts, SendError> {
        Ok(BinaryParts(self.begin(MessageKind::Binary).await?))
    }

    async fn begin(&self, kind: MessageKind) -> Result<Parts, SendError> {
        self.0.outbox.open_message().await?;
        Ok(Parts { session: self.clone(), first: Some(kind), is_finished: false })
    }

    /// Sends a Ping with a payload of at most 125 bytes; more are cut off. The service pings silent clients anyway.
    ///
    /// # Errors
    /// [`SendError::Full`] if the outbox is, [`SendError::Over`] if the session is over.
    pub fn ping(&self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.0.outbox.offer_control(&SharedFrame::ping(payload.into()))
    }

    /// How long the client took to answer the service's pings ([`Settings::ping_interval`](crate::Settings::ping_interval)).
    /// `None`: it has answered none yet, or the session is over.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn round_trips(&self) -> Option<RoundTrips> {
        loop {
            let answer = self.0.handle.request_snapshot();
            let answered = tokio::select! {
                answered = answer => answered,
                () = self.0.outbox.over() => return None,
            };
            if let Ok(snapshot) = answered {
                return snapshot.pings;
            }
            // Another task has asked at the same time, and got the answer.
        }
    }

    /// Ends the session when all that was sent before has left. A reason has at most 123 bytes; more are cut off. Of
    /// several calls the first counts.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let reason = short_reason(reason).into();
        self.0.outbox.close(Order { code, reason, cause: Cause::ClosedByServer });
    }

    /// The session has ended, or its end has begun.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.outbox.is_over()
    }

    /// Waits until the session has ended, or its end has begun. So a task that works for it ends with it:
    ///
    /// ```
    /// # async fn next_price() -> String { String::new() }
    /// async fn prices(session: wss_service::Session) {
    ///     loop {
    ///         tokio::select! {
    ///             () = session.over() => return,
    ///             price = next_price() => drop(session.send(price).await),
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn over(&self) {
        self.0.outbox.over().await;
    }

    /// Bytes that wait for the client, those in the system's buffers not counted.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.0.outbox.bytes()
    }

    /// Messages that were dropped for newer ones ([`SlowClient::DropOldest`](crate::SlowClient::DropOldest)).
    #[must_use]
    pub fn dropped_messages(&self) -> u64 {
        self.0.outbox.dropped()
    }

    /// From now on the session belongs to this user, and to no other one. A user may have many sessions.
    pub fn bind_user(&self, user: &str) {
        self.0.groups.bind_user(self.id(), Some(user));
    }

    /// The session belongs to no user any more.
    pub fn unbind_user(&self) {
        self.0.groups.bind_user(self.id(), None);
    }

    /// The user that it belongs to.
    #[must_use]
    pub fn user(&self) -> Option<Arc<str>> {
        self.0.groups.user_of(self.id())
    }

    /// Puts the session into a group; returns whether it was not in it before. It leaves its groups when it ends.
    pub fn join(&self, group: &str) -> bool {
        self.0.groups.join(self.id(), group)
    }

    /// Takes the session out of a group; returns whether it was in it.
    pub fn leave(&self, group: &str) -> bool {
        self.0.groups.leave(self.id(), group)
    }

    /// The groups that it is in, in no order.
    #[must_use]
    pub fn groups(&self) -> Vec<Arc<str>> {
        self.0.groups.groups_of(self.id())
    }

    pub(crate) fn all_groups(&self) -> &Arc<Groups<Self>> {
        &self.0.groups
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    pub(crate) fn handle(&self) -> &SessionHandle {
        &self.0.handle
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.0.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member for Session {
    fn id(&self) -> u64 {
        self.0.id
    }

    fn place(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Session {}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = format_args!("{:016x}", self.id());
        f.debug_struct("Session").field("id", &id).field("client", &self.client()).finish_non_exhaustive()
    }
}

/// A text message that is sent in parts. Dropped before [`Self::finish`], it ends the session with 1011, since the message
/// can't be whole any more.
#[derive(Debug)]
pub struct TextParts(Parts);

impl TextParts {
    /// Sends a part, and waits for room whatever [`Settings::slow_client`](crate::Settings::slow_client) says.
    ///
    /// # Errors
    /// [`SendError::Over`] if the session is over.
    ///
    /// # Cancel safety
    /// Safe: a dropped call has sent the part or nothing of it.
    pub async fn send(&mut self, part: &str) -> Result<(), SendError> {
        self.0.send(Bytes::copy_from_slice(part.as_bytes())).await
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`SendError::Over`] if the session is over.
    ///
    /// # Cancel safety
    /// A dropped call gives the message up, if it has not ended it.
    pub async fn finish(self) -> Result<(), SendError> {
        self.0.finish().await
    }
}

/// A binary message that is sent in parts; as [`TextParts`].
#[derive(Debug)]
pub struct BinaryParts(Parts);

impl BinaryParts {
    /// As [`TextParts::send`].
    ///
    /// # Errors
    /// [`SendError::Over`] if the session is over.
    ///
    /// # Cancel safety
    /// Safe: a dropped call has sent the part or nothing of it.
    pub async fn send(&mut self, part: impl Into<Bytes> + Send) -> Result<(), SendError> {
        let part = part.into();
        self.0.send(part).await
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`SendError::Over`] if the session is over.
    ///
    /// # Cancel safety
    /// A dropped call gives the message up, if it has not ended it.
    pub async fn finish(self) -> Result<(), SendError> {
        self.0.finish().await
    }
}

#[derive(Debug)]
struct Parts {
    session: Session,
    /// What the next part begins; `None`: it continues.
    first: Option<MessageKind>,
    is_finished: bool,
}

impl Parts {
    async fn send(&mut self, part: Bytes) -> Result<(), SendError> {
        let frame = SharedFrame::fragment(self.first, false, part);
        self.session.outbox().send_part(&frame, false).await?;
        self.first = None;
        Ok(())
    }

    async fn finish(mut self) -> Result<(), SendError> {
        let frame = SharedFrame::fragment(self.first, true, Bytes::new());
        self.session.outbox().send_part(&frame, true).await?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if !self.is_finished {
            let reason = "unfinished message".into();
            let order = Order { code: CloseCode::INTERNAL_ERROR, reason, cause: Cause::Unfinished };
            self.session.outbox().close_now(order);
        }
    }
}
