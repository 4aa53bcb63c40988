//! Which answers are compressed, and in which coding (RFC 9110 §8.4.1, §12.5.3).
//!
//! Never: parts of a file, what has a coding, what `no-transform` forbids (RFC 9110 §7.7), answers without a body.

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, Entry,
    HeaderMap, HeaderValue, VARY,
};
use http::{Method, Response, StatusCode};
use upgrade_handler::fields::has_token;

use crate::request::body::AnswerBody;
use crate::request::coded::{CodedBody, Reserved};
use crate::request::coding::{Coding, accepted};
use crate::site::extras::Compress;

/// What a client accepts of what is made here.
pub(super) fn wanted(headers: &HeaderMap, method: &Method) -> Option<Coding> {
    if *method == Method::HEAD { None } else { accepted(headers, [Coding::Zstd, Coding::Gzip]).next() }
}

/// Compresses an answer, if it may be and is worth it.
pub(super) fn compress(settings: &Compress, wanted: Option<Coding>, answer: &mut Response<AnswerBody>) {
    if !may_be(settings, answer) {
        return;
    }
    // A client that asks with other fields gets another answer (RFC 9110 §12.5.5).
    answer.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
    let Some(coding) = wanted else { return };
    let Some(reserved) = Reserved::new(coding) else { return };
    let body = std::mem::replace(answer.body_mut(), AnswerBody::whole(""));
    *answer.body_mut() = AnswerBody::Coded(Box::new(CodedBody::new(reserved, body)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    if let Entry::Occupied(mut etag) = headers.entry(ETAG)
        && !etag.get().as_bytes().starts_with(b"W/")
    {
        // The bytes differ, and the meaning does not (RFC 9110 §8.8.1).
        let weak = HeaderValue::from_bytes(&[b"W/", etag.get().as_bytes()].concat());
        if let Ok(weak) = weak {
            etag.insert(weak);
        }
    }
}

fn may_be(settings: &Compress, answer: &Response<AnswerBody>) -> bool {
    let headers = answer.headers();
    let has_body = !matches!(
        answer.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT
    );
    let len = answer.body().size_hint().exact();
    has_body
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && !has_token(headers, CACHE_CONTROL, "no-transform")
        && len.is_none_or(|len| len >= settings.min_length)
        && headers.get(CONTENT_TYPE).is_some_and(|content_type| is_listed(settings, content_type))
}

fn is_listed(settings: &Compress, content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim();
    settings.types.iter().any(|listed| match listed.strip_suffix("/*") {
        Some(kind) => essence.split('/').next().is_some_and(|other| other.eq_ignore_ascii_case(kind)),
        None => essence.eq_ignore_ascii_case(listed),
    })
}
