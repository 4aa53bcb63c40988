//! The loop of the main thread: signals, reloads, renewals, orders from the control socket, one after the other.

use tokio::time::{Duration, interval};
use tracing::error;

use super::drain::{self, Remaining};
use super::gateway::{Begun, RunningGateway};
use super::meanwhile::Arriving;
use super::signals::{Arrived, Ending, Signals};
use super::upgrade::arrive::Arrival;
use super::upgrade::new::Withdrawal;
use super::upgrade::{old, retire};
use super::work::{Done, Wanted, Work};
use crate::ops::control::server::{Operation, OperationRequest};

/// Stages of expiry are days long.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Serves until a signal ends it.
pub(super) async fn run(begun: Begun, signals: &mut Signals) -> Ending {
    let Begun { mut gateway, mut predecessor, mut ended, mut demands, mut downs, mut servers, mut keys } =
        begun;
    let mut work = Work::Nothing;
    let mut wanted = Wanted::default();
    let mut expiry_check = interval(EXPIRY_CHECK_INTERVAL);
    let ending = loop {
        if matches!(work, Work::Nothing) {
            work = gateway.next_work(&mut wanted, predecessor.is_some());
        }
        tokio::select! {
            arrived = signals.next() => match arrived {
                Arrived::Hangup => wanted.reload(&work),
                Arrived::Takeover => wanted.takeover(&work, &gateway.source),
                Arrived::Ending(ending) => break ending,
            },
            done = work.done() => {
                work = Work::Nothing;
                match done {
                    Done::Reload(read) => gateway.reload(read),
                    Done::Takeover(result, started) => {
                        let arriving = &mut Arriving { signals, demands: &mut demands, wanted: &mut wanted };
                        let Some(pid) = gateway.hand_over(result, started, arriving).await else { continue };
                        if wanted.reload {
                            old::pass_on_hangup(pid);
                        }
                        drop((wanted, demands));
                        let RunningGateway { workers, overview, .. } = &gateway;
                        return retire::retire(workers, overview, signals, ended, pid).await;
                    }
                }
            },
            Some(OperationRequest { what, reply }) = demands.recv() => match what {
                // A client that doesn't wait for the answer has been served, too.
                Operation::Change(what) => drop(reply.send(gateway.change(what))),
                Operation::Reload => {
                    wanted.reload(&work);
                    wanted.askers.push(reply);
                }
                Operation::End => break Ending::Terminated,
            },
            Some(server) = downs.recv() => gateway.close_down(server),
            Ok(()) = servers.changed() => gateway.follow_servers(),
            Ok(()) = keys.changed() => gateway.end_unauthorized(),
            arrival = withdrawn(&mut predecessor) => {
                gateway.settle_arrivals(arrival);
                gateway.take_charge();
            }
            // Not in the middle of a reload: it reads the same files.
            look = gateway.renewal.look(&gateway.certificates), if !matches!(work, Work::Reload { .. }) => {
                gateway.renew(look);
            }
            () = gateway.acme.changed() => gateway.renewal.look_soon(),
            _ = expiry_check.tick() => gateway.log_expiries(),
            _ = ended.recv() => {
                // Workers end when they are ordered to. A panic outside of every task ends here.
                error!("a worker thread has ended unexpectedly; the gateway exits, so that it can be restarted");
                return Ending::Failed;
            }
        }
    };
    drop(work); // a new process that isn't ready yet ends
    drop((wanted, demands)); // clients that wait get the answer that it is too late
    gateway.notifier.stopping(gateway.site.load().drain.timeout + drain::CUT_WAIT);
    let RunningGateway { workers, overview, .. } = &gateway;
    let remaining = Remaining::new(ended, workers.len());
    drain::drain(workers, overview, signals, remaining, ending).await
}

/// When the old gateway no longer speaks for the service; never, if there is none.
async fn withdrawn(predecessor: &mut Option<Withdrawal>) -> Option<Arrival> {
    let arrival = match predecessor {
        Some(old) => old.done().await,
        None => std::future::pending().await,
    };
    *predecessor = None;
    arrival
}

impl RunningGateway {
    /// Begins the next piece of work. There is no second takeover before the old gateway has withdrawn.
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
