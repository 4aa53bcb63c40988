//! A plain request through the gateway and its answer back, over in-memory pipes.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use gateway::config::Config;
use gateway::internals::AccessLog;
use gateway::internals::ClientLimits;
use gateway::internals::Registry;
use gateway::internals::Sinks;
use gateway::internals::{Common, Connection, ConnectionSlot, Redirect, Worker};
use gateway::internals::{http1, http2};
use gateway::site::Site;
use gateway::site::route::Action;
use http::Request;
use tls_acceptor::{Certificates, Loaded, Tickets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pipe::{Pipe, pipe};

/// Its servers are never dialled: the pool holds connections.
const CONFIG: &str = r#"
[[listener]]
address = "127.0.0.1:8080"
tls = false

[[route]]
path = "/"
proxy = "#;
const ONE: &str = r#""http://127.0.0.1:1""#;
const TWO: &str = r#"["http://127.0.0.1:1", "http://127.0.0.1:2"]"#;
const REQUEST: &[u8] = b"GET /page HTTP/1.1\r\nHost: a.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 24\r\n\r\nHello from the backend.\n";
const BODY_LEN: usize = 24;
const ROOM: usize = 64 << 10;

/// A connection to a worker that serves [`CONFIG`] with these servers, with so many connections to each.
async fn connection(servers: &str, backends: usize) -> Arc<Connection> {
    let (config, problems) = Config::parse(Path::new("bench.toml"), &[CONFIG, servers].concat());
    assert!(problems.is_empty(), "{problems:?}");
    connection_of(&config, ANSWER, backends)
}

/// A connection to a worker that serves this configuration, with so many connections to each backend of its first
/// route, which always gives this answer.
pub fn connection_of(config: &Config, answer: &'static [u8], backends: usize) -> Arc<Connection> {
    let certificates = Certificates::new(Loaded::default(), 1);
    let site = Site::build(&config.site(), 1, None, &certificates, &Tickets::new().unwrap()).unwrap();
    let casing = upgrade_handler::casing::canonical();
    let site = Arc::new(ArcSwap::from_pointee(site));
    let (drained, shortage) = (Arc::default(), Arc::default());
    let sinks = Sinks::new(vec![Box::new(AccessLog::default())]);
    let (transit, taps) = (Arc::default(), Arc::default());
    let (quotas, passwords) = (Arc::default(), Arc::default());
    let common =
        Common { site, certificates, drained, transit, taps, shortage, quotas, passwords, casing, sinks };
    let worker = Arc::new(Worker::new(common, Arc::new(Registry::new(0, 1))));
    if let Action::Proxy(upstream) = &config.routes[0].action {
        for server in &upstream.servers {
            for _ in 0..backends {
                let (near, far) = pipe(ROOM);
                tokio::spawn(serve(far, answer));
                worker.pool.adopt(&server.endpoint, near);
            }
        }
    }
    Arc::new(Connection {
        local: ([192, 0, 2, 8], 443).into(),
        peer: ([192, 0, 2, 7], 50_122).into(),
        listener: "bench".into(),
        tls: None,
        redirect: Redirect::No,
        limits: Arc::new(ClientLimits::DEFAULT),
        slot: ConnectionSlot::new(&worker.quotas),
        worker,
        own: OnceLock::new(),
    })
}

async fn serve(mut io: Pipe, answer: &'static [u8]) {
    let mut head = [0; 4096];
    let mut len = 0;
    while let Ok(n @ 1..) = io.read(&mut head[len..]).await {
        len += n;
        if head[..len].ends_with(b"\r\n\r\n") {
            io.write_all(answer).await.unwrap();
            len = 0;
        }
    }
}

/// HTTP/1.1 requests, one after the other; how long they took, but for the first.
pub async fn http1(n: u64) -> Duration {
    one_after_the_other(n, connection(ONE, 1).await).await
}

/// The same where two servers share them.
pub async fn http1_of_two(n: u64) -> Duration {
    one_after_the_other(n, connection(TWO, 1).await).await
}

async fn one_after_the_other(n: u64, connection: Arc<Connection>) -> Duration {
    let (mut client, near) = pipe(ROOM);
    tokio::spawn(http1::serve(connection, near));
    let mut answer = [0; 4096];
    let mut started = Instant::now();
    for round in 0..=n {
        client.write_all(REQUEST).await.unwrap();
        let mut len = 0;
        while !answer[..len].ends_with(&ANSWER[ANSWER.len() - BODY_LEN..]) {
            let n = client.read(&mut answer[len..]).await.unwrap();
            assert!(n > 0, "the gateway has ended the connection");
            len += n;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
        if round == 0 {
            started = Instant::now();
        }
    }
    started.elapsed()
}

/// HTTP/2 requests on so many streams; how long they took, but for the first.
pub async fn http2(n: u64, at_once: usize) -> Duration {
    let (client, near) = pipe(ROOM);
    tokio::spawn(http2::serve(connection(ONE, 2 * at_once).await, near, true));
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let rounds = |count: u64| {
        let mut sender = sender.clone();
        async move {
            for _ in 0..count {
                sender = sender.ready().await.unwrap();
                let request = Request::get("https://a.test/page").header("user-agent", "bench");
                let (answer, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
                let mut body = answer.await.unwrap().into_body();
                let mut len = 0;
                while let Some(data) = body.data().await {
                    let data: Bytes = data.unwrap();
                    len += data.len();
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                assert_eq!(len, BODY_LEN);
            }
        }
    };
    rounds(1).await;
    let started = Instant::now();
    let tasks: Vec<_> = (0..at_once as u64)
        .map(|i| tokio::spawn(rounds(n / at_once as u64 + u64::from(i < n % at_once as u64))))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    started.elapsed()
}
