//! The new gateway's side of a takeover, and sockets from the service manager: what was open before
//! this process was.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tls_acceptor::{TicketError, Tickets};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::lifecycle::upgrade::arrive::Arrival;
use crate::lifecycle::upgrade::origin::Activated;
use crate::lifecycle::upgrade::protocol::{Channel, Handed, Inheritance, SocketOwner, UpgradeMessage};
use crate::net::listening::ListenAddress;
use crate::net::{clock, options};
use crate::ops::control::server::Access;
use crate::ops::control::socket::{SocketClaim, listen_for_all};
use crate::site::Site;
use crate::site::known_name::Names;
use crate::worker;

/// An old gateway that says nothing for so long has given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the gateway could not take over.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    /// The old one has given up, or has ended.
    #[error("the old gateway has given up the takeover, or has ended")]
    Abandoned,
    /// It has said something that this one doesn't understand.
    #[error("the old gateway sent an unexpected message: {0}")]
    Strange(String),
    /// Descriptors are missing.
    #[error("{arrived} of {expected} sockets arrived: raise the limit on open files")]
    Missing {
        /// How many there are.
        arrived: usize,
        /// How many there should be.
        expected: usize,
    },
    /// The socket between the two.
    #[error("communication with the old gateway failed: {0}")]
    Talk(#[from] io::Error),
    /// The ticket keys.
    #[error(transparent)]
    Tickets(#[from] TicketError),
}

/// The gateway that is being taken over.
#[derive(Debug)]
pub(crate) struct Predecessor {
    channel: Channel,
    pub(crate) pid: u32,
    pub(crate) version: String,
    /// How many sockets it has handed over.
    pub(crate) sockets: usize,
}

impl Predecessor {
    /// Takes what the old gateway hands over. Within a runtime.
    ///
    /// # Errors
    /// If it doesn't.
    pub(crate) async fn meet(socket: OwnedFd) -> Result<(Self, Inherited), SuccessionError> {
        let channel = Channel::new(socket)?;
        match Self::receive(&channel).await {
            Ok((pid, version, sockets, inherited)) => {
                Ok((Self { channel, pid, version, sockets }, inherited))
            }
            Err(e) => {
                // If the old gateway has ended, it needn't know.
                let _ = channel.send(&UpgradeMessage::Failed { reason: e.to_string() }, &[]).await;
                Err(e)
            }
        }
    }

    async fn receive(channel: &Channel) -> Result<(u32, String, usize, Inherited), SuccessionError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let hello = UpgradeMessage::Hello { pid: std::process::id(), version, takes_servers: true };
        channel.send(&hello, &[]).await?;
        let (pid, version, expected, drained, pieces) = match next(channel).await? {
            (UpgradeMessage::Offer { pid, version, sockets, drained, servers }, _) => {
                (pid, version, sockets, drained, servers)
            }
            (other, _) => return Err(SuccessionError::Strange(format!("{other:?}"))),
        };
        let (keys, _) = packet(channel).await?;
        let mut servers = Vec::new();
        for _ in 0..pieces {
            servers.push(packet(channel).await?.0);
        }
        let mut inherited = Inherited {
            predecessor: Some(pid),
            drained,
            servers,
            tickets: Some(Tickets::import(&keys)?),
            ..Inherited::default()
        };
        let (mut announced, mut arrived) = (0, 0);
        while announced < expected {
            let (whose, descriptors) = match next(channel).await? {
                (UpgradeMessage::Sockets { whose, count }, descriptors) => {
                    announced += count;
                    (whose, descriptors)
                }
                (other, _) => return Err(SuccessionError::Strange(format!("{other:?}"))),
            };
            arrived += descriptors.len();
            for descriptor in descriptors {
                inherited.add(&whose, descriptor.into());
            }
        }
        if arrived < expected {
            return Err(SuccessionError::Missing { arrived, expected });
        }
        Ok((pid, version, expected, inherited))
    }

    /// All that can fail has been done. Takes sessions, if there is an `arrival` for them, obeys commands that come
    /// meanwhile, and waits for the moment to begin.
    ///
    /// # Errors
    /// If it doesn't come.
    pub(crate) async fn ready(
        &self,
        listeners: Vec<ListenAddress>,
        arrival: &mut Option<Arrival>,
        access: &Access,
    ) -> Result<(), SuccessionError> {
        let takes_sessions = arrival.is_some();
        let ready = UpgradeMessage::Ready { listeners, takes_sessions, takes_commands: true };
        self.channel.send(&ready, &[]).await.map_err(|_| SuccessionError::Abandoned)?;
        loop {
            let received = match timeout(PATIENCE, self.channel.receive()).await {
                Ok(received) => received?,
                Err(_) => return Err(SuccessionError::Abandoned),
            };
            let Some((message, descriptors)) = received else {
                // An old process that gives up kills this one first, if sessions have come.
                if arrival.as_ref().is_some_and(Arrival::has_begun) {
                    warn!("the old process has ended in the middle of the takeover");
                    return Ok(());
                }
                return Err(SuccessionError::Abandoned);
            };
            match self.obey(message, descriptors, arrival, access).await? {
                None => {}
                Some(UpgradeMessage::Go) => return Ok(()),
                Some(other) => return Err(SuccessionError::Strange(format!("{other:?}"))),
            }
        }
    }

    /// Does what a message about sessions or of an operator asks for; another message comes back.
    ///
    /// # Errors
    /// If what comes is not what should come.
    async fn obey(
        &self,
        message: UpgradeMessage,
        descriptors: Vec<OwnedFd>,
        arrival: &mut Option<Arrival>,
        access: &Access,
    ) -> io::Result<Option<UpgradeMessage>> {
        match (message, arrival) {
            (UpgradeMessage::Command(request), _) => {
                let answer = UpgradeMessage::Answer(Box::new(access.change(&request).await));
                self.channel.send(&answer, &[]).await?;
                Ok(None)
            }
            (message, Some(arrival)) => arrival.obey(&self.channel, message, descriptors).await,
            (message, None) => Ok(Some(message)),
        }
    }

    /// It will not be.
    pub(crate) async fn fail(&self, reason: String) {
        let _ = self.channel.send(&UpgradeMessage::Failed { reason }, &[]).await; // as above
    }

    /// Takes what sessions and commands still come, until the old gateway has notified the service manager, or has ended.
    pub(crate) fn withdraw(self, mut arrival: Option<Arrival>, access: Access) -> Withdrawal {
        Withdrawal(tokio::spawn(async move {
            while let Ok(Some((message, descriptors))) = self.channel.receive().await {
                match self.obey(message, descriptors, &mut arrival, &access).await {
                    Ok(Some(UpgradeMessage::End)) => access.end().await,
                    Ok(_) => {}
                    Err(e) => {
                        warn!(cause = %e, "the old process sends no more sessions");
                        break;
                    }
                }
            }
            arrival
        }))
    }
}

