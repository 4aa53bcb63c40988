//! The schema and the parser say the same of a file.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use regex::Regex;

use super::*;
use crate::config::Config;
use crate::config::tests::with_line;

/// Whether `value` is valid, by the part of JSON Schema (draft-07) that the schema uses. Any other keyword is an
/// error.
fn accepts(schema: &Json, value: &Json) -> bool {
    let keywords = schema.as_object().unwrap();
    keywords.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "title" | "description" | "default" => true,
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            other => panic!("type {other}"),
        },
        "enum" => rule.as_array().unwrap().contains(value),
        "anyOf" => rule.as_array().unwrap().iter().any(|one| accepts(one, value)),
        "pattern" => value.as_str().is_none_or(|text| is_match(rule.as_str().unwrap(), text)),
        "minimum" => value.as_i64().is_none_or(|number| number >= rule.as_i64().unwrap()),
        "maximum" => value.as_i64().is_none_or(|number| number <= rule.as_i64().unwrap()),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| accepts(rule, item))),
        "required" => value.as_object().is_none_or(|object| {
            rule.as_array().unwrap().iter().all(|key| object.contains_key(key.as_str().unwrap()))
        }),
        "additionalProperties" => {
            let known = keywords.get("properties");
            let is_known = |key: &str| known.is_some_and(|known| !known[key].is_null());
            value.as_object().is_none_or(|object| {
                let mut others = object.iter().filter(|(key, _)| !is_known(key));
                others.all(|(_, value)| *rule != false && accepts(rule, value))
            })
        }
        "properties" => value.as_object().is_none_or(|object| {
            object.iter().all(|(key, value)| rule.get(key).is_none_or(|one| accepts(one, value)))
        }),
        other => panic!("the keyword {other} is new"),
    })
}

/// Each pattern is compiled once: it takes much longer than to match a value.
fn is_match(pattern: &str, text: &str) -> bool {
    static COMPILED: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap();
    let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).unwrap());
    regex.is_match(text)
}

fn is_valid(text: &str) -> bool {
    static SCHEMA: LazyLock<Json> = LazyLock::new(|| serde_json::from_str(&super::schema()).unwrap());
    let value: Json = toml::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    accepts(&SCHEMA, &value)
}

/// Every configuration that stands in the repository.
fn examples() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    let mut directories = vec![root];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                directories.extend(
                    (!name.starts_with('.') && name != "target" && name != "node_modules").then_some(path),
                );
            } else if name == "wssgate.toml" {
                let text = fs::read_to_string(&path).unwrap();
                // That of the comparison is filled in when it is used.
                let lines = text.lines().filter(|line| !line.starts_with('{'));
                let text = lines.collect::<Vec<_>>().join("\n").replace("{workers}", "2");
                found.push((path, text));
            } else if name.ends_with(".md") {
                let text = fs::read_to_string(&path).unwrap();
                let blocks =
                    text.split("\n```toml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
                found.extend(blocks.map(|block| (path.clone(), block.to_owned())));
            }
        }
    }
    found
}

#[test]
fn every_example_of_the_repository_is_valid() {
    let examples = examples();
    let names: Vec<_> = examples.iter().map(|(path, _)| path.display().to_string()).collect();
    for name in ["README.md", "deploy/systemd/wssgate.toml", "deploy/kubernetes/wssgate.toml"] {
        assert!(names.iter().any(|found| found.ends_with(name)), "{name} is not in {names:?}");
    }
    for (path, text) in examples {
        assert!(is_valid(&text), "{}:\n{text}", path.display());
        let text = text.replace("{port}", "443").replace("{backend}", "8282");
        let (_, mut problems) = Config::parse(&path, &text);
        problems.retain(|problem| !problem.what.starts_with("there is no [[")); // a part of a file
        assert_eq!(problems, [], "{}", path.display());
    }
}

#[test]
fn mistakes_are_not_valid() {
    assert!(is_valid(&with_line("[[route]]", "connect_timeout = \"1s\"")));
    for (section, line) in [
        ("[[route]]", "conect_timeout = \"1s\""),
        ("[[route]]", "connect_timeout = 1"),
        ("[[route]]", "connect_timeout = \"1\""),
        ("[[route]]", "pool = true"),
        ("[route.websocket]", "max_message = \"16M\""),
        ("[[listener]]", "tls = \"no\""),
        ("[[listener]]", "alpn = [\"h3\"]"),
        ("[[certificate]]", "key = [\"k.pem\"]"),
        ("the top level", "workers = 0"),
        ("the top level", "drain_close_code = 1000"),
        ("the top level", "admin = 5"),
    ] {
        let text = with_line(section, line);
        let is_toml = toml::from_str::<Json>(&text).is_ok();
        assert!(!is_toml || !is_valid(&text), "{line}");
    }
    assert!(!is_valid("[[listener]]\ntls = false\n"), "without its address");
    assert!(!is_valid("[listener]\naddress = \"127.0.0.1:80\"\n"));
}

