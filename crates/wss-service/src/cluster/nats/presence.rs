//! Who is there, and what they have answered. Without a socket; the time is an argument.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::subject::Subjects;

/// Processes that are known; more are not waited for.
const OTHERS_MAX: usize = 1000;

/// Subjects of a process, and how long it counts as there.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) subjects: Subjects,
    pub(super) process: String,
    pub(super) alive: String,
    pub(super) ask: String,
    /// Where answers come.
    pub(super) inbox: String,
    pub(super) ttl: Duration,
}

impl Names {
    pub(super) fn new(prefix: &str, process: String, ttl: Duration) -> Self {
        let subjects = Subjects::new(prefix);
        let (alive, ask) = (subjects.of_name("alive"), subjects.of_name("ask"));
        let inbox = format!("_INBOX.{process}");
        Self { subjects, process, alive, ask, inbox, ttl }
    }
}

/// What a process says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It has come, and wants to know who else is there.
    Hello,
    Alive,
    Bye,
}

impl Sign {
    pub(super) fn write(self, process: &str) -> String {
        match self {
            Self::Hello => format!("{process} hello"),
            Self::Alive => process.to_owned(),
            Self::Bye => format!("{process} bye"),
        }
    }

    pub(super) fn read(text: &str) -> Option<(&str, Self)> {
        let (process, sign) = match text.split_once(' ') {
            None => (text, Self::Alive),
            Some((process, "hello")) => (process, Self::Hello),
            Some((process, "bye")) => (process, Self::Bye),
            Some(_) => return None,
        };
        let is_name = process.len() == 16 && process.bytes().all(|b| b.is_ascii_hexdigit());
        is_name.then_some((process, sign))
    }
}

/// Other processes, and the question that is open.
#[derive(Debug, Default)]
pub(super) struct Presence {
    others: HashMap<String, Instant>,
    question: u64,
    waiting: HashSet<String>,
    sum: usize,
}

impl Presence {
    pub(super) fn note(&mut self, process: &str, sign: Sign, now: Instant) {
        match sign {
            Sign::Bye => {
                self.others.remove(process);
                self.waiting.remove(process);
            }
            Sign::Hello | Sign::Alive => {
                if self.others.len() < OTHERS_MAX || self.others.contains_key(process) {
                    self.others.insert(process.to_owned(), now);
                }
            }
        }
    }

    /// Forgets those that have said nothing for so long.
    pub(super) fn forget(&mut self, ttl: Duration, now: Instant) {
        self.others.retain(|_, last| now.duration_since(*last) < ttl);
    }

    /// A new question to all who are there. Returns its number.
    pub(super) fn ask(&mut self) -> u64 {
        self.question += 1;
        self.waiting = self.others.keys().cloned().collect();
        self.sum = 0;
        self.question
    }

    /// `number process count`, which are another process's. The first answer of each counts.
    pub(super) fn answer(&mut self, text: &str) {
        let mut words = text.split(' ');
        let number = words.next().and_then(|number| number.parse().ok());
        let (Some(process), Some(count)) =
            (words.next(), words.next().and_then(|count| count.parse::<u32>().ok()))
        else {
            return;
        };
        if number == Some(self.question) && self.waiting.remove(process) {
            self.sum = self.sum.saturating_add(count as usize);
        }
    }

    /// What was answered so far, and whether that is all.
    pub(super) fn found(&self) -> (usize, bool) {
        (self.sum, self.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "000000000000000a";
    const B: &str = "000000000000000b";

    #[test]
    fn signs_are_read_as_they_were_written() {
        for sign in [Sign::Hello, Sign::Alive, Sign::Bye] {
            assert_eq!(Sign::read(&sign.write(A)), Some((A, sign)));
        }
        for bad in ["", "a", "000000000000000a what", "000000000000000a hello ", "00000000000000é"] {
            assert_eq!(Sign::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn those_who_are_there_are_waited_for_and_counted_once() {
        let (mut presence, now) = (Presence::default(), Instant::now());
        presence.note(A, Sign::Hello, now);
        presence.note(B, Sign::Alive, now);
        let number = presence.ask();
        presence.answer(&format!("{number} {A} 2"));
        presence.answer(&format!("{number} {A} 2"));
        presence.answer(&format!("{} {B} 9", number - 1));
        presence.answer(&format!("{number} cccccccccccccccc 9"));
        presence.answer(&format!("{number} {B} -1"));
        assert_eq!(presence.found(), (2, false));
        presence.answer(&format!("{number} {B} 1"));
        assert_eq!(presence.found(), (3, true));
    }

    #[test]
    fn who_is_gone_is_not_waited_for() {
        let (mut presence, now) = (Presence::default(), Instant::now());
        let ttl = Duration::from_secs(3);
        presence.note(A, Sign::Alive, now);
        presence.note(B, Sign::Alive, now + ttl);
        presence.ask();
        presence.note(B, Sign::Bye, now + ttl);
        assert_eq!(presence.found(), (0, false));
        presence.forget(ttl, now + ttl);
        presence.ask();
        assert_eq!(presence.found(), (0, true));
    }

    #[test]
    fn only_so_many_are_known() {
        let (mut presence, now) = (Presence::default(), Instant::now());
        for number in 0..2 * OTHERS_MAX {
            presence.note(&format!("{number:016x}"), Sign::Alive, now);
        }
        assert_eq!(presence.others.len(), OTHERS_MAX);
    }
}
