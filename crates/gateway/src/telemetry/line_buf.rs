//! The bytes of a line while it is written, without the machinery of `fmt`: what is known when the gateway is compiled is
//! put there in one piece, and numbers go there digit by digit.

use std::fmt;

/// UTF-8, since what is put into it is text.
#[derive(Debug, Default)]
pub(super) struct LineBuf(Vec<u8>);

impl LineBuf {
    /// For threads.
    pub(super) const NEW: Self = Self(Vec::new());

    /// Text. A constant becomes a few moves.
    #[inline]
    pub(super) fn text(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// ASCII whose length is known.
    #[inline]
    pub(super) fn ascii<const N: usize>(&mut self, text: [u8; N]) {
        debug_assert!(text.is_ascii());
        self.0.extend_from_slice(&text);
    }

    /// A number.
    #[inline]
    pub(super) fn number(&mut self, number: u64) {
        match u8::try_from(number) {
            Ok(digit @ 0..10) => self.ascii([b'0' + digit]),
            _ => self.text(itoa::Buffer::new().format(number)),
        }
    }

    /// An address of IPv4.
    pub(super) fn ipv4(&mut self, octets: [u8; 4]) {
        let (mut text, mut at) = ([b'.'; 16], 0);
        for octet in octets {
            let mut put = |digit: u8| {
                text[at] = b'0' + digit;
                at += 1;
            };
            if octet >= 100 {
                put(octet / 100);
            }
            if octet >= 10 {
                put(octet / 10 % 10);
            }
            put(octet % 10);
            at += 1; // a point
        }
        // A copy whose length is known takes a few moves.
        self.ascii(text);
        self.0.truncate(self.0.len() - text.len() + at - 1);
    }

    /// Microseconds, as milliseconds: `12.034`
    pub(super) fn millis(&mut self, us: u32) {
        self.number((us / 1000).into());
        let digits = [us / 100, us / 10, us].map(|front| b'0' + (front % 10) as u8);
        self.ascii([b'.', digits[0], digits[1], digits[2]]);
    }

    /// What is there.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Keeps its memory.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The same as text.
    pub(super) fn into_string(self) -> String {
        String::from_utf8(self.0).unwrap_or_default()
    }
}

impl fmt::Write for LineBuf {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn written(write: impl FnOnce(&mut LineBuf)) -> String {
        let mut out = LineBuf::NEW;
        write(&mut out);
        out.into_string()
    }

    #[test]
    fn microseconds_are_shown_as_milliseconds() {
        for (us, text) in [
            (0, "0.000"),
            (7, "0.007"),
            (1_020, "1.020"),
            (12_345_678, "12345.678"),
            (u32::MAX, "4294967.295"),
        ] {
            assert_eq!(written(|out| out.millis(us)), text);
        }
    }

    #[test]
    fn numbers_are_written_as_they_are_shown() {
        for number in [0, 9, 10, 99, 255, 256, 266, u64::MAX] {
            assert_eq!(written(|out| out.number(number)), number.to_string());
        }
        for octet in 0..=u8::MAX {
            let octets = [octet, 255 - octet, octet / 3, 0];
            assert_eq!(written(|out| out.ipv4(octets)), Ipv4Addr::from(octets).to_string());
        }
    }
}
