//! What is known of a server, on its way to another process. Moments travel as the time that has passed or is left.

use std::sync::atomic::Ordering;
use std::time::Duration;

use net_io::state::{StateError, StateReader, StateWriter};

use super::{DOWN, EJECTED, Known, LIVE_BITS, LastProbe, ServerState, millis};
use crate::site::health::{Failures, Streak};

/// The longest text that is handed on. In bytes.
const TEXT_MAX: usize = 256;

impl ServerState {
    /// Writes what is known. What lives is counted where it lives.
    pub(in crate::site) fn leave(&self, out: &mut StateWriter, now: Duration) {
        let Self {
            endpoint: _, // its name is known to who asks
            load: _,     // what lives; all requests below
            sessions: _,
            flags,
            is_failing,
            ejected_until: _, // below
            back_since,
            failures,
            known,
            redials: _,    // counted by each process
            turns: _,      // within a second
            handshakes: _, // the same
            lost: _,       // the same
            freed: _,      // the upstream's
            counts: _,     // the same, and counted by each process
        } = self;
        out.section(|out| {
            out.u64(self.requests());
            out.u64(failures.load(Ordering::Relaxed));
            out.bool(is_failing.load(Ordering::Relaxed));
            let is_ejected = flags.load(Ordering::Relaxed) & EJECTED != 0;
            out.option(is_ejected.then(|| self.ejected_for(now)), StateWriter::duration);
            let since = back_since.load(Ordering::Relaxed);
            let age = (since != 0).then(|| now.saturating_sub(Duration::from_millis(since)));
            out.option(age, StateWriter::duration);
            let Known { failures, streak, cause, probe } =
                &*known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            failures.leave(out, now);
            streak.leave(out);
            out.option(cause.as_deref(), |out, cause| out.bytes(cut(cause).as_bytes()));
            out.option(probe.as_ref(), |out, LastProbe { at, problem }| {
                out.duration(now.saturating_sub(*at));
                out.option(problem.as_deref(), |out, problem| out.bytes(cut(problem).as_bytes()));
            });
        });
    }

    /// Knows what [`Self::leave`] wrote. `is_probed`: what probes have found counts, since there are more.
    ///
    /// # Errors
    /// If it is not what that writes.
    pub(in crate::site) fn arrive(
        &self,
        fields: &mut StateReader<'_>,
        is_probed: bool,
        now: Duration,
    ) -> Result<(), StateError> {
        let mut fields = fields.section()?;
        let (requests, failures) = (fields.count()?, fields.count()?);
        let is_failing = fields.bool()?;
        let ejected = fields.option(StateReader::duration)?;
        let age = fields.option(StateReader::duration)?;
        let mut known = Known {
            failures: Failures::arrive(&mut fields, now)?,
            streak: Streak::arrive(&mut fields)?,
            cause: fields.option(text)?,
            probe: fields.option(|fields| {
                let at = now.saturating_sub(fields.duration()?);
                Ok(LastProbe { at, problem: fields.option(text)? })
            })?,
        };
        // From here on nothing can fail.
        self.load.0.fetch_add(requests << LIVE_BITS, Ordering::Relaxed);
        self.failures.fetch_add(failures, Ordering::Relaxed);
        self.is_failing.store(is_failing, Ordering::Relaxed);
        if let Some(age) = age {
            self.back_since.store(millis(now.saturating_sub(age)).max(1), Ordering::Relaxed);
        }
        if let Some(left) = ejected {
            self.eject(now + left);
        }
        if !is_probed {
            (known.streak, known.probe) = (Streak::default(), None);
        } else if known.streak.is_down() {
            self.flags.fetch_or(DOWN, Ordering::Relaxed);
        }
        *self.known() = known;
        Ok(())
    }
}

fn text(fields: &mut StateReader<'_>) -> Result<Box<str>, StateError> {
    fields.text().map(Into::into)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use super::*;
    use crate::site::endpoint::Endpoint;
    use crate::site::health::{Passive, Probe, ProbeKind};

    const SECOND: Duration = Duration::from_secs(1);

    fn new() -> ServerState {
        ServerState::new(Arc::new(Endpoint::new("a", 80)), Arc::default(), Arc::default(), Duration::ZERO)
    }

    fn moved(old: &ServerState, then: Duration, is_probed: bool, now: Duration) -> ServerState {
        let mut out = StateWriter::new(1);
        old.leave(&mut out, then);
        let bytes = out.finish();
        let new = new();
        new.arrive(&mut StateReader::new(&bytes, 1).unwrap(), is_probed, now).unwrap();
        new
    }

    #[test]
    fn what_is_known_goes_on_under_another_clock() {
        let old = Arc::new(new());
        let passive = Passive { failures: NonZeroU32::MIN, ..Passive::DEFAULT };
        let then = SECOND * 1000;
        let live = old.assign(None).unwrap();
        let time = old.failed(&"it answered 500", Some(&passive), then).unwrap();
        old.eject(then + time);
        let now = SECOND * 7;
        let same = moved(&old, then + SECOND * 10, true, now);
        assert_eq!((same.requests(), same.failures(), same.live()), (1, 1, 0));
        drop(live);
        assert_eq!(same.why(now).as_deref(), Some("for 21 s more: it answered 500"));
        // The next ejection is twice as long, and after the first it is up.
        assert!(!same.is_up(|| now + SECOND * 19) && same.is_up(|| now + SECOND * 20));
        assert_eq!(same.failed(&"", Some(&passive), now + SECOND * 21), Some(passive.eject * 2));
    }

    #[test]
    fn what_probes_have_found_counts_while_there_are_probes() {
        let old = new();
        let probe = Probe { kind: ProbeKind::Tcp, interval: SECOND, timeout: SECOND, rise: 2, fall: 2 };
        for n in 1..3 {
            old.probed(&probe, Some("no answer".into()), SECOND * n);
        }
        assert_eq!(old.probed(&probe, None, SECOND * 3), None);
        let same = moved(&old, SECOND * 10, true, SECOND * 100);
        assert!(same.is_down());
        assert_eq!(same.last_probe().unwrap().at, SECOND * 93);
        assert_eq!(same.probed(&probe, None, SECOND * 101), Some(false), "the second good one in a row");
        let other = moved(&old, SECOND * 10, false, SECOND * 100);
        assert!(!other.is_down() && other.last_probe().is_none());
    }
}
