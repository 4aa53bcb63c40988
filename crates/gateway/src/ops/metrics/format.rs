//! In which of two formats a scraper gets the metrics (RFC 9110 §12.5.1).

use std::fmt;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Version 1.0.0.
    OpenMetrics,
    /// Version 0.0.4 of Prometheus' text, which everything understands.
    Prometheus,
}

impl Format {
    /// What a scraper that accepts this likes best; of the two alike, OpenMetrics.
    pub(crate) fn accepted(accept: &str) -> Self {
        let quality = |format: Self| {
            let ranges = accept.split(',').filter_map(|range| format.quality(range));
            ranges.max_by_key(|(precision, _)| *precision).map(|(_, quality)| quality)
        };
        match (quality(Self::OpenMetrics), quality(Self::Prometheus)) {
            (Some(open), plain) if open > 0.0 && open >= plain.unwrap_or(0.0) => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// How precisely a media range names the format, and its weight (RFC 9110 §12.4.2); `None`: it names another.
    fn quality(self, range: &str) -> Option<(u8, f32)> {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let kind = parts.next()?;
        let precision = match (self, &*kind) {
            (Self::OpenMetrics, "application/openmetrics-text") | (Self::Prometheus, "text/plain") => 2,
            (Self::Prometheus, "text/*") => 1,
            (Self::Prometheus, "*/*") => 0,
            _ => return None,
        };
        let mut quality = 1.0;
        for part in parts {
            match (
                self,
                part.split_once('=').map(|(name, value)| (name.trim(), value.trim().trim_matches('"'))),
            ) {
                (_, Some(("q", value))) => quality = weight(value)?,
                (Self::OpenMetrics, Some(("version", "1.0.0")))
                | (Self::Prometheus, Some(("version", "0.0.4"))) => {}
                (_, Some(("version", _))) => return None,
                _ => {}
            }
        }
        Some((precision, quality))
    }

    /// As HTTP calls it.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// All that is in `registry`.
    ///
    /// # Errors
    /// If a metric can't be written.
    pub(super) fn write(self, registry: &Registry) -> Result<String, fmt::Error> {
        let mut text = String::new();
        match self {
            Self::OpenMetrics => text::encode(&mut text, registry)?,
            Self::Prometheus => prometheus_text::encode(&mut text, registry)?,
        }
        Ok(text)
    }
}

fn weight(value: &str) -> Option<f32> {
    value.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scraper_chooses() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,\
                          text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [
            prometheus,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=\"1.0.0\"; q=0.5, text/plain; q=0.5",
            "application/openmetrics-text, */*",
        ] {
            assert_eq!(Format::accepted(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/*",
            "text/html",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.4,text/plain;q=0.5",
            "application/openmetrics-text;q=0.4,text/plain;q=0.1,*/*",
            "application/openmetrics-text;q=high",
        ] {
            let expect = if accept.contains("0.1") { Format::OpenMetrics } else { Format::Prometheus };
            assert_eq!(Format::accepted(accept), expect, "{accept}");
        }
    }
}
