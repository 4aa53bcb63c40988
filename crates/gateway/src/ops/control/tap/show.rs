//! A frame as a line, for people or as JSON. Pure.
//!
//! What a peer sent is escaped, so that it can't end a line or drive a terminal: in text and in JSON alike.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::frame::Frame;
use super::inflate::Inflated;
use super::{CopyInfo, Kind};
use crate::telemetry::escape;

/// How much of each payload is shown, in bytes; `None`: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) text: Option<usize>,
    pub(super) hex: Option<usize>,
}

/// A copy, and what is known of it.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) copy: &'a CopyInfo,
    /// As on the wire.
    pub(super) wire: &'a [u8],
    /// `None`: it is no frame.
    pub(super) frame: Option<Frame>,
    pub(super) inflated: Inflated,
}

impl Seen<'_> {
    /// What may be shown of its payload, and how long all of that is.
    fn payload(&self) -> (&[u8], u64) {
        match (&self.frame, &self.inflated) {
            (_, Inflated::As { front, len }) => (front, *len),
            (Some(frame), _) => (&frame.payload, frame.len),
            (None, _) => (self.wire, self.copy.len),
        }
    }

    /// What is to be said of its compression.
    fn note(&self) -> Option<String> {
        match &self.inflated {
            Inflated::AsSent => None,
            Inflated::As { len, .. } => Some(format!("inflated: {len}")),
            Inflated::HistoryMissing => Some("compressed; history is missing".to_owned()),
            Inflated::TooLong => Some("compressed; inflates to more than 4 MiB".to_owned()),
        }
    }

    fn what(&self) -> &'static str {
        match (&self.frame, self.copy.kind) {
            (Some(frame), _) => frame.opcode_name(),
            (None, Kind::Bytes) => "bytes",
            (None, Kind::Violation | Kind::Frame) => "violation",
        }
    }

    /// One line, with its end.
    pub(super) fn text(&self, shown: Shown) -> String {
        let Self { copy, frame, .. } = self;
        let time = time(copy.at_us);
        let time = time.get(11..).unwrap_or_default(); // the day is that of who looks
        let way = if copy.from_client { "client ->" } else { "client <-" };
        let mut line = format!("{time}  {}  {way}  {:<12}", copy.session, self.what());
        let flags = match frame {
            Some(Frame { fin, rsv1, .. }) => match (fin, rsv1) {
                (true, true) => "FIN RSV1",
                (true, false) => "FIN",
                (false, true) => "    RSV1",
                (false, false) => "",
            },
            None => "",
        };
        let _ = write!(line, "  {flags:<8}  {:>6}", copy.len);
        if let Some(code) = frame.as_ref().and_then(Frame::close_code) {
            let _ = write!(line, "  {code}");
        }
        let (payload, len) = self.payload();
        // The code is there already.
        let is_close = frame.as_ref().is_some_and(|frame| frame.close_code().is_some());
        let (payload, len) = if is_close { (&payload[2..], len - 2) } else { (payload, len) };
        if let Some(max) = shown.text {
            let front = &payload[..max.min(payload.len())];
            line.push_str("  ");
            let _ = escape::quote(&String::from_utf8_lossy(whole_chars(front)), &mut line);
            if (front.len() as u64) < len {
                line.push_str("...");
            }
        }
        if let Some(max) = shown.hex {
            let front = &payload[..max.min(payload.len())];
            let _ = write!(line, "  {}", hex(front));
            if (front.len() as u64) < len {
                line.push_str("...");
            }
        }
        if let Some(note) = self.note() {
            let _ = write!(line, "  ({note})");
        }
        if let Some(violation) = &copy.violation {
            let _ = write!(line, "  ({violation}: {})", hex(self.wire));
        }
        line.push('\n');
        line
    }

    /// The same as JSON.
    pub(super) fn json(&self, shown: Shown) -> Value {
        let Self { copy, frame, .. } = self;
        let mut fields = json!({
            "time": time(copy.at_us),
            "session": copy.session,
            "from": if copy.from_client { "client" } else { "gateway" },
            "opcode": self.what(),
            "len": copy.len,
        });
        let mut set = |name: &str, value: Value| {
            if let Some(fields) = fields.as_object_mut() {
                fields.insert(name.to_owned(), value);
            }
        };
        if let Some(frame) = frame {
            set("fin", frame.fin.into());
            set("rsv1", frame.rsv1.into());
            set("masked", frame.is_masked.into());
            if let Some(code) = frame.close_code() {
                set("close_code", code.into());
            }
        }
        let (payload, _) = self.payload();
        if let Some(max) = shown.text {
            let front = &payload[..max.min(payload.len())];
            set("text", String::from_utf8_lossy(whole_chars(front)).into());
        }
        if let Some(max) = shown.hex {
            set("hex", hex(&payload[..max.min(payload.len())]).into());
        }
        match &self.inflated {
            Inflated::AsSent => {}
            Inflated::As { len, .. } => set("inflated_len", (*len).into()),
            Inflated::HistoryMissing | Inflated::TooLong => set("note", self.note().into()),
        }
        if let Some(violation) = &copy.violation {
            set("violation", violation.as_str().into());
        }
        if copy.dropped > 0 {
            set("dropped", copy.dropped.into());
        }
        json!({ "frame": fields })
    }
}

