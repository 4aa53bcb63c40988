//! An endpoint that speaks permessage-deflate (RFC 7692).
//!
//! What a client sends is inflated frame by frame, as it comes. What it is sent is compressed when its turn has come, since a
//! message may refer to those before it.

use bytes::BytesMut;

use super::compressed::Compressed;
use super::{Endpoint, violation};
use crate::client::ClientStream;
use crate::deflate::Codec;
use crate::handle::SessionHandle;
use crate::outcome::Cause;
use crate::policy::Policy;
use crate::sequence::Limits;

impl<S: ClientStream> Endpoint<S> {
    /// As [`Endpoint::new`], for a client with which compression was agreed upon. `policy.limits.message_max` holds for messages
    /// as they are when inflated. Such an endpoint doesn't freeze.
    pub fn compressed(io: S, policy: Policy, handle: SessionHandle, codec: Codec) -> Self {
        let message_max = policy.limits.message_max;
        // What doesn't shrink grows a little: five bytes for each block, which has some kilobytes.
        let wire_max = message_max.saturating_add(message_max / 1024 + 64);
        let limits = Limits { message_max: wire_max, deflate: true };
        let compressed = Some(Box::new(Compressed::new(codec, message_max)));
        Self { compressed, ..Self::new(io, Policy { limits, ..policy }, handle) }
    }

    /// What has come of a message, inflated if it is compressed.
    pub(super) fn inflated(&mut self, fin: bool, payload: BytesMut) -> Result<BytesMut, Cause> {
        let Some(compressed) = &mut self.compressed else { return Ok(payload) };
        let before = self.assembly.len();
        let mut inflated = payload;
        if self.reader.is_compressed() {
            inflated = compressed.inflated(fin, &inflated, before).map_err(violation)?;
            self.read_since_yield += inflated.len();
        }
        compressed.check_len(before.saturating_add(inflated.len())).map_err(violation)?;
        Ok(inflated)
    }
}
