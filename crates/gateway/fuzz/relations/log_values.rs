//! What has to hold for every value of a peer in the log.

use std::fmt::Write;

use super::{Escaped, escape_len, escape_word, quote};

/// Between quotes it is printable and read back as it was, in one piece or in several; in a line of nginx's format it
/// is one word.
pub(crate) fn log_values(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut quoted = String::new();
    quote(&text, &mut quoted).unwrap();
    assert!(!quoted.contains(char::is_control), "{quoted:?}");
    assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
    assert_eq!(quoted.len(), text.chars().map(escape_len).sum::<usize>() + 2);

    let mut pieces = "\"".to_owned();
    for char in text.chars() {
        Escaped(&mut pieces).write_char(char).unwrap();
    }
    pieces.push('"');
    assert_eq!(pieces, quoted);

    let mut word = String::new();
    escape_word(&text, &mut word).unwrap();
    assert!(word.bytes().all(|b| b.is_ascii_graphic() && b != b'"'), "{word:?}");
    let mut read = Vec::new();
    let mut rest = word.as_str();
    while !rest.is_empty() {
        if let Some(escape) = rest.strip_prefix("\\x") {
            read.push(u8::from_str_radix(&escape[..2], 16).unwrap());
            rest = &escape[2..];
        } else {
            read.push(rest.as_bytes()[0]);
            rest = &rest[1..];
        }
    }
    assert_eq!(read, text.as_bytes());
}
