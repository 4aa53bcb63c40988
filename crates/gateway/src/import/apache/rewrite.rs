//! `RewriteRule`s that upgrades, servers, redirects, refusals and front controllers are made of; others are said to be missing.

use super::context::Context;
use super::item::{Item, Taken, answer, bare};
use super::pass::proxy;
use super::redirect::groups;
use super::upgrades::{self, Upgrade};
use super::vhost::Vhost;
use crate::import::book::Outcome;
use crate::import::pattern::{self, Group};
use crate::import::sheet::{Section, table};
use crate::import::tree::Directive;

/// What the rules of a virtual host come to.
#[derive(Debug, Default)]
pub(super) struct Rules<'a> {
    pub items: Vec<Item<'a>>,
    pub upgrades: Vec<Upgrade<'a>>,
    /// Paths that the item at this position leaves to those behind it.
    pub excluded: Vec<(usize, String)>,
    /// The file that stands for those that aren't there.
    pub fallback: Option<(String, &'a Directive)>,
}

/// What a condition asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Upgrade,
    NotUpgrade,
    /// It holds wherever the one for the upgrade does.
    Connection,
    Plain,
    Host(String),
    Below(String),
    NotBelow(String),
    NotFile,
    Trace,
    Other,
}

fn condition(directive: &Directive) -> Condition {
    let lower = directive.arg(1).to_ascii_lowercase();
    let bare = lower.trim_start_matches(['=', '^', '!', '"']).trim_end_matches(['$', '"']).replace('\\', "");
    let is_negated = lower.starts_with('!');
    let name = directive.arg(0).to_ascii_lowercase();
    let below = |text: &str| {
        let text = upgrades::dotted(directive.arg(1).strip_prefix(text)?);
        let (front, rest) = pattern::literal_front(&text);
        (front.starts_with('/') && matches!(rest, "" | "$" | ".*" | "(.*)" | ".*$" | "(.*)$"))
            .then_some(front)
    };
    match name.as_str() {
        "%{http:upgrade}" if bare == "websocket" && is_negated => Condition::NotUpgrade,
        "%{http:upgrade}" if bare == "websocket" => Condition::Upgrade,
        "%{http:connection}" if bare.contains("upgrade") && !is_negated => Condition::Connection,
        // Clients of Socket.IO say so in their handshakes.
        "%{query_string}" if bare == "transport=websocket" && !is_negated => Condition::Upgrade,
        "%{https}" if matches!(lower.as_str(), "off" | "=off" | "!=on" | "!on" | "^off$") => Condition::Plain,
        "%{server_port}" if matches!(lower.as_str(), "80" | "^80$" | "=80" | "!443" | "!^443$" | "!=443") => {
            Condition::Plain
        }
        "%{server_name}" | "%{http_host}" if !is_negated => Condition::Host(bare),
        "%{request_uri}" => match (below("^"), below("!^").or_else(|| below("!="))) {
            (Some(path), _) => Condition::Below(path),
            (_, Some(path)) => Condition::NotBelow(path),
            _ => Condition::Other,
        },
        "%{request_filename}" if matches!(lower.as_str(), "!-f" | "!-d" | "!-l") => Condition::NotFile,
        "%{document_root}%{request_uri}" | "%{document_root}/%{request_uri}"
            if matches!(lower.as_str(), "!-f" | "!-d") =>
        {
            Condition::NotFile
        }
        "%{request_method}"
            if bare.trim_matches(['(', ')']).split('|').all(|m| matches!(m, "trace" | "track")) =>
        {
            Condition::Trace
        }
        _ => Condition::Other,
    }
}

/// A rule with what stands in front of it.
struct Rule<'a> {
    directive: &'a Directive,
    conditions: Vec<&'a Directive>,
    kinds: Vec<Condition>,
    flags: Vec<String>,
    is_of_directory: bool,
    /// The pattern, as for whole paths.
    theirs: String,
    new: String,
}

