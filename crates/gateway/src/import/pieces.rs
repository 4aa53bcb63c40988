//! Pieces of patterns (PCRE), as texts. Pure.

/// What stands between the `|`s that are in no parentheses or brackets.
pub(super) fn alternatives(pattern: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut in_class) = (Vec::new(), 0, 0_usize, false);
    let bytes = pattern.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'[' if !in_class => in_class = true,
            b']' => in_class = false,
            b'(' if !in_class => depth += 1,
            b')' if !in_class => depth = depth.saturating_sub(1),
            b'|' if !in_class && depth == 0 => {
                found.push(&pattern[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    found.push(&pattern[start..]);
    found
}

/// A backslash that counts stands in front of the byte at `at`.
pub(super) fn is_escaped(text: &str, at: usize) -> bool {
    text[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The characters that mean themselves at the beginning of a pattern, and what is behind them.
pub(super) fn literal_front(pattern: &str) -> (String, &str) {
    let mut front = String::new();
    let mut rest = pattern;
    loop {
        let mut chars = rest.chars();
        let (c, behind) = match chars.next() {
            Some('\\') => match chars.next() {
                Some(c) if c.is_ascii_punctuation() => (c, chars.as_str()),
                _ => break,
            },
            Some(c) if !"^$.|?*+()[]{}".contains(c) => (c, chars.as_str()),
            _ => break,
        };
        // A sign for repetition belongs to the character in front of it.
        if behind.starts_with(['?', '*', '{']) {
            break;
        }
        if let Some(further) = behind.strip_prefix('+') {
            // `a+??` may be nothing.
            if further.starts_with(['?', '*', '+', '{']) {
                break;
            }
            front.push(c);
            return (front, behind);
        }
        front.push(c);
        rest = behind;
    }
    (front, rest)
}

/// A text as a pattern that matches it alone.
pub(super) fn escaped(path: &str) -> String {
    let mut out = String::new();
    for c in path.chars() {
        if "\\^$.|?*+()[]{}".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    proptest! {
        #[test]
        fn escaped_paths_are_themselves(path: String, other: String) {
            let regex = Regex::new(&format!("^(?:{})$", escaped(&path))).unwrap();
            prop_assert!(regex.is_match(&path));
            prop_assert_eq!(regex.is_match(&other), path == other);
        }
    }
}
