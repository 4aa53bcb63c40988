//! First flights take turns: they are the dearest thing a thread does, and when thousands of clients
//! come at once, whatever else has become ready must not wait for all of them.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

/// Flights that a thread makes before it looks at its sockets: a millisecond's work. A look after each
/// would cost every handshake some 3 % more.
const AT_ONCE: u32 = 4;

thread_local! {
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
    static MADE: Cell<u32> = const { Cell::new(0) };
    #[cfg(test)]
    static ALL_MADE: Cell<u32> = const { Cell::new(0) };
}

/// The right to make a first flight. Its holder must not wait for another task.
pub(crate) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Waits for those who came before.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn take() -> Self {
        // The semaphore is never closed.
        Self { _permit: TURN.with(Clone::clone).acquire_owned().await.ok() }
    }

    /// The next one may; after [`AT_ONCE`] of them once the thread has looked at its sockets and done what
    /// it found.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn pass_on(self) {
        let made = MADE.get() + 1;
        MADE.set(made % AT_ONCE);
        #[cfg(test)]
        ALL_MADE.set(ALL_MADE.get() + 1);
        if made == AT_ONCE {
            yield_now().await;
        }
    }
}

/// First flights of this thread's.
#[cfg(test)]
pub(crate) fn made() -> u32 {
    ALL_MADE.get()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    #[tokio::test]
    async fn sockets_have_their_turn_between_flights() {
        let log = Rc::new(RefCell::new(String::new()));
        let say = |what: char| {
            let log = log.clone();
            move || log.borrow_mut().push(what)
        };
        let (message, flight) = (say('m'), say('f'));
        let local = LocalSet::new();
        local.spawn_local(async move {
            let (mut near, mut far) = UnixStream::pair().unwrap();
            loop {
                near.write_all(b"x").await.unwrap();
                far.read_exact(&mut [0]).await.unwrap();
                message();
            }
        });
        local
            .run_until(async {
                let flights: Vec<_> = (0..20)
                    .map(|_| {
                        let flight = flight.clone();
                        spawn_local(async move {
                            let turn = Turn::take().await;
                            flight();
                            turn.pass_on().await;
                        })
                    })
                    .collect();
                for flight in flights {
                    flight.await.unwrap();
                }
            })
            .await;
        let log = log.borrow();
        assert_eq!(log.matches('f').count(), 20);
        assert!(!log.contains(&"f".repeat(AT_ONCE as usize + 1)), "{log}");
    }
}
