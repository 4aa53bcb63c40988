//! Servers that go when they are told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use support::backend::{Backend, Seen};
use support::http1::{Head, read_head};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::conversation::{Fate, Orders, converse, switching};

/// What a server answers to a handshake.
pub(crate) type Answer = Arc<dyn Fn(&Head) -> String + Send + Sync>;

/// A server that echoes texts with its name before them, and goes when it is told to.
pub(crate) struct Server {
    backend: Backend,
    orders: watch::Sender<Orders>,
    /// It takes sessions.
    serves: Arc<AtomicBool>,
    pub(crate) seen: Seen,
    /// Texts that it has read whole, by `Wssgate-Session`.
    pub(crate) heard: Heard,
}

pub(crate) type Heard = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

impl Server {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::answering(name, Arc::new(|head| switching(head, ""))).await
    }

    pub(crate) async fn answering(name: &'static str, answer: Answer) -> Self {
        let (orders, told) = watch::channel(Orders { count: 0, fate: Fate::Dies });
        let (seen, heard) = (Seen::default(), Heard::default());
        let all = (seen.clone(), heard.clone());
        let serves = Arc::new(AtomicBool::new(true));
        let takes = serves.clone();
        let backend = Backend::start(move |tcp| {
            let ((seen, heard), told, answer) = (all.clone(), told.clone(), answer.clone());
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
                let session = head.get("wssgate-session").unwrap_or_default().to_owned();
                converse(name, tcp, (told, count), |text, _| {
                    let mut heard = heard.lock().unwrap();
                    heard.entry(session.clone()).or_default().push(text.to_owned());
                })
                .await;
            }
        })
        .await;
        Self { backend, orders, serves, seen, heard }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.backend.address
    }

    fn tell(&self, fate: Fate, serves: bool) {
        self.serves.store(serves, Ordering::SeqCst);
        self.orders.send_modify(|orders| *orders = Orders { count: orders.count + 1, fate });
    }

    /// It goes, and is there again at once.
    pub(crate) fn restart(&self, fate: Fate) {
        self.tell(fate, true);
    }

    /// It goes.
    pub(crate) fn stop(&self, fate: Fate) {
        self.tell(fate, false);
    }

    /// It is there again.
    pub(crate) fn serve(&self) {
        self.serves.store(true, Ordering::SeqCst);
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().values().flatten().cloned().collect()
    }
}
