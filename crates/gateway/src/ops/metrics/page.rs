//! Families of metrics, one after the other. The library writes them; here names are taken apart as it wants them.

use std::fmt;
use std::time::Duration;

use net_io::count::{DURATIONS, DurationTotals, SIZES, SizeTotals};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// A label and its value.
pub(super) type Label<'a> = (&'a str, &'a str);

/// What is written so far.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

/// The family that is written at the moment.
pub(super) struct Family<'a> {
    encoder: MetricEncoder<'a>,
    kind: Kind,
}

/// What the numbers of a family are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They only grow. The name ends in `_total`.
    Counter,
    /// They are as they are.
    Gauge,
    /// How often something was how large.
    Histogram,
}

impl<'a> Page<'a> {
    /// An empty one.
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A family of counters.
    pub(super) fn counter<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Family<'s>, fmt::Error> {
        self.family(name, Kind::Counter, help)
    }

    /// A family of gauges.
    pub(super) fn gauge<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Family<'s>, fmt::Error> {
        self.family(name, Kind::Gauge, help)
    }

    /// A family of histograms.
    pub(super) fn histogram<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Family<'s>, fmt::Error> {
        self.family(name, Kind::Histogram, help)
    }

    /// A family whose one sample tells what something is. The sample's name ends in `_info`.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: &[Label<'_>]) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    /// A family; its name ends in its unit, if it has one, and then in `_total`.
    pub(super) fn family<'s>(
        &'s mut self,
        name: &'s str,
        kind: Kind,
        help: &str,
    ) -> Result<Family<'s>, fmt::Error> {
        let (name, kind_) = match kind {
            // The library writes the end, where it belongs.
            Kind::Counter => (name.strip_suffix("_total").unwrap_or(name), MetricType::Counter),
            Kind::Gauge => (name, MetricType::Gauge),
            Kind::Histogram => (name, MetricType::Histogram),
        };
        let (name, unit) = match (name.strip_suffix("_seconds"), name.strip_suffix("_bytes")) {
            (Some(name), _) => (name, Some(&Unit::Seconds)),
            (_, Some(name)) => (name, Some(&Unit::Bytes)),
            _ => (name, None),
        };
        let encoder = self.0.encode_descriptor(name, help, unit, kind_)?;
        Ok(Family { encoder, kind })
    }
}

impl Family<'_> {
    /// A whole number.
    pub(super) fn sample(&mut self, labels: &[Label<'_>], value: impl TryInto<i64>) -> fmt::Result {
        let value = value.try_into().unwrap_or(i64::MAX);
        let kind = self.kind;
        self.with(labels, |encoder| match kind {
            Kind::Counter => encoder.encode_counter::<NoLabelSet, _, f64>(&value.unsigned_abs(), None),
            Kind::Gauge | Kind::Histogram => encoder.encode_gauge(&value),
        })
    }

    /// A time.
    pub(super) fn seconds(&mut self, labels: &[Label<'_>], value: Duration) -> fmt::Result {
        let (kind, value) = (self.kind, value.as_secs_f64());
        self.with(labels, |encoder| match kind {
            Kind::Counter => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None),
            Kind::Gauge | Kind::Histogram => encoder.encode_gauge(&value),
        })
    }

    /// Durations.
    pub(super) fn durations(&mut self, labels: &[Label<'_>], totals: &DurationTotals) -> fmt::Result {
        let bounds = DURATIONS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(totals.counts).collect();
        self.buckets(labels, totals.sum.as_secs_f64(), &buckets)
    }

    /// Sizes, in bytes.
    pub(super) fn sizes(&mut self, labels: &[Label<'_>], totals: &SizeTotals) -> fmt::Result {
        let bounds = SIZES.iter().map(|&bound| as_float(bound)).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(totals.counts).collect();
        self.buckets(labels, as_float(totals.sum), &buckets)
    }

    /// A histogram of upper bounds, and how many are above the bound before and not above this one. The last has no
    /// bound: `f64::INFINITY`.
    pub(super) fn buckets(&mut self, labels: &[Label<'_>], sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.with(labels, |encoder| encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None))
    }

    fn with(
        &mut self,
        labels: &[Label<'_>],
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        if labels.is_empty() {
            return write(&mut self.encoder); // else there would be braces without labels
        }
        write(&mut self.encoder.encode_family(&labels)?)
    }
}

/// Above 2⁵³ to the nearest that there is.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn as_float(bytes: u64) -> f64 {
    bytes as f64
}
