//! A test in namespaces of its own: there it may mount and set limits without effect on other tests.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Holds the path of a directory, for `prepare` to mount something on.
const PLACE: &str = "WSSGATE_TEST_PLACE";

/// Runs the calling test again, as a process of its own in what one of `ways` (arguments of `unshare`)
/// makes, after `prepare`, shell commands that may use `$WSSGATE_TEST_PLACE`, a directory.
///
/// Returns that directory there, where the test goes on; here `None`, as it is over. A machine that
/// makes no such namespaces (a container's own rules) says so.
///
/// # Panics
/// If the test failed there.
#[must_use]
pub fn apart(test: &str, ways: &[&[&str]], prepare: &str) -> Option<PathBuf> {
    if let Some(place) = env::var_os(PLACE) {
        return Some(place.into());
    }
    let place = TempDir::new().unwrap();
    let prepared = |way: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(way).args(["sh", "-c", &format!("{prepare} && exec \"$0\" \"$@\"")]);
        unshare.env(PLACE, place.path());
        unshare
    };
    let may = |way: &&&[&str]| {
        let probe = prepared(way).arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let Some(way) = ways.iter().find(may) else {
        eprintln!("{test} has not run: this machine allows no `unshare`, or no `{prepare}` in it");
        return None;
    };
    let output = prepared(way).arg(env::current_exe().unwrap()).args(["--exact", test]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // A test that goes by another name would not fail, either.
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{test} in namespaces of its own, {}:\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    None
}
