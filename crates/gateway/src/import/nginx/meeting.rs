//! The paths that patterns and prefixes have in common, as patterns of ours. Pure.

use std::collections::HashMap;

use super::location::Location;
use crate::import::paths::{Paths, TooLarge, example};
use crate::import::pieces::alternatives;
use crate::site::matcher::PathRegex;

/// Patterns, by the position of their location, and the sets of paths that they are.
pub(super) struct Meeting<'b> {
    patterns: Vec<Option<&'b str>>,
    sets: HashMap<String, Result<Paths, TooLarge>>,
}

/// What several patterns have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Met {
    pub pattern: String,
    /// A path that makes a difference, if the pattern isn't quite that.
    pub differs: Option<String>,
}

impl<'b> Meeting<'b> {
    pub(super) fn new(locations: &'b [Location<'_>]) -> Self {
        let pattern = |location: &'b Location<'_>| location.pattern.as_ref().map(PathRegex::as_str);
        Self { patterns: locations.iter().map(pattern).collect(), sets: HashMap::new() }
    }

    /// Some path of `within` is also one of this location's pattern, or it isn't known.
    pub(super) fn meets(&mut self, within: &str, location: usize) -> bool {
        self.patterns[location].is_some_and(|pattern| self.meets_text(within, pattern))
    }

    /// Some path of `within` is also one of this pattern, or it isn't known.
    pub(super) fn meets_text(&mut self, within: &str, pattern: &str) -> bool {
        self.example(&[within, pattern], &[]) != Ok(None)
    }

    /// The paths of `within` (`None`: all) that the patterns `around` and that of the location take; `None`: there are none.
    /// If they can't be said, the pattern takes more of `within`, if it `keeps_out` requests, and less if it doesn't.
    pub(super) fn of(
        &mut self,
        within: Option<&str>,
        around: &[usize],
        location: usize,
        keeps_out: bool,
    ) -> Option<Met> {
        let theirs = self.patterns[location]?;
        let around = around.iter().filter_map(|number| self.patterns[*number]);
        let all: Vec<&str> = within.into_iter().chain(around).collect();
        if all.is_empty() {
            return Some(Met { pattern: theirs.to_owned(), differs: None });
        }
        let exact = |pattern: String| Some(Met { pattern, differs: None });
        let common = [&all[..], &[theirs]].concat();
        if self.example(&common, &[]) == Ok(None) {
            return None;
        }
        if let Some(whole) = common.iter().rev().find(|one| self.is_same(&common, one)) {
            return exact((*whole).to_owned());
        }
        let has_groups = PathRegex::parse(theirs).is_ok_and(|theirs| theirs.groups() > 0);
        let mut joined = Vec::new();
        for one in split(theirs) {
            let common = [&all[..], &[&one]].concat();
            if !has_groups && self.example(&common, &[]) == Ok(None) {
                continue; // then none gets another number
            }
            let candidates = [one.clone()].into_iter().chain(behind(&all, &one));
            match candidates.into_iter().find(|candidate| self.is_same(&common, candidate)) {
                Some(found) => joined.push(found),
                None => return self.nearly(&all, theirs, keeps_out),
            }
        }
        exact(joined.join("|"))
    }

    fn nearly(&mut self, all: &[&str], theirs: &str, keeps_out: bool) -> Option<Met> {
        let unknown = "a path".to_owned();
        let common = [all, &[theirs]].concat();
        if keeps_out {
            let pattern = all[0].to_owned();
            let differs = self.example(&[all[0]], &[theirs]).ok().flatten().unwrap_or(unknown);
            return Some(Met { pattern, differs: Some(differs) });
        }
        let less: Vec<String> = split(theirs).iter().filter_map(|one| behind(all, one).next()).collect();
        let pattern = less.join("|");
        let differs = self.example(&common, &[&pattern]).ok().flatten().unwrap_or(unknown);
        Some(Met { pattern, differs: Some(differs) })
    }

    /// The candidate takes what all of these take, and no more.
    fn is_same(&mut self, all: &[&str], candidate: &str) -> bool {
        self.example(all, &[candidate]) == Ok(None)
            && all.iter().all(|one| self.example(&[candidate], &[one]) == Ok(None))
    }

    fn example(&mut self, all: &[&str], none: &[&str]) -> Result<Option<String>, TooLarge> {
        for pattern in all.iter().chain(none) {
            self.sets.entry((*pattern).to_owned()).or_insert_with(|| Paths::of(pattern));
        }
        let sets = |patterns: &[&str]| -> Result<Vec<&Paths>, TooLarge> {
            patterns.iter().map(|pattern| self.sets[*pattern].as_ref().map_err(|error| *error)).collect()
        };
        example(&sets(all)?, &sets(none)?)
    }
}

/// The alternatives of a pattern, each with its flag.
fn split(pattern: &str) -> Vec<String> {
    match pattern.strip_prefix("(?i)") {
        None => alternatives(pattern).into_iter().map(str::to_owned).collect(),
        Some(bare) => alternatives(bare).into_iter().map(|one| format!("(?i:{one})")).collect(),
    }
}

