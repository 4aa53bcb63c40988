//! Sending to sessions, users, groups and all, from anywhere in the program.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::task::yield_now;

#[cfg(feature = "cluster")]
use crate::elsewhere::{Channel, Published};
use crate::groups::{Groups, Members};
use crate::message::Message;
use crate::outbox::{Outbox, SendError};
use crate::session::Session;
use crate::totals::Totals;
use crate::unreached::Unreached;

/// Sessions that are offered a message before they are polled and write it: what of them is in the cache then is used
/// twice, and other tasks don't wait for all.
const AT_ONCE: usize = 128;

/// All sessions of a service. Cheap to clone, and usable from any task.
#[derive(Debug, Clone, Default)]
pub struct Hub(Arc<Groups<Session>>);

/// Who is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To<'a> {
    /// The session with this number ([`Session::id`]).
    Session(u64),
    /// All sessions of a user ([`Session::bind_user`]).
    User(&'a str),
    /// All sessions in a group ([`Session::join`]).
    Group(&'a str),
    /// All sessions.
    All,
}

/// How many sessions of this process a message has been queued for. Whether clients have got it, only clients can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivery {
    /// Sessions for which it was queued.
    pub queued: usize,
    /// Sessions that were over, or whose outbox was full and was not waited for.
    pub missed: usize,
    /// Why other processes of a cluster will not get it, or may not. `None`: the engine has it, or there is no cluster.
    pub unreached: Option<Unreached>,
}

impl Hub {
    /// Queues a message for all who are meant. The frame is made once, and compressed once at most
    /// ([`Compression`](crate::Compression)), and its bytes are shared. Those whose outbox is full
    /// are waited for at the end, if [`SlowClient::Wait`](crate::SlowClient::Wait) holds: use [`Self::try_send_to`] if the
    /// slowest client must not hold up the sender.
    ///
    /// In a cluster, it goes to other processes, too, and this waits until the engine has it.
    ///
    /// # Cancel safety
    /// Safe: a dropped call has queued the message for some of the sessions, whole for each.
    pub async fn send_to(&self, to: To<'_>, message: impl Into<Message> + Send) -> Delivery {
        self.send_to_but(None, to, message.into()).await
    }

    /// `but`: this session is not meant.
    async fn send_to_but(&self, but: Option<u64>, to: To<'_>, message: Message) -> Delivery {
        #[cfg(feature = "cluster")]
        let published = self.publish(to, &message);
        let frame = message.into_frame().compressed_once();
        let (mut delivery, mut full) = Default::default();
        for (n, sessions) in self.members(to).chunks(AT_ONCE).enumerate() {
            if n > 0 {
                yield_now().await;
            }
            let sessions = sessions.iter().filter(|session| Some(session.id()) != but);
            offer(sessions, |outbox| outbox.offer_room(&frame), &mut delivery, &mut full);
        }
        // All at once: none of them is to wait for another one.
        for sent in join_all(full.iter().map(|session| session.outbox().send(&frame))).await {
            match sent {
                Ok(()) => delivery.queued += 1,
                Err(_) => delivery.missed += 1,
            }
        }
        #[cfg(feature = "cluster")]
        {
            delivery.unreached = published.done().await;
        }
        delivery
    }

    /// The same without waiting: who has a full outbox misses the message, where senders wait. Of other processes it is only
    /// known whether the message waits for the engine.
    pub fn try_send_to(&self, to: To<'_>, message: impl Into<Message>) -> Delivery {
        let message = message.into();
        #[cfg(feature = "cluster")]
        let unreached = self.publish(to, &message).so_far();
        #[cfg(not(feature = "cluster"))]
        let unreached = None;
        Delivery { unreached, ..self.deliver_here(to, message) }
    }