/// Values of many kinds, good and bad.
const VALUES: &[&str] = &[
    "true",
    "false",
    "0",
    "1",
    "2",
    "302",
    "404",
    "1001",
    "1011",
    "1012",
    "1023",
    "1024",
    "1025",
    "2999",
    "3000",
    "4999",
    "5000",
    "0x1000",
    "-1",
    "1.5",
    "\"\"",
    "\"0s\"",
    "\"1s\"",
    "\"30\"",
    "\"30 s\"",
    "\" 1h 30m \"",
    "\"1.5h\"",
    "\"90 minutes\"",
    "\"2days\"",
    "\"1month\"",
    "\"5M\"",
    "\"500ms\"",
    "\"10us\"",
    "\"10µs\"",
    "\"off\"",
    "\"${NOT_SET_:-off}\"",
    "\"${NOT_SET_:-30s}\"",
    "\"${NOT_SET_:-drain}\"",
    "\"on\"",
    "\"16MiB\"",
    "\" 64 KiB \"",
    "\"1.5 MiB\"",
    "\"16mb\"",
    "\"1000B\"",
    "\"16M\"",
    "\"7PB\"",
    "\"1EiB\"",
    "\"64kib\"",
    "\"500B/s\"",
    "\"1KiB /s\"",
    "\"1 KiB/s \"",
    "\"0B/s\"",
    "\"h2\"",
    "[\"h2\", \"http/1.1\"]",
    "\"http-01\"",
    "\"rsa-2048\"",
    "\"1.2\"",
    "\"1.3\"",
    "\"drain\"",
    "\"delay\"",
    "\"keep\"",
    "\"echo\"",
    "\"console\"",
    "\"canonical\"",
    "\"v2\"",
    "\"as-sent\"",
    "\"domain.com\"",
    "\"*.domain.com\"",
    "\"/\"",
    "\"/wss\"",
    "\"http://127.0.0.1:8282\"",
    "\"HTTP://a\"",
    "\"127.0.0.1:9\"",
    "\"[::1]:9\"",
    "\"10.0.0.0/8\"",
    "[\"10.0.0.1\", \"::1\"]",
    "\"https://domain.com\"",
    "\"null\"",
    "\"text/html\"",
    "\"index.html\"",
    "[]",
    "[5]",
    "{}",
    "[{}]",
    "\"round-robin\"",
    "\"host\"",
    "\"client\"",
    "\"connect\"",
    "\"tcp\"",
    "\"GET\"",
    "\"50/s\"",
    "\"600/m\"",
    "\"client\"",
    "\"header:X-Api\"",
    "\"header\"",
    "\"redirect\"",
    "\"redial\"",
    "\"combined\"",
    "\"pass\"",
    "\"https\"",
    "[\"GET\", \"PUT\"]",
    "\"127.0.0.1:443\"",
    "{ X-Api = \"2\", X-B = [\"3\", \"4\"] }",
    "{ X-Api = 2 }",
];

#[test]
fn what_the_parser_takes_is_valid_and_what_the_schema_refuses_is_a_problem() {
    let described = TopLevel::describe();
    let (mut taken, mut refused) = (0, 0);
    for section in described.walk() {
        for option in section.options.iter().filter(|option| matches!(option.shape, Shape::Value { .. })) {
            let before = (taken, refused);
            for value in VALUES {
                let line = format!("{} = {value}", option.key);
                let text = with_line(section.name, &line);
                let (config, problems) = Config::parse(Path::new("/etc/wssgate.toml"), &text);
                if problems.is_empty() {
                    assert_eq!(config.check(), Ok(()), "{line} in {}", section.name);
                }
                let valid = is_valid(&text);
                assert!(valid || !problems.is_empty(), "{line} in {} is read, but not valid", section.name);
                taken += usize::from(problems.is_empty());
                refused += usize::from(!valid);
            }
            assert!(
                taken > before.0 && refused > before.1,
                "{} of {}: no value shows it",
                option.key,
                section.name
            );
        }
    }
}
