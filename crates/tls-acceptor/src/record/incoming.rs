//! What a peer may say after its handshake, and what it means.

use super::cipher::{Cipher, CipherState};
use super::header::{CLOSE_NOTIFY, ContentType, Fault, Header, KEY_UPDATE, USER_CANCELED};
use super::secret::Secret;
use super::ticket::TicketReader;

/// Records without data that a client may send in a row.
const QUIET_MAX: u32 = 32;
const WARNING: u8 = 1;

/// What one record was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OpenedRecord {
    /// Data: so many bytes.
    Data(usize),
    /// Nothing that matters.
    Quiet,
    /// The client's next records are under its next key. If `requested`, so must ours be, after
    /// we have said so.
    KeyUpdate { requested: bool },
    /// A client of TLS 1.2 wants another handshake. It gets the alert no_renegotiation.
    Renegotiation,
    /// The client sends no more.
    Closed,
    /// The client has given up, with this alert.
    GivenUp(u8),
}

/// The peer's direction.
#[derive(Debug)]
pub(crate) struct Incoming {
    cipher: Cipher,
    quiet: u32,
    /// The front of a KeyUpdate whose rest is in a later record.
    message: ([u8; KEY_UPDATE.len()], usize),
    /// What only a server may say; `None` with a client, which pays no more for it than the pointer.
    tickets: Option<Box<TicketReader>>,
}

/// What makes the same again, besides the secret.
pub(crate) struct IncomingState {
    pub(crate) cipher: CipherState,
    pub(crate) quiet: u32,
    /// The front of a KeyUpdate.
    pub(crate) message: Vec<u8>,
    /// With a server: the head of a ticket as far as it has come, and bytes that are still to come.
    pub(crate) tickets: Option<(Vec<u8>, u32)>,
}

impl Incoming {
    /// What makes the same again, with its secret.
    ///
    /// # Errors
    /// See [`Cipher::state`].
    pub(crate) fn state(&self) -> Result<IncomingState, Fault> {
        let Self { cipher, quiet, message: (message, len), tickets } = self;
        let tickets = tickets.as_ref().map(|tickets| tickets.state());
        Ok(IncomingState {
            cipher: cipher.state()?,
            quiet: *quiet,
            message: message[..*len].to_vec(),
            tickets,
        })
    }

    /// Goes on where one of this state left off.
    ///
    /// # Errors
    /// See [`Cipher::from_state`]; or if the state is one that no client can bring about.
    pub(crate) fn from_state(state: IncomingState, secret: &Secret) -> Result<Self, Fault> {
        let IncomingState { cipher, quiet, message: front, tickets } = state;
        let mut message = [0; KEY_UPDATE.len()];
        if quiet > QUIET_MAX || front.len() >= message.len() {
            return Err(Fault::INTERNAL);
        }
        message[..front.len()].copy_from_slice(&front);
        let tickets =
            tickets.map(|(head, left)| TicketReader::from_state(&head, left).map(Box::new)).transpose()?;
        Ok(Self {
            cipher: Cipher::from_state(cipher, secret)?,
            quiet,
            message: (message, front.len()),
            tickets,
        })
    }

    pub(crate) fn new(cipher: Cipher) -> Self {
        Self { cipher, quiet: 0, message: ([0; KEY_UPDATE.len()], 0), tickets: None }
    }

    /// The server's direction.
    pub(crate) fn of_server(cipher: Cipher, tickets: TicketReader) -> Self {
        Self { tickets: Some(Box::new(tickets)), ..Self::new(cipher) }
    }

    #[cfg(test)]
    pub(crate) fn keeps_tickets(&self) -> bool {
        self.tickets.as_ref().is_some_and(|tickets| tickets.keeps())
    }