/// An old gateway that still speaks for the service.
#[derive(Debug)]
pub(crate) struct Withdrawal(JoinHandle<Option<Arrival>>);

impl Withdrawal {
    /// Waits until it no longer does. Returns what sessions have come.
    ///
    /// # Cancel safety
    /// Safe; not to be asked again after it has answered.
    pub(crate) async fn done(&mut self) -> Option<Arrival> {
        (&mut self.0).await.unwrap_or_default()
    }
}

async fn next(channel: &Channel) -> Result<(UpgradeMessage, Vec<OwnedFd>), SuccessionError> {
    patiently(channel.receive()).await
}

async fn packet(channel: &Channel) -> Result<(Zeroizing<Vec<u8>>, Vec<OwnedFd>), SuccessionError> {
    patiently(channel.receive_bytes()).await
}

async fn patiently<T>(receiving: impl Future<Output = io::Result<Option<T>>>) -> Result<T, SuccessionError> {
    match timeout(PATIENCE, receiving).await {
        Ok(received) => received?.ok_or(SuccessionError::Abandoned),
        Err(_) => Err(SuccessionError::Abandoned),
    }
}

/// A listener's sockets, not accepted on yet.
#[derive(Debug)]
pub(crate) struct BoundListener {
    /// As the configuration calls it.
    pub(crate) address: ListenAddress,
    /// As it is.
    pub(crate) local: ListenAddress,
    /// At least one for each worker. A Unix socket has the same type: the standard library makes one of any descriptor.
    pub(crate) sockets: Vec<TcpListener>,
    /// The path of a Unix socket that was made here.
    pub(crate) claim: Option<SocketClaim>,
    /// The service manager has made it, and removes its path.
    pub(crate) is_activated: bool,
}

