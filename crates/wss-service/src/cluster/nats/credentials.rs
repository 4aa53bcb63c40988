//! A file that says who logs in: the seed of an nkey, alone or behind a JWT (`.creds`), as `nsc` and `nk` write them.
//!
//! It is read for each connection, since JWTs expire. The seed stays here: it signs what the server says first.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::nkey::{NKey, NoSeed};

/// Bytes of a file.
const FILE_MAX: u64 = 64 * 1024;

pub(super) struct Credentials {
    pub(super) jwt: Option<String>,
    pub(super) key: NKey,
}

/// Why a file can't be used. It repeats nothing that is in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialsError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("there is no seed in it, a line that begins with SU")]
    NoSeed,
    #[error("{0}")]
    BadSeed(#[from] NoSeed),
    #[error("a JWT has to be one line between those that say so")]
    BadJwt,
}

impl Credentials {
    /// Blocks.
    pub(super) fn read(path: &Path) -> Result<Self, CredentialsError> {
        let mut text = String::new();
        File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
        Self::parse(&text)
    }

    /// Lines of dashes say what is in the next line. Without them, a seed is known by how it begins.
    fn parse(text: &str) -> Result<Self, CredentialsError> {
        let (mut jwt, mut seed, mut title) = (None, None, "");
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with("---") {
                title = if line.contains("BEGIN") { line } else { "" };
            } else if title.contains("JWT") {
                if jwt.replace(line).is_some() {
                    return Err(CredentialsError::BadJwt);
                }
            } else if seed.is_none()
                && (title.contains("SEED") || line.starts_with("SU") && !line.contains(' '))
            {
                seed = Some(line);
            }
        }
        let key = NKey::parse(seed.ok_or(CredentialsError::NoSeed)?)?;
        Ok(Self { jwt: jwt.map(ToOwned::to_owned), key })
    }
}

#[cfg(test)]
mod tests {
    use super::super::nkey::EXAMPLE as SEED;
    use super::*;

    #[test]
    fn files_are_read_as_tools_write_them() {
        let public = NKey::parse(SEED).unwrap().public();
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\r\neyJ0.eyJq.c2ln\r\n------END NATS USER JWT------\r\n\r\n\
            ************************* IMPORTANT *************************\n  NKEY Seed printed below can be used to \
            sign and prove identity.\n  SUCH FILES ARE SECRETS.\n\n-----BEGIN USER NKEY SEED-----\n{SEED}\n\
            ------END USER NKEY SEED------\n"
        );
        let alone = format!("# of the chat\n{SEED}\n{public}\n");
        for (text, jwt) in [(&creds, Some("eyJ0.eyJq.c2ln")), (&alone, None), (&SEED.to_owned(), None)] {
            let read = Credentials::parse(text).unwrap();
            assert_eq!((read.jwt.as_deref(), read.key.public()), (jwt, public.clone()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_seed() {
        let damaged = format!("{}A", &SEED[..57]);
        let twice = "-----BEGIN NATS USER JWT-----\na\nb\n------END NATS USER JWT------\n";
        let block = format!("-----BEGIN USER NKEY SEED-----\n{damaged}\n------END USER NKEY SEED------");
        for text in ["", "user: chat", &damaged, &block, &format!("{twice}{SEED}")] {
            let error = Credentials::parse(text).map(|_| ()).unwrap_err().to_string();
            assert!(!error.contains(&SEED[10..40]), "{error}");
        }
        assert!(matches!(Credentials::read(Path::new("/there/is/no/file")), Err(CredentialsError::Io(_))));
    }
}
