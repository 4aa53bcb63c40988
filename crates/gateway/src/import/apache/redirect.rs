//! `Redirect` and its like, as answers.

use super::context::Context;
use super::item::{Taken, answer};
use crate::import::book::Outcome;
use crate::import::pattern;
use crate::import::sheet::{Section, table};
use crate::import::tree::Directive;
use crate::site::path::RoutePath;

/// A redirect with its paths. `around`: the path of the `<Location>` that it stands in. What has no counterpart gets 501, so
/// that no other route takes it; `None`: its paths have none, which is said.
pub(super) fn redirect(
    context: &mut Context<'_>,
    directive: &Directive,
    around: Option<&Taken>,
    notes: &mut Section,
) -> Option<(Taken, Section)> {
    let mut args: Vec<&str> = directive.args.iter().map(String::as_str).collect();
    let mut status: u32 = if directive.name == "redirectpermanent" { 301 } else { 302 };
    if let Some(code) = args.first().and_then(|word| word_status(word)) {
        status = code;
        args.remove(0);
    }
    let is_refusal = is_refusal(directive);
    let is_pattern = directive.name == "redirectmatch";
    // In a section the path may be left out; then nothing is put behind the target.
    let is_whole = around.is_some() && (args.len() == 1 && !args[0].starts_with('/') || args.is_empty());
    let path = if is_whole || args.is_empty() { "" } else { args.remove(0) };
    let url = args.first().copied();
    let is_all = is_pattern && matches!(pattern::matches_all(path), Some(None));
    let taken = match (is_whole, is_pattern, is_all) {
        (true, ..) => around.cloned()?,
        (_, true, true) => Taken::Path("/".to_owned()),
        (_, true, false) => match Taken::pattern(path, false) {
            Ok(taken) => taken,
            Err(what) if is_refusal => {
                let what = format!(
                    "{what}; it keeps requests out, so the pattern here takes more paths than in Apache"
                );
                context.book.remark(directive, &what);
                notes.note(format!("{}: {}: {what}", directive.at, directive.shown()));
                Taken::wider(path, false)
            }
            Err(what) => {
                let what = format!("{what}; its requests go to another route until you have written one");
                context.book.misses(notes, directive, &what);
                return None;
            }
        },
        (_, false, _) if is_refusal => Taken::Path(around_path(context, directive, path, notes)),
        (_, false, _) => Taken::Path(good(context, directive, path, notes)?),
    };
    let mut section = Section::default();
    match (status, url) {
        (301 | 302 | 303 | 307 | 308, Some(url)) if !url.contains(['%', '\\']) && !url.contains("${") => {
            let to = match &taken {
                Taken::Pattern { .. } => groups(url),
                _ if is_whole || is_all || matches!(taken, Taken::Exact(_)) => url.replace('{', "{{"),
                _ => rest(path, url),
            };
            let query = if to.contains('?') { "" } else { "{query}" };
            let to = table([("to", format!("{to}{query}").into()), ("status", status.into())]);
            context.book.key(&mut section, directive, "redirect", to);
        }
        (400..=599, _) | (200..=299, None) => context.book.key(&mut section, directive, "respond", status),
        _ => {
            section =
                missing(context, directive, "its target has an expression, or its status no counterpart");
        }
    }
    Some((taken, section))
}

/// The target with what is behind the path: `/old` and `/new` lead `/old/x` to `/new/x`, and `/` and `https://a.test/`, too.
fn rest(path: &str, url: &str) -> String {
    let url = if path.ends_with('/') { url.strip_suffix('/').unwrap_or(url) } else { url };
    format!("{}{{rest}}", url.replace('{', "{{"))
}

/// `$1` as `{1}`.
pub(super) fn groups(text: &str) -> String {
    let text = text.replace('{', "{{");
    (1..=9).fold(text, |text, n| text.replace(&format!("${n}"), &format!("{{{n}}}")))
}

/// What has no counterpart is answered with 501, so that no other route takes it.
pub(super) fn missing(context: &mut Context<'_>, directive: &Directive, what: &str) -> Section {
    let what = format!("{what}; until it is written, these requests get 501");
    context.book.remark(directive, &what);
    context.book.mark(directive, Outcome::Commented);
    let mut section = answer(501);
    section.comment(format!("{}: {}: {what}", directive.at, directive.shown()));
    section
}

/// A path that our routes can have; if not, that is said.
pub(super) fn good(
    context: &mut Context<'_>,
    directive: &Directive,
    path: &str,
    notes: &mut Section,
) -> Option<String> {
    match RoutePath::parse(path) {
        Ok(_) => Some(path.to_owned()),
        Err(what) => {
            context.book.misses(notes, directive, &format!("{what}; its requests go to another route"));
            None
        }
    }
}

/// A path that our routes can have: this one, or the next one around it, which is said.
pub(super) fn around_path(
    context: &mut Context<'_>,
    directive: &Directive,
    path: &str,
    notes: &mut Section,
) -> String {
    let Err(what) = RoutePath::parse(path) else { return path.to_owned() };
    let what = format!("{what}; the path here takes more than in Apache, so that no other route has it");
    context.book.remark(directive, &what);
    notes.note(format!("{}: {}: {what}", directive.at, directive.shown()));
    let mut around = path;
    while let Some((front, _)) = around.rsplit_once('/') {
        if RoutePath::parse(front).is_ok() {
            return front.to_owned();
        }
        around = front;
    }
    "/".to_owned()
}

/// It answers with an error.
pub(super) fn is_refusal(directive: &Directive) -> bool {
    directive.name.starts_with("redirect")
        && word_status(directive.arg(0)).is_some_and(|status| (400..600).contains(&status))
}

fn word_status(word: &str) -> Option<u32> {
    match word.to_ascii_lowercase().as_str() {
        "permanent" => Some(301),
        "temp" => Some(302),
        "seeother" => Some(303),
        "gone" => Some(410),
        text => text.parse().ok().filter(|code| (100..600).contains(code)),
    }
}
