//! Graphs of the last 15 minutes, as SVG with a text for those who don't see it. Pure.

use std::fmt::Write;

use maud::{Markup, html};

use crate::ops::page::history::{SLOTS, Slot};
use crate::ops::page::shown;

/// How large a graph is, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) width: u16,
    pub(super) height: u16,
}

/// In a row of a table.
pub(super) const SMALL: Size = Size { width: 240, height: 44 };
/// Across the page.
pub(super) const LARGE: Size = Size { width: 960, height: 160 };

/// What of a graph is for the bars of ended sessions.
const BARS: f64 = 0.3;

/// Payload a second as a line, and ended sessions as bars below it. `name` is what it is of.
pub(super) fn graph(name: &str, slots: &[Slot], covered_ms: &[u64], size: Size) -> Markup {
    let rates: Vec<Option<f64>> = slots
        .iter()
        .zip(covered_ms)
        .map(|(slot, ms)| {
            (*ms > 0).then(|| (slot.received_bytes + slot.sent_bytes) as f64 * 1000.0 / *ms as f64)
        })
        .collect();
    let peak = rates.iter().flatten().copied().fold(0.0, f64::max);
    let ended = |slot: &Slot| slot.normal + slot.abnormal;
    let most_ended = slots.iter().map(ended).max().unwrap_or_default();
    let normal: u32 = slots.iter().map(|slot| slot.normal).sum();
    let abnormal: u32 = slots.iter().map(|slot| slot.abnormal).sum();
    let now = rates.iter().rev().flatten().next().copied().unwrap_or_default();
    let text = format!(
        "{name}, last 15 minutes: {} now, {} at most; {} sessions ended, {} of them abnormally",
        shown::byte_rate(now).replace('–', "no payload"),
        shown::byte_rate(peak).replace('–', "no payload"),
        shown::count(normal + abnormal),
        shown::count(abnormal),
    );
    let (width, height) = (f64::from(size.width), f64::from(size.height));
    let step = width / SLOTS as f64;
    let (mut line, mut area, mut bars, mut bad) = Default::default();
    trace(&mut line, &mut area, &rates, peak, (step, height));
    for (n, slot) in slots.iter().enumerate().filter(|_| most_ended > 0) {
        let x = n as f64 * step;
        let tall = |count: u32| f64::from(count) / f64::from(most_ended) * height * BARS;
        bar(&mut bars, x, step, height, tall(ended(slot)));
        bar(&mut bad, x, step, height, tall(slot.abnormal));
    }
    html! {
        svg class="graph" viewBox=(format!("0 0 {} {}", size.width, size.height)) width=(size.width) height=(size.height)
            preserveAspectRatio="none" role="img" aria-label=(text) {
            path class="area" d=(area) {}
            path class="line" d=(line) vector-effect="non-scaling-stroke" {}
            path class="ended" d=(bars) {}
            path class="abnormal" d=(bad) {}
        }
    }
}

/// The largest payload a second, as the graph's scale.
pub(super) fn peak(slots: &[Slot], covered_ms: &[u64]) -> f64 {
    let rates = slots.iter().zip(covered_ms).filter(|(_, ms)| **ms > 0);
    rates
        .map(|(slot, ms)| (slot.received_bytes + slot.sent_bytes) as f64 * 1000.0 / *ms as f64)
        .fold(0.0, f64::max)
}

/// A sample is as wide as its slot. Where there was no look there is no line.
fn trace(line: &mut String, area: &mut String, rates: &[Option<f64>], peak: f64, (step, height): (f64, f64)) {
    let y = |rate: f64| if peak > 0.0 { (height - 2.0) * (1.0 - rate / peak) + 1.0 } else { height - 1.0 };
    let rate_of = |n: Option<usize>| n.and_then(|n| rates.get(n)).copied().flatten();
    for (n, rate) in rates.iter().enumerate() {
        let Some(y) = rate.map(y) else { continue };
        let x = n as f64 * step;
        let (middle, end) = (x + step / 2.0, x + step);
        if rate_of(n.checked_sub(1)).is_none() {
            let _ = write!(line, "M{x:.1} {y:.1}");
            let _ = write!(area, "M{x:.1} {height:.1}L{x:.1} {y:.1}");
        }
        let _ = write!(line, "L{middle:.1} {y:.1}");
        let _ = write!(area, "L{middle:.1} {y:.1}");
        if rate_of(Some(n + 1)).is_none() {
            let _ = write!(line, "L{end:.1} {y:.1}");
            let _ = write!(area, "L{end:.1} {y:.1}L{end:.1} {height:.1}Z");
        }
    }
}

fn bar(path: &mut String, x: f64, step: f64, height: f64, tall: f64) {
    if tall > 0.0 {
        let tall = tall.max(1.5);
        let _ = write!(path, "M{:.1} {height:.1}v-{tall:.1}h{:.1}v{tall:.1}Z", x + step * 0.15, step * 0.7);
    }
}

/// What the parts of a graph mean.
pub(super) fn legend() -> Markup {
    html! {
        p class="legend" {
            span { span class="key key-line" {} "payload a second, both ways" }
            span { span class="key key-ended" {} "sessions that ended" }
            span { span class="key key-abnormal" {} "ended abnormally" }
            span { "a sample is 15 seconds" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(bytes: u64, normal: u32, abnormal: u32) -> Slot {
        Slot { sent_bytes: bytes, normal, abnormal, ..Slot::default() }
    }

    #[test]
    fn a_graph_has_a_line_where_there_was_a_look_and_a_text() {
        let mut slots = vec![Slot::default(); SLOTS];
        slots[58] = slot(30_000, 3, 0);
        slots[59] = slot(15_000, 0, 1);
        let mut covered = vec![0; SLOTS];
        covered[57..].fill(15_000);
        let svg = graph("/a<b>", &slots, &covered, SMALL).into_string();
        assert!(svg.contains("aria-label=\"/a&lt;b&gt;, last 15 minutes: 1.0 kB/s now, 2.0 kB/s at most; 4 sessions ended, 1 of them abnormally\""), "{svg}");
        assert!(
            svg.contains("class=\"line\" d=\"M228.0 43.0L230.0 43.0L234.0 1.0L238.0 22.0L240.0 22.0\""),
            "{svg}"
        );
        assert!(
            svg.contains("class=\"ended\" d=\"M232.6 44.0v-13.2h2.8v13.2ZM236.6 44.0v-4.4h2.8v4.4Z\""),
            "{svg}"
        );
        assert!(svg.contains("class=\"abnormal\" d=\"M236.6 44.0v-4.4h2.8v4.4Z\""), "{svg}");
        assert!(!svg.contains("style="), "the policy forbids it");
    }

    #[test]
    fn without_anything_there_is_a_flat_line() {
        let svg = graph("all", &[Slot::default(); SLOTS], &[15_000; SLOTS], SMALL).into_string();
        assert!(svg.contains("no payload now") && !svg.contains("NaN"), "{svg}");
        let none = graph("all", &[], &[], SMALL).into_string();
        assert!(none.contains("class=\"line\" d=\"\""), "{none}");
    }
}
