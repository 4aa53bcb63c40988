//! When a certificate is ordered, and when again after a failure. Pure: times are seconds since 1970.

use std::time::Duration;

/// Why an order came to nothing, as far as it decides when there is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The authority doesn't answer, or has a fault of its own.
    Unreachable,
    /// It has had too many requests of this account, this name, or this address.
    Limited,
    /// It has looked for a name, and has not found this gateway.
    Validation,
    /// It refuses until the configuration is another one.
    Refused,
    /// Something is wrong here: the disk, a program.
    Local,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: i64 = 86_400;

impl FailureKind {
    /// Seconds of waiting after the first failure, the second, and so on; the last is for all further ones.
    const fn waits(self) -> &'static [u64] {
        match self {
            Self::Unreachable => &[30, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR],
            Self::Limited => &[HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR],
            // Let's Encrypt allows five failures an hour for each name.
            Self::Validation => &[2 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 12 * HOUR],
            Self::Refused => &[HOUR, 6 * HOUR, 24 * HOUR],
            Self::Local => &[MINUTE, 5 * MINUTE, 15 * MINUTE],
        }
    }

    /// How long to wait after so many failures in a row. The authority can ask for more, up to a day.
    pub(super) fn wait(self, failures: u32, retry_after: Option<Duration>) -> u64 {
        const LONGEST: u64 = 24 * HOUR;
        let nth = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        let waits = self.waits();
        let ours = waits.get(nth).or(waits.last()).copied().unwrap_or(HOUR);
        ours.max(retry_after.map_or(0, |after| after.as_secs()).min(LONGEST))
    }
}

/// How long a request waits whose nonce was refused for the first time, the second, and so on, before it is sent again;
/// `None`: it is given up. Half a minute in all.
pub(super) fn nonce_wait(refusals: u32) -> Option<Duration> {
    const WAITS_SECS: [u64; 5] = [1, 2, 4, 8, 15];
    let nth = usize::try_from(refusals.checked_sub(1)?).ok()?;
    WAITS_SECS.get(nth).copied().map(Duration::from_secs)
}

/// What is known of a certificate that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// It has all the names that the configuration wants, and no others.
    pub(super) fits: bool,
}

impl Validity {
    /// When it is renewed, if the authority doesn't say: with a third of its lifetime left.
    pub(super) fn third(&self) -> i64 {
        self.not_after - self.lifetime() / 3
    }

    /// Before this moment a certificate that was issued `now` is not replaced, whatever this machine's clock says: a wrong
    /// one must not use up the authority's limits.
    pub(super) fn earliest_renewal(&self, now: i64) -> i64 {
        now + (self.lifetime() / 10).min(DAY)
    }

    fn lifetime(&self) -> i64 {
        (self.not_after - self.not_before).max(0)
    }
}

/// When to order; in the past: now. `suggested` is what the authority says of this certificate, `next` is when the last
/// failure allows it.
pub(super) fn due(validity: Option<Validity>, suggested: Option<i64>, next: Option<i64>) -> i64 {
    let wanted = match validity {
        // A window that lies behind the end would let it expire.
        Some(validity) if validity.fits => {
            suggested.map_or(validity.third(), |at| at.min(validity.not_after))
        }
        _ => 0,
    };
    wanted.max(next.unwrap_or(0))
}

/// A name that was ordered on demand is remembered for a day after its end.
pub(super) fn is_long_ago(ended: i64, now: i64) -> bool {
    ended + DAY < now
}

/// A moment of the window that the authority suggests (RFC 9773 §4.2): the one `before`, if that still lies in it.
/// `random` is from 0 to 1.
pub(super) fn within(start: i64, end: i64, before: Option<i64>, random: f64) -> i64 {
    if let Some(before) = before.filter(|at| (start..=end).contains(at)) {
        return before;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "some days, in seconds")]
    let behind = ((end - start).max(0) as f64 * random) as i64;
    start + behind
}

/// How long what an authority suggests is good: as it says, but from a minute to a day (RFC 9773 §4.3.2).
pub(super) fn suggestion_age(retry_after: Duration) -> i64 {
    i64::try_from(retry_after.as_secs().clamp(MINUTE, 24 * HOUR)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(lifetime: i64) -> Option<Validity> {
        Some(Validity { not_before: 1000 * DAY, not_after: (1000 + lifetime) * DAY, fits: true })
    }

    #[test]
    fn certificates_are_renewed_with_a_third_left_or_as_the_authority_says() {
        for (validity, suggested, next, expect) in [
            (days(90), None, None, 1060 * DAY),
            (days(47), None, None, 1047 * DAY - 47 * DAY / 3),
            (days(6), None, None, 1004 * DAY),
            (days(90), Some(1010 * DAY), None, 1010 * DAY),
            (days(90), Some(5 * DAY), None, 5 * DAY), // revoked: at once
            (days(90), Some(2000 * DAY), None, 1090 * DAY),
            (days(90), Some(1010 * DAY), Some(1011 * DAY), 1011 * DAY),
            (None, None, None, 0),
            (None, None, Some(7), 7),
            // The names in the file have changed.
            (days(90).map(|v| Validity { fits: false, ..v }), Some(1010 * DAY), None, 0),
        ] {
            assert_eq!(due(validity, suggested, next), expect, "{validity:?} {suggested:?} {next:?}");
        }
        assert_eq!([0.0, 0.5, 1.0].map(|random| within(100, 200, None, random)), [100, 150, 200]);
        assert_eq!(within(200, 100, None, 0.9), 200);
        assert_eq!([99, 120, 201].map(|before| within(100, 200, Some(before), 0.5)), [150, 120, 150]);
    }

    #[test]
    fn each_kind_of_failure_has_its_patience() {
        use FailureKind::{Limited, Local, Refused, Unreachable, Validation};
        for (kind, failures, retry_after, expect) in [
            (Unreachable, 1, None, 30),
            (Unreachable, 9, None, HOUR),
            (Unreachable, 1, Some(600), 600),
            (Unreachable, 9, Some(600), HOUR),
            (Limited, 1, None, HOUR),
            (Limited, 1, Some(7200), 7200),
            (Limited, 1, Some(u64::MAX), 24 * HOUR),
            (Validation, 1, None, 120),
            (Validation, 100, None, 12 * HOUR),
            (Refused, 1, None, HOUR),
            (Local, 0, None, MINUTE),
        ] {
            let wait = kind.wait(failures, retry_after.map(Duration::from_secs));
            assert_eq!(wait, expect, "{kind:?} {failures} {retry_after:?}");
        }
        let nonces =
            [1, 2, 3, 4, 5, 6, u32::MAX].map(|refusals| nonce_wait(refusals).map(|wait| wait.as_secs()));
        assert_eq!(nonces, [Some(1), Some(2), Some(4), Some(8), Some(15), None, None]);
        // No name fails more than five times in any hour.
        let fails: Vec<u64> =
            (0..20).map(|nth| (1..=nth).map(|nth| Validation.wait(nth, None)).sum()).collect();
        assert!(
            fails.iter().all(|from| fails.iter().filter(|at| (*from..from + HOUR).contains(at)).count() <= 5)
        );
    }
}
