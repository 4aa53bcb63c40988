//! What nginx answers by itself: `return`, `rewrite` with a redirect, and the `if`s that do no more than that.

use super::context::Context;
use super::fields;
use super::scope::Scope;
use super::server::Server;
use super::variables::{Facts, Unknown, Use, template};
use crate::import::book::Outcome;
use crate::import::hosts::Body;
use crate::import::pattern::{self, Group};
use crate::import::sheet::{Section, Value, table};
use crate::import::tree::Directive;

/// What the directives of a server itself answer, before any location is asked.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub bodies: Vec<Body>,
    /// Nothing is left for locations.
    pub is_final: bool,
    /// Requests in plain text are answered, so that locations are for TLS alone.
    pub is_plain_answered: bool,
    /// These hosts are answered.
    pub hosts: Vec<String>,
    /// Patterns that take paths before any location does.
    pub fronts: Vec<String>,
}

/// Reads them in their order.
pub(super) fn of_server<'a>(context: &mut Context<'a>, server: &Server<'a>, notes: &mut Section) -> Answers {
    let mut answers = Answers::default();
    let mut patterns = Vec::new();
    for directive in server.scope.own() {
        match directive.name.as_str() {
            "return" => {
                let mut section = Section::default();
                section.set("path", "/", None);
                give(context, &mut section, directive, &server.facts, &server.scope);
                fields::response(context, server, &server.scope, &mut section, false);
                let tls = answers.is_plain_answered.then_some(true);
                answers.bodies.push(Body { tls, ..section.into() });
                answers.is_final = true;
                break;
            }
            "rewrite" => {
                let Some(section) = redirect(context, directive, &server.facts, notes) else { continue };
                if pattern::matches_all(directive.arg(0)).is_some() {
                    answers.bodies.push(section.into());
                    answers.is_final = true;
                    break;
                }
                if let Some(Value::Text(pattern)) = section.get("path_regex") {
                    answers.fronts.push(pattern.clone());
                    patterns.push(Body::from(section));
                } else {
                    answers.bodies.push(section.into());
                }
            }
            "if" => of_if(context, server, directive, notes, &mut answers),
            _ => {}
        }
    }
    answers.bodies.extend(patterns);
    answers
}

/// An `if` of a server: about its host, or about plain text, with nothing in it but a `return` or a redirect.
fn of_if<'a>(
    context: &mut Context<'a>,
    server: &Server<'a>,
    condition: &'a Directive,
    notes: &mut Section,
    answers: &mut Answers,
) {
    let words = words(condition);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let scope = server.scope.inside(condition.inside());
    let (mut section, mut is_good) = (Section::default(), false);
    section.set("path", "/", None);
    section.comment(format!("{}: {}", condition.at, condition.shown()));
    // The variables mean what the condition says.
    let mut facts = server.facts.clone();
    let what = match words[..] {
        ["$host" | "$http_host", "=", host] => {
            Some(Body { host: Some(host.to_ascii_lowercase()), ..Section::default().into() })
        }
        ["$scheme", "=", "http"]
        | ["$scheme", "!=", "https"]
        | ["$https", "=", ""]
        | ["$https", "!=", "on"]
        | ["$server_port", "=", "80"]
        | ["$server_port", "!=", "443"]
        | ["$ssl_protocol", "=", ""] => Some(Body { tls: Some(false), ..Section::default().into() }),
        _ => None,
    };
    if let (Some(what), [only]) = (what, scope.own()) {
        if what.tls.is_some() {
            facts.constants.insert("scheme".to_owned(), "http".to_owned());
        }
        let made = match only.name.as_str() {
            "return" => give(context, &mut section, only, &facts, &scope),
            "rewrite" if pattern::matches_all(only.arg(0)).is_some() => {
                redirect(context, only, &facts, notes).map(|made| section.append(made)).is_some()
            }
            _ => false,
        };
        if made {
            is_good = true;
            context.book.mark(condition, Outcome::Key);
            answers.is_plain_answered |= what.tls.is_some();
            answers.hosts.extend(what.host.clone());
            answers.bodies.push(Body { section, ..what });
        }
    }
    if !is_good {
        unsaid(context, condition, notes);
    }
}

