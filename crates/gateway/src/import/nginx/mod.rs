//! nginx's configuration as ours. Pure but for the files that [`Sources`] brings.
//!
//! `lexer` and `parse` make a tree of directives; `http` finds listeners and servers in it, `routes` the routes of each,
//! `location` their paths and their order, and `action` and what it leans on the keys of one route. `known` has what is
//! said about directives that never are keys.

mod access;
mod action;
mod answer;
mod choice;
mod context;
mod directory;
mod fields;
mod files;
mod guards;
mod here;
mod http;
mod known;
mod lexer;
mod listen;
mod listeners;
mod location;
mod meeting;
mod order;
mod pages;
mod parse;
mod pass;
mod php;
mod proxy;
mod routes;
mod rules;
mod scope;
mod server;
mod times;
mod upstreams;
mod variables;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use self::context::{Context, Places, Upstreams};
use super::book::Book;
use super::site::Site;
use super::sources::Sources;
use super::tree::SyntaxError;

/// Reads `file`, in which names are relative to `conf` and those of files that are served to `prefix`.
///
/// # Errors
/// What nginx wouldn't read either.
pub(super) fn read(
    sources: &mut dyn Sources,
    file: &Path,
    conf: PathBuf,
    prefix: PathBuf,
) -> Result<(Site, Book), SyntaxError> {
    let parsed = parse::parse(sources, file, &conf)?;
    let mut context = Context {
        book: Book::new(parsed.count),
        site: Site::default(),
        upstreams: Upstreams::default(),
        zones: HashMap::new(),
        places: Places { conf, prefix },
        unread: parsed.unread.into_iter().collect(),
    };
    http::translate(&mut context, &parsed.directives);
    Ok((context.site, context.book))
}

#[cfg(test)]
mod tests;
