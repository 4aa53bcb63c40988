//! Receive buffers, taken from the thread's pool while there are bytes.
//!
//! An idle connection holds none. Free buffers belong to the thread, so there is no lock;
//! a buffer may be given back on another thread.

use std::cell::RefCell;

use crate::memory::{count, forget};

/// Bytes of one buffer: large enough that bulk costs few system calls.
pub const BUFFER_LEN: usize = 256 * 1024;

/// Free buffers a thread keeps: enough for the sockets that are stalled or mid-burst at one time.
const FREE_MAX: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// 256 KiB, given back on drop. They still hold bytes of other connections.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// Takes a free buffer of this thread, or makes one.
    #[must_use]
    pub fn take() -> Self {
        let free = FREE.with_borrow_mut(Vec::pop);
        count(BUFFER_LEN);
        Self(free.unwrap_or_else(|| vec![0; BUFFER_LEN].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        forget(BUFFER_LEN);
        let bytes = std::mem::take(&mut self.0);
        // A thread that is ending does not keep it.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < FREE_MAX {
                free.push(bytes);
            }
        });
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_kept_in_bounds() {
        let first = Buffer::take();
        let address = first.as_ptr();
        drop(first);
        assert_eq!(Buffer::take().as_ptr(), address);
        drop((0..2 * FREE_MAX).map(|_| Buffer::take()).collect::<Vec<_>>());
        assert_eq!(FREE.with_borrow(Vec::len), FREE_MAX);
    }
}
