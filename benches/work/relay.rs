//! A step of the relay: a message goes in at one end and is moved until it is out at the other.

use std::pin::Pin;
use std::task::{Context, Waker};

use frame_core::clock::Exact;
use frame_core::handle::SessionHandle;
use frame_core::relay::{relay, relay_unscanned};
use tokio::io::copy_bidirectional;

use crate::POLICY;
use crate::pipe::Pipe;

pub const ROOM: usize = 2 << 20;

/// What sits in the middle.
#[derive(Debug, Clone, Copy)]
pub enum Middle {
    Relay,
    Unscanned,
    Copy,
}

pub async fn run(middle: Middle, mut client: Pipe, mut backend: Pipe) {
    let (handle, policy) = (SessionHandle::new(), POLICY);
    match middle {
        Middle::Relay => {
            relay(&mut client, &mut backend, policy, &handle, Exact::begin()).await;
        }
        Middle::Unscanned => {
            relay_unscanned(&mut client, &mut backend, policy, &handle, Exact::begin()).await;
        }
        Middle::Copy => {
            copy_bidirectional(&mut client, &mut backend).await.unwrap();
        }
    }
}

/// Puts `wire` in and polls until all of it has come out.
pub fn step(
    mut middle: Pin<&mut impl Future<Output = ()>>,
    from: &Pipe,
    to: &Pipe,
    wire: &[u8],
    seen: &mut [u8],
) {
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(from.put(wire), wire.len());
    let mut len = 0;
    while len < wire.len() {
        assert!(middle.as_mut().poll(&mut cx).is_pending());
        len += to.take(&mut seen[len..]);
    }
}
