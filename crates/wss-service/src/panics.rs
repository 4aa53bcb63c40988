//! Panics of handlers, caught with their places.
//!
//! What is caught has no place any more; only the panic hook is told. So there is a hook, which notes the place for its
//! thread and has the one before it called as usual.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use futures_util::FutureExt;

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Panic {
    /// File, line and column.
    pub(crate) place: String,
    /// What it said.
    pub(crate) message: String,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panic at {}: {}", self.place, self.message)
    }
}

/// Has the places of panics noted from now on.
pub(crate) fn note_places() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PLACE.set(info.location().map(ToString::to_string));
            before(info);
        }));
    });
}

/// The output of `future`, or its panic.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, Panic> {
    // What a handler leaves half-done is its own: locks of the standard library are poisoned then.
    AssertUnwindSafe(future).catch_unwind().await.map_err(|payload| Panic {
        place: PLACE.take().unwrap_or_else(|| "an unknown place".into()),
        message: message(&*payload),
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "not a text".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_with_its_place() {
        note_places();
        let first = line!();
        let panic = caught(async {
            if std::hint::black_box(true) {
                panic!("{} things", 2)
            }
        });
        let (panic, last) = (panic.await.unwrap_err(), line!());
        assert_eq!(panic.message, "2 things");
        let line = panic.place.split(':').nth(1).unwrap().parse().unwrap();
        assert!(panic.place.contains("panics.rs:") && (first..last).contains(&line), "{panic}");
    }

    #[tokio::test]
    async fn what_does_not_panic_is_left_alone() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
    }
}
