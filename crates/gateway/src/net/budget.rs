//! The budget for buffers and unsent bytes (`max_memory`): what a worker holds for peers, and its share.
//!
//! Each worker has an equal share and keeps to it by itself. Counted are the buffers of relays, messages of
//! endpoints, TLS records that the network has not taken, DATA frames that are queued over HTTP/2; of plain requests
//! heads that are not whole, bodies whose backend takes nothing, and answers whose client takes nothing. What inflates
//! messages of clients waits while a worker holds all of its share.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;

thread_local! {
    /// So much is held that the slowest are given up.
    static IS_PRESSED: Cell<bool> = const { Cell::new(false) };
    /// Connections that were cut for it since the last look.
    static CUT: Cell<u64> = const { Cell::new(0) };
}

/// Cuts a connection that takes nothing, if this thread holds so much that it has to: says whether.
#[must_use]
pub(crate) fn cuts() -> bool {
    let is_pressed = IS_PRESSED.get();
    if is_pressed {
        CUT.set(CUT.get() + 1);
    }
    is_pressed
}

/// Bytes that this thread holds for peers.
#[must_use]
pub(crate) fn held() -> u64 {
    net_io::memory::held() as u64
}

/// A worker's part of `max_memory`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(pub(crate) u64);

impl Share {
    /// That of one of so many workers.
    #[must_use]
    pub fn new(memory_max: u64, workers: u64) -> Self {
        Self(memory_max / workers.max(1))
    }

    /// The slowest are given up from here on; always before new work is refused.
    pub(crate) fn shed_at(self) -> u64 {
        self.0 / 4 * 3
    }

    /// Until no more than this is held.
    pub(crate) fn shed_to(self) -> u64 {
        self.0 / 8 * 5
    }

    /// New work is refused at so much.
    #[must_use]
    pub fn is_short(self, held: u64) -> bool {
        held >= self.0 / 8 * 7
    }
}

/// A worker's use of memory, as others see it.
#[derive(Debug, Default)]
pub struct Pressure {
    /// Bytes held at its last look.
    pub held: AtomicU64,
    /// Requests and handshakes that were refused.
    pub refused: AtomicU64,
    /// Sessions and connections that were given up.
    pub shed: AtomicU64,
}

/// Connections that [`cuts`] has cut since the last call.
pub(crate) fn take_cut() -> u64 {
    CUT.take()
}

/// Says whether this thread holds so much that connections which take nothing are cut.
pub(crate) fn press(is_pressed: bool) {
    IS_PRESSED.set(is_pressed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_go_before_new_work_is_refused() {
        let share = Share::new(1600, 2);
        assert_eq!((share.shed_to(), share.shed_at()), (500, 600));
        assert!(!share.is_short(699) && share.is_short(700));
        assert!(share.shed_at() < 700);
    }
}
