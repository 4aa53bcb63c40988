//! One order: from the names to the chain (RFC 8555 §7.4). It can be gone on with by another process: what it needs is
//! in the storage before the authority is told anything.

use std::time::Duration;

use instant_acme::{
    AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_RSA_SHA256, RsaKeySize,
};
use serde::{Deserialize, Serialize};
use tls_acceptor::CertName;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::account::Session;
use super::command;
use super::failure::OrderFailure;
use super::nonce::{is_bad_nonce, with_good_nonce};
use super::schedule::FailureKind;
use super::storage::{Storage, blocking, remove};
use crate::config::{AcmeKeyType, AcmeSettings};
use crate::site::challenges::{ChallengeKind, http_01_file, is_token, tls_alpn_01_file};

/// How the authority is asked whether it has come to an end: first after half a second, then less and less often.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));

/// What is ordered.
pub(super) struct Wanted<'a> {
    pub(super) settings: &'a AcmeSettings,
    pub(super) storage: &'a Storage,
    pub(super) names: &'a [CertName],
    /// The certificate that this one takes the place of (RFC 9773 §5).
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
    /// Another process may go on with it.
    pub(super) is_kept: bool,
}

/// What is kept of an open order. The key in it is secret.
#[derive(Serialize, Deserialize)]
struct KeptOrder {
    directory: String,
    names: Vec<String>,
    url: String,
    key: String,
}

/// What stands where the authority looks.
enum Presented {
    File(String),
    Record { name: String, text: String },
}