/// An `if` that has no counterpart.
pub(super) fn unsaid(context: &mut Context<'_>, condition: &Directive, notes: &mut Section) {
    let meaning = format!(
        "conditions on variables have no counterpart; write a route with `when` (upgrade, method, header, subprotocol) \
         or `host` in place of it. In it stands: {}",
        condition.inside().iter().map(Directive::shown).collect::<Vec<_>>().join("; ")
    );
    context.book.misses(notes, condition, &meaning);
    context.book.mark_all(condition.inside(), Outcome::Commented);
}

/// The words of a condition without its parentheses.
fn words(condition: &Directive) -> Vec<String> {
    let mut words = condition.args.clone();
    if let Some(first) = words.first_mut() {
        *first = first.trim_start_matches('(').to_owned();
    }
    if let Some(last) = words.last_mut() {
        *last = last.strip_suffix(')').unwrap_or(last).to_owned();
    }
    // `( $a = b )` has blanks at its parentheses; an empty text in quotes is a word.
    if words.first().is_some_and(String::is_empty) {
        words.remove(0);
    }
    if words.len() > 3 && words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    words
}

/// The `ifs` of a location that do nothing but answer, as routes with a condition; the others are said to be missing.
pub(super) fn conditions<'a>(
    context: &mut Context<'a>,
    server: &Server<'a>,
    scope: &Scope<'a>,
    notes: &mut Section,
) -> Vec<Section> {
    let mut sections = Vec::new();
    for condition in scope.own_all("if") {
        let words = words(condition);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut section = Section::default();
        let is_known = match words[..] {
            [
                "$request_method",
                "=",
                method @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS"),
            ] => {
                section.set("when.method", method, Some(&condition.at));
                true
            }
            ["$http_upgrade", "=" | "~*" | "~", word] if word.eq_ignore_ascii_case("websocket") => {
                section.set("when.upgrade", true, Some(&condition.at));
                true
            }
            _ => false,
        };
        let inside = scope.inside(condition.inside());
        let is_plain =
            inside.own().iter().all(|directive| matches!(directive.name.as_str(), "return" | "add_header"));
        let answer = inside.own_all("return").next();
        match answer.filter(|_| is_known && is_plain) {
            Some(answer) if give(context, &mut section, answer, &server.facts, &inside) => {
                fields::response(context, server, &inside, &mut section, false);
                context.book.mark(condition, Outcome::Key);
                sections.push(section);
            }
            _ => unsaid(context, condition, notes),
        }
    }
    sections
}

/// `return` as `redirect` or `respond`; if it has no counterpart, that is said, and the answer is 501.
pub(super) fn give(
    context: &mut Context<'_>,
    section: &mut Section,
    directive: &Directive,
    facts: &Facts,
    scope: &Scope<'_>,
) -> bool {
    let book = &mut context.book;
    let (code, text) = match directive.args.as_slice() {
        [only] => match only.parse::<u32>() {
            Ok(code) => (code, None),
            Err(_) => (302, Some(only.as_str())),
        },
        [code, rest @ ..] => match code.parse::<u32>() {
            Ok(code) => (code, rest.first().map(String::as_str)),
            Err(_) => (0, None),
        },
        [] => (0, None),
    };
    match (code, text) {
        (301 | 302 | 303 | 307 | 308, Some(text)) => match target(text, facts) {
            Ok(to) => {
                if text.contains("$http_host") {
                    section.comment(format!(
                        "{}: {{host}} has no port, and $http_host has the client's",
                        directive.at
                    ));
                }
                book.key(section, directive, "redirect", table([("to", to.into()), ("status", code.into())]));
                true
            }
            Err(unknown) => missing(context, section, directive, &unknown.to_string()),
        },
        (444, _) => {
            let how = "nginx closes the connection without an answer; here it is 403";
            book.nearly(section, directive, ("respond", 403), how);
            true
        }
        (200..=599, None) => {
            book.key(section, directive, "respond", code);
            true
        }
        (200..=599, Some(text)) => match template(text, facts, Use::Target) {
            Ok(body) if !matches!(code, 204 | 205 | 304) && !body.is_empty() => {
                let plain = "text/plain".to_owned();
                let of_type = scope.find("default_type").inspect(|d| book.mark(d, Outcome::Key));
                let of_type = of_type.map_or(plain, |d| d.arg(0).to_owned());
                let answer =
                    [("status", code.into()), ("content_type", of_type.into()), ("body", body.into())];
                book.key(section, directive, "respond", table(answer));
                true
            }
            Ok(_) => {
                book.key(section, directive, "respond", code);
                true
            }
            Err(unknown) => missing(context, section, directive, &unknown.to_string()),
        },
        _ => missing(context, section, directive, "an answer has a status from 200 to 599"),
    }
}

