//! Apache's order of items in ours. Pure but for what it says.
//!
//! In Apache the first item that has a path takes it. Our routes with a path come before those with a pattern, and the
//! longest first. So what stands behind a pattern that may have paths of it becomes a pattern itself; and what stands behind
//! an item that has all of its paths is never asked.

use super::context::Context;
use super::item::{Item, Taken, What};
use crate::import::book::Outcome;
use crate::import::sheet::Section;

/// The items as routes, in our order.
pub(super) fn lower<'a>(
    context: &mut Context<'a>,
    items: Vec<Item<'a>>,
    notes: &mut Section,
) -> Vec<Item<'a>> {
    let mut lowered: Vec<Item<'a>> = Vec::new();
    for mut item in items {
        let has_all = |other: &Item<'a>| match &other.taken {
            _ if other.has_condition() && (other.upgrade, other.tls) != (item.upgrade, item.tls) => false,
            Taken::Path(path) => item.taken.is_below(path),
            same => *same == item.taken,
        };
        if lowered.iter().any(has_all) {
            unasked(context, &item, notes);
            continue;
        }
        let is_pattern = |other: &Item<'_>| other.is_late || matches!(other.taken, Taken::Pattern { .. });
        item.is_late |= matches!(item.taken, Taken::Path(_))
            && lowered.iter().any(|other| is_pattern(other) && other.taken.meets(&item.taken));
        lowered.push(item);
    }
    lowered
}

/// Says that an item is never asked, if a directive stands for it alone.
fn unasked(context: &mut Context<'_>, item: &Item<'_>, notes: &mut Section) {
    let by = match &item.what {
        What::Proxy { by, .. } | What::Files { by, .. } => by,
        What::Answer(_) => return,
    };
    // It may have been narrowed, or be the DocumentRoot, which files of others come from.
    if by.name == "documentroot" || item.of.is_some() {
        return;
    }
    let what = format!(
        "{}: {}: another one in front of it takes the paths of {}, so it is not asked for them",
        by.at,
        by.shown(),
        shown(&item.taken)
    );
    notes.note(what);
    context.book.mark(by, Outcome::Commented);
}

fn shown(taken: &Taken) -> &str {
    match taken {
        Taken::Path(path) | Taken::Exact(path) => path,
        Taken::Pattern { ours, .. } => ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::apache::item::answer;

    fn lowered(all: &[&str]) -> Vec<String> {
        let parsed = crate::import::apache::parse::Parsed::default();
        let mut context = Context::new(&parsed, "/".into());
        let item = |text: &&str| {
            let taken = match text.strip_prefix('~') {
                Some(theirs) => Taken::pattern(theirs, false).unwrap(),
                None => Taken::Path((*text).to_owned()),
            };
            Item::new(taken, What::Answer(answer(200)))
        };
        let items = all.iter().map(item).collect();
        lower(&mut context, items, &mut Section::default())
            .iter()
            .map(|item| format!("{}{}", shown(&item.taken), if item.is_late { " late" } else { "" }))
            .collect()
    }

    #[test]
    fn the_first_that_has_a_path_takes_it() {
        assert_eq!(lowered(&["/a", "/"]), ["/a", "/"]);
        assert_eq!(lowered(&["/", "/a"]), ["/"]);
        assert_eq!(lowered(&["/a", "/a/b", "/"]), ["/a", "/"]);
        assert_eq!(lowered(&["/a/b", "/a", "/"]), ["/a/b", "/a", "/"]);
        // The pattern comes first, so what may have paths of it stands behind it.
        assert_eq!(lowered(&["~^/a/.*\\.js$", "/b", "/a", "/"]), ["/a/.*\\.js", "/b", "/a late", "/ late"]);
        assert_eq!(lowered(&["/a", "~\\.js$", "/"]), ["/a", ".*\\.js", "/ late"]);
        assert_eq!(lowered(&["~\\.js$", "/", "/a"]), [".*\\.js", "/ late"]);
    }
}
