//! Handshakes: TCP, TLS, the upgrade, Close, and the end of the stream.

use std::rc::Rc;

use anyhow::ensure;

use super::connection::Client;
use super::shared::Shared;
use crate::frame;

/// One after the other until it is told to stop. A resuming client has tickets of its own, and its
/// first handshake, a full one, comes before the others.
pub(super) async fn repeat(shared: Rc<Shared>, index: usize, resumed: bool) -> anyhow::Result<()> {
    let resuming = resumed.then(|| shared.client.resuming());
    let client = resuming.as_ref().unwrap_or(&shared.client);
    once(client, index).await?;
    shared.ready().await;
    while !shared.stopped.get() {
        let was_resumed = once(client, index).await?;
        ensure!(was_resumed == resumed, "resumed: {was_resumed}; should be: {resumed}");
        shared.count(1);
    }
    Ok(())
}

/// Whether TLS resumed a session.
async fn once(client: &Client, index: usize) -> anyhow::Result<bool> {
    let mut connection = client.upgrade(index).await?;
    let resumed = connection.resumed();
    frame::put_masked(&mut connection.outbox, frame::CLOSE, &[&1000_u16.to_be_bytes()], [1, 2, 3, 4]);
    let mut answer = Vec::new();
    loop {
        let (input, _) = connection.exchange().await?;
        if input.is_empty() {
            break;
        }
        answer.extend_from_slice(input);
    }
    ensure!(answer == [frame::CLOSE, 2, 3, 232], "not the echo of our Close: {answer:?}");
    Ok(resumed)
}
