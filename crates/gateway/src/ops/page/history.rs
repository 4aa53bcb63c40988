//! What routes have carried in the last 15 minutes. Pure.
//!
//! Memory is bounded: [`SLOTS`] samples of 40 bytes for each of [`SERIES_MAX`] routes, and for all others together: 250 KB
//! at most.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ops::ends::Carried;

/// The time of one sample, in seconds.
pub(crate) const SLOT_SECS: u64 = 15;
/// Samples of a series: 15 minutes.
pub(crate) const SLOTS: usize = 60;
/// Routes with a series of their own.
pub(crate) const SERIES_MAX: usize = 100;
/// All the others.
pub(crate) const OTHERS: &str = "(other routes)";

/// One sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Slot {
    /// Live sessions at its last look.
    pub(crate) sessions: u32,
    /// Sessions that ended as they should.
    pub(crate) normal: u32,
    /// Sessions that ended as they should not.
    pub(crate) abnormal: u32,
    /// Whole messages, both ways.
    pub(crate) messages: u64,
    /// Payload from clients.
    pub(crate) received_bytes: u64,
    /// Payload to clients.
    pub(crate) sent_bytes: u64,
}

/// All series.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    series: BTreeMap<String, Vec<Slot>>,
    /// Of each slot, how many milliseconds it covers; the last one is under way.
    covered_ms: Vec<u64>,
    /// The number of the last slot, counted from the epoch of the process.
    now: u64,
}

/// What a route has carried between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Live sessions.
    pub(crate) sessions: u32,
    /// Sessions that ended as they should.
    pub(crate) normal: u32,
    /// Sessions that ended as they should not.
    pub(crate) abnormal: u32,
    /// What moved.
    pub(crate) carried: Carried,
}

impl History {
    /// A look at `now_secs` shows what has changed in the `elapsed_ms` before it.
    pub(crate) fn add(&mut self, now_secs: u64, elapsed_ms: u64, changes: &BTreeMap<String, Change>) {
        self.advance(now_secs / SLOT_SECS);
        if let Some(covered) = self.covered_ms.last_mut() {
            *covered += elapsed_ms;
        }
        for slots in self.series.values_mut() {
            if let Some(slot) = slots.last_mut() {
                slot.sessions = 0; // those that are there say so below
            }
        }
        for (route, change) in changes {
            let has_place = self.series.contains_key(route) || self.series.len() < SERIES_MAX;
            let name = if has_place { route.as_str() } else { OTHERS };
            let slots = match self.series.get_mut(name) {
                Some(slots) => slots,
                None => self.series.entry(name.to_owned()).or_insert_with(|| vec![Slot::default(); SLOTS]),
            };
            if let Some(slot) = slots.last_mut() {
                slot.sessions += change.sessions;
                slot.normal += change.normal;
                slot.abnormal += change.abnormal;
                slot.messages += change.carried.messages;
                slot.received_bytes += change.carried.received_bytes;
                slot.sent_bytes += change.carried.sent_bytes;
            }
        }
    }

    /// The slot with this number is under way.
    fn advance(&mut self, number: u64) {
        if self.covered_ms.is_empty() {
            (self.covered_ms, self.now) = (vec![0; SLOTS], number);
        }
        let steps = usize::try_from(number.saturating_sub(self.now)).unwrap_or(SLOTS).min(SLOTS);
        if steps == 0 {
            return;
        }
        self.now = number;
        self.covered_ms.rotate_left(steps);
        self.covered_ms[SLOTS - steps..].fill(0);
        for slots in self.series.values_mut() {
            slots.rotate_left(steps);
            slots[SLOTS - steps..].fill(Slot::default());
        }
        self.series.retain(|_, slots| slots.iter().any(|slot| *slot != Slot::default()));
    }

    /// The samples of a route, the oldest first; none: it had no session.
    #[must_use]
    pub(crate) fn of(&self, route: &str) -> &[Slot] {
        self.series.get(route).map_or(&[], Vec::as_slice)
    }

    /// All series by route.
    #[must_use]
    pub(crate) fn series(&self) -> &BTreeMap<String, Vec<Slot>> {
        &self.series
    }

    /// How many milliseconds each sample covers; 0: there was no look.
    #[must_use]
    pub(crate) fn covered_ms(&self) -> &[u64] {
        &self.covered_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(sessions: u32, bytes: u64) -> Change {
        let carried = Carried { messages: 1, received_bytes: bytes, sent_bytes: 0 };
        Change { sessions, normal: 0, abnormal: 1, carried }
    }

    fn bytes(history: &History, route: &str) -> Vec<u64> {
        history.of(route).iter().map(|slot| slot.received_bytes).collect()
    }

    #[test]
    fn what_comes_in_one_slot_is_summed_and_old_slots_go() {
        let mut history = History::default();
        let one = |bytes| BTreeMap::from([("/a".to_owned(), change(2, bytes))]);
        history.add(100, 0, &one(1));
        history.add(102, 2000, &one(10));
        assert_eq!(bytes(&history, "/a")[SLOTS - 1], 11);
        assert_eq!(history.of("/a")[SLOTS - 1].sessions, 2, "the last look counts");
        history.add(120, 18_000, &one(100));
        assert_eq!(bytes(&history, "/a")[SLOTS - 3..], [11, 0, 100]);
        assert_eq!(history.covered_ms()[SLOTS - 3..], [2000, 0, 18_000]);
        history.add(120 + 14 * 60, 15_000, &BTreeMap::new());
        assert_eq!(bytes(&history, "/a")[..4], [0, 11, 0, 100]);
        assert_eq!(history.of("/a")[SLOTS - 1].sessions, 0);
        history.add(120 + 16 * 60, 15_000, &BTreeMap::new());
        assert!(history.of("/a").is_empty(), "the route has gone");
        history.add(1 << 40, 1, &one(3));
        assert_eq!(bytes(&history, "/a")[SLOTS - 2..], [0, 3]);
    }

    #[test]
    fn however_many_routes_there_are_memory_is_bounded() {
        let mut history = History::default();
        for round in 0..3 {
            let routes = (0..1000).map(|n| (format!("/{round}/{n}"), change(1, 1))).collect();
            history.add(15 * round, 15_000, &routes);
        }
        assert_eq!(history.series().len(), SERIES_MAX + 1);
        assert_eq!(bytes(&history, OTHERS)[SLOTS - 3..], [900, 1000, 1000]);
        assert!(history.series().values().all(|slots| slots.len() == SLOTS));
        assert_eq!(size_of::<Slot>(), 40);
    }
}
