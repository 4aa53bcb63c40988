//! Which server of an upstream gets the next request. Pure.
//!
//! In: what each server may take, and a number or a key of the request. Out: the position of one server.

use std::fmt;
use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName};

use crate::site::cookie;

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// The one with the fewest live WebSockets and requests in flight for its weight.
    #[default]
    LeastSessions,
    /// Each in its turn, as often as its weight says.
    RoundRobin,
    /// The less loaded of two that are drawn by their weights.
    RandomTwo,
    /// The same one for the same [`HashKey`], unless it has much more than its share.
    Hash,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeastSessions => "least-sessions",
            Self::RoundRobin => "round-robin",
            Self::RandomTwo => "random-two",
            Self::Hash => "hash",
        })
    }
}

/// What of a request says which server it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Client,
    /// A field's first value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(Box<str>),
    /// The value of a parameter in the query.
    Query(Box<str>),
}

/// A server that can take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its part of all requests.
    pub weight: u32,
    /// What it has now: live WebSockets and requests in flight.
    pub load: u32,
}

/// What varies from one choice to the next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Draw {
    /// Counts the choices.
    pub turn: u64,
    /// Two random numbers in one; only for [`Balance::RandomTwo`].
    pub random: u64,
    /// Only for [`Balance::Hash`].
    pub key: u64,
}

/// A server may have so many sessions more than five quarters of its share before [`Balance::Hash`] passes it over:
/// while there are few of them, those of one client stay together.
const SLACK: u64 = 4;

/// Chooses one of `seeds.len()` servers; `candidate` says what the server at a position can take, `None`: nothing.
/// `seeds` are numbers that belong to the servers' addresses.
pub fn choose(
    balance: Balance,
    draw: Draw,
    seeds: &[u64],
    candidate: impl Fn(usize) -> Option<Candidate>,
) -> Option<usize> {
    let count = seeds.len();
    match balance {
        Balance::LeastSessions => least_loaded(rotated(count, draw.turn), candidate),
        Balance::RoundRobin => pick(count, spread(draw.turn, total(count, &candidate)), candidate),
        Balance::RandomTwo => {
            let (first, second) = (draw.random >> 32, draw.random & 0xffff_ffff);
            let first = pick(count, scale(first, total(count, &candidate)), &candidate)?;
            // The second is another server, if there is another.
            let others = |i| if i == first { None } else { candidate(i) };
            match pick(count, scale(second, total(count, &others)), others) {
                Some(second) => least_loaded([first, second].into_iter(), candidate),
                None => Some(first),
            }
        }
        Balance::Hash => rendezvous(draw.key, seeds, candidate),
    }
}

/// All positions, beginning with another one each time.
fn rotated(count: usize, turn: u64) -> impl Iterator<Item = usize> {
    let start = usize::try_from(turn % (count.max(1) as u64)).unwrap_or(0);
    (start..count).chain(0..start)
}

fn least_loaded(
    positions: impl Iterator<Item = usize>,
    candidate: impl Fn(usize) -> Option<Candidate>,
) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for i in positions {
        let Some(Candidate { weight, load }) = candidate(i) else { continue };
        let (load, weight) = (u64::from(load) + 1, u64::from(weight));
        // load / weight < best load / best weight
        if best.is_none_or(|(_, best_load, best_weight)| load * best_weight < best_load * weight) {
            best = Some((i, load, weight));
        }
    }
    best.map(|(i, ..)| i)
}

fn total(count: usize, candidate: &impl Fn(usize) -> Option<Candidate>) -> u64 {
    (0..count).filter_map(candidate).map(|c| u64::from(c.weight)).sum()
}

/// The server that has the slot `slot`, if each has as many as its weight.
fn pick(count: usize, mut slot: u64, candidate: impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    for i in 0..count {
        let Some(Candidate { weight, .. }) = candidate(i) else { continue };
        match slot.checked_sub(weight.into()) {
            Some(rest) => slot = rest,
            None => return Some(i),
        }
    }
    None
}

/// A 32-bit random number as one below `total`.
fn scale(random: u64, total: u64) -> u64 {
    u64::try_from((u128::from(random) * u128::from(total)) >> 32).unwrap_or(0)
}

