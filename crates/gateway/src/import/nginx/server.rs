//! One `server`: the hosts that it takes, and its routes.

use super::context::Context;
use super::listen::{Listen, Name, listens, name, unsaid};
use super::scope::Scope;
use super::variables::{Facts, Use, template};
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// A server, with what is known of it before its routes.
pub(super) struct Server<'a> {
    pub directive: Option<&'a Directive>,
    pub scope: Scope<'a>,
    pub listens: Vec<Listen>,
    /// As our routes have them.
    pub hosts: Vec<String>,
    pub facts: Facts,
    /// One of its listeners speaks TLS.
    pub has_tls: bool,
    /// What is said about it as a whole.
    pub notes: Section,
}

impl<'a> Server<'a> {
    pub(super) fn of(context: &mut Context<'a>, directive: Option<&'a Directive>, scope: Scope<'a>) -> Self {
        let book = &mut context.book;
        let mut server = Self {
            directive,
            scope,
            listens: Vec::new(),
            hosts: Vec::new(),
            facts: Facts::default(),
            has_tls: false,
            notes: Section::default(),
        };
        for listen in server.scope.own_all("listen") {
            match listens(listen) {
                Ok(found) => {
                    book.mark(listen, Outcome::Key);
                    for parameter in found.iter().flat_map(|listen| &listen.unknown) {
                        server.notes.note(format!("{}: {parameter} of listen has no counterpart", listen.at));
                    }
                    server.listens.extend(found);
                }
                Err(what) => book.misses(&mut server.notes, listen, &what),
            }
        }
        if server.scope.own_all("listen").next().is_none() {
            server.listens.push(unsaid());
        }
        for ssl in server.scope.own_all("ssl").filter(|ssl| ssl.arg(0) == "on") {
            book.mark(ssl, Outcome::Key);
            server.listens.iter_mut().for_each(|listen| listen.has_tls = true);
        }
        for names in server.scope.own_all("server_name") {
            book.mark(names, Outcome::Key);
            for text in &names.args {
                match name(text) {
                    Name::Host(host) => {
                        if host.starts_with("*.") {
                            server.notes.note(format!(
                                "{}: {host} is one label before the name here, and any number of them in nginx",
                                names.at
                            ));
                        }
                        server.hosts.push(host);
                    }
                    Name::Both(bare) => server.hosts.extend([format!("*.{bare}"), bare]),
                    Name::None => {}
                    Name::Unknown(why) => {
                        book.remark(names, &format!("{text}: {why}"));
                        server.notes.note(format!("{}: server_name {text}: {why}", names.at));
                    }
                }
            }
        }
        let mut seen = Vec::new();
        server.hosts.retain(|host| {
            !seen.contains(host) && {
                seen.push(host.clone());
                true
            }
        });
        server.facts = server.facts_of(context);
        server
    }

    /// Variables that always have the same value in this server.
    fn facts_of(&self, context: &mut Context<'_>) -> Facts {
        let mut facts = Facts::default();
        if let Some(first) =
            self.scope.find("server_name").map(|names| names.arg(0)).filter(|name| *name != "_")
        {
            facts.constants.insert("server_name".to_owned(), first.to_owned());
        }
        set(context, &self.scope, &mut facts);
        facts
    }

    pub(super) fn title(&self) -> String {
        let place = self.directive.map(|directive| format!(" ({})", directive.at)).unwrap_or_default();
        let names: Vec<&str> =
            self.scope.own_all("server_name").flat_map(|d| &d.args).map(String::as_str).collect();
        let names = if names.is_empty() { "every host".to_owned() } else { names.join(" ") };
        format!("{}{place}", names.chars().take(80).collect::<String>())
    }
}

/// Takes in what `set` says in a block, where that is always the same.
pub(super) fn set(context: &mut Context<'_>, scope: &Scope<'_>, facts: &mut Facts) {
    let of_block: Vec<_> = scope.own_all("set").collect();
    for set in &of_block {
        let name = set.arg(0).trim_start_matches('$').to_owned();
        let is_once = of_block.iter().filter(|other| other.arg(0) == set.arg(0)).count() == 1;
        match template(set.arg(1), facts, Use::Constant) {
            Ok(value) if is_once => {
                context.book.mark(set, Outcome::ByItself);
                facts.constants.insert(name, value);
            }
            _ => drop(facts.constants.remove(&name)),
        }
    }
}