/// What was there before this process was.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// The old gateway's, with what its configuration called them.
    handed: Vec<(ListenAddress, TcpListener)>,
    /// The service manager's. They are its own, whatever happens here, so that they are kept, and
    /// are there for a listener that comes back.
    activated: Vec<Activated>,
    /// Those of the old gateway's listeners that go on, as it calls them.
    taken: Vec<ListenAddress>,
    /// The old gateway's ticket keys.
    pub(crate) tickets: Option<Tickets>,
    /// The old gateway's process id.
    pub(crate) predecessor: Option<u32>,
    /// Routes and servers that the old gateway has drained.
    pub(crate) drained: Vec<String>,
    /// What the old gateway knows of servers, in pieces.
    pub(crate) servers: Vec<Zeroizing<Vec<u8>>>,
}

impl Inherited {
    pub(crate) fn new(activated: Vec<Activated>) -> Self {
        Self { activated, ..Self::default() }
    }

    fn add(&mut self, whose: &SocketOwner, socket: TcpListener) {
        match whose {
            SocketOwner::Listener(address) => self.handed.push((address.clone(), socket)),
            SocketOwner::ServiceManager(name) => {
                self.activated.push(Activated { name: name.clone(), socket });
            }
        }
    }

    /// Sockets for the listener at `address`: inherited ones, all that there are, so that no
    /// connection is lost that waits in one of them; else new ones.
    ///
    /// # Errors
    /// As [`options::listen`].
    pub(crate) fn listen(&mut self, address: &ListenAddress, workers: usize) -> io::Result<BoundListener> {
        let bound = |local, sockets| BoundListener {
            address: address.clone(),
            local,
            sockets,
            claim: None,
            is_activated: false,
        };
        let is_it = |activated: &&Activated| is_at(&activated.socket, address);
        if let Some(Activated { socket, .. }) = self.activated.iter().find(is_it) {
            options::adopt(socket)?;
            let sockets = (0..workers).map(|_| socket.try_clone()).collect::<io::Result<_>>()?;
            if !self.taken.contains(address) {
                self.taken.push(address.clone());
            }
            return Ok(BoundListener { is_activated: true, ..bound(options::local(socket)?, sockets) });
        }
        let mut sockets = self.take(|name, _| name == address);
        if sockets.is_empty() {
            sockets = self.take(|_, socket| is_at(socket, address));
        }
        match address {
            ListenAddress::Ip(ip) => {
                let Some(first) = sockets.first() else {
                    let sockets = options::listen(*ip, workers)?;
                    let local = sockets.first().ok_or(io::ErrorKind::InvalidInput)?.local_addr()?;
                    return Ok(bound(local.into(), sockets));
                };
                let local = first.local_addr()?;
                let missing = workers.saturating_sub(sockets.len());
                sockets.extend(options::join(local, missing)?);
                Ok(bound(local.into(), sockets))
            }
            ListenAddress::Unix(path) => {
                let mut claim = None;
                if sockets.is_empty() {
                    let (listener, claimed) = listen_for_all(Path::new(&**path)).map_err(io::Error::other)?;
                    sockets.push(OwnedFd::from(listener).into());
                    claim = Some(claimed);
                }
                while let (Some(first), true) = (sockets.first(), sockets.len() < workers) {
                    sockets.push(first.try_clone()?); // all workers accept on the same
                }
                Ok(BoundListener { claim, ..bound(address.clone(), sockets) })
            }
        }
    }

