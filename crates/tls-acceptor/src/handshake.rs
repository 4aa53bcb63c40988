//! The handshake: rustls says what to send and what is missing, here it is sent and read.
//!
//! rustls is shown one record at a time, so that it never sees one that follows the handshake: from
//! there on records are opened by [`record`](crate::record), with the keys that come out of this.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;

use rustls::ProtocolVersion::TLSv1_3;
use rustls::crypto::SupportedKxGroup;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{
    ConnectionTrafficSecrets, ContentType as Kind, Error, ExtractedSecrets, HandshakeKind, InvalidMessage,
    KeyLog, NamedGroup, PeerMisbehaved, ProtocolVersion, ServerConfig, SupportedCipherSuite,
};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::early_data::EarlyData;
use crate::error::AcceptError;
use crate::hello::{Glance, is_challenge};
use crate::name::normalize;
use crate::negotiated::Negotiated;
use crate::permits::Permits;
use crate::record::{
    CLOSE_NOTIFY, Cipher, Content, ContentType, Fault, HEADER_LEN, OVERHEAD_MAX, RECORD_MAX, Secret,
    UNRECOGNIZED_NAME, USER_CANCELED, alert,
};
use crate::turn::Turn;
use crate::waiting::Client;

/// Bytes of room for each read: a client's second flight fits.
const READ_LEN: usize = 1024;
/// Bytes of a handshake message and its records. The longest message that rustls takes, 65,535 bytes, fits in
/// records of usual lengths, but not in one record for each byte.
pub(crate) const UNREAD_MAX: usize = 8 * RECORD_MAX;

/// What a handshake leaves.
pub(crate) struct Finished {
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) suite: SupportedCipherSuite,
    /// For both directions, with the numbers of their next records.
    pub(crate) keys: ExtractedSecrets,
    /// What they are made of.
    pub(crate) secrets: Secrets,
    /// What the network is still to be given: tickets, for instance.
    pub(crate) unsent: Vec<u8>,
    /// Records that came behind the handshake.
    pub(crate) wire: Vec<u8>,
    /// By its ALPN name.
    pub(crate) alpn: Option<Box<[u8]>>,
    /// What the client has shown, its own first.
    pub(crate) certificates: Option<Vec<CertificateDer<'static>>>,
    /// The session was resumed from a ticket.
    pub(crate) resumed: bool,
    /// Of the key exchange; `None`: there was none.
    pub(crate) group: Option<NamedGroup>,
}

impl Finished {
    /// What was agreed upon.
    pub(crate) fn negotiated(&self) -> Negotiated {
        Negotiated::new(self.suite.suite(), self.group, self.alpn.as_deref(), self.resumed)
    }
}

/// The secrets of a connection. In TLS 1.3 each makes a key and its successors; in TLS 1.2 each is the key, which can
/// be asked of no AEAD.
pub(crate) struct Secrets {
    /// What the peer seals with.
    pub(crate) peer: Secret,
    /// What is sealed here with.
    pub(crate) own: Secret,
}

/// The secrets that rustls has given so far.
#[derive(Default)]
pub(crate) struct CapturedSecrets {
    /// What the client seals the rest of its handshake with.
    handshake: Option<Secret>,
    pub(crate) client: Option<Secret>,
    pub(crate) server: Option<Secret>,
}

thread_local! {
    /// What rustls has given to [`SecretCapture`] since the last look.
    static CAPTURED: RefCell<CapturedSecrets> = const { RefCell::new(CapturedSecrets { handshake: None, client: None, server: None }) };
}

/// rustls hands out keys, but the secrets that they are derived from only to its key log.
#[derive(Debug)]
pub(crate) struct SecretCapture;

impl KeyLog for SecretCapture {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        CAPTURED.with_borrow_mut(|secrets| match label {
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET" => secrets.handshake = Secret::new(secret),
            "CLIENT_TRAFFIC_SECRET_0" => secrets.client = Secret::new(secret),
            "SERVER_TRAFFIC_SECRET_0" => secrets.server = Secret::new(secret),
            _ => {}
        });
    }
}

impl CapturedSecrets {
    /// Takes those of the connection that rustls has just worked for.
    pub(crate) fn take_captured(&mut self) {
        let new = CAPTURED.take();
        self.handshake = new.handshake.or(self.handshake.take());
        self.client = new.client.or(self.client.take());
        self.server = new.server.or(self.server.take());
    }
}

