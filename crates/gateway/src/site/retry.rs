//! Which failed requests another server gets, and how many. Pure.

use std::time::Duration;

use http::StatusCode;
use net_io::state::{StateError, StateReader, StateWriter};

/// When another server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Servers that are asked at most, with the first.
    pub attempts: u32,
    /// Which failures count; `None`: [`Self::DEFAULT`] for requests, all of them for WebSocket handshakes.
    pub on: Option<Vec<RetryOn>>,
}

/// A failure that another server may make good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// There is no connection: nothing has been sent.
    Connect,
    /// The connection broke before there was anything of an answer.
    Broken,
    /// This answer.
    Status(StatusCode),
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, on: None }
    }
}

impl Retry {
    /// What counts for requests where nothing is said.
    pub const DEFAULT: [RetryOn; 2] = [RetryOn::Connect, RetryOn::Broken];
    /// What counts for WebSocket handshakes where nothing is said.
    pub const HANDSHAKES: [RetryOn; 5] = [
        RetryOn::Connect,
        RetryOn::Broken,
        RetryOn::Status(StatusCode::BAD_GATEWAY),
        RetryOn::Status(StatusCode::SERVICE_UNAVAILABLE),
        RetryOn::Status(StatusCode::GATEWAY_TIMEOUT),
    ];

    /// The failures that count.
    #[must_use]
    pub fn on(&self, is_handshake: bool) -> &[RetryOn] {
        match &self.on {
            Some(on) => on,
            None if is_handshake => &Self::HANDSHAKES,
            None => &Self::DEFAULT,
        }
    }
}

/// How many retries there may be: a fifth of the requests, and a few more, so that a server that goes down while there
/// are hardly any is not noticed by clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Budget {
    since: Duration,
    /// Requests before that, retries among them.
    before: u64,
    retries: u64,
}

impl Budget {
    const WINDOW: Duration = Duration::from_secs(10);
    /// In each window, whatever the traffic.
    const FREE: u64 = 10;

    /// One more retry is allowed, and is counted. `requests`: all that the servers have been given, with retries.
    pub(crate) fn spend(&mut self, requests: u64, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= Self::WINDOW {
            *self = Self { since: now, before: requests, retries: 0 };
        }
        let first = requests.saturating_sub(self.before).saturating_sub(self.retries);
        let is_allowed = self.retries < Self::FREE.max(first / 5);
        self.retries += u64::from(is_allowed);
        is_allowed
    }

    /// Writes it for another process, where the servers have been given as many requests.
    pub(crate) fn leave(&self, out: &mut StateWriter, now: Duration) {
        let Self { since, before, retries } = self;
        out.duration(now.saturating_sub(*since));
        out.u64(*before);
        out.u64(*retries);
    }

    /// Reads what [`Self::leave`] wrote.
    ///
    /// # Errors
    /// If it is not what that writes.
    pub(crate) fn arrive(fields: &mut StateReader<'_>, now: Duration) -> Result<Self, StateError> {
        let age = fields.duration()?;
        let (before, retries) = (fields.count()?, fields.count()?);
        // In a process that is younger than that, the window begins with the process.
        let since = now.saturating_sub(age);
        Ok(if age >= Self::WINDOW { Self::default() } else { Self { since, before, retries } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_fifth_of_the_requests_at_most() {
        let mut budget = Budget::default();
        // Each request fails at its first server and wants another.
        let (mut requests, mut retries) = (0, 0);
        for n in 0..10_000 {
            requests += 1;
            if budget.spend(requests, Duration::from_millis(n)) {
                retries += 1;
                requests += 1;
            }
        }
        assert!((1990..=2000).contains(&retries), "{retries}");
        // A quiet time saves nothing up.
        let late = Duration::from_secs(1000);
        let at_once = (0..1000).filter(|n| budget.spend(requests + n / 1000, late)).count();
        assert_eq!(at_once, 10);
    }

    #[test]
    fn what_was_spent_stays_spent_in_another_process() {
        let mut budget = Budget::default();
        let then = Duration::from_secs(1000);
        assert_eq!((0..100).filter(|_| budget.spend(1000, then)).count(), 10);
        let mut out = StateWriter::new(1);
        budget.leave(&mut out, then + Duration::from_secs(4));
        let state = out.finish();
        let now = Duration::from_secs(50);
        let mut moved = Budget::arrive(&mut StateReader::new(&state, 1).unwrap(), now).unwrap();
        assert!(!moved.spend(1000, now + Duration::from_millis(5999)));
        assert!(moved.spend(1000, now + Duration::from_secs(6)));
    }
}
