//! Workers: how much of their time they work, and how long what is ready has to wait for them.

use std::fmt;
use std::time::Duration;

use net_io::count::DurationTotals;

use super::page::Page;
use super::process::cpu_wait;
use crate::ops::overview::Overview;

pub(super) fn write(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let workers: Vec<_> =
        overview.counts.iter().enumerate().map(|(number, counts)| (number.to_string(), counts)).collect();
    let mut busy = page.counter(
        "wssgate_worker_busy_seconds_total",
        "Time that a worker has worked; the rate is the share of its time, at 1 it never waits for work",
    )?;
    for (worker, counts) in &workers {
        busy.seconds(&[("worker", worker)], Duration::from_nanos(counts.busy_ns.get()))?;
    }
    let mut longest = page.gauge(
        "wssgate_worker_longest_turn_seconds",
        "The longest time that a worker has worked without a pause, in the last minute or two",
    )?;
    for (worker, counts) in &workers {
        longest.seconds(&[("worker", worker)], counts.longest())?;
    }
    let mut delays = page.histogram(
        "wssgate_worker_delay_seconds",
        "How late a worker came to a timer of its own, of which it has one a second; timers count whole milliseconds",
    )?;
    for (worker, counts) in &workers {
        let mut totals = DurationTotals::default();
        totals.add(&counts.delays);
        delays.durations(&[("worker", worker)], &totals)?;
    }
    let mut waits = page.counter(
        "wssgate_worker_cpu_wait_seconds_total",
        "Time that a worker was ready to run and had no processor, as the kernel counts it",
    )?;
    for (worker, counts) in &workers {
        // Not every kernel counts it.
        if let Some(wait) = counts.tid.get().and_then(|tid| cpu_wait(*tid)) {
            waits.seconds(&[("worker", worker)], wait)?;
        }
    }
    Ok(())
}
