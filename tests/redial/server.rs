//! Servers that go when they are told to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use support::backend::{Backend, Seen};
use support::http1::{Head, read_head};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::conversation::{Fate, Orders, Read, converse, switching};

/// What a server answers to a handshake.
pub(crate) type Answer = Arc<dyn Fn(&Head) -> String + Send + Sync>;

/// A server that echoes texts with its name before them, and goes when it is told to.
pub(crate) struct Server {
    backend: Backend,
    orders: watch::Sender<Orders>,
    /// It takes sessions.
    serves: Arc<AtomicBool>,
    pub(crate) seen: Seen,
    read: Arc<SeenFrames>,
}

/// What it has read.
#[derive(Default)]
struct SeenFrames {
    /// Frames that have begun.
    begun: AtomicUsize,
    /// Texts that have come whole.
    texts: Mutex<Vec<String>>,
}

impl Server {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::answering(name, Arc::new(|head| switching(head, ""))).await
    }

    pub(crate) async fn answering(name: &'static str, answer: Answer) -> Self {
        let (orders, told) = watch::channel(Orders { count: 0, fate: Fate::Dies });
        let (seen, read) = (Seen::default(), Arc::<SeenFrames>::default());
        let all = (seen.clone(), read.clone());
        let serves = Arc::new(AtomicBool::new(true));
        let takes = serves.clone();
        let backend = Backend::start(move |tcp| {
            let ((seen, read), told, answer) = (all.clone(), told.clone(), answer.clone());
            let takes = takes.clone();
            async move {
                let mut tcp = tcp;
                let Some(head) = read_head(&mut tcp).await else { return };
                let count = told.borrow().count;
                seen.push(head.clone());
                if !takes.load(Ordering::SeqCst) {
                    return;
                }
                let answer = answer(&head);
                if tcp.write_all(answer.as_bytes()).await.is_err() || !answer.starts_with("HTTP/1.1 101") {
                    return;
                }
                converse(name, tcp, (told, count), |what| match what {
                    Read::Begin => {
                        read.begun.fetch_add(1, Ordering::SeqCst);
                    }
                    Read::Text(text) | Read::LateText(text) => {
                        read.texts.lock().unwrap().push(text.to_owned());
                    }
                })
                .await;
            }
        })
        .await;
        Self { backend, orders, serves, seen, read }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.backend.address
    }

    fn order(&self, fate: Fate, serves: bool) {
        self.serves.store(serves, Ordering::SeqCst);
        self.orders.send_modify(|orders| *orders = Orders { count: orders.count + 1, fate });
    }

    /// It goes, and is there again at once.
    pub(crate) fn restart(&self, fate: Fate) {
        self.order(fate, true);
    }

    /// It goes.
    pub(crate) fn stop(&self, fate: Fate) {
        self.order(fate, false);
    }

    /// It is there again.
    pub(crate) fn serve(&self) {
        self.serves.store(true, Ordering::SeqCst);
    }

    /// Texts that it has read whole.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.read.texts.lock().unwrap().clone()
    }

    /// How many frames it has begun to read.
    pub(crate) fn begun(&self) -> usize {
        self.read.begun.load(Ordering::SeqCst)
    }
}
