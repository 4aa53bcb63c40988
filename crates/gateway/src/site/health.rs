//! What requests and probes say about a server, and what follows from it. Pure.
//!
//! In: failures, successes and the results of probes, each with its time. Out: the server is ejected, up or down.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use net_io::state::{StateError, StateReader, StateWriter};

/// Servers that fail requests are ejected: they get none for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passive {
    /// So many failures in a row,
    pub failures: NonZeroU32,
    /// none of them longer ago than this,
    pub within: Duration,
    /// eject the server for so long, and twice as long each further time.
    pub eject: Duration,
}

impl Passive {
    /// What holds where nothing is said.
    pub const DEFAULT: Self = Self {
        failures: NonZeroU32::new(5).unwrap(),
        within: Duration::from_secs(10),
        eject: Duration::from_secs(30),
    };
    /// Times `eject`: the longest ejection.
    const LONGEST: u32 = 16;
}

/// How servers are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is done.
    pub kind: ProbeKind,
    /// From one probe to the next.
    pub interval: Duration,
    /// The longest that one may take.
    pub timeout: Duration,
    /// So many good ones in a row bring a server back.
    pub rise: u32,
    /// So many bad ones in a row take it out.
    pub fall: u32,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind {
    /// It opens a connection.
    Tcp,
    /// It sends a GET.
    Http {
        /// For this path.
        path: Box<str>,
        /// What has to be answered; `None`: any status from 200 to 399.
        status: Option<StatusCode>,
    },
    /// It opens a WebSocket and closes it.
    WebSocket {
        /// At this path.
        path: Box<str>,
    },
}

/// What becomes of the live sessions of a server that probes find down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDown {
    /// They stay.
    #[default]
    Keep,
    /// They are closed with 1012.
    Close,
}

/// The failures of a server so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Failures {
    in_a_row: u32,
    /// The first of them.
    since: Duration,
    /// Ejections, each of which began soon after the end of the one before.
    ejections: u32,
    /// The end of the last one.
    until: Duration,
}

impl Failures {
    /// A request has failed. Returns for how long the server is to be ejected, if it is.
    pub(crate) fn failed(&mut self, passive: &Passive, now: Duration) -> Option<Duration> {
        if self.in_a_row == 0 || now.saturating_sub(self.since) > passive.within {
            (self.in_a_row, self.since) = (0, now);
        }
        self.in_a_row += 1;
        if self.in_a_row < passive.failures.get() {
            return None;
        }
        self.in_a_row = 0;
        let longest = passive.eject * Passive::LONGEST;
        if now.saturating_sub(self.until) > longest {
            self.ejections = 0;
        }
        let time = passive.eject.saturating_mul(1 << self.ejections.min(4)).min(longest);
        self.ejections += 1;
        self.until = now + time;
        Some(time)
    }

    /// Writes them for another process.
    pub(super) fn leave(&self, out: &mut StateWriter, now: Duration) {
        let Self { in_a_row, since, ejections, until } = self;
        out.u32(*in_a_row);
        out.duration(now.saturating_sub(*since));
        out.u32(*ejections);
        out.duration(now.saturating_sub(*until));
        out.duration(until.saturating_sub(now));
    }

    /// What [`Self::leave`] wrote.
    ///
    /// # Errors
    /// If it is not what that writes.
    pub(super) fn arrive(fields: &mut StateReader<'_>, now: Duration) -> Result<Self, StateError> {
        let (in_a_row, since) = (fields.u32()?.min(FAILURES_MAX), fields.duration()?);
        let (ejections, passed, left) =
            (fields.u32()?.min(EJECTIONS_MAX), fields.duration()?, fields.duration()?);
        let since = now.saturating_sub(since);
        Ok(Self { in_a_row, since, ejections, until: (now + left).saturating_sub(passed) })
    }

    /// A request has been answered.
    pub(crate) fn succeeded(&mut self) {
        self.in_a_row = 0;
    }
}

/// What counters that come from another process are cut to, so that one more never overflows.
const FAILURES_MAX: u32 = 1 << 30;
const EJECTIONS_MAX: u32 = 1 << 16;

/// What probes have found so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Streak {
    is_down: bool,
    /// Results that contradict that, in a row.
    against: u32,
}

impl Streak {
    /// Writes it for another process.
    pub(super) fn leave(self, out: &mut StateWriter) {
        let Self { is_down, against } = self;
        out.bool(is_down);
        out.u32(against);
    }

    /// What [`Self::leave`] wrote.
    ///
    /// # Errors
    /// If it is not what that writes.
    pub(super) fn arrive(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        Ok(Self { is_down: fields.bool()?, against: fields.u32()?.min(FAILURES_MAX) })
    }

    /// The server is down.
    pub(super) fn is_down(self) -> bool {
        self.is_down
    }

    /// A probe has ended. Returns whether the server is down, if that has changed.
    pub(crate) fn probed(&mut self, probe: &Probe, is_good: bool) -> Option<bool> {
        if is_good != self.is_down {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if self.is_down { probe.rise } else { probe.fall };
        if self.against < needed {
            return None;
        }
        (self.is_down, self.against) = (!self.is_down, 0);
        Some(self.is_down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time() {
        let mut failures = Failures::default();
        let fail = |failures: &mut Failures, from: u32| -> Vec<Option<u64>> {
            (0..5)
                .map(|i| failures.failed(&Passive::DEFAULT, SECOND * (from + i)))
                .map(|time| time.map(|time| time.as_secs()))
                .collect()
        };
        assert_eq!(fail(&mut failures, 100), [None, None, None, None, Some(30)]);
        assert_eq!(fail(&mut failures, 140).last(), Some(&Some(60)));
        assert_eq!(fail(&mut failures, 250).last(), Some(&Some(120)));
        for (from, expect) in [(400, 240), (700, 480), (1200, 480)] {
            assert_eq!(fail(&mut failures, from).last(), Some(&Some(expect)));
        }
        // Long after that all is forgotten.
        assert_eq!(fail(&mut failures, 9000).last(), Some(&Some(30)));
    }

    #[test]
    fn failures_that_are_not_in_a_row_or_too_slow_eject_nothing() {
        let mut failures = Failures::default();
        for i in 0..100 {
            assert_eq!(failures.failed(&Passive::DEFAULT, SECOND * i), None);
            if i % 4 == 3 {
                failures.succeeded();
            }
        }
        let mut failures = Failures::default();
        for i in 0..100 {
            assert_eq!(failures.failed(&Passive::DEFAULT, SECOND * 3 * i), None);
        }
    }

    #[test]
    fn probes_change_a_state_after_some_in_a_row() {
        let probe = Probe { kind: ProbeKind::Tcp, interval: SECOND, timeout: SECOND, rise: 2, fall: 3 };
        let mut streak = Streak::default();
        let mut changes = Vec::new();
        for good in "+--+---+-++-+".chars() {
            changes.push(streak.probed(&probe, good == '+'));
        }
        let at: Vec<_> = changes.iter().enumerate().filter_map(|(i, c)| c.map(|c| (i, c))).collect();
        assert_eq!(at, [(6, true), (10, false)]);
    }
}
