//! Counters of one worker, which others may read at any time.
//!
//! A [`Count`] has one writer, so to add to it is a load and a store, and no locked instruction; each worker's are in
//! memory of their own, so that none waits for another's cache line. Who shows them adds them up.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number to which one thread adds.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Nothing was counted yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n`. For one thread only: what two add at the same time may be lost.
    #[inline]
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// Adds 1.
    #[inline]
    pub fn one(&self) {
        self.add(1);
    }

    /// Is `n` from now on.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Durations {
    /// Up to each of [`DURATIONS`], and longer.
    counts: [Count; DURATIONS.len() + 1],
    sum_us: Count,
}

/// The bounds of [`Durations`]: from a cheap answer of this machine to a client that is about to give up.
pub const DURATIONS: [Duration; 12] = [
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

impl Durations {
    /// Nothing was counted yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: [const { Count::new() }; DURATIONS.len() + 1], sum_us: Count::new() }
    }

    /// Something took this long.
    pub fn add(&self, took: Duration) {
        let at = DURATIONS.iter().position(|bound| took <= *bound).unwrap_or(DURATIONS.len());
        self.counts[at].one();
        self.sum_us.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Is from now on what `from` is.
    pub fn copy(&self, from: &Self) {
        self.counts.iter().zip(&from.counts).for_each(|(to, from)| to.set(from.get()));
        self.sum_us.set(from.sum_us.get());
    }
}

/// The sum of several [`Durations`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DurationTotals {
    /// How often something took at most each of [`DURATIONS`], and longer.
    pub counts: [u64; DURATIONS.len() + 1],
    /// All of it.
    pub sum: Duration,
}

impl DurationTotals {
    /// Adds a worker's.
    pub fn add(&mut self, durations: &Durations) {
        for (total, count) in self.counts.iter_mut().zip(&durations.counts) {
            *total += count.get();
        }
        self.sum += Duration::from_micros(durations.sum_us.get());
    }
}

/// How often something was how large.
#[derive(Debug, Default)]
pub struct Sizes {
    /// Up to each of [`SIZES`], and larger.
    counts: [Count; SIZES.len() + 1],
    sum: Count,
}

/// The bounds of [`Sizes`], in bytes: from a word of a chat to a file.
pub const SIZES: [u64; 9] = [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 16 << 20];

impl Sizes {
    /// Something had so many bytes.
    pub fn add(&self, bytes: u64) {
        let at = SIZES.iter().position(|bound| bytes <= *bound).unwrap_or(SIZES.len());
        self.counts[at].one();
        self.sum.add(bytes);
    }
}

/// The sum of several [`Sizes`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SizeTotals {
    /// How often something had at most each of [`SIZES`], and more.
    pub counts: [u64; SIZES.len() + 1],
    /// All of it, in bytes.
    pub sum: u64,
}

impl SizeTotals {
    /// Adds a worker's.
    pub fn add(&mut self, sizes: &Sizes) {
        for (total, count) in self.counts.iter_mut().zip(&sizes.counts) {
            *total += count.get();
        }
        self.sum = self.sum.wrapping_add(sizes.sum.get());
    }
}

thread_local! {
    /// The number of this thread's worker, and how many there are.
    static HERE: Cell<(usize, usize)> = const { Cell::new((0, 1)) };
}

/// From now on this thread is worker `number`, counted from 0, of `workers`.
pub fn begin(number: usize, workers: usize) {
    HERE.set((number, workers));
}

/// Something that each worker has one of, made when it is first needed there.
#[derive(Debug)]
pub struct ByWorker<T>(OnceLock<Box<[Place<T>]>>);

type Place<T> = OnceLock<Box<Apart<T>>>;

/// What shares no cache line with anything else; some processors fetch two lines of 64 bytes together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

impl<T> Default for ByWorker<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Default> ByWorker<T> {
    /// That of this thread's worker.
    pub fn here(&self) -> &T {
        let (number, workers) = HERE.get();
        let all = self.0.get_or_init(|| (0..workers.max(1)).map(|_| OnceLock::new()).collect());
        &all[number % all.len()].get_or_init(Box::default).0
    }

    /// Those that are there.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.get().into_iter().flatten().filter_map(|one| Some(&one.get()?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_their_bound() {
        let durations = [Durations::default(), Durations::default()];
        for (n, micros) in [0, 100, 101, 30_000_000, 30_000_001, u64::MAX / 4].into_iter().enumerate() {
            durations[n % 2].add(Duration::from_micros(micros));
        }
        let mut totals = DurationTotals::default();
        durations.iter().for_each(|one| totals.add(one));
        assert_eq!(totals.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(totals.sum, Duration::from_micros(u64::MAX / 4 + 60_000_202));
        assert!(DURATIONS.is_sorted());
    }

    #[test]
    fn sizes_are_counted_up_to_their_bound() {
        let sizes = [Sizes::default(), Sizes::default()];
        for (n, bytes) in [0, 64, 65, 16 << 20, (16 << 20) + 1].into_iter().enumerate() {
            sizes[n % 2].add(bytes);
        }
        let mut totals = SizeTotals::default();
        sizes.iter().for_each(|one| totals.add(one));
        assert_eq!(totals, SizeTotals { counts: [2, 1, 0, 0, 0, 0, 0, 0, 1, 1], sum: (32 << 20) + 130 });
        assert!(SIZES.is_sorted());
    }

    #[test]
    fn each_worker_has_its_own() {
        let counts = ByWorker::<Count>::default();
        assert_eq!(counts.iter().count(), 0);
        for (number, n) in [(2, 5), (0, 1), (2, 1)] {
            begin(number, 3);
            counts.here().add(n);
        }
        assert_eq!(counts.iter().map(Count::get).collect::<Vec<_>>(), [1, 6]);
        assert!(align_of_val(counts.0.get().unwrap()[0].get().unwrap().as_ref()) >= 128);
    }
}
