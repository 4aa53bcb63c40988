//! Password files of Apache's `htpasswd`: a user and the hash of a password on each line. Pure; verifying takes as long
//! as its hash wants, up to seconds.
//!
//! In: the text of a file. Out: its users, or the lines that can't be understood. Hashes are bcrypt, argon2, the
//! SHA-crypt of the C library, and two that are too fast to be safe: apr1 and `{SHA}`.

mod apr1;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha_crypt::ShaCrypt;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a hash may cost at most: bcrypt's exponent (some six seconds), SHA-crypt's rounds, argon2's KiB and passes.
const BCRYPT_COST_MAX: u32 = 16;
const SHA_ROUNDS_MAX: u32 = 10_000_000;
const ARGON2_KIB_MAX: u32 = 1 << 20;
const ARGON2_PASSES_MAX: u32 = 64;

/// The users of a file.
#[derive(PartialEq, Eq)]
pub struct Htpasswd {
    by_name: HashMap<Box<str>, usize>,
    lines: Vec<Line>,
}

#[derive(PartialEq, Eq)]
struct Line {
    hash: Hash,
    digest: [u8; 32],
}

/// The hash of a password.
#[derive(PartialEq, Eq)]
enum Hash {
    Bcrypt(Box<str>),
    Argon2(Box<str>),
    ShaCrypt(Box<str>),
    Apr1 { salt: Box<str>, sum: Box<str> },
    Sha1(Vec<u8>),
}

/// A line that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it. Nothing of the hash is in it.
    pub what: String,
}

impl Htpasswd {
    /// Reads a file.
    ///
    /// # Errors
    /// Each line that can't be understood.
    pub fn parse(text: &str) -> Result<Self, Vec<BadLine>> {
        let mut file = Self { by_name: HashMap::new(), lines: Vec::new() };
        let mut bad = Vec::new();
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line_text = line.trim();
            if line_text.is_empty() || line_text.starts_with('#') {
                continue;
            }
            if let Err(what) = file.add(line_text) {
                bad.push(BadLine { line: at + 1, what });
            }
        }
        if bad.is_empty() { Ok(file) } else { Err(bad) }
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let (name, rest) = line.split_once(':').ok_or("expected USER:HASH, as htpasswd writes it")?;
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err("the name of the user is empty, or has control characters".to_owned());
        }
        let hash = Hash::parse(rest.split(':').next().unwrap_or_default())?;
        let mut digest = Sha256::new();
        digest.update(line.as_bytes());
        match self.by_name.entry(name.into()) {
            Entry::Occupied(_) => Err(format!("there is another line for the user {name:?}")),
            Entry::Vacant(place) => {
                place.insert(self.lines.len());
                self.lines.push(Line { hash, digest: digest.finalize().into() });
                Ok(())
            }
        }
    }

    /// A digest of the user's line; `None`: there is no such user.
    #[must_use]
    pub fn line(&self, user: &str) -> Option<[u8; 32]> {
        self.by_name.get(user).map(|at| self.lines[*at].digest)
    }

    /// Whether this is the user's password. For a user that is not in the file, the hash of another user's line is
    /// computed, so that the time doesn't tell which users there are. `salt`, secret and random, chooses that line.
    #[must_use]
    pub fn verify(&self, user: &str, password: &[u8], salt: u64) -> bool {
        if let Some(at) = self.by_name.get(user) {
            return self.lines[*at].hash.verify(password);
        }
        if let Some(at) = usize::try_from(salt).unwrap_or(0).checked_rem(self.lines.len()) {
            let _ = self.lines[at].hash.verify(password);
        }
        false
    }

    /// How many users there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// There are no users.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Users whose hashes are computed so fast that who has the file tries billions of passwords a second.
    #[must_use]
    pub fn weak(&self) -> Vec<&str> {
        let is_weak = |hash: &Hash| matches!(hash, Hash::Apr1 { .. } | Hash::Sha1(_));
        let weak = self.by_name.iter().filter(|(_, at)| is_weak(&self.lines[**at].hash));
        let mut names: Vec<_> = weak.map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Self, String> {
        let too_dear = |what: &str| format!("the hash takes too long or too much memory ({what})");
        if !text.is_ascii() {
            return Err("the hash has other characters than those of ASCII".to_owned());
        }
        if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|begin| text.starts_with(begin)) {
            let parts: bcrypt::HashParts =
                text.parse().map_err(|_| "the bcrypt hash is damaged".to_owned())?;
            if parts.get_cost() > BCRYPT_COST_MAX {
                return Err(too_dear(&format!("a cost of more than {BCRYPT_COST_MAX}")));
            }
            return Ok(Self::Bcrypt(text.into()));
        }
        if text.starts_with("$argon2") {
            let hash = PasswordHash::new(text).map_err(|_| "the argon2 hash is damaged".to_owned())?;
            let params = Params::try_from(&hash).map_err(|_| "the argon2 hash is damaged".to_owned())?;
            if params.m_cost() > ARGON2_KIB_MAX || params.t_cost() > ARGON2_PASSES_MAX {
                return Err(too_dear(&format!("more than 1 GiB, or {ARGON2_PASSES_MAX} passes")));
            }
            return Ok(Self::Argon2(text.into()));
        }
        if let Some(rest) = text.strip_prefix("$5$").or_else(|| text.strip_prefix("$6$")) {
            let rounds = rest.strip_prefix("rounds=").and_then(|rest| rest.split('$').next());
            let rounds = rounds.map_or(Ok(0), str::parse::<u32>);
            if rounds.is_err() || rest.rsplit('$').next().is_none_or(|sum| !matches!(sum.len(), 43 | 86)) {
                return Err("the SHA-crypt hash is damaged".to_owned());
            }
            if rounds.is_ok_and(|rounds| rounds > SHA_ROUNDS_MAX) {
                return Err(too_dear(&format!("more than {SHA_ROUNDS_MAX} rounds")));
            }
            return Ok(Self::ShaCrypt(text.into()));
        }
        if let Some((salt, sum)) = text.strip_prefix("$apr1$").and_then(|rest| rest.split_once('$')) {
            if salt.is_empty() || salt.len() > 8 || sum.len() != 22 {
                return Err("the apr1 hash is damaged".to_owned());
            }
            return Ok(Self::Apr1 { salt: salt.into(), sum: sum.into() });
        }
        if let Some(sum) = text.strip_prefix("{SHA}") {
            let sum = STANDARD.decode(sum).ok().filter(|sum| sum.len() == 20);
            return sum.map(Self::Sha1).ok_or_else(|| "the {SHA} hash is damaged".to_owned());
        }
        Err("this is no hash that can be used: bcrypt, argon2, $5$, $6$, apr1 or {SHA}; write the line with \
             `htpasswd -B`"
            .to_owned())
    }

    fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
            Self::ShaCrypt(hash) => {
                sha_crypt::PasswordVerifier::<str>::verify_password(&ShaCrypt::default(), password, hash)
                    .is_ok()
            }
            Self::Apr1 { salt, sum } => {
                apr1::sum(password, salt.as_bytes()).as_bytes().ct_eq(sum.as_bytes()).into()
            }
            Self::Sha1(sum) => Sha1::digest(password).as_slice().ct_eq(sum).into(),
        }
    }
}

