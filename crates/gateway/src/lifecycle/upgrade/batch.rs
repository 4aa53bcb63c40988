//! A batch of sessions on the socket between two gateways: what one writes and the other reads. A record is in it with
//! its length before it; packets have a bounded length, records may be longer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::context::transit::{ArrivingSession, FrozenSession};
use crate::lifecycle::upgrade::protocol::{Channel, DESCRIPTORS_MAX, UpgradeMessage};

/// Sessions in a batch that is sent: all of them are frozen until the last has been put together.
pub(crate) const SESSIONS_AT_ONCE: usize = 50;
/// Sessions in one batch at most: each has two descriptors.
pub(crate) const SESSIONS_MAX: usize = DESCRIPTORS_MAX / 2;
const _: () = assert!(SESSIONS_AT_ONCE <= SESSIONS_MAX);
/// The longest packet of records. The kernel's default limit for what waits in a socket is some 208 KiB.
const PACKET_LEN: usize = 32 * 1024;
/// All records of a batch. A session in the middle of a write may have a buffer of 256 KiB for each direction.
const BATCH_LEN_MAX: usize = SESSIONS_MAX * 1024 * 1024;
/// A process that does nothing for so long in the middle of a batch is given up.
pub(crate) const BATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends a batch. New sessions of the other process are to get ids above `last_id`.
///
/// # Errors
/// If the other process has gone, or takes nothing for [`BATCH_TIMEOUT`].
pub(crate) async fn send(channel: &Channel, sessions: &[FrozenSession], last_id: u64) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> =
        sessions.iter().flat_map(|session| session.sockets.each_ref().map(AsFd::as_fd)).collect();
    let len = sessions.iter().map(|session| 4 + session.state.len()).sum();
    let mut records = Zeroizing::new(Vec::with_capacity(len));
    for session in sessions {
        let len = u32::try_from(session.state.len()).map_err(io::Error::other)?;
        records.extend_from_slice(&len.to_be_bytes());
        records.extend_from_slice(&session.state);
    }
    let message = UpgradeMessage::Sessions { count: sessions.len(), bytes: len, last_id };
    in_time(channel.send(&message, &descriptors)).await?;
    for packet in records.chunks(PACKET_LEN) {
        in_time(channel.send_bytes(packet, &[])).await?;
    }
    Ok(())
}

/// What has come with [`UpgradeMessage::Sessions`], whose `count` and `bytes` these are; `None`: not all descriptors
/// have come, and those that have are closed.
///
/// # Errors
/// If what comes is no batch.
pub(crate) async fn receive(
    channel: &Channel,
    descriptors: Vec<OwnedFd>,
    count: usize,
    bytes: usize,
) -> io::Result<Option<Vec<ArrivingSession>>> {
    if count > SESSIONS_MAX || bytes > BATCH_LEN_MAX {
        return Err(invalid("a batch is too large"));
    }
    let mut records = Zeroizing::new(Vec::with_capacity(bytes));
    while records.len() < bytes {
        let packet = in_time(channel.receive_bytes()).await?;
        let (packet, _) = packet.ok_or(io::ErrorKind::UnexpectedEof)?;
        if packet.len() > bytes - records.len() {
            return Err(invalid("a batch is longer than it says"));
        }
        records.extend_from_slice(&packet);
    }
    // The kernel drops descriptors for which the receiver has no room (MSG_CTRUNC).
    if descriptors.len() != 2 * count {
        return Ok(None);
    }
    let mut rest = &records[..];
    let mut descriptors = descriptors.into_iter();
    let mut sessions = Vec::with_capacity(count);
    for place in 0..count {
        let (Some(client), Some(backend)) = (descriptors.next(), descriptors.next()) else { break };
        let state = split_record(&mut rest).ok_or_else(|| invalid("a record is cut off"))?;
        let state = Zeroizing::new(state.to_vec());
        sessions.push(ArrivingSession { place, sockets: [client, backend], state });
    }
    if rest.is_empty() { Ok(Some(sessions)) } else { Err(invalid("a batch is longer than it says")) }
}

fn split_record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, behind) = rest.split_first_chunk()?;
    let (record, behind) = behind.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    *rest = behind;
    Some(record)
}

/// # Errors
/// [`io::ErrorKind::TimedOut`] after [`BATCH_TIMEOUT`].
pub(crate) async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(BATCH_TIMEOUT, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
