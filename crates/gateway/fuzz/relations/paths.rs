//! What must hold for the path of any request. Shared by the fuzz target and the unit tests.

use std::os::unix::ffi::OsStrExt;

use super::{RequestPath, RoutePath, local, parse};

/// The bytes are the path of a request, which is looked for below `/` and below `/a`.
pub(crate) fn paths(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    // Others are no targets: http::Uri has taken them apart, or refused them.
    if !path.starts_with('/') || path.contains(['?', '#']) || path.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return;
    }
    let target = local(path.to_owned());
    assert!(
        target.starts_with('/') && !target[1..].starts_with(['/', '\\']),
        "{target:?} leads to another host"
    );
    let checked = RequestPath::parse(path);
    if let Some(name) = parse(path) {
        assert!(checked.is_ok(), "{path:?} has dot segments and names a file");
        is_inside(name.path.as_bytes(), path);
    }
    let Ok(checked) = checked else { return };
    let again = RequestPath::parse(checked.as_str());
    assert_eq!(
        again.as_ref().map(RequestPath::as_str),
        Ok(checked.as_str()),
        "what is compared has one spelling"
    );
    let route = RoutePath::parse("/a").unwrap_or_else(|_| RoutePath::root());
    if let Some(compared) = route.strip(checked.as_str()) {
        let rest = route.rest_of(path);
        assert!(path.ends_with(rest) && (rest.is_empty() || rest.starts_with('/')), "{path:?}: {rest:?}");
        assert_eq!(
            rest.is_empty(),
            compared.is_empty(),
            "{path:?} has the same segments in front as it was sent"
        );
        if let Some(name) = parse(rest) {
            is_inside(name.path.as_bytes(), path);
        }
    }
}

/// The name of a file leads nowhere but into its directory.
fn is_inside(name: &[u8], path: &str) {
    assert!(name.len() < 4096, "{path:?}: too long for the system");
    assert!(!name.iter().any(u8::is_ascii_control) && !name.contains(&b'\\'), "{path:?}");
    let mut segments = name.split(|byte| *byte == b'/');
    let is_visible = |segment: &[u8]| segment == b".well-known" || !segment.is_empty() && segment[0] != b'.';
    assert!(name.is_empty() || segments.all(is_visible), "{path:?}");
}
