//! Apache's configuration as ours. Pure but for the files that [`Sources`] brings.
//!
//! `conditions` and `parse` make a tree of directives; `vhost` and `listeners` find virtual hosts and their addresses in it.
//! `paths` and `rewrite` say what is done with which paths, in Apache's order, `programs` what is no file, `sections` what else
//! holds there, `order` brings them into ours, and `route` and what it leans on write them. `known` has what is said about directives that never
//! are keys.

mod access;
mod address;
mod balancer;
mod certificates;
mod conditions;
mod context;
mod fields;
mod files;
mod guards;
mod handlers;
mod item;
mod known;
mod listen;
mod listeners;
mod order;
mod pages;
mod parse;
mod pass;
mod paths;
mod patterns;
mod programs;
mod proxy;
mod redirect;
mod requirements;
mod rewrite;
mod route;
mod scope;
mod sections;
mod top;
mod upgrades;
mod vhost;
mod whole;

use std::path::{Path, PathBuf};

use self::context::Context;
use super::book::Book;
use super::site::Site;
use super::sources::Sources;
use super::tree::SyntaxError;

/// Reads `file`, in which names are relative to `root`, if no `ServerRoot` says otherwise.
///
/// # Errors
/// What Apache wouldn't read either.
pub(super) fn read(
    sources: &mut dyn Sources,
    file: &Path,
    root: PathBuf,
) -> Result<(Site, Book), SyntaxError> {
    let parsed = parse::parse(sources, file, &root)?;
    let mut context = Context::new(&parsed, root);
    whole::translate(&mut context, &parsed.directives);
    context.undefined(&parsed.undefined);
    Ok((context.site, context.book))
}

#[cfg(test)]
mod tests;
