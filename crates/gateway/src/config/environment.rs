//! `"${NAME}"` in a value: variables of the environment, which messages and tables never show. Pure.
//!
//! Only strings are looked at, after the file was parsed, so a variable can't add keys.

use std::ffi::OsString;

use crate::site::hidden::Hidden;

/// Finds a variable by its name.
pub(super) type Variables<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Puts the variables' values into `text`; `None` if it names none.
///
/// `${NAME:-default}` is the default where the variable is not set or empty, and `$${` is `${` itself.
pub(super) fn expand(
    text: &str,
    variables: &Variables<'_>,
    hidden: &mut Hidden,
) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let from = &from["${".len()..];
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = from;
            continue;
        }
        expanded.push_str(before);
        let (inner, behind) = from
            .split_once('}')
            .ok_or_else(|| "the } behind ${ is missing; write $${ for ${ itself".to_owned())?;
        rest = behind;
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        expanded.push_str(&value(name, default, variables, hidden)?);
    }
    expanded.push_str(rest);
    Ok(Some(expanded))
}

fn value(
    name: &str,
    default: Option<&str>,
    variables: &Variables<'_>,
    hidden: &mut Hidden,
) -> Result<String, String> {
    if !is_name(name) {
        return Err(format!(
            "${{{name}}} does not name a variable of the environment: write letters, digits and _, or $${{ for \
                 ${{ itself"
        ));
    }
    let value = match variables(name) {
        None => None,
        Some(value) => Some(
            value
                .into_string()
                .map_err(|_| format!("the variable {name} of the environment is not UTF-8"))?,
        ),
    };
    match (value, default) {
        (None, None) => Err(format!(
            "the variable {name} is not set in the environment: set it, or write ${{{name}:-default}}"
        )),
        (None, Some(default)) => Ok(default.to_owned()),
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => {
            hidden.add(&value, name);
            Ok(value)
        }
    }
}

/// As a shell has them (POSIX.1-2017 §8.1).
fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    fn variables(name: &str) -> Option<OsString> {
        Some(match name {
            "HOST" => "Domain.com".into(),
            "PORT" => "8443".into(),
            "EMPTY" => OsString::new(),
            "TOKEN" => "a\"b${HOST}".into(),
            "BINARY" => OsString::from_vec(vec![0xff]),
            _ => return None,
        })
    }

    #[test]
    fn values_stand_in_place_of_names() {
        for (text, expanded) in [
            ("http://${HOST}:${PORT}/", "http://Domain.com:8443/"),
            ("${NONE:-127.0.0.1}:${PORT:-1}", "127.0.0.1:8443"),
            ("${EMPTY:-full}", "full"),
            ("a${EMPTY}b", "ab"),
            ("${NONE:-}", ""),
            ("$${HOST}", "${HOST}"),
            ("$$${HOST}", "$${HOST}"),
            ("${NONE:-a:-b}", "a:-b"),
            // A value is not read again.
            ("${TOKEN}", "a\"b${HOST}"),
        ] {
            let found = expand(text, &variables, &mut Hidden::default());
            assert_eq!(found, Ok(Some(expanded.to_owned())), "{text}");
        }
        for text in ["", "$HOST", "^/a$", "{path}", "$ {HOST}"] {
            assert_eq!(expand(text, &variables, &mut Hidden::default()), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_expanded_says_what_to_do() {
        for (text, says) in [
            ("${NONE}", "the variable NONE is not set in the environment: set it, or write ${NONE:-default}"),
            ("${HOST", "the } behind ${ is missing"),
            ("${}", "${} does not name a variable"),
            ("${1}", "write letters, digits and _, or $${ for ${ itself"),
            ("${HOST-x}", "${HOST-x} does not name a variable"),
            ("${BINARY}", "the variable BINARY of the environment is not UTF-8"),
        ] {
            let problem = expand(text, &variables, &mut Hidden::default()).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks(text in "[$a{}:_A-]{0,20}", value in "[a-z]{1,3}") {
            let lookup = |_: &str| Some(OsString::from(&value));
            let expanded = expand(&text, &lookup, &mut Hidden::default());
            prop_assert_eq!(expanded == Ok(None), !text.contains("${"));
        }
    }
}
