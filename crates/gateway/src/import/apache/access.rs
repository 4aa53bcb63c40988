//! Who may come in, and how much: `Require`, `Order`, passwords, the length of bodies.

use super::context::Context;
use super::guards::{close as lost, is_guard, shut};
use super::requirements::{ORDER, REQUIRE, Those, Who, all, ordered, required};
use super::vhost::Vhost;
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// What the sections of a route say.
pub(super) struct Access<'a> {
    pub who: Who,
    /// The directives that say so; none: everybody is let in.
    by: Vec<&'a Directive>,
}

impl<'a> Access<'a> {
    /// Of each kind, those of the last section that has some count.
    pub(super) fn of(sections: &[&'a Directive]) -> Self {
        let last = |names: &[&str]| -> Vec<&'a Directive> {
            let of = |section: &&'a Directive| -> Vec<&'a Directive> {
                section.inside().iter().filter(|inside| names.contains(&inside.name.as_str())).collect()
            };
            sections.iter().rev().map(of).find(|found| !found.is_empty()).unwrap_or_default()
        };
        let (new, old) = (last(&REQUIRE), last(&ORDER));
        let mut whos = Vec::new();
        if !new.is_empty() {
            whos.push(required(&new));
        }
        if !old.is_empty() {
            whos.push(ordered(&old));
        }
        Self { who: all(whos), by: [new, old].concat() }
    }

    /// A route that lets nobody in needs nothing else.
    pub(super) fn denies_all(&self, context: &mut Context<'_>, route: &mut Section) -> bool {
        let Some(first) = self.by.first().filter(|_| self.who == Who::Nobody) else { return false };
        self.mark(context);
        route.set("respond", 403, Some(&first.at));
        true
    }

    fn mark(&self, context: &mut Context<'_>) {
        for directive in &self.by {
            context.book.mark(directive, Outcome::Key);
            context.book.mark_all(directive.inside(), Outcome::Key);
        }
    }

    /// The keys of `[route.access]`. `has_server`: passwords and bodies go on to a server.
    pub(super) fn write(
        &self,
        context: &mut Context<'a>,
        sections: &[&'a Directive],
        route: &mut Section,
        has_server: bool,
    ) {
        let Some(first) = self.by.first().copied() else { return };
        self.mark(context);
        let those = match &self.who {
            Who::Those(those) => those,
            Who::Nobody => return shut(route),
            Who::Lost(what) => return lost(context, first, route, what),
        };
        if *those == Those::default() {
            for directive in &self.by {
                context.book.itself(route, directive, "everybody is let in");
            }
            return;
        }
        if let Some(how) = those.narrower {
            context.book.remark(first, how);
            route.note(format!("{}: {how}", first.at));
        }
        if let Some(allow) = &those.allow {
            let by = self.by.iter().find(|by| names_some(by, &["allow", "require"])).unwrap_or(&first);
            context.book.key(route, by, "access.allow", allow.clone());
        }
        if !those.deny.is_empty() {
            let by = self.by.iter().find(|by| names_some(by, &["deny", "require"])).unwrap_or(&first);
            context.book.key(route, by, "access.deny", those.deny.clone());
        }
        if those.has_user {
            password(context, sections, first, route, has_server);
        }
    }
}

/// A directive of these names, or one in it, is about some clients, and not about all.
fn names_some(directive: &Directive, names: &[&str]) -> bool {
    let is_all = directive.arg(0).eq_ignore_ascii_case("all") || directive.arg(1).eq_ignore_ascii_case("all");
    names.contains(&directive.name.as_str())
        && !is_all
        && !directive.arg(0).eq_ignore_ascii_case("valid-user")
        || directive.inside().iter().any(|inside| names_some(inside, names))
}

/// The last of this name in the sections.
pub(super) fn find<'a>(sections: &[&'a Directive], name: &str) -> Option<&'a Directive> {
    sections.iter().rev().find_map(|section| section.inside().iter().rev().find(|inside| inside.name == name))
}

