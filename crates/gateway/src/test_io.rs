//! Connections in memory for tests: a client's, over HTTP/2, and those to a backend. Time may be paused.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::Extensions;
use tls_acceptor::{Certificates, Loaded, Tickets};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::connection::{Connection, Transport};
use crate::http2;
use crate::patience::ClientLimits;
use crate::registry::Registry;
use crate::route::Action;
use crate::site::Site;
use crate::upstream::Upstream;
use crate::worker::{Common, Worker};

const CONFIG: &str = r#"
workers = 1

[[listener]]
address = "127.0.0.1:8080"
tls = false

[[route]]
path = "/"
proxy = "http://127.0.0.1:1" # nobody dials it: the pool holds connections

[[route]]
path = "/echo"
service = "echo"
"#;

/// What one direction of a connection holds.
const ROOM: usize = 64 << 10;

impl Transport for DuplexStream {}

/// A worker, with one backend.
pub(crate) struct Scene {
    pub(crate) worker: Arc<Worker>,
    upstream: Arc<Upstream>,
}

impl Scene {
    /// With these lines before the rest of the configuration.
    pub(crate) fn new(lines: &str) -> Self {
        let (config, problems) = Config::parse(Path::new("test.toml"), &format!("{lines}\n{CONFIG}"));
        assert!(problems.is_empty(), "{problems:?}");
        let certificates = Certificates::new(Loaded::default(), 1);
        let site = Site::build(&config, 1, None, &certificates, &Tickets::new().unwrap()).unwrap();
        let site = Arc::new(ArcSwap::from_pointee(site));
        let (drained, shortage, casing) = (Arc::default(), Arc::default(), Extensions::new());
        let common = Common { site, certificates, drained, shortage, casing };
        let worker = Arc::new(Worker::new(common, Arc::new(Registry::new(0, 1))));
        let Action::Proxy(upstream) = &config.routes[0].action else { unreachable!("a proxy is configured") };
        Self { worker, upstream: upstream.clone() }
    }

    /// The backend's end of a connection that the next request may use.
    pub(crate) fn backend(&self) -> DuplexStream {
        let (near, far) = duplex(ROOM);
        self.worker.pool.adopt(&self.upstream, near);
        far
    }

    /// What a client's connection is to the gateway.
    pub(crate) fn connection(&self) -> Arc<Connection> {
        Arc::new(Connection {
            peer: ([192, 0, 2, 7], 50_122).into(),
            tls: None,
            limits: ClientLimits::DEFAULT,
            worker: self.worker.clone(),
            own: OnceLock::new(),
        })
    }

    /// A client's end of a connection over HTTP/2, and the task that serves it.
    pub(crate) fn http2(&self) -> (DuplexStream, JoinHandle<()>) {
        let (client, near) = duplex(ROOM);
        (client, tokio::spawn(http2::serve(self.connection(), near)))
    }

    /// The same, by the h2 crate's client, whose streams have this window.
    pub(crate) async fn client(&self, window: u32) -> SendRequest<Bytes> {
        let (sender, connection) =
            Builder::new().initial_window_size(window).handshake(self.http2().0).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// Reads a request's head.
pub(crate) async fn read_head(io: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Reads a request and answers it with `answer`.
pub(crate) async fn answer(io: &mut DuplexStream, answer: &str) {
    read_head(io).await;
    io.write_all(answer.as_bytes()).await.unwrap();
}
