//! A socket in the backend's loop: one buffer each way for all sockets, records sealed and opened in place. It
//! costs no more than the gateway that it loads.

use std::io::{self, ErrorKind, Read as _, Write};

use anyhow::{bail, ensure};
use mio::net::TcpStream;
use mio::{Interest, Token};

use super::connection::Client;
use super::echo::Messages;
use super::record::{CONTENT_MAX, OVERHEAD, Opened, RECORD_MAX, Records};
use crate::backend::Backend;
use crate::job::{Group, Job, Packing, Work};

/// Read by one call.
const INBOX: usize = 256 << 10;
/// Sealed before they are written.
const OUTBOX: usize = 128 << 10;

/// Buffers that all sockets share.
pub(super) struct Buffers {
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { inbox: vec![0; RECORD_MAX + INBOX], outbox: Vec::new() }
    }
}

/// What one read brought.
pub(super) struct Read {
    /// Payload bytes that came home.
    pub(super) echoed: u64,
    /// There may be more at once.
    pub(super) more: bool,
}

/// A connection to the gateway.
pub(crate) struct Socket {
    stream: TcpStream,
    incoming: Records,
    outgoing: Records,
    messages: Messages,
    /// The front of a record.
    part: Vec<u8>,
    /// Sealed, and not taken by the socket yet.
    unsent: Vec<u8>,
    record_len: usize,
}

/// Connects, while the backend runs elsewhere.
pub(crate) async fn connect(job: &Job) -> anyhow::Result<Vec<Socket>> {
    let client = Client::new(job)?;
    let mut sockets = Vec::new();
    let kinds = match job.work {
        Work::Echo { sockets, size, packing, .. } => vec![(sockets, size, packing)],
        Work::Mixed { short, long, .. } => {
            [short, long].map(|Group { sockets, size }| (sockets, size, Packing::Single)).to_vec()
        }
        _ => bail!("not a load of echoes"),
    };
    for (count, size, packing) in kinds {
        for _ in 0..count {
            sockets.push(Socket::connect(&client, sockets.len(), size, packing).await?);
        }
    }
    Ok(sockets)
}

impl Socket {
    async fn connect(client: &Client, index: usize, size: usize, packing: Packing) -> anyhow::Result<Self> {
        let (stream, secrets) = client.upgrade(index).await?.into_parts()?;
        let messages = Messages::new(index, size);
        let record_len = match packing {
            Packing::Dense => CONTENT_MAX,
            Packing::Single => messages.frame_len().min(CONTENT_MAX),
        };
        Ok(Self {
            stream: TcpStream::from_std(stream),
            incoming: Records::new(secrets.rx)?,
            outgoing: Records::new(secrets.tx)?,
            messages,
            part: Vec::new(),
            unsent: Vec::new(),
            record_len,
        })
    }

    pub(super) fn register(&mut self, backend: &Backend, token: Token) -> io::Result<()> {
        backend.registry().register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Messages that are not echoed yet.
    pub(super) fn under_way(&self) -> u64 {
        self.messages.under_way()
    }

    /// Reads what there is and answers it; the number of payload bytes that came home.
    pub(super) fn exchange(
        &mut self,
        readable: bool,
        in_flight: u64,
        buffers: &mut Buffers,
    ) -> anyhow::Result<u64> {
        let mut echoed = 0;
        let mut more = readable;
        while more {
            let read = self.read(INBOX, buffers)?;
            more = read.more;
            echoed += read.echoed;
            if more {
                while self.write(in_flight, OUTBOX, buffers)? {}
            }
        }
        while self.write(in_flight, OUTBOX, buffers)? {}
        Ok(echoed)
    }

    /// Reads once, at most so many bytes.
    pub(super) fn read(&mut self, most: usize, buffers: &mut Buffers) -> anyhow::Result<Read> {
        let kept = self.part.len();
        buffers.inbox[..kept].copy_from_slice(&self.part);
        let len = match self.stream.read(&mut buffers.inbox[kept..kept + most]) {
            Ok(0) => bail!("the gateway has closed the connection"),
            Ok(len) => len,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Read { echoed: 0, more: false }),
            Err(e) => return Err(e.into()),
        };
        let echoed = self.open(&mut buffers.inbox[..kept + len])?;
        Ok(Read { echoed, more: len == most }) // after less, the socket is empty
    }

    fn open(&mut self, mut wire: &mut [u8]) -> anyhow::Result<u64> {
        let mut echoed = 0;
        let mut pongs = Vec::new();
        loop {
            match self.incoming.open(wire)? {
                Opened::Content(&[], rest) => wire = rest,
                Opened::Content(content, rest) => {
                    echoed += self.messages.receive(content, &mut pongs)?;
                    wire = rest;
                }
                Opened::Closed => bail!("the gateway has closed the connection"),
                Opened::Part(part) => {
                    self.part.clear();
                    self.part.extend_from_slice(part);
                    break;
                }
            }
        }
        ensure!(pongs.is_empty(), "a ping, under load");
        Ok(echoed)
    }

    /// Writes once, at most so many bytes, what is due for so many messages to be under way. Says whether
    /// another call may write more.
    pub(super) fn write(
        &mut self,
        in_flight: u64,
        most: usize,
        buffers: &mut Buffers,
    ) -> anyhow::Result<bool> {
        if !self.unsent.is_empty() {
            let written = write(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..written);
            if !self.unsent.is_empty() {
                return Ok(false);
            }
        }
        let outbox = &mut buffers.outbox;
        outbox.clear();
        let rest = self.seal(in_flight, most, outbox)?;
        if outbox.is_empty() {
            return Ok(false);
        }
        let written = write(&mut self.stream, outbox)?;
        self.unsent.extend_from_slice(&outbox[written..]);
        Ok(!self.unsent.is_empty() || rest > 0)
    }

    /// Puts what is due into the outbox, as far as it has room. Returns how many bytes had none.
    fn seal(&mut self, in_flight: u64, most: usize, outbox: &mut Vec<u8>) -> anyhow::Result<usize> {
        let frames = usize::try_from(in_flight.saturating_sub(self.messages.under_way()))?;
        let mut due = self.messages.rest_len() + frames * self.messages.frame_len();
        while due > 0 && outbox.len() + self.record_len + OVERHEAD <= most {
            let len = due.min(self.record_len);
            self.outgoing.seal(outbox, len, |content| self.messages.fill(content))?;
            due -= len;
        }
        Ok(due)
    }
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
