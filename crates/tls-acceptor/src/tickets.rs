//! Session tickets: resumption in TLS 1.2 and 1.3 without state on the server.
//!
//! The keys belong to the process, not to a set of certificates: one [`Tickets`] serves every
//! acceptor, so that clients resume across reloads. By default they are made at random, seal for six
//! hours, open for six more, and are gone; [`Tickets::export`] hands them to the process that takes
//! over. Keys from a [file](crate::ticket_file) outlive the process and don't rotate by themselves. rustls
//! binds a ticket to the server name it was issued under, and the certificate is resolved before resumption is
//! considered, so a name that was removed stops resuming at once.
//!
//! A ticket: 16 bytes that name the key, 32 random bytes, then the time of issue and rustls' state under
//! AES-256-GCM. Each ticket has a key of its own, derived from the ticket key and the random bytes (HKDF,
//! RFC 5869), so that nodes which share ticket keys need not count nonces. The key's name is derived from
//! the key: every holder finds the right one without trying.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use rustls_pki_types::UnixTime;
use zeroize::{Zeroize, Zeroizing};

use crate::ticket_file::TicketKeys;
use crate::ticket_key::{KEYS_MAX, NAME_LEN, SALT_LEN, SECRET_LEN, TicketError, TicketKey};

/// The lifetime that clients get, and how old a ticket may be, in seconds.
const LIFETIME_SECS: u32 = 12 * 60 * 60;
/// How long a key of our own seals, in seconds; for as long again it opens.
const PERIOD_SECS: u64 = 6 * 60 * 60;
const ISSUED_LEN: usize = 8;
/// What an export begins with; the digit is the format's.
const MAGIC: &[u8] = b"wssgate tickets 1";

/// The ticket keys in use. Cheap to clone; clones share their keys.
#[derive(Debug, Clone)]
pub struct Tickets(Arc<Cell>);

impl Tickets {
    /// Fresh keys, which rotate.
    ///
    /// # Errors
    /// If there is no randomness to be had.
    pub fn new() -> Result<Self, TicketError> {
        let keys = vec![TicketKey::random()?];
        Ok(Self::of(Ring { keys, rotate_at: Some(now() + PERIOD_SECS) }))
    }

    /// The keys as another process takes them with [`Self::import`]. Secret: with them one can resume
    /// sessions as this server, and read what was said over TLS 1.2.
    #[must_use]
    pub fn export(&self) -> Zeroizing<Vec<u8>> {
        let ring = self.0.0.load_full();
        let len = MAGIC.len() + size_of::<u64>() + ring.keys.len() * SECRET_LEN;
        let mut bytes = Zeroizing::new(Vec::with_capacity(len)); // never grows: no copy is left behind
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&ring.rotate_at.unwrap_or_else(now).to_be_bytes());
        for key in &ring.keys {
            bytes.extend_from_slice(&key.secret[..]);
        }
        bytes
    }

    /// The keys that another process exported: its tickets are good here, and the keys rotate when
    /// they would have there.
    ///
    /// # Errors
    /// [`TicketError::Import`].
    pub fn import(bytes: &[u8]) -> Result<Self, TicketError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(TicketError::Import)?;
        let (rotate_at, secrets) = rest.split_first_chunk().ok_or(TicketError::Import)?;
        let (secrets, []) = secrets.as_chunks::<SECRET_LEN>() else { return Err(TicketError::Import) };
        if secrets.is_empty() || secrets.len() > KEYS_MAX {
            return Err(TicketError::Import);
        }
        let keys = secrets.iter().map(TicketKey::new).collect();
        Ok(Self::of(Ring { keys, rotate_at: Some(u64::from_be_bytes(*rotate_at)) }))
    }

    /// Uses the keys of a file from now on, or with `None` keys of its own. Those of a file that is no
    /// longer wanted open for one more period; its own are gone at once where a file takes over.
    pub fn adopt(&self, keys: Option<&TicketKeys>) {
        let ring = self.0.0.load_full();
        let ring = match keys {
            Some(keys) => Ring { keys: keys.keys.clone(), rotate_at: None },
            None if ring.rotate_at.is_none() => Ring { keys: ring.keys.clone(), rotate_at: Some(now()) },
            None => return,
        };
        self.0.0.store(Arc::new(ring));
    }

    fn of(ring: Ring) -> Self {
        Self(Arc::new(Cell(ArcSwap::from_pointee(ring))))
    }

    pub(crate) fn producer(&self) -> Arc<dyn ProducesTickets> {
        self.0.clone()
    }

    /// Its tickets are good for nothing but `rules`.
    pub(crate) fn bound_producer(&self, rules: [u8; 32]) -> Arc<dyn ProducesTickets> {
        Arc::new(BoundProducer { cell: self.0.clone(), rules })
    }
}

