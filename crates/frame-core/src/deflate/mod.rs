//! permessage-deflate (RFC 7692): payloads of messages, and what they are on the wire. Pure.
//!
//! In: the payload of a message, whole or in parts. Out: the payload of its frames, compressed ([`Deflater`]) or inflated
//! ([`Inflater`]). Refused: what can't be inflated, and what grows beyond all measure.
//!
//! A compressor of zlib takes 131 KB at least, and its counterpart 47 KB: too much for each session. So each thread has its
//! own, for one message after the other (`engines`), and a session keeps no more than the end of what it has sent or
//! received (`history`): the part that later messages may refer to. [`Budget`] bounds what all sessions keep.

mod budget;
mod deflater;
mod engines;
mod history;
mod inflater;
mod window;

pub use self::budget::{Budget, Share};
pub use self::deflater::{DEFLATED_LEN_MIN, Deflater, deflate_alone};
pub use self::inflater::Inflater;
pub use self::window::Window;
pub(crate) use self::window::{WINDOW_BITS_MIN, WINDOW_SIZES};

/// Both directions of a session.
#[derive(Debug)]
pub struct Codec {
    /// What the client sends.
    pub inflater: Inflater,
    /// What it is sent.
    pub deflater: Deflater,
    /// Of the [`Budget`], for what both keep.
    pub share: Option<Share>,
}

impl Codec {
    /// With what was agreed upon for each direction, and how much is kept at most of what the client is sent. `share` gives so
    /// many bytes of a [`Budget`]; `None`: it has not so many left.
    #[must_use]
    pub fn new(
        from_client: Window,
        to_client: Window,
        history_max: usize,
        share: impl FnOnce(usize) -> Option<Share>,
    ) -> Option<Self> {
        let kept = from_client.kept_len() + Deflater::kept_len(to_client, history_max);
        Some(Self {
            inflater: Inflater::new(from_client),
            deflater: Deflater::new(to_client, history_max),
            share: if kept > 0 { Some(share(kept)?) } else { None },
        })
    }
}

#[cfg(test)]
mod tests;
