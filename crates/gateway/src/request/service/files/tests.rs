//! The corpora of the fuzz targets for paths, ranges and fields, replayed.

use std::fs;
use std::path::Path;

#[path = "../../../../fuzz/relations/fields.rs"]
mod fields;
#[path = "../../../../fuzz/relations/paths.rs"]
mod paths;
#[path = "../../../../fuzz/relations/ranges.rs"]
mod ranges;

use super::conditions::{Validators, Verdict, judge};
use super::name::parse;
use super::ranges::{Multipart, Selection, content_range, select};
use crate::request::coding::{Coding, accepted};
use crate::site::answer::local;
use crate::site::endpoint::Endpoint;
use crate::site::host::Host;
use crate::site::path::{RequestPath, RoutePath};
use crate::upstream::forward::{self, Hop, address_field};

#[test]
fn the_corpora() {
    for (name, relation) in
        [("paths", paths::paths as fn(&[u8])), ("ranges", ranges::ranges), ("fields", fields::fields)]
    {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut count = 0;
        for entry in fs::read_dir(directory).unwrap() {
            relation(&fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 20, "{name}: {count}");
    }
}
