//! When a certificate's end is near enough to say so. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::cert_set::CertSet;
use crate::certificate::{Certificate, CertificateSource};
use crate::load::{first_file, names};

const DAY_SECS: i64 = 24 * 60 * 60;
/// Once at each of these.
const DAYS_BEFORE: [i64; 5] = [30, 14, 7, 3, 1];

/// How near a certificate's end is. What comes later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExpiryLevel {
    /// So many days are left at most: 30, 14, 7, 3 or 1.
    Within(Reverse<i64>),
    /// It has expired, so many whole days ago.
    Expired(i64),
}

/// The stage of a certificate that is good until `not_after`; both in seconds since 1970. `None`: there
/// is time.
#[must_use]
pub(crate) fn stage(not_after: i64, now: i64) -> Option<ExpiryLevel> {
    let left = not_after.saturating_sub(now);
    if left < 0 {
        return Some(ExpiryLevel::Expired(-left / DAY_SECS));
    }
    let within = DAYS_BEFORE.into_iter().rev().find(|days| left <= days * DAY_SECS);
    within.map(|days| ExpiryLevel::Within(Reverse(days)))
}

/// A certificate that has come to a stage.
#[derive(Debug, Clone)]
pub struct Expiry {
    /// Which.
    pub certificate: Arc<Certificate>,
    /// Where it stands.
    pub stage: ExpiryLevel,
    /// Whole days that are left, rounded down; negative when it has expired.
    pub days_left: i64,
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, names) = (first_file(&self.certificate), names(&self.certificate));
        write!(f, "{file}: the certificate of {names} ")?;
        match (self.stage, self.days_left) {
            (ExpiryLevel::Expired(0), _) => f.write_str("HAS EXPIRED today; it is still served"),
            (ExpiryLevel::Expired(1), _) => f.write_str("HAS EXPIRED a day ago; it is still served"),
            (ExpiryLevel::Expired(days), _) => {
                write!(f, "HAS EXPIRED {days} days ago; it is still served")
            }
            (ExpiryLevel::Within(_), 0) => f.write_str("expires in less than a day"),
            (ExpiryLevel::Within(_), 1) => f.write_str("expires in a day"),
            (ExpiryLevel::Within(_), days) => write!(f, "expires in {days} days"),
        }
    }
}

/// What was said already: each stage of a certificate is news once.
#[derive(Debug, Default)]
pub struct Expiries {
    /// By the certificate itself.
    said: HashMap<Box<[u8]>, ExpiryLevel>,
}

impl Expiries {
    /// The served certificates that have come to another stage since the last call, in the order in
    /// which they expire.
    pub fn news(&mut self, set: &CertSet, now: i64) -> Vec<Expiry> {
        let before = std::mem::take(&mut self.said);
        let mut news = Vec::new();
        for certificate in set.served() {
            let Some(stage) = stage(certificate.leaf.not_after, now) else { continue };
            // Who orders it renews it in time, or says why not.
            if certificate.origin == CertificateSource::Awaited && matches!(stage, ExpiryLevel::Within(_)) {
                continue;
            }
            let last = before.get(certificate.der());
            // A clock that is put back doesn't make a stage news again.
            let stage = last.map_or(stage, |last| stage.max(*last));
            if last != Some(&stage) {
                let days_left = certificate.leaf.days_left(now);
                news.push(Expiry { certificate: certificate.clone(), stage, days_left });
            }
            self.said.insert(certificate.der().into(), stage);
        }
        news.sort_by_key(|expiry| expiry.certificate.leaf.not_after);
        news
    }
}

#[cfg(test)]
mod tests {
    use net_io::unix_now;
    use support::pki::{Order, Pki};

    use super::*;
    use crate::load::{Plan, load};

    #[test]
    fn stages() {
        let day = DAY_SECS;
        for (left, expect) in [
            (365 * day, None),
            (30 * day + 1, None),
            (30 * day, Some(ExpiryLevel::Within(Reverse(30)))),
            (14 * day + 1, Some(ExpiryLevel::Within(Reverse(30)))),
            (14 * day, Some(ExpiryLevel::Within(Reverse(14)))),
            (7 * day, Some(ExpiryLevel::Within(Reverse(7)))),
            (4 * day, Some(ExpiryLevel::Within(Reverse(7)))),
            (3 * day, Some(ExpiryLevel::Within(Reverse(3)))),
            (day, Some(ExpiryLevel::Within(Reverse(1)))),
            (0, Some(ExpiryLevel::Within(Reverse(1)))),
            (-1, Some(ExpiryLevel::Expired(0))),
            (-day, Some(ExpiryLevel::Expired(1))),
            (-100 * day, Some(ExpiryLevel::Expired(100))),
        ] {
            assert_eq!(stage(1_900_000_000, 1_900_000_000 - left), expect, "{left}");
        }
        let mut all: Vec<_> = (-3 * day..=31 * day).rev().step_by(3600).map(|left| stage(left, 0)).collect();
        assert!(all.is_sorted(), "stages only grow");
        all.dedup();
        assert_eq!(all.len(), 1 + 5 + 4);
    }

    #[test]
    fn each_stage_is_reported_once_and_an_expired_one_daily() {
        let directory = tempfile::TempDir::new().unwrap();
        let pki = Pki::new();
        pki.issue_as(&Order { until_days: 40, ..Order::new(&["a.test"]) }).write(directory.path(), "a");
        pki.issue_as(&Order { until_days: 20, ..Order::new(&["b.test"]) }).write(directory.path(), "b");
        pki.issue_as(&Order { from_days: -9, until_days: 1, ..Order::new(&["b.test"]) })
            .write(directory.path(), "not-served");
        let set = load(&Plan::directory(directory.path()), None).unwrap().set;
        let start = unix_now() + 60; // whole days are not whole any more
        let mut expiries = Expiries::default();
        let mut said = Vec::new();
        for hour in 0..24 * 43 {
            for expiry in expiries.news(&set, start + hour * 3600) {
                let text = expiry.to_string();
                said.push((hour / 24, text.split("certificate of ").nth(1).unwrap().to_owned()));
            }
        }
        let a: Vec<_> = said.iter().filter(|(_, text)| text.starts_with("a.test")).collect();
        let days: Vec<_> = a.iter().map(|(day, _)| *day).collect();
        assert_eq!(days, [10, 26, 33, 37, 39, 40, 41, 42]);
        assert_eq!(a[0].1, "a.test expires in 29 days");
        assert_eq!(a[4].1, "a.test expires in less than a day");
        assert_eq!(a[5].1, "a.test HAS EXPIRED today; it is still served");
        assert_eq!(a[7].1, "a.test HAS EXPIRED 2 days ago; it is still served");
        // At once for one that is there already; and nothing for one that isn't served.
        assert_eq!(said[0], (0, "b.test expires in 19 days".to_owned()));
        // For a renewed certificate it begins again.
        pki.issue_as(&Order { until_days: 5, ..Order::new(&["a.test"]) }).write(directory.path(), "a");
        let set = load(&Plan::directory(directory.path()), None).unwrap().set;
        assert_eq!(expiries.news(&set, start).len(), 1);
        assert_eq!(expiries.news(&set, start).len(), 0);
    }
}
