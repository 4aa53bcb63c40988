//! Files that Apache runs or that modules of it read: scripts. Here they would be files, so their names get 501.

use super::context::Context;
use super::handlers;
use super::item::{Item, Taken, answer, is_below};
use super::paths::paths_of;
use super::patterns::{directory_of, is_plain_directory, named, path_of_directory, pattern_of_name};
use super::vhost::Vhost;
use crate::import::book::Outcome;
use crate::import::lookahead;
use crate::import::pattern;
use crate::import::sheet::Section;
use crate::import::tree::Directive;
use crate::site::matcher::PathRegex;

/// Handlers that read no script: the text of the file is the answer, or has no secrets.
const OTHERS: [&str; 9] = [
    "balancer-manager",
    "default-handler",
    "imap-file",
    "ldap-status",
    "none",
    "send-as-is",
    "server-info",
    "server-status",
    "type-map",
];
/// What names of scripts end with, besides `.php`, where a server of FastCGI has them all.
const EXTENSIONS: [&str; 14] =
    ["cgi", "fcgi", "htm", "html", "inc", "lua", "module", "phar", "phps", "pl", "py", "rb", "sh", "tpl"];

/// Some names of files that something runs.
struct Program<'a> {
    /// The directive that says so.
    by: &'a Directive,
    /// The sections around it.
    around: Vec<&'a Directive>,
    /// The last segment of a path, with its slash, as a pattern; `None`: every name.
    names: Option<String>,
    why: &'static str,
}

const IN_APACHE: &str = "no programs run here: start it as a server of its own, and write a route with proxy; until then these \
                         files get 501";
const PHP: &str = "PHP runs inside of Apache here: start PHP-FPM, write fastcgi into the route with its files, and leave this \
                   route out then; until then scripts get 501";
const OTHER_NAMES: &str = "scripts have names with .php here, so these others get 501";

/// Puts an answer in front of files that are scripts.
pub(super) fn split<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    items: Vec<Item<'a>>,
    notes: &mut Section,
) -> Vec<Item<'a>> {
    let programs = of(found);
    let mut split = Vec::new();
    for item in items {
        for program in programs.iter().filter(|_| !item.is_early && item.is_files()) {
            let Some(taken) = program.taken(context, &item) else { continue };
            context.book.remark(program.by, program.why);
            for said in program.around.iter().chain([&program.by]) {
                context.book.mark(said, Outcome::Commented);
            }
            if let Some(section) = program.around.last().filter(|section| section.name.starts_with("files")) {
                context.finish(section.inside(), notes);
            }
            let mut closed = answer(501);
            closed.comment(format!("{}: {}: {}", program.by.at, program.by.shown(), program.why));
            split.push(Item::early(taken, closed));
        }
        split.push(item);
    }
    split
}

/// A file of this name is a script, which nothing runs here. One of PHP is never served as it is.
pub(super) fn is_script(found: &Vhost<'_>, name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    let is_php = last.to_ascii_lowercase().ends_with(".php");
    !is_php && of(found).iter().any(|program| is_match(program.names.as_deref(), &format!("/{last}")))
}

fn is_match(names: Option<&str>, segment: &str) -> bool {
    names.is_none_or(|names| PathRegex::parse(names).is_ok_and(|names| names.is_match(segment)))
}

/// All of a virtual host.
fn of<'a>(found: &Vhost<'a>) -> Vec<Program<'a>> {
    let mut programs = Vec::new();
    let has_server = handlers::has_scripts(found);
    for directive in found.scope.every() {
        walk(directive, &[], has_server, &mut programs);
    }
    programs
}