/// JSON as one line, with its end. Each character that a terminal could obey is escaped: outside of strings there is none.
pub(super) fn json_line(value: &Value) -> String {
    escape::visible(&value.to_string()) + "\n"
}

/// Without the front of a character whose rest is not there.
fn whole_chars(bytes: &[u8]) -> &[u8] {
    match str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() => &bytes[..e.valid_up_to()],
        Ok(_) | Err(_) => bytes,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn time(at_us: u64) -> String {
    humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(at_us)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(copy: &'a CopyInfo, wire: &'a [u8], inflated: Inflated) -> Seen<'a> {
        Seen { copy, wire, frame: Frame::parse(wire, copy.from_client), inflated }
    }

    fn copy(len: u64) -> CopyInfo {
        CopyInfo { session: 7, at_us: 1_764_465_736_123_456, len, ..CopyInfo::default() }
    }

    const BOTH: Shown = Shown { text: Some(9), hex: Some(2) };

    #[test]
    fn a_frame_is_a_line() {
        let hello = [&[0x81, 5][..], b"hello"].concat();
        let copy_ = copy(5);
        let line = seen(&copy_, &hello, Inflated::AsSent);
        let head = "01:22:16.123456Z  7  client <-  text          FIN            5";
        assert_eq!(line.text(Shown::default()), format!("{head}\n"));
        assert_eq!(line.text(BOTH), format!("{head}  \"hello\"  6865...\n"));
        let expect = json!({"frame": {"time": "2025-11-30T01:22:16.123456Z", "session": 7, "from": "gateway",
            "opcode": "text", "fin": true, "rsv1": false, "masked": false, "len": 5, "text": "hello", "hex": "6865"}});
        assert_eq!(line.json(BOTH), expect);
        let copy_ = copy(7);
        let close = seen(&copy_, b"\x88\x07\x03\xe8later", Inflated::AsSent).text(BOTH);
        assert!(close.ends_with("close         FIN            7  1000  \"later\"  6c61...\n"), "{close}");
        let copy_ = copy(3);
        let compressed = seen(&copy_, &[0xC1, 3, 1, 2, 3], Inflated::HistoryMissing);
        assert!(
            compressed
                .text(Shown::default())
                .ends_with("FIN RSV1       3  (compressed; history is missing)\n")
        );
        let inflated = seen(&copy_, &[0xC1, 3, 1, 2, 3], Inflated::As { front: b"hel".to_vec(), len: 90 });
        assert!(inflated.text(BOTH).ends_with("  \"hel\"...  6865...  (inflated: 90)\n"));
        assert_eq!(inflated.json(BOTH)["frame"]["inflated_len"], 90);
    }

    #[test]
    fn no_terminal_obeys_what_a_peer_has_sent() {
        let evil = "\u{1b}[2J\u{9b}31m\r\n\u{7}\u{202e}\u{7f}\\\"";
        let wire = [&[0x81, u8::try_from(evil.len()).unwrap()][..], evil.as_bytes()].concat();
        let shown = Shown { text: Some(100), hex: None };
        let copy_ = copy(evil.len() as u64);
        let seen = seen(&copy_, &wire, Inflated::AsSent);
        let (text, json) = (seen.text(shown), json_line(&seen.json(shown)));
        for line in [&text, &json] {
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(
                line.trim_end().chars().all(|c| escape::is_visible(c) || matches!(c, '"' | '\\')),
                "{line:?}"
            );
        }
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["frame"]["text"], evil);
        assert_eq!(escape::visible("a\u{1b}]0;b"), "a\\u001b]0;b");
    }

    #[test]
    fn a_cut_inside_of_a_character_is_no_invalid_text() {
        assert_eq!(whole_chars("aä".as_bytes()), "aä".as_bytes());
        assert_eq!(whole_chars(&"aä".as_bytes()[..2]), b"a");
        assert_eq!(whole_chars(b"a\xFFb"), b"a\xFFb");
    }
}
