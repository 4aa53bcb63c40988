//! From the path of a request to the name of a file. Pure.
//!
//! In: the path behind the route's, as it was sent. Out: a name relative to the directory of the files.
//! Refused: `.` and `..`, names that begin with a dot (but `.well-known`, RFC 8615), slashes, backslashes and control
//! characters in a name, in every encoding; broken percent-encoding; empty segments.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// The longest name that the system takes (`PATH_MAX`), with its end.
const NAME_LEN_MAX: usize = 4095;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Relative to the directory; empty for the directory itself.
    pub path: OsString,
    /// A slash stood at the end.
    pub is_directory: bool,
}

/// Reads the path behind the route's: empty, or with a slash in front. `None` if no file can have it.
pub(super) fn parse(rest: &str) -> Option<Name> {
    let Some(rest) = rest.strip_prefix('/') else {
        return rest.is_empty().then(|| Name { path: OsString::new(), is_directory: false });
    };
    let (names, is_directory) = match rest.strip_suffix('/') {
        Some(names) => (names, true),
        None => (rest, rest.is_empty()),
    };
    let mut path = Vec::with_capacity(names.len());
    if !rest.is_empty() {
        for segment in names.split('/') {
            if !path.is_empty() {
                path.push(b'/');
            }
            let begins = path.len();
            decode(segment, &mut path)?;
            let name = &path[begins..];
            if name.is_empty() || (name[0] == b'.' && name != b".well-known") {
                return None;
            }
        }
    }
    (path.len() <= NAME_LEN_MAX).then(|| Name { path: OsString::from_vec(path), is_directory })
}

/// Decodes one segment; `None` if a file can't be called so.
fn decode(segment: &str, into: &mut Vec<u8>) -> Option<()> {
    let mut rest = segment.as_bytes();
    while let [first, behind @ ..] = rest {
        let byte = if *first == b'%' {
            let (hex, further) = behind.split_at_checked(2)?;
            rest = further;
            let hex = str::from_utf8(hex).ok().filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u8::from_str_radix(hex, 16).ok()?
        } else {
            rest = behind;
            *first
        };
        if byte.is_ascii_control() || matches!(byte, b'/' | b'\\') {
            return None;
        }
        into.push(byte);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_files() {
        for (rest, path, is_directory) in [
            ("", "", false),
            ("/", "", true),
            ("/a", "a", false),
            ("/a/b.html", "a/b.html", false),
            ("/a/b/", "a/b", true),
            ("/a%20b", "a b", false),
            ("/%61", "a", false),
            ("/caf%C3%A9", "caf\u{e9}", false),
            ("/100%25", "100%", false),
            ("/.well-known/acme-challenge/x", ".well-known/acme-challenge/x", false),
            ("/a..b/c.", "a..b/c.", false),
            ("/a;b=c/d?", "a;b=c/d?", false),
            ("/%252e%252e/x", "%2e%2e/x", false),
        ] {
            let name = Name { path: path.into(), is_directory };
            assert_eq!(parse(rest), Some(name), "{rest}");
        }
        assert_eq!(parse("/%ff").unwrap().path, OsStr::from_bytes(b"\xff"));
    }

    #[test]
    fn what_no_file_can_be_called() {
        for rest in [
            "/..",
            "/../etc/passwd",
            "/a/../b",
            "/a/..",
            "/.",
            "/a/./b",
            "/%2e%2e/etc/passwd",
            "/.%2e/x",
            "/%2E/x",
            "/..%2fetc",
            "/a%2f..%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/..\\etc",
            "/%00",
            "/a%00.html",
            "/a%0ab",
            "/a%7f",
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.git",
            "/.git/config",
            "/a/.env",
            "/%2eenv",
            "/.well-known-not",
            "/.well-known/.git",
            "/...",
            "/..;/x",
            "x",
            "/\u{1}",
        ] {
            assert_eq!(parse(rest), None, "{rest}");
        }
        assert!(parse(&format!("/{}", "a".repeat(4095))).is_some());
        assert!(parse(&format!("/{}", "a".repeat(4096))).is_none());
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_its_directory(rest in "(/|%2[fFeE5]|%5[cC]|%00|\\.|\\\\|;|a|%c0%ae){0,12}") {
            if let Some(name) = parse(&format!("/{rest}")) {
                let path = name.path.as_bytes();
                prop_assert!(!path.starts_with(b"/") && !path.contains(&0), "{:?}", name);
                let segments = path.split(|byte| *byte == b'/');
                prop_assert!(segments.into_iter().all(|segment| !segment.starts_with(b".")), "{:?}", name);
            }
        }
    }
}
