//! The files of a route.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;

/// A directory whose files are served.
#[derive(Debug)]
pub struct Files {
    /// The directory.
    pub directory: PathBuf,
    /// Names of the files that stand for a directory, the preferred one first.
    pub index: Vec<Box<str>>,
    /// The file that is served in place of one that isn't there, relative to the directory.
    pub fallback: Option<Box<str>>,
    /// Files with `.br`, `.zst` or `.gz` behind the name are the same in that coding.
    pub precompressed: bool,
    /// Cache-Control; `None`: no word about it.
    pub cache: Option<HeaderValue>,
    /// Directories without an index are listed.
    pub listing: bool,
    /// The directory, opened. It may be replaced by another one of the same name, so it isn't kept for long.
    pub opened: ArcSwapOption<OpenedDirectory>,
}

/// A directory, and when it was opened.
#[derive(Debug)]
pub struct OpenedDirectory {
    /// Good for looking up what is in it, and for nothing else (`O_PATH`).
    pub directory: OwnedFd,
    /// On the monotonic clock.
    pub at: Duration,
}

impl Files {
    /// A directory with the usual index, and nothing else.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            index: vec![Self::INDEX.into()],
            fallback: None,
            precompressed: false,
            cache: None,
            listing: false,
            opened: ArcSwapOption::empty(),
        }
    }

    /// The file that stands for its directory where nothing is said.
    pub const INDEX: &'static str = "index.html";

    /// Checks the name of a file in the directory, as a configuration has it, and leaves out its first slash.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn name(text: &str) -> Result<&str, String> {
        let name = text.strip_prefix('/').unwrap_or(text);
        let is_good = !name.is_empty()
            && !text.contains('\0')
            && name.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
        if is_good {
            Ok(name)
        } else {
            Err(format!(
                "expected the name of a file in the directory, such as \"index.html\", found {text:?}"
            ))
        }
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files in {}", self.directory.display())
    }
}

/// The file holds the text of a PHP script, which may have passwords in it: its name, or that of which it is a copy
/// (`config.php.bak`, `config.php~`), is that of a script.
#[must_use]
pub fn is_source(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.split(|byte| *byte == b'.').skip(1).any(|part| {
        let part = part.strip_suffix(b"~").unwrap_or(part);
        let part = part.strip_suffix(b"#").unwrap_or(part);
        match part.split_at_checked(3) {
            // Copies have names such as `config.php_old`, `config.php copy` and `config.php,v`, too.
            Some((front, rest)) if front.eq_ignore_ascii_case(b"php") => rest
                .iter()
                .find(|byte| !byte.is_ascii_digit())
                .is_none_or(|byte| !byte.is_ascii_alphanumeric()),
            _ => part.eq_ignore_ascii_case(b"phtml") || part.eq_ignore_ascii_case(b"pht"),
        }
    })
}

/// The media type by the extension of the name. Texts are UTF-8, which HTML says itself if it is not so.
#[must_use]
pub fn media_type(name: &OsStr) -> HeaderValue {
    let guess = mime_guess::from_path(name).first_raw();
    match guess {
        None => HeaderValue::from_static("application/octet-stream"),
        Some("text/html") => HeaderValue::from_static("text/html; charset=utf-8"),
        Some("text/javascript" | "application/javascript") => {
            HeaderValue::from_static("text/javascript; charset=utf-8")
        }
        Some("text/css") => HeaderValue::from_static("text/css; charset=utf-8"),
        Some(text) if text.starts_with("text/") => {
            HeaderValue::try_from(format!("{text}; charset=utf-8")).unwrap_or(HeaderValue::from_static(text))
        }
        Some(other) => HeaderValue::from_static(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_scripts() {
        let scripts =
            ["index.php", "a/b.PHP", "a.php7", "a.phtml", "config.php.bak", "config.php~", "#a.php#"];
        for name in scripts.into_iter().chain([
            "a.php.gz",
            "a.php.",
            ".php",
            "a.php_bak",
            "a.php-1",
            "a.php copy",
            "a.php,v",
        ]) {
            assert!(is_source(OsStr::new(name)), "{name}");
        }
        for name in
            ["php", "a.phps", "composer.phar", "a.php/b.css", "a.phpx", "php.css", "a.ph", "a.html", ""]
        {
            assert!(!is_source(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn media_types_by_extension() {
        for (name, expect) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/INDEX.HTM", "text/html; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.css", "text/css; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.woff2", "font/woff2"),
            ("a.webp", "image/webp"),
            ("a.pdf", "application/pdf"),
            ("a.tar.gz", "application/gzip"),
            ("a.unknown-extension", "application/octet-stream"),
            ("Makefile", "application/octet-stream"),
        ] {
            assert_eq!(media_type(OsStr::new(name)), expect, "{name}");
        }
    }
}
