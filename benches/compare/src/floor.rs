//! The floor: what a gateway can't help. One epoll loop that opens and seals TLS records in buffers that
//! all connections share, and passes the bytes on. It knows no HTTP, no frames, no timers and no limits, so
//! what it costs is the kernel's and the cipher's.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite, default_provider, kx_group};
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::load::record::{CONTENT_MAX, OVERHEAD, Opened, RECORD_MAX, Records};

/// Read by one call.
const INBOX: usize = 256 << 10;
const LISTENER: Token = Token(usize::MAX);

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    backend: u16,
    #[arg(long)]
    chain: PathBuf,
    #[arg(long)]
    key: PathBuf,
}

/// Serves until it is ended.
pub(crate) fn serve(options: &Options) -> anyhow::Result<()> {
    let provider = CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![kx_group::X25519],
        ..default_provider()
    };
    let chain = CertificateDer::pem_file_iter(&options.chain)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&options.key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    config.enable_secret_extraction = true;
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)))?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut floor = Floor {
        config: Arc::new(config),
        backend: SocketAddr::from((Ipv4Addr::LOCALHOST, options.backend)),
        pairs: Vec::new(),
        free: Vec::new(),
        buffers: Buffers { inbox: vec![0; RECORD_MAX + INBOX], outbox: Vec::with_capacity(2 * INBOX) },
    };
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener, poll.registry())?,
                _ => floor.turn(event, poll.registry()),
            }
        }
    }
}

struct Floor {
    config: Arc<ServerConfig>,
    backend: SocketAddr,
    /// A pair's tokens are twice its place for the client, and one more for the backend.
    pairs: Vec<Option<Box<Pair>>>,
    free: Vec<usize>,
    buffers: Buffers,
}

/// What all pairs share.
struct Buffers {
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

struct Pair {
    client: End,
    backend: Option<End>,
    tls: Tls,
    /// The front of a record.
    part: Vec<u8>,
}

enum Tls {
    Handshake(Box<ServerConnection>),
    Records {
        incoming: Records,
        outgoing: Records,
    },
    /// Between the two.
    None,
}

struct End {
    stream: TcpStream,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> anyhow::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e).context("can't accept"),
            };
            let place = self.free.pop().unwrap_or(self.pairs.len());
            let pair = Some(Box::new(Pair {
                client: End::new(stream, Token(2 * place), registry)?,
                backend: None,
                tls: Tls::Handshake(Box::new(ServerConnection::new(self.config.clone())?)),
                part: Vec::new(),
            }));
            match self.pairs.get_mut(place) {
                Some(free) => *free = pair,
                None => self.pairs.push(pair),
            }
        }
    }

    fn turn(&mut self, event: &Event, registry: &Registry) {
        let Token(token) = event.token();
        let Some(place) = self.pairs.get_mut(token / 2) else { return };
        let Some(pair) = place else { return };
        let turned = match token % 2 {
            0 => pair.turn_client(event, &mut self.buffers, || {
                End::new(TcpStream::connect(self.backend)?, Token(token + 1), registry)
            }),
            _ => pair.turn_backend(event, &mut self.buffers),
        };
        if !matches!(turned, Ok(true)) {
            *place = None;
            self.free.push(token / 2);
        }
    }
}

