//! Rules that send WebSockets to a server (`RewriteCond %{HTTP:Upgrade} websocket` with `[P]`).

use super::address::{Server, server};
use super::item::{Item, Taken, What, bare, is_below};
use crate::import::pattern;
use crate::import::tree::Directive;

/// Such a rule.
#[derive(Debug, Clone)]
pub(super) struct Upgrade<'a> {
    pub path: String,
    pub server: Server,
    pub directive: &'a Directive,
}

/// The paths of a rule, and the server that they go to; `None`: they have no counterpart. `below`: the paths that a
/// condition says.
pub(super) fn of<'a>(
    directive: &'a Directive,
    theirs: &str,
    new: &str,
    below: Option<Taken>,
) -> Option<Upgrade<'a>> {
    let theirs = dotted(theirs.strip_prefix('^').unwrap_or(theirs));
    let (front, rest) = pattern::literal_front(&theirs);
    const ALL: [&str; 13] = [
        "", "$", ".*", ".*$", "(.*)", "(.*)$", "/?(.*)", "/?(.*)$", "/.*", "/(.*)", "/(.*)$", "/?.*", "?(.*)",
    ];
    if !ALL.contains(&rest) || !(front.is_empty() || front.starts_with('/')) {
        return None;
    }
    let path = if front.is_empty() { "/".to_owned() } else { front };
    let (address, is_whole) = match new.strip_suffix("%{REQUEST_URI}") {
        Some(address) => (address, true),
        None => (new.strip_suffix("$1").unwrap_or(new), false),
    };
    let mut server = server(address).ok()?;
    if server.path.as_deref().is_some_and(|path| path.contains(['$', '%'])) {
        return None;
    }
    if is_whole {
        server.path = Some(path.clone());
    }
    // A group that begins with the slash has it itself.
    server.path.get_or_insert_with(|| "/".to_owned());
    let found = Upgrade { path, server, directive };
    match below {
        None => Some(found),
        Some(Taken::Path(path)) if is_below(&path, &found.path) => {
            let at = Some(found.path_for(&path));
            Some(Upgrade { server: Server { path: at, ..found.server }, path, directive })
        }
        Some(_) => None,
    }
}

/// A dot within a name stands for a dot, which is what `^/socket.io` means.
pub(super) fn dotted(theirs: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for (at, c) in theirs.char_indices() {
        let is_in_name = before.is_ascii_alphanumeric()
            && theirs[at + c.len_utf8()..].starts_with(|c: char| c.is_ascii_alphanumeric());
        if c == '.' && is_in_name {
            out.push('\\');
        }
        out.push(c);
        before = c;
    }
    out
}

impl Upgrade<'_> {
    /// The path that the server gets for one below the rule's.
    fn path_for(&self, path: &str) -> String {
        let rest = bare(path).strip_prefix(bare(&self.path)).unwrap_or_default();
        format!("{}{rest}", bare(self.server.path.as_deref().unwrap_or_default()))
    }

    /// The server gets the same path that the client has asked for.
    fn keeps_path(&self) -> bool {
        bare(&self.path) == bare(self.server.path.as_deref().unwrap_or_default())
    }

    /// WebSockets go where the item's other requests go.
    fn is_same(&self, what: &What<'_>) -> bool {
        let What::Proxy { server, base: Some(base), .. } = what else { return false };
        let theirs = |path: &str| {
            let rest = bare(path).strip_prefix(bare(base)).unwrap_or_default();
            format!("{}{rest}", bare(server.path.as_deref().unwrap_or_default()))
        };
        let path = if is_below(&self.path, base) { &self.path } else { base };
        server.is_as(&self.server) && theirs(path) == self.path_for(path)
    }
}

/// Puts routes for the WebSockets of each item in front of it, where they go elsewhere. The first `answered` are asked before
/// these rules.
pub(super) fn place<'a>(upgrades: &[Upgrade<'a>], answered: usize, items: &mut Vec<Item<'a>>) {
    for upgrade in upgrades {
        let of_path = Taken::Path(upgrade.path.clone());
        let mut placed: Vec<Item<'a>> = Vec::new();
        let mut has_all = false;
        for (number, item) in items.drain(..).enumerate() {
            let is_first = number < answered && matches!(item.what, What::Answer(_));
            let is_other = item.upgrade.is_some();
            if !has_all
                && !is_first
                && !is_other
                && item.taken.meets(&of_path)
                && !upgrade.is_same(&item.what)
            {
                let taken =
                    if item.taken.is_below(&upgrade.path) { item.taken.clone() } else { of_path.clone() };
                // A pattern of an item behind it may have paths that are not the rule's.
                let is_known = matches!(taken, Taken::Path(_) | Taken::Exact(_)) || upgrade.keeps_path();
                let is_new = !placed.iter().any(|other| other.taken == taken && other.upgrade == Some(true));
                if is_known && is_new {
                    let base = Some(upgrade.path.clone());
                    let what = What::Proxy { server: upgrade.server.clone(), base, by: upgrade.directive };
                    placed.push(Item { upgrade: Some(true), ..Item::new(taken, what) });
                }
            }
            // What is behind an item with all of the rule's paths is never asked for them.
            has_all |=
                !item.has_condition() && matches!(&item.taken, Taken::Path(path) if of_path.is_below(path));
            placed.push(item);
        }
        *items = placed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::tree::At;

    #[test]
    fn rules_for_upgrades() {
        let at = At { file: "test".into(), line: 1 };
        let directive = Directive { id: 0, name: "rewriterule".into(), args: Vec::new(), at, block: None };
        let found = |theirs: &str, new: &str, below: Option<&str>| {
            let below = below.map(|path| Taken::Path(path.to_owned()));
            of(&directive, theirs, new, below)
                .map(|upgrade| (upgrade.path, upgrade.server.path.unwrap_or_default()))
        };
        for (theirs, new, below, path, server_path) in [
            ("^/?(.*)", "ws://h:1/$1", None, "/", "/"),
            ("/(.*)", "ws://h:1/$1", None, "/", "/"),
            ("^/app/(.*)$", "ws://h:1/$1", None, "/app/", "/"),
            ("^/app(.*)", "ws://h:1/app$1", None, "/app", "/app"),
            (".*", "ws://h:1%{REQUEST_URI}", None, "/", "/"),
            ("^/app/(.*)", "wss://h:1%{REQUEST_URI}", None, "/app/", "/app/"),
            ("/(.*)", "ws://h:1/$1", Some("/socket.io"), "/socket.io", "/socket.io"),
            ("^/socket.io/(.*)", "ws://h:1/socket.io/$1", None, "/socket.io/", "/socket.io/"),
        ] {
            let expect = Some((path.to_owned(), server_path.to_owned()));
            assert_eq!(found(theirs, new, below), expect, "{theirs}");
        }
        assert_eq!(found("^/(a|b)", "ws://h:1/$1", None), None);
        assert_eq!(found("^/(.*)", "ws://%{HTTP_HOST}/$1", None), None);
    }
}