/// What to do next, in a handshake of either end.
pub(crate) enum Step {
    Look,
    Send,
    Read,
    Finish,
}

impl Step {
    /// What rustls asks for; `None`: the peer has ended the connection. What is to be sent is put behind `out`.
    ///
    /// # Errors
    /// Those of rustls, and data before the end of the handshake.
    pub(crate) fn of<D>(
        state: Result<ConnectionState<'_, '_, D>, Error>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Self>, Error> {
        Ok(Some(match state? {
            ConnectionState::EncodeTlsData(flight) => {
                encode(flight, out)?;
                Self::Look
            }
            ConnectionState::TransmitTlsData(flight) => {
                flight.done();
                Self::Send
            }
            ConnectionState::BlockedHandshake => Self::Read,
            ConnectionState::WriteTraffic(_) => Self::Finish,
            ConnectionState::PeerClosed | ConnectionState::Closed => return Ok(None),
            _ => {
                return Err(Error::InappropriateMessage {
                    expect_types: vec![Kind::Handshake],
                    got_type: Kind::ApplicationData,
                });
            }
        }))
    }
}

/// What a handshake shares with others.
pub(crate) struct Shared<'a> {
    pub(crate) permits: &'a Permits,
    pub(crate) client: Client,
}

impl Shared<'_> {
    /// Reads into the room that `wire` has. While it waits for the client, others may need its place.
    ///
    /// # Errors
    /// If the client has gone, or has to.
    pub(crate) async fn read(&self, tcp: &mut TcpStream, wire: &mut Vec<u8>) -> Result<(), AcceptError> {
        let mut read = pin!(tcp.read_buf(wire));
        let read = match read.as_mut().now_or_never() {
            Some(read) => read,
            None => {
                let place = self.permits.waiting.enter(self.client);
                tokio::select! {
                    biased;
                    read = read => read,
                    () = place.called_off() => return Err(AcceptError::Shed),
                }
            }
        };
        if read.map_err(AcceptError::of_io)? == 0 { Err(AcceptError::Gone) } else { Ok(()) }
    }
}

/// A handshake in progress.
pub(crate) struct Handshake {
    tls: UnbufferedServerConnection,
    /// What the client has sent, as far as it is still needed.
    wire: Vec<u8>,
    /// How much of it rustls has been shown.
    shown: usize,
    /// The records that are to be sent.
    out: Vec<u8>,
    /// Some of it may have left.
    is_sending: bool,
    /// Nothing has been said to the client yet.
    is_first: bool,
    secrets: CapturedSecrets,
    /// The front of the ClientHello, once it has come.
    glance: Option<Glance>,
    /// Early data that may still come.
    early: Option<Box<EarlyData>>,
    /// For a ClientHello of more than one record.
    long_hello: Option<OwnedSemaphorePermit>,
}

