//! An endpoint that speaks permessage-deflate (RFC 7692).
//!
//! What a client sends is inflated frame by frame, as it comes. What it is sent is compressed when its turn has come, since a
//! message may refer to those before it.

use std::task::{Context, Poll, ready};

use super::compressed::{Compressed, too_much};
use super::{Endpoint, violation};
use crate::client::ClientStream;
use crate::deflate::{Codec, Share};
use crate::frame_reader::Frame;
use crate::handle::SessionHandle;
use crate::outcome::Cause;
use crate::policy::Policy;
use crate::sequence::Limits;

impl<S: ClientStream> Endpoint<S> {
    /// As [`Endpoint::new`], for a client with which compression was agreed upon. `policy.limits.message_max` holds for messages
    /// as they are when inflated. `share` is of what the messages of all such endpoints may take that are not whole or not done
    /// with: one that needs more than there is ends with 1013. Such an endpoint doesn't freeze.
    pub fn compressed(io: S, policy: Policy, handle: SessionHandle, codec: Codec, share: Share) -> Self {
        let message_max = policy.limits.message_max;
        // What doesn't shrink grows a little: five bytes for each block, which has some kilobytes.
        let wire_max = message_max.saturating_add(message_max / 1024 + 64);
        let limits = Limits { message_max: wire_max, deflate: true };
        let compressed = Some(Box::new(Compressed::new(codec, message_max, share)));
        Self { compressed, ..Self::new(io, Policy { limits, ..policy }, handle) }
    }

    /// The next frame, or the next part of one that is inflated. So what a little of the wire becomes is read in turns, too.
    pub(super) fn poll_inflated(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Cause>> {
        loop {
            let before = self.assembly.len();
            let Some(compressed) = &mut self.compressed else { return self.poll_frame(cx) };
            if let Some(part) = compressed.next_part(before) {
                let part = part.map_err(violation)?;
                self.read_since_yield += part.payload.len();
                // A message that is whole is the handler's, who says so.
                let fits = part.fin || compressed.charge(self.assembly.held() + part.payload.len());
                return Poll::Ready(if fits { Ok(part) } else { Err(too_much()) });
            }
            let frame = ready!(self.poll_frame(cx))?;
            let Some(compressed) = &mut self.compressed else { return Poll::Ready(Ok(frame)) };
            if frame.opcode.is_control() {
                return Poll::Ready(Ok(frame));
            }
            if !self.reader.is_compressed() {
                compressed.check_len(before.saturating_add(frame.payload.len())).map_err(violation)?;
                return Poll::Ready(Ok(frame));
            }
            self.received.payload_bytes += frame.payload.len() as u64; // as they are on the wire
            compressed.take(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;
    use crate::deflate::{Budget, Deflater, Window};
    use crate::endpoint::QUANTUM_LEN;
    use crate::endpoint::compressed::FREE_LEN;
    use crate::frame_reader::PART_LEN;
    use crate::outcome::Party;
    use crate::test_io::masked;

    const ALONE: Window = Window { bits: 15, is_kept: false };
    const POLICY: Policy = Policy {
        limits: Limits { message_max: 1 << 20, deflate: false },
        idle_timeout: None,
        lifetime: None,
        ping_interval: None,
        pong_timeout: Duration::from_secs(10),
    };

    fn unbounded() -> Share {
        Budget::new(usize::MAX).share(0).unwrap()
    }

    #[tokio::test]
    async fn a_little_that_becomes_much_is_read_in_turns() {
        let (mut client, io) = duplex(1 << 16);
        let codec = Codec::new(ALONE, ALONE, 0, |_| None).unwrap();
        let mut endpoint = Endpoint::compressed(io, POLICY, SessionHandle::new(), codec, unbounded());
        let (text, mut wire) = ("x".repeat(1_000_000), Vec::new());
        assert!(Deflater::new(ALONE, 0).message(text.as_bytes(), &mut wire) && wire.len() < 2000);
        client.write_all(&[masked(0xC1, &wire), masked(0x81, b"next")].concat()).await.unwrap();
        assert!(endpoint.poll_recv(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(
            (1..=QUANTUM_LEN + PART_LEN).contains(&endpoint.assembly.len()),
            "{}",
            endpoint.assembly.len()
        );
        assert!(endpoint.is_in_message(), "an order to end waits for the rest");
        assert!(endpoint.compressed.as_ref().unwrap().memory() > wire.len(), "and it is counted");
        assert!(endpoint.recv().await.unwrap().payload == text.as_bytes());
        assert_eq!(endpoint.recv().await.unwrap().payload[..], b"next"[..]);
        let received = endpoint.received_traffic();
        assert_eq!((received.messages, received.payload_bytes), (2, wire.len() as u64 + 4), "as on the wire");
        assert!(!endpoint.is_in_message());
    }

    #[tokio::test]
    async fn what_is_inflated_is_bounded() {
        for (len, ends) in [(1 << 20, false), ((1 << 20) + 1, true)] {
            let (mut client, io) = duplex(1 << 16);
            let codec = Codec::new(ALONE, ALONE, 0, |_| None).unwrap();
            let mut endpoint = Endpoint::compressed(io, POLICY, SessionHandle::new(), codec, unbounded());
            let mut wire = Vec::new();
            assert!(Deflater::new(ALONE, 0).message(&vec![7; len], &mut wire));
            client.write_all(&masked(0xC2, &wire)).await.unwrap();
            assert_eq!(endpoint.recv().await.is_none(), ends);
        }
    }

    #[tokio::test]
    async fn all_sessions_together_are_bounded() {
        let budget = Budget::new(1_500_000);
        let text = vec![b'x'; 1_000_000];
        let mut wire = Vec::new();
        Deflater::new(ALONE, 0).part(&text, false, &mut wire);
        let mut sessions = Vec::new();
        for _ in 0..2 {
            let (mut client, io) = duplex(1 << 16);
            let codec = Codec::new(ALONE, ALONE, 0, |_| None).unwrap();
            let share = budget.share(0).unwrap();
            let mut endpoint = Endpoint::compressed(io, POLICY, SessionHandle::new(), codec, share);
            client.write_all(&masked(0x42, &wire)).await.unwrap();
            while endpoint.assembly.len() < text.len() && !endpoint.is_over() {
                let _ = endpoint.poll_recv(&mut Context::from_waker(Waker::noop()));
            }
            sessions.push((client, endpoint));
        }
        let (client, second) = sessions.pop().unwrap();
        assert!(second.is_over() && second.assembly.len() < 700_000, "{}", second.assembly.len());
        drop(client);
        let Cause::Closed { by: Party::Gateway, close } = second.end().await.cause else { panic!() };
        assert_eq!(close.code, Some(1013));
        // The first one goes on, and what is with its handler is counted until that says so.
        let (mut client, mut first) = sessions.pop().unwrap();
        client.write_all(&masked(0x80, &[0x00])).await.unwrap();
        assert_eq!(first.recv().await.unwrap().payload.len(), text.len());
        for (unhandled, given) in [(text.len(), text.len() - FREE_LEN), (0, 0)] {
            first.set_waiting_outside(0, unhandled);
            assert!(first.poll_unread(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(budget.given(), given);
        }
    }
}