    /// To sessions of this process alone, without waiting.
    pub(crate) fn deliver_here(&self, to: To<'_>, message: Message) -> Delivery {
        let (mut delivery, mut full) = Default::default();
        let frame = message.into_frame().compressed_once();
        offer(self.members(to).iter(), |outbox| outbox.offer(&frame), &mut delivery, &mut full);
        delivery.missed += full.len();
        delivery
    }

    /// To other processes, if there are any that it could be for.
    #[cfg(feature = "cluster")]
    fn publish(&self, to: To<'_>, message: &Message) -> Published {
        let Some(publisher) = self.0.publisher.get() else { return Published::Alone };
        match to {
            To::Session(id) if self.0.get(id).is_some() => Published::Alone,
            To::Session(id) => publisher.publish(Channel::Session, Some(id), message),
            To::User(user) => publisher.publish(Channel::User(user), None, message),
            To::Group(group) => publisher.publish(Channel::Group(group), None, message),
            To::All => publisher.publish(Channel::All, None, message),
        }
    }

    /// Those who are meant, at this moment.
    fn members(&self, to: To<'_>) -> Members<Session> {
        match to {
            To::Session(id) => self.0.get(id).into_iter().collect(),
            To::User(user) => self.0.of_user(user),
            To::Group(group) => self.0.of_group(group),
            To::All => self.0.all(),
        }
    }

    /// The session with this number, if it is here.
    #[must_use]
    pub fn session(&self, id: u64) -> Option<Session> {
        self.0.get(id)
    }

    /// The sessions that are meant, at this moment, in no order.
    #[must_use]
    pub fn sessions(&self, to: To<'_>) -> Vec<Session> {
        self.members(to).to_vec()
    }

    /// The user has a session here.
    #[must_use]
    pub fn is_online(&self, user: &str) -> bool {
        self.0.count_of_user(user) > 0
    }

    /// How many sessions are meant.
    #[must_use]
    pub fn count(&self, to: To<'_>) -> usize {
        match to {
            To::Session(id) => usize::from(self.0.get(id).is_some()),
            To::User(user) => self.0.count_of_user(user),
            To::Group(group) => self.0.count_of_group(group),
            To::All => self.0.count(),
        }
    }

    /// How many users have a session here.
    #[must_use]
    pub fn users_count(&self) -> usize {
        self.0.counts().0
    }

    /// How many groups there are: those with a session in them.
    #[must_use]
    pub fn groups_count(&self) -> usize {
        self.0.counts().1
    }

    /// The users that have a session here, in no order.
    #[must_use]
    pub fn user_names(&self) -> Vec<Arc<str>> {
        self.0.user_names()
    }

    /// The groups that have a session here, in no order.
    #[must_use]
    pub fn group_names(&self) -> Vec<Arc<str>> {
        self.0.group_names()
    }

    /// What the service has done since it was made.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.0.counter.totals()
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut Totals)) {
        self.0.counter.note(change);
    }

    pub(crate) fn groups(&self) -> &Arc<Groups<Session>> {
        &self.0
    }
}

/// Those whose outbox is full go into `full`.
fn offer<'a>(
    sessions: impl Iterator<Item = &'a Session>,
    queue: impl Fn(&Outbox) -> Result<(), SendError>,
    delivery: &mut Delivery,
    full: &mut Vec<Session>,
) {
    for session in sessions {
        match queue(session.outbox()) {
            Ok(()) => delivery.queued += 1,
            Err(SendError::Full) => full.push(session.clone()),
            Err(SendError::Over) => delivery.missed += 1,
        }
    }
}

impl Session {
    /// All sessions of the service.
    #[must_use]
    pub fn hub(&self) -> Hub {
        Hub(self.all_groups().clone())
    }

    /// As [`Hub::send_to`], but not to this session: what a client says goes to the others.
    ///
    /// # Cancel safety
    /// Safe: a dropped call has queued the message for some of the sessions, whole for each.
    pub async fn send_to_others(&self, to: To<'_>, message: impl Into<Message> + Send) -> Delivery {
        self.hub().send_to_but(Some(self.id()), to, message.into()).await
    }
}