/// Nothing of the hashes.
impl fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Htpasswd").field("users", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("samples");

    #[test]
    fn hashes_of_other_programs_are_verified() {
        let file = Htpasswd::parse(FILE).unwrap();
        assert_eq!(file.len(), 6);
        for user in ["apr1", "bcrypt", "sha256", "sha512", "sha1", "argon2"] {
            let password = if user == "argon2" { "password" } else { "secret" };
            assert!(file.verify(user, password.as_bytes(), 0), "{user}");
            for wrong in [&b"Secret"[..], b"secret ", b"", b"secret\0", b"\xff\xfe", &[b'x'; 300]] {
                assert!(!file.verify(user, wrong, 0), "{user} {wrong:?}");
            }
        }
        assert!(!file.verify("nobody", b"secret", 3), "the line that is computed lets no one in");
        assert_eq!(file.weak(), ["apr1", "sha1"]);
        assert_eq!(format!("{file:?}"), "Htpasswd { users: 6, .. }");
        assert!(!Htpasswd::parse("# none\n\n").unwrap().verify("a", b"b", 7));
    }

    #[test]
    fn a_line_is_known_by_its_digest() {
        let file = |text: &str| Htpasswd::parse(text).unwrap();
        let sha = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
        let one = file(&format!("alice:{sha}\nbob:{sha}\n"));
        assert_eq!(one.line("alice"), file(&format!("\u{feff}# x\n alice:{sha}\n")).line("alice"));
        assert_ne!(one.line("alice"), one.line("bob"));
        assert_eq!(one.line("carol"), None);
    }

    #[test]
    fn bad_lines_are_told_without_what_is_secret() {
        for (line, says) in [
            ("alice", "expected USER:HASH"),
            (":{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "the name of the user is empty"),
            ("alice:plaintext", "this is no hash that can be used"),
            ("alice:rl/F2GpRQPxU2", "this is no hash that can be used"),
            ("alice:$2y$05$short", "the bcrypt hash is damaged"),
            ("alice:$2y$31$c4nwvDd5rLSrMRlHmEFmYO9mFZ8SjYbKiVJdhHwXbuPiUzmYpgZ1G", "takes too long"),
            ("alice:$2y$05$\u{20ac}4nwvDd5rLSrMRlHmEFmYO9mFZ8SjYbKiVJdhHwXbuPiUzmYpgZ", "other characters"),
            ("alice:$apr1$toolongasalt$oWSE1dGOHo8YtALS4evd3/", "the apr1 hash is damaged"),
            ("alice:{SHA}5en6", "the {SHA} hash is damaged"),
            ("alice:$6$rounds=99999999$abc$x", "the SHA-crypt hash is damaged"),
            ("alice:$argon2id$v=19$m=9999999,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b27kw", "takes too long"),
        ] {
            let bad = Htpasswd::parse(&format!("# first\n{line}\n")).unwrap_err();
            assert_eq!(bad.len(), 1, "{line}");
            assert!(
                bad[0].to_string().starts_with("line 2: ") && bad[0].what.contains(says),
                "{line}: {bad:?}"
            );
            assert!(!bad[0].what.contains("plaintext") && !bad[0].what.contains("c4nwvDd5"), "{bad:?}");
        }
        let sha = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
        let twice = Htpasswd::parse(&format!("a:{sha}\na:{sha}")).unwrap_err();
        assert_eq!(twice[0].to_string(), "line 2: there is another line for the user \"a\"");
    }
}
