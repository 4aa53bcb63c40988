//! Threads that serve connections, each with a runtime of its own.
//!
//! A connection and its sessions stay on one thread, so that no lock of a scheduler is between a socket and its handler.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;

use crate::shared::End;

/// After the cut, for handlers to come to their end.
const CUT_WAIT: Duration = Duration::from_secs(3);

/// The threads of a service. They end behind [`End::cut`], when their tasks have ended.
#[derive(Debug)]
pub(crate) struct Threads {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
}

impl Threads {
    /// Starts so many.
    ///
    /// # Errors
    /// If the system has no room for a thread or for what its runtime needs.
    pub(crate) fn start(count: usize, end: &End) -> io::Result<Self> {
        let mut runtimes = Vec::with_capacity(count);
        for number in 1..=count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let end = end.clone();
            thread::Builder::new().name(format!("wss-{number}")).spawn(move || serve(&runtime, &end))?;
        }
        Ok(Self { runtimes, next: AtomicUsize::default() })
    }

    /// The runtime whose turn it is; `None`: there are no threads.
    pub(crate) fn next(&self) -> Option<&Handle> {
        let count = self.runtimes.len().max(1);
        self.runtimes.get(self.next.fetch_add(1, Ordering::Relaxed) % count)
    }
}

fn serve(runtime: &Runtime, end: &End) {
    runtime.block_on(async {
        end.cut.cancelled().await;
        end.tasks.close(); // so that they can be waited for
        let _ = timeout(CUT_WAIT, end.tasks.wait()).await;
    });
}
