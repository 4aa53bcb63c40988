//! Where a location's files are, by `root`, `alias` and `try_files`.

use super::context::Context;
use super::here::Here;
use super::location::Base;
use super::variables::{Use, template};
use crate::import::tree::Directive;

/// The directory of a location's files, where the names in it are those behind the route's path.
pub(super) fn directory<'a>(context: &Context<'a>, here: &Here<'a, '_>) -> Option<(String, &'a Directive)> {
    let constant = |text: &str| template(text, &here.facts, Use::Constant).ok();
    let bare = |path: &str| path.strip_suffix('/').filter(|bare| !bare.is_empty()).unwrap_or(path).to_owned();
    if let Some(alias) = here.scope.own_all("alias").next() {
        let target = context.places.prefix(&constant(alias.arg(0))?);
        return match &here.spot.base {
            Base::Prefix(_) => Some((bare(&target), alias)),
            // A file, whose name has to be that of the path.
            Base::Exact(path) => {
                let directory = target.strip_suffix(path.as_str())?;
                Some((if directory.is_empty() { "/".to_owned() } else { directory.to_owned() }, alias))
            }
            Base::Converted(path) => {
                let directory = bare(&target).strip_suffix(&bare(path)).map(str::to_owned)?;
                Some((if directory.is_empty() { "/".to_owned() } else { directory }, alias))
            }
            Base::Pattern(_) => None,
        };
    }
    let root = here.scope.find("root")?;
    let target = bare(&context.places.prefix(&constant(root.arg(0))?));
    Some(match &here.spot.base {
        Base::Prefix(path) => (bare(&format!("{}{path}", target.trim_end_matches('/'))), root),
        Base::Exact(_) | Base::Converted(_) | Base::Pattern(_) => (target, root),
    })
}

/// The last argument of `try_files`, if it is the name of a file.
pub(super) fn fallback(tried: &Directive) -> Option<&str> {
    let last = tried.args.last()?.split(['?', '$']).next()?;
    (last.starts_with('/') && last.len() > 1 && !last.ends_with('/')).then_some(last)
}
