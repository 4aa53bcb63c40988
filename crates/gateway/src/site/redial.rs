//! How sessions outlive their servers: the settings, and when a server is looked for. Pure.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use net_io::state::{StateError, StateReader, StateWriter};

/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// After a session has lived for so long with a server, its next wait is [`FIRST_WAIT`] again.
const LONG_LIVED: Duration = Duration::from_secs(60);

/// The settings of an upstream whose sessions outlive its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redial {
    /// The longest wait between two attempts.
    pub interval: Duration,
    /// For how long a session looks for a server.
    pub timeout: Duration,
    /// Bytes of a client that are held meanwhile.
    pub held_max: usize,
    /// A message may go to two servers.
    pub may_repeat: bool,
    /// From one handshake with a server to the next.
    pub pace: Duration,
    /// Handshakes with a server that are under way, at most.
    pub handshakes_max: NonZeroU32,
}

impl Redial {
    /// What holds where nothing is said.
    pub const DEFAULT: Self = Self {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(30),
        held_max: 64 * 1024,
        may_repeat: false,
        pace: Duration::from_millis(5),
        handshakes_max: NonZeroU32::new(200).unwrap(),
    };
}

/// Why a session could not go on with another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedialFailure {
    /// A message was passed on in part, and no other server can end it.
    Cut,
    /// A server, or the route's rules, don't want the client any more.
    Refused,
    /// A server has chosen another subprotocol, or other extensions.
    Changed,
    /// No server took it in time.
    Timeout,
    /// It could go on with none from its beginning.
    Unable,
}

impl RedialFailure {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cut, Self::Refused, Self::Changed, Self::Timeout, Self::Unable];

    /// Lower case, for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Refused => "refused",
            Self::Changed => "changed",
            Self::Timeout => "timeout",
            Self::Unable => "unable",
        }
    }
}

/// How long a session has looked for servers, since it last lived for long with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Search {
    attempts: u32,
    spent: Duration,
}

impl Search {
    /// The session has lived for so long with the server that it has lost.
    pub fn lived(&mut self, time: Duration) {
        if time >= LONG_LIVED {
            *self = Self::default();
        }
    }

    /// Writes what [`Self::read_state`] reads.
    pub(crate) fn write_state(&self, out: &mut StateWriter) {
        let Self { attempts, spent } = self;
        out.u32(*attempts);
        out.duration(*spent);
    }

    /// How long a session has looked elsewhere.
    ///
    /// # Errors
    /// If it is cut off.
    pub(crate) fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        Ok(Self { attempts: fields.u32()?, spent: fields.duration()? })
    }

    /// So much time has gone. That in which other sessions are served first does not count.
    pub fn spend(&mut self, time: Duration) {
        self.spent += time;
    }

    /// What is left of the time; `None`: nothing.
    #[must_use]
    pub fn left(&self, redial: &Redial) -> Option<Duration> {
        redial.timeout.checked_sub(self.spent).filter(|left| !left.is_zero())
    }

    /// How long one attempt may take: half of what is left, if there are others that the session can be given to when a
    /// server doesn't answer.
    #[must_use]
    pub fn attempt(&self, redial: &Redial, has_others: bool) -> Option<Duration> {
        self.left(redial).map(|left| if has_others { left / 2 } else { left })
    }

    /// The wait before the next attempt. `random` from 0 to 1 makes it up to half as long, so that sessions which were
    /// lost together don't come together.
    pub fn wait(&mut self, redial: &Redial, random: f64) -> Duration {
        let doubled = FIRST_WAIT.saturating_mul(1 << self.attempts.min(16));
        self.attempts = self.attempts.saturating_add(1);
        doubled.min(redial.interval).mul_f64(1.0 - random / 2.0)
    }
}

/// When a server has its next handshake with a session that comes from another one.
#[derive(Debug, Default)]
pub(crate) struct Turns(AtomicU64);

impl Turns {
    /// How long a session has to wait for its turn, which is kept for it. `now` by any clock of the process.
    pub(crate) fn take(&self, pace: Duration, now: Duration) -> Duration {
        let interval = u64::try_from(pace.as_nanos()).unwrap_or(u64::MAX / 2);
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let next = |before: u64| Some(before.max(now) + interval);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        Duration::from_nanos(before.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_of_several_has_half_of_the_time() {
        let mut search = Search::default();
        let attempt = |search: &Search, has_others| search.attempt(&Redial::DEFAULT, has_others);
        assert_eq!(attempt(&search, false), Some(Duration::from_secs(30)));
        assert_eq!(attempt(&search, true), Some(Duration::from_secs(15)));
        search.spend(Duration::from_secs(15));
        assert_eq!(attempt(&search, true), Some(Duration::from_millis(7500)));
        search.spend(Duration::from_secs(15));
        assert_eq!((attempt(&search, true), attempt(&search, false)), (None, None));
    }

    #[test]
    fn waits_double_up_to_the_interval() {
        let mut search = Search::default();
        let waits: Vec<_> = (0..8).map(|_| search.wait(&Redial::DEFAULT, 0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let mut search = Search::default();
        let waits: Vec<_> = (0..3).map(|_| search.wait(&Redial::DEFAULT, 1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200]);
        let last = (0..100).map(|_| search.wait(&Redial::DEFAULT, 0.0)).last();
        assert_eq!(last, Some(Redial::DEFAULT.interval));
    }

    #[test]
    fn waits_and_the_time_start_again_only_after_a_minute_with_a_server() {
        let mut search = Search::default();
        search.wait(&Redial::DEFAULT, 0.0);
        search.spend(Duration::from_secs(20));
        search.lived(Duration::from_secs(59));
        assert_eq!(search.wait(&Redial::DEFAULT, 0.0), 2 * FIRST_WAIT);
        assert_eq!(search.left(&Redial::DEFAULT), Some(Duration::from_secs(10)));
        search.spend(Duration::from_secs(10));
        assert_eq!(search.left(&Redial::DEFAULT), None);
        search.lived(Duration::from_secs(60));
        assert_eq!(search, Search::default());
    }

    #[test]
    fn a_server_is_met_by_one_session_after_the_other() {
        let (turns, pace) = (Turns::default(), Redial::DEFAULT.pace);
        let now = Duration::from_secs(7);
        let waits: Vec<_> = (0..3).map(|_| turns.take(pace, now).as_millis()).collect();
        assert_eq!(waits, [0, 5, 10]);
        assert_eq!(turns.take(pace, now + Duration::from_millis(12)).as_millis(), 3);
        assert_eq!(turns.take(pace, now + Duration::from_secs(1)), Duration::ZERO);
    }
}
