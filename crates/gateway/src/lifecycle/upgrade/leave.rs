//! The old gateway's side of the moving of sessions: freezes them, sends them in batches, and lets go of what the new
//! one has taken.
//!
//! A session is in one process at any moment: frozen here, then taken there, then let go of here, and only then does
//! it go on there. If the new process fails before it has taken a session, the session goes on here.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use frame_core::handle::{FreezeMode, SessionHandle};
use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::context::registry::StayReason;
use crate::context::transit::{FrozenSession, Transit};
use crate::lifecycle::upgrade::batch::{self, SESSIONS_AT_ONCE, in_time};
use crate::lifecycle::upgrade::protocol::{Channel, PlacedOrder, UpgradeMessage};
use crate::worker::{Command, Handle};

/// Sessions that are asked to freeze together are waited for so long. Those that have not frozen by then, because they
/// are in the middle of a write or their worker is busy, go on, and are asked again after all others: so no more wait
/// frozen for their turn than are asked at once.
const FREEZE_WAIT: Duration = Duration::from_millis(20);
/// Those that have frozen wait no longer than this for the next that freezes.
const NEXT_WAIT: Duration = Duration::from_millis(5);
/// How long sessions that freeze as they are, with unsent bytes, are waited for. Their task only has to run once. The
/// time starts again for each batch.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// Sessions that freeze with unsent bytes, of which each may have hundreds of kilobytes, are asked in such numbers that
/// their records have about so many bytes together, as far as those before them tell: all of a batch are frozen until its
/// last byte has been read.
const LATE_LEN: usize = 512 * 1024;
/// But for no fewer: a batch costs some switches between threads, each of which is dear on a busy machine.
const LATE_MIN: usize = 8;
/// Ids that this process may still give to sessions after it has said which was the last.
const IDS_RESERVED: u64 = 1_000;
/// The reason of sessions that did not freeze in time, or that the new process could not take.
const BUSY: &str = "busy";
const REFUSED: &str = "refused";

/// What became of sessions.
#[derive(Debug, Default)]
pub(crate) struct MoveCount {
    /// They are the new process's.
    pub(crate) moved: usize,
    /// They stay, by reason.
    pub(crate) left: BTreeMap<String, usize>,
    /// Sessions that were asked in vain, and why: they are not asked again.
    asked_in_vain: HashMap<u64, &'static str>,
}

/// What the old process does besides, when no batch is under way.
pub(crate) trait Meanwhile {
    /// Does what operators have asked for by now.
    ///
    /// # Errors
    /// If the new process fails.
    fn obey(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// Moves every session that can be moved. Those in the middle of a write are waited for, for `wait`. Between two batches
/// there is `meanwhile`.
///
/// # Errors
/// If the new process fails. Then sessions that it had taken are lost with it: they are counted in `count`.
pub(crate) async fn move_sessions(
    channel: &Channel,
    workers: &[Handle],
    transit: &Transit,
    wait: Duration,
    count: &mut MoveCount,
    meanwhile: &mut impl Meanwhile,
) -> io::Result<()> {
    count.left.clear();
    let mut unmoved = VecDeque::new();
    let mut all: Vec<_> = workers.iter().flat_map(|worker| worker.sessions.movable()).collect();
    all.sort_unstable_by_key(|(id, ..)| *id); // so that all workers take part at any time
    for (id, handle, stays) in all {
        match stays.map(StayReason::as_str).or_else(|| count.asked_in_vain.get(&id).copied()) {
            Some(reason) => *count.left.entry(reason.to_owned()).or_default() += 1,
            None => unmoved.push_back((id, handle)),
        }
    }
    let from = transit.open();
    let mut departure = Departure { channel, workers, from, count };
    let result = departure.all(&mut unmoved, wait, meanwhile).await;
    transit.close();
    // Nothing that has frozen is forgotten.
    let rest = departure.rest().await;
    let (result, stranded) = match result {
        Ok(()) => departure.transfer(rest).await,
        Err(e) => (Err(e), rest),
    };
    departure.go_back(stranded);
    result?; // all others go on as before
    let is_live: HashSet<u64> = workers.iter().flat_map(|worker| worker.sessions.ids()).collect();
    for (id, _) in unmoved.into_iter().filter(|(id, _)| is_live.contains(id)) {
        *count.left.entry(BUSY.to_owned()).or_default() += 1;
        count.asked_in_vain.insert(id, BUSY);
    }
    Ok(())
}

struct Departure<'a> {
    channel: &'a Channel,
    workers: &'a [Handle],
    from: UnboundedReceiver<FrozenSession>,
    count: &'a mut MoveCount,
}

impl Departure<'_> {
    /// Moves sessions of `unmoved`, until there are none, or the rest has to stay.
    async fn all(
        &mut self,
        unmoved: &mut VecDeque<(u64, SessionHandle)>,
        wait: Duration,
        meanwhile: &mut impl Meanwhile,
    ) -> io::Result<()> {
        let deadline = Instant::now() + wait;
        let mut end = deadline + LAST_WAIT;
        let mut late_at_once = LATE_MIN;
        while !unmoved.is_empty() && Instant::now() < end {
            let is_late = Instant::now() >= deadline;
            let (mode, at_once) = match is_late {
                true => (FreezeMode::AsItIs, late_at_once),
                false => (FreezeMode::BetweenWrites, SESSIONS_AT_ONCE),
            };
            let some = unmoved.drain(..unmoved.len().min(at_once));
            let mut asked: HashMap<u64, SessionHandle> = some.collect();
            asked.values().for_each(|handle| handle.freeze(mode));
            let gathered = self.gather(&mut asked).await;
            for (id, handle) in asked {
                handle.cancel_freeze();
                // One that has ended instead of freezing is not asked again.
                if self.workers.iter().any(|worker| worker.sessions.get(id).is_some()) {
                    unmoved.push_back((id, handle));
                }
            }
            let batch = gathered?;
            if is_late && !batch.is_empty() {
                end = Instant::now() + LAST_WAIT;
                let len = batch.iter().map(|frozen| frozen.state.len()).sum::<usize>() / batch.len();
                late_at_once = (LATE_LEN / len.max(1)).clamp(LATE_MIN, SESSIONS_AT_ONCE);
            }
            self.transfer_whole(batch).await?;
            meanwhile.obey().await?;
        }
        Ok(())
    }

