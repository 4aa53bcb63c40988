//! Answers to an authority that validates names (RFC 8555 §8): read from the directory that all gateways of a service
//! share, when they are asked for. One gateway has ordered and written them, and each can be asked.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use sha2::{Digest, Sha256};
use tls_acceptor::{AnswerChallenges, ChallengeAnswer, ChallengeFuture};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::site::on_demand::AllowedNames;

/// Where an authority asks for answers over plain HTTP (RFC 8555 §8.3).
pub(crate) const HTTP_01_PATH: &str = "/.well-known/acme-challenge/";
/// Files that are looked for at a time: anyone can ask, and a directory may be on a slow network.
const READS_MAX: usize = 16;
/// How long an authority waits for its turn, however many others ask.
const TURN_WAIT: Duration = Duration::from_secs(2);
/// A token, a dot, and a thumbprint (RFC 8555 §8.1). In bytes.
const ANSWER_LEN_MAX: u64 = 512;
/// Digits of a token: it has at least 128 bits (RFC 8555 §8.3).
const TOKEN_LEN_MAX: usize = 256;

/// How a name is proved to lead to this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeKind {
    /// By a handshake on port 443 (RFC 8737).
    TlsAlpn01,
    /// By a request to port 80 (RFC 8555 §8.3).
    Http01,
    /// By a record in the DNS (RFC 8555 §8.4).
    Dns01,
}

impl ChallengeKind {
    /// As ACME calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// The answers to open challenges.
#[derive(Debug)]
pub struct Challenges {
    directory: PathBuf,
    /// No other name is looked for, but those that are ordered on demand.
    names: HashSet<Box<str>>,
    on_demand: Option<AllowedNames>,
    reads: Arc<Semaphore>,
}

impl Challenges {
    /// Those in this directory, for these names.
    #[must_use]
    pub fn new(directory: PathBuf, names: HashSet<Box<str>>, on_demand: Option<AllowedNames>) -> Self {
        Self { directory, names, on_demand, reads: Arc::new(Semaphore::new(READS_MAX)) }
    }

    /// The answer to a request for this token; `None`: no order of ours has it.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn http_01(&self, token: &str) -> Option<String> {
        if !is_token(token) {
            return None;
        }
        let permit = turn(self.reads.clone()).await?;
        let file = self.directory.join(http_01_file(token));
        let read = spawn_blocking(move || {
            let _permit = permit;
            read(file)
        });
        read.await.ok()?
    }
}

impl AnswerChallenges for Challenges {
    fn answer(&self, name: &str) -> ChallengeFuture {
        let is_on_demand = || self.on_demand.as_ref().is_some_and(|allowed| allowed.allows(name));
        let is_ours = self.names.contains(name) || is_on_demand();
        let reads = self.reads.clone();
        let (name, file) = (name.to_owned(), self.directory.join(tls_alpn_01_file(name)));
        Box::pin(async move {
            let permit = if is_ours { turn(reads).await? } else { return None };
            let answering = spawn_blocking(move || {
                let _permit = permit;
                certificate(&name, &read(file)?).ok()
            });
            answering.await.ok()?
        })
    }
}

/// Waits for a turn to look for a file.
async fn turn(reads: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    timeout(TURN_WAIT, reads.acquire_owned()).await.ok()?.ok()
}

/// The file with the answer to a request for `token`.
pub(crate) fn http_01_file(token: &str) -> String {
    format!("http-01.{token}")
}

/// The file with the answer for `name` in a handshake.
pub(crate) fn tls_alpn_01_file(name: &str) -> String {
    format!("tls-alpn-01.{name}")
}

/// Digits of base64url, which also is no other path (RFC 8555 §8.3).
pub(crate) fn is_token(token: &str) -> bool {
    (1..=TOKEN_LEN_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn read(file: PathBuf) -> Option<String> {
    let mut answer = String::new();
    File::open(file).ok()?.take(ANSWER_LEN_MAX).read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The certificate that proves a name by this key authorization (RFC 8737 §3).
fn certificate(name: &str, key_authorization: &str) -> Result<ChallengeAnswer, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let digest = Sha256::digest(key_authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let certificate = params.self_signed(&key)?;
    Ok(ChallengeAnswer { certificate: certificate.der().to_vec(), key: key.serialize_der() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenges(directory: &tempfile::TempDir) -> Challenges {
        let names = ["domain.com".into()].into_iter().collect();
        Challenges::new(directory.path().to_owned(), names, None)
    }

    #[tokio::test]
    async fn answers_are_those_of_open_orders() {
        let directory = tempfile::TempDir::new().unwrap();
        std::fs::write(directory.path().join("http-01.tok-en_1"), "tok-en_1.thumb").unwrap();
        std::fs::write(directory.path().join("secret"), "secret").unwrap();
        let challenges = challenges(&directory);
        assert_eq!(challenges.http_01("tok-en_1").await.as_deref(), Some("tok-en_1.thumb"));
        for no in ["tok-en_2", "", "../secret", "a/../../secret", ".", "tok-en_1\0", &"a".repeat(257)] {
            assert_eq!(challenges.http_01(no).await, None, "{no:?}");
        }
    }

    /// A slow file system, and others who ask without end.
    #[tokio::test(start_paused = true)]
    async fn an_authority_waits_for_its_turn_and_not_for_ever() {
        let directory = tempfile::TempDir::new().unwrap();
        std::fs::write(directory.path().join("http-01.token"), "token.thumb").unwrap();
        std::fs::write(directory.path().join(tls_alpn_01_file("domain.com")), "t.thumb").unwrap();
        let challenges = challenges(&directory);
        let others = challenges.reads.clone().acquire_many_owned(u32::try_from(READS_MAX).unwrap()).await;
        assert_eq!(challenges.http_01("token").await, None);
        assert!(challenges.answer("domain.com").await.is_none());
        let (answer, ()) = tokio::join!(challenges.http_01("token"), async { drop(others) });
        assert_eq!(answer.as_deref(), Some("token.thumb"));
    }

    #[tokio::test]
    async fn handshakes_are_answered_for_names_of_ours_alone() {
        let directory = tempfile::TempDir::new().unwrap();
        for name in ["domain.com", "other.com"] {
            std::fs::write(directory.path().join(tls_alpn_01_file(name)), "t.thumb").unwrap();
        }
        let challenges = challenges(&directory);
        let answer = challenges.answer("domain.com").await.unwrap();
        let digest = Sha256::digest(b"t.thumb");
        let found = answer.certificate.windows(digest.len()).any(|part| part == &*digest);
        assert!(found, "the digest of the key authorization is in the certificate");
        assert!(challenges.answer("other.com").await.is_none());
        std::fs::remove_file(directory.path().join(tls_alpn_01_file("domain.com"))).unwrap();
        assert!(challenges.answer("domain.com").await.is_none());
    }
}
