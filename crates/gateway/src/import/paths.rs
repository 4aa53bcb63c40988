//! The paths that patterns take, as sets: whether two of them meet, and which path makes a difference. Pure.
//!
//! A pattern is one of ours, which a whole path is compared with. It becomes an automaton, and a walk through several of
//! these at once finds the shortest path that some take and others don't.

use std::collections::{HashSet, VecDeque};

use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

/// The memory of one automaton, in bytes.
const SIZE_MAX: usize = 1024 * 1024;
/// So many states of a walk are looked at.
const STATES_MAX: usize = 20_000;
/// What stands in paths, with that in front which examples are easier to read with.
const ALPHABET: &[u8] =
    b"/abcdefghijklmnopqrstuvwxyz0123456789-._~ABCDEFGHIJKLMNOPQRSTUVWXYZ!$&'()*+,=:@%\"<>[]^`{|}";

/// The paths that a pattern takes.
#[derive(Debug, Clone)]
pub(super) struct Paths(dense::DFA<Vec<u32>>);

/// The patterns are too large to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the patterns are too large to be compared")]
pub(super) struct TooLarge;

impl Paths {
    /// Those of a pattern of ours.
    ///
    /// # Errors
    /// It is too large, or no pattern.
    pub(super) fn of(pattern: &str) -> Result<Self, TooLarge> {
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(SIZE_MAX))
            .determinize_size_limit(Some(SIZE_MAX));
        let whole = format!("^(?:{pattern})$");
        // The paths that routes are compared with are ASCII.
        let syntax = syntax::Config::new().unicode(false).utf8(false);
        let built = dense::Builder::new().configure(config).syntax(syntax).build(&whole);
        built.map(Self).map_err(|_| TooLarge)
    }

    /// The pattern takes this path.
    #[cfg(test)]
    fn take(&self, path: &str) -> bool {
        let Some(start) = self.start() else { return false };
        let end = path.bytes().fold(start, |state, byte| self.0.next_state(state, byte));
        self.accepts(end)
    }

    fn start(&self) -> Option<StateID> {
        self.0.start_state_forward(&Input::new("").anchored(Anchored::Yes)).ok()
    }

    fn accepts(&self, state: StateID) -> bool {
        self.0.is_match_state(self.0.next_eoi_state(state))
    }
}

/// A shortest path that all of `all` take, and none of `none`; `None`: there is no such path.
///
/// # Errors
/// The walk is too long.
pub(super) fn example(all: &[&Paths], none: &[&Paths]) -> Result<Option<String>, TooLarge> {
    let sets: Vec<&Paths> = all.iter().chain(none).copied().collect();
    let starts: Option<Vec<StateID>> = sets.iter().map(|set| set.start()).collect();
    let bytes = distinct(&sets);
    // Where the sets are, the position in the walk of the one before, and the byte that leads here.
    let mut walk: Vec<(Vec<StateID>, usize, u8)> = vec![(starts.ok_or(TooLarge)?, 0, 0)];
    let mut seen: HashSet<(Vec<StateID>, bool)> = HashSet::new();
    let mut waiting = VecDeque::from([0]);
    while let Some(at) = waiting.pop_front() {
        let (states, _, last) = walk[at].clone();
        let accepted = |(set, state): (&&Paths, &StateID)| set.accepts(*state);
        let (of_all, of_none) = states.split_at(all.len());
        if last != 0 && all.iter().zip(of_all).all(accepted) && !none.iter().zip(of_none).any(accepted) {
            return Ok(Some(path(&walk, at)));
        }
        for &byte in &bytes {
            // A path begins with a slash; two of them in a row are refused before any route is asked.
            if (last == 0) != (byte == b'/') && (last == 0 || last == b'/') {
                continue;
            }
            let next: Vec<StateID> =
                sets.iter().zip(&states).map(|(set, state)| set.0.next_state(*state, byte)).collect();
            let is_dead = all.iter().zip(&next).any(|(set, state)| set.0.is_dead_state(*state));
            if is_dead || !seen.insert((next.clone(), byte == b'/')) {
                continue;
            }
            if walk.len() == STATES_MAX {
                return Err(TooLarge);
            }
            waiting.push_back(walk.len());
            walk.push((next, at, byte));
        }
    }
    Ok(None)
}

/// One byte of each kind that the sets tell apart.
fn distinct(sets: &[&Paths]) -> Vec<u8> {
    let mut kinds = HashSet::new();
    let kind = |byte: u8| -> Vec<u8> { sets.iter().map(|set| set.0.byte_classes().get(byte)).collect() };
    ALPHABET.iter().copied().filter(|byte| *byte == b'/' || kinds.insert(kind(*byte))).collect()
}

fn path(walk: &[(Vec<StateID>, usize, u8)], mut at: usize) -> String {
    let mut bytes = Vec::new();
    while at > 0 {
        let (_, before, byte) = walk[at];
        bytes.push(char::from(byte));
        at = before;
    }
    bytes.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::site::matcher::PathRegex;

    #[track_caller]
    fn check(all: &[&str], none: &[&str], expect: Option<&str>) {
        let sets = |patterns: &[&str]| -> Vec<Paths> {
            patterns.iter().map(|pattern| Paths::of(pattern).unwrap()).collect()
        };
        let (all, none) = (sets(all), sets(none));
        let found = example(&all.iter().collect::<Vec<_>>(), &none.iter().collect::<Vec<_>>());
        assert_eq!(found.unwrap().as_deref(), expect);
    }

    #[test]
    fn the_shortest_path_that_makes_a_difference() {
        check(&["/.*"], &[], Some("/"));
        check(&[r".*\.php", "/a/.*"], &[], Some("/a/.php"));
        check(&["/a.*", "/b.*"], &[], None);
        check(&["/a/.*"], &["/.*"], None);
        check(&["/a.*"], &["/a(/.*)?"], Some("/aa"));
        check(&["(?i)/a"], &["/a"], Some("/A"));
        check(&[r".*/\.ht.*", "/a/.*"], &[r"/a/.*/\.ht.*"], Some("/a/.ht"));
        check(&[r"/\w+"], &["/[a-z]+"], Some("/0"));
        check(&["//.*"], &[], None);
        assert!(Paths::of("(").is_err() && Paths::of(&"(a|b)?.{300}".repeat(900)).is_err());
    }

    proptest! {
        #[test]
        fn sets_are_those_of_routes(pattern in "(/|a|b|\\.|\\(a\\|b\\)|\\||.\\*|[ab]\\?){1,7}", path in "/[ab.]{0,3}(/[ab.]{1,3}){0,2}") {
            if let Ok(regex) = PathRegex::parse(&pattern) {
                let set = Paths::of(&pattern).unwrap();
                prop_assert_eq!(set.take(&path), regex.is_match(&path), "{} {}", pattern, path);
                let found = example(&[&set], &[]).unwrap();
                prop_assert!(found.is_none_or(|path| regex.is_match(&path)), "{}", pattern);
            }
        }
    }
}
