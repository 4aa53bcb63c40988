//! The record protocol after the handshake (RFC 8446 §5, RFC 5246 §6).
//!
//! rustls does handshakes. What follows one is done here, because a relay needs records opened from
//! where the network put them to where they will be scanned, and sealed from there to where the
//! network takes them, without a buffer per connection or a copy between. [`Cipher`] protects one
//! direction, [`Incoming`] is what a peer may say in it, and in which order.

mod cipher;
mod header;
mod incoming;
mod secret;
mod ticket;

pub(crate) use self::cipher::{Cipher, CipherState, Content, OVERHEAD_MAX, Protection};
pub(crate) use self::header::{
    CLOSE_NOTIFY, ContentType, Fault, HEADER_LEN, Header, KEY_UPDATE, NO_RENEGOTIATION, PLAINTEXT_MAX,
    RECORD_MAX, UNRECOGNIZED_NAME, USER_CANCELED, alert,
};
pub(crate) use self::incoming::{Incoming, IncomingState, OpenedRecord};
pub(crate) use self::secret::Secret;
pub(crate) use self::ticket::TicketReader;

#[cfg(test)]
mod tests;
