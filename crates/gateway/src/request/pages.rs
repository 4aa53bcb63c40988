//! Error pages in place of answers of the gateway, and of servers where the route wants that.

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED, TRAILER,
};
use http::{Response, StatusCode};
use upgrade_handler::fields::elements;

use crate::request::body::AnswerBody;
use crate::site::extras::ErrorPages;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The client accepts JSON and no page (RFC 9110 §12.5.1): it is a program.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    // It is asked for each request. Comparing a few names costs less than a look-up, and most values begin so.
    let accepts_pages = |value: &HeaderValue| value == "*/*" || value.as_bytes().starts_with(b"text/html,");
    let mut fields = headers.iter().filter(|(name, _)| **name == ACCEPT);
    if fields.next().is_none_or(|(_, value)| accepts_pages(value)) {
        return false;
    }
    let mut json = false;
    for element in elements(headers, ACCEPT) {
        let mut parts = element.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_refused = parts.any(|part| {
            let weight = part.strip_prefix(['q', 'Q']).and_then(|rest| rest.strip_prefix('='));
            weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32))
        });
        match &*range {
            _ if is_refused => {}
            "text/html" | "application/xhtml+xml" | "text/*" | "*/*" => return false,
            "application/json" | "application/*" => json = true,
            other => json |= other.ends_with("+json"),
        }
    }
    json
}

/// What a program is told of an error.
pub(super) fn json(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or("Unknown");
    format!("{{\"status\":{},\"error\":\"{reason}\"}}\n", status.as_u16())
}

/// Puts a page in place of an answer with an error's status. `explained`: the answer says already what the configuration
/// wants it to.
pub(super) fn replace(
    pages: &ErrorPages,
    wants_json: bool,
    explained: bool,
    answer: &mut Response<AnswerBody>,
) {
    let status = answer.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_ours = !answer.body().is_of_backend();
    let page = pages.pages.get(&status.as_u16());
    if !is_error || explained || (!is_ours && (!pages.intercept || page.is_none())) {
        return;
    }
    let (body, content_type) = if wants_json {
        (json(status).into(), JSON)
    } else if let Some(page) = page {
        (page.body.clone(), page.content_type.clone())
    } else {
        return;
    };
    let headers = answer.headers_mut();
    for name in [
        CONTENT_DISPOSITION,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_LENGTH,
        ETAG,
        LAST_MODIFIED,
        TRAILER,
    ] {
        headers.remove(name);
    }
    if is_ours {
        headers.remove(CACHE_CONTROL); // that of a file that was asked for
    }
    headers.insert(CONTENT_TYPE, content_type);
    *answer.body_mut() = AnswerBody::whole(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_json() {
        for (accept, expect) in [
            ("application/json", true),
            ("application/json, text/plain;q=0.5", true),
            ("application/problem+json", true),
            ("APPLICATION/JSON;q=0.9", true),
            ("application/json, text/html;q=0", true),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
            ("application/json, */*;q=0.1", false),
            ("application/json, text/html", false),
            ("application/json;q=0", false),
            ("*/*", false),
            ("text/plain", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(wants_json(&headers), expect, "{accept}");
        }
        assert!(!wants_json(&HeaderMap::new()));
    }
}
