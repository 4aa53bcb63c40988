//! The handshake: rustls says what to send and what is missing, here it is sent and read.
//!
//! rustls is shown one record at a time, so that it never sees one that follows the handshake: from
//! there on records are opened by [`record`](crate::record), with the keys that come out of this.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::ProtocolVersion::TLSv1_3;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{
    Error, ExtractedSecrets, HandshakeKind, KeyLog, ProtocolVersion, ServerConfig, SupportedCipherSuite,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::AcceptError;
use crate::record::{HEADER_LEN, RECORD_MAX, Secret};
use crate::turn::Turn;

/// Bytes of room for each read: a client's second flight fits.
const READ_LEN: usize = 1024;
/// Bytes of a handshake message and its records; rustls ends the longer ones before that.
const UNREAD_MAX: usize = 8 * RECORD_MAX;

/// What a handshake leaves.
pub(crate) struct Finished {
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) suite: SupportedCipherSuite,
    /// For both directions, with the numbers of their next records.
    pub(crate) keys: ExtractedSecrets,
    /// What makes their successors, in TLS 1.3.
    pub(crate) secrets: Option<Secrets>,
    /// What the network is still to be given: tickets, for instance.
    pub(crate) unsent: Vec<u8>,
    /// Records that came behind the handshake.
    pub(crate) wire: Vec<u8>,
    /// By its ALPN name.
    pub(crate) alpn: Option<Box<[u8]>>,
    /// The session was resumed from a ticket.
    pub(crate) resumed: bool,
}

/// The secrets of a TLS 1.3 connection.
pub(crate) struct Secrets {
    /// What the client seals with.
    pub(crate) client: Secret,
    /// What is sealed here with.
    pub(crate) server: Secret,
}

thread_local! {
    /// What rustls has told [`Overhear`] since somebody last looked: the client's, the server's.
    static OVERHEARD: RefCell<(Option<Secret>, Option<Secret>)> = const { RefCell::new((None, None)) };
}

/// rustls hands out keys, and tells the secrets that they are made of to nobody but its key log.
#[derive(Debug)]
pub(crate) struct Overhear;

impl KeyLog for Overhear {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        OVERHEARD.with_borrow_mut(|(client, server)| match label {
            "CLIENT_TRAFFIC_SECRET_0" => *client = Secret::new(secret),
            "SERVER_TRAFFIC_SECRET_0" => *server = Secret::new(secret),
            _ => {}
        });
    }
}

impl Secrets {
    /// Those of the connection that rustls has just worked for.
    fn overheard() -> Option<Self> {
        let (client, server) = OVERHEARD.take();
        Some(Self { client: client?, server: server? })
    }
}

/// What to do next.
enum Step {
    Look,
    Send,
    Read,
    Finish,
}

/// Does a handshake with the client at the other end of `tcp`, of which `wire` was read before.
///
/// # Errors
/// See [`AcceptError`]. Where TLS has an alert for it, the client has been told.
///
/// # Cancel safety
/// None: the connection is good only to be dropped.
pub(crate) async fn handshake(
    config: Arc<ServerConfig>,
    tcp: &mut TcpStream,
    mut wire: Vec<u8>,
) -> Result<Finished, AcceptError> {
    let mut tls = UnbufferedServerConnection::new(config).map_err(AcceptError::Tls)?;
    let mut out = Vec::new();
    let mut shown = 0;
    let mut secrets = None;
    let mut turn = None;
    let mut is_first = true;
    loop {
        // No other connection has its turn on this thread before these are taken.
        let UnbufferedStatus { discard, state } = tls.process_tls_records(&mut wire[..shown]);
        secrets = Secrets::overheard().or(secrets);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(flight)) => encode(flight, &mut out).map(|()| Step::Look),
            Ok(ConnectionState::TransmitTlsData(flight)) => {
                flight.done();
                Ok(Step::Send)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Read),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Finish),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => return Err(AcceptError::Gone),
            Ok(_) => Err(Error::General("data in the middle of a handshake".into())),
            Err(e) => Err(e),
        };
        wire.drain(..discard);
        shown -= discard;
        match step {
            Ok(Step::Look) => {}
            // Nobody waits for tickets: they leave with the first answer, in one packet.
            Ok(Step::Send) if !tls.is_handshaking() && tls.protocol_version() == Some(TLSv1_3) => {}
            Ok(Step::Send) => {
                is_first = false;
                if let Some(turn) = turn.take() {
                    Turn::pass_on(turn).await;
                }
                tcp.write_all(&out).await.map_err(AcceptError::of_io)?;
                out.clear();
            }
            Ok(Step::Finish) if !tls.is_handshaking() => break,
            Ok(Step::Read | Step::Finish) => {
                turn = None;
                while let Some(missing) = missing(&wire[shown..]) {
                    if wire.len() > UNREAD_MAX {
                        return Err(AcceptError::Tls(Error::PeerSentOversizedRecord));
                    }
                    wire.reserve(missing.max(READ_LEN));
                    if tcp.read_buf(&mut wire).await.map_err(AcceptError::of_io)? == 0 {
                        return Err(AcceptError::Gone);
                    }
                }
                shown += record_len(&wire[shown..]).unwrap_or(wire.len() - shown);
                if is_first {
                    turn = Some(Turn::take().await);
                }
            }
            Err(e) => {
                drop(turn);
                say_why(&mut tls, tcp, &mut wire[..shown], &mut out).await;
                return Err(AcceptError::of_tls(e));
            }
        }
    }
    let alpn = tls.alpn_protocol().map(Into::into);
    let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
    let version = tls.protocol_version();
    let suite = tls.negotiated_cipher_suite().ok_or(AcceptError::Tls(Error::HandshakeNotComplete))?;
    if version == Some(TLSv1_3) && secrets.is_none() {
        return Err(AcceptError::Tls(Error::General("no traffic secrets".into())));
    }
    // Its way to later keys is large; see `record::secret`.
    let (keys, _) = tls.dangerous_into_kernel_connection().map_err(AcceptError::Tls)?;
    let wire = wire[shown..].to_vec();
    Ok(Finished { version, suite, keys, secrets, unsent: out, wire, alpn, resumed })
}

/// Bytes of the record that `wire` begins with; `None` if it begins with none, which is rustls' to
/// judge.
fn record_len(wire: &[u8]) -> Option<usize> {
    let body_len = usize::from(u16::from_be_bytes([*wire.get(3)?, *wire.get(4)?]));
    Some(HEADER_LEN + body_len).filter(|len| *len <= RECORD_MAX)
}

/// Bytes without which the record at the front of `wire` can't be shown to rustls.
fn missing(wire: &[u8]) -> Option<usize> {
    let len = if wire.len() < HEADER_LEN { HEADER_LEN } else { record_len(wire)? };
    len.checked_sub(wire.len()).filter(|missing| *missing > 0)
}

fn encode(mut flight: EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) -> Result<(), Error> {
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

/// Sends the alert that rustls has for a failed handshake, as far as the network takes it.
async fn say_why(
    tls: &mut UnbufferedServerConnection,
    tcp: &mut TcpStream,
    shown: &mut [u8],
    out: &mut Vec<u8>,
) {
    // Alerts are queued: they come out before the error is told again.
    while let Ok(ConnectionState::EncodeTlsData(flight)) = tls.process_tls_records(shown).state {
        if encode(flight, out).is_err() {
            return;
        }
    }
    if tcp.write_all(out).await.is_ok() {
        let _ = tcp.shutdown().await;
    }
}
