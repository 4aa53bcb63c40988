//! What Redis sends, bounded before the library gathers it (RESP2 and RESP3). Pure.
//!
//! The library keeps a value until it is whole, and anybody who may publish may send 512 MiB. So what comes is followed here, value
//! by value. In place of a string that is too long the library gets an integer, its length; its bytes are passed over as they
//! come. What is too long in another way ends the connection.
//! <https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md>

use bytes::BytesMut;

/// Bytes of a line: the head of a string, a number, an error.
const LINE_MAX: usize = 4096;
/// Bytes that a value in a list takes, beside what it says.
const ENTRY: usize = 64;
/// Bytes of the answer to a command: the longest are the names of a thousand processes.
const ANSWER_MAX: usize = 256 * 1024;

/// Why nothing more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RespError {
    #[error("this is not the protocol of Redis")]
    NotResp,
    #[error("a line of Redis has more than {LINE_MAX} bytes")]
    LongLine,
    #[error("an answer of Redis has more than {0} bytes")]
    LongAnswer(usize),
}

/// Follows what comes from one connection.
#[derive(Debug)]
pub(super) struct Limiter {
    push_max: usize,
    /// The line that is read.
    line: Vec<u8>,
    /// Bytes of the string that is read, with the end of its line.
    string: usize,
    is_kept: bool,
    /// Values that are missing until the outermost one is whole.
    missing: usize,
    /// Bytes that the outermost value may have, and what is left of them.
    max: usize,
    left: usize,
}

impl Limiter {
    /// `push_max`: bytes of what comes without being asked for: a message and the name of its channel.
    pub(super) fn new(push_max: usize) -> Self {
        Self { push_max, line: Vec::new(), string: 0, is_kept: false, missing: 0, max: 0, left: 0 }
    }

