//! Signals. The only place that listens to them.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What ended the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM.
    Terminated,
    /// SIGINT.
    Interrupted,
    /// A second signal while draining.
    Hurried,
    /// SIGUSR2, and everything that came through this process has ended.
    TakenOver,
    /// Not a signal: something that must not happen.
    Failed,
}

/// Every signal that is listened to. From its making on none of them kills; what arrives before
/// anybody asks is kept.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    takeover: Signal,
}

impl Signals {
    /// Installs the handlers. Within a runtime.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            takeover: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// Safe: none is lost; several of a kind that arrive together are one.
    pub async fn next(&mut self) -> Arrived {
        tokio::select! {
            _ = self.hangup.recv() => Arrived::Hangup,
            _ = self.takeover.recv() => Arrived::Takeover,
            _ = self.terminate.recv() => Arrived::Ending(Ending::Terminated),
            _ = self.interrupt.recv() => Arrived::Ending(Ending::Interrupted),
        }
    }

    /// The next SIGTERM or SIGINT; what else arrives waits for [`next`](Self::next).
    ///
    /// # Cancel safety
    /// Safe: none is lost.
    pub async fn ending(&mut self) -> Ending {
        tokio::select! {
            _ = self.terminate.recv() => Ending::Terminated,
            _ = self.interrupt.recv() => Ending::Interrupted,
        }
    }
}

/// A signal that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// SIGHUP: read everything anew.
    Hangup,
    /// SIGUSR2: let a new process take over.
    Takeover,
    /// SIGTERM or SIGINT: end in order.
    Ending(Ending),
}
