//! What is measured of a session beside its traffic: how long the gateway's pings took to their answers, and for how
//! long bytes have waited for a peer. Pure.
//!
//! In: what happened, and when (as time since a fixed moment). Out: [`RoundTrips`] and [`Waits`]. Each idle session has
//! one, so moments are the low 32 bits of a count: of milliseconds, of which 2³² are 49 days, and for a ping of
//! microseconds, of which they are 71 minutes.

use std::time::Duration;

use net_io::state::{StateError, StateReader, StateWriter};

use crate::clock::Shift;
use crate::outcome::{RoundTrips, Waits};

/// What has been measured so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measures {
    client: Wait,
    backend: Wait,
    /// When the latest ping was sent.
    pinged_us: u32,
    last_us: u32,
    min_us: u32,
    /// 0: no ping has been answered.
    max_us: u32,
    client_waits: bool,
    backend_waits: bool,
    /// The latest ping has not been answered.
    is_pinged: bool,
    /// It has been, and [`Self::take_answer`] was not called since.
    is_answered: bool,
}

/// How long bytes have waited for a peer.
#[derive(Debug, Clone, Default)]
struct Wait {
    /// Since when some do, if some do.
    since_ms: u32,
    /// The sum of the waits that are over.
    over_ms: u32,
}

impl Measures {
    /// Whether bytes wait for the client now, and for the backend. To be called before the task sleeps, so that a wait
    /// ends when it does.
    #[inline]
    pub(crate) fn on_waits(&mut self, client: bool, backend: bool, now: Duration) {
        if client != self.client_waits || backend != self.backend_waits {
            self.set_waits(client, backend, now);
        }
    }

    fn set_waits(&mut self, client: bool, backend: bool, now: Duration) {
        let now = millis(now);
        for (wait, waited, waits) in [
            (&mut self.client, &mut self.client_waits, client),
            (&mut self.backend, &mut self.backend_waits, backend),
        ] {
            wait.over_ms = wait.sum(*waited, now);
            wait.since_ms = now;
            *waited = waits;
        }
    }

    /// A ping has been handed to the network.
    pub(crate) fn on_ping_sent(&mut self, now: Duration) {
        (self.is_pinged, self.pinged_us) = (true, micros(now));
    }

    /// The latest ping has been answered; of several answers the first counts.
    pub(crate) fn on_pong(&mut self, now: Duration) {
        if !std::mem::take(&mut self.is_pinged) {
            return;
        }
        // What takes less than a microsecond takes one: 0 says that there is nothing.
        let took = micros(now).wrapping_sub(self.pinged_us).max(1);
        self.last_us = took;
        self.min_us = if self.max_us == 0 { took } else { self.min_us.min(took) };
        self.max_us = self.max_us.max(took);
        self.is_answered = true;
    }

    /// How long the latest ping took, in microseconds; once.
    pub(crate) fn take_answer(&mut self) -> Option<u32> {
        std::mem::take(&mut self.is_answered).then_some(self.last_us)
    }

    /// For how long each peer has been waited for.
    pub(crate) fn waits(&self, now: Duration) -> Waits {
        Waits {
            client_ms: self.client.sum(self.client_waits, millis(now)),
            backend_ms: self.backend.sum(self.backend_waits, millis(now)),
        }
    }

    /// How long pings took.
    pub(crate) fn pings(&self) -> Option<RoundTrips> {
        let Self { last_us, min_us, max_us, .. } = *self;
        (max_us > 0).then_some(RoundTrips { last_us, min_us, max_us })
    }

    /// Goes on by another clock.
    pub(crate) fn shift(&mut self, shift: Shift) {
        let Shift { from, to } = shift;
        for wait in [&mut self.client, &mut self.backend] {
            wait.since_ms = millis(to).wrapping_sub(millis(from).wrapping_sub(wait.since_ms));
        }
        self.pinged_us = micros(to).wrapping_sub(micros(from).wrapping_sub(self.pinged_us));
    }

    /// Writes what [`Self::read_state`] reads.
    pub(crate) fn write_state(&self, out: &mut StateWriter, now: Duration) {
        let Self {
            client,
            backend,
            pinged_us,
            last_us,
            min_us,
            max_us,
            client_waits,
            backend_waits,
            is_pinged,
            is_answered: _, // it is taken in the same poll
        } = self;
        for (Wait { since_ms, over_ms }, waits) in [(client, client_waits), (backend, backend_waits)] {
            out.u32(*over_ms);
            out.option(waits.then(|| millis(now).wrapping_sub(*since_ms)), StateWriter::u32);
        }
        out.option(is_pinged.then(|| micros(now).wrapping_sub(*pinged_us)), StateWriter::u32);
        for took in [last_us, min_us, max_us] {
            out.u32(*took);
        }
    }

