//! What the translation adds to, and what is said about each directive in the end.

use std::collections::HashMap;
use std::path::PathBuf;

use super::conditions::Verdict;
use super::known::{is_key, known};
use super::parse::Parsed;
use crate::import::book::{Book, Outcome};
use crate::import::known::Known;
use crate::import::sheet::Section;
use crate::import::site::Site;
use crate::import::tree::{At, Directive};

/// Everything that the translation adds to.
pub(super) struct Context<'a> {
    pub book: Book,
    pub site: Site,
    /// Where relative names begin: `ServerRoot`.
    pub root: PathBuf,
    /// `<Proxy balancer://…>`, by name.
    pub balancers: HashMap<String, &'a Directive>,
    /// Included files that aren't there, by the number of the directive.
    unread: HashMap<usize, String>,
    /// What was found of `<IfModule>` and its like, by the number of the directive.
    verdicts: HashMap<usize, Verdict>,
}

impl Context<'_> {
    pub(super) fn new(parsed: &Parsed, root: PathBuf) -> Self {
        Self {
            book: Book::new(parsed.count),
            site: Site::default(),
            root,
            balancers: HashMap::new(),
            unread: parsed.unread.iter().cloned().collect(),
            verdicts: parsed.verdicts.iter().cloned().collect(),
        }
    }

    /// A file's whole name; `None`: there is a variable in it.
    pub(super) fn path(&self, name: &str) -> Option<String> {
        (!name.contains("${")).then(|| self.root.join(name).display().to_string())
    }

    /// Says something about each of these of which nothing was said.
    pub(super) fn finish<'b>(
        &mut self,
        directives: impl IntoIterator<Item = &'b Directive>,
        section: &mut Section,
    ) {
        for directive in directives {
            if !self.book.knows(directive) {
                self.say(directive, section);
            }
        }
    }

    fn say(&mut self, directive: &Directive, section: &mut Section) {
        let book = &mut self.book;
        if let Some(verdict) = self.verdicts.get(&directive.id) {
            match (verdict.assumed, verdict.holds) {
                (None, true) => book.mark(directive, Outcome::ByItself),
                (Some(why), true) => book.itself(section, directive, why),
                (None, false) => {
                    book.lacks(section, directive, "it doesn't hold, so what is in it is left out");
                }
                (Some(why), false) => {
                    book.lacks(section, directive, &format!("{why}; so what is in it is left out"));
                }
            }
            return book.mark_all(directive.inside(), Outcome::Commented);
        }
        if matches!(directive.name.as_str(), "include" | "includeoptional") {
            return match self.unread.get(&directive.id) {
                Some(why) if directive.name == "include" => {
                    book.misses(section, directive, &format!("{why}; what it has is not here"));
                }
                Some(why) => book.itself(section, directive, why),
                None => book.mark(directive, Outcome::ByItself),
            };
        }
        if directive.name == "allowoverride" {
            return if directive.arg(0).eq_ignore_ascii_case("none") {
                book.itself(section, directive, "files such as .htaccess are not read");
            } else {
                let meaning = "files such as .htaccess are not read: what they say, rules for access too, has to be written here";
                book.misses(section, directive, meaning);
            };
        }
        let outcome = match known(&directive.name) {
            Some(Known::Itself(how)) => {
                book.itself(section, directive, how);
                Outcome::ByItself
            }
            Some(Known::Lacks(meaning)) => {
                book.lacks(section, directive, meaning);
                Outcome::Commented
            }
            Some(Known::Misses(meaning)) => {
                book.misses(section, directive, meaning);
                Outcome::Commented
            }
            None if matches!(directive.name.as_str(), "if" | "elseif" | "else") => {
                book.misses(
                    section,
                    directive,
                    "conditions have no counterpart but host, listener and when: write routes with these",
                );
                Outcome::Commented
            }
            None if is_key(&directive.name) => {
                book.lacks(section, directive, "nothing has a use for it here");
                Outcome::Commented
            }
            None => {
                let meaning = "this directive is not known to wssgate import; nothing stands here for it";
                book.misses(section, directive, meaning);
                Outcome::Commented
            }
        };
        book.mark_all(directive.inside(), outcome);
    }

    /// Says which `${NAME}`s have no value.
    pub(super) fn undefined(&mut self, names: &[(At, String)]) {
        for (at, name) in names {
            let what = "nothing that was read defines it: put its value in, where it stands in the new file";
            let named = Directive {
                id: usize::MAX,
                name: format!("${{{name}}}"),
                args: Vec::new(),
                at: at.clone(),
                block: None,
            };
            self.book.remark(&named, what);
            self.site.head.note(format!("{at}: ${{{name}}}: {what}"));
        }
    }
}
