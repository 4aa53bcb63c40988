//! The client's side of a handshake: rustls says what to send and what is missing, here it is sent and read.
//!
//! rustls is shown one record at a time, so that it never sees one that follows the handshake, as on the
//! [other side](crate::handshake).

use std::sync::Arc;

use rustls::ProtocolVersion::TLSv1_3;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::SupportedKxGroup;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, Error, HandshakeKind, InvalidMessage};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::error::ConnectError;
use crate::handshake::{
    CapturedSecrets, Finished, Secrets, Step, UNREAD_MAX, encode, key_of, missing, record_len,
};
use crate::record::TicketReader;

/// Bytes of room for each read: the flight of a server with a usual chain.
const READ_LEN: usize = 8192;
/// Bytes that are reported of what is no TLS.
const BEGAN_LEN_MAX: usize = 16;

/// A handshake in progress.
pub(super) struct Handshake {
    tls: UnbufferedClientConnection,
    name: ServerName<'static>,
    /// What the server has sent, as far as it is still needed.
    wire: Vec<u8>,
    /// How much of it rustls has been shown.
    shown: usize,
    /// What rustls has to say.
    out: Vec<u8>,
    secrets: CapturedSecrets,
}

impl Handshake {
    pub(super) fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, ConnectError> {
        Ok(Self {
            tls: UnbufferedClientConnection::new(config, name.clone())?,
            name,
            wire: Vec::new(),
            shown: 0,
            out: Vec::new(),
            secrets: CapturedSecrets::default(),
        })
    }

    /// Does the handshake. What the client says last stays in `out`, to leave with the first data.
    pub(super) async fn run(&mut self, tcp: &mut TcpStream) -> Result<(), ConnectError> {
        loop {
            // No other connection has its turn on this thread before the secrets are taken.
            let shown = self.wire.get_mut(..self.shown).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(shown);
            self.secrets.take_captured();
            let Some(step) = Step::of(state, &mut self.out).transpose() else {
                return Err(ConnectError::Gone);
            };
            let discard = discard.min(self.shown);
            self.wire.drain(..discard);
            self.shown -= discard;
            match step.map_err(|e| ConnectError::of_tls(e, &self.name.to_str()))? {
                Step::Look => {}
                // The server is done, and waits for nothing but what follows.
                Step::Send if !self.tls.is_handshaking() => {}
                Step::Send => {
                    tcp.write_all(&self.out).await?;
                    self.out.clear();
                }
                Step::Finish if !self.tls.is_handshaking() => return Ok(()),
                Step::Read | Step::Finish => self.read_record(tcp).await?,
            }
        }
    }

    /// Reads until there is one more record that rustls is to be shown.
    async fn read_record(&mut self, tcp: &mut TcpStream) -> Result<(), ConnectError> {
        loop {
            let unseen = self.wire.get(self.shown..).unwrap_or_default();
            if unseen.first().is_some_and(|kind| !(20..=23).contains(kind)) {
                let began = &unseen[..unseen.len().min(BEGAN_LEN_MAX)];
                return Err(ConnectError::NotTls { began: began.into() });
            }
            let Some(missing) = missing(unseen) else {
                self.shown += record_len(unseen).unwrap_or(unseen.len());
                return Ok(());
            };
            if self.wire.len() + missing > UNREAD_MAX {
                return Err(Error::from(InvalidMessage::HandshakePayloadTooLarge).into());
            }
            self.wire.reserve(missing.max(READ_LEN));
            if tcp.read_buf(&mut self.wire).await? == 0 {
                return Err(ConnectError::Gone);
            }
        }
    }

    /// Tells the server by an alert why the handshake has failed (RFC 8446 §6.2), if the network takes that at once.
    pub(super) fn send_alert(&mut self, tcp: &TcpStream) {
        let shown = self.wire.get_mut(..self.shown).unwrap_or_default();
        if let Ok(ConnectionState::EncodeTlsData(flight)) = self.tls.process_tls_records(shown).state
            && encode(flight, &mut self.out).is_ok()
        {
            let _ = tcp.try_write(&self.out);
        }
        self.secrets.take_captured(); // no other connection may
    }

    /// What it leaves, once it has run.
    pub(super) fn finish(self) -> Result<(Finished, TicketReader), ConnectError> {
        let Self { tls, wire, shown, out, secrets, .. } = self;
        let alpn = tls.alpn_protocol().map(Into::into);
        let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        let version = tls.protocol_version();
        let group = tls.negotiated_key_exchange_group().map(SupportedKxGroup::name);
        let suite = tls.negotiated_cipher_suite().ok_or(Error::HandshakeNotComplete)?;
        let (keys, kernel) = tls.dangerous_into_kernel_connection()?;
        let secrets = if version == Some(TLSv1_3) {
            secrets.server.zip(secrets.client)
        } else {
            key_of(&keys.rx.1).zip(key_of(&keys.tx.1))
        };
        let (peer, own) = secrets.ok_or_else(|| Error::General("no traffic secrets".into()))?;
        let secrets = Secrets { peer, own };
        let tickets = TicketReader::new((version == Some(TLSv1_3)).then_some(kernel));
        let wire = wire.get(shown..).unwrap_or_default().to_vec();
        let finished = Finished {
            version,
            suite,
            keys,
            secrets,
            unsent: out,
            wire,
            alpn,
            certificates: None,
            resumed,
            group,
        };
        Ok((finished, tickets))
    }
}
