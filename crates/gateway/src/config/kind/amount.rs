//! Durations, sizes and rates: amounts with their units.

use std::num::NonZeroU64;
use std::path::Path;
use std::time;

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::text::Text;
use super::value::{Kind, Show, found_number, integer, noted};
use crate::config::document::{Document, describe};
use crate::config::spec::Shape;
use crate::config::values;

/// More than nothing, and at most ten years.
pub(in crate::config) struct Duration;
/// A duration, or `"0s"`.
pub(in crate::config) struct DurationOrZero;
/// A duration, or `"off"`.
pub(in crate::config) struct DurationOrOff;

fn no_duration(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(digits) => values::number_for_duration(digits.as_str()),
        other => format!("expected a duration in quotes such as \"30s\", found {}", describe(other)),
    }
}

fn duration_schema() -> Json {
    json!({ "type": "string", "pattern": r"^\s*[0-9][0-9.\s]*[A-Za-zµ][A-Za-zµ0-9.\s]*$" })
}

/// As a person writes it: in the largest unit that leaves no rest.
fn duration_text(duration: time::Duration) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let whole = UNITS.iter().find(|(unit, _)| millis.is_multiple_of(*unit));
    let (unit, name) = whole.copied().unwrap_or((1, "ms"));
    format!("{}{name}", millis / unit)
}

impl Text for Duration {
    type Value = time::Duration;

    fn words() -> String {
        "duration".to_owned()
    }

    fn parse(text: &str, _: &Path) -> Result<time::Duration, String> {
        values::duration(text)
    }

    fn no_string(value: &DeValue<'_>) -> String {
        no_duration(value)
    }

    fn schema() -> Json {
        duration_schema()
    }
}

impl Show for Duration {
    fn show(value: &time::Duration) -> Json {
        duration_text(*value).into()
    }
}

impl Text for DurationOrZero {
    type Value = time::Duration;

    fn words() -> String {
        "duration, or `\"0s\"`".to_owned()
    }

    fn parse(text: &str, _: &Path) -> Result<time::Duration, String> {
        values::duration_or_zero(text)
    }

    fn no_string(value: &DeValue<'_>) -> String {
        no_duration(value)
    }

    fn schema() -> Json {
        duration_schema()
    }
}

impl Show for DurationOrZero {
    fn show(value: &time::Duration) -> Json {
        duration_text(*value).into()
    }
}

impl Text for DurationOrOff {
    type Value = Option<time::Duration>;

    fn words() -> String {
        "duration, or `\"off\"`".to_owned()
    }

    fn parse(text: &str, _: &Path) -> Result<Option<time::Duration>, String> {
        values::duration_or_off(text)
    }

    fn no_string(value: &DeValue<'_>) -> String {
        no_duration(value)
    }

    fn schema() -> Json {
        json!({ "anyOf": [off_schema(), duration_schema()] })
    }
}

impl Show for DurationOrOff {
    fn show(value: &Option<time::Duration>) -> Json {
        value.map_or("off".into(), |value| duration_text(value).into())
    }
}

fn off_schema() -> Json {
    json!({ "enum": ["off"] })
}

/// Bytes: a string with a unit, or a number that can't be meant as anything but bytes; or `"off"`.
pub(in crate::config) struct SizeOrOff;

impl Kind for SizeOrOff {
    type Value = Option<u64>;

    fn shape() -> Shape {
        let text = json!({ "type": "string", "pattern": r"^\s*[0-9. ]*[0-9][0-9. ]*([kmgtpeKMGTPE][iI]?)?[bB]\s*$" });
        // Smaller numbers may be meant as something else than bytes, but for 0.
        let number = json!({ "type": "integer", "minimum": 1024 });
        let schema = json!({ "anyOf": [off_schema(), text, number, { "enum": [0] }] });
        Shape::Value { words: "size, or `\"off\"`".to_owned(), schema }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Option<u64>> {
        const HINT: &str = "expected a size such as \"16MiB\" or \"64KB\", or \"off\"";
        let read = match value.get_ref() {
            DeValue::String(text) if *text == "off" => Ok(None),
            DeValue::String(text) => values::size(text).map(Some),
            other => match integer(other) {
                Some(bytes @ (1..1024)) => Err(format!(
                    "a unit is missing behind {bytes}: write \"{bytes}B\" for bytes, or \"{bytes}MiB\""
                )),
                Some(bytes) => Ok(Some(bytes)),
                None => Err(format!("{HINT}, found {}", found_number(other))),
            },
        };
        noted(document, key, value, read)
    }
}

/// Bytes a second, or `"off"`.
pub(in crate::config) struct RateOrOff;

impl Text for RateOrOff {
    type Value = Option<NonZeroU64>;

    fn words() -> String {
        "size and `/s`, or `\"off\"`".to_owned()
    }

    fn parse(text: &str, _: &Path) -> Result<Option<NonZeroU64>, String> {
        values::rate_or_off(text)
    }

    fn schema() -> Json {
        let pattern = r"^\s*[0-9. ]*[0-9][0-9. ]*([kmgtpeKMGTPE][iI]?)?[bB]\s*/s\s*$";
        json!({ "anyOf": [off_schema(), { "type": "string", "pattern": pattern }] })
    }
}

impl Show for RateOrOff {
    fn show(value: &Option<NonZeroU64>) -> Json {
        value.map_or("off".into(), |bytes| format!("{bytes}B/s").into())
    }
}