/// Patterns that take a path by `all` up to some place, and from there on by the last one.
fn behind(all: &[&str], last: &str) -> impl Iterator<Item = String> {
    let (open, bare, close) = match last.strip_prefix("(?i:").and_then(|bare| bare.strip_suffix(')')) {
        Some(bare) => ("(?i:", bare, ")"),
        None => ("", last, ""),
    };
    let bare = bare.strip_prefix(".*").or_else(|| bare.strip_prefix(".+")).unwrap_or(bare);
    // Groups of those in front are not asked for.
    let front: Vec<String> = all.iter().map(|one| without_groups(one)).collect();
    let front: String = front.iter().enumerate().fold(String::new(), |text, (number, one)| {
        let one = if number == 0 { one } else { one.strip_prefix(".*").unwrap_or(one) };
        format!("{text}{one}")
    });
    let bare_front = front.strip_suffix(".*").unwrap_or(&front).to_owned();
    let any = format!("{bare_front}.*{open}{bare}{close}");
    // The slash at the end of what is in front may be the one at the beginning.
    let at_slash = bare
        .strip_prefix('/')
        .filter(|_| bare_front.ends_with('/'))
        .map(|rest| format!("{bare_front}(?:.*/)?{open}{rest}{close}"));
    // It may begin with what is in front.
    let same = bare.get(..bare_front.len()).filter(|same| same.eq_ignore_ascii_case(&bare_front));
    let rest = same.map(|same| &bare[same.len()..]);
    let again = rest.into_iter().flat_map(|rest| {
        let between =
            ["".to_owned(), format!("(?:(?:.*/)?{open}{}{close})?", bare_front.trim_start_matches('/'))];
        between.map(|between| format!("{bare_front}{between}{open}{rest}{close}"))
    });
    let again: Vec<String> = again.collect();
    [any].into_iter().chain(at_slash).chain(again)
}

/// The pattern with groups that have no number.
fn without_groups(pattern: &str) -> String {
    let mut out = String::new();
    let (mut is_escaped, mut in_class) = (false, false);
    for (at, c) in pattern.char_indices() {
        out.push(c);
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class && !pattern[at + 1..].starts_with('?') => out.push_str("?:"),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meeting<'b>(patterns: &[&'b str]) -> Meeting<'b> {
        Meeting { patterns: patterns.iter().map(|pattern| Some(*pattern)).collect(), sets: HashMap::new() }
    }

    #[track_caller]
    fn check(within: &str, pattern: &str, expect: Option<(&str, Option<&str>)>) {
        let met = meeting(&[pattern]).of(Some(within), &[], 0, false);
        let expect = expect.map(|(pattern, differs)| Met {
            pattern: pattern.to_owned(),
            differs: differs.map(str::to_owned),
        });
        assert_eq!(met, expect);
    }

    #[test]
    fn patterns_below_a_path() {
        check("/a/.*", r".*\.php", Some((r"/a/.*\.php", None)));
        check("/a/.*", r"(?i).*\.(js|css)", Some((r"/a/.*(?i:\.(js|css))", None)));
        check("/a/.*", r".*/\.ht.*", Some((r"/a/(?:.*/)?\.ht.*", None)));
        check("/a/.*", "/a/b/(.*)", Some(("/a/b/(.*)", None)));
        check("/a/.*", "/b/.*", None);
        check("/a/.*", "/.*", Some(("/a/.*", None)));
        check("/a/.*", r"/b|.*\.x|/a/c", Some((r"/a/.*\.x|/a/c", None)));
        check("/a/.*", r"(?i).+\.php", Some((r"/a/.*(?i:\.php)", None)));
        check("/a/.*", r"(?i)/a/[^/]*\.txt", Some((r"/a/(?i:[^/]*\.txt)", None)));
        check("/a/.*", r".*/a/b", Some(("/a/(?:(?:.*/)?a/)?b", None)));
        let hidden = crate::import::pattern::whole(r"/\.(?!well-known|acme)", false).unwrap();
        let met = meeting(&[&hidden]).of(Some("/a/.*"), &[], 0, true).unwrap();
        assert!(met.differs.is_none() && met.pattern.starts_with(r"/a/(?:.*/)?\.(?:(?:[^wa]|"), "{met:?}");
        check("/a.php.*", r".*\.php", Some((r"/a.php.*\.php", Some("/a.php"))));
        assert_eq!(without_groups(r"(a)\((?:b)[(]"), r"(?:a)\((?:b)[(]");
    }

    #[test]
    fn what_keeps_requests_out_rather_takes_more() {
        let met = meeting(&[r".*\.php"]).of(Some(r"/a\.php.*"), &[], 0, true).unwrap();
        assert_eq!((met.pattern.as_str(), met.differs.as_deref()), (r"/a\.php.*", Some("/a.php/")));
    }

    #[test]
    fn patterns_inside_of_others() {
        let met = meeting(&["/(a|b)/.*", r".*\.(php)"]).of(None, &[0], 1, false).unwrap();
        assert_eq!((met.pattern.as_str(), met.differs), (r"/(?:a|b)/.*\.(php)", None));
    }
}
