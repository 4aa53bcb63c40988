//! `[route.files]`: a directory whose files are served.

use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use serde_json::Value as Json;

use super::document::Document;
use super::kind::{self, Boolean, List, Options, ShortForm, Show, Text};
use super::model::Config;
use super::option::options;
use super::problem::Problem;
use crate::site::fastcgi::Fastcgi;
use crate::site::files::Files;

options! {
    /// A directory whose files are served. `files = "www"` is short for a table with `directory` alone.
    struct FilesOptions: "[route.files]";

    /// The directory. Names that begin with a dot are not served (but `.well-known` is), nor are symbolic links that
    /// lead out of the directory, nor the text of PHP scripts (`fastcgi` runs them).
    directory: kind::File, required = "\"/var/www\"";
    /// The files that stand for their directory, the preferred one first.
    /// With `fastcgi`, `"index.php"` is in front of that.
    index: List<FileName>, default = vec![Files::INDEX.into()];
    /// The file that is served in place of one that isn't there: the page of an application with one page.
    fallback: FileName, optional;
    /// Whether clients that accept it get the file with `.br`, `.zst` or `.gz` behind its name, if there is one.
    precompressed: Boolean, default = false;
    /// For how long clients may use a file without asking again; `"0s"`: they have to ask each time.
    cache: kind::DurationOrZero, optional;
    /// Whether a directory without an index is listed.
    listing: Boolean, default = false;
}

impl ShortForm for FilesOptions {
    const KEY: &'static str = "directory";
}

/// The name of a file in the directory.
pub(super) struct FileName;

impl Text for FileName {
    type Value = Box<str>;

    fn words() -> String {
        "name of a file in the directory".to_owned()
    }

    fn parse(text: &str, _: &Path) -> Result<Box<str>, String> {
        Files::name(text).map(Into::into)
    }
}

impl Show for FileName {
    fn show(value: &Box<str>) -> Json {
        (&**value).into()
    }
}

/// `has_scripts`: those among the files are run.
pub(super) fn read(d: &mut Document<'_>, section: FilesOptions, has_scripts: bool) -> Option<Files> {
    let mut index = section.index.value.clone();
    if has_scripts && !section.has("index") {
        index.insert(0, Fastcgi::INDEX.into());
    }
    let directory = section.directory?;
    d.directory(directory.value.clone(), directory.place);
    Some(Files {
        index,
        fallback: section.fallback.map(|at| at.value),
        precompressed: section.precompressed.value,
        cache: section.cache.and_then(|at| cache_control(at.value)),
        listing: section.listing.value,
        ..Files::new(directory.value)
    })
}

impl Config {
    /// Directories of files that can't be read; blocks.
    pub(crate) fn missing_directories(&self) -> impl Iterator<Item = Problem> {
        self.file_directories.iter().filter_map(|(directory, place)| {
            let e = std::fs::read_dir(directory).err()?;
            let directory = directory.display();
            Some(self.problem(*place, format!("directory: {directory} can't be read: {e}")))
        })
    }
}

/// RFC 9111 §5.2.2.
fn cache_control(duration: Duration) -> Option<HeaderValue> {
    match duration.as_secs() {
        0 => Some(HeaderValue::from_static("no-cache")),
        secs => HeaderValue::try_from(format!("max-age={secs}")).ok(),
    }
}