fn now() -> u64 {
    UnixTime::now().as_secs()
}

struct Cell(ArcSwap<Ring>);

impl Cell {
    /// The keys to be used at `now`: rotated, if that is due.
    fn ring(&self, now: u64) -> Arc<Ring> {
        let ring = self.0.load_full(); // never a guard: arc-swap's are not for holding
        if !ring.is_due(now) {
            return ring;
        }
        // Of several threads that find it due, one rotates. Without randomness the old keys go on.
        self.0.rcu(|ring| match TicketKey::random() {
            Ok(key) if ring.is_due(now) => Arc::new(ring.rotated(key, now)),
            _ => ring.clone(),
        });
        self.0.load_full()
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.load_full().fmt(f)
    }
}

impl ProducesTickets for Cell {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECS
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        let now = now();
        self.ring(now).seal(state, now, b"")
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let now = now();
        self.ring(now).open(ticket, now, b"")
    }
}

/// Tickets for names whose clients have to show certificates. What they are bound to is authenticated and not sent.
#[derive(Debug)]
struct BoundProducer {
    cell: Arc<Cell>,
    rules: [u8; 32],
}

impl ProducesTickets for BoundProducer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECS
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        let now = now();
        self.cell.ring(now).seal(state, now, &self.rules)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let now = now();
        self.cell.ring(now).open(ticket, now, &self.rules)
    }
}

/// The keys at a moment. The first seals, all open; times are in seconds since 1970.
#[derive(Debug)]
struct Ring {
    keys: Vec<TicketKey>,
    /// `None`: the keys come from a file.
    rotate_at: Option<u64>,
}

impl Ring {
    fn is_due(&self, now: u64) -> bool {
        // A moment too far away was set by a clock that has been put back since.
        self.rotate_at.is_some_and(|at| now >= at || at - now > PERIOD_SECS)
    }

    /// `key` seals from now on. The last one still opens, if it did seal in the last period.
    fn rotated(&self, key: TicketKey, now: u64) -> Self {
        let was_in_use = self.rotate_at.is_some_and(|at| now < at.saturating_add(PERIOD_SECS));
        let last = self.keys.first().filter(|_| was_in_use).cloned();
        Self { keys: [key].into_iter().chain(last).collect(), rotate_at: Some(now + PERIOD_SECS) }
    }

    fn seal(&self, state: &[u8], now: u64, bound_to: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut salt = [0; SALT_LEN];
        rand::fill(&mut salt).ok()?;
        let mut sealed = Zeroizing::new([&now.to_be_bytes(), state].concat());
        let tag = key
            .for_ticket(&salt)?
            .seal_in_place_separate_tag(only_nonce(), Aad::from(bound_to), &mut sealed)
            .ok()?;
        Some([&key.name, &salt[..], &sealed, tag.as_ref()].concat())
    }

    fn open(&self, ticket: &[u8], now: u64, bound_to: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT_LEN>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let opened =
            key.for_ticket(salt)?.open_in_place(only_nonce(), Aad::from(bound_to), &mut sealed).ok()?;
        let (issued, _) = opened.split_first_chunk::<ISSUED_LEN>()?;
        // Clocks of nodes differ, so a ticket may seem to come from the future.
        let is_fresh = u64::from_be_bytes(*issued).abs_diff(now) <= u64::from(LIFETIME_SECS);
        let len = opened.len();
        sealed.truncate(len);
        sealed.drain(..ISSUED_LEN);
        if is_fresh {
            return Some(sealed);
        }
        sealed.zeroize();
        None
    }
}

