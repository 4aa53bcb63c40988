//! Notifications to the service manager (systemd's `sd_notify`), if there is one: `NOTIFY_SOCKET` in the
//! environment says so.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use crate::worker::Command;

/// How long the service manager may take to read what was sent to it.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(5);

/// Speaks for the service, or is silent: the service manager listens to one process at a time.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    is_in_charge: bool,
    watchdog: Option<AbortHandle>,
}

impl Notifier {
    /// This process is the service now. Within a runtime.
    pub(super) fn begin(&mut self, workers: Vec<mpsc::UnboundedSender<Command>>, status: &str) {
        self.is_in_charge = true;
        self.ready(status);
        self.watchdog = sd_notify::watchdog_enabled()
            .filter(|limit| !limit.is_zero())
            .map(|limit| tokio::spawn(keep_alive(limit / 2, workers)).abort_handle());
    }

    /// Connections are accepted; a reload is over, however it went.
    pub(super) fn ready(&self, status: &str) {
        self.notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload begins.
    pub(super) fn reloading(&self) {
        // systemd distinguishes reloads by this clock.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.notify(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
            Err(e) => {
                debug!(cause = %e, "the service manager is not told of the reload: there is no clock");
            }
        }
    }

    /// The end has begun, and may take so long.
    pub(super) fn stopping(&self, limit: Duration) {
        let limit_us = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
        self.notify(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(limit_us),
            NotifyState::Status("draining"),
        ]);
    }

    /// Another process is the service from here on; waits until the service manager knows, and says
    /// nothing more.
    pub(super) async fn hand_over(&mut self, pid: u32) {
        self.notify(&[NotifyState::MainPid(pid)]);
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.abort();
        }
        if std::mem::take(&mut self.is_in_charge) && std::env::var_os("NOTIFY_SOCKET").is_some() {
            match timeout(BARRIER_TIMEOUT, spawn_blocking(barrier)).await {
                Ok(Ok(Ok(()))) => {}
                _ => warn!(pid, "the service manager has not confirmed the new main process"),
            }
        }
    }

    fn notify(&self, states: &[NotifyState<'_>]) {
        if self.is_in_charge
            && let Err(e) = sd_notify::notify(states)
        {
            warn!(cause = %e, "the service manager can't be notified");
        }
    }
}

/// Waits until the service manager has read everything before: it closes what it gets with this.
fn barrier() -> io::Result<()> {
    let (mut read, write) = io::pipe()?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[write.as_fd()])?;
    drop(write);
    io::copy(&mut read, &mut io::sink()).map(drop)
}

/// Tells the watchdog that all is well as often as it is: when every worker has turned since the last
/// time. A worker that hangs is silence.
async fn keep_alive(period: Duration, workers: Vec<mpsc::UnboundedSender<Command>>) {
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        all_turn(&workers).await;
        if let Err(e) = sd_notify::notify(&[NotifyState::Watchdog]) {
            warn!(cause = %e, "the watchdog can't be notified");
        }
    }
}

/// Waits until every worker that is still there has looked at its commands.
async fn all_turn(workers: &[mpsc::UnboundedSender<Command>]) {
    let (turned, mut all) = mpsc::channel(1);
    for worker in workers {
        let _ = worker.send(Command::Turn { turned: turned.clone() }); // one that has ended drops it, too
    }
    drop(turned);
    while all.recv().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_hangs_is_not_alive() {
        let (turning, mut inbox) = mpsc::unbounded_channel();
        tokio::spawn(async move { while inbox.recv().await.is_some() {} });
        let (ended, gone) = mpsc::unbounded_channel();
        drop(gone);
        let soon = Duration::from_secs(1);
        assert!(timeout(soon, all_turn(&[turning.clone(), ended])).await.is_ok());
        let (hanging, _inbox) = mpsc::unbounded_channel();
        assert!(timeout(soon, all_turn(&[turning, hanging])).await.is_err());
    }
}
