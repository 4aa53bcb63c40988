//! Fields with their values: `{ "X-Api" = "2" }`.

use http::{HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::value::{Kind, noted};
use crate::config::document::{Document, describe};
use crate::config::spec::Shape;

/// Fields that a request must have, each with the values of which it has one.
pub(in crate::config) struct FieldValues;

impl Kind for FieldValues {
    type Value = Vec<(HeaderName, Vec<HeaderValue>)>;

    fn shape() -> Shape {
        let text = json!({ "type": "string" });
        let schema: Json = json!({
            "type": "object",
            "additionalProperties": { "anyOf": [text, { "type": "array", "items": text }] },
        });
        Shape::Value { words: "fields with their values, `{ \"X-Api\" = \"2\" }`".to_owned(), schema }
    }

    fn read(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Self::Value> {
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("expected {{ \"X-Api\" = \"2\" }}, found {}", describe(value.get_ref()));
            return noted(document, key, value, Err(what));
        };
        let fields: Vec<_> = table
            .iter()
            .map(|(name, value)| {
                let key = format!("{key}: {}", name.get_ref());
                let name = HeaderName::from_bytes(name.get_ref().as_bytes())
                    .map_err(|_| "this is not the name of a field".to_owned());
                let name = noted(document, &key, value, name);
                let values = match value.get_ref() {
                    DeValue::Array(items) if !items.is_empty() => items
                        .iter()
                        .map(|item| one(document, &key, item))
                        .collect::<Vec<_>>()
                        .into_iter()
                        .collect(),
                    _ => one(document, &key, value).map(|value| vec![value]),
                };
                name.zip(values)
            })
            .collect();
        fields.into_iter().collect()
    }
}

fn one(document: &mut Document<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<HeaderValue> {
    let read = match value.get_ref() {
        // Not repeated in the message, since it may be a secret.
        DeValue::String(text) => HeaderValue::from_str(text.trim())
            .map_err(|_| "a value must be printable ASCII on one line".to_owned()),
        other => Err(format!("expected a string in quotes, found {}", describe(other))),
    };
    noted(document, key, value, read)
}
