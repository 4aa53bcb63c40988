//! Fields of a head.

use http::header::{HeaderMap, HeaderName};

/// Removes the fields whose names are such.
pub(crate) fn remove_where(headers: &mut HeaderMap, is: impl Fn(&HeaderName) -> bool) {
    let found: Vec<_> = headers.keys().filter(|name| is(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}
