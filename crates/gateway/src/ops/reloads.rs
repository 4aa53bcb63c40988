//! The last reloads: what each has changed, or why it was refused.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use net_io::unix_now;
use serde::Serialize;

use crate::ops::control::protocol::{ControlResponse, Reloaded};

/// So many are remembered.
const LAST_MAX: usize = 16;
/// So many problems and warnings of each.
const TEXTS_MAX: usize = 20;
/// The longest text, in characters.
const TEXT_LEN_MAX: usize = 500;

/// The last ones.
#[derive(Debug, Default)]
pub(crate) struct ReloadHistory(Mutex<VecDeque<ReloadInfo>>);

/// One of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ReloadInfo {
    /// When, in seconds of Unix time.
    pub(crate) at: i64,
    /// What it has changed; `None`: it was refused.
    pub(crate) taken: Option<Reloaded>,
    /// Everything that forbids it.
    pub(crate) problems: Vec<String>,
    /// How many there are.
    pub(crate) problem_count: usize,
}

impl ReloadHistory {
    /// A reload was answered so.
    pub(crate) fn push(&self, answer: &ControlResponse) {
        let mut taken = answer.reload.clone();
        if let Some(report) = &mut taken {
            for texts in [
                &mut report.warnings,
                &mut report.names_added,
                &mut report.names_removed,
                &mut report.names_replaced,
                &mut report.names_kept,
            ] {
                *texts = shortened(texts);
            }
        }
        let info = ReloadInfo {
            at: unix_now(),
            taken,
            problems: shortened(&answer.problems),
            problem_count: answer.problems.len(),
        };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LAST_MAX {
            last.pop_front();
        }
        last.push_back(info);
    }

    /// The last ones, the latest first.
    #[must_use]
    pub(crate) fn last(&self) -> Vec<ReloadInfo> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

/// As much of it as is remembered.
fn shortened(texts: &[String]) -> Vec<String> {
    let cut = |text: &String| match text.char_indices().nth(TEXT_LEN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.clone(),
    };
    let mut kept: Vec<String> = texts.iter().take(TEXTS_MAX).map(cut).collect();
    if texts.len() > TEXTS_MAX {
        kept.push(format!("and {} more", texts.len() - TEXTS_MAX));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_much_is_remembered() {
        let history = ReloadHistory::default();
        for n in 0..40 {
            let problems = vec!["ü".repeat(1000); n];
            history.push(&ControlResponse { problems, ..ControlResponse::error("refused") });
        }
        let last = history.last();
        assert_eq!((last.len(), last[0].problem_count, last[15].problem_count), (16, 39, 24));
        assert_eq!(last[0].problems.len(), 21);
        assert_eq!(last[0].problems[0].chars().count(), 501);
        assert_eq!(last[0].problems[20], "and 19 more");
    }
}
