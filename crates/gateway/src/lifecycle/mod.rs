//! From the first signal to the last session: start, reload, drain.

mod drain;
mod gateway;
mod hand_over;
mod load;
mod messages;
mod notify;
mod outside;
mod reload;
mod renewal;
mod signals;
mod steer;
mod upgrade;
mod work;

use std::net::SocketAddr;
use std::time::Instant;

use tokio::time::{Duration, interval};
use tracing::{error, info, warn};

use self::drain::Remaining;
pub use self::gateway::StartError;
use self::gateway::{Begun, Gateway};
pub use self::load::{Candidate, ConfigSource, load};
use self::messages::millis;
pub use self::signals::{Arrived, Ending, Signals};
pub use self::upgrade::new::SuccessionError;
use self::upgrade::new::{Inherited, Predecessor};
pub use self::upgrade::origin::{LaunchContext, LaunchContextError, launch};
use self::upgrade::{old, retire};
use self::work::{Done, Wanted, Work};

/// Stages of expiry are days long.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Runs the gateway until a signal ends it. `on_ready` is called once, with the addresses that are
/// listened on, when connections are accepted.
///
/// # Errors
/// If it can't start.
pub async fn run(
    source: ConfigSource,
    origin: LaunchContext,
    mut signals: Signals,
    on_ready: impl FnOnce(&[SocketAddr]),
) -> Result<Ending, StartError> {
    raise_descriptor_limit();
    let Some(Begun { mut gateway, mut predecessor, mut ended, mut demands }) =
        begin(source, origin, &mut signals).await?
    else {
        return Ok(Ending::Terminated);
    };
    let mut addresses: Vec<SocketAddr> = gateway.listening.values().copied().collect();
    addresses.sort_unstable();
    on_ready(&addresses);
    let mut work = Work::Nothing;
    let mut wanted = Wanted::default();
    let mut expiry_check = interval(EXPIRY_CHECK_INTERVAL);
    loop {
        if matches!(work, Work::Nothing) {
            work = gateway.next_work(&mut wanted, predecessor.is_some());
        }
        tokio::select! {
            arrived = signals.next() => match arrived {
                Arrived::Hangup => wanted.reload(&work),
                Arrived::Takeover => wanted.takeover(&work, &gateway.source),
                Arrived::Ending(ending) => {
                    drop(work); // a new process that isn't ready yet ends
                    drop((wanted, demands)); // who waits is told that it is too late
                    gateway.notifier.stopping(gateway.site.load().drain.timeout + drain::CUT_WAIT);
                    let Gateway { workers, overview, .. } = &gateway;
                    let remaining = Remaining::new(ended, workers.len());
                    return Ok(drain::drain(workers, overview, &mut signals, remaining, ending).await);
                }
            },
            done = work.done() => {
                work = Work::Nothing;
                match done {
                    Done::Reload(read) => gateway.reload(read),
                    Done::Takeover(result, started) => if let Some(pid) = gateway.hand_over(result, started).await {
                        if wanted.reload {
                            old::pass_on_hangup(pid);
                        }
                        drop((wanted, demands));
                        let Gateway { workers, overview, .. } = &gateway;
                        return Ok(retire::retire(workers, overview, &mut signals, ended, pid).await);
                    }
                }
            },
            Some(demand) = demands.recv() => gateway.obey(demand, &work, &mut wanted),
            () = withdrawn(&mut predecessor) => gateway.speak(),
            // Not in the middle of a reload: it reads the same files.
            look = gateway.renewal.look(&gateway.certificates), if !matches!(work, Work::Reload { .. }) => {
                gateway.renew(look);
            }
            _ = expiry_check.tick() => gateway.say_expiries(),
            _ = ended.recv() => {
                // Workers end when they are told to. A panic outside of every task ends here.
                error!("a worker has died; the gateway ends so that it can be started anew");
                return Ok(Ending::Failed);
            }
        }
    }
}

/// Starts, or takes over. `None` if a signal came before the old gateway let go.
async fn begin(
    source: ConfigSource,
    origin: LaunchContext,
    signals: &mut Signals,
) -> Result<Option<Begun>, StartError> {
    let started = Instant::now();
    let Some(socket) = origin.predecessor else {
        let inherited = Inherited::new(origin.activated);
        let (mut begun, closed) = Gateway::start(source, origin.program, inherited).await?;
        begun.gateway.open(closed, started);
        begun.gateway.speak();
        return Ok(Some(begun));
    };
    let (predecessor, inherited) = Predecessor::meet(socket).await?;
    let (mut begun, closed) = match Gateway::start(source, origin.program, inherited).await {
        Ok(started) => started,
        Err(e) => {
            predecessor.fail(e.to_string()).await;
            return Err(e);
        }
    };
    tokio::select! {
        going = predecessor.ready(begun.gateway.inherited.taken()) => going?,
        _ = signals.ending() => return Ok(None),
    }
    begun.gateway.open(closed, started);
    info!(
        pid = std::process::id(),
        predecessor = predecessor.pid,
        predecessor_version = predecessor.version,
        sockets = predecessor.sockets,
        took_ms = millis(started),
        "taken over"
    );
    Ok(Some(Begun { predecessor: Some(predecessor), ..begun }))
}

/// When the old gateway no longer speaks for the service; never, if there is none.
async fn withdrawn(predecessor: &mut Option<Predecessor>) {
    match predecessor {
        Some(old) => old.withdrawn().await,
        None => std::future::pending().await,
    }
    *predecessor = None;
}

impl Gateway {
    /// Begins what is wanted next. Nobody else takes over before the old gateway has withdrawn.
    fn next_work(&self, wanted: &mut Wanted, is_taking_over: bool) -> Work {
        if std::mem::take(&mut wanted.reload) {
            self.notifier.reloading();
            self.read(std::mem::take(&mut wanted.askers))
        } else if !is_taking_over && std::mem::take(&mut wanted.takeover) {
            self.take_over()
        } else {
            Work::Nothing
        }
    }
}

/// Every session holds two descriptors; the usual soft limit of 1,024 is for programs that use
/// `select`.
fn raise_descriptor_limit() {
    if let Err(e) = rlimit::increase_nofile_limit(u64::MAX) {
        warn!(cause = %e, "the limit on open files could not be raised");
    }
}