impl<'a> Rule<'a> {
    /// `base`: the path of the directory that it is for, whose paths have no slash in front.
    fn of(directive: &'a Directive, conditions: Vec<&'a Directive>, base: Option<&str>) -> Self {
        let flags = directive.arg(2).trim_matches(['[', ']']).to_ascii_lowercase();
        let theirs = match (base, directive.arg(0).strip_prefix('^')) {
            (Some(base), Some(rest)) => format!("^{}/{rest}", pattern::escaped(bare(base))),
            (Some(_), None) if directive.arg(0) == "." => ".*".to_owned(),
            _ => directive.arg(0).to_owned(),
        };
        let kinds = conditions.iter().map(|directive| condition(directive)).collect();
        let flags = flags.split(',').map(|flag| flag.trim().to_owned()).collect();
        let is_of_directory = base.is_some();
        Self {
            directive,
            conditions,
            kinds,
            flags,
            is_of_directory,
            theirs,
            new: directive.arg(1).to_owned(),
        }
    }

    fn has(&self, names: &[&str]) -> bool {
        self.flags.iter().any(|flag| names.contains(&flag.as_str()))
    }

    /// One of the conditions is enough.
    fn has_or(&self) -> bool {
        self.conditions.iter().any(|condition| condition.arg(2).to_ascii_lowercase().contains("or"))
    }

    fn is(&self, kind: &Condition) -> bool {
        self.kinds.contains(kind)
    }

    /// The status that it answers with.
    fn status(&self) -> Option<u32> {
        self.flags.iter().find_map(|flag| match flag.split_once('=').unwrap_or((flag, "302")) {
            ("r" | "redirect", "permanent") => Some(301),
            ("r" | "redirect", "temp") => Some(302),
            ("r" | "redirect", "seeother") => Some(303),
            ("r" | "redirect", code) => code.parse().ok(),
            ("f" | "forbidden", _) => Some(403),
            ("g" | "gone", _) => Some(410),
            _ => None,
        })
    }

    /// It is for the paths that its pattern doesn't match.
    fn is_negated(&self) -> bool {
        self.directive.arg(0).starts_with('!')
    }

    /// Its paths, and perhaps more.
    fn wider(&self) -> Taken {
        if self.is_negated() || pattern::matches_all(&self.theirs).is_some() {
            return Taken::Path("/".to_owned());
        }
        Taken::wider(&self.theirs, self.has(&["nc", "nocase"]))
    }

    /// Its paths; `None`: they have no counterpart.
    fn taken(&self) -> Option<Taken> {
        if self.is_negated() {
            return None;
        }
        let of_pattern = match pattern::matches_all(&self.theirs) {
            Some(_) => Taken::Path("/".to_owned()),
            None => Taken::pattern(&self.theirs, self.has(&["nc", "nocase"])).ok()?,
        };
        let below = self
            .kinds
            .iter()
            .find_map(|kind| if let Condition::Below(path) = kind { Some(path) } else { None });
        match below {
            None => Some(of_pattern),
            Some(path) if of_pattern == Taken::Path("/".to_owned()) => Some(Taken::Path(path.clone())),
            Some(path) => of_pattern.is_below(path).then_some(of_pattern),
        }
    }
}

/// Reads them in their order: those of the virtual host, then those of directories, which count behind them.
pub(super) fn read<'a>(context: &mut Context<'a>, found: &Vhost<'a>, notes: &mut Section) -> Rules<'a> {
    let mut rules = Rules::default();
    let own: Vec<&Directive> = found.scope.own.clone();
    block(context, found, &own, None, notes, &mut rules);
    rules
}

/// The rules of a block. Those of a `<Directory>` are for files alone: `base` is the path that it stands for.
pub(super) fn block<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    block: &[&'a Directive],
    base: Option<&str>,
    notes: &mut Section,
    rules: &mut Rules<'a>,
) {
    let mut conditions: Vec<&'a Directive> = Vec::new();
    let engine = block.iter().rev().find(|directive| directive.name == "rewriteengine");
    let is_on = engine.is_some_and(|engine| engine.arg(0).eq_ignore_ascii_case("on"));
    for directive in block {
        match directive.name.as_str() {
            "rewriteengine" => context.book.itself(notes, directive, "rules are routes here"),
            "rewritecond" => conditions.push(directive),
            "rewriterule" if !is_on => {
                conditions.drain(..).chain([*directive]).for_each(|directive| {
                    context.book.lacks(notes, directive, "RewriteEngine is not on, so it is not asked");
                });
            }
            "rewriterule" => {
                let rule = Rule::of(directive, std::mem::take(&mut conditions), base);
                let outcome =
                    if read_rule(context, found, &rule, base.is_none_or(|base| base == "/"), notes, rules) {
                        Outcome::Key
                    } else {
                        missing(context, &rule, notes, rules);
                        Outcome::Commented
                    };
                rule.conditions.iter().for_each(|condition| context.book.mark(condition, outcome));
            }
            _ => {}
        }
    }
}

