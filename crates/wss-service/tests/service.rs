//! Services over real sockets, with clients that share no code with them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::SocketAddr;
use std::time::Duration;

use support::http1::ask;
use support::http2::Http2;
use support::pki::Pki;
use support::tls::{TLS12, TLS13, Tls, leaf};
use support::ws::WebSocket;
use support::{BoxIo, soon, until};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use wss_service::{
    Cause, Certificates, CloseCode, Closed, Handler, Hub, Message, Party, Refusal, Request, SendError,
    ServeError, Service, Session, Settings, SlowClient, StatusCode, To,
};

#[path = "service/attached.rs"]
mod attached;
#[path = "service/beside.rs"]
mod beside;
#[path = "service/compression.rs"]
mod compression;
#[path = "service/end.rs"]
mod end;
#[path = "service/groups.rs"]
mod groups;
#[path = "service/sessions.rs"]
mod sessions;
#[path = "service/stalls.rs"]
mod stalls;
#[path = "service/threads.rs"]
mod threads;
#[path = "service/tls.rs"]
mod tls;

/// A service that runs.
struct Running {
    address: SocketAddr,
    hub: Hub,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
}

fn start<H: Handler>(service: Service<H>) -> Running {
    let (address, hub) = (service.addresses()[0], service.hub());
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(service.run_until(async { drop(stopped.await) }));
    Running { address, hub, stop, serving }
}

fn bind() -> Service {
    Service::bind("127.0.0.1:0").unwrap()
}

async fn echo(session: Session, message: Message) -> Result<(), SendError> {
    session.send(message).await
}

/// Ends of sessions.
fn closes()
-> (impl Fn(Session, Closed) -> std::future::Ready<()> + Send + Sync, mpsc::UnboundedReceiver<Closed>) {
    let (note, closes) = mpsc::unbounded_channel();
    let noting = move |_: Session, closed: Closed| {
        let _ = note.send(closed);
        std::future::ready(())
    };
    (noting, closes)
}

impl Running {
    async fn tcp(&self) -> BoxIo {
        Box::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// Over plain TCP.
    async fn open(&self, path: &str) -> WebSocket {
        WebSocket::connect(self.tcp().await, "a.test", path, "").await.unwrap().0
    }

    /// The status of the answer.
    async fn refused(&self, path: &str, fields: &str) -> support::http1::Head {
        WebSocket::connect(self.tcp().await, "a.test", path, fields).await.err().expect("a refusal")
    }

    async fn http2(&self, tls: &Tls) -> Http2 {
        Http2::connect(tls.connect(self.address).await.unwrap(), "a.test").await
    }
}

/// Certificates of a test.
struct Certs {
    directory: TempDir,
    pki: Pki,
}

impl Certs {
    fn new(names: &[&str]) -> Self {
        let certs = Self { directory: TempDir::new().unwrap(), pki: Pki::new() };
        for name in names {
            certs.pki.issue(&[name]).write(certs.directory.path(), name);
        }
        certs
    }

    fn load(&self) -> Certificates {
        Certificates::directory(self.directory.path()).unwrap()
    }
}
