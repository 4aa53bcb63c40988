//! Texts with nginx's variables, as templates of ours. Pure.

use std::collections::HashMap;

/// The longest text that values of variables are put in: longer than any word of nginx.
const TEXT_LEN_MAX: usize = 16 << 10;

/// What is known of variables at some place.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Those that always have the same value there.
    pub constants: HashMap<String, String>,
}

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A redirect, or the body of an answer.
    Target,
    /// The value of a field.
    Field,
    /// A path for a server.
    Path,
    /// A value that has no placeholders.
    Constant,
}

/// A variable that has no counterpart there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("${0} has no counterpart here")]
pub(super) struct Unknown(pub String);

/// Writes the text as a template; `{` in it is written so that it means itself.
///
/// # Errors
/// The first variable that can't be put in.
pub(super) fn template(text: &str, facts: &Facts, used: Use) -> Result<String, Unknown> {
    let mut out = String::new();
    let mut rest = text;
    loop {
        // The query with its question mark is one placeholder.
        if used == Use::Target
            && let Some(behind) = ["?$args", "?$query_string", "$is_args$args", "$is_args$query_string"]
                .iter()
                .find_map(|front| rest.strip_prefix(front))
        {
            out.push_str("{query}");
            rest = behind;
            continue;
        }
        let Some(first) = rest.chars().next() else { return Ok(out) };
        let Some((name, behind)) = variable(rest) else {
            out.push_str(if first == '{' && used != Use::Constant {
                "{{"
            } else {
                &rest[..first.len_utf8()]
            });
            rest = &rest[first.len_utf8()..];
            continue;
        };
        match facts.constants.get(name) {
            // A value may have others in it, and so double with each line.
            Some(value) if out.len() + value.len() > TEXT_LEN_MAX => return Err(Unknown(name.to_owned())),
            Some(value) => out.push_str(value),
            None => out.push_str(placeholder(name, used).ok_or_else(|| Unknown(name.to_owned()))?),
        }
        rest = behind;
    }
}

/// The variable that a text begins with, and what is behind it.
pub(super) fn variable(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('$')?;
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}').filter(|(name, _)| is_name(name));
    }
    // A group of a pattern has one digit.
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(text.split_at(1));
    }
    let len = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    Some(text.split_at(len)).filter(|(name, _)| is_name(name))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn placeholder(name: &str, used: Use) -> Option<&'static str> {
    const GROUPS: [&str; 9] = ["{1}", "{2}", "{3}", "{4}", "{5}", "{6}", "{7}", "{8}", "{9}"];
    let is_for_clients = used == Use::Target;
    if used == Use::Constant {
        return None;
    }
    if let Ok(group @ 1..=9) = name.parse::<usize>() {
        return (used != Use::Field).then(|| GROUPS[group - 1]);
    }
    if used == Use::Path {
        return None;
    }
    match name {
        "host" | "http_host" => Some("{host}"),
        "request_uri" => Some("{path}{query}"),
        "uri" | "document_uri" => Some("{path}"),
        _ if is_for_clients => None,
        "remote_addr" | "realip_remote_addr" | "proxy_protocol_addr" => Some("{client}"),
        "server_port" => Some("{port}"),
        "request_method" => Some("{method}"),
        "scheme" => Some("{scheme}"),
        "ssl_server_name" => Some("{server_name}"),
        "ssl_protocol" => Some("{tls_version}"),
        "request_id" => Some("{request_id}"),
        "ssl_client_s_dn" => Some("{certificate_subject}"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::site::template::{OF_TARGET, Template};

    #[test]
    fn variables_become_placeholders() {
        let facts = Facts {
            constants: HashMap::from([("scheme".into(), "https".into()), ("a_b".into(), "x".into())]),
        };
        for (text, used, expect) in [
            ("https://$host$request_uri", Use::Target, Ok("https://{host}{path}{query}")),
            ("https://${host}/new$is_args$args", Use::Target, Ok("https://{host}/new{query}")),
            ("$scheme://$host/$1/${a_b}c", Use::Target, Ok("https://{host}/{1}/xc")),
            ("/x?$args", Use::Target, Ok("/x{query}")),
            ("{\"a\":1}", Use::Target, Ok("{{\"a\":1}")),
            ("a$ b", Use::Target, Ok("a$ b")),
            ("$remote_addr", Use::Field, Ok("{client}")),
            ("$remote_addr", Use::Target, Err("remote_addr")),
            ("/$1", Use::Path, Ok("/{1}")),
            ("/$uri", Use::Path, Err("uri")),
            ("$a_b{", Use::Constant, Ok("x{")),
            ("$host", Use::Constant, Err("host")),
            ("$http_cookie", Use::Field, Err("http_cookie")),
        ] {
            let found = template(text, &facts, used).map_err(|Unknown(name)| name);
            assert_eq!(found.as_deref().map_err(String::as_str), expect, "{text}");
        }
    }

    #[test]
    fn values_do_not_grow_without_a_bound() {
        let mut facts = Facts { constants: HashMap::from([("a".into(), "x".repeat(1000))]) };
        for _ in 0..4 {
            let doubled = template("$a$a", &facts, Use::Constant).unwrap();
            facts.constants.insert("a".to_owned(), doubled);
        }
        assert_eq!(template("$a$a", &facts, Use::Constant), Err(Unknown("a".to_owned())));
    }

    proptest! {
        #[test]
        fn templates_are_those_of_the_configuration(text in "[a{}$?/1]{0,20}") {
            let facts = Facts { constants: HashMap::from([("a".into(), "b".into())]) };
            if let Ok(text) = template(&text, &facts, Use::Target) {
                prop_assert!(Template::parse(&text, OF_TARGET).is_ok(), "{text}");
            }
        }
    }
}
