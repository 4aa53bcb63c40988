//! The new gateway's side of the moving of sessions: receives them in batches, has its workers put them together, and
//! lets them go on when the old one has let go of them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::context::transit::ArrivingSession;
use crate::lifecycle::upgrade::batch;
use crate::lifecycle::upgrade::protocol::{Channel, PlacedOrder, UpgradeMessage};
use crate::worker::{Command, Handle};

/// Where sessions are taken to.
#[derive(Debug)]
pub(crate) struct Arrival {
    workers: Vec<WorkerEntrance>,
    /// The worker that gets the next session.
    next: usize,
    /// In the batch that waits for its beginning.
    waiting: usize,
    /// How long each session was frozen that goes on here.
    frozen: Vec<Duration>,
    /// Sessions that stay in the old process, by reason.
    pub(crate) left: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct WorkerEntrance {
    commands: tokio::sync::mpsc::UnboundedSender<Command>,
    sessions: std::sync::Arc<crate::context::registry::Registry>,
}

/// What sessions that have come were like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArrivalSummary {
    /// Sessions that go on here.
    pub(crate) sessions: usize,
    /// How long 99 % of them were frozen at most.
    pub(crate) frozen_p99: Duration,
    /// The longest.
    pub(crate) frozen_max: Duration,
}

impl Arrival {
    pub(crate) fn new(workers: &[Handle]) -> Self {
        let workers = workers.iter().map(|worker| WorkerEntrance {
            commands: worker.commands.clone(),
            sessions: worker.sessions.clone(),
        });
        Self { workers: workers.collect(), next: 0, waiting: 0, frozen: Vec::new(), left: BTreeMap::new() }
    }

    /// Does what a message about sessions asks for; another message comes back.
    ///
    /// # Errors
    /// If what comes is not what should come.
    pub(crate) async fn obey(
        &mut self,
        channel: &Channel,
        message: UpgradeMessage,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Option<UpgradeMessage>> {
        match message {
            UpgradeMessage::Sessions { count, bytes, last_id } => {
                for worker in &self.workers {
                    worker.sessions.number_from(last_id);
                }
                let arrived = descriptors.len();
                let refused = match batch::receive(channel, descriptors, count, bytes).await? {
                    Some(sessions) => self.take(sessions).await,
                    None => {
                        let why = format!(
                            "{arrived} of {} sockets of sessions arrived: raise the limit on open files",
                            2 * count
                        );
                        (0..count).map(|place| (place, why.clone())).collect()
                    }
                };
                self.waiting = count.saturating_sub(refused.len());
                channel.send(&UpgradeMessage::Taken { refused }, &[]).await?;
            }
            UpgradeMessage::Begin { orders } => self.begin(&orders).await,
            UpgradeMessage::Left { sessions } => self.left = sessions,
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    /// Deals sessions to the workers, one to each in turn. Returns those that can't be taken, and why.
    async fn take(&mut self, sessions: Vec<ArrivingSession>) -> Vec<(usize, String)> {
        let mut shares: Vec<Vec<ArrivingSession>> = self.workers.iter().map(|_| Vec::new()).collect();
        for session in sessions {
            shares[self.next].push(session);
            self.next = (self.next + 1) % self.workers.len();
        }
        let mut answers = Vec::new();
        for (worker, share) in self.workers.iter().zip(shares) {
            let places: Vec<usize> = share.iter().map(|session| session.place).collect();
            let (refused, answer) = oneshot::channel();
            let _ = worker.commands.send(Command::Take { sessions: share, refused }); // see below
            answers.push((places, answer));
        }
        let mut refused = Vec::new();
        for (places, answer) in answers {
            match answer.await {
                Ok(some) => refused.extend(some),
                Err(_) => {
                    refused.extend(places.into_iter().map(|place| (place, "a worker has ended".to_owned())));
                }
            }
        }
        refused
    }

    async fn begin(&mut self, orders: &[PlacedOrder]) {
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (frozen, answer) = oneshot::channel();
            let orders = orders.iter().map(|order| (order.place, order.order())).collect();
            let _ = worker.commands.send(Command::Begin { orders, frozen }); // a worker that has ended has none
            answers.push(answer);
        }
        for answer in answers {
            self.frozen.extend(answer.await.unwrap_or_default());
        }
        self.waiting = 0;
    }

    /// Sessions go on here.
    pub(crate) fn has_begun(&self) -> bool {
        !self.frozen.is_empty()
    }

    /// Sessions that came and may not begin: the old process has gone, or has given up.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn summary(&mut self) -> ArrivalSummary {
        self.frozen.sort_unstable();
        let at = |part: usize| self.frozen.get(part).copied().unwrap_or_default();
        ArrivalSummary {
            sessions: self.frozen.len(),
            frozen_p99: at((self.frozen.len() * 99).div_ceil(100).saturating_sub(1)),
            frozen_max: at(self.frozen.len().saturating_sub(1)),
        }
    }
}
