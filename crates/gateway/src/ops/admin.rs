//! The admin listener: how the gateway is, over plain HTTP, for orchestrators, Prometheus, and people.
//!
//! It lives on the main thread, beside the workers. One request a connection, few connections, a
//! short time for each: whatever clients do to it, the service of other clients doesn't suffer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use std::{io, net};

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::edge::listener::Accepting;
use crate::net::listening::{ListenAddress, PeerName, UNIX_PEER};
use crate::ops::control::server::Access;
use crate::ops::control::socket::SocketClaim;
use crate::ops::metrics;
use crate::ops::overview::Overview;
use crate::ops::page::{Page, PageRules};
use crate::ops::reserve::AcceptRetry;
use crate::request::coding::{self, Coding};

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// For a request and its answer.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// For the last answers.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// The longest head of a request, in bytes; hyper wants as many at least.
const HEAD_LEN_MAX: usize = 8192;
const PLAIN: &str = "text/plain; charset=utf-8";

/// A listening socket on which nothing is accepted yet.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: Accepting,
    /// As the configuration has it, and as it is.
    address: ListenAddress,
    local: ListenAddress,
    /// The path of a Unix socket that was made for it.
    claim: Option<SocketClaim>,
    /// The service manager's.
    is_activated: bool,
}

/// The admin listener at work; when dropped it accepts nothing more, and ends with its last answer.
#[derive(Debug)]
pub(crate) struct AdminServer {
    /// Where it listens.
    pub local: ListenAddress,
    listener: Arc<Accepting>,
    page: Arc<Page>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Bound {
    /// Takes the first of `sockets`, which listen at `address`. Within a runtime.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn new(
        address: ListenAddress,
        local: ListenAddress,
        sockets: Vec<net::TcpListener>,
        claim: Option<SocketClaim>,
        is_activated: bool,
    ) -> io::Result<Self> {
        let socket = sockets.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
        let listener = Accepting::new(&address, socket)?;
        Ok(Self { listener, address, local, claim, is_activated })
    }

    /// Answers from now on.
    pub(crate) fn serve(self, access: &Access, rules: PageRules) -> AdminServer {
        let Self { listener, address, local, claim, is_activated } = self;
        if !is_activated {
            access.overview.sockets.hold(&address, claim);
        }
        let (listener, stop) = (Arc::new(listener), CancellationToken::new());
        let page = Page::open(access.clone(), rules, stop.clone());
        let answers = Answers { overview: access.overview.clone(), page: page.clone() };
        let task = tokio::spawn(accept(listener.clone(), local.clone(), answers, stop.clone()));
        AdminServer { local, listener, page, stop, task }
    }
}

impl AdminServer {
    /// A duplicate of its socket.
    ///
    /// # Errors
    /// If there is no descriptor for it.
    pub(crate) fn lend(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// A reload has changed who may see the page.
    pub(crate) fn adopt(&self, rules: PageRules) {
        self.page.adopt(rules);
    }

    /// Accepts nothing more, and waits a moment for its last answer: the process may be about to end.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        let _ = timeout(CLOSE_TIME, &mut self.task).await;
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What requests are answered from.
#[derive(Debug, Clone)]
struct Answers {
    overview: Arc<Overview>,
    page: Arc<Page>,
}

async fn accept(listener: Arc<Accepting>, local: ListenAddress, answers: Answers, stop: CancellationToken) {
    let Overview { reserve, shortage, .. } = &*answers.overview;
    let mut retry = AcceptRetry::new(reserve.clone(), shortage.clone(), local.to_string());
    let mut connections = JoinSet::new();
    loop {
        let accepting = async {
            retry.ready().await;
            listener.accept().await
        };
        tokio::select! {
            accepted = accepting, if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((tcp, peer)) => {
                    retry.accepted();
                    connections.spawn(serve_connection(tcp, peer, answers.clone()));
                }
                Err(e) => retry.failed(&e),
            },
            Some(_) = connections.join_next() => retry.freed(),
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    answers.page.tasks.close();
    answers.page.tasks.wait().await;
}

async fn serve_connection(tcp: TcpStream, peer: SocketAddr, answers: Answers) {
    let local = match peer.ip() {
        UNIX_PEER => Ok(peer),
        _ => tcp.local_addr(),
    };
    let Ok(local) = local else { return };
    let service = service_fn(|request: Request<Incoming>| {
        let answers = &answers;
        async move { Ok::<_, Infallible>(answers.answer(request, peer, local).await) }
    });
    let serving = Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(tcp), service)
        .with_upgrades();
    match timeout(CONNECTION_TIME, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => debug!(peer = %PeerName(peer), cause = %e, "admin connection ended"),
        Err(_) => debug!(peer = %PeerName(peer), "admin connection cut: it took too long"),
    }
}

impl Answers {
    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/healthz" | "/readyz" | "/metrics" => open_page(&self.overview, &request).await,
            _ => match self.page.answer(request, peer, local).await {
                Some(response) => response,
                None => text(
                    StatusCode::NOT_FOUND,
                    "there is no such page; the pages are /, /sessions, /healthz, /readyz and /metrics\n"
                        .to_owned(),
                ),
            },
        }
    }
}

/// Those that everybody may see who reaches the address.
async fn open_page(overview: &Arc<Overview>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let method = request.method();
    match request.uri().path() {
        _ if *method != Method::GET && *method != Method::HEAD => {
            let mut response =
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are supported\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        // The main thread is alive, or there would be no answer.
        "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => {
            let (is_ready, sentence) = overview.readiness();
            let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            text(status, format!("{sentence}\n"))
        }
        _ => metrics_page(overview, request.headers()).await,
    }
}

async fn metrics_page(overview: &Arc<Overview>, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = metrics::Format::accepted(&accept.collect::<Vec<_>>().join(","));
    let is_gzip = coding::accepted(headers, [Coding::Gzip]).next().is_some();
    let body = match metrics::scrape(overview, format, is_gzip).await {
        Ok(body) => body,
        Err(e) => {
            let sentence = format!("the metrics can't be written: {e}\n");
            return text(StatusCode::INTERNAL_SERVER_ERROR, sentence);
        }
    };
    let mut response = Response::new(Full::from(body));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    fields.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if is_gzip {
        fields.insert(CONTENT_ENCODING, HeaderValue::from_static(Coding::Gzip.as_str()));
    }
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PLAIN));
    response
}
