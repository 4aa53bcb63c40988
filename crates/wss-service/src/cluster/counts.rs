//! Questions how many sessions other processes have: of all that ask for one name, one is asked. Pure.

use tokio::sync::oneshot;

use crate::elsewhere::Name;
use crate::unreached::Unreached;

/// Names that are asked for at the same time, at most.
const COUNTS_MAX: usize = 256;

type Answer = oneshot::Sender<Result<usize, Unreached>>;

/// Questions that wait, in the order of their names' first.
#[derive(Debug, Default)]
pub(super) struct Counts(Vec<(Name, Vec<Answer>)>);

impl Counts {
    /// One question more. If there are too many, it is answered at once.
    pub(super) fn ask(&mut self, name: Name, answer: Answer) {
        match self.0.iter().position(|(other, _)| *other == name) {
            Some(at) => {
                let (_, answers) = &mut self.0[at];
                answers.retain(|answer| !answer.is_closed());
                answers.push(answer);
            }
            None if self.0.len() < COUNTS_MAX => self.0.push((name, vec![answer])),
            None => drop(answer.send(Err(Unreached::Full))),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next name, if any of those who asked for it still wait.
    pub(super) fn next(&mut self) -> Option<(Name, Vec<Answer>)> {
        self.0.retain(|(_, answers)| answers.iter().any(|answer| !answer.is_closed()));
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_once_and_only_for_those_who_wait() {
        let mut counts = Counts::default();
        let name = |text: &str| Name::User(text.into());
        let (first, first_answer) = oneshot::channel();
        let (second, _second_answer) = oneshot::channel();
        let (gone, _) = oneshot::channel();
        counts.ask(name("ann"), first);
        counts.ask(name("gone"), gone);
        counts.ask(name("ann"), second);
        let (asked, answers) = counts.next().unwrap();
        assert_eq!((asked, answers.len()), (name("ann"), 2));
        assert!(counts.next().is_none() && counts.is_empty(), "the other has gone");
        drop((answers, first_answer));
        let mut waiting = Vec::new();
        for number in 0..=COUNTS_MAX {
            let (answer, answered) = oneshot::channel();
            counts.ask(name(&number.to_string()), answer);
            waiting.push(answered);
        }
        assert_eq!(waiting.pop().unwrap().try_recv(), Ok(Err(Unreached::Full)));
        assert!(waiting.pop().unwrap().try_recv().is_err(), "it waits");
    }
}