    fn take(&mut self, is_wanted: impl Fn(&ListenAddress, &TcpListener) -> bool) -> Vec<TcpListener> {
        let wanted = self.handed.extract_if(.., |(name, socket)| is_wanted(name, socket));
        let (names, sockets): (Vec<_>, Vec<_>) = wanted.unzip();
        self.taken.extend(names.into_iter().next());
        sockets
    }

    /// Closes what no listener wants; to be called when all have been asked. What waits there is
    /// accepted by the old gateway.
    pub(crate) fn close_unwanted(&mut self) {
        let mut names: Vec<ListenAddress> = self.handed.drain(..).map(|(name, _)| name).collect();
        names.dedup();
        for address in names {
            info!(%address, "no longer listening");
        }
        for Activated { name, socket } in &self.activated {
            if let Ok(address) = options::local(socket)
                && !self.taken.contains(&address)
            {
                warn!(
                    name, %address,
                    "no listener uses this socket of the service manager: add a [[listener]] with this address, or remove the socket there"
                );
            }
        }
    }

    /// Those of the old gateway's listeners that go on, as it calls them.
    pub(crate) fn taken(&self) -> Vec<ListenAddress> {
        self.taken.clone()
    }

    /// What this gateway leaves to the next: its ticket keys, and every listening socket.
    pub(crate) fn inheritance(
        &self,
        tickets: Tickets,
        drained: Vec<String>,
        site: Arc<ArcSwap<Site>>,
        names: Arc<Names>,
        admin: io::Result<Option<(ListenAddress, OwnedFd)>>,
        workers: Vec<mpsc::UnboundedSender<worker::Command>>,
    ) -> impl Future<Output = io::Result<Inheritance>> + use<> {
        let activated: Vec<_> = self
            .activated
            .iter()
            .map(|activated| {
                let whose = SocketOwner::ServiceManager(activated.name.clone());
                let local = options::local(&activated.socket);
                local.and_then(|local| Ok((local, (whose, activated.socket.try_clone()?.into()))))
            })
            .collect();
        async move {
            let activated: Vec<(ListenAddress, Handed)> = activated.into_iter().collect::<io::Result<_>>()?;
            let lent = lend(workers).await?;
            // What the workers have of the service manager's sockets are duplicates.
            let mut sockets: Vec<Handed> = lent
                .into_iter()
                .filter(|(name, _)| !activated.iter().any(|(local, _)| local == name))
                .map(|(name, socket)| (SocketOwner::Listener(name), socket))
                .collect();
            // One socket, on which no worker accepts.
            sockets.extend(admin?.map(|(name, socket)| (SocketOwner::Listener(name), socket)));
            sockets.extend(activated.into_iter().map(|(_, handed)| handed));
            let mut servers = site.load().leave_servers();
            servers.extend(names.leave(clock::now()));
            Ok(Inheritance { sockets, tickets, drained, servers })
        }
    }
}

fn is_at(socket: &impl AsFd, address: &ListenAddress) -> bool {
    let is_chosen = address.ip().is_some_and(|address| address.port() == 0); // by the system
    !is_chosen && options::local(socket).is_ok_and(|local| local == *address)
}

/// Duplicates of all workers' listening sockets.
///
/// # Errors
/// If a descriptor can't be duplicated; then none may be closed.
async fn lend(
    workers: Vec<mpsc::UnboundedSender<worker::Command>>,
) -> io::Result<Vec<(ListenAddress, OwnedFd)>> {
    let (to, mut from) = mpsc::unbounded_channel();
    for worker in &workers {
        let _ = worker.send(worker::Command::Lend { to: to.clone() });
    }
    drop(to);
    let mut sockets = Vec::new();
    while let Some((address, socket)) = from.recv().await {
        sockets.push((address, socket?));
    }
    sockets.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(sockets)
}
