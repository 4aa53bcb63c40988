//! `[route.compress]`: which answers are compressed.

use serde_json::Value as Json;
use toml::de::DeValue;

use super::document::Document;
use super::kind::{self, Boolean, List, ShortForm, Show, Text};
use super::option::options;
use super::spec::At;
use super::values;
use crate::site::extras::Compress;

/// What text is, and what is as good as text.
const TYPES: [&str; 8] = [
    "text/*",
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/wasm",
    "application/xml",
    "image/svg+xml",
];

options! {
    /// Which answers are compressed. `compress = true` is short for a table without more.
    struct CompressOptions: "[route.compress]";

    /// Whether they are.
    enabled: Boolean, default = true;
    /// The media types that are compressed; `text/*` stands for all of its kind.
    types: List<TypeRange>, default = TYPES.map(Into::into).to_vec();
    /// Answers that are shorter are not compressed.
    min_length: kind::SizeOrOff, otherwise = "`\"1024B\"`";
}

impl ShortForm for CompressOptions {
    const KEY: &'static str = "enabled";

    fn is_short(value: &DeValue<'_>) -> bool {
        matches!(value, DeValue::Boolean(_))
    }
}

/// A media type, or all of a kind.
pub(super) struct TypeRange;

impl Text for TypeRange {
    type Value = Box<str>;

    fn words() -> String {
        "media type, or `\"text/*\"`".to_owned()
    }

    fn parse(text: &str, _: &std::path::Path) -> Result<Box<str>, String> {
        let is_type = values::media_type(text).is_ok() && !text.contains(';') && !text.starts_with('*');
        if is_type {
            Ok(text.into())
        } else {
            Err(format!("expected a media type such as \"text/html\" or \"text/*\", found {text:?}"))
        }
    }
}

impl Show for TypeRange {
    fn show(value: &Box<str>) -> Json {
        (&**value).into()
    }
}

pub(super) fn read(d: &mut Document<'_>, section: CompressOptions) -> Option<Compress> {
    if let Some(At { value: Some(0), place }) = section.min_length {
        d.problem(
            place,
            "min_length: expected more than 0; write \"off\" to compress answers of every length",
        );
    }
    let min_length = section.min_length.map_or(1024, |at| at.value.unwrap_or(0));
    section.enabled.value.then_some(Compress { types: section.types.value, min_length })
}