    /// Appends what the library may have of these bytes to `out`, which grows by no more than them and a line.
    ///
    /// # Errors
    /// See [`RespError`]; nothing behind it means anything.
    pub(super) fn feed(&mut self, mut bytes: &[u8], out: &mut BytesMut) -> Result<(), RespError> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.string > 0 {
                let (front, rest) = bytes.split_at(self.string.min(bytes.len()));
                if self.is_kept {
                    out.extend_from_slice(front);
                }
                self.string -= front.len();
                bytes = rest;
                continue;
            }
            bytes = rest;
            self.line.push(*first);
            if self.line.ends_with(b"\r\n") {
                self.read_line()?;
                out.extend_from_slice(&self.line);
                self.line.clear();
            } else if self.line.len() == LINE_MAX {
                return Err(RespError::LongLine);
            }
        }
        Ok(())
    }

    /// A line is whole: that of a value, or the head of one.
    fn read_line(&mut self) -> Result<(), RespError> {
        let len = self.line.len() - 2;
        let (kind, text) = self.line[..len].split_first().ok_or(RespError::NotResp)?;
        if self.missing == 0 {
            self.max = if *kind == b'>' { self.push_max } else { ANSWER_MAX };
            (self.missing, self.left) = (1, self.max);
        }
        self.missing -= 1;
        match (kind, text) {
            (b'$' | b'*', b"-1") => Ok(()), // null, as RESP2 writes it
            (b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(', _) => self.spend(len),
            (b'$' | b'=' | b'!', text) => {
                self.begin_string(*kind, number(text)?);
                Ok(())
            }
            (b'*' | b'~' | b'>', text) => self.expect(number(text)?, 1, 0),
            (b'%', text) => self.expect(number(text)?, 2, 0),
            (b'|', text) => self.expect(number(text)?, 2, 1), // and what the attributes are of
            _ => Err(RespError::NotResp),
        }
    }

    /// The head of a string that is too long becomes another value of one line, as long as the head.
    fn begin_string(&mut self, kind: u8, len: usize) {
        self.string = len.saturating_add(2);
        self.is_kept = len <= self.left;
        if self.is_kept {
            self.left -= len;
        } else {
            self.line[0] = if kind == b'!' { b'-' } else { b':' };
        }
    }

    /// A list has so many entries of so many values each.
    fn expect(&mut self, entries: usize, each: usize, more: usize) -> Result<(), RespError> {
        let values = entries.saturating_mul(each).saturating_add(more);
        self.spend(values.saturating_mul(ENTRY))?;
        self.missing += values; // no more than there are bytes left
        Ok(())
    }

    fn spend(&mut self, len: usize) -> Result<(), RespError> {
        self.left = self.left.checked_sub(len).ok_or(RespError::LongAnswer(self.max))?;
        Ok(())
    }
}

/// A length. Redis writes none with a sign or with spaces, which the library would read.
fn number(text: &[u8]) -> Result<usize, RespError> {
    let digits = str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse::<i64>().ok()).and_then(|n| n.try_into().ok());
    number.ok_or(RespError::NotResp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::Value;

    use super::*;

    const PUSH_MAX: usize = 300;

    fn all(parts: &[&[u8]]) -> Result<BytesMut, RespError> {
        let (mut limiter, mut out) = (Limiter::new(PUSH_MAX), BytesMut::new());
        parts.iter().try_for_each(|part| limiter.feed(part, &mut out))?;
        Ok(out)
    }

    /// The same bytes, each by itself, are the same.
    fn fed(bytes: &[u8]) -> Result<BytesMut, RespError> {
        let found = all(&[bytes]);
        assert_eq!(all(&bytes.chunks(1).collect::<Vec<_>>()), found);
        found
    }

    fn message(len: usize) -> Vec<u8> {
        format!(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n${len}\r\n{}\r\n", "x".repeat(len)).into_bytes()
    }

    #[test]
    fn what_is_short_passes() {
        let short: [&[u8]; 15] = [
            b"+OK\r\n",
            b"-ERR a\rb\nc\r\n",
            b":-12\r\n",
            b"$-1\r\n*-1\r\n_\r\n",
            b"$0\r\n\r\n",
            b"$2\r\n\r\n\r\n",
            b"*0\r\n~0\r\n%0\r\n>0\r\n",
            b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n#t\r\n",
            b"|1\r\n+ttl\r\n:7\r\n*1\r\n,1.5\r\n",
            b"~2\r\n(123\r\n=5\r\ntxt:a\r\n",
            b"!3\r\nERR\r\n",
            b"*-1\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\n{}\r\n",
            b"",
        ];
        for bytes in short {
            assert_eq!(fed(bytes).as_deref(), Ok(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn in_place_of_a_string_that_is_too_long_there_is_its_length() {
        let heard = |len| format!(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n:{len}\r\n").into_bytes();
        let longest = PUSH_MAX - 3 * ENTRY - 8;
        assert_eq!(fed(&message(longest)).unwrap(), message(longest));
        assert_eq!(fed(&message(longest + 1)).unwrap(), heard(longest + 1));
        let several = [message(1000), message(2), b"+OK\r\n".to_vec(), message(2000)].concat();
        assert_eq!(
            fed(&several).unwrap(),
            [heard(1000), message(2), b"+OK\r\n".to_vec(), heard(2000)].concat()
        );
        // An answer to a command is not a message.
        let long = "x".repeat(ANSWER_MAX + 1);
        let len = long.len();
        for (kind, other) in [('$', ':'), ('=', ':'), ('!', '-')] {
            let cut = all(&[format!("{kind}{len}\r\n{long}\r\n:7\r\n").as_bytes()]).unwrap();
            assert_eq!(cut, format!("{other}{len}\r\n:7\r\n"));
        }
    }

    #[test]
    fn what_is_never_whole_takes_no_room() {
        let (mut limiter, mut out) = (Limiter::new(PUSH_MAX), BytesMut::new());
        limiter.feed(b">3\r\n+message\r\n+a\r\n$9223372036854775807\r\n", &mut out).unwrap();
        out.clear();
        for _ in 0..1000 {
            limiter.feed(&[b'x'; 4096], &mut out).unwrap();
        }
        assert!(out.is_empty() && limiter.line.capacity() <= 2 * LINE_MAX);
    }

    #[test]
    fn what_is_too_long_in_another_way_is_the_end() {
        let long = |count: usize| format!("*{count}\r\n");
        let fits = ANSWER_MAX / ENTRY;
        assert_eq!(fed(long(fits).as_bytes()).unwrap(), long(fits));
        let lists = format!("*{}\r\n*1\r\n", fits - 1);
        assert!(fed(lists.as_bytes()).is_ok());
        let too_long = [
            long(fits + 1),
            format!("%{}\r\n", fits / 2 + 1),
            format!("|{}\r\n", fits / 2),
            format!("~{}\r\n", i64::MAX),
            format!("%{}\r\n", i64::MAX),
            format!("{lists}*1\r\n"),
        ];
        for bytes in too_long {
            assert_eq!(fed(bytes.as_bytes()), Err(RespError::LongAnswer(ANSWER_MAX)), "{bytes:?}");
        }
        assert_eq!(fed(b">5\r\n"), Err(RespError::LongAnswer(PUSH_MAX)));
        assert_eq!(fed(&[b'+'; LINE_MAX]), Err(RespError::LongLine));
    }

    #[test]
    fn what_is_not_the_protocol_is_the_end() {
        let bad: [&[u8]; 12] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"$\r\n",
            b"$-2\r\n",
            b"$+1\r\n",
            b"$ 1\r\n",
            b"=-1\r\n",
            b"%-1\r\n",
            b"$?\r\n",
            b"*1x\r\n",
            b"$9223372036854775808\r\n",
            b"\xFF\xFF\r\n",
        ];
        for bytes in bad {
            assert_eq!(fed(bytes), Err(RespError::NotResp), "{bytes:?}");
        }
    }

    /// Values as Redis sends them, some of whose strings are longer than a push may be.
    fn values() -> impl Strategy<Value = Value> {
        let text = || prop::collection::vec(any::<u8>(), 0..2 * PUSH_MAX);
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::Int),
            "[a-z ]{1,9}".prop_map(Value::SimpleString),
            any::<bool>().prop_map(Value::Boolean),
            text().prop_map(Value::BulkString),
            Just(Value::Nil),
        ];
        let inner = leaf.prop_recursive(3, 12, 4, |inner| {
            let list = || prop::collection::vec(inner.clone(), 0..4);
            prop_oneof![
                list().prop_map(Value::Array),
                list().prop_map(Value::Set),
                prop::collection::vec((inner.clone(), inner.clone()), 0..2).prop_map(Value::Map),
            ]
        });
        let push = text().prop_map(|line| Value::Push {
            kind: redis::PushKind::Message,
            data: vec![Value::BulkString(b"a".to_vec()), Value::BulkString(line)],
        });
        prop_oneof![inner, push]
    }

    fn write(value: &Value, bytes: &mut Vec<u8>) {
        let list = |kind: char, values: &[Value], bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(format!("{kind}{}\r\n", values.len()).as_bytes());
            values.iter().for_each(|value| write(value, bytes));
        };
        match value {
            Value::Int(number) => bytes.extend_from_slice(format!(":{number}\r\n").as_bytes()),
            Value::SimpleString(text) => bytes.extend_from_slice(format!("+{text}\r\n").as_bytes()),
            Value::Boolean(is) => bytes.extend_from_slice(if *is { b"#t\r\n" } else { b"#f\r\n" }),
            Value::Nil => bytes.extend_from_slice(b"_\r\n"),
            Value::BulkString(text) => {
                bytes.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
                bytes.extend_from_slice(text);
                bytes.extend_from_slice(b"\r\n");
            }
            Value::Array(values) => list('*', values, bytes),
            Value::Set(values) => list('~', values, bytes),
            Value::Map(pairs) => {
                bytes.extend_from_slice(format!("%{}\r\n", pairs.len()).as_bytes());
                pairs.iter().for_each(|(key, value)| {
                    write(key, bytes);
                    write(value, bytes);
                });
            }
            Value::Push { data, .. } => {
                bytes.extend_from_slice(b">3\r\n$7\r\nmessage\r\n");
                data.iter().for_each(|value| write(value, bytes));
            }
            _ => unreachable!("no such value is made"),
        }
    }

    /// As the library should have it.
    fn bounded(value: &Value) -> Value {
        match value {
            Value::Push { kind, data } => {
                let left = PUSH_MAX - 3 * ENTRY - 8;
                let line = match &data[1] {
                    Value::BulkString(line) if line.len() > left => {
                        Value::Int(i64::try_from(line.len()).unwrap())
                    }
                    line => line.clone(),
                };
                Value::Push { kind: kind.clone(), data: vec![data[0].clone(), line] }
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn the_library_reads_all_but_strings_that_are_too_long(
            sent in prop::collection::vec(values(), 1..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut bytes = Vec::new();
            sent.iter().for_each(|value| write(value, &mut bytes));
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let out = all(&parts).unwrap();
            let (mut library, mut out) = (redis::Parser::new(), &out[..]);
            for value in &sent {
                prop_assert_eq!(library.parse_value(&mut out).unwrap(), bounded(value));
            }
            prop_assert!(library.parse_value(&mut out).is_err(), "there is more");
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, lines in "([$*%~>|=!:+-](-1|0|1|2|9{1,20}|a)\r\n){0,12}") {
            for bytes in [&bytes[..], lines.as_bytes()] {
                if let Ok(out) = fed(bytes) {
                    prop_assert!(out.len() <= bytes.len());
                }
            }
        }
    }
}
