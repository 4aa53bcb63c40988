//! Who sends a request, as far as the gateway has found out. A session keeps it for its life.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use net_io::state::{StateError, StateReader, StateWriter};
use zeroize::Zeroizing;

/// Who sends a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// What the log, the list of sessions and limits call the sender. Of several steps that name one, the last counts.
    pub subject: Option<Box<str>>,
    /// When this is no longer valid, in seconds of Unix time: a session ends then.
    pub expiry: Option<u64>,
    /// The line of the password file that let the sender in.
    pub user: Option<User>,
    /// What is judged again of a token.
    pub token: Option<Token>,
    /// The question that an authorization server is asked again.
    pub recheck: Option<Recheck>,
}

/// A user of a password file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: Box<str>,
    /// A digest of the line that let the user in: it is another one when the password has been changed.
    pub line: [u8; 32],
}

/// What a reload judges of a token that a session was opened with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Token {
    /// `iss`.
    pub issuer: Option<Box<str>>,
    /// `aud`.
    pub audience: Vec<Box<str>>,
    /// `kid`.
    pub key_id: Option<Box<str>>,
}

/// A question that an authorization server has answered with yes. It may have cookies and passwords in it.
#[derive(Clone)]
pub struct Recheck {
    question: Zeroizing<Vec<u8>>,
    /// When the last yes came, or when none was due before, in seconds of Unix time.
    confirmed: Arc<AtomicU64>,
}

impl Recheck {
    /// It has just been answered, at `now` in seconds of Unix time.
    #[must_use]
    pub fn new(question: Vec<u8>, now: u64) -> Self {
        Self { question: question.into(), confirmed: Arc::new(now.into()) }
    }

    /// The question, as [`ask`](crate::upstream::ask::ask) takes it.
    #[must_use]
    pub fn question(&self) -> &[u8] {
        &self.question
    }

    /// The answer was yes again.
    pub fn confirm(&self, now: u64) {
        self.confirmed.store(now, Ordering::Relaxed);
    }

    /// None was due before this moment.
    pub fn begins(&self, at: u64) {
        self.confirmed.fetch_max(at, Ordering::Relaxed);
    }

    /// How long ago the last yes came, in seconds.
    #[must_use]
    pub fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.confirmed.load(Ordering::Relaxed))
    }
}

/// Nothing of the question.
impl fmt::Debug for Recheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recheck").field("confirmed", &self.confirmed).finish_non_exhaustive()
    }
}

impl PartialEq for Recheck {
    fn eq(&self, other: &Self) -> bool {
        self.question == other.question && self.age(u64::MAX) == other.age(u64::MAX)
    }
}

impl Eq for Recheck {}

/// A part of `interval` in seconds, by chance; at least one, since it is looked for no more often.
#[must_use]
pub(crate) fn spread(interval: Duration, part: Range<f64>) -> u64 {
    interval.mul_f64(rand::random_range(part)).as_secs().max(1)
}

impl Identity {
    /// The sender is called so from now on.
    pub fn name(&mut self, subject: impl Into<Box<str>>) {
        self.subject = Some(subject.into());
    }

    /// It is not valid after this moment, in seconds of Unix time, nor after an earlier one that was given before.
    pub fn expires(&mut self, at: u64) {
        self.expiry = Some(self.expiry.map_or(at, |earlier| earlier.min(at)));
    }

    /// Writes it for another process.
    pub fn write_state(&self, out: &mut StateWriter) {
        let Self { subject, expiry, user, token, recheck } = self;
        let text = |out: &mut StateWriter, text: &str| out.bytes(text.as_bytes());
        out.section(|out| {
            out.option(subject.as_deref(), text);
            out.option(*expiry, StateWriter::u64);
            out.option(user.as_ref(), |out, User { name, line }| {
                out.bytes(name.as_bytes());
                out.array(line);
            });
            out.option(token.as_ref(), |out, Token { issuer, audience, key_id }| {
                out.option(issuer.as_deref(), text);
                out.u32(u32::try_from(audience.len()).unwrap_or(u32::MAX));
                audience.iter().for_each(|name| out.bytes(name.as_bytes()));
                out.option(key_id.as_deref(), text);
            });
            out.option(recheck.as_ref(), |out, Recheck { question, confirmed }| {
                out.bytes(question);
                out.u64(confirmed.load(Ordering::Relaxed));
            });
        });
    }

    /// What [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// If it is not what that writes.
    pub fn read_state(fields: &mut StateReader<'_>) -> Result<Self, StateError> {
        let mut fields = fields.section()?;
        let mut identity = Self {
            subject: fields.option(text)?,
            expiry: fields.option(StateReader::u64)?,
            user: fields.option(|fields| Ok(User { name: text(fields)?, line: fields.array()? }))?,
            token: fields.option(|fields| {
                let issuer = fields.option(text)?;
                let count = fields.u32()?;
                let audience = (0..count).map(|_| text(fields)).collect::<Result<_, _>>()?;
                Ok(Token { issuer, audience, key_id: fields.option(text)? })
            })?,
            recheck: None,
        };
        if !fields.is_at_end() {
            identity.recheck =
                fields.option(|fields| Ok(Recheck::new(fields.bytes()?.to_vec(), fields.u64()?)))?;
        }
        Ok(identity)
    }
}

fn text(fields: &mut StateReader<'_>) -> Result<Box<str>, StateError> {
    fields.text().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_with_all_that_it_has() {
        let full = Identity {
            subject: Some("alice".into()),
            expiry: Some(1_900_000_000),
            user: Some(User { name: "alice".into(), line: [7; 32] }),
            token: Some(Token {
                issuer: Some("https://issuer.test".into()),
                audience: vec!["a".into(), "b".into()],
                key_id: None,
            }),
            recheck: Some(Recheck::new(b"cookie: a=b\r\n".to_vec(), 1_800_000_000)),
        };
        for identity in [Identity::default(), full] {
            let mut out = StateWriter::new(1);
            identity.write_state(&mut out);
            let state = out.finish();
            let mut fields = StateReader::new(&state, 1).unwrap();
            assert_eq!(Identity::read_state(&mut fields).unwrap(), identity);
            assert!(fields.is_at_end());
            for len in 0..state.len() {
                let read = StateReader::new(&state[..len], 1).and_then(|mut f| Identity::read_state(&mut f));
                assert!(read.is_err(), "{len}");
            }
        }
    }

    #[test]
    fn the_earliest_end_counts() {
        let mut identity = Identity::default();
        for (at, expect) in [(20, 20), (30, 20), (10, 10)] {
            identity.expires(at);
            assert_eq!(identity.expiry, Some(expect));
        }
    }
}
