//! From the first signal to the last session: start, reload, drain.

mod access_log;
mod acme;
mod arrivals;
mod core_dumps;
mod drain;
mod embedded;
mod gateway;
mod hand_over;
mod load;
mod look_around;
mod main_loop;
mod meanwhile;
mod messages;
mod notify;
mod outside;
mod prober;
mod reload;
mod renewal;
mod resolver;
mod signals;
mod steer;
mod token_keys;
mod upgrade;
mod work;

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Instant;

use tracing::{info, warn};

pub use self::acme::attempt::try_acme;
pub use self::embedded::Gateway;
pub use self::gateway::StartError;
use self::gateway::{Begun, RunningGateway};
pub use self::load::{Candidate, ConfigSource, load};
pub use self::look_around::look_around;
use self::messages::millis;
pub use self::signals::{Ending, Signals};
use self::upgrade::arrive::Arrival;
pub use self::upgrade::new::SuccessionError;
use self::upgrade::new::{Inherited, Predecessor};
pub use self::upgrade::origin::{LaunchContext, LaunchContextError, launch};

use crate::net::listening::ListenAddress;
use crate::ops::control::server::{Operation, OperationRequest};
use crate::site::TakeoverSessions;

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
    let Some(begun) = begin(source, origin, &mut signals).await? else {
        return Ok(Ending::Terminated);
    };
    let mut addresses: Vec<SocketAddr> =
        begun.gateway.listening.values().filter_map(ListenAddress::ip).collect();
    addresses.sort_unstable();
    on_ready(&addresses);
    let log = begun.gateway.access_log.clone();
    if let Some(asked) = signals.take_reopening() {
        tokio::spawn(access_log::reopen_when(asked, log.clone()));
    }
    let ending = main_loop::run(begun, &mut signals).await;
    access_log::finish(log).await;
    Ok(ending)
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
        let (mut begun, closed) = RunningGateway::start(source, origin.program, inherited).await?;
        begun.gateway.open(closed, started);
        begun.gateway.take_charge();
        return Ok(Some(begun));
    };
    let (predecessor, inherited) = Predecessor::meet(socket).await?;
    let (mut begun, closed) = match RunningGateway::start(source, origin.program, inherited).await {
        Ok(started) => started,
        Err(e) => {
            predecessor.fail(e.to_string()).await;
            return Err(e);
        }
    };
    let mut arrival = (closed.config.takeover_sessions == TakeoverSessions::Move)
        .then(|| Arrival::new(&begun.gateway.workers));
    if !begins(&mut begun, &predecessor, &mut arrival, signals).await? {
        return Ok(None);
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
    let access = begun.gateway.access.clone();
    Ok(Some(Begun { predecessor: Some(predecessor.withdraw(arrival, access)), ..begun }))
}

/// Takes sessions, and obeys the commands that come through the old process, until this one is to accept connections:
/// `true`. `false`: a signal came, and there are no sessions here.
async fn begins(
    begun: &mut Begun,
    predecessor: &Predecessor,
    arrival: &mut Option<Arrival>,
    signals: &mut Signals,
) -> Result<bool, SuccessionError> {
    let Begun { gateway, demands, .. } = begun;
    let mut going = pin!(predecessor.ready(gateway.inherited.taken(), arrival, &gateway.access));
    let mut ending = None;
    loop {
        tokio::select! {
            going = &mut going => break going?,
            Some(OperationRequest { what: Operation::Change(what), reply }) = demands.recv() => {
                let _ = reply.send(gateway.change(what)); // the old process may have gone
            }
            signal = signals.ending(), if ending.is_none() => match gateway.overview.live() {
                0 => return Ok(false),
                _ => ending = Some(signal), // they end in order, as soon as the old process has let go of all
            }
        }
    }
    if let Some(ending) = ending {
        signals.keep(ending);
    }
    Ok(true)
}

/// Every session holds two descriptors; the usual soft limit of 1,024 is for programs that use
/// `select`.
fn raise_descriptor_limit() {
    if let Err(e) = rlimit::increase_nofile_limit(u64::MAX) {
        warn!(cause = %e, "the limit on open files could not be raised");
    }
}