impl Pair {
    /// Whether it lives on.
    fn turn_client(
        &mut self,
        event: &Event,
        buffers: &mut Buffers,
        connect: impl FnOnce() -> io::Result<End>,
    ) -> anyhow::Result<bool> {
        let Buffers { inbox, outbox } = buffers;
        if !self.client.flush()? {
            return Ok(true);
        }
        if let Tls::Handshake(connection) = &mut self.tls {
            outbox.clear();
            let lives = shake_hands(connection, &mut self.client.stream, outbox)?;
            if !outbox.is_empty() {
                // It is sent when it is connected.
                self.backend = Some(End { unsent: outbox.clone(), ..connect()? });
                let Tls::Handshake(connection) = mem::replace(&mut self.tls, Tls::None) else {
                    return Ok(false);
                };
                let secrets = connection.dangerous_extract_secrets()?;
                let (incoming, outgoing) = (Records::new(secrets.rx)?, Records::new(secrets.tx)?);
                self.tls = Tls::Records { incoming, outgoing };
            }
            return Ok(lives);
        }
        let (Tls::Records { incoming, .. }, Some(backend)) = (&mut self.tls, &mut self.backend) else {
            return Ok(false);
        };
        let mut more = event.is_readable();
        while more && backend.unsent.is_empty() {
            let kept = self.part.len();
            inbox[..kept].copy_from_slice(&self.part);
            let Some(read) = self.client.read(&mut inbox[kept..kept + INBOX])? else { break };
            more = read == INBOX || event.is_read_closed();
            outbox.clear();
            let mut wire = &mut inbox[..kept + read];
            let lives = loop {
                match incoming.open(wire)? {
                    Opened::Content(content, rest) => {
                        outbox.extend_from_slice(content);
                        wire = rest;
                    }
                    Opened::Part(part) => {
                        self.part.clear();
                        self.part.extend_from_slice(part);
                        break read > 0;
                    }
                    Opened::Closed => break false,
                }
            };
            backend.send(outbox)?;
            if !lives {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it lives on.
    fn turn_backend(&mut self, event: &Event, buffers: &mut Buffers) -> anyhow::Result<bool> {
        let Buffers { inbox, outbox } = buffers;
        let (Tls::Records { outgoing, .. }, Some(backend)) = (&mut self.tls, &mut self.backend) else {
            return Ok(false);
        };
        if !backend.flush()? {
            return Ok(true);
        }
        let mut more = event.is_readable();
        while more && self.client.unsent.is_empty() {
            let Some(read) = backend.read(&mut inbox[..INBOX])? else { break };
            more = read == INBOX || event.is_read_closed();
            outbox.clear();
            outbox.reserve(read + (read / CONTENT_MAX + 1) * OVERHEAD);
            for content in inbox[..read].chunks(CONTENT_MAX) {
                outgoing.seal(outbox, content.len(), |place| place.copy_from_slice(content))?;
            }
            if read == 0 {
                outgoing.seal_close(outbox)?;
                self.client.send(outbox)?;
                self.client.stream.shutdown(Shutdown::Write)?;
                return Ok(false);
            }
            self.client.send(outbox)?;
        }
        Ok(true)
    }
}

/// Puts what the client has said behind its handshake into `out`; whether it may say more.
fn shake_hands(
    connection: &mut ServerConnection,
    stream: &mut TcpStream,
    out: &mut Vec<u8>,
) -> anyhow::Result<bool> {
    loop {
        match connection.read_tls(stream) {
            Ok(0) => return Ok(false),
            Ok(_) => {
                let len = connection.process_new_packets()?.plaintext_bytes_to_read();
                let start = out.len();
                out.resize(start + len, 0);
                connection.reader().read_exact(&mut out[start..])?;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => return Err(e.into()),
        }
    }
    while connection.wants_write() {
        connection.write_tls(stream)?; // a flight fits the socket's buffer
    }
    Ok(true)
}

impl End {
    fn new(mut stream: TcpStream, token: Token, registry: &Registry) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, unsent: Vec::new() })
    }

    /// `None` if there is nothing to read for now.
    fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match self.stream.read(into) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
            result => result.map(Some),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = if bytes.is_empty() { 0 } else { self.write(bytes)? };
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Whether nothing is left.
    fn flush(&mut self) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            let unsent = mem::take(&mut self.unsent);
            let written = self.write(&unsent)?;
            self.unsent.extend_from_slice(&unsent[written..]);
        }
        Ok(self.unsent.is_empty())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Ok(0),
            result => result,
        }
    }
}
