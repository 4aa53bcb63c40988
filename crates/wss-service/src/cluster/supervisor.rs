//! The task that holds the connection with the engine: it connects again and again, listens to the channels for which
//! this process has sessions, tells how many there are, and publishes.
//!
//! What is to be listened to and told is compared with what is, whenever a number of sessions has changed and for each
//! new connection. So nothing has to be remembered of a connection that has ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::counts::Counts;
use super::engine::{Engine, EngineError, Link};
use super::hall::Hall;
use crate::elsewhere::{Channel, Command, Name, Publish};
use crate::log;
use crate::unreached::Unreached;

/// How long the engine may take for a connection, and for each answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Before another attempt to connect; doubled after each that fails.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Only behind a connection that has lasted so long, the next attempt comes soon again.
const STEADY: Duration = Duration::from_secs(5);
/// Between two lines of the log about causes why the engine is away.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// Lines that are published together.
const BATCH_MAX: usize = 256;
/// Names that are listened to and told together.
const NAMES_MAX: usize = 1000;
/// What was told, and perhaps not heard.
const UNKNOWN: usize = usize::MAX;

/// What the task is made of.
pub(super) struct Supervisor<E> {
    pub(super) engine: E,
    pub(super) hall: Hall,
    pub(super) commands: mpsc::Receiver<Command>,
    /// A number of sessions has changed.
    pub(super) changed: Arc<Notify>,
    /// What was told holds so long without a refresh.
    pub(super) presence_ttl: Duration,
    /// What other processes have been told, or may have been, over all connections.
    pub(super) told: HashMap<Name, usize>,
}

/// Why a connection is given up.
enum Over {
    /// `worked`: it was used, before.
    Lost {
        failure: EngineError,
        worked: bool,
    },
    End,
}

impl<E: Engine> Supervisor<E> {
    /// Runs until `end`, and then takes back what was told.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let mut pause = PAUSE_MIN;
        let mut complaint = Complaint::default();
        loop {
            // All names are compared by the next connection, so what changes meanwhile need not be kept.
            self.hall.hub().groups().take_changes();
            let connecting = patiently(self.engine.connect(self.hall.clone()));
            let link = tokio::select! {
                biased;
                () = end.cancelled() => return,
                () = refuse(&mut self.commands) => return,
                link = connecting => link,
            };
            let begun = Instant::now();
            let failure = match link {
                Ok(link) => match self.serve(link, &end).await {
                    Over::Lost { failure, worked } => {
                        if worked {
                            complaint = Complaint::default();
                        }
                        failure
                    }
                    Over::End => return,
                },
                Err(failure) => failure,
            };
            if begun.elapsed() >= STEADY {
                pause = PAUSE_MIN;
            }
            let cause = failure.to_string();
            if complaint.is_news(&cause, Instant::now()) {
                log::cluster_away(&cause);
            }
            let spread = pause.mul_f64(rand::random_range(0.5..1.0)); // processes shall not come back all at once
            pause = (pause * 2).min(PAUSE_MAX);
            tokio::select! {
                biased;
                () = end.cancelled() => return,
                () = refuse(&mut self.commands) => return,
                () = sleep(spread) => {}
            }
        }
    }

    async fn serve(&mut self, mut link: E::Link, end: &CancellationToken) -> Over {
        let mut listening = Listening::default();
        let over = match self.catch_up(&mut link, &mut listening).await {
            Err(failure) => Over::Lost { failure, worked: false },
            Ok(()) => {
                let numbers = self.hall.publisher().numbers();
                numbers.connections.fetch_add(1, Ordering::Relaxed);
                numbers.is_connected.store(true, Ordering::Release);
                log::cluster_connected(self.hall.publisher().process(), link.address());
                let over = self.work(&mut link, &mut listening, end).await;
                self.hall.publisher().numbers().is_connected.store(false, Ordering::Release);
                over.map_or_else(|failure| Over::Lost { failure, worked: true }, |()| Over::End)
            }
        };
        match over {
            Over::End => {
                let _ = patiently(link.leave()).await; // else it ends by itself
                Over::End
            }
            Over::Lost { failure, worked } => Over::Lost { failure: failure.at(link.address()), worked },
        }
    }

    /// Of a new connection: all that is listened to and told.
    async fn catch_up(&mut self, link: &mut E::Link, listening: &mut Listening) -> Result<(), EngineError> {
        if !patiently(link.refresh()).await? {
            self.told.clear();
        }
        self.told.values_mut().for_each(|count| *count = UNKNOWN);
        let groups = self.hall.hub().groups();
        groups.take_changes(); // among all names
        listening.dirty.extend(groups.names());
        listening.dirty.extend(self.told.keys().cloned());
        while !listening.dirty.is_empty() {
            self.compare(link, listening).await?;
        }
        Ok(())
    }

    /// `Ok`: the end has come.
    async fn work(
        &mut self,
        link: &mut E::Link,
        listening: &mut Listening,
        end: &CancellationToken,
    ) -> Result<(), EngineError> {
        let period = self.presence_ttl / 3;
        let mut refresh = interval_at(Instant::now() + period, period);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = Vec::with_capacity(BATCH_MAX);
        let mut settling: Vec<oneshot::Sender<()>> = Vec::new();
        let mut counts = Counts::default();
        loop {
            let is_behind = !listening.dirty.is_empty() || !counts.is_empty();
            tokio::select! {
                biased;
                () = end.cancelled() => return Ok(()),
                failure = link.closed() => return Err(failure),
                _ = refresh.tick() => {
                    if !patiently(link.refresh()).await? {
                        self.told.clear();
                        listening.dirty.extend(self.hall.hub().groups().names());
                    }
                }
                count = self.commands.recv_many(&mut asked, BATCH_MAX) => {
                    if count == 0 {
                        return Ok(()); // there is no hub any more
                    }
                    self.answer(link, listening, &mut asked, &mut settling, &mut counts).await?;
                }
                () = self.changed.notified() => {}
                () = std::future::ready(()), if is_behind => {}
            }
            listening.dirty.extend(self.hall.hub().groups().take_changes());
            self.compare(link, listening).await?;
            if listening.dirty.is_empty() {
                for answer in settling.drain(..) {
                    let _ = answer.send(());
                }
            }
            // One at a time: the engine may have to wait for other processes' answers, and messages shall not wait long.
            if let Some((name, answers)) = counts.next() {
                let count = patiently(link.count(&bare(&name))).await?;
                for answer in answers {
                    let _ = answer.send(Ok(count));
                }
            }
        }
    }

    async fn answer(
        &mut self,
        link: &mut E::Link,
        listening: &mut Listening,
        asked: &mut Vec<Command>,
        settling: &mut Vec<oneshot::Sender<()>>,
        counts: &mut Counts,
    ) -> Result<(), EngineError> {
        let mut batch = Vec::new();
        for command in asked.drain(..) {
            match command {
                Command::Publish(publish) => batch.push(publish),
                Command::Count { name, answer } => counts.ask(name, answer),
                Command::Settle { answer } => settling.push(answer),
            }
        }
        self.publish(link, batch).await?;
        if !settling.is_empty() {
            listening.dirty.extend(self.hall.hub().groups().take_changes());
        }
        Ok(())
    }

    /// Those that are dropped unanswered may have been published.
    async fn publish(&self, link: &mut E::Link, batch: Vec<Publish>) -> Result<(), EngineError> {
        if batch.is_empty() {
            return Ok(());
        }
        let refused = patiently(link.publish(&batch)).await?;
        for (publish, refused) in batch.into_iter().zip(refused) {
            let answer = refused.as_ref().map_or(Ok(()), |_| Err(Unreached::Refused));
            let _ = publish.answer.send(answer);
            if let Some(why) = refused {
                self.hall.complain("the engine of the cluster has refused a message", &why);
            }
        }
        Ok(())
    }

    /// Makes what is listened to and told as it should be, for some of the names that may differ.
    async fn compare(&mut self, link: &mut E::Link, listening: &mut Listening) -> Result<(), EngineError> {
        if listening.dirty.is_empty() {
            return Ok(());
        }
        let names: Vec<Name> = listening.dirty.iter().take(NAMES_MAX).cloned().collect();
        let (mut begin, mut end, mut counts, mut gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for name in names {
            listening.dirty.remove(&name);
            if Channel::of(&name).any(Channel::is_too_long) {
                continue;
            }
            let count = self.hall.hub().groups().count_of(&name);
            let all = self.hall.publisher().channels();
            let channels = || Channel::of(&name).map(|channel| all.name(channel));
            match count {
                0 if listening.to.remove(&name) => end.extend(channels()),
                1.. if listening.to.insert(name.clone()) => begin.extend(channels()),
                _ => {}
            }
            if self.told.get(&name).copied().unwrap_or_default() != count {
                counts.push((bare(&name), count));
                match count {
                    0 => gone.push(name),
                    _ => drop(self.told.insert(name, count)),
                }
            }
        }
        // Who is said to be here is heard.
        if !(begin.is_empty() && end.is_empty()) {
            patiently(link.listen(&begin, &end)).await?;
        }
        if !counts.is_empty() {
            patiently(link.tell(&counts)).await?;
        }
        for name in gone {
            self.told.remove(&name);
        }
        Ok(())
    }
}

