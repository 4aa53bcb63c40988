//! Signals. The only place that listens to them.

use std::fmt;
use std::future::pending;
use std::io;
use std::pin::Pin;

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
    /// A worker has ended by itself, which must not happen.
    Failed,
}

/// Where orders for the process as a whole come from.
#[derive(Debug)]
pub struct Signals {
    orders: Orders,
    /// It has arrived, and comes next.
    kept: Option<Ending>,
}

enum Orders {
    Process(ProcessSignals),
    /// Of a gateway within another program: its shutdown, until that has come.
    Shutdown(Option<Pin<Box<dyn Future<Output = ()> + Send>>>),
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(signals) => signals.fmt(f),
            Self::Shutdown(shutdown) => f.debug_tuple("Shutdown").field(&shutdown.is_some()).finish(),
        }
    }
}

/// Every signal that is listened to. Once they are installed none of them kills, and one that arrives before
/// [`Signals::next`] is called is kept.
#[derive(Debug)]
struct ProcessSignals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    takeover: Signal,
    /// Until it is taken.
    reopening: Option<Signal>,
}

impl Signals {
    /// Installs handlers for the signals of this process. Within a runtime.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn install() -> io::Result<Self> {
        let signals = ProcessSignals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            takeover: signal(SignalKind::user_defined2())?,
            reopening: Some(signal(SignalKind::user_defined1())?),
        };
        Ok(Self { orders: Orders::Process(signals), kept: None })
    }

    /// SIGUSR1, for what answers it at every stage of the process.
    pub(super) fn take_reopening(&mut self) -> Option<Signal> {
        match &mut self.orders {
            Orders::Process(signals) => signals.reopening.take(),
            Orders::Shutdown(_) => None,
        }
    }

    /// No signals: `shutdown` means what SIGTERM means.
    pub(super) fn shutdown(shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { orders: Orders::Shutdown(Some(Box::pin(shutdown))), kept: None }
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// Safe: none is lost; several of a kind that arrive together are one.
    pub async fn next(&mut self) -> Arrived {
        if let Some(ending) = self.kept.take() {
            return Arrived::Ending(ending);
        }
        match &mut self.orders {
            Orders::Process(signals) => tokio::select! {
                _ = signals.hangup.recv() => Arrived::Hangup,
                _ = signals.takeover.recv() => Arrived::Takeover,
                _ = signals.terminate.recv() => Arrived::Ending(Ending::Terminated),
                _ = signals.interrupt.recv() => Arrived::Ending(Ending::Interrupted),
            },
            Orders::Shutdown(shutdown) => Arrived::Ending(finished(shutdown).await),
        }
    }

    /// The next SIGTERM or SIGINT; other signals that arrive wait for [`next`](Self::next).
    ///
    /// # Cancel safety
    /// Safe: none is lost.
    pub async fn ending(&mut self) -> Ending {
        if let Some(ending) = self.kept.take() {
            return ending;
        }
        match &mut self.orders {
            Orders::Process(signals) => tokio::select! {
                _ = signals.terminate.recv() => Ending::Terminated,
                _ = signals.interrupt.recv() => Ending::Interrupted,
            },
            Orders::Shutdown(shutdown) => finished(shutdown).await,
        }
    }
}

impl Signals {
    /// It has arrived, and is obeyed later: [`Self::next`] says it again.
    pub(super) fn keep(&mut self, ending: Ending) {
        self.kept = Some(ending);
    }

    /// Whether SIGTERM or SIGINT has arrived by now; [`Self::next`] says which.
    pub(super) async fn are_ending(&mut self) -> bool {
        let ending = tokio::select! {
            biased;
            ending = self.ending() => Some(ending),
            () = std::future::ready(()) => None,
        };
        self.kept = ending;
        ending.is_some()
    }
}

/// Waits for a shutdown, which comes once.
async fn finished(shutdown: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) -> Ending {
    match shutdown {
        Some(waiting) => waiting.await,
        None => pending().await,
    }
    *shutdown = None;
    Ending::Terminated
}

/// A signal that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// SIGHUP: read all files again.
    Hangup,
    /// SIGUSR2: let a new process take over.
    Takeover,
    /// SIGTERM or SIGINT: end in order.
    Ending(Ending),
}
