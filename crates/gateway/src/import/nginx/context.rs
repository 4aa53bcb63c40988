//! What all parts of the translation add to, and what is said of directives that none of them has looked at.

use std::collections::HashMap;
use std::path::PathBuf;

use super::known::{is_key, known};
use crate::import::book::{Book, Outcome};
use crate::import::known::Known;
use crate::import::sheet::Section;
use crate::import::site::Site;
use crate::import::tree::Directive;

/// Everything that the translation adds to.
pub(super) struct Context<'a> {
    pub book: Book,
    pub site: Site,
    pub upstreams: Upstreams<'a>,
    /// What `limit_req_zone` and `limit_conn_zone` say, by the name of the zone.
    pub zones: HashMap<&'a str, &'a Directive>,
    pub places: Places,
    /// Included files that aren't there, by the number of the directive.
    pub unread: HashMap<usize, String>,
}

/// Where relative names begin.
pub(super) struct Places {
    /// Certificates, passwords, included files: the directory of the first file.
    pub conf: PathBuf,
    /// Files that are served: nginx's `--prefix`.
    pub prefix: PathBuf,
}

impl Places {
    pub(super) fn conf(&self, name: &str) -> String {
        self.conf.join(name).display().to_string()
    }

    pub(super) fn prefix(&self, name: &str) -> String {
        self.prefix.join(name).display().to_string()
    }
}

impl Context<'_> {
    /// Says something about every directive of a block of which nothing was said.
    pub(super) fn finish(&mut self, block: &[Directive], section: &mut Section) {
        for directive in self.book.unknown(block) {
            if directive.name == "include" {
                match self.unread.get(&directive.id) {
                    None => self.book.mark(directive, Outcome::ByItself),
                    Some(_) if directive.arg(0).ends_with("mime.types") => {
                        let how = "the gateway knows media types by the extension of a file";
                        self.book.itself(section, directive, how);
                    }
                    Some(why) => {
                        let what = format!("{why}; what it has is not here");
                        self.book.misses(section, directive, &what);
                    }
                }
                continue;
            }
            match known(&directive.name) {
                Some(Known::Itself(how)) => self.book.itself(section, directive, how),
                Some(Known::Lacks(meaning)) => self.book.lacks(section, directive, meaning),
                Some(Known::Misses(meaning)) => self.book.misses(section, directive, meaning),
                None if is_key(&directive.name) => {
                    self.book.lacks(section, directive, "nothing has a use for it here");
                }
                None => {
                    let meaning = "this directive is not known to wssgate import; nothing stands here for it";
                    self.book.misses(section, directive, meaning);
                }
            }
            // What is in a block without counterpart has none either.
            if directive.block.is_some() {
                let outcome = match known(&directive.name) {
                    Some(Known::Itself(_)) => Outcome::ByItself,
                    _ => Outcome::Commented,
                };
                self.book.mark_all(directive.inside(), outcome);
            }
        }
    }
}

/// The upstreams of a file, and which of them routes name.
#[derive(Debug, Default)]
pub(super) struct Upstreams<'a> {
    all: Vec<&'a Directive>,
    /// The section of each that is used, once for `http` and once for `https`: name, scheme, name of ours.
    pub written: Vec<(String, bool, String)>,
}

impl<'a> Upstreams<'a> {
    pub(super) fn of(directives: &'a [Directive]) -> Self {
        let all = directives.iter().filter(|directive| directive.name == "upstream").collect();
        Self { all, written: Vec::new() }
    }

    pub(super) fn find(&self, name: &str) -> Option<&'a Directive> {
        self.all.iter().find(|upstream| upstream.arg(0) == name).copied()
    }

    /// Those that no route names.
    pub(super) fn unused(&self) -> Vec<&'a Directive> {
        let is_unused =
            |upstream: &&&'a Directive| self.written.iter().all(|(name, ..)| name != upstream.arg(0));
        self.all.iter().filter(is_unused).copied().collect()
    }

    /// The addresses of an upstream's servers, and whether it says more than these.
    pub(super) fn servers(&self, name: &str) -> Option<(Vec<String>, bool)> {
        let inside = self.find(name)?.inside();
        let servers = inside.iter().filter(|directive| directive.name == "server");
        let says_more = inside.iter().any(|directive| directive.name != "server" || directive.args.len() > 1);
        Some((servers.map(|server| server.arg(0).to_owned()).collect(), says_more))
    }
}
