//! Messages at fixed times, and how late their echoes are. Latency counts from the moment a message was
//! due, so that a gateway that stalls is not forgiven what could not be sent meanwhile.

use std::collections::VecDeque;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::prctl::set_timerslack;
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, yield_now};

use super::echo::{Messages, connect};
use super::shared::Shared;

type Due = mpsc::UnboundedReceiver<Instant>;

/// Sends on one socket after the other, `per_second` messages in all.
pub(super) async fn pace(
    shared: Rc<Shared>,
    sockets: usize,
    per_second: u32,
    size: usize,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let senders: Vec<_> = (0..sockets)
        .map(|index| {
            let (sender, due) = mpsc::unbounded_channel();
            tasks.spawn_local(socket(shared.clone(), index, size, due));
            sender
        })
        .collect();
    shared.running.clone().wait_for(|running| *running).await?;

    let interval = Duration::from_secs(1) / per_second;
    let mut due = Instant::now() + interval;
    let mut in_turn = senders.iter().cycle();
    while !shared.stopped.get() {
        while due <= Instant::now() {
            in_turn.next().context("no sockets")?.send(due)?;
            due += interval;
        }
        select! {
            biased;
            Some(ended) = tasks.join_next() => ended??,
            () = yield_now() => {} // the thread polls, so nothing is late
        }
    }
    drop(senders);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn socket(shared: Rc<Shared>, index: usize, size: usize, mut due: Due) -> anyhow::Result<()> {
    let mut connection = connect(&shared, index).await?;
    let mut messages = Messages::new(index, size);
    let mut under_way = VecDeque::new();
    shared.ready().await;
    let mut open = true;
    while open || !under_way.is_empty() {
        select! {
            biased;
            at = due.recv(), if open => match at {
                Some(at) => {
                    messages.send(&mut connection.outbox);
                    under_way.push_back(at);
                }
                None => open = false,
            },
            turn = connection.exchange() => {
                let (input, outbox) = turn?;
                shared.count(messages.receive(input, outbox)?);
                while under_way.len() as u64 > messages.under_way() {
                    let Some(at) = under_way.pop_front() else { break };
                    let nanoseconds = u64::try_from(at.elapsed().as_nanos())?;
                    shared.latencies.borrow_mut().push(nanoseconds);
                }
            }
        }
    }
    Ok(())
}

/// The moments when messages are due, as they come. From a thread of its own, since tokio's timers
/// count in milliseconds.
pub(super) fn ticks(interval: Duration) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, ticks) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let _ = set_timerslack(1); // nanosecond; without it sleeps last some 50 µs longer
        let mut due = Instant::now();
        loop {
            due += interval;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                return;
            }
        }
    });
    ticks
}