    /// Goes on at `now` where another session's left off.
    pub(crate) fn read_state(fields: &mut StateReader<'_>, now: Duration) -> Result<Self, StateError> {
        let mut measures = Self::default();
        for (wait, waits) in [
            (&mut measures.client, &mut measures.client_waits),
            (&mut measures.backend, &mut measures.backend_waits),
        ] {
            wait.over_ms = fields.u32()?;
            let waited = fields.option(StateReader::u32)?;
            *waits = waited.is_some();
            wait.since_ms = millis(now).wrapping_sub(waited.unwrap_or_default());
        }
        let waited = fields.option(StateReader::u32)?;
        measures.is_pinged = waited.is_some();
        measures.pinged_us = micros(now).wrapping_sub(waited.unwrap_or_default());
        for took in [&mut measures.last_us, &mut measures.min_us, &mut measures.max_us] {
            *took = fields.u32()?;
        }
        Ok(measures)
    }
}

impl Wait {
    fn sum(&self, waits: bool, now: u32) -> u32 {
        let running = if waits { now.wrapping_sub(self.since_ms) } else { 0 };
        self.over_ms.saturating_add(running)
    }
}

fn millis(now: Duration) -> u32 {
    low(now.as_secs().wrapping_mul(1000).wrapping_add(now.subsec_millis().into()))
}

fn micros(now: Duration) -> u32 {
    low(now.as_secs().wrapping_mul(1_000_000).wrapping_add(now.subsec_micros().into()))
}

fn low(count: u64) -> u32 {
    u32::try_from(count & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::READ_AT;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_are_summed_for_each_peer() {
        let mut measures = Measures::default();
        measures.on_waits(false, false, ms(5));
        assert_eq!(measures.waits(ms(9)), Waits::default());
        measures.on_waits(true, false, ms(10));
        measures.on_waits(true, true, ms(30));
        assert_eq!(measures.waits(ms(40)), Waits { client_ms: 30, backend_ms: 10 }, "they go on");
        measures.on_waits(false, true, ms(50));
        measures.on_waits(false, false, ms(60));
        measures.on_waits(true, false, ms(1000));
        measures.on_waits(false, false, ms(1002));
        assert_eq!(measures.waits(ms(5000)), Waits { client_ms: 42, backend_ms: 30 });
    }

    #[test]
    fn the_first_answer_to_the_latest_ping_counts() {
        let mut measures = Measures::default();
        measures.on_pong(ms(1));
        assert_eq!((measures.pings(), measures.take_answer()), (None, None), "it answers nothing");
        measures.on_ping_sent(ms(10));
        assert_eq!(measures.pings(), None);
        measures.on_pong(ms(30));
        measures.on_pong(ms(90));
        assert_eq!(measures.pings(), Some(RoundTrips { last_us: 20_000, min_us: 20_000, max_us: 20_000 }));
        assert_eq!((measures.take_answer(), measures.take_answer()), (Some(20_000), None));
        measures.on_ping_sent(ms(100));
        measures.on_ping_sent(ms(200));
        measures.on_pong(ms(205));
        measures.on_ping_sent(ms(300));
        measures.on_pong(ms(300));
        assert_eq!(measures.pings(), Some(RoundTrips { last_us: 1, min_us: 1, max_us: 20_000 }));
    }

    proptest! {
        /// Whenever it begins, by whatever clock it goes on, and whether it is written in between or not.
        #[test]
        fn only_the_time_that_passes_counts(
            begun in 0u64..1 << 40,
            other in 0u64..1 << 40,
            before in 0u64..1 << 20,
            after in 0u64..1 << 20,
            is_written: bool,
        ) {
            let mut measures = Measures::default();
            measures.on_waits(true, false, ms(begun));
            measures.on_ping_sent(ms(begun));
            let frozen = ms(begun + before);
            let mut from = frozen;
            if is_written {
                let mut out = StateWriter::new(0);
                measures.write_state(&mut out, frozen);
                let bytes = out.finish();
                measures = Measures::read_state(&mut StateReader::new(&bytes, 0).unwrap(), READ_AT).unwrap();
                from = READ_AT;
            }
            measures.shift(Shift { from, to: ms(other) });
            measures.on_pong(ms(other + after));
            let waited = u32::try_from(before + after).unwrap();
            prop_assert_eq!(measures.waits(ms(other + after)), Waits { client_ms: waited, backend_ms: 0 });
            let took = u64::from(measures.pings().unwrap().last_us);
            let expect = (u64::from(waited) * 1000) & u64::from(u32::MAX);
            prop_assert_eq!(took, expect.max(1));
        }
    }
}
