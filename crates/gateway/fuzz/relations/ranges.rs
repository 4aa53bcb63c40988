//! What must hold for any Range field. Shared by the fuzz target and the unit tests.

use http::HeaderValue;

use super::{Multipart, Selection, content_range, select};

/// The first two bytes are the length of the file, the others the value of the field.
pub(crate) fn ranges(data: &[u8]) {
    let Some((len, field)) = data.split_first_chunk::<2>() else { return };
    let Ok(field) = HeaderValue::from_bytes(field) else { return };
    let len = u64::from(u16::from_be_bytes(*len));
    let parts = match select(&field, len) {
        Selection::Whole => return,
        Selection::Nothing => {
            // RFC 9110 §14.1.2: any part of the form `0-` has something of a file that isn't empty.
            assert!(len == 0 || !field.as_bytes().eq_ignore_ascii_case(b"bytes=0-"));
            return;
        }
        Selection::One(part) => vec![part],
        Selection::Several(parts) => {
            assert!(parts.len() > 1);
            parts
        }
    };
    let text = field.to_str().unwrap_or_default();
    assert!(text.len() >= 6 && text[..6].eq_ignore_ascii_case("bytes="), "{text:?}: no other unit is known");
    assert!(parts.len() <= text.matches('-').count(), "{text:?}: more parts than were asked for: {parts:?}");
    assert!(
        parts.iter().all(|part| part.start < part.end && part.end <= len),
        "{text:?}: {parts:?} of {len}"
    );
    assert!(
        parts.iter().map(|part| part.end - part.start).sum::<u64>() <= len,
        "{text:?}: more than the whole"
    );
    let multipart = Multipart::new(HeaderValue::from_static("text/plain"), len);
    for part in &parts {
        let said = content_range(part, len);
        assert!(said.is_ascii() && String::from_utf8_lossy(&multipart.before(part)).contains(&said));
    }
}
