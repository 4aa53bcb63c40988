//! The files with users that `[route.access.basic]` names, which are read after the configuration.

use std::io;
use std::path::Path;

use super::Config;
use super::file;
use super::problem::Problem;
use crate::site::htpasswd::Htpasswd;

/// Files are kept in memory. In bytes.
const FILE_LEN_MAX: u64 = 4 << 20;

/// Reads the files of all routes, each once. Returns what is wrong.
#[must_use]
pub fn prepare(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for route in &config.routes {
        let auth = route.access.as_ref().and_then(|access| access.auth.as_ref());
        let Some(basic) = auth.and_then(|auth| auth.basic.as_ref()) else { continue };
        let file = basic.users.path.display();
        let mut problem = |what: String| {
            problems.push(config.problem(basic.users.written_at, format!("file: {file}: {what}")));
        };
        match read(&basic.users.path) {
            Ok((text, is_open)) => match Htpasswd::parse(&text) {
                Ok(users) if users.is_empty() => problem("there are no users in it".to_owned()),
                Ok(users) => basic.users.prepare(users, is_open),
                Err(bad) => bad.iter().take(10).for_each(|line| problem(line.to_string())),
            },
            Err(e) => problem(format!("it can't be read: {e}")),
        }
    }
    problems
}

/// The text, and whether every user of the machine can read it.
fn read(path: &Path) -> io::Result<(String, bool)> {
    let content = file::read(path, FILE_LEN_MAX)?;
    let bytes = content.bytes.ok_or_else(|| io::Error::other("it is longer than 4 MiB"))?;
    let text =
        String::from_utf8(bytes).map_err(|_| io::Error::other("stream did not contain valid UTF-8"))?;
    Ok((text, content.is_open))
}
