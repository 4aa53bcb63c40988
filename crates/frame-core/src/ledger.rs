//! What sessions carry is added up without an instruction for a message: each tells its [`Ledger`] now and then, when it
//! is awake for another reason, what has come since it told it last. Only sizes are counted as messages come, in counters
//! of the ledger's.

use std::fmt;
use std::sync::Arc;

use net_io::count::{Count, Sizes};

use crate::outcome::Traffic;

/// Adds up what sessions have carried. It is told on the thread of the session's task.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// A session has carried so much more.
    fn add(&self, carried: &Carried);

    /// A ping of the gateway's took this long to its answer, in microseconds.
    fn ping(&self, took_us: u32);

    /// Where the messages of a session of this thread are counted by size: those from the client, and those from the
    /// backend, or from the endpoint.
    fn sizes(&self) -> [&Arc<Sizes>; 2];
}

/// What a session has carried since this was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// From the client.
    pub from_client: Share,
    /// From the backend, or from the endpoint.
    pub from_backend: Share,
}

/// What one direction has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Whole messages.
    pub messages: u64,
    /// Payload bytes of messages, as they are on the wire.
    pub payload_bytes: u64,
}

/// A session's ledger, and what that knows. Only the session's task changes it.
#[derive(Debug)]
pub(crate) struct Account {
    ledger: Arc<dyn Ledger>,
    from_client: Told,
    from_backend: Told,
}

/// What of one direction has been told.
#[derive(Debug, Default)]
struct Told {
    messages: Count,
    payload_bytes: Count,
}

impl Account {
    /// Of a session that begins.
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, from_client: Told::default(), from_backend: Told::default() }
    }

    /// The session has carried this in all.
    pub(crate) fn tell(&self, from_client: &Traffic, from_backend: &Traffic) {
        let carried = self.since(from_client, from_backend);
        if carried != Carried::default() {
            self.ledger.add(&carried);
        }
    }

    /// A ping was answered.
    pub(crate) fn ping(&self, took_us: u32) {
        self.ledger.ping(took_us);
    }

    pub(crate) fn sizes(&self) -> [&Arc<Sizes>; 2] {
        self.ledger.sizes()
    }

    /// The session had carried this when it came, and another process has told that.
    pub(crate) fn begin_at(&self, from_client: &Traffic, from_backend: &Traffic) {
        self.since(from_client, from_backend);
    }

    fn since(&self, from_client: &Traffic, from_backend: &Traffic) -> Carried {
        Carried {
            from_client: self.from_client.since(from_client),
            from_backend: self.from_backend.since(from_backend),
        }
    }
}

impl Told {
    fn since(&self, traffic: &Traffic) -> Share {
        let more = |told: &Count, total: u64| {
            let before = told.get();
            told.set(total);
            total.saturating_sub(before)
        };
        Share {
            messages: more(&self.messages, traffic.messages),
            payload_bytes: more(&self.payload_bytes, traffic.payload_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_moving::Page;

    fn traffic(messages: u64, payload_bytes: u64) -> Traffic {
        Traffic { messages, payload_bytes, wire_bytes: 9 * payload_bytes, largest: payload_bytes }
    }

    #[test]
    fn each_message_is_told_once_and_nothing_is_not_told() {
        let page = Arc::<Page>::default();
        let account = Account::new(page.clone());
        account.tell(&traffic(0, 0), &traffic(0, 0));
        account.tell(&traffic(1, 10), &traffic(0, 0));
        account.tell(&traffic(1, 10), &traffic(0, 0));
        account.tell(&traffic(1, 15), &traffic(7, 70)); // five bytes of a message that goes on
        assert_eq!(*page.0.lock().unwrap(), [[1, 10, 0, 0], [0, 5, 7, 70]]);
    }

    #[test]
    fn what_another_process_has_told_is_not_told_again() {
        let page = Arc::<Page>::default();
        let account = Account::new(page.clone());
        account.begin_at(&traffic(100, 1000), &traffic(50, 500));
        account.tell(&traffic(101, 1010), &traffic(50, 500));
        assert_eq!(*page.0.lock().unwrap(), [[1, 10, 0, 0]]);
    }
}
