//! What a kind of values is.

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::DeValue;

use crate::config::document::{Document, Section, describe};
use crate::config::spec::{At, Shape};

/// A kind of values. The types that implement it are never made.
pub(in crate::config) trait Kind {
    type Value;

    /// What a value is and its range.
    fn shape() -> Shape;

    /// Reads the value of `key`; what is wrong with it is noted in the document.
    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Self::Value>;
}

/// A kind whose values can be defaults, shown as a file would have them.
pub(in crate::config) trait Show: Kind {
    fn show(value: &Self::Value) -> Json;
}

/// Notes what is wrong with the value of `key`.
pub(in crate::config) fn noted<T>(
    document: &mut Document<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    read: Result<T, String>,
) -> Option<T> {
    read.map_err(|what| document.problem(document.place(Some(value.span())), format!("{key}: {what}"))).ok()
}

/// Reads the value of a key; `None` if it isn't there or is wrong, which is noted.
pub(in crate::config) fn read<K: Kind>(
    document: &mut Document<'_>,
    section: &Section<'_>,
    key: &str,
) -> Option<At<K::Value>> {
    let value = section.get(key)?;
    let place = document.place(Some(value.span()));
    K::read(document, key, value).map(|value| At { value, place })
}

pub(in crate::config) fn integer<T: TryFrom<u64>>(value: &DeValue<'_>) -> Option<T> {
    let DeValue::Integer(digits) = value else { return None };
    u64::from_str_radix(digits.as_str(), digits.radix()).ok()?.try_into().ok()
}

/// A number is called by its digits where a number is expected.
pub(in crate::config) fn found_number(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(digits) => digits.to_string(),
        other => describe(other),
    }
}
