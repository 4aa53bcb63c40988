//! Why an order came to nothing: a sentence, and when there may be another.

use std::fmt::Display;
use std::time::Duration;

use instant_acme::{Error, Problem};

use super::advice;
use super::client::Heard;
use super::schedule::FailureKind;
use crate::site::challenges::ChallengeKind;

/// An order that came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct OrderFailure {
    pub(super) kind: FailureKind,
    /// What is wrong and what to do, in one line.
    pub(super) what: String,
    pub(super) retry_after: Option<Duration>,
    /// The account is of no use any more.
    pub(super) of_account: bool,
}

impl OrderFailure {
    /// Something here is wrong.
    pub(super) fn local(e: impl Display) -> Self {
        Self::new(FailureKind::Local, e.to_string())
    }

    pub(super) fn new(kind: FailureKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), retry_after: None, of_account: false }
    }

    /// What the library says. `heard` is what the authority said besides.
    pub(super) fn of(e: Error, heard: &Heard, challenge: ChallengeKind) -> Self {
        let retry_after = heard.retry_after();
        match e {
            Error::Api(problem) => Self { retry_after, ..Self::refused(&problem, None, challenge) },
            Error::Timeout(_) => Self::new(
                FailureKind::Unreachable,
                "the authority has not come to an end with the order in time; it is asked again",
            ),
            Error::Json(_) | Error::Str(_) => Self {
                retry_after,
                ..Self::new(
                    FailureKind::Unreachable,
                    format!("the answer of the authority can't be understood, or it is out of order: {e}"),
                )
            },
            Error::Crypto | Error::KeyRejected => Self::local(format!("the key of the account: {e}")),
            // Its server was not reached, or has broken off.
            e => {
                Self::new(FailureKind::Unreachable, format!("the certificate authority can't be asked: {e}"))
            }
        }
    }

    /// What the authority has refused.
    pub(super) fn refused(problem: &Problem, name: Option<&str>, challenge: ChallengeKind) -> Self {
        let (kind, what) = advice::judge(problem, name, challenge);
        Self { of_account: advice::is_of_account(problem), ..Self::new(kind, what) }
    }
}

impl From<std::io::Error> for OrderFailure {
    fn from(e: std::io::Error) -> Self {
        Self::local(e)
    }
}
