//! permessage-deflate (RFC 7692): what a service keeps for it, and what it agrees upon with a client.

use frame_core::deflate::{Budget, Codec, Share, Window};
use upgrade_handler::{Contexts, Deflate, Offer};

/// Compression of messages, with the clients that offer it ([`Service::compression`](crate::Service::compression)).
///
/// A message may refer to those before it, which makes short ones of the same kind several times shorter. Both ends have to
/// keep the end of what has passed for it, and a message that is sent to many has to be compressed for each of them. So it is
/// a choice for each direction. By default clients' messages may, and the service's may not: a broadcast is then compressed
/// once.
///
/// ```
/// use wss_service::Compression;
///
/// let prices = Compression { to_client_history: 4096, ..Compression::default() };
/// assert_eq!(prices.from_client_history, 4096);
/// ```
///
/// Messages under 64 bytes are sent as they are, and those that compression would make longer. A message from a client may
/// have [`Settings::message_max`](crate::Settings::message_max) bytes when it is inflated; one that can't be inflated ends
/// the session with 1007, one that grows by more than 256 times and beyond 1 MiB with 1009.
///
/// What a client compresses well takes it few bytes to send, and is kept inflated until its handler is done with it: up to
/// two messages of a session, one of them being handled. [`Self::messages_max`] bounds it for all sessions together, and
/// `message_max` for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// Bytes of what was sent to a client that are kept, for later messages to refer to: 32 KiB at most. 0: each message is
    /// compressed by itself, and a broadcast once for all.
    pub to_client_history: usize,
    /// Bytes of what a client has sent that are kept, 256 to 32,768, rounded down to a power of two. A client that can't be
    /// told so has to compress each message by itself, if it isn't 32 KiB. 4 KiB; less than 256: nothing is kept.
    pub from_client_history: usize,
    /// Bytes that are kept for all sessions of the service together. When they are given away, new sessions compress each
    /// message by itself. 64 MiB.
    pub memory_max: usize,
    /// Bytes that messages of sessions with compression may take for all sessions of the service together, as long as they are
    /// not whole, or their handler is not done with them: inflated, and with what inflating them takes. The first 64 KiB of
    /// each session don't count. A session that would need more ends with 1013. 256 MiB.
    pub messages_max: usize,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            to_client_history: 0,
            from_client_history: 4096,
            memory_max: 64 * 1024 * 1024,
            messages_max: 256 * 1024 * 1024,
        }
    }
}

/// Compression as a running service has it.
#[derive(Debug)]
pub(crate) struct Compressing {
    contexts: Contexts,
    to_client_history: usize,
    histories: Budget,
    messages: Budget,
}

impl Compressing {
    pub(crate) fn new(compression: Compression) -> Self {
        let Compression { to_client_history, from_client_history, memory_max, messages_max } = compression;
        Self {
            contexts: Contexts::of_lens(from_client_history, to_client_history),
            to_client_history,
            histories: Budget::new(memory_max),
            messages: Budget::new(messages_max),
        }
    }

    /// Of what messages may take: nothing yet.
    pub(crate) fn share(&self) -> Share {
        self.messages.share_of_old(0)
    }

    /// What is agreed upon with a client, and what speaks it; `None`: nothing, since it offers nothing that can be accepted.
    pub(crate) fn agree(&self, offer: &Offer) -> Option<(Deflate, Box<Codec>)> {
        self.agreed(offer, self.contexts).or_else(|| self.agreed(offer, Contexts::NONE))
    }

    /// `None` also if there is no memory for it.
    fn agreed(&self, offer: &Offer, contexts: Contexts) -> Option<(Deflate, Box<Codec>)> {
        let deflate = offer.deflate(contexts)?;
        let from_client = Window { bits: deflate.from_client_bits, is_kept: deflate.from_client_kept };
        let to_client = Window { bits: deflate.to_client_bits, is_kept: deflate.to_client_kept };
        let share = |len| self.histories.share(len);
        let codec = Codec::new(from_client, to_client, self.to_client_history, share)?;
        Some((deflate, Box::new(codec)))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn agreed(compressing: &Compressing, offer: &'static str) -> Option<(String, Box<Codec>)> {
        let mut fields = HeaderMap::new();
        fields.insert("sec-websocket-extensions", HeaderValue::from_static(offer));
        let offer = upgrade_handler::offered(&fields).extensions;
        let (deflate, codec) = compressing.agree(&offer)?;
        Some((deflate.field().to_str().unwrap().to_owned(), codec))
    }

    #[test]
    fn what_is_kept_is_bounded_for_all_together() {
        const BROWSER: &str = "permessage-deflate; client_max_window_bits";
        const ALONE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let compression = Compression {
            to_client_history: 4096,
            from_client_history: 5000,
            memory_max: 3 * 8192,
            ..Compression::default()
        };
        let compressing = Compressing::new(compression);
        let mut sessions = Vec::new();
        for _ in 0..3 {
            let (field, codec) = agreed(&compressing, BROWSER).unwrap();
            assert_eq!(field, "permessage-deflate; client_max_window_bits=12");
            sessions.push(codec);
        }
        assert_eq!(agreed(&compressing, BROWSER).unwrap().0, ALONE);
        sessions.pop();
        assert_eq!(agreed(&compressing, BROWSER).unwrap().0, "permessage-deflate; client_max_window_bits=12");
    }

    #[test]
    fn by_default_a_broadcast_is_compressed_once() {
        let compressing = Compressing::new(Compression::default());
        let (field, codec) = agreed(&compressing, "permessage-deflate").unwrap();
        assert_eq!(field, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        assert!(codec.share.is_none() && !codec.deflater.window().is_kept);
        assert!(agreed(&compressing, "permessage-deflate; server_max_window_bits=8").is_none());
    }
}
