//! `{placeholders}` in configurations and arguments.

use anyhow::bail;

/// Replaces each `{name}` of `values` in `text`. What looks like a placeholder (lower-case letters in
/// braces) and isn't known is an error; other braces are left alone.
pub(crate) fn fill(text: &str, values: &[(&str, String)]) -> anyhow::Result<String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        match after.split_once('}') {
            Some((name, after)) if is_name(name) => {
                let Some((_, value)) = values.iter().find(|(known, _)| *known == name) else {
                    bail!("nothing is known of the placeholder {{{name}}}");
                };
                filled.push_str(value);
                rest = after;
            }
            _ => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_other_braces_left() {
        let values = [("port", "8443".to_owned()), ("dir", "/tmp/x".to_owned())];
        let text = "http {\n listen {port};\n pid {dir}/{port}.pid;\n}\n{";
        assert_eq!(fill(text, &values).unwrap(), "http {\n listen 8443;\n pid /tmp/x/8443.pid;\n}\n{");
        assert!(fill("{unknown}", &values).is_err());
    }
}