    /// As messages call the peer.
    pub(crate) fn peer(&self) -> &'static str {
        if self.tickets.is_some() { "server" } else { "client" }
    }

    /// What comes next is protected by the successor of the key. `secret` is what it was made of.
    ///
    /// # Errors
    /// See [`Cipher::successor`].
    pub(crate) fn renew_key(&mut self, secret: &mut Secret) -> Result<(), Fault> {
        self.cipher = self.cipher.successor(secret)?;
        Ok(())
    }

    /// Reads a record's header; see [`Header::parse`].
    pub(crate) fn header(&self, wire: &[u8]) -> Result<Option<Header>, Fault> {
        Header::parse(wire, self.cipher.is_tls13())
    }

    /// Opens one record. Its data is put into the front of `content`, which must be as long as
    /// `body`.
    ///
    /// # Errors
    /// With the alert to be sent; nothing more of the client's is to be read.
    pub(crate) fn open(
        &mut self,
        header: Header,
        body: &[u8],
        content: &mut [u8],
    ) -> Result<OpenedRecord, Fault> {
        let (content_type, len) = self.cipher.open(header, body, content)?;
        let content = &content[..len];
        let is_in_message =
            self.message.1 > 0 || self.tickets.as_ref().is_some_and(|tickets| tickets.is_reading());
        if is_in_message && content_type != ContentType::Handshake {
            return Err(Fault::UNEXPECTED_MESSAGE); // nothing may come between (RFC 8446 §5.1)
        }
        if content_type == ContentType::ApplicationData && len > 0 {
            self.quiet = 0;
            if let Some(tickets) = &mut self.tickets {
                tickets.stop();
            }
            return Ok(OpenedRecord::Data(len));
        }
        self.quiet += 1;
        if self.quiet > QUIET_MAX {
            return Err(Fault::UNEXPECTED_MESSAGE);
        }
        match content_type {
            ContentType::ApplicationData => Ok(OpenedRecord::Quiet),
            ContentType::ChangeCipherSpec => Err(Fault::UNEXPECTED_MESSAGE),
            // Only data may be empty (RFC 8446 §5.4).
            ContentType::Alert | ContentType::Handshake if content.is_empty() => {
                Err(Fault::UNEXPECTED_MESSAGE)
            }
            ContentType::Alert => self.on_alert(content),
            ContentType::Handshake if self.cipher.is_tls13() => self.on_handshake(content),
            ContentType::Handshake => Ok(OpenedRecord::Renegotiation),
        }
    }

    fn on_alert(&self, content: &[u8]) -> Result<OpenedRecord, Fault> {
        match *content {
            [_, CLOSE_NOTIFY] => Ok(OpenedRecord::Closed),
            [_, USER_CANCELED] => Ok(OpenedRecord::Quiet),
            // In TLS 1.3 an alert is fatal whatever it says of itself (RFC 8446 §6).
            [WARNING, _] if !self.cipher.is_tls13() => Ok(OpenedRecord::Quiet),
            [_, description] => Ok(OpenedRecord::GivenUp(description)),
            _ => Err(Fault::DECODE_ERROR), // neither split nor joined (RFC 8446 §5.1)
        }
    }

    /// The only message that a client may send now is a KeyUpdate (RFC 8446 §4.6), and nothing may
    /// follow it under the same key (§5.1).
    fn on_handshake(&mut self, content: &[u8]) -> Result<OpenedRecord, Fault> {
        let content = match &mut self.tickets {
            Some(tickets) if self.message.1 == 0 => tickets.read(content)?,
            _ => content,
        };
        if content.is_empty() {
            return Ok(OpenedRecord::Quiet);
        }
        let (message, len) = &mut self.message;
        let room = &mut message[*len..];
        if content.len() > room.len() {
            return Err(Fault::UNEXPECTED_MESSAGE);
        }
        room[..content.len()].copy_from_slice(content);
        *len += content.len();
        let [kind, lengths @ .., answer] = message;
        if *kind != KEY_UPDATE[0] {
            return Err(Fault::UNEXPECTED_MESSAGE);
        }
        if *len < KEY_UPDATE.len() {
            return Ok(OpenedRecord::Quiet);
        }
        *len = 0;
        match (lengths, answer) {
            ([0, 0, 1], 0) => Ok(OpenedRecord::KeyUpdate { requested: false }),
            ([0, 0, 1], 1) => Ok(OpenedRecord::KeyUpdate { requested: true }),
            ([0, 0, 1], _) => Err(Fault::ILLEGAL_PARAMETER),
            _ => Err(Fault::DECODE_ERROR),
        }
    }
}
