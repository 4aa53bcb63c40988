//! TCP stream in; TLS stream, server name and application protocol out.

mod on_demand;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::{ProtocolVersion, ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::cert_set::Selected;
use crate::challenge::AnswerChallenges;
use crate::client_auth::{ClientAuth, ClientRules};
use crate::error::AcceptError;
use crate::handshake::{Handshake, SecretCapture, Shared};
use crate::negotiated::{Alpn, Negotiated};
use crate::peer_certificate::PeerCertificate;
use crate::permits::Permits;
use crate::record::{Fault, alert};
use crate::reload::Certificates;
use crate::resolver::{Resolver, with_note};
use crate::stream::TlsStream;
use crate::tickets::Tickets;

/// Bytes read before anything is known: a ClientHello with a hybrid key share, and room.
const FIRST_READ_LEN: usize = 4096;
/// Bytes that are reported of what is no TLS.
const BEGAN_LEN_MAX: usize = 16;
/// How long, and how often, is read from a client after it was sent why there is no connection.
const PARTING_TIME: Duration = Duration::from_secs(1);
const PARTING_READS: u32 = 64;
/// Session tickets for a client that says how many it wants (RFC 9149 §3).
const TICKETS_MAX: usize = 4;

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
pub struct AcceptorSettings {
    /// In the order of the server's preference. A client that offers none of them is refused; one
    /// that offers no protocol at all is taken to speak `http/1.1`.
    pub alpn: Vec<Alpn>,
    /// Nothing older is spoken.
    pub min_version: MinVersion,
    /// From the TCP connection to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Handshakes in flight at most, and four times as many as one client address may have (of IPv6: one
    /// network of 64 bits). Further clients wait. If they do, a client that lets its handshake lie for a
    /// second is given up.
    pub handshakes_max: usize,
}

impl Default for AcceptorSettings {
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
    /// What was agreed upon.
    pub negotiated: Negotiated,
    /// The rules for clients' certificates that it was done under; `None`: there were none.
    pub client_rules: Option<ClientRules>,
    /// What the client has shown, where there are rules.
    pub client_certificate: Option<Box<PeerCertificate>>,
}

/// The cryptographic library can't do what is asked of it.
#[derive(Debug, thiserror::Error)]
#[error("TLS can't be set up: {0}")]
pub struct SetupError(#[from] rustls::Error);

/// Does handshakes. Cheap to clone; clones share the cap on handshakes in flight.
#[derive(Debug, Clone)]
pub struct Acceptor {
    tls: Arc<ServerConfig>,
    template: Arc<Template>,
    handshake_timeout: Duration,
    permits: Arc<Permits>,
}

/// What handshakes have in common, whatever is asked of clients.
#[derive(Debug)]
struct Template {
    provider: Arc<CryptoProvider>,
    min_version: MinVersion,
    alpn: Vec<Vec<u8>>,
    certificates: Arc<Certificates>,
    resolver: Arc<Resolver>,
    tickets: Tickets,
}

impl Template {
    /// What clients have to show is asked of them, and only of them.
    fn config(&self, client_auth: Option<&ClientAuth>) -> Result<ServerConfig, rustls::Error> {
        let versions: &[&SupportedProtocolVersion] = match self.min_version {
            MinVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            MinVersion::Tls13 => &[&version::TLS13],
        };
        let builder =
            ServerConfig::builder_with_provider(self.provider.clone()).with_protocol_versions(versions)?;
        let builder = match client_auth {
            None => builder.with_no_client_auth(),
            Some(client_auth) => builder.with_client_cert_verifier(client_auth.verifier.clone()),
        };
        let mut tls = builder.with_cert_resolver(self.resolver.clone());
        tls.alpn_protocols = self.alpn.clone();
        tls.ticketer = match client_auth {
            None => self.tickets.producer(),
            Some(client_auth) => self.tickets.bound_producer(client_auth.ticket_context()),
        };
        tls.enable_secret_extraction = true; // for the records after the handshake
        tls.key_log = Arc::new(SecretCapture);
        tls.session_storage = Arc::new(NoServerSessionStorage {}); // tickets do it, in both versions
        tls.max_tls13_tickets = TICKETS_MAX;
        Ok(tls)
    }
}

impl Acceptor {
    /// An acceptor that answers from `certificates` as they are at each handshake.
    ///
    /// # Errors
    /// If the cryptographic library lacks an algorithm; the one that is built in doesn't.
    pub fn new(
        settings: &AcceptorSettings,
        certificates: Arc<Certificates>,
        tickets: &Tickets,
    ) -> Result<Self, SetupError> {
        let mut provider = default_provider();
        // The hybrid first: what is recorded today must not be readable tomorrow.
        provider.kx_groups =
            vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
        let template = Template {
            provider: Arc::new(provider),
            min_version: settings.min_version,
            alpn: settings.alpn.iter().flat_map(|alpn| alpn.names()).map(|&n| n.into()).collect(),
            resolver: Arc::new(Resolver::new(certificates.clone())),
            certificates,
            tickets: tickets.clone(),
        };
        Ok(Self {
            tls: Arc::new(template.config(None)?),
            template: Arc::new(template),
            handshake_timeout: settings.handshake_timeout,
            permits: Arc::new(Permits::new(settings.handshakes_max)),
        })
    }

    /// How long a client may take from its TCP connection to the end of its handshake.
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    #[cfg(test)]
    pub(crate) fn permits(&self) -> &Permits {
        &self.permits
    }

    #[cfg(test)]
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.tls.clone()
    }

    /// Does the handshake with the client at the other end of `tcp`, whose address is `client`, until
    /// `deadline`. Call it when something has come from the client: who says nothing should not wait here,
    /// where it has a permit.
    ///
    /// # Errors
    /// See [`AcceptError`]. The client was sent an alert where TLS has one for it; one that spoke
    /// plain text was sent an answer in plain text.
    ///
    /// # Cancel safety
    /// A dropped call drops the connection.
    pub async fn accept(
        &self,
        mut tcp: TcpStream,
        client: IpAddr,
        deadline: Instant,
    ) -> Result<Accepted, AcceptError> {
        let client = client.into();
        let permit = timeout_at(deadline, self.permits.acquire(client)).await;
        let mut permit = permit.map_err(|_| AcceptError::Timeout)?;
        let shared = Shared { permits: &self.permits, client };
        let mut wire = Vec::with_capacity(FIRST_READ_LEN);
        let began = timeout_at(deadline, shared.read(&mut tcp, &mut wire)).await;
        began.unwrap_or(Err(AcceptError::Timeout))?;
        if let Some(&first_byte) = wire.first()
            && !begins_record(first_byte)
        {
            drop(permit);
            send_last(tcp, &plain_words(first_byte)).await;
            wire.truncate(BEGAN_LEN_MAX);
            return Err(AcceptError::NotTls { began: wire.into() });
        }
        let mut handshake = Handshake::new(self.tls.clone(), wire)?;
        if let Some(challenges) = self.template.certificates.challenges() {
            // Boxed, since nearly all handshakes have no use for its room.
            let answering = Box::pin(self.validate(&*challenges, &mut handshake, &mut tcp, &shared));
            let answered = timeout_at(deadline, answering).await;
            if let Err(e) = answered.unwrap_or(Err(AcceptError::Timeout)) {
                drop(permit);
                send_last(tcp, handshake.last_words(&e)).await;
                return Err(e);
            }
        }
        if let Some(on_demand) = self.template.certificates.on_demand() {
            // Boxed for the same reason.
            let providing =
                Box::pin(self.provide(&*on_demand, &mut handshake, &mut tcp, &shared, permit, deadline));
            permit = match providing.await {
                Ok(permit) => permit,
                Err(e) => {
                    send_last(tcp, handshake.last_words(&e)).await;
                    return Err(e);
                }
            };
        }
        let current = self.template.certificates.current();
        let set = &current.loaded.set;
        let mut client_auth = None;
        if set.asks_clients() {
            let named = timeout_at(deadline, handshake.server_name(&mut tcp, &shared)).await;
            match named.unwrap_or(Err(AcceptError::Timeout)) {
                Ok(Some(name)) => client_auth = set.client_auth(name.as_deref()),
                Ok(None) => {}
                Err(e) => {
                    drop(permit);
                    send_last(tcp, handshake.last_words(&e)).await;
                    return Err(e);
                }
            }
            if let Some(client_auth) = client_auth {
                let config = self.template.config(Some(client_auth)).map_err(AcceptError::Tls)?;
                handshake.choose(Arc::new(config))?;
            }
        }
        let (ended, note) = with_note(timeout_at(deadline, handshake.run(&mut tcp, &shared))).await;
        let (server_name, selected, generation) = match note {
            Some(note) => (note.server_name, note.selected, note.generation),
            None => (None, Some(Selected::Default), 0),
        };
        if let Err(e) = ended.unwrap_or(Err(AcceptError::Timeout)) {
            let e = match e {
                _ if selected.is_none() => AcceptError::NoCertificate { server_name },
                AcceptError::NoClientCertificate { .. } => AcceptError::NoClientCertificate { server_name },
                e => e,
            };
            drop(permit);
            send_last(tcp, handshake.last_words(&e)).await;
            return Err(e);
        }
        let Some(selected) = selected else { return Err(AcceptError::NoCertificate { server_name }) };
        let mut finished = handshake.finish()?;
        let chain = finished.certificates.take();
        // Whatever was read before: these are the rules of the name that was answered for.
        let rules = set.client_rules(server_name.as_deref());
        if rules != client_auth.map(|client_auth| client_auth.rules) {
            return Err(AcceptError::Tls(rustls::Error::General("two names in a ClientHello".into())));
        }
        if let Some(client_auth) = client_auth.filter(|_| finished.resumed) {
            client_auth.judge(chain.as_deref()).map_err(AcceptError::ClientCertificate)?;
        }
        let shown = chain.iter().flatten().next().filter(|_| rules.is_some());
        let client_certificate = shown.map(|der| Box::new(PeerCertificate::of(der)));
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
            negotiated: finished.negotiated(),
            client_rules: rules,
            client_certificate,
            io: TlsStream::new(tcp.into(), finished).map_err(AcceptError::Tls)?,
        })
    }

    /// If it is an authority's handshake, by which it validates a name that is to be answered for, does it.
    ///
    /// # Errors
    /// [`AcceptError::Challenge`] if it was one, or why it came to nothing. A name that is not validated now is no
    /// error: the authority is then refused as every client is that offers no protocol of ours.
    async fn validate(
        &self,
        challenges: &dyn AnswerChallenges,
        handshake: &mut Handshake,
        tcp: &mut TcpStream,
        shared: &Shared<'_>,
    ) -> Result<(), AcceptError> {
        if !handshake.is_challenge(tcp, shared).await? {
            return Ok(());
        }
        let Some(Some(server_name)) = handshake.server_name(tcp, shared).await? else { return Ok(()) };
        let Some(answer) = challenges.answer(&server_name).await else { return Ok(()) };
        let config = answer.config(self.template.provider.clone()).map_err(AcceptError::Tls)?;
        handshake.choose(Arc::new(config))?;
        handshake.run(tcp, shared).await?;
        Err(AcceptError::Challenge { server_name })
    }
}

