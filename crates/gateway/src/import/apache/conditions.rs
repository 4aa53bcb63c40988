//! Which of `<IfModule>`, `<IfDefine>` and their like hold, as far as the files say so; what is assumed is said. Pure.

use std::collections::{HashMap, HashSet};

use crate::import::tree::Directive;

/// Modules that are a part of the program.
const BUILT_IN: [&str; 8] = ["core", "http", "log_config", "logio", "so", "unixd", "version", "watchdog"];
/// The version that `<IfVersion>` is asked about: the newest of 2.4.
const VERSION: [u32; 3] = [2, 4, 999];

/// The longest line that has values of variables in it: a value may have others in it, and so double with each line.
const EXPANDED_LEN_MAX: usize = 64 << 10;

/// Whether a section's lines are read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub holds: bool,
    /// A sentence, where the files alone don't say it.
    pub assumed: Option<&'static str>,
}

/// What has been said so far.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    defined: HashMap<String, String>,
    modules: HashSet<String>,
}

impl Conditions {
    /// Notes what a directive says of names and modules.
    pub(super) fn note(&mut self, directive: &Directive) {
        match directive.name.as_str() {
            "define" => {
                self.defined.insert(directive.arg(0).to_owned(), directive.arg(1).to_owned());
            }
            "undefine" => drop(self.defined.remove(directive.arg(0))),
            "loadmodule" => drop(self.modules.insert(module(directive.arg(0)).to_owned())),
            _ => {}
        }
    }

    /// A name with its value, from somewhere else than a `Define`.
    pub(super) fn define(&mut self, name: &str, value: String) {
        self.defined.insert(name.to_owned(), value);
    }

    /// Puts in what is defined, and gives the names that are not: those stay as they are, as in Apache.
    ///
    /// # Errors
    /// A sentence: the line would be longer than [`EXPANDED_LEN_MAX`].
    pub(super) fn expanded(&self, line: &str) -> Result<(String, Vec<String>), String> {
        let too_long =
            || format!("more than {} KiB with the values of its variables", EXPANDED_LEN_MAX >> 10);
        let (mut out, mut unknown) = (String::new(), Vec::new());
        let mut rest = line;
        while let Some((before, behind)) = rest.split_once("${") {
            out.push_str(before);
            match behind.split_once('}').map(|(name, rest)| (name, self.defined.get(name), rest)) {
                Some((_, Some(value), behind)) => {
                    if out.len() + value.len() + behind.len() > EXPANDED_LEN_MAX {
                        return Err(too_long());
                    }
                    out.push_str(value);
                    rest = behind;
                }
                found => {
                    // `${map:key}` is a RewriteMap's.
                    let name = found.map(|(name, ..)| name).filter(|name| !name.contains(':'));
                    unknown.extend(name.map(str::to_owned));
                    out.push_str("${");
                    rest = behind;
                }
            }
        }
        Ok((out + rest, unknown))
    }

    /// The list of modules is a whole one. A file of a site may load one that it needs.
    fn knows_modules(&self) -> bool {
        ["authz_core", "authz_host"].iter().any(|name| self.modules.contains(*name))
    }

    /// Whether the lines of this section are read; `None`: it is no condition.
    pub(super) fn verdict(&self, section: &Directive) -> Option<Verdict> {
        let test = section.arg(0);
        let (bare, is_negated) = test.strip_prefix('!').map_or((test, false), |bare| (bare, true));
        let (is_there, assumed) = match section.name.as_str() {
            "ifmodule" if !self.knows_modules() => {
                (true, Some("the files don't say which modules are there, so all are taken to be"))
            }
            "ifmodule" => {
                let name = module(bare);
                (self.modules.contains(name) || BUILT_IN.contains(&name), None)
            }
            "ifdefine" => {
                let is_there = self.defined.contains_key(bare);
                let assumed =
                    "no Define has this name; if the command line does (-D), it is to be read with it";
                (is_there, (!is_there).then_some(assumed))
            }
            "ifversion" => {
                let operator = if section.args.len() > 1 { bare } else { "=" };
                let version = section.args.last().map_or("", String::as_str);
                (is_version(operator, version), Some("the version is taken to be the newest of 2.4"))
            }
            "iffile" => (true, Some("no other files are looked at, so it is taken to be there")),
            "ifdirective" | "ifsection" => (true, Some("it is taken to be there")),
            _ => return None,
        };
        Some(Verdict { holds: is_there != is_negated, assumed })
    }
}

/// `ssl` of `mod_ssl.c` and of `ssl_module`.
fn module(text: &str) -> &str {
    let text = text.strip_prefix("mod_").unwrap_or(text);
    let text = text.strip_suffix(".c").or_else(|| text.strip_suffix("_module")).unwrap_or(text);
    text.strip_prefix("mpm_").unwrap_or(text)
}

fn is_version(operator: &str, text: &str) -> bool {
    let parts: Vec<u32> = text.split('.').filter_map(|part| part.parse().ok()).collect();
    // A part that isn't named may be any one.
    let ours = &VERSION[..parts.len().min(3)];
    let order = ours.cmp(&parts[..ours.len()]);
    match operator {
        ">=" => order.is_ge(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        "<" => order.is_lt(),
        _ => order.is_eq(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::tree::At;

    fn directive(text: &str) -> Directive {
        let mut words = text.split(' ').map(str::to_owned);
        let name = words.next().unwrap();
        let at = At { file: "test".into(), line: 1 };
        Directive { id: 0, name, args: words.collect(), at, block: None }
    }

    #[track_caller]
    fn check(conditions: &Conditions, text: &str, holds: bool, is_assumed: bool) {
        let verdict = conditions.verdict(&directive(text)).unwrap();
        assert_eq!((verdict.holds, verdict.assumed.is_some()), (holds, is_assumed), "{text}");
    }

    #[test]
    fn modules_are_assumed_until_one_is_loaded() {
        let mut conditions = Conditions::default();
        check(&conditions, "ifmodule mod_ssl.c", true, true);
        check(&conditions, "ifmodule !ssl_module", false, true);
        conditions.note(&directive("loadmodule ssl_module modules/mod_ssl.so"));
        check(&conditions, "ifmodule headers_module", true, true);
        conditions.note(&directive("loadmodule authz_core_module modules/mod_authz_core.so"));
        check(&conditions, "ifmodule mod_ssl.c", true, false);
        check(&conditions, "ifmodule headers_module", false, false);
        check(&conditions, "ifmodule !mod_headers.c", true, false);
        check(&conditions, "ifmodule mod_version.c", true, false);
    }

    #[test]
    fn names_and_versions() {
        let mut conditions = Conditions::default();
        check(&conditions, "ifdefine TLS", false, true);
        check(&conditions, "ifdefine !TLS", true, true);
        conditions.note(&directive("define TLS on"));
        check(&conditions, "ifdefine TLS", true, false);
        for (text, holds) in [
            ("ifversion >= 2.4", true),
            ("ifversion < 2.4", false),
            ("ifversion <= 2.2", false),
            ("ifversion > 2.4.30", true),
            ("ifversion 2.4", true),
            ("ifversion !>= 2.4", false),
        ] {
            check(&conditions, text, holds, true);
        }
        assert_eq!(conditions.verdict(&directive("location /")), None);
        assert_eq!(
            conditions.expanded("a${TLS}b${NO}c${m:k}d${"),
            Ok(("aonb${NO}c${m:k}d${".to_owned(), vec!["NO".to_owned()]))
        );
    }
}
