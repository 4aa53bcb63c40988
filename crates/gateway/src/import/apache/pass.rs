//! `ProxyPass`: which server some paths go to.

use super::address::{Server, server};
use super::context::Context;
use super::item::{Item, Taken, What};
use super::redirect::missing;
use crate::import::book::Outcome;
use crate::import::pattern;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// The paths of a pattern; if they have no counterpart, that is said.
pub(super) fn pattern_of(
    context: &mut Context<'_>,
    directive: &Directive,
    theirs: &str,
    notes: &mut Section,
) -> Option<Taken> {
    if pattern::matches_all(theirs).is_some() {
        return Some(Taken::Path("/".to_owned()));
    }
    match Taken::pattern(theirs, false) {
        Ok(taken) => Some(taken),
        Err(what) => {
            context.book.misses(notes, directive, &format!("{what}; its requests go to another route"));
            None
        }
    }
}

/// A server for some paths; what has no counterpart gets 501.
pub(super) fn proxy<'a>(
    context: &mut Context<'a>,
    by: &'a Directive,
    taken: Taken,
    path: &str,
    url: &str,
) -> Item<'a> {
    let found = server(url).and_then(|server| {
        let of_groups = server.path.as_deref().is_some_and(|path| path.contains('$'));
        let (server, base) = match &taken {
            // `^/(.*)$` and `/$1` change nothing.
            Taken::Path(own)
                if of_groups && own == "/" && matches!(server.path.as_deref(), Some("/$1" | "$1")) =>
            {
                (Server { path: Some("/".to_owned()), ..server }, Some("/".to_owned()))
            }
            _ if of_groups => (server, None),
            Taken::Path(own) => (server, Some(own.clone())),
            // Without a group the whole path stands behind the address.
            _ if matches!(server.path.as_deref(), None | Some("/")) => {
                (Server { path: Some("/".to_owned()), ..server }, Some("/".to_owned()))
            }
            _ => return Err(format!("the path that the server gets for those of {path} has no counterpart")),
        };
        Ok(What::Proxy { server, base, by })
    });
    match found {
        Ok(what) => {
            context.book.mark(by, Outcome::Key);
            Item::new(taken, what)
        }
        Err(what) => Item::new(taken, What::Answer(missing(context, by, &what))),
    }
}