/// What can't be answered as nginx does it is answered with 501, so that no other route takes it.
pub(super) fn missing(
    context: &mut Context<'_>,
    section: &mut Section,
    directive: &Directive,
    what: &str,
) -> bool {
    let what = format!("{what}; until it is written, these requests get 501");
    context.book.remark(directive, &what);
    section.comment(format!("{}: {}: {what}", directive.at, directive.shown()));
    section.set("respond", 501, None);
    context.book.mark(directive, Outcome::Commented);
    true
}

/// Where a redirect leads to.
fn target(text: &str, facts: &Facts) -> Result<String, Unknown> {
    template(text.trim_end_matches('?'), facts, Use::Target)
}

/// A `rewrite` that sends clients elsewhere, with its path; another one is said to be missing.
pub(super) fn redirect(
    context: &mut Context<'_>,
    rewrite: &Directive,
    facts: &Facts,
    notes: &mut Section,
) -> Option<Section> {
    let (theirs, new) = (rewrite.arg(0), rewrite.arg(1));
    let is_url = new.starts_with("http://") || new.starts_with("https://") || new.starts_with("$scheme");
    let status: u32 = match rewrite.arg(2) {
        "permanent" => 301,
        "redirect" => 302,
        _ if is_url => 302,
        _ => {
            let meaning =
                "paths that change inside of nginx have no counterpart but `rewrite` of a route with proxy";
            context.book.misses(notes, rewrite, meaning);
            return None;
        }
    };
    let mut section = Section::default();
    let mut facts = facts.clone();
    let mut new = new.to_owned();
    match pattern::matches_all(theirs) {
        Some(group) => {
            section.set("path", "/", None);
            match group {
                Some(Group::Path) => new = new.replace("$1", "$uri"),
                // The path has the slash itself.
                Some(Group::PathWithoutSlash) => new = new.replace("/$1", "$uri").replace("$1", "$uri"),
                None => {}
            }
        }
        None => match (pattern::only_path(theirs), pattern::whole(theirs, false)) {
            (Some(path), _) => section.set("path_exact", path, None),
            (None, Ok(pattern)) => section.set("path_regex", pattern, None),
            (None, Err(what)) => {
                context.book.misses(notes, rewrite, &what);
                return None;
            }
        },
    }
    // nginx puts the query behind it, if it doesn't end with a question mark.
    let has_query = new.contains('?') || new.contains("$request_uri");
    if !has_query {
        new.push_str("$is_args$args");
    }
    facts.constants.remove("uri");
    match target(&new, &facts) {
        Ok(to) => context.book.key(
            &mut section,
            rewrite,
            "redirect",
            table([("to", to.into()), ("status", status.into())]),
        ),
        Err(unknown) => {
            context.book.misses(notes, rewrite, &unknown.to_string());
            return None;
        }
    }
    Some(section)
}
