//! permessage-deflate that ends at the gateway (RFC 7692): what is agreed upon with a client, and what is kept for it.

use frame_core::deflate::{Budget, Codec, Window};
use frame_core::deflated::Deflating;
use http::HeaderValue;
use upgrade_handler::{Contexts, Offer};

/// Compression as a worker has it, and what it keeps for all sessions.
#[derive(Debug)]
pub struct Compressing(Budget);

impl Default for Compressing {
    fn default() -> Self {
        Self(Budget::new(usize::MAX)) // the site knows the limit
    }
}

impl Compressing {
    /// The field of the answer to a client's offer, and what speaks it; `None`: nothing can be accepted. The session keeps so
    /// many bytes in each direction, if the worker has no more than `memory_max` then; else each message is compressed by
    /// itself.
    #[must_use]
    pub(crate) fn agree(
        &self,
        offer: &Offer,
        history_max: usize,
        memory_max: usize,
    ) -> Option<(HeaderValue, Box<Deflating>)> {
        let agreed = |contexts: Contexts| {
            let deflate = offer.deflate(contexts)?;
            let from_client = Window { bits: deflate.from_client_bits, is_kept: deflate.from_client_kept };
            let to_client = Window { bits: deflate.to_client_bits, is_kept: deflate.to_client_kept };
            let share = |len| self.0.share_within(memory_max, len);
            let codec = Codec::new(from_client, to_client, history_max, share)?;
            Some((deflate.field(), Deflating::new(codec, history_max)))
        };
        agreed(Contexts::of_lens(history_max, history_max)).or_else(|| agreed(Contexts::NONE))
    }

    /// What the sessions keep.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::SEC_WEBSOCKET_EXTENSIONS;

    use super::*;

    const ALONE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn agree(compressing: &Compressing, history_max: usize, memory_max: usize) -> (String, Box<Deflating>) {
        let mut fields = HeaderMap::new();
        let offer = HeaderValue::from_static("permessage-deflate; client_max_window_bits");
        fields.insert(SEC_WEBSOCKET_EXTENSIONS, offer);
        let offer = upgrade_handler::offered(&fields).extensions;
        let (field, deflating) = compressing.agree(&offer, history_max, memory_max).unwrap();
        (field.to_str().unwrap().to_owned(), deflating)
    }

    #[test]
    fn what_a_worker_keeps_is_bounded() {
        let compressing = Compressing::default();
        let kept: Vec<_> = (0..3).map(|_| agree(&compressing, 4096, 3 * 8192)).collect();
        assert!(kept.iter().all(|(field, _)| field == "permessage-deflate; client_max_window_bits=12"));
        assert_eq!(agree(&compressing, 4096, 3 * 8192).0, ALONE);
        // A reload may have given more, or less.
        assert_ne!(agree(&compressing, 4096, 4 * 8192).0, ALONE);
        assert_eq!(agree(&compressing, 4096, 8192).0, ALONE);
        assert_eq!(compressing.budget().given(), 3 * 8192);
        drop(kept);
        assert_ne!(agree(&compressing, 4096, 8192).0, ALONE);
        assert_eq!(compressing.budget().given(), 0);
    }

    #[test]
    fn what_a_session_keeps_is_the_routes() {
        let compressing = Compressing::default();
        assert_eq!(agree(&compressing, 0, usize::MAX).0, ALONE);
        assert_eq!(agree(&compressing, 32 * 1024, usize::MAX).0, "permessage-deflate");
        let (field, _deflating) = agree(&compressing, 5000, usize::MAX);
        assert_eq!(field, "permessage-deflate; client_max_window_bits=12");
        assert_eq!(compressing.budget().given(), 4096 + 5000);
    }
}
