//! Conditional requests (RFC 9110 §13). Pure.

use std::time::{Duration, SystemTime};

use http::header::{
    HeaderMap, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use upgrade_handler::fields::elements;

/// By what a client knows whether its copy is still good.
#[derive(Debug, Clone)]
pub(super) struct Validators {
    /// Strong: other bytes have another one (RFC 9110 §8.8.1).
    pub etag: HeaderValue,
    /// In whole seconds.
    pub modified: SystemTime,
}

/// What the conditions of a request come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is served; a Range is not for this version of the file, if there is one.
    Whole,
    /// It is served, and so is a Range.
    WithRange,
    /// The client's copy is good: 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the conditions of a GET or a HEAD in the order of RFC 9110 §13.2.2.
pub(super) fn judge(headers: &HeaderMap, ours: &Validators, now: SystemTime) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !lists(headers, IF_MATCH, &ours.etag, Comparison::Strong) {
            return Verdict::Failed; // 1
        }
    } else if let Some(since) = date(headers, IF_UNMODIFIED_SINCE)
        && ours.modified > since
    {
        return Verdict::Failed; // 2
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if lists(headers, IF_NONE_MATCH, &ours.etag, Comparison::Weak) {
            return Verdict::NotModified; // 3
        }
    } else if let Some(since) = date(headers, IF_MODIFIED_SINCE)
        && ours.modified <= since
    {
        return Verdict::NotModified; // 4
    }
    match headers.get(IF_RANGE) {
        Some(condition) if !is_same_version(condition, ours, now) => Verdict::Whole, // 5
        _ => Verdict::WithRange,
    }
}

/// How entity tags are compared (RFC 9110 §8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn lists(headers: &HeaderMap, name: http::HeaderName, etag: &HeaderValue, comparison: Comparison) -> bool {
    elements(headers, name).any(|tag| {
        let opaque = match comparison {
            Comparison::Weak => tag.strip_prefix("W/").unwrap_or(tag),
            Comparison::Strong => tag,
        };
        opaque == "*" || opaque.as_bytes() == etag.as_bytes()
    })
}

/// If-Range has either an entity tag or a date (RFC 9110 §13.1.5); both have to be strong.
fn is_same_version(condition: &HeaderValue, ours: &Validators, now: SystemTime) -> bool {
    let Ok(text) = condition.to_str() else { return false };
    if text.contains('"') {
        return condition == ours.etag;
    }
    // §8.8.2.2: within one second there could be two versions of the same date.
    let is_strong = ours.modified + Duration::from_secs(1) < now;
    is_strong && httpdate::parse_http_date(text).is_ok_and(|date| date == ours.modified)
}

/// The date in a field. One that is no date doesn't count (RFC 9110 §13.1.3, §13.1.4), nor do two.
fn date(headers: &HeaderMap, name: http::HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn judged(fields: &[(http::HeaderName, &'static str)], age: Duration) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_static(value));
        }
        let modified = httpdate::parse_http_date(MODIFIED).unwrap();
        let ours = Validators { etag: HeaderValue::from_static("\"a,b\""), modified };
        judge(&headers, &ours, modified + age)
    }

    #[test]
    fn one_condition() {
        for (name, value, verdict) in [
            (IF_MATCH, "\"a,b\"", Verdict::WithRange),
            (IF_MATCH, "\"x\", \"a,b\"", Verdict::WithRange),
            (IF_MATCH, "*", Verdict::WithRange),
            (IF_MATCH, "W/\"a,b\"", Verdict::Failed),
            (IF_MATCH, "\"a\"", Verdict::Failed),
            (IF_UNMODIFIED_SINCE, BEFORE, Verdict::Failed),
            (IF_UNMODIFIED_SINCE, MODIFIED, Verdict::WithRange),
            (IF_UNMODIFIED_SINCE, "yesterday", Verdict::WithRange),
            (IF_NONE_MATCH, "\"a,b\"", Verdict::NotModified),
            (IF_NONE_MATCH, "W/\"a,b\"", Verdict::NotModified),
            (IF_NONE_MATCH, "W/\"x\", \"y\",\"a,b\"", Verdict::NotModified),
            (IF_NONE_MATCH, "*", Verdict::NotModified),
            (IF_NONE_MATCH, "\"a\", \"b\"", Verdict::WithRange),
            (IF_MODIFIED_SINCE, BEFORE, Verdict::WithRange),
            (IF_MODIFIED_SINCE, MODIFIED, Verdict::NotModified),
            (IF_MODIFIED_SINCE, AFTER, Verdict::NotModified),
            (IF_MODIFIED_SINCE, "Sunday, 06-Nov-94 08:49:37 GMT", Verdict::NotModified),
            (IF_MODIFIED_SINCE, "soon", Verdict::WithRange),
            (IF_RANGE, "\"a,b\"", Verdict::WithRange),
            (IF_RANGE, "W/\"a,b\"", Verdict::Whole),
            (IF_RANGE, "\"x\"", Verdict::Whole),
            (IF_RANGE, MODIFIED, Verdict::WithRange),
            (IF_RANGE, BEFORE, Verdict::Whole),
            (IF_RANGE, AFTER, Verdict::Whole),
            (IF_RANGE, "", Verdict::Whole),
        ] {
            assert_eq!(judged(&[(name.clone(), value)], Duration::from_secs(60)), verdict, "{name}: {value}");
        }
        assert_eq!(judged(&[(IF_RANGE, MODIFIED)], Duration::ZERO), Verdict::Whole, "the date is weak yet");
        assert_eq!(judged(&[], Duration::ZERO), Verdict::WithRange);
    }

    #[test]
    fn several_conditions_in_their_order() {
        for (fields, verdict) in [
            // A date counts only where there is no tag.
            (&[(IF_MATCH, "\"a,b\""), (IF_UNMODIFIED_SINCE, BEFORE)][..], Verdict::WithRange),
            (&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, MODIFIED)], Verdict::WithRange),
            (&[(IF_NONE_MATCH, "\"a,b\""), (IF_MODIFIED_SINCE, BEFORE)], Verdict::NotModified),
            // What fails first counts.
            (&[(IF_MATCH, "\"x\""), (IF_NONE_MATCH, "\"a,b\"")], Verdict::Failed),
            (&[(IF_UNMODIFIED_SINCE, BEFORE), (IF_NONE_MATCH, "\"a,b\"")], Verdict::Failed),
            (&[(IF_NONE_MATCH, "\"a,b\""), (IF_RANGE, "\"x\"")], Verdict::NotModified),
            (&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"a,b\"")], Verdict::NotModified),
            (&[(IF_MODIFIED_SINCE, MODIFIED), (IF_MODIFIED_SINCE, MODIFIED)], Verdict::WithRange),
        ] {
            assert_eq!(judged(fields, Duration::from_secs(60)), verdict, "{fields:?}");
        }
    }
}
