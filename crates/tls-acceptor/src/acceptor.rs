//! TCP stream in; TLS stream, server name and application protocol out.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::{ProtocolVersion, ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::cert_set::Selected;
use crate::error::AcceptError;
use crate::handshake::{Overhear, handshake};
use crate::reload::Certificates;
use crate::resolver::{Resolver, with_note};
use crate::stream::TlsStream;
use crate::tickets::Tickets;

/// Bytes read before anything is known: a ClientHello with a hybrid key share, and room.
const FIRST_READ_LEN: usize = 4096;
/// Session tickets for a client that says how many it wants (RFC 9149 §3).
const TICKETS_MAX: usize = 4;

/// Application protocols, by their ALPN names (RFC 7301 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `h2`
    H2,
    /// `http/1.1`
    Http11,
}

impl Alpn {
    /// As it is on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::Http11 => "http/1.1",
        }
    }

    /// The protocol of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::H2, Self::Http11].into_iter().find(|alpn| alpn.as_str() == name)
    }
}

/// The lowest TLS version that is accepted. There is none below 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinVersion {
    /// RFC 5246. Some embedded clients speak nothing newer.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// How an acceptor behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// In the order of the server's preference. A client that offers none of them is refused; one
    /// that offers no protocol at all is taken to speak `http/1.1`.
    pub alpn: Vec<Alpn>,
    /// Nothing older is spoken.
    pub min_version: MinVersion,
    /// From the TCP connection to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Handshakes in flight at most; further connections wait in the kernel's queue.
    pub handshakes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            alpn: vec![Alpn::H2, Alpn::Http11],
            min_version: MinVersion::Tls12,
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 4096,
        }
    }
}

/// A finished handshake.
#[derive(Debug)]
pub struct Accepted {
    /// Encrypted from here on.
    pub io: TlsStream,
    /// The name the client asked for: lower case, no trailing dot.
    pub server_name: Option<Box<str>>,
    /// Whether a certificate of that name's own answered.
    pub selected: Selected,
    /// `http/1.1` if the client offered nothing.
    pub alpn: Alpn,
    /// The generation of certificates that answered.
    pub generation: u64,
    /// As the protocol calls it, `TLSv1.3`.
    pub version: &'static str,
    /// The session was resumed from a ticket.
    pub resumed: bool,
}

/// The cryptographic library can't do what is asked of it.
#[derive(Debug, thiserror::Error)]
#[error("TLS can't be set up: {0}")]
pub struct SetupError(#[from] rustls::Error);

/// The right to do one handshake; see [`Acceptor::ready`].
#[derive(Debug)]
pub struct Permit {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Does handshakes. Cheap to clone; clones share the cap on handshakes in flight.
#[derive(Debug, Clone)]
pub struct Acceptor {
    tls: Arc<ServerConfig>,
    handshake_timeout: Duration,
    permits: Arc<Semaphore>,
}

impl Acceptor {
    /// An acceptor that answers from `certificates` as they are at each handshake.
    ///
    /// # Errors
    /// If the cryptographic library can't do what is asked of it; not to be expected.
    pub fn new(
        settings: &Settings,
        certificates: Arc<Certificates>,
        tickets: &Tickets,
    ) -> Result<Self, SetupError> {
        let mut provider = default_provider();
        // The hybrid first: what is recorded today must not be readable tomorrow.
        provider.kx_groups =
            vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
        let versions: &[&SupportedProtocolVersion] = match settings.min_version {
            MinVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            MinVersion::Tls13 => &[&version::TLS13],
        };
        let mut tls = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver::new(certificates)));
        tls.alpn_protocols = settings.alpn.iter().map(|alpn| alpn.as_str().into()).collect();
        tls.ticketer = tickets.producer();
        tls.enable_secret_extraction = true; // for the records after the handshake
        tls.key_log = Arc::new(Overhear);
        tls.session_storage = Arc::new(NoServerSessionStorage {}); // tickets do it, in both versions
        tls.max_tls13_tickets = TICKETS_MAX;
        Ok(Self {
            tls: Arc::new(tls),
            handshake_timeout: settings.handshake_timeout,
            permits: Arc::new(Semaphore::new(settings.handshakes_max)),
        })
    }

    /// Waits until one more handshake may begin: call it before accepting a TCP connection.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ready(&self) -> Permit {
        // The semaphore is never closed.
        Permit { _permit: self.permits.clone().acquire_owned().await.ok() }
    }

    /// The same without waiting; `None` if too many handshakes are in flight.
    #[must_use]
    pub fn try_ready(&self) -> Option<Permit> {
        self.permits.clone().try_acquire_owned().ok().map(|permit| Permit { _permit: Some(permit) })
    }

    /// Does the handshake with the client at the other end of `tcp`, under one deadline.
    ///
    /// # Errors
    /// See [`AcceptError`]. The client has been told where TLS has an alert for it; one that spoke
    /// plain text has been told so in plain text.
    ///
    /// # Cancel safety
    /// A dropped call drops the connection.
    pub async fn accept(&self, permit: Permit, tcp: TcpStream) -> Result<Accepted, AcceptError> {
        let deadline = Instant::now() + self.handshake_timeout;
        let handshake = timeout_at(deadline, self.handshake(tcp)).await;
        drop(permit);
        handshake.unwrap_or(Err(AcceptError::Timeout))
    }

    async fn handshake(&self, mut tcp: TcpStream) -> Result<Accepted, AcceptError> {
        let mut wire = Vec::with_capacity(FIRST_READ_LEN);
        if tcp.read_buf(&mut wire).await.map_err(AcceptError::of_io)? == 0 {
            return Err(AcceptError::Gone);
        }
        if let Some(&first_byte) = wire.first()
            && !begins_record(first_byte)
        {
            say_plainly(&mut tcp).await;
            return Err(AcceptError::NotTls { first_byte });
        }
        let (finished, note) = with_note(handshake(self.tls.clone(), &mut tcp, wire)).await;
        let (server_name, selected, generation) = match note {
            Some(note) => (note.server_name, note.selected, note.generation),
            None => (None, Some(Selected::Default), 0),
        };
        let Some(selected) = selected else { return Err(AcceptError::NoCertificate { server_name }) };
        let finished = finished?;
        let alpn = finished.alpn.as_deref().and_then(|name| std::str::from_utf8(name).ok());
        Ok(Accepted {
            alpn: alpn.and_then(Alpn::parse).unwrap_or(Alpn::Http11),
            server_name,
            selected,
            generation,
            version: match finished.version {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            resumed: finished.resumed,
            io: TlsStream::new(tcp.into(), finished).map_err(AcceptError::Tls)?,
        })
    }
}

/// A TLS record begins with its content type, 20 to 24 (RFC 8446 §5.1, RFC 6520 §3).
fn begins_record(byte: u8) -> bool {
    (20..=24).contains(&byte)
}

/// Answers a client that forgot the `s`, so that its user reads a sentence and not noise.
async fn say_plainly(tcp: &mut TcpStream) {
    const BODY: &str = "This port speaks TLS. Use https:// or wss:// instead of http:// or ws://.\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    if tcp.write_all(answer.as_bytes()).await.is_err() || tcp.shutdown().await.is_err() {
        return;
    }
    // Closing with unread bytes would reset the connection and may destroy the answer.
    let mut rest = vec![0; 4096]; // on the heap, since every connection's task has room for this future
    let deadline = Instant::now() + Duration::from_secs(1);
    for _ in 0..16 {
        match timeout_at(deadline, tcp.read(&mut rest)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests;