/// A TLS record begins with its content type, 20 to 24 (RFC 8446 §5.1, RFC 6520 §3).
fn begins_record(byte: u8) -> bool {
    (20..=24).contains(&byte)
}

/// What is said to a client that doesn't speak TLS. One that forgot the `s` gets a sentence which its user can
/// read. What is no text either gets an alert (RFC 8446 §5: a record of an unexpected type).
fn plain_words(first_byte: u8) -> Vec<u8> {
    const BODY: &str = "This port speaks TLS. Use https:// or wss:// instead of http:// or ws://.\n";
    if !first_byte.is_ascii_graphic() && !first_byte.is_ascii_whitespace() {
        let [level, description] = alert(Fault::UNEXPECTED_MESSAGE.alert);
        return vec![21, 3, 3, 0, 2, level, description];
    }
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    answer.into_bytes()
}

/// Sends the last `words` and ends the connection. Closing it with unread bytes would reset it and may destroy
/// the words, so some of what still comes is read.
async fn send_last(mut tcp: TcpStream, words: &[u8]) {
    if words.is_empty() {
        return;
    }
    let deadline = Instant::now() + PARTING_TIME;
    let said = timeout_at(deadline, async {
        tcp.write_all(words).await?;
        tcp.shutdown().await
    });
    if !matches!(said.await, Ok(Ok(()))) {
        return;
    }
    let mut rest = vec![0; 4096]; // on the heap, since every connection's task has room for this future
    for _ in 0..PARTING_READS {
        match timeout_at(deadline, tcp.read(&mut rest)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests;
