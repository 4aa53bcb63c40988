//! A strict parser of logfmt lines.

/// The words and pairs of a line: `None` is the value of a word that has no `=`.
///
/// # Errors
/// Where the line is not logfmt: a name or a value without quotes has a quote, an `=` or a control
/// character, a value in quotes has no end or an unknown escape, or there is no space behind it.
pub fn parse(line: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let mut pairs = Vec::new();
    let mut rest = line.trim_start_matches(' ');
    while !rest.is_empty() {
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let name = bare(&rest[..end])?;
        rest = &rest[end..];
        let value = match rest.strip_prefix('=') {
            None => None,
            Some(quoted) if quoted.starts_with('"') => {
                // The escapes are those of JSON.
                let mut values = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
                let value = values.next().ok_or("no value")?.map_err(|e| format!("{quoted}: {e}"))?;
                rest = &quoted[values.byte_offset()..];
                Some(value)
            }
            Some(plain) => {
                let end = plain.find(' ').unwrap_or(plain.len());
                rest = &plain[end..];
                Some(bare(&plain[..end])?)
            }
        };
        if !(rest.is_empty() || rest.starts_with(' ')) {
            return Err(format!("no space before {rest:?}"));
        }
        pairs.push((name, value));
        rest = rest.trim_start_matches(' ');
    }
    Ok(pairs)
}

fn bare(text: &str) -> Result<String, String> {
    let is_bad = |char: char| char.is_control() || matches!(char, '"' | '=' | char::REPLACEMENT_CHARACTER);
    if text.is_empty() || text.contains(is_bad) {
        return Err(format!("{text:?} needs quotes"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_logfmt_is_refused() {
        let line = r#" INFO done: a=1 b="x \"y\"\n" c="""#;
        let pair = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        let word = |name: &str| (name.to_owned(), None);
        let expect = vec![word("INFO"), word("done:"), pair("a", "1"), pair("b", "x \"y\"\n"), pair("c", "")];
        assert_eq!(parse(line), Ok(expect));
        for bad in [
            "a=",
            "=b",
            "a=b=c",
            "a=b\"c",
            "a=\"b",
            "a=\"b\"c",
            "a\tb=c",
            "a=\"\\x\"",
            "x\"y a=b",
            "a=\"\t\"",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
