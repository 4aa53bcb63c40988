//! The admin listener: how the gateway is, over plain HTTP, for orchestrators and Prometheus.
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
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::ops::metrics;
use crate::ops::overview::Overview;
use crate::ops::reserve::AcceptRetry;

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// For a request and its answer.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// For the last answers.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// The longest head of a request, in bytes; hyper wants as many at least.
const HEAD_LEN_MAX: usize = 8192;

/// A listening socket on which nothing is accepted yet.
#[derive(Debug)]
pub(crate) struct Bound(TcpListener);

/// The admin listener at work; when dropped it accepts nothing more, and ends with its last answer.
#[derive(Debug)]
pub(crate) struct AdminServer {
    /// Where it listens.
    pub local: SocketAddr,
    listener: Arc<TcpListener>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Bound {
    /// Takes the first of `sockets`, which listen. Within a runtime.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn new(sockets: Vec<net::TcpListener>) -> io::Result<Self> {
        let socket = sockets.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self(TcpListener::from_std(socket)?))
    }

    /// Answers from now on.
    ///
    /// # Errors
    /// If the socket has no address; that doesn't happen to a listening socket.
    pub(crate) fn serve(self, overview: Arc<Overview>) -> io::Result<AdminServer> {
        let local = self.0.local_addr()?;
        let (listener, stop) = (Arc::new(self.0), CancellationToken::new());
        let task = tokio::spawn(accept(listener.clone(), local, overview, stop.clone()));
        Ok(AdminServer { local, listener, stop, task })
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

async fn accept(
    listener: Arc<TcpListener>,
    local: SocketAddr,
    overview: Arc<Overview>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut retry = AcceptRetry::new(overview.reserve.clone(), overview.shortage.clone(), local.to_string());
    loop {
        let accepting = async {
            retry.ready().await;
            listener.accept().await
        };
        tokio::select! {
            accepted = accepting, if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((tcp, peer)) => {
                    retry.accepted();
                    connections.spawn(serve_connection(tcp, peer, overview.clone()));
                }
                Err(e) => retry.failed(&e),
            },
            Some(_) = connections.join_next() => retry.freed(),
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(tcp: TcpStream, peer: SocketAddr, overview: Arc<Overview>) {
    let service = service_fn(|request: Request<Incoming>| {
        let overview = &overview;
        async move { Ok::<_, Infallible>(answer(overview, &request).await) }
    });
    let serving = Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(tcp), service);
    match timeout(CONNECTION_TIME, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => debug!(%peer, cause = %e, "admin connection ended"),
        Err(_) => debug!(%peer, "admin connection cut: it took too long"),
    }
}

async fn answer(overview: &Arc<Overview>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let method = request.method();
    let mut kind = "text/plain; charset=utf-8";
    let (status, text) = match request.uri().path() {
        _ if *method != Method::GET && *method != Method::HEAD => {
            (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are supported\n".to_owned())
        }
        // The main thread is alive, or there would be no answer.
        "/healthz" => (StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => {
            let (is_ready, sentence) = overview.readiness();
            let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, format!("{sentence}\n"))
        }
        "/metrics" => {
            let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let accept = accept.collect::<Vec<_>>().join(",");
            let format = metrics::Format::accepted(&accept);
            match metrics::scrape(overview, format).await {
                Ok(text) => {
                    kind = format.content_type();
                    (StatusCode::OK, text)
                }
                Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics can't be written: {e}\n")),
            }
        }
        _ => (
            StatusCode::NOT_FOUND,
            "there is no such page; the pages are /healthz, /readyz and /metrics\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