/// Each key seals a single ticket.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const STATE: &[u8] = b"what rustls wants to know again";

    fn ring(secrets: &[u8], rotate_at: Option<u64>) -> Ring {
        Ring { keys: secrets.iter().map(|&byte| TicketKey::new(&[byte; SECRET_LEN])).collect(), rotate_at }
    }

    #[test]
    fn the_first_seals_and_all_open() {
        let ticket = ring(&[1, 2], None).seal(STATE, NOW, b"").unwrap();
        for (keys, opens) in [(&[1, 2][..], true), (&[3, 2, 1], true), (&[1], true), (&[2, 3], false)] {
            assert_eq!(
                ring(keys, None).open(&ticket, NOW, b"").is_some_and(|s| s == STATE),
                opens,
                "{keys:?}"
            );
        }
    }

    #[test]
    fn a_ticket_that_was_touched_is_none() {
        let ring = ring(&[1], None);
        let ticket = ring.seal(STATE, NOW, b"").unwrap();
        assert_eq!(ticket.len(), NAME_LEN + SALT_LEN + ISSUED_LEN + STATE.len() + 16);
        for at in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[at] ^= 1;
            assert_eq!(ring.open(&touched, NOW, b""), None, "{at}");
            assert_eq!(ring.open(&ticket[..at], NOW, b""), None, "cut at {at}");
        }
        let empty = ring.seal(b"", NOW, b"").unwrap();
        assert_eq!(ring.open(&empty, NOW, b"").unwrap(), b"");
    }

    #[test]
    fn each_ticket_is_sealed_in_its_own_way() {
        let ring = ring(&[1], None);
        let [a, b] = [(); 2].map(|()| ring.seal(STATE, NOW, b"").unwrap());
        assert_eq!(a[..NAME_LEN], b[..NAME_LEN]);
        assert_ne!(a[NAME_LEN..][..SALT_LEN], b[NAME_LEN..][..SALT_LEN]);
        assert_ne!(a[NAME_LEN + SALT_LEN..], b[NAME_LEN + SALT_LEN..]);
    }

    #[test]
    fn tickets_age() {
        let ring = ring(&[1], None);
        let ticket = ring.seal(STATE, NOW, b"").unwrap();
        let lifetime = u64::from(LIFETIME_SECS);
        for (at, opens) in [
            (NOW, true),
            (NOW + lifetime, true),
            (NOW + lifetime + 1, false),
            (NOW - 60, true),
            (NOW - lifetime - 1, false),
        ] {
            assert_eq!(ring.open(&ticket, at, b"").is_some(), opens, "{at}");
        }
    }

    #[test]
    fn moments_are_seconds_since_1970() {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let tickets = Tickets::new().unwrap();
        let rotate_at = tickets.0.0.load().rotate_at.unwrap();
        assert!((since + PERIOD_SECS..=since + PERIOD_SECS + 9).contains(&rotate_at), "{rotate_at}");
        let ticket = tickets.producer().encrypt(STATE).unwrap();
        let lifetime = u64::from(LIFETIME_SECS);
        assert!(tickets.0.0.load().open(&ticket, since + lifetime, b"").is_some());
        assert!(tickets.0.0.load().open(&ticket, since + lifetime + 9, b"").is_none());
    }

    #[test]
    fn own_keys_rotate_and_those_of_others_do_not() {
        let first = ring(&[1], Some(NOW + PERIOD_SECS));
        assert!(!first.is_due(NOW) && !first.is_due(NOW + PERIOD_SECS - 1));
        assert!(first.is_due(NOW + PERIOD_SECS));
        assert!(first.is_due(NOW - 1), "a clock that was put back doesn't make a key last");
        assert!(!ring(&[1], None).is_due(u64::MAX));
        let ticket = first.seal(STATE, NOW, b"").unwrap();
        let second = first.rotated(TicketKey::new(&[2; SECRET_LEN]), NOW + PERIOD_SECS);
        assert!(second.open(&ticket, NOW + PERIOD_SECS, b"").is_some());
        assert_eq!(second.rotate_at, Some(NOW + 2 * PERIOD_SECS));
        let third = second.rotated(TicketKey::new(&[3; SECRET_LEN]), NOW + 2 * PERIOD_SECS);
        assert_eq!(third.keys.len(), 2);
        assert!(third.open(&ticket, NOW + 2 * PERIOD_SECS, b"").is_none());
        // After a long silence nothing of before is left.
        assert_eq!(first.rotated(TicketKey::new(&[2; SECRET_LEN]), NOW + 2 * PERIOD_SECS).keys.len(), 1);
    }

    #[test]
    fn the_cell_rotates_by_itself() {
        let cell = Cell(ArcSwap::from_pointee(ring(&[1], Some(NOW))));
        let ticket = ring(&[1], None).seal(STATE, NOW, b"").unwrap();
        let rotated = cell.ring(NOW);
        assert_eq!((rotated.keys.len(), rotated.rotate_at), (2, Some(NOW + PERIOD_SECS)));
        assert!(rotated.open(&ticket, NOW, b"").is_some());
        assert_ne!(rotated.seal(STATE, NOW, b"").unwrap()[..NAME_LEN], ticket[..NAME_LEN]);
        assert!(Arc::ptr_eq(&rotated, &cell.ring(NOW + 1)), "once");
    }

    #[test]
    fn of_several_threads_one_rotates() {
        let ticket = ring(&[1], None).seal(STATE, NOW, b"").unwrap();
        for _ in 0..100 {
            let cell = Cell(ArcSwap::from_pointee(ring(&[1], Some(NOW))));
            let begin = Barrier::new(2);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        begin.wait();
                        cell.ring(NOW);
                    });
                }
            });
            assert!(cell.ring(NOW).open(&ticket, NOW, b"").is_some(), "the key in use was rotated away");
        }
    }

    #[test]
    fn what_is_exported_can_be_imported() {
        let old = Tickets::new().unwrap();
        let ticket = old.producer().encrypt(STATE).unwrap();
        let new = Tickets::import(&old.export()).unwrap();
        assert_eq!(new.producer().decrypt(&ticket).unwrap(), STATE);
        assert_eq!((new.producer().enabled(), new.producer().lifetime()), (true, LIFETIME_SECS));
        assert_eq!(new.0.0.load().rotate_at, old.0.0.load().rotate_at);
        assert!(Tickets::new().unwrap().producer().decrypt(&ticket).is_none());
        // Keys that came from a file rotate from now on.
        let shared = Tickets::of(ring(&[1, 2, 3], None));
        let ticket = shared.producer().encrypt(STATE).unwrap();
        let new = Tickets::import(&shared.export()).unwrap();
        assert_eq!(new.producer().decrypt(&ticket).unwrap(), STATE);
        assert_eq!(new.0.0.load().keys.len(), 2);
        // Anything else is refused, whatever it is.
        let bytes = old.export();
        for broken in [&bytes[..bytes.len() - 1], &bytes[1..], &bytes[..MAGIC.len() + 8], b"", MAGIC] {
            assert_eq!(Tickets::import(broken).unwrap_err(), TicketError::Import);
        }
        assert_eq!(bytes.capacity(), bytes.len(), "growing would leave a copy of the keys behind");
        let most = [&bytes[..], &vec![0; SECRET_LEN * (KEYS_MAX - 1)]].concat();
        assert_eq!(Tickets::import(&most).unwrap().0.0.load().keys.len(), KEYS_MAX);
        let many = [&bytes[..], &vec![0; SECRET_LEN * KEYS_MAX]].concat();
        assert_eq!(Tickets::import(&many).unwrap_err(), TicketError::Import);
    }

    #[test]
    fn keys_of_a_file_come_and_go() {
        let tickets = Tickets::new().unwrap();
        let own = tickets.producer().encrypt(STATE).unwrap();
        let opens = |ticket: &[u8]| tickets.producer().decrypt(ticket).is_some();
        tickets.adopt(None);
        assert_eq!(tickets.producer().encrypt(STATE).unwrap()[..NAME_LEN], own[..NAME_LEN], "its own stay");
        assert!(opens(&own));
        let file = TicketKeys::parse(TicketKeys::fresh_line("").unwrap().as_bytes()).unwrap();
        tickets.adopt(Some(&file));
        let shared = tickets.producer().encrypt(STATE).unwrap();
        assert!(opens(&shared) && !opens(&own));
        tickets.adopt(Some(&file));
        assert!(opens(&shared), "read again");
        tickets.adopt(None);
        assert!(opens(&shared), "for one more period");
        assert_ne!(tickets.producer().encrypt(STATE).unwrap()[..NAME_LEN], shared[..NAME_LEN]);
    }

    #[test]
    fn a_ticket_is_good_for_the_rules_it_was_issued_under() {
        let tickets = Tickets::new().unwrap();
        let producers =
            [tickets.producer(), tickets.bound_producer([1; 32]), tickets.bound_producer([2; 32])];
        for (i, issuer) in producers.iter().enumerate() {
            let ticket = issuer.encrypt(STATE).unwrap();
            for (j, other) in producers.iter().enumerate() {
                assert_eq!(other.decrypt(&ticket).is_some(), i == j, "{i} {j}");
            }
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let secret = [0xa5; SECRET_LEN];
        let shown =
            format!("{:?}", Tickets::of(Ring { keys: vec![TicketKey::new(&secret)], rotate_at: None }));
        assert!(!shown.contains("a5, a5") && !shown.contains("165, 165"), "{shown}");
    }
}