impl Handshake {
    /// One of which `wire` was read before.
    ///
    /// # Errors
    /// If rustls can't do one.
    pub(crate) fn new(config: Arc<ServerConfig>, wire: Vec<u8>) -> Result<Self, AcceptError> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config).map_err(AcceptError::Tls)?,
            wire,
            shown: 0,
            out: Vec::new(),
            is_sending: false,
            is_first: true,
            secrets: CapturedSecrets::default(),
            glance: None,
            early: None,
            long_hello: None,
        })
    }

    /// Reads the first record, and leaves it where it is; returns whether an authority validates a name by it.
    ///
    /// # Errors
    /// If the client has gone, or has to.
    ///
    /// # Cancel safety
    /// That of [`Self::run`].
    pub(crate) async fn is_challenge(
        &mut self,
        tcp: &mut TcpStream,
        shared: &Shared<'_>,
    ) -> Result<bool, AcceptError> {
        self.read_whole(0, tcp, shared).await?;
        let len = record_len(&self.wire).unwrap_or(self.wire.len());
        Ok(is_challenge(self.wire.get(..len).unwrap_or_default()))
    }

    /// Reads the ClientHello, and leaves it where it is; returns the name that the client asks for. `None`: rustls
    /// can't read it, and [`Self::run`] will say why.
    ///
    /// # Errors
    /// If the client has gone, or has to, or its hello is too long.
    ///
    /// # Cancel safety
    /// That of [`Self::run`].
    pub(crate) async fn server_name(
        &mut self,
        tcp: &mut TcpStream,
        shared: &Shared<'_>,
    ) -> Result<Option<Option<Box<str>>>, AcceptError> {
        let mut reader = Box::new(rustls::server::Acceptor::default());
        let mut seen = 0;
        loop {
            self.read_whole(seen, tcp, shared).await?;
            let unseen = self.wire.get(seen..).unwrap_or_default();
            let len = record_len(unseen).unwrap_or(unseen.len());
            let mut record = unseen.get(..len).unwrap_or_default();
            while !record.is_empty() {
                if reader.read_tls(&mut record).is_err() {
                    return Ok(None);
                }
                match reader.accept() {
                    Ok(Some(accepted)) => {
                        let hello = accepted.client_hello();
                        return Ok(Some(hello.server_name().map(|name| normalize(name).into())));
                    }
                    Ok(None) => {}
                    Err(_) => return Ok(None),
                }
            }
            seen += len;
        }
    }

    /// Goes on by another configuration; nothing has been shown to rustls.
    ///
    /// # Errors
    /// If rustls can't do it.
    pub(crate) fn choose(&mut self, config: Arc<ServerConfig>) -> Result<(), AcceptError> {
        self.tls = UnbufferedServerConnection::new(config).map_err(AcceptError::Tls)?;
        Ok(())
    }

    /// Does the handshake with the client at the other end of `tcp`.
    ///
    /// # Errors
    /// See [`AcceptError`]. The alert for the client is in [`Self::last_words`].
    ///
    /// # Cancel safety
    /// None: after a dropped call, only the alert of [`Self::last_words`] can be sent.
    pub(crate) async fn run(&mut self, tcp: &mut TcpStream, shared: &Shared<'_>) -> Result<(), AcceptError> {
        let mut turn = None;
        loop {
            // No other connection has its turn on this thread before the secrets are taken.
            let shown = self.wire.get_mut(..self.shown).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(shown);
            self.secrets.take_captured();
            let Some(step) = Step::of(state, &mut self.out).transpose() else {
                return Err(AcceptError::Gone);
            };
            let discard = discard.min(self.shown);
            self.wire.drain(..discard);
            self.shown -= discard;
            match step.map_err(AcceptError::of_tls)? {
                Step::Look => {}
                // Clients don't wait for tickets: they are sent with the first answer, in one packet.
                Step::Send if !self.tls.is_handshaking() && self.tls.protocol_version() == Some(TLSv1_3) => {}
                Step::Send => {
                    self.is_first = false;
                    if let Some(turn) = turn.take() {
                        Turn::pass_on(turn).await;
                    }
                    self.is_sending = true;
                    tcp.write_all(&self.out).await.map_err(AcceptError::of_io)?;
                    self.is_sending = false;
                    self.out.clear();
                }
                Step::Finish if !self.tls.is_handshaking() => return Ok(()),
                Step::Read | Step::Finish => {
                    turn = None;
                    self.read_record(tcp, shared).await?;
                    if self.is_first {
                        turn = Some(Turn::take().await);
                    }
                }
            }
        }
    }

    /// Reads until there is one more record that rustls is to be shown.
    async fn read_record(&mut self, tcp: &mut TcpStream, shared: &Shared<'_>) -> Result<(), AcceptError> {
        loop {
            self.read_whole(self.shown, tcp, shared).await?;
            let len = record_len(self.unseen()).unwrap_or(self.unseen().len());
            if self.glance.is_none() {
                let glance = Glance::of(self.unseen().get(..len).unwrap_or_default());
                self.early = glance.early_data.then(|| Box::new(EarlyData::new()));
                self.glance = Some(glance);
            }
            if !self.is_early_data(len)? {
                self.shown += len;
                return Ok(());
            }
            self.wire.drain(..len);
        }
    }

    /// Reads until the record that begins at `at` is whole.
    async fn read_whole(
        &mut self,
        at: usize,
        tcp: &mut TcpStream,
        shared: &Shared<'_>,
    ) -> Result<(), AcceptError> {
        while let Some(missing) = missing(self.wire.get(at..).unwrap_or_default()) {
            let len = self.wire.len() + missing;
            if len > UNREAD_MAX {
                return Err(AcceptError::Tls(InvalidMessage::HandshakePayloadTooLarge.into()));
            }
            if len > RECORD_MAX && self.long_hello.is_none() {
                self.long_hello = shared.permits.long_hellos.clone().acquire_owned().await.ok();
            }
            // Exact: what a client has begun costs little more than it has sent.
            self.wire.reserve_exact(missing.max(READ_LEN));
            shared.read(tcp, &mut self.wire).await?;
        }
        Ok(())
    }

    /// What rustls has not been shown.
    fn unseen(&self) -> &[u8] {
        self.wire.get(self.shown..).unwrap_or_default()
    }

    /// The first `len` bytes are a record of rejected early data. It can't come in the middle of a message,
    /// nor before our answer to the ClientHello.
    fn is_early_data(&mut self, len: usize) -> Result<bool, AcceptError> {
        if self.is_first || self.shown > 0 || self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_2) {
            return Ok(false);
        }
        let Some(early) = &mut self.early else { return Ok(false) };
        let keys = self.tls.negotiated_cipher_suite().zip(self.secrets.handshake.as_ref());
        let record = self.wire.get(..len).unwrap_or_default();
        match early.is(record, keys) {
            Ok(Some(is_early)) => {
                if !is_early {
                    self.early = None; // none comes behind it
                }
                Ok(is_early)
            }
            Ok(None) => Ok(false),
            Err(_) => Err(AcceptError::Tls(PeerMisbehaved::TooMuchEarlyDataReceived.into())),
        }
    }

    /// What is to be sent to the client at the end of a handshake that has failed: the alert that says why,
    /// and what was to be sent before it (RFC 8446 §6.2).
    pub(crate) fn last_words(&mut self, why: &AcceptError) -> &[u8] {
        let nothing_came = self.glance.is_none() && self.wire.is_empty();
        match why {
            _ if self.is_sending || nothing_came => return &[],
            AcceptError::Gone | AcceptError::Io(_) | AcceptError::NotTls { .. } => return &[],
            // What has ended it is an alert of the client's.
            AcceptError::Challenge { .. } | AcceptError::Distrusted(_) => return &[],
            AcceptError::NoCertificate { server_name: Some(_) } if self.is_first => {
                self.queue_alerts(&[UNRECOGNIZED_NAME]);
            }
            AcceptError::Timeout | AcceptError::Shed => self.queue_alerts(&[USER_CANCELED, CLOSE_NOTIFY]),
            AcceptError::NoCertificate { .. }
            | AcceptError::NoApplicationProtocol
            | AcceptError::NoClientCertificate { .. }
            | AcceptError::ClientCertificate(_) => self.queue_alert_of_rustls(),
            AcceptError::Tls(e) => match self.glance.and_then(|glance| glance.old) {
                // rustls looks for signature_algorithms first, which such clients don't know.
                Some(_) if self.is_first => self.queue_alerts(&[Fault::PROTOCOL_VERSION.alert]),
                _ => {
                    let len = self.out.len();
                    self.queue_alert_of_rustls();
                    if self.out.len() == len {
                        self.queue_alerts(&[alert_of(e)]);
                    }
                }
            },
        }
        &self.out
    }

    /// rustls' alert, and what it has for the client before that.
    fn queue_alert_of_rustls(&mut self) {
        loop {
            let start = self.out.len();
            let shown = self.wire.get_mut(..self.shown).unwrap_or_default();
            let queued = match self.tls.process_tls_records(shown).state {
                Ok(ConnectionState::EncodeTlsData(flight)) => encode(flight, &mut self.out).is_ok(),
                _ => false,
            };
            self.secrets.take_captured(); // not for the next connection
            // Asked once more, rustls would look at the same record again, and fail again.
            if !queued || self.out.get(start..).is_some_and(is_alert) {
                return;
            }
        }
    }

    /// Alerts of our own. Behind the server's flight they are under the first keys of its data
    /// (RFC 8446 §4.4.4), which nothing has been sealed with yet.
    fn queue_alerts(&mut self, alerts: &[u8]) {
        let keys = self.tls.negotiated_cipher_suite().zip(self.secrets.server.as_ref());
        let mut cipher = keys.and_then(|(suite, secret)| Cipher::first(suite, secret).ok());
        for content in alerts.iter().map(|description| alert(*description)) {
            let start = self.out.len();
            self.out.resize(start + content.len() + OVERHEAD_MAX, 0);
            let wire = &mut self.out[start..];
            let len = match &mut cipher {
                Some(cipher) => {
                    cipher.seal(ContentType::Alert, Content::Elsewhere(&content), wire).unwrap_or(0)
                }
                None => {
                    wire[..7].copy_from_slice(&[21, 3, 3, 0, 2, content[0], content[1]]);
                    7
                }
            };
            self.out.truncate(start + len);
        }
    }

    /// What it leaves, once it has run.
    ///
    /// # Errors
    /// If it has not.
    pub(crate) fn finish(self) -> Result<Finished, AcceptError> {
        let Self { tls, wire, shown, out, secrets, .. } = self;
        let alpn = tls.alpn_protocol().map(Into::into);
        let certificates = tls.peer_certificates().map(<[_]>::to_vec);
        let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        let version = tls.protocol_version();
        let group = tls.negotiated_key_exchange_group().map(SupportedKxGroup::name);
        let suite = tls.negotiated_cipher_suite().ok_or(AcceptError::Tls(Error::HandshakeNotComplete))?;
        // Its way to later keys is large; see `record::secret`.
        let (keys, _) = tls.dangerous_into_kernel_connection().map_err(AcceptError::Tls)?;
        let secrets = if version == Some(TLSv1_3) {
            secrets.client.zip(secrets.server)
        } else {
            key_of(&keys.rx.1).zip(key_of(&keys.tx.1))
        };
        let (peer, own) =
            secrets.ok_or_else(|| AcceptError::Tls(Error::General("no traffic secrets".into())))?;
        let secrets = Secrets { peer, own };
        let wire = wire.get(shown..).unwrap_or_default().to_vec();
        Ok(Finished { version, suite, keys, secrets, unsent: out, wire, alpn, certificates, resumed, group })
    }
}