    /// Sessions that have frozen, until there is a full batch, or no more are waited for. Those of `asked` that are
    /// left have not frozen, or not yet come.
    ///
    /// # Errors
    /// If the new process ends meanwhile; those that have frozen go back.
    async fn gather(&mut self, asked: &mut HashMap<u64, SessionHandle>) -> io::Result<Vec<FrozenSession>> {
        let end = Instant::now() + FREEZE_WAIT;
        let mut until = end;
        let mut batch: Vec<FrozenSession> = Vec::new();
        while batch.len() < SESSIONS_AT_ONCE && !asked.is_empty() {
            let frozen = tokio::select! {
                biased;
                frozen = self.from.recv() => frozen,
                () = sleep_until(until) => None,
                said = self.channel.receive() => {
                    self.go_back(batch);
                    return Err(said.map_or_else(|e| e, unexpected));
                }
            };
            let Some(frozen) = frozen else { break };
            asked.remove(&frozen.registered.id());
            batch.push(frozen);
            until = end.min(Instant::now() + NEXT_WAIT);
        }
        Ok(batch)
    }

    /// What has frozen by the time that nothing more comes.
    async fn rest(&mut self) -> Vec<FrozenSession> {
        let mut rest = Vec::new();
        loop {
            match self.from.try_recv() {
                Ok(frozen) => rest.push(frozen),
                Err(TryRecvError::Disconnected) => return rest,
                // A session that found the handover is about to be here.
                Err(TryRecvError::Empty) => rest.extend(self.from.recv().await),
            }
        }
    }

    async fn transfer_whole(&mut self, sessions: Vec<FrozenSession>) -> io::Result<()> {
        let (result, stranded) = self.transfer(sessions).await;
        self.go_back(stranded);
        result
    }

    /// Moves sessions to the new process, in as many batches as it takes. Returns those that it has not taken.
    async fn transfer(&mut self, sessions: Vec<FrozenSession>) -> (io::Result<()>, Vec<FrozenSession>) {
        let mut stranded = Vec::new();
        let mut result = Ok(());
        let mut sessions = sessions.into_iter();
        loop {
            let batch: Vec<_> = sessions.by_ref().take(SESSIONS_AT_ONCE).collect();
            if batch.is_empty() {
                return (result, stranded);
            }
            if result.is_ok() {
                result = self.transfer_one(batch, &mut stranded).await;
            } else {
                stranded.extend(batch);
            }
        }
    }

    async fn transfer_one(
        &mut self,
        batch: Vec<FrozenSession>,
        stranded: &mut Vec<FrozenSession>,
    ) -> io::Result<()> {
        let last_id = self.workers.iter().map(|worker| worker.sessions.next_id()).max().unwrap_or_default();
        let refused = match self.offer(&batch, last_id + IDS_RESERVED).await {
            Ok(refused) => refused,
            Err(e) => {
                stranded.extend(batch);
                return Err(e);
            }
        };
        let mut orders = Vec::new();
        for (place, frozen) in batch.into_iter().enumerate() {
            match refused.get(&place) {
                None => {
                    self.count.moved += 1;
                    // One may have come while the session was on its way.
                    let order = frozen.registered.handle().depart();
                    orders.extend(order.map(|order| PlacedOrder::new(place, order)));
                    drop(frozen); // closes this process's descriptors; the connections are the new one's
                }
                Some(why) => {
                    warn!(
                        id = frozen.registered.id(),
                        cause = why,
                        "a session stays: the new process can't take it"
                    );
                    *self.count.left.entry(REFUSED.to_owned()).or_default() += 1;
                    self.count.asked_in_vain.insert(frozen.registered.id(), REFUSED);
                    stranded.push(frozen);
                }
            }
        }
        in_time(self.channel.send(&UpgradeMessage::Begin { orders }, &[])).await?;
        debug!(moved = self.count.moved, "sessions have moved");
        Ok(())
    }

    /// Sends a batch. Returns what the new process can't take.
    async fn offer(&self, batch: &[FrozenSession], last_id: u64) -> io::Result<HashMap<usize, String>> {
        batch::send(self.channel, batch, last_id).await?;
        match in_time(self.channel.receive()).await? {
            Some((UpgradeMessage::Taken { refused }, _)) => Ok(refused.into_iter().collect()),
            other => Err(unexpected(other)),
        }
    }

    fn go_back(&self, sessions: Vec<FrozenSession>) {
        for frozen in sessions {
            if let Some(worker) = self.workers.get(frozen.registered.worker()) {
                let _ = worker.commands.send(Command::GoBack(frozen)); // a worker doesn't end before its sessions
            }
        }
    }
}

/// What a process says that should say nothing, or something else.
pub(crate) fn unexpected(said: Option<(UpgradeMessage, Vec<OwnedFd>)>) -> io::Error {
    match said {
        Some((message, _)) => io::Error::other(format!("an unexpected message: {message:?}")),
        None => io::ErrorKind::BrokenPipe.into(),
    }
}

#[cfg(test)]
mod tests;