/// Says that a rule has no counterpart; if it keeps requests out, its paths are closed.
fn missing<'a>(context: &mut Context<'a>, rule: &Rule<'a>, notes: &mut Section, rules: &mut Rules<'a>) {
    let shown: Vec<String> = rule.conditions.iter().map(|condition| condition.shown()).collect();
    let if_any = if shown.is_empty() { String::new() } else { format!(" (if {})", shown.join("; ")) };
    if let Some(status @ 400..500) = rule.status() {
        let taken = rule.taken().unwrap_or_else(|| rule.wider());
        let what = format!(
            "this rule{if_any} keeps requests out, and has no counterpart: nobody gets its paths until you have written one"
        );
        context.book.misses(notes, rule.directive, &what);
        return rules.items.push(Item::early(taken, answer(status)));
    }
    let what = format!(
        "this rule{if_any} has no counterpart: write a route with path_regex, and with rewrite, redirect or when"
    );
    context.book.misses(notes, rule.directive, &what);
}

fn read_rule<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    rule: &Rule<'a>,
    is_of_root: bool,
    notes: &mut Section,
    rules: &mut Rules<'a>,
) -> bool {
    let directive = rule.directive;
    if rule.new == "-" && rule.status().is_none() {
        if rule.flags.iter().all(|flag| flag.starts_with("e=") || flag.starts_with("env=")) {
            context.book.itself(
                notes,
                directive,
                "fields of clients are passed on, and there are no variables",
            );
            return true;
        }
        // `^index\.php$ - [L]` keeps a front controller from being asked for itself.
        let is_name = |path: String| path.rsplit('/').next().is_some_and(|name| name.contains('.'));
        if pattern::only_path(&rule.theirs).is_some_and(is_name) && rule.kinds.is_empty() {
            context.book.itself(notes, directive, "a file that is there is served, or run");
            return true;
        }
        return false;
    }
    if !rule.kinds.is_empty()
        && rule.kinds.iter().all(|kind| *kind == Condition::Trace)
        && rule.status().is_some()
    {
        context.book.itself(notes, directive, "TRACE and TRACK are refused");
        return true;
    }
    let is_proxy = rule.has(&["p", "proxy"]);
    let of_paths = |kind: &&Condition| matches!(kind, Condition::Below(_));
    let others: Vec<&Condition> = rule.kinds.iter().filter(|kind| !of_paths(kind)).collect();
    if is_proxy && rule.is(&Condition::Upgrade) && !rule.has_or() {
        let is_known = others.iter().all(|kind| matches!(kind, Condition::Upgrade | Condition::Connection));
        let below = rule.taken().filter(|_| rule.kinds.len() > others.len());
        let Some(upgrade) = upgrades::of(directive, &rule.theirs, &rule.new, below).filter(|_| is_known)
        else {
            return false;
        };
        context.book.mark(directive, Outcome::Key);
        rules.upgrades.push(upgrade);
        return true;
    }
    if is_proxy && others.iter().all(|kind| **kind == Condition::NotUpgrade) && !rule.has_or() {
        let Some(taken) = rule.taken() else { return false };
        let new = rule.new.replace(
            "%{REQUEST_URI}",
            if pattern::matches_all(&rule.theirs).is_some() { "/$1" } else { "%" },
        );
        rules.items.push(proxy(context, directive, taken, &rule.theirs, &new));
        return true;
    }
    if let Some(status) = rule.status() {
        return answered(context, found, rule, status, rules);
    }
    is_of_root && front_controller(context, rule, &others, rules)
}

