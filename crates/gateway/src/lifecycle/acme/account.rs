//! The account with the authority: made once, then kept in the storage.

use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, CertificateIdentifier, Error, ExternalAccountKey, NewAccount,
};
use net_io::unix_now;
use serde::{Deserialize, Serialize};
use tls_acceptor::TlsConnector;
use tracing::{info, warn};

use super::client::{Client, Heard};
use super::failure::OrderFailure;
use super::nonce::with_good_nonce;
use super::schedule;
use super::storage::{Storage, blocking, remove};
use crate::config::AcmeSettings;

/// An account, and what the authority said last.
pub(super) struct Session {
    pub(super) account: Account,
    pub(super) heard: Heard,
}

/// What is kept of an account. The key in it is secret.
#[derive(Serialize, Deserialize)]
struct Kept {
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// When the authority suggests to renew a certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Suggestion {
    /// Which certificate, as the authority calls it.
    pub(super) of: String,
    /// The moment that was chosen; `None`: it suggests nothing.
    pub(super) at: Option<i64>,
    /// When to ask again.
    pub(super) good_until: i64,
}

impl Suggestion {
    /// The authority could not be asked: what it said `before` holds for a while.
    pub(super) fn unknown(certificate: &CertificateIdentifier<'_>, before: Option<i64>) -> Self {
        let good_until = unix_now() + schedule::suggestion_age(FAILED_AGE);
        Self { of: certificate.to_string(), at: before, good_until }
    }
}

/// How long an authority without suggestions is not asked for any.
const UNSUPPORTED_AGE: Duration = Duration::from_secs(24 * 3600);
/// The same for one that could not say.
const FAILED_AGE: Duration = Duration::from_secs(3600);

impl Session {
    /// Takes the account out of the storage, or registers one.
    ///
    /// # Errors
    /// If the authority has none for us.
    ///
    /// # Cancel safety
    /// A dropped call may have registered an account that is not kept.
    pub(super) async fn begin(settings: &AcmeSettings, storage: &Storage) -> Result<Self, OrderFailure> {
        let trust = settings.connector();
        let connector = tokio::task::spawn_blocking(move || TlsConnector::new(&trust));
        let connector = connector.await.map_err(OrderFailure::local)?.map_err(OrderFailure::local)?;
        let file = Self::file(settings);
        let name = file.clone();
        let kept: Option<Kept> = blocking(storage, move |storage| storage.read(&name)).await?;
        let contact: Vec<String> =
            settings.contact.iter().map(|contact| format!("mailto:{contact}")).collect();
        let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
        let (client, heard) = Client::new(connector);
        let builder = || Account::builder_with_http(Box::new(client.clone()));
        let refused = |heard: &Heard, e: Error| OrderFailure::of(e, heard, settings.challenge);
        let Some(kept) = kept else {
            let new =
                NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
            let external = settings.external_account.as_ref();
            let external =
                external.map(|known| ExternalAccountKey::new(known.key_id.clone(), &known.hmac_key));
            let made =
                with_good_nonce!(builder().create(&new, settings.directory.clone(), external.as_ref()));
            let (account, credentials) = made.map_err(|e| refused(&heard, e))?;
            info!(
                account = account.id(),
                directory = settings.directory,
                "registered with the certificate authority"
            );
            let kept = Kept { contact, credentials };
            blocking(storage, move |storage| storage.keep(&file, &kept)).await?;
            return Ok(Self { account, heard });
        };
        let Kept { contact: before, credentials } = kept;
        // They are consumed, and written again where the contact has changed.
        let text = serde_json::to_vec(&credentials).map_err(OrderFailure::local)?;
        let account = builder().from_credentials(credentials).await.map_err(|e| refused(&heard, e))?;
        if before != contact {
            let updated = with_good_nonce!(account.update_contacts(&contacts));
            updated.map_err(|e| refused(&heard, e))?;
            let credentials = serde_json::from_slice(&text).map_err(OrderFailure::local)?;
            let kept = Kept { contact, credentials };
            blocking(storage, move |storage| storage.keep(&file, &kept)).await?;
        }
        Ok(Self { account, heard })
    }

    /// One for each authority.
    fn file(settings: &AcmeSettings) -> String {
        let digits = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
        let name: String = settings.directory.trim_start_matches("https://").chars().map(digits).collect();
        format!("accounts/{name}.json")
    }

    /// The authority doesn't know the account any more: the next order registers another one.
    pub(super) async fn forget(settings: &AcmeSettings, storage: &Storage) {
        let file = Self::file(settings);
        warn!(
            directory = settings.directory,
            "the certificate authority does not know the account; a new one is registered"
        );
        remove(storage, file).await;
    }

    /// Asks when to renew a certificate (RFC 9773). `before` is the moment that was chosen at the last answer.
    pub(super) async fn suggestion(
        &self,
        certificate: &CertificateIdentifier<'_>,
        before: Option<i64>,
    ) -> Suggestion {
        let (at, age) = match self.account.renewal_info(certificate).await {
            Ok((info, retry_after)) => {
                let window = info.suggested_window;
                let (start, end) = (window.start.unix_timestamp(), window.end.unix_timestamp());
                (Some(schedule::within(start, end, before, rand::random())), retry_after)
            }
            Err(Error::Unsupported(_)) => (None, UNSUPPORTED_AGE),
            Err(_) => return Suggestion::unknown(certificate, before),
        };
        let good_until = unix_now() + schedule::suggestion_age(age);
        Suggestion { of: certificate.to_string(), at, good_until }
    }
}
