//! `ProxyPass`: which server some paths go to.

use super::address::{Server, server};
use super::context::Context;
use super::item::{Item, Taken, What};
use super::redirect::missing;
use crate::import::book::Outcome;
use crate::import::pattern;
use crate::import::tree::Directive;

/// The paths of a pattern. If they have no counterpart: all that it may have, and what is to be said of it.
pub(super) fn pattern_of(theirs: &str) -> Result<Taken, (Taken, String)> {
    if pattern::matches_all(theirs).is_some() {
        return Ok(Taken::Path("/".to_owned()));
    }
    let wider = |what| (Taken::wider(theirs, false), format!("{what}; the pattern here takes more paths"));
    Taken::pattern(theirs, false).map_err(wider)
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