/// What was said of an engine that is away.
#[derive(Default)]
struct Complaint(Option<(String, Instant)>);

impl Complaint {
    /// It is away for the first time, or for another cause than was said a while ago.
    fn is_news(&mut self, cause: &str, now: Instant) -> bool {
        let is_news = match &self.0 {
            None => true,
            Some((said, at)) => said != cause && now - *at >= LOG_INTERVAL,
        };
        if is_news {
            self.0 = Some((cause.to_owned(), now));
        }
        is_news
    }
}

/// Of one connection.
#[derive(Default)]
struct Listening {
    to: HashSet<Name>,
    /// Names that have to be looked at.
    dirty: HashSet<Name>,
}

/// The name of its first channel, without the prefix.
fn bare(name: &Name) -> String {
    match name {
        Name::All => "all".to_owned(),
        Name::User(user) => format!("user:{user}"),
        Name::Group(group) => format!("group:{group}"),
    }
}

async fn patiently<T>(work: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    timeout(PATIENCE, work).await.unwrap_or(Err(EngineError::Silent(PATIENCE)))
}

/// Answers all that is asked while there is no connection. Ends when there is none left who could ask.
async fn refuse(commands: &mut mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Publish(publish) => drop(publish.answer.send(Err(Unreached::Away))),
            Command::Count { answer, .. } => drop(answer.send(Err(Unreached::Away))),
            Command::Settle { answer } => drop(answer), // read as `Away`
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn another_cause_is_said_but_not_often() {
        let mut complaint = Complaint::default();
        let begun = Instant::now();
        let said: Vec<_> =
            [("refused", 0), ("refused", 30), ("password", 31), ("refused", 32), ("password", 60)]
                .into_iter()
                .filter(|(cause, second)| complaint.is_news(cause, begun + Duration::from_secs(*second)))
                .collect();
        assert_eq!(said, [("refused", 0), ("password", 31)]);
    }
}
