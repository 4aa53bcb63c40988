//! An echo that ends at our endpoint.

use std::pin::Pin;
use std::task::{Context, Waker};

use frame_core::endpoint::Endpoint;
use frame_core::handle::SessionHandle;

use crate::POLICY;
use crate::pipe::Pipe;

pub const ROOM: usize = 2 << 20;

pub async fn echo(io: Pipe) {
    let mut endpoint = Endpoint::new(io, POLICY, SessionHandle::new());
    while let Some(message) = endpoint.recv().await {
        endpoint.send(message).await.unwrap();
    }
}

/// Puts messages in and polls until all their echoes have come out.
pub fn step(mut endpoint: Pin<&mut impl Future<Output = ()>>, client: &Pipe, wire: &[u8], seen: &mut [u8]) {
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(client.put(wire), wire.len());
    let mut len = 0;
    while len < seen.len() {
        assert!(endpoint.as_mut().poll(&mut cx).is_pending());
        len += client.take(&mut seen[len..]);
    }
}