fn password<'a>(
    context: &mut Context<'a>,
    sections: &[&'a Directive],
    user: &'a Directive,
    route: &mut Section,
    has_server: bool,
) {
    let (kind, file) = (find(sections, "authtype"), find(sections, "authuserfile"));
    let provider = find(sections, "authbasicprovider");
    let is_basic = kind.is_some_and(|kind| kind.arg(0).eq_ignore_ascii_case("basic"))
        && provider.is_none_or(|provider| provider.args == ["file"]);
    let path = file.and_then(|file| Some((file, context.path(file.arg(0))?)));
    let Some((file, path)) = path.filter(|_| is_basic) else {
        return lost(
            context,
            user,
            route,
            "only passwords of a file are known (AuthType Basic, AuthUserFile)",
        );
    };
    context.book.key(route, file, "access.basic.file", path);
    if let Some(realm) = find(sections, "authname") {
        let is_good = |c: &char| c.is_ascii() && !c.is_control() && !"\"\\".contains(*c);
        let text: String = realm.arg(0).chars().filter(is_good).collect();
        context.book.key(route, realm, "access.basic.realm", text);
    }
    for said in [kind, provider].into_iter().flatten() {
        context.book.mark(said, Outcome::Key);
    }
    if has_server {
        route.comment("Apache passes the password on to the server; remove the line if that doesn't need it");
        route.set("access.basic.pass_password", true, None);
    }
}

/// Closes the route for rules that are lost, and says so.
pub(super) fn guards<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    sections: &[&'a Directive],
    route: &mut Section,
) {
    let around = found.scope.every().filter(|directive| directive.name != "sslverifyclient");
    let inside = sections.iter().flat_map(|section| section.inside());
    for guard in around.chain(inside).chain(found.lost.iter().copied()) {
        let is_lost = found.lost.iter().any(|lost| std::ptr::eq(*lost, guard));
        if guard.name == "rewriterule" && !context.book.knows(guard) {
            // Rules of a directory with files have been read.
            let refuses = guard
                .arg(2)
                .to_ascii_lowercase()
                .trim_matches(['[', ']'])
                .split(',')
                .any(|flag| flag.trim() == "f");
            if !refuses {
                context.book.misses(
                    route,
                    guard,
                    "rules of a section are not read but for directories: write a route",
                );
                continue;
            }
        } else if !is_guard(guard) && !is_lost {
            continue;
        }
        if guard.name == "sslrequiressl" && found.has_tls {
            context.book.itself(route, guard, "the listener speaks TLS alone");
            continue;
        }
        lost(context, guard, route, "this keeps requests out, and has no counterpart");
        context.book.mark(guard, Outcome::Commented);
        context.book.mark_all(guard.inside(), Outcome::Commented);
    }
}

/// `LimitRequestBody`.
pub(super) fn body(
    context: &mut Context<'_>,
    found: &Vhost<'_>,
    sections: &[&Directive],
    route: &mut Section,
) {
    let limit = find(sections, "limitrequestbody").or_else(|| found.scope.find("limitrequestbody"));
    let Some(limit) = limit else { return };
    match limit.arg(0).parse::<u64>() {
        Ok(0) => context.book.itself(route, limit, "bodies have no limit where max_body doesn't say so"),
        Ok(bytes) => context.book.key(route, limit, "access.max_body", format!("{bytes}B")),
        Err(_) => context.book.misses(route, limit, "this is no size"),
    }
}

/// `Satisfy`, which says whether addresses and passwords both count.
pub(super) fn satisfy(context: &mut Context<'_>, sections: &[&Directive], route: &mut Section) {
    let Some(satisfy) = find(sections, "satisfy") else { return };
    if satisfy.arg(0).eq_ignore_ascii_case("any") {
        let what = "every check of [route.access] has to be passed here, which is stricter";
        context.book.misses(route, satisfy, what);
    } else {
        context.book.itself(route, satisfy, "so it is here");
    }
}
