//! A directory without an index, as a page.

use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, statat};

/// Names that are shown: a page of more would not be read.
const NAMES_MAX: usize = 10_000;

/// Reads a directory; blocks. Names that begin with a dot are left out, as they are not served.
///
/// # Errors
/// Those of the system.
pub(super) fn page(directory: &OwnedFd) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.starts_with('.') || name.bytes().any(|byte| byte.is_ascii_control() || byte == b'\\') {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Symlink | FileType::Unknown => {
                match statat(directory, entry.file_name(), AtFlags::empty()) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(_) => continue,
                }
            }
            kind => kind,
        };
        match kind {
            FileType::Directory => names.push(format!("{name}/")),
            FileType::RegularFile => names.push(name.to_owned()),
            _ => {}
        }
        if names.len() == NAMES_MAX {
            break;
        }
    }
    names.sort_unstable();
    Ok(show(&names))
}

fn show(names: &[String]) -> String {
    let mut page = "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
                    <title>Files</title>\n<ul>\n<li><a href=\"../\">../</a>\n"
        .to_owned();
    for name in names {
        // "./" keeps a name with a colon from being a scheme (RFC 3986 §4.2).
        let _ = writeln!(page, "<li><a href=\"./{}\">{}</a>", encoded(name), escaped(name));
    }
    page.push_str("</ul>\n");
    page
}

/// As a path in a URL (RFC 3986 §3.3).
fn encoded(name: &str) -> String {
    let mut url = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let page = show(&["a<script>\"&".to_owned(), "javascript:x/".to_owned(), "\u{fc}%".to_owned()]);
        assert!(page.contains("<a href=\"./a%3Cscript%3E%22%26\">a&lt;script&gt;&quot;&amp;</a>"), "{page}");
        assert!(page.contains("<a href=\"./javascript%3Ax/\">javascript:x/</a>"), "{page}");
        assert!(page.contains("<a href=\"./%C3%BC%25\">\u{fc}%</a>"), "{page}");
    }

    #[test]
    fn what_is_not_served_is_not_shown() {
        let directory = tempfile::TempDir::new().unwrap();
        for name in ["b", "a", ".hidden", "a\\b"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::os::unix::fs::symlink("nothing", directory.path().join("broken")).unwrap();
        let opened = OwnedFd::from(std::fs::File::open(directory.path()).unwrap());
        let page = page(&opened).unwrap();
        let shown: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("<li><a href=\"")).collect();
        let shown: Vec<_> = shown.iter().map(|line| line.split('"').next().unwrap()).collect();
        assert_eq!(shown, ["../", "./a", "./b", "./d/"]);
    }
}
