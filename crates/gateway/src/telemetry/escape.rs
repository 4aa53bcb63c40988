//! Values between quotes, so that no value ends its quotes, its line, or changes what a terminal shows.
//!
//! In: any text. Out: printable text, with the escapes of JSON (RFC 8259 §7), which text lines have too; or those of
//! nginx, for its format.

use std::fmt::{self, Write};

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

/// Writes what is between the quotes.
pub(crate) fn escape(value: &str, out: &mut impl Write) -> fmt::Result {
    if is_verbatim(value) {
        return out.write_str(value);
    }
    escape_chars(value, out)
}

#[cold]
fn escape_chars(value: &str, out: &mut impl Write) -> fmt::Result {
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

/// Printable ASCII without `"` and `\`, which stands for itself between quotes: nearly every value. Looks at eight bytes at
/// once, at some of them twice.
pub(crate) fn is_verbatim(value: &str) -> bool {
    let bytes = value.as_bytes();
    if let Some(&last) = bytes.last_chunk() {
        let (eights, _) = bytes.as_chunks();
        eights.iter().all(|&eight| are_verbatim(u64::from_ne_bytes(eight)))
            && are_verbatim(u64::from_ne_bytes(last))
    } else if let (Some(&first), Some(&last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        are_verbatim(u64::from(u32::from_ne_bytes(first)) << 32 | u64::from(u32::from_ne_bytes(last)))
    } else {
        are_verbatim(bytes.iter().fold(EACH * u64::from(b' '), |eight, &b| eight << 8 | u64::from(b)))
    }
}

/// One in each of eight bytes.
const EACH: u64 = u64::MAX / 0xff;

/// Each of eight bytes stands for itself. If one doesn't, this sets a highest bit: it has it if it is no ASCII, 0x7f gets it
/// by one more, and any other by what is taken from it, being less than that. The lowest one is always found.
fn are_verbatim(eight: u64) -> bool {
    let less = |eight: u64, than: u8| eight.wrapping_sub(EACH * u64::from(than));
    let equal = |to: u8| less(eight ^ (EACH * u64::from(to)), 1);
    let marked = eight | eight.wrapping_add(EACH) | less(eight, b' ') | equal(b'"') | equal(b'\\');
    marked & (EACH << 7) == 0
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
pub(crate) fn escape_word(value: &str, out: &mut impl Write) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' | 0..=b' ' | 0x7f.. => {
                out.write_str("\\x")?;
                out.write_char(DIGITS[usize::from(byte >> 4)].into())?;
                out.write_char(DIGITS[usize::from(byte & 15)].into())?;
            }
            byte => out.write_char(byte.into())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
