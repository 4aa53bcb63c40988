//! What two gateways say to each other at a takeover, over a Unix socket between them.
//!
//! ```text
//! new ── Hello ──────────────────────► old     it runs
//! new ◄── Offer, ticket keys ───────── old     as they are
//! new ◄── packets, … ───────────────── old     what is known of servers, if Hello says that it takes that
//! new ◄── Sockets, Sockets, … ──────── old     with the descriptors
//! new ── Ready ──────────────────────► old     or Failed: all that can fail has been done
//!     (sessions, as below)
//! new ◄── Go ───────────────────────── old     from here on the new one accepts, the old one no more
//!     (sessions, as below: those that were opened meanwhile)
//! new ◄── Left ─────────────────────── old     how many stay, and why
//! new ◄── End ──────────────────────── old     only if the old one was told to end before Go
//! new ◄── (closed) ─────────────────── old     the service manager knows the new one
//! ```
//!
//! If Ready says that the new one takes sessions, they come in batches, one after the other:
//!
//! ```text
//! new ◄── Sessions, records, … ─────── old     frozen, with the descriptors
//! new ── Taken ──────────────────────► old     but for those that can't be: they go on in the old one
//! new ◄── Begin ────────────────────── old     the old one has let go of those that were taken; their orders
//! ```
//!
//! If Ready says that the new one takes commands, what operators tell the old one meanwhile goes there, too, between two
//! batches:
//!
//! ```text
//! new ◄── Command ──────────────────── old     close, drain or undrain
//! new ── Answer ─────────────────────► old
//! ```
//!
//! A message is a packet, of JSON but for keys and records. A field that the other side doesn't know is ignored by it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use frame_core::handle::{EndMode, Order};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use tls_acceptor::Tickets;
use tokio::io::Interest;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::net::listening::ListenAddress;
use crate::ops::control::protocol::{ControlResponse, Request};

/// Descriptors in one message; the kernel takes 253.
pub(crate) const DESCRIPTORS_MAX: usize = 200;
/// The longest message.
const LEN_MAX: usize = 128 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UpgradeMessage {
    Hello {
        pid: u32,
        version: String,
        /// What is known of servers may be sent to it.
        #[serde(default)]
        takes_servers: bool,
    },
    Offer {
        pid: u32,
        version: String,
        /// How many descriptors will follow.
        sockets: usize,
        /// Routes and servers that are drained by order.
        #[serde(default)]
        drained: Vec<String>,
        /// How many packets with what is known of servers follow the ticket keys.
        #[serde(default)]
        servers: usize,
    },
    /// So many descriptors come with it.
    Sockets {
        whose: SocketOwner,
        count: usize,
    },
    Ready {
        /// Those of the offered listeners that it goes on with.
        listeners: Vec<ListenAddress>,
        /// Sessions may be moved to it.
        #[serde(default)]
        takes_sessions: bool,
        /// Commands of operators, and the order to end, may be sent to it.
        #[serde(default)]
        takes_commands: bool,
    },
    /// Frozen sessions: two descriptors of each come with it, and their records in the packets that follow.
    Sessions {
        count: usize,
        /// Of all records together.
        bytes: usize,
        /// New sessions get ids above.
        last_id: u64,
    },
    /// The sessions of the batch wait for their beginning, but for these, by their places in it.
    Taken {
        refused: Vec<(usize, String)>,
    },
    /// The sessions that were taken are the new one's.
    Begin {
        /// Of those that were ordered to end, perhaps since they froze.
        #[serde(default)]
        orders: Vec<PlacedOrder>,
    },
    /// Sessions that stay, by reason.
    Left {
        sessions: BTreeMap<String, usize>,
    },
    /// What an operator has told the old one, which has not gone yet.
    Command(Request),
    /// What came of it.
    Answer(Box<ControlResponse>),
    /// The old one was told to end before the new one was to go: that was meant for the service.
    End,
    Failed {
        reason: String,
    },
    Go,
}

/// An order to a session that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedOrder {
    /// The session's place in the batch.
    pub(crate) place: usize,
    /// The close code.
    pub(crate) code: u16,
    /// How long messages in flight are waited for; `None`: it ends at once.
    pub(crate) within_ms: Option<u64>,
}

impl PlacedOrder {
    /// The order of the session at this place.
    pub(crate) fn new(place: usize, Order { code, mode }: Order) -> Self {
        let within_ms = match mode {
            EndMode::AfterMessages { within } => Some(u64::try_from(within.as_millis()).unwrap_or(u64::MAX)),
            EndMode::Now => None,
        };
        Self { place, code, within_ms }
    }

    /// What the session is told.
    pub(crate) fn order(self) -> Order {
        let mode = match self.within_ms {
            Some(within) => EndMode::AfterMessages { within: Duration::from_millis(within) },
            None => EndMode::Now,
        };
        Order { code: self.code, mode }
    }
}

