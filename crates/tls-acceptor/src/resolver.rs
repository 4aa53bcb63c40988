//! rustls' question for a certificate, answered from the cell.
//!
//! rustls doesn't report afterwards what was asked and answered, and the cell may have been swapped
//! since. So the answer leaves a note for the handshake that is being polled on this thread: the
//! resolver runs inside that very call.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::cert_set::Selected;
use crate::reload::Certificates;

/// What a ClientHello asked for and got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Lower case, no trailing dot.
    pub(crate) server_name: Option<Box<str>>,
    /// `None`: refused.
    pub(crate) selected: Option<Selected>,
    pub(crate) generation: u64,
}

thread_local! {
    static NOTE: RefCell<Option<Note>> = const { RefCell::new(None) };
}

#[derive(Debug)]
pub(crate) struct Resolver {
    certificates: Arc<Certificates>,
}

impl Resolver {
    pub(crate) fn new(certificates: Arc<Certificates>) -> Self {
        Self { certificates }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.certificates.current();
        let answer = current.loaded.set.resolve(hello.server_name(), hello.signature_schemes());
        let note = Note {
            server_name: hello.server_name().map(|name| crate::name::normalize(name).into()),
            selected: answer.map(|(selected, _)| selected),
            generation: current.generation,
        };
        NOTE.with_borrow_mut(|slot| *slot = Some(note));
        answer.map(|(_, key)| key.clone())
    }
}

/// Drives a handshake and returns the last note its resolver left, if it came that far.
pub(crate) async fn with_note<F: Future>(handshake: F) -> (F::Output, Option<Note>) {
    let mut handshake = pin!(handshake);
    let mut note = None;
    let output = std::future::poll_fn(|cx| poll_noting(cx, handshake.as_mut(), &mut note)).await;
    (output, note)
}

fn poll_noting<F: Future>(
    cx: &mut Context<'_>,
    handshake: Pin<&mut F>,
    note: &mut Option<Note>,
) -> Poll<F::Output> {
    NOTE.with_borrow_mut(Option::take);
    let poll = handshake.poll(cx);
    if let Some(left) = NOTE.with_borrow_mut(Option::take) {
        *note = Some(left);
    }
    poll
}