/// The key alone.
pub(crate) fn key_of(secrets: &ConnectionTrafficSecrets) -> Option<Secret> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, .. }
        | ConnectionTrafficSecrets::Aes256Gcm { key, .. }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, .. } => Secret::of_key(key.as_ref()),
        _ => None,
    }
}

/// What was sealed here last is an alert. In TLS 1.3 that shows in its length.
fn is_alert(record: &[u8]) -> bool {
    const SEALED_LEN: usize = HEADER_LEN + 2 + 1 + 16;
    record.first().is_some_and(|kind| *kind == ContentType::Alert as u8) || record.len() == SEALED_LEN
}

/// The alert for what rustls says nothing about itself (RFC 8446 §6.2).
fn alert_of(e: &Error) -> u8 {
    let fault = match e {
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => Fault::ILLEGAL_PARAMETER,
        Error::InvalidMessage(_) => Fault::DECODE_ERROR,
        Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => Fault::UNEXPECTED_MESSAGE,
        Error::PeerSentOversizedRecord => Fault::RECORD_OVERFLOW,
        Error::DecryptError => Fault::BAD_RECORD_MAC,
        _ => Fault::INTERNAL,
    };
    fault.alert
}

/// Bytes of the record that `wire` begins with; `None` if it begins with none, which is rustls' to
/// judge.
pub(crate) fn record_len(wire: &[u8]) -> Option<usize> {
    let body_len = usize::from(u16::from_be_bytes([*wire.get(3)?, *wire.get(4)?]));
    Some(HEADER_LEN + body_len).filter(|len| *len <= RECORD_MAX)
}

/// Bytes without which the record at the front of `wire` can't be shown to rustls.
pub(crate) fn missing(wire: &[u8]) -> Option<usize> {
    let len = if wire.len() < HEADER_LEN { HEADER_LEN } else { record_len(wire)? };
    len.checked_sub(wire.len()).filter(|missing| *missing > 0)
}

pub(crate) fn encode<D>(mut flight: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    loop {
        match flight.encode(&mut out[start..]) {
            Ok(len) => {
                out.truncate(start + len);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(e)) => out.resize(start + e.required_size, 0),
            Err(EncodeError::AlreadyEncoded) => return Err(Error::General("a flight encoded twice".into())),
        }
    }
}

#[cfg(test)]
mod tests;
