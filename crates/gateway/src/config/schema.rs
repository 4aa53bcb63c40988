//! `wssgate schema`: every option as JSON Schema (draft-07), for editors. Pure.
//!
//! A file that the schema refuses is refused by the parser too. The parser knows more: which keys exclude each
//! other, which names are host names.

use serde_json::{Map, Value as Json, json};

use super::kind::Options;
use super::spec::{Default, OptionSpec, SectionSpec, Shape};
use super::top_level::TopLevel;

/// Every option, as a JSON Schema.
#[must_use]
pub fn schema() -> String {
    let mut schema = object(&TopLevel::describe());
    schema.values_mut().for_each(allow_variables);
    schema.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    schema.insert("title".to_owned(), json!("wssgate"));
    schema.insert("description".to_owned(), json!("The configuration file of wssgate."));
    format!("{:#}\n", Json::from(schema))
}

/// What begins a variable of the environment, anywhere in a string.
const VARIABLE: &str = r"\$\{[A-Za-z_]";

/// A string of a certain form, or one of several words, may name variables instead.
fn allow_variables(schema: &mut Json) {
    match schema {
        Json::Object(rules) => {
            if let Some(Json::String(pattern)) = rules.get_mut("pattern") {
                *pattern = format!("{pattern}|{VARIABLE}");
            }
            let words = rules.get("enum").and_then(Json::as_array);
            if words.is_some_and(|words| words.iter().any(Json::is_string)) {
                let words = rules.remove("enum");
                let variable = json!({ "type": "string", "pattern": VARIABLE });
                rules.insert("anyOf".to_owned(), json!([{ "enum": words }, variable]));
            } else {
                rules.values_mut().for_each(allow_variables);
            }
        }
        Json::Array(schemas) => schemas.iter_mut().for_each(allow_variables),
        _ => {}
    }
}

fn object(section: &SectionSpec) -> Map<String, Json> {
    let properties = section.options.iter().map(|option| (option.key.to_owned(), property(option)));
    let required = section.options.iter().filter(|option| matches!(option.default, Default::Required(_)));
    let required: Vec<_> = required.map(|option| option.key).collect();
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("description".to_owned(), json!(section.sentence));
    object.insert("additionalProperties".to_owned(), json!(false));
    object.insert("properties".to_owned(), properties.collect::<Map<_, _>>().into());
    if !required.is_empty() {
        object.insert("required".to_owned(), required.into());
    }
    object
}

fn property(option: &OptionSpec) -> Json {
    match &option.shape {
        Shape::Section(spec) => object(spec).into(),
        Shape::Sections(spec) => {
            json!({ "type": "array", "description": option.sentence, "items": object(spec) })
        }
        Shape::Either { schema, section, .. } => {
            json!({ "description": option.sentence, "anyOf": [schema, object(section)] })
        }
        Shape::Each { schema, section, .. } => {
            let one = json!({ "anyOf": [schema, object(section)] });
            let list = json!({ "type": "array", "items": one });
            json!({ "description": option.sentence, "anyOf": [schema, object(section), list] })
        }
        Shape::Value { words, schema } => {
            let mut property = schema.as_object().cloned().unwrap_or_default();
            let words = words.replace('`', "");
            let mut description = format!("{} ({words}", option.sentence);
            match &option.default {
                Default::Value(value) => {
                    property.insert("default".to_owned(), value.clone());
                }
                Default::Words(words) => description += &format!("; default: {}", words.replace('`', "")),
                Default::Required(_) | Default::Nothing => {}
            }
            property.insert("description".to_owned(), (description + ")").into());
            property.into()
        }
    }
}

#[cfg(test)]
mod tests;