impl Wanted<'_> {
    /// Orders the certificate, or goes on with an order. Returns the chain and the key, in PEM. Until [`Self::forget`] they can
    /// be had again.
    ///
    /// # Errors
    /// Why there is none.
    ///
    /// # Cancel safety
    /// A dropped call leaves an order that can be gone on with, if it is kept.
    pub(super) async fn obtain(&self, session: &Session) -> Result<String, OrderFailure> {
        let file = self.file();
        let (mut order, key) = match self.kept(session, &file).await? {
            Some(kept) => kept,
            None => self.begin(session, &file).await?,
        };
        let mut presented = Vec::new();
        let result = self.carry_out(session, &mut order, &key, &mut presented).await;
        for what in presented {
            self.withdraw(what).await;
        }
        // One that the authority may still come to an end with is not thrown away.
        if matches!(&result, Err(e) if e.kind != FailureKind::Unreachable || e.of_account) {
            self.forget().await;
        }
        Ok(format!("{}{key}", result?))
    }

    /// There is nothing more to be had of the order: its certificate is stored, or can't be used.
    ///
    /// # Cancel safety
    /// A dropped call may forget it later.
    pub(super) async fn forget(&self) {
        if self.is_kept {
            remove(self.storage, self.file()).await;
        }
    }

    fn file(&self) -> String {
        format!("orders/{}.json", AcmeSettings::id(self.names))
    }

    /// An order that was begun before, for the same.
    async fn kept(&self, session: &Session, file: &str) -> Result<Option<(Order, String)>, OrderFailure> {
        if !self.is_kept {
            return Ok(None);
        }
        let name = file.to_owned();
        let kept: Option<KeptOrder> = blocking(self.storage, move |storage| storage.read(&name)).await?;
        let Some(kept) =
            kept.filter(|kept| kept.directory == self.settings.directory && kept.names == self.texts())
        else {
            return Ok(None);
        };
        match with_good_nonce!(session.account.order(kept.url.clone())) {
            Ok(mut order) => {
                let is_open = order.state().status != OrderStatus::Invalid;
                Ok(is_open.then_some((order, kept.key)))
            }
            // It has expired, or is another account's.
            Err(e @ Error::Api(_)) if !is_bad_nonce(&e) => Ok(None),
            Err(e) => Err(self.failed(session, e)),
        }
    }

    /// A new order.
    async fn begin(&self, session: &Session, file: &str) -> Result<(Order, String), OrderFailure> {
        let key_type = self.settings.key_type;
        let key = spawn_blocking(move || generate(key_type)).await.map_err(OrderFailure::local)?;
        let key = key.map_err(OrderFailure::local)?;
        let identifiers: Vec<_> = self.texts().into_iter().map(Identifier::Dns).collect();
        let plain = || {
            let order = NewOrder::new(&identifiers);
            match &self.settings.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        let mut ordered = None;
        if let Some(replaces) = self.replaces.clone() {
            let new = plain().replaces(replaces);
            let replacing = with_good_nonce!(session.account.new_order(&new));
            // Not every authority knows the certificate, or lets it be replaced twice: that is no reason to have none.
            ordered = Some(replacing).filter(|result| !result.as_ref().is_err_and(may_be_of_replaces));
        }
        let ordered = match ordered {
            Some(ordered) => ordered,
            None => with_good_nonce!(session.account.new_order(&plain())),
        };
        let order = ordered.map_err(|e| self.failed(session, e))?;
        if self.is_kept {
            let kept = KeptOrder {
                directory: self.settings.directory.clone(),
                names: self.texts(),
                url: order.url().to_owned(),
                key: key.clone(),
            };
            let file = file.to_owned();
            blocking(self.storage, move |storage| storage.keep(&file, &kept)).await?;
        }
        Ok((order, key))
    }

    /// Proves the names, sends the request, and fetches the chain.
    async fn carry_out(
        &self,
        session: &Session,
        order: &mut Order,
        key: &str,
        presented: &mut Vec<Presented>,
    ) -> Result<String, OrderFailure> {
        if order.state().status == OrderStatus::Pending {
            self.present(session, order, presented).await?;
            self.set_challenges_ready(session, order).await?;
            let ready = with_good_nonce!(order.poll_ready(&PATIENCE));
            if !matches!(ready, Ok(OrderStatus::Ready)) {
                let why = self.refusal(order).await;
                return Err(why.unwrap_or_else(|| match ready {
                    Err(e) => self.failed(session, e),
                    Ok(_) => {
                        OrderFailure::new(FailureKind::Validation, "the authority has given the order up")
                    }
                }));
            }
        }
        if order.state().status == OrderStatus::Ready {
            let request = self.request(key).map_err(OrderFailure::local)?;
            let finalized = with_good_nonce!(order.finalize_csr(&request));
            finalized.map_err(|e| self.failed(session, e))?;
        }
        let certificate = with_good_nonce!(order.poll_certificate(&PATIENCE));
        certificate.map_err(|e| self.failed(session, e))
    }

    /// Puts the answers to all challenges where the authority looks for them.
    async fn present(
        &self,
        session: &Session,
        order: &mut Order,
        presented: &mut Vec<Presented>,
    ) -> Result<(), OrderFailure> {
        let mut has_records = false;
        let known = with_good_nonce!(look_up(order));
        known.map_err(|e| self.failed(session, e))?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|e| self.failed(session, e))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let Some(challenge) = authorization.challenge(self.kind()) else {
                return Err(self.not_offered());
            };
            let answer = challenge.key_authorization();
            let name = match challenge.identifier().identifier {
                Identifier::Dns(name) => name.clone(),
                other => return Err(OrderFailure::new(FailureKind::Refused, format!("no name: {other:?}"))),
            };
            let file = match self.settings.challenge {
                ChallengeKind::Http01 if is_token(&challenge.token) => http_01_file(&challenge.token),
                ChallengeKind::Http01 => {
                    return Err(OrderFailure::new(FailureKind::Refused, "the authority's token is none"));
                }
                ChallengeKind::TlsAlpn01 => tls_alpn_01_file(&name),
                ChallengeKind::Dns01 => {
                    let (name, text) = (format!("_acme-challenge.{name}"), answer.dns_value());
                    command::run(&self.settings.dns_command, ["present", &name, &text]).await?;
                    presented.push(Presented::Record { name, text });
                    has_records = true;
                    continue;
                }
            };
            let path = format!("challenges/{file}");
            let (written, answer) = (path.clone(), answer.as_str().to_owned());
            blocking(self.storage, move |storage| storage.write(&written, answer.as_bytes())).await?;
            presented.push(Presented::File(path));
        }
        if has_records {
            sleep(self.settings.dns_wait).await;
        }
        Ok(())
    }

    /// Tells the authority that it can look.
    async fn set_challenges_ready(&self, session: &Session, order: &mut Order) -> Result<(), OrderFailure> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|e| self.failed(session, e))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let name = authorization.identifier().to_string();
            let Some(mut challenge) = authorization.challenge(self.kind()) else {
                return Err(self.not_offered());
            };
            if challenge.status == ChallengeStatus::Pending {
                let told = with_good_nonce!(challenge.set_ready());
                told.map_err(|e| match e {
                    Error::Api(problem) => OrderFailure {
                        retry_after: session.heard.retry_after(),
                        ..OrderFailure::refused(&problem, Some(&name), self.settings.challenge)
                    },
                    e => self.failed(session, e),
                })?;
            }
        }
        Ok(())
    }

    /// What the authority found instead of us, if it was that.
    async fn refusal(&self, order: &mut Order) -> Option<OrderFailure> {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            with_good_nonce!(authorization.refresh()).ok()?;
            let name = authorization.identifier().to_string();
            let problem = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
            if let (AuthorizationStatus::Invalid, Some(problem)) = (authorization.status, problem) {
                return Some(OrderFailure::refused(problem, Some(&name), self.settings.challenge));
            }
        }
        None
    }

    async fn withdraw(&self, what: Presented) {
        match what {
            Presented::File(file) => remove(self.storage, file).await,
            Presented::Record { name, text } => {
                if let Err(e) = command::run(&self.settings.dns_command, ["cleanup", &name, &text]).await {
                    tracing::warn!(record = name, cause = %e, "a record of the DNS that is no longer needed stays there");
                }
            }
        }
    }

    /// The certificate signing request (RFC 8555 §7.4).
    fn request(&self, key: &str) -> Result<Vec<u8>, rcgen::Error> {
        let key = KeyPair::from_pem(key)?;
        let mut params = CertificateParams::new(self.texts())?;
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&key)?.der().to_vec())
    }

    fn texts(&self) -> Vec<String> {
        AcmeSettings::texts(self.names)
    }

    fn kind(&self) -> ChallengeType {
        match self.settings.challenge {
            ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
            ChallengeKind::Http01 => ChallengeType::Http01,
            ChallengeKind::Dns01 => ChallengeType::Dns01,
        }
    }

    fn not_offered(&self) -> OrderFailure {
        let challenge = self.settings.challenge.as_str();
        let what = format!("the authority offers no {challenge}: choose another challenge");
        OrderFailure::new(FailureKind::Refused, what)
    }

    fn failed(&self, session: &Session, e: Error) -> OrderFailure {
        OrderFailure::of(e, &session.heard, self.settings.challenge)
    }
}

/// Asks for the state of all authorizations of an order, as far as it is not known.
async fn look_up(order: &mut Order) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        authorization?;
    }
    Ok(())
}

/// An order without `replaces` may succeed.
fn may_be_of_replaces(e: &Error) -> bool {
    match e {
        e if is_bad_nonce(e) => false,
        Error::Api(problem) => problem.r#type.as_deref().is_none_or(|kind| !kind.ends_with("rateLimited")),
        Error::Unsupported(_) | Error::Other(_) => true,
        _ => false,
    }
}

/// A new key, in PEM; takes a second where it is RSA.
fn generate(key_type: AcmeKeyType) -> Result<String, rcgen::Error> {
    let key = match key_type {
        AcmeKeyType::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        AcmeKeyType::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        AcmeKeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        AcmeKeyType::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
    };
    key.map(|key| key.serialize_pem())
}