fn walk<'a>(
    directive: &'a Directive,
    around: &[&'a Directive],
    has_server: bool,
    programs: &mut Vec<Program<'a>>,
) {
    let is_of = |name: &str| around.iter().any(|section| section.name.starts_with(name));
    let word = directive.arg(0).to_ascii_lowercase();
    let (names, is_one) = match directive.name.as_str() {
        "addhandler" => (Some(extensions(directive.args.iter().skip(1))), runs(&word)),
        "addtype" => {
            (Some(extensions(directive.args.iter().skip(1))), word.starts_with("application/x-httpd-"))
        }
        // Other handlers of a `<Location>` have an answer of their own.
        "sethandler" => (names(around), runs(&word) && (!is_of("location") || word.contains("php"))),
        "forcetype" => (names(around), word.starts_with("application/x-httpd-")),
        "passengerenabled" => (names(around), matches!(word.as_str(), "on" | "yes")),
        "jkmount" => (names(around), directive.args.len() == 1),
        "directory" | "directorymatch" | "files" | "filesmatch" | "location" | "locationmatch" | "if"
        | "elseif" | "else" => {
            let inner = [around, &[directive]].concat();
            return directive.inside().iter().for_each(|inside| walk(inside, &inner, has_server, programs));
        }
        _ => return,
    };
    let is_server = handlers::of_handler(&word).is_some();
    if !is_one && !is_server || is_server && !directive.name.ends_with("handler") {
        return;
    }
    let (names, why) = match (is_server || has_server && word.contains("php"), word.contains("php")) {
        (true, _) => {
            let others = EXTENSIONS.iter().filter(|end| is_match(names.as_deref(), &format!("/a.{end}")));
            let others: Vec<String> = others.map(|end| (*end).to_owned()).collect();
            if others.is_empty() || names.is_none() {
                return;
            }
            (Some(extensions(&others)), OTHER_NAMES)
        }
        (false, true) => (names, PHP),
        (false, false) => (names, IN_APACHE),
    };
    programs.push(Program { by: directive, around: around.to_vec(), names, why });
}

/// The handler reads or runs the file.
fn runs(word: &str) -> bool {
    !word.starts_with("proxy:") && !OTHERS.contains(&word)
}

/// Names with one of these behind a dot, be it the last or not, as mod_mime has it.
fn extensions<'b>(all: impl IntoIterator<Item = &'b String>) -> String {
    let all: Vec<String> = all.into_iter().map(|end| pattern::escaped(end.trim_start_matches('.'))).collect();
    format!("/[^/]*\\.(?i:{})(?:\\.[^/]*)?", all.join("|"))
}

/// The names of the innermost section for some.
fn names(around: &[&Directive]) -> Option<String> {
    let section = around.iter().rev().find(|section| section.name.starts_with("files"))?;
    let names = pattern_of_name(section)?;
    if PathRegex::parse(&names).is_ok() {
        return Some(names);
    }
    Some(lookahead::wider(&names)).filter(|names| PathRegex::parse(names).is_ok())
}

impl Program<'_> {
    /// The paths of the item that are for it, and perhaps more; `None`: there are none.
    fn taken(&self, context: &Context<'_>, item: &Item<'_>) -> Option<Taken> {
        let mut taken = item.taken.clone();
        for section in &self.around {
            let path = match section.name.as_str() {
                "directory" if is_plain_directory(section) => {
                    let (Some(own), Some(outer)) = (directory_of(item), context.path(section.arg(0))) else {
                        continue;
                    };
                    if is_below(&own, &outer) {
                        continue;
                    }
                    path_of_directory(context, section, item)?
                }
                "location" => match paths_of(section) {
                    Some(Taken::Path(path)) => path,
                    _ => continue,
                },
                _ => continue,
            };
            if taken.is_below(&path) {
                continue;
            }
            if !taken.may_be_below(&path) {
                return None;
            }
            if matches!(taken, Taken::Path(_)) {
                taken = Taken::Path(path);
            }
        }
        let Some(names) = &self.names else { return Some(taken) };
        named(names, &taken).unwrap_or_else(|| {
            let ours = format!("(?:/.*)?(?:{names})");
            Some(if PathRegex::parse(&ours).is_ok() {
                Taken::Pattern { ours, front: String::new() }
            } else {
                taken
            })
        })
    }
}