/// The slot of a turn: in `total` turns each slot comes once, and slots that stand together are far apart.
fn spread(turn: u64, total: u64) -> u64 {
    if total < 2 {
        return 0;
    }
    let mut step = (total * 5 / 8).max(1);
    while greatest_common_divisor(step, total) != 1 {
        step -= 1; // at 1 it ends
    }
    (turn % total) * step % total
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Highest random weight hashing: of each key, only those move that a new server takes, or that one had which has
/// gone. A server with much more than its share is passed over ("consistent hashing with bounded loads").
fn rendezvous(key: u64, seeds: &[u64], candidate: impl Fn(usize) -> Option<Candidate>) -> Option<usize> {
    let (mut weights, mut load) = (0, 1);
    for c in (0..seeds.len()).filter_map(&candidate) {
        weights += u64::from(c.weight);
        load += u64::from(c.load);
    }
    let mut best: Option<(usize, f64)> = None;
    for (i, seed) in seeds.iter().enumerate() {
        let Some(c) = candidate(i) else { continue };
        let share = load * u64::from(c.weight) * 5 / (4 * weights);
        if u64::from(c.load) >= share + SLACK {
            continue;
        }
        // Between 0 and 1, without both; its logarithm makes weights exact.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are enough to draw with")]
        let drawn = ((mix(key ^ seed) >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
        let score = -drawn.ln() / f64::from(c.weight);
        if best.is_none_or(|(_, other)| score < other) {
            best = Some((i, score));
        }
    }
    best.map(|(i, _)| i)
}

/// A number for a text, the same in every gateway of every version.
#[must_use]
pub fn seed(text: &[u8]) -> u64 {
    // FNV-1a, 64 bits
    text.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Spreads the bits of a number (the finalizer of `SplitMix64`).
fn mix(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl HashKey {
    /// The key of a request. One that lacks what it is made of is known by its client's address.
    #[must_use]
    pub fn of(&self, client: IpAddr, headers: &HeaderMap, query: Option<&str>) -> u64 {
        let found = match self {
            Self::Client => None,
            Self::Header(name) => headers.get(name).map(http::HeaderValue::as_bytes),
            Self::Cookie(name) => cookie::value(headers, name),
            Self::Query(name) => query
                .and_then(|query| {
                    query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| **key == **name))
                })
                .map(|(_, value)| value.as_bytes()),
        };
        match (found, client) {
            (Some(value), _) => seed(value),
            (None, IpAddr::V4(ip)) => seed(&ip.octets()),
            (None, IpAddr::V6(ip)) => seed(&ip.octets()),
        }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;
    use std::net::Ipv4Addr;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn seeds(count: usize) -> Vec<u64> {
        (0..count).map(|i| seed(format!("10.0.0.{i}:80").as_bytes())).collect()
    }

    /// What each server gets of `count` requests that stay.
    fn dealt(balance: Balance, weights: &[u32], count: u64, stay: bool) -> Vec<u32> {
        let mut loads = vec![0; weights.len()];
        let (seeds, mut dealt) = (seeds(weights.len()), vec![0; weights.len()]);
        for turn in 0..count {
            let draw = Draw { turn, random: mix(turn + 1), key: mix(turn) };
            let can = |i: usize| Some(Candidate { weight: weights[i], load: loads[i] });
            let i = choose(balance, draw, &seeds, can).unwrap();
            dealt[i] += 1;
            loads[i] += u32::from(stay);
        }
        dealt
    }

    #[test]
    fn weights_are_met() {
        assert_eq!(dealt(Balance::LeastSessions, &[1, 2, 5], 800, true), [100, 200, 500]);
        assert_eq!(dealt(Balance::RoundRobin, &[1, 2, 5], 800, false), [100, 200, 500]);
        assert_eq!(dealt(Balance::RoundRobin, &[1, 1, 1], 300, false), [100, 100, 100]);
        for balance in [Balance::RandomTwo, Balance::Hash] {
            let dealt = dealt(balance, &[10, 20, 50], 8000, true);
            for (got, fair) in dealt.iter().zip([1000, 2000, 5000]) {
                assert!((fair * 9 / 10..=fair * 11 / 10).contains(got), "{balance:?} {dealt:?}");
            }
        }
        // With nothing in flight, least-sessions still deals in turn.
        assert_eq!(dealt(Balance::LeastSessions, &[1, 1, 1], 300, false), [100, 100, 100]);
    }

    #[test]
    fn those_that_can_take_nothing_get_nothing() {
        let seeds = seeds(4);
        for balance in [Balance::LeastSessions, Balance::RoundRobin, Balance::RandomTwo, Balance::Hash] {
            for turn in 0..100 {
                let draw = Draw { turn, random: mix(turn), key: turn };
                let only = |i: usize| (i == 2).then_some(Candidate { weight: 1, load: 1_000_000 });
                assert_eq!(choose(balance, draw, &seeds, only), Some(2), "{balance:?}");
                assert_eq!(choose(balance, draw, &seeds, |_| None), None);
                assert_eq!(choose(balance, draw, &[], only), None);
            }
        }
    }

    #[test]
    fn turns_of_a_heavy_server_are_spread() {
        let mut last = None;
        let mut longest = 0;
        let mut run = 0;
        for turn in 0..80 {
            let weights = [5, 1, 2];
            let can = |i: usize| Some(Candidate { weight: weights[i], load: 0 });
            let i = choose(Balance::RoundRobin, Draw { turn, ..Draw::default() }, &seeds(3), can);
            run = if i == last { run + 1 } else { 1 };
            longest = longest.max(run);
            last = i;
        }
        assert!(longest <= 2, "{longest}");
    }

    #[test]
    fn keys() {
        let client = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; id = x=y ; b"));
        headers.append(COOKIE, HeaderValue::from_static("c=3;id=second"));
        headers.insert("x-user", HeaderValue::from_static("eve"));
        let key = |key: HashKey| key.of(client, &headers, Some("a=b&room=7&room=8"));
        assert_eq!(key(HashKey::Client), seed(&[192, 0, 2, 1]));
        assert_eq!(key(HashKey::Header(HeaderName::from_static("x-user"))), seed(b"eve"));
        assert_eq!(key(HashKey::Cookie("id".into())), seed(b"x=y"));
        assert_eq!(key(HashKey::Cookie("c".into())), seed(b"3"));
        assert_eq!(key(HashKey::Query("room".into())), seed(b"7"));
        for missing in [HashKey::Cookie("d".into()), HashKey::Query("d".into())] {
            assert_eq!(key(missing), key(HashKey::Client));
        }
    }

    proptest! {
        #[test]
        fn a_new_server_takes_its_share_and_nothing_else_moves(count in 2usize..20, salt: u64) {
            let seeds = seeds(count + 1);
            let can = |_| Some(Candidate { weight: 1, load: 0 });
            let keys = 4000;
            let mut moved = 0;
            for n in 0..keys {
                let draw = Draw { key: mix(salt ^ mix(n)), ..Draw::default() };
                let before = choose(Balance::Hash, draw, &seeds[..count], can).unwrap();
                let after = choose(Balance::Hash, draw, &seeds, can).unwrap();
                if after != before {
                    prop_assert_eq!(after, count, "a key went from one old server to another");
                    moved += 1;
                }
            }
            let fair = keys / (count as u64 + 1);
            prop_assert!((fair * 7 / 10..=fair * 13 / 10).contains(&moved), "{} of {}", moved, fair);
        }

        #[test]
        fn no_server_has_much_more_than_its_share(
            weights in prop::collection::vec(1u32..20, 1..12),
            keys in prop::collection::vec(0u64..5, 1..400), // a few clients, so that hashing alone would be unfair
        ) {
            let mut loads = vec![0; weights.len()];
            let seeds = seeds(weights.len());
            for (n, key) in keys.iter().enumerate() {
                let draw = Draw { key: mix(*key), ..Draw::default() };
                let can = |i: usize| Some(Candidate { weight: weights[i], load: loads[i] });
                let i = choose(Balance::Hash, draw, &seeds, can).unwrap();
                loads[i] += 1;
                for (load, weight) in loads.iter().zip(&weights) {
                    let share = (n as u64 + 1) * u64::from(*weight) / u64::from(weights.iter().sum::<u32>());
                    prop_assert!(u64::from(*load) <= share * 5 / 4 + SLACK + 2);
                }
            }
        }
    }
}
