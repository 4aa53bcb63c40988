//! Values between quotes, so that no value ends its quotes, its line, or changes what a terminal shows.
//!
//! In: any text. Out: printable text, with the escapes of JSON (RFC 8259 §7), which text lines have too; or those of
//! nginx, for its format.

use std::fmt::{self, Display, Write};

/// Bytes that `char` becomes between quotes.
pub(crate) fn escape_len(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        ' '..='~' => 1,
        _ if is_visible(char) => char.len_utf8(),
        _ => 6 * char.len_utf16(),
    }
}

/// Neither a control character, nor one that changes how its neighbours look. The replacement character
/// stands for bytes that are no UTF-8, which some parsers refuse.
pub(crate) fn is_visible(char: char) -> bool {
    char != char::REPLACEMENT_CHARACTER && char.escape_debug().len() == 1
}

/// Writes `value` between quotes.
pub(crate) fn quote(value: &str, out: &mut impl Write) -> fmt::Result {
    out.write_char('"')?;
    escape(value, out)?;
    out.write_char('"')
}

/// Writes `value` between quotes, as it is shown.
pub(crate) fn quote_shown(value: &dyn Display, out: &mut impl Write) -> fmt::Result {
    out.write_char('"')?;
    write!(Escaped(out), "{value}")?;
    out.write_char('"')
}

/// Writes what is between the quotes.
pub(crate) fn escape(value: &str, out: &mut impl Write) -> fmt::Result {
    // Without a branch a byte, so that the compiler looks at many at once: nearly no value needs more.
    let is_plain = |b: u8| (b' '..=b'~').contains(&b) & (b != b'"') & (b != b'\\');
    if value.bytes().fold(true, |plain, b| plain & is_plain(b)) {
        return out.write_str(value);
    }
    let mut rest = value;
    while let Some(at) = rest.find(|char: char| escape_len(char) != char.len_utf8()) {
        out.write_str(&rest[..at])?;
        let mut chars = rest[at..].chars();
        match chars.next() {
            Some(char @ ('"' | '\\')) => write!(out, "\\{char}")?,
            Some('\n') => out.write_str("\\n")?,
            Some('\r') => out.write_str("\\r")?,
            Some('\t') => out.write_str("\\t")?,
            Some(char) => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.write_str(rest)
}

/// The text with each character escaped that a terminal could obey, quotes left as they are: JSON stays JSON.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if is_visible(char) || matches!(char, '"' | '\\' | '\'') {
            shown.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    shown
}

/// Needs no quotes in a line of text.
pub(crate) fn is_plain(value: &str) -> bool {
    let is_ascii = value.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=');
    !value.is_empty()
        && (is_ascii
            || value.chars().all(|char| !matches!(char, ' ' | '=') && escape_len(char) == char.len_utf8()))
}

/// Escapes what is written into it.
#[derive(Debug)]
pub(crate) struct Escaped<'a, W>(pub(crate) &'a mut W);

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(text, self.0)
    }
}

/// As `\xHH` each byte that is not printable ASCII, `"`, `\`, and a space, which would end the field.
pub(crate) fn escape_word(value: &str, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' | 0..=b' ' | 0x7f.. => {
                out.push_str("\\x");
                out.push(DIGITS[usize::from(byte >> 4)].into());
                out.push(DIGITS[usize::from(byte & 15)].into());
            }
            byte => out.push(byte.into()),
        }
    }
}

#[cfg(test)]
mod tests;
