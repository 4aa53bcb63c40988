//! Session tickets, which a server of TLS 1.3 sends behind its handshake (RFC 8446 §4.6.1).
//!
//! In: the contents of handshake records, cut anywhere. Out: whole tickets, for rustls to keep. Those that come before
//! the first data are kept, as servers send them; for later ones no idle connection is to hold what keeping them takes.

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;

use super::header::Fault;

/// The message's type (RFC 8446 §4).
const NEW_SESSION_TICKET: u8 = 4;
/// Type and length.
const HEAD_LEN: usize = 4;
/// Longer tickets are not kept. In bytes; servers put certificates of clients into theirs.
const KEPT_MAX: usize = 32 * 1024;

/// What keeps tickets.
struct Keeper {
    rustls: KernelConnection<ClientConnectionData>,
    /// The front of a ticket.
    ticket: Vec<u8>,
}

/// Where in a ticket the server is.
pub(crate) struct TicketReader {
    /// `None`: the tickets are skipped.
    keeper: Option<Box<Keeper>>,
    head: [u8; HEAD_LEN],
    head_len: u8,
    /// Bytes of the ticket that are still to come.
    left: u32,
}

impl std::fmt::Debug for TicketReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketReader").field("keeps", &self.keeper.is_some()).finish_non_exhaustive()
    }
}

impl TicketReader {
    /// Keeps tickets, if `rustls` is there to take them.
    pub(crate) fn new(rustls: Option<KernelConnection<ClientConnectionData>>) -> Self {
        let keeper = rustls.map(|rustls| Box::new(Keeper { rustls, ticket: Vec::new() }));
        Self { keeper, head: [0; HEAD_LEN], head_len: 0, left: 0 }
    }

    /// Later tickets are not kept.
    pub(crate) fn stop(&mut self) {
        self.keeper = None;
    }

    #[cfg(test)]
    pub(crate) fn keeps(&self) -> bool {
        self.keeper.is_some()
    }

    /// What makes one again that goes on where this one is, and keeps no tickets.
    pub(crate) fn state(&self) -> (Vec<u8>, u32) {
        (self.head[..usize::from(self.head_len)].to_vec(), self.left)
    }

    /// See [`Self::state`].
    ///
    /// # Errors
    /// If no server can bring that about.
    pub(crate) fn from_state(front: &[u8], left: u32) -> Result<Self, Fault> {
        let mut tickets = Self::new(None);
        if front.len() >= HEAD_LEN || (!front.is_empty() && left > 0) || left >= 1 << 24 {
            return Err(Fault::INTERNAL);
        }
        tickets.head[..front.len()].copy_from_slice(front);
        tickets.head_len = u8::try_from(front.len()).map_err(|_| Fault::INTERNAL)?;
        tickets.left = left;
        Ok(tickets)
    }

    /// A ticket has begun.
    pub(crate) fn is_reading(&self) -> bool {
        self.head_len > 0 || self.left > 0
    }

    /// Takes the tickets at the front of `content`. What is left is another message, from its beginning.
    ///
    /// # Errors
    /// If a message is no ticket though it begins as one.
    pub(crate) fn read<'a>(&mut self, mut content: &'a [u8]) -> Result<&'a [u8], Fault> {
        loop {
            if self.left > 0 {
                let len = content.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                let (front, rest) = content.split_at(len);
                content = rest;
                self.left -= u32::try_from(len).map_err(|_| Fault::INTERNAL)?;
                self.keep(front);
                if self.left > 0 {
                    return Ok(content);
                }
            }
            let begun = usize::from(self.head_len);
            if begun == 0 && content.first() != Some(&NEW_SESSION_TICKET) {
                return Ok(content);
            }
            let len = content.len().min(HEAD_LEN - begun);
            let (front, rest) = content.split_at(len);
            content = rest;
            self.head[begun..begun + len].copy_from_slice(front);
            if begun + len < HEAD_LEN {
                self.head_len += u8::try_from(len).map_err(|_| Fault::INTERNAL)?;
                return Ok(content);
            }
            self.head_len = 0;
            let [_, len @ ..] = self.head;
            self.left = u32::from_be_bytes([0, len[0], len[1], len[2]]);
            if self.left == 0 {
                return Err(Fault::DECODE_ERROR);
            }
        }
    }

    fn keep(&mut self, front: &[u8]) {
        let Some(keeper) = &mut self.keeper else { return };
        if keeper.ticket.len() + front.len() > KEPT_MAX {
            return self.stop();
        }
        keeper.ticket.extend_from_slice(front);
        if self.left == 0 {
            // One that can't be kept is one handshake more, later.
            let _ = keeper.rustls.handle_new_session_ticket(&keeper.ticket);
            keeper.ticket.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left behind tickets, whatever pieces they come in.
    #[test]
    fn tickets_are_skipped_in_any_pieces_and_other_messages_are_not() {
        let wire = [&[4, 0, 0, 3, 1, 2, 3, 4, 0, 1, 0][..], &[7; 256], &[24, 0, 0, 1, 0]].concat();
        for size in [1, 2, 3, 5, 100, 1000] {
            let mut tickets = TicketReader::new(None);
            let mut rest = Vec::new();
            for piece in wire.chunks(size) {
                let (head, left) = tickets.state();
                tickets = TicketReader::from_state(&head, left).unwrap(); // in another process
                if rest.is_empty() {
                    rest.extend_from_slice(tickets.read(piece).unwrap());
                } else {
                    rest.extend_from_slice(piece);
                }
                assert!(rest.is_empty() || !tickets.is_reading());
            }
            assert_eq!(rest, [24, 0, 0, 1, 0], "{size}");
            assert!(!tickets.is_reading());
        }
        assert!(TicketReader::new(None).read(&[4, 0, 0, 0]).is_err());
    }
}
