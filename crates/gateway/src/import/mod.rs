//! `wssgate import`: the configuration of another server as ours.
//!
//! In: its files. Out: TOML in which each of its directives is a key, or a comment that says what the gateway does in its
//! place or what it means that there is nothing, each with its file and line; and a list of what has to be looked at.
//! Nothing is left out in silence, and nothing is guessed.
//!
//! `sources` and `disk` bring files, `tree` is what they say; `nginx` and `apache` translate it. `hosts` knows which requests come to a
//! virtual host, `site` and `sheet` are what comes out, and `book` knows what became of each directive.

mod apache;
mod book;
mod disk;
mod hosts;
mod known;
mod lookahead;
mod nginx;
mod paths;
mod pattern;
mod pieces;
mod sheet;
mod site;
mod sources;
mod spelling;
mod tree;

use std::fmt::Write;
use std::path::{Path, PathBuf};

pub use self::book::Counts;
use self::disk::Disk;
use crate::config::Config;

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Origin {
    /// nginx
    Nginx,
    /// Apache HTTP Server
    Apache,
}

impl Origin {
    /// Where the file usually is.
    #[must_use]
    pub fn usual_file(self) -> &'static Path {
        Path::new(match self {
            Self::Nginx => "/etc/nginx/nginx.conf",
            Self::Apache => "/etc/apache2/apache2.conf",
        })
    }
}

/// What an import has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The configuration.
    pub toml: String,
    /// What has to be looked at, as `file:line: what`.
    pub remarks: Vec<String>,
    /// What became of the directives.
    pub counts: Counts,
    /// What `wssgate check` would refuse of it, as `line: what`, line of the new file.
    pub problems: Vec<String>,
}

impl Imported {
    /// Writes the configuration to a file that isn't there yet; blocks.
    ///
    /// # Errors
    /// It is there, or can't be written.
    pub fn write(&self, file: &Path) -> Result<(), ImportError> {
        let error = |e| ImportError(format!("{} can't be written: {e}", file.display()));
        disk::write(file, &self.toml).map_err(error)
    }

    /// What is said beside the configuration: a line for each thing that needs a look, and one with the numbers.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = String::new();
        for remark in &self.remarks {
            let _ = writeln!(text, "{remark}");
        }
        let Counts { directives, keys, by_itself, commented } = self.counts;
        let _ = writeln!(
            text,
            "{directives} directives: {keys} are keys, {by_itself} say what the gateway does by itself, {commented} have \
             no counterpart; the comments in the file say what that means"
        );
        for problem in &self.problems {
            let _ = writeln!(text, "to correct in the new file, line {problem}");
        }
        text
    }
}

/// Why nothing could be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ImportError(String);

/// Reads `file` and what it includes; blocks. `prefix` is where names of served files begin, if they don't begin with a
/// slash; without it, where the file is. Nothing but configurations is read: neither certificates nor what is served.
///
/// # Errors
/// The file can't be read, or its own server would refuse it, too.
pub fn import(origin: Origin, file: &Path, prefix: Option<&Path>) -> Result<Imported, ImportError> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let unreadable = |e| ImportError(format!("{}: {e}", directory.display()));
    // The configuration may be written to another place.
    let directory = directory.canonicalize().map_err(unreadable)?;
    let prefix = prefix.map_or_else(|| directory.clone(), Path::to_owned);
    let file = &directory.join(file.file_name().unwrap_or_default());
    let mut disk = Disk::new();
    let read = match origin {
        Origin::Nginx => nginx::read(&mut disk, file, directory, prefix),
        Origin::Apache => apache::read(&mut disk, file, prefix),
    };
    let (mut site, book) = read.map_err(|e| ImportError(e.to_string()))?;
    let mut head = sheet::Section::default();
    head.comment(format!(
        "Made of {} by `wssgate import`. Comments name the lines that they are about.",
        file.display()
    ));
    head.append(std::mem::take(&mut site.head));
    site.head = head;
    let toml = site.text();
    let counts = book.counts();
    let remarks = book.into_remarks().into_iter().map(|remark| format!("{}: {}", remark.at, remark.what));
    let (_, problems) = Config::parse(&PathBuf::from("wssgate.toml"), &toml);
    let problems = problems.into_iter().map(|problem| format!("{}: {}", problem.place.line, problem.what));
    Ok(Imported { remarks: remarks.collect(), problems: problems.collect(), counts, toml })
}