/// `RewriteRule . /index.php`, where there is no file.
fn front_controller<'a>(
    context: &mut Context<'a>,
    rule: &Rule<'a>,
    others: &[&Condition],
    rules: &mut Rules<'a>,
) -> bool {
    let is_all =
        matches!(rule.theirs.as_str(), "^" | ".*" | "." | "^/(.*)$" | "^/.*$" | "^/(.+)$" | "^/" | "(.*)");
    let name = rule.new.split(['?', '$']).next().unwrap_or_default();
    let name = name.trim_end_matches('/');
    let is_file =
        name.rsplit('/').next().is_some_and(|file| file.contains('.')) && !name.contains(['%', ':']);
    let is_without = others.iter().all(|kind| **kind == Condition::NotFile) && !others.is_empty();
    // Outside of a directory REQUEST_FILENAME is the path, and no file.
    let is_path = |condition: &&Directive| condition.arg(0).eq_ignore_ascii_case("%{request_filename}");
    let is_without = is_without && (rule.is_of_directory || !rule.conditions.iter().any(is_path));
    if !(is_all && is_file && is_without) {
        return false;
    }
    context.book.mark(rule.directive, Outcome::Key);
    rules.fallback = Some((format!("/{}", name.trim_start_matches('/')), rule.directive));
    true
}

/// Redirects and refusals.
fn answered<'a>(
    context: &mut Context<'a>,
    found: &Vhost<'a>,
    rule: &Rule<'a>,
    status: u32,
    rules: &mut Rules<'a>,
) -> bool {
    let Some(taken) = rule.taken() else { return false };
    let is_plain = rule.is(&Condition::Plain);
    let (mut hosts, mut excluded) = (Vec::new(), Vec::new());
    for kind in &rule.kinds {
        match kind {
            Condition::Plain | Condition::Below(_) => {}
            Condition::NotBelow(path) => excluded.push(path.clone()),
            Condition::Host(host) => hosts.push(host),
            _ => return false,
        }
    }
    // certbot names all hosts of the virtual host, one after the other.
    let is_every_host = hosts.is_empty()
        || !found.hosts.is_empty() && found.hosts.iter().all(|host| hosts.contains(&host)) && !is_plain;
    if !is_every_host || rule.has_or() && hosts.is_empty() || rule.kinds.len() > hosts.len() && rule.has_or()
    {
        return false;
    }
    let Some(section) = section(context, rule, status) else { return false };
    let item = Item { tls: is_plain.then_some(false), ..Item::early(taken, section) };
    rules.excluded.extend(excluded.into_iter().map(|path| (rules.items.len(), path)));
    rules.items.push(item);
    true
}

fn section(context: &mut Context<'_>, rule: &Rule<'_>, status: u32) -> Option<Section> {
    let mut section = Section::default();
    if matches!(status, 403 | 410) || (400..600).contains(&status) {
        context.book.key(&mut section, rule.directive, "respond", status);
        return Some(section);
    }
    if !matches!(status, 301 | 302 | 303 | 307 | 308) || rule.new == "-" {
        return None;
    }
    // Braces of ours are put in at the end.
    let mut to = rule.new.replace('{', "\u{1}").replace('}', "\u{2}");
    for (theirs, ours) in [
        ("%\u{1}HTTP_HOST\u{2}", "\u{3}host\u{2}"),
        ("%\u{1}SERVER_NAME\u{2}", "\u{3}host\u{2}"),
        ("%\u{1}REQUEST_URI\u{2}", "\u{3}path\u{2}"),
        ("?%\u{1}QUERY_STRING\u{2}", "\u{3}query\u{2}"),
    ] {
        to = to.replace(theirs, ours);
    }
    match pattern::matches_all(&rule.theirs) {
        Some(Some(Group::Path)) => to = to.replace("$1", "\u{3}path\u{2}"),
        Some(Some(Group::PathWithoutSlash)) => {
            to = to.replace("/$1", "\u{3}path\u{2}").replace("$1", "\u{3}path\u{2}");
        }
        _ => {}
    }
    if to.contains('%') || to.contains('\u{1}') && to.contains('$') {
        return None;
    }
    let mut to = groups(&to.replace('\u{1}', "{")).replace('\u{3}', "{").replace('\u{2}', "}");
    if to.contains('$') {
        return None;
    }
    if !to.contains('?') && !to.contains("{query}") && !rule.has(&["qsd", "qsdiscard"]) {
        to.push_str("{query}");
    }
    let to = to.strip_suffix('?').unwrap_or(&to).to_owned();
    context.book.key(
        &mut section,
        rule.directive,
        "redirect",
        table([("to", to.into()), ("status", status.into())]),
    );
    Some(section)
}
