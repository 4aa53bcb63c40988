//! Live sockets while a gateway is reloaded: a drop is counted, where every other load fails by it.
//!
//! Lines on stdin: `more N` opens N sockets more, by the certificate that is in the file then; `mark`
//! forgets the latencies so far; `end` tells what was seen. Each is answered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use super::connection::{Client, Connection};
use super::echo::Messages;
use super::paced::ticks;
use crate::job::{Job, Live, Work};
use crate::stats::quantile;

const CONNECT_TIME: Duration = Duration::from_secs(10);
const SIZE: usize = 64;

#[derive(Default)]
struct Seen {
    live: Live,
    /// Nanoseconds.
    latencies: Vec<u64>,
}

/// Does what the lines say, until stdin ends.
pub(crate) async fn run(job: &Job) -> anyhow::Result<()> {
    LocalSet::new().run_until(follow_lines(job)).await
}

async fn follow_lines(job: &Job) -> anyhow::Result<()> {
    let Work::Live { per_second } = job.work else { bail!("not a load of live sockets") };
    let seen = Rc::<RefCell<Seen>>::default();
    let mut sockets: Vec<mpsc::UnboundedSender<Instant>> = Vec::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut ticks = ticks(Duration::from_secs(1) / per_second);
    let mut turn = 0;
    let mut connecting = JoinSet::new();
    loop {
        let line = select! {
            line = lines.next_line() => line?,
            Some(connected) = connecting.join_next() => {
                match connected? {
                    Ok(connection) => {
                        let (tell, due) = mpsc::unbounded_channel();
                        tokio::task::spawn_local(converse(connection, sockets.len(), due, seen.clone()));
                        sockets.push(tell);
                    }
                    Err(e) => {
                        let mut seen = seen.borrow_mut();
                        seen.live.refused += 1;
                        seen.live.first_trouble.get_or_insert_with(|| format!("{e:#}"));
                    }
                }
                if connecting.is_empty() {
                    writeln!(io::stdout(), "ready")?;
                }
                continue;
            }
            due = ticks.recv() => {
                let due = due.context("no more ticks")?;
                turn += 1;
                let count = sockets.len().max(1);
                if let Some(socket) = sockets.get(turn % count) {
                    let _ = socket.send(due); // one that was dropped has been counted
                }
                continue;
            }
        };
        match line.as_deref().and_then(|line| line.split_once(' ').or(Some((line, "")))) {
            Some(("more", count)) => {
                let client = Rc::new(Client::new(job)?);
                for _ in 0..count.parse()? {
                    let (index, client) = (seen.borrow().live.asked, client.clone());
                    seen.borrow_mut().live.asked += 1;
                    connecting.spawn_local(async move {
                        timeout(CONNECT_TIME, client.upgrade(index)).await.context("too slow")?
                    });
                }
            }
            Some(("mark", _)) => {
                seen.borrow_mut().latencies.clear();
                writeln!(io::stdout(), "ready")?;
            }
            Some(("end", _)) => {
                let mut seen = seen.borrow_mut();
                let Seen { live, latencies } = &mut *seen;
                latencies.sort_unstable();
                let at = |share| quantile(latencies, share).unwrap_or_default() as f64 / 1e6;
                (live.p99, live.worst) = (at(0.99), at(1.0));
                writeln!(io::stdout(), "{}", serde_json::to_string(live)?)?;
            }
            Some((other, _)) => bail!("what is {other:?}?"),
            None => return Ok(()),
        }
    }
}

/// Sends when a message is due; counts the end of the socket, whatever it is, as a drop.
async fn converse(
    mut connection: Connection,
    index: usize,
    mut due: mpsc::UnboundedReceiver<Instant>,
    seen: Rc<RefCell<Seen>>,
) {
    let mut messages = Messages::new(index, SIZE);
    let mut under_way = VecDeque::new();
    let trouble = loop {
        select! {
            biased;
            at = due.recv() => match at {
                Some(at) => {
                    messages.send(&mut connection.outbox);
                    under_way.push_back(at);
                }
                None => return,
            },
            turn = connection.exchange() => {
                let received = turn.and_then(|(input, outbox)| messages.receive(input, outbox));
                if let Err(e) = received {
                    break e;
                }
                let mut seen = seen.borrow_mut();
                while under_way.len() as u64 > messages.under_way() {
                    let Some(at): Option<Instant> = under_way.pop_front() else { break };
                    seen.live.echoed += 1;
                    seen.latencies.push(u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
            }
        }
    };
    let mut seen = seen.borrow_mut();
    seen.live.dropped += 1;
    seen.live.first_trouble.get_or_insert_with(|| format!("{trouble:#}"));
}
