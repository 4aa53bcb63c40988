//! Parts of a file (RFC 9110 §14). Pure.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;
use http_range_header::{RangeUnsatisfiableError, parse_range_header};

/// What is sent of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of it.
    Whole,
    /// One part: 206 with Content-Range.
    One(Range<u64>),
    /// Several, as `multipart/byteranges`.
    Several(Vec<Range<u64>>),
    /// There is nothing of what is asked for: 416.
    Nothing,
}

/// Reads a Range field. What is malformed, has too many parts, or asks for more than the whole, is ignored
/// (RFC 9110 §14.2).
pub(super) fn select(field: &HeaderValue, len: u64) -> Selection {
    let Ok(text) = field.to_str() else { return Selection::Whole };
    let Ok(parsed) = parse_range_header(text) else { return Selection::Whole };
    let ranges = match parsed.validate(len) {
        Ok(ranges) => ranges,
        Err(RangeUnsatisfiableError::Unsatisfiable) => return Selection::Nothing,
        Err(_) => return Selection::Whole,
    };
    let mut ranges: Vec<_> = ranges.into_iter().map(|range| *range.start()..range.end() + 1).collect();
    match ranges.len() {
        0 => Selection::Whole, // of nothing
        1 => ranges.pop().map_or(Selection::Whole, Selection::One),
        _ if ranges.iter().map(|range| range.end - range.start).sum::<u64>() >= len => Selection::Whole,
        _ => Selection::Several(ranges),
    }
}

/// `bytes 0-499/1234`.
pub(super) fn content_range(range: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", range.start, range.end - 1)
}

/// A body of several parts (RFC 9110 §14.6): what stands before each part, and at the end.
pub(super) struct Multipart {
    boundary: String,
    content_type: HeaderValue,
    len: u64,
}

impl Multipart {
    /// For a file of `len` bytes. The boundary is random, so that no file can contain it on purpose.
    pub(super) fn new(content_type: HeaderValue, len: u64) -> Self {
        Self { boundary: format!("{:032x}", rand::random::<u128>()), content_type, len }
    }

    /// Its media type.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// What stands before a part.
    pub(super) fn before(&self, range: &Range<u64>) -> Bytes {
        let content_range = content_range(range, self.len);
        let mut text = format!("\r\n--{}\r\nContent-Type: ", self.boundary).into_bytes();
        text.extend_from_slice(self.content_type.as_bytes());
        text.extend_from_slice(format!("\r\nContent-Range: {content_range}\r\n\r\n").as_bytes());
        text.into()
    }

    /// What stands behind the last one.
    pub(super) fn end(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.boundary).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selected(field: &str, len: u64) -> Selection {
        select(&HeaderValue::from_str(field).unwrap(), len)
    }

    #[test]
    fn parts_of_a_thousand_bytes() {
        for (field, selection) in [
            ("bytes=0-499", Selection::One(0..500)),
            ("bytes=500-", Selection::One(500..1000)),
            ("bytes=-100", Selection::One(900..1000)),
            ("bytes=-2000", Selection::One(0..1000)),
            ("bytes=0-0", Selection::One(0..1)),
            ("bytes=999-99999999999999999999999", Selection::One(999..1000)),
            ("Bytes=0-1", Selection::One(0..2)),
            ("bytes=0-1, 4-5", Selection::Several(vec![0..2, 4..6])),
            ("bytes=4-5,0-1", Selection::Several(vec![4..6, 0..2])),
            ("bytes=0-1,2000-", Selection::One(0..2)),
            ("bytes=1000-", Selection::Nothing),
            ("bytes=-0", Selection::Nothing),
            ("bytes=1000-1001,2000-", Selection::Nothing),
        ] {
            assert_eq!(selected(field, 1000), selection, "{field}");
        }
    }

    #[test]
    fn what_is_no_range_is_ignored() {
        let many = format!(
            "bytes={}",
            (0..101).map(|i| format!("{}-{}", i * 4, i * 4)).collect::<Vec<_>>().join(",")
        );
        let overlapping = format!("bytes={}", vec!["0-"; 50].join(","));
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=a-b",
            "bytes=5-1",
            "bytes=1",
            "bytes=-",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=1-2-3",
            "lines=0-1",
            "bytes=0-1;4-5",
            "bytes=0-1 4-5",
            "bytes=0x0-0x1",
            "bytes=1-2,x",
            "bytes=,,,,,,,,,,,,,,,,,,",
            "bytes=0-,0-",
            "bytes=0-999,0-1",
            &many,
            &overlapping,
        ] {
            assert_eq!(selected(field, 1000), Selection::Whole, "{field}");
        }
        let bytes = HeaderValue::from_bytes(b"bytes=0-1\xff").unwrap();
        assert_eq!(select(&bytes, 1000), Selection::Whole);
    }

    #[test]
    fn nothing_has_no_parts() {
        assert_eq!(selected("bytes=0-", 0), Selection::Nothing);
        assert_eq!(selected("bytes=-5", 0), Selection::Whole);
    }

    proptest! {
        #[test]
        fn no_part_is_outside_and_no_answer_larger_than_the_file(
            field in "bytes=([0-9]{0,4}-[0-9]{0,4}[, ]{0,2}){1,6}",
            len in 0_u64..3000,
        ) {
            let parts = match selected(&field, len) {
                Selection::One(part) => vec![part],
                Selection::Several(parts) => parts,
                Selection::Whole | Selection::Nothing => return Ok(()),
            };
            prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= len), "{:?}", parts);
            prop_assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= len, "{:?}", parts);
        }
    }
}