/// What listening sockets belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SocketOwner {
    /// A listener, by its address in the configuration.
    Listener(ListenAddress),
    /// The service manager, by the name it gave the socket.
    ServiceManager(String),
}

/// A listening socket on its way.
pub(crate) type Handed = (SocketOwner, OwnedFd);

/// What one gateway leaves to the next.
#[derive(Debug)]
pub(crate) struct Inheritance {
    /// The same owner's are neighbours.
    pub(crate) sockets: Vec<Handed>,
    pub(crate) tickets: Tickets,
    /// Routes and servers that are drained by order.
    pub(crate) drained: Vec<String>,
    /// What is known of servers, in pieces.
    pub(crate) servers: Vec<Zeroizing<Vec<u8>>>,
}

/// One end of the socket. It keeps packets apart (`SOCK_SEQPACKET`), for which tokio has no name.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl Channel {
    /// Both ends; the other one is for another process.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Within a runtime.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(socket)?))
    }

    /// Sends a message, with descriptors.
    ///
    /// # Errors
    /// `BrokenPipe` if the other side has gone.
    ///
    /// # Cancel safety
    /// Safe: it is sent whole or not at all.
    pub(crate) async fn send(
        &self,
        message: &UpgradeMessage,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.send_bytes(&serde_json::to_vec(message)?, descriptors).await
    }

    /// Sends bytes, at least one, as a packet.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn send_bytes(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let sending = self.0.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::Error::other("too many descriptors in a message"));
            }
            Ok(sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
        });
        sending.await.map(drop)
    }

    /// The next message with its descriptors; `None` if the other side has gone.
    ///
    /// # Errors
    /// Also if what comes is no message.
    ///
    /// # Cancel safety
    /// Safe: none is lost.
    pub(crate) async fn receive(&self) -> io::Result<Option<(UpgradeMessage, Vec<OwnedFd>)>> {
        let Some((text, descriptors)) = self.receive_bytes().await? else { return Ok(None) };
        Ok(Some((serde_json::from_slice(&text)?, descriptors)))
    }

    /// The next packet as it is; `None` if the other side has gone.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Cancel safety
    /// Safe: none is lost.
    pub(crate) async fn receive_bytes(&self) -> io::Result<Option<(Zeroizing<Vec<u8>>, Vec<OwnedFd>)>> {
        let mut bytes = Zeroizing::new(vec![0; LEN_MAX]);
        let receiving = self.0.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let into = &mut [IoSliceMut::new(&mut bytes)];
            let received = match recvmsg(&self.0, into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                // It has gone with something unread; what it said before is still there.
                Err(Errno::CONNRESET) => recvmsg(&self.0, into, &mut control, RecvFlags::CMSG_CLOEXEC),
                received => received,
            };
            let len = received?.bytes;
            let mut descriptors = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            Ok((len, descriptors))
        });
        let (len, descriptors) = receiving.await?;
        bytes.truncate(len);
        Ok((len > 0).then_some((bytes, descriptors)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn descriptors_arrive_with_their_message() {
        let (old, new) = Channel::pair().unwrap();
        let new = Channel::new(new).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let whose = SocketOwner::Listener("127.0.0.1:443".parse().unwrap());
        let message = UpgradeMessage::Sockets { whose: whose.clone(), count: DESCRIPTORS_MAX };
        old.send(&message, &[listener.as_fd(); DESCRIPTORS_MAX]).await.unwrap();
        old.send_bytes(b"secret", &[]).await.unwrap();
        old.send(&UpgradeMessage::Go, &[]).await.unwrap();
        let (UpgradeMessage::Sockets { whose: seen, count }, sockets) = new.receive().await.unwrap().unwrap()
        else {
            panic!()
        };
        assert_eq!((seen, count, sockets.len()), (whose, DESCRIPTORS_MAX, DESCRIPTORS_MAX));
        let same = TcpListener::from(sockets.into_iter().next_back().unwrap());
        assert_eq!(same.local_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(*new.receive_bytes().await.unwrap().unwrap().0, b"secret");
        // What was said before the end is heard, even if the other end has left something unread.
        new.send(&UpgradeMessage::Go, &[]).await.unwrap();
        drop(old);
        assert!(matches!(new.receive().await.unwrap(), Some((UpgradeMessage::Go, _))));
        assert!(new.receive().await.unwrap().is_none());
        let error = new.send(&UpgradeMessage::Go, &[]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_error() {
        let (old, new) = Channel::pair().unwrap();
        let new = Channel::new(new).unwrap();
        for wrong in ["{", "{\"offer\":{}}", "\"stop\""] {
            old.send_bytes(wrong.as_bytes(), &[]).await.unwrap();
            assert!(new.receive().await.is_err(), "{wrong}");
        }
        // A field of another version is not in the way.
        old.send_bytes(br#"{"hello":{"pid":7,"version":"9","mood":"fine"}}"#, &[]).await.unwrap();
        assert!(matches!(new.receive().await.unwrap(), Some((UpgradeMessage::Hello { pid: 7, .. }, _))));
    }
}
