//! Booleans, numbers and lists.

use std::marker::PhantomData;
use std::num::NonZeroU32;

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::text::Text;
use super::value::{Kind, Show, found_number, integer, noted};
use crate::config::document::{Document, describe};
use crate::config::spec::Shape;

/// `true` or `false`.
pub(in crate::config) struct Boolean;

impl Kind for Boolean {
    type Value = bool;

    fn shape() -> Shape {
        Shape::Value { words: "`true` or `false`".to_owned(), schema: json!({ "type": "boolean" }) }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<bool> {
        let read = match value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(format!("expected true or false, found {}", describe(other))),
        };
        noted(document, key, value, read)
    }
}

impl Show for Boolean {
    fn show(value: &bool) -> Json {
        json!(value)
    }
}

/// An integer, both ends included.
pub(in crate::config) struct Number<const MIN: usize, const MAX: usize>;

impl<const MIN: usize, const MAX: usize> Kind for Number<MIN, MAX> {
    type Value = usize;

    fn shape() -> Shape {
        let schema = json!({ "type": "integer", "minimum": MIN, "maximum": MAX });
        Shape::Value { words: format!("number from {MIN} to {MAX}"), schema }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<usize> {
        let read = integer(value.get_ref()).filter(|n| (MIN..=MAX).contains(n)).ok_or_else(|| {
            let found = found_number(value.get_ref());
            format!("expected a number from {MIN} to {MAX}, found {found}")
        });
        noted(document, key, value, read)
    }
}

impl<const MIN: usize, const MAX: usize> Show for Number<MIN, MAX> {
    fn show(value: &usize) -> Json {
        json!(value)
    }
}

/// How many of something, both ends included.
pub(in crate::config) struct Count<const MIN: usize, const MAX: usize>;

impl<const MIN: usize, const MAX: usize> Kind for Count<MIN, MAX> {
    type Value = NonZeroU32;

    fn shape() -> Shape {
        Number::<MIN, MAX>::shape()
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<NonZeroU32> {
        let count = Number::<MIN, MAX>::read(document, key, value)?;
        u32::try_from(count).ok().and_then(NonZeroU32::new)
    }
}

impl<const MIN: usize, const MAX: usize> Show for Count<MIN, MAX> {
    fn show(value: &NonZeroU32) -> Json {
        json!(value)
    }
}

/// The same, or `"off"`.
pub(in crate::config) struct CountOrOff<const MIN: usize, const MAX: usize>;

impl<const MIN: usize, const MAX: usize> Kind for CountOrOff<MIN, MAX> {
    type Value = Option<NonZeroU32>;

    fn shape() -> Shape {
        let number = json!({ "type": "integer", "minimum": MIN, "maximum": MAX });
        let words = format!("number from {MIN} to {MAX}, or `\"off\"`");
        Shape::Value { words, schema: json!({ "anyOf": [{ "enum": ["off"] }, number] }) }
    }

    fn read(
        document: &mut Document<'_>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Option<NonZeroU32>> {
        match value.get_ref() {
            DeValue::String(text) if text == "off" => Some(None),
            DeValue::Integer(_) => Count::<MIN, MAX>::read(document, key, value).map(Some),
            other => {
                let what =
                    format!("expected a number from {MIN} to {MAX}, or \"off\", found {}", describe(other));
                noted(document, key, value, Err(what))
            }
        }
    }
}

impl<const MIN: usize, const MAX: usize> Show for CountOrOff<MIN, MAX> {
    fn show(value: &Option<NonZeroU32>) -> Json {
        value.map_or("off".into(), |value| json!(value))
    }
}

/// A close code that tells a client to come again, or that it has a meaning for itself.
pub(in crate::config) struct CloseCode;

impl CloseCode {
    const WORDS: &'static str = "1001 (going away), 1012 (service restart), 1013 (try again later), or a code of \
                                 your own from 3000 to 4999";

    /// # Errors
    /// If no client may get `code`, with those that it may.
    pub(in crate::config) fn check(code: u16) -> Result<u16, String> {
        match code {
            1001 | 1012 | 1013 | 3000..=4999 => Ok(code),
            _ => Err(format!("expected {}, found {code}", Self::WORDS)),
        }
    }
}

impl Kind for CloseCode {
    type Value = u16;

    fn shape() -> Shape {
        let own = json!({ "type": "integer", "minimum": 3000, "maximum": 4999 });
        let schema = json!({ "anyOf": [{ "enum": [1001, 1012, 1013] }, own] });
        Shape::Value { words: Self::WORDS.to_owned(), schema }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<u16> {
        let read = match integer(value.get_ref()) {
            Some(code) => Self::check(code),
            None => Err(format!("expected {}, found {}", Self::WORDS, found_number(value.get_ref()))),
        };
        noted(document, key, value, read)
    }
}

impl Show for CloseCode {
    fn show(value: &u16) -> Json {
        json!(value)
    }
}

/// A list, or a single value in its place. Each problem is at its own value; with any there is no list.
pub(in crate::config) struct List<T>(PhantomData<T>);

impl<T: Text> Kind for List<T> {
    type Value = Vec<T::Value>;

    fn shape() -> Shape {
        let one = T::schema();
        let schema = json!({ "anyOf": [one, { "type": "array", "items": one }] });
        Shape::Value { words: format!("{}, or a list", T::words()), schema }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Self::Value> {
        match value.get_ref() {
            DeValue::Array(items) => {
                let read: Vec<_> = items.iter().map(|item| T::read(document, key, item)).collect();
                read.into_iter().collect()
            }
            DeValue::String(_) => T::read(document, key, value).map(|one| vec![one]),
            other => {
                let what = format!("expected a list of strings, found {}", describe(other));
                noted(document, key, value, Err(what))
            }
        }
    }
}

impl<T: Text + Show<Value = <T as Text>::Value>> Show for List<T> {
    fn show(value: &Self::Value) -> Json {
        value.iter().map(<T as Show>::show).collect::<Vec<_>>().into()
    }
}
