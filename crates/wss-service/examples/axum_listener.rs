//! Sessions within an axum application that accepts its connections itself: `/feed` is a WebSocket.
//!
//! ```sh
//! cargo run -p wss-service --example axum_listener
//! ```

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use wss_service::{Attached, BoxError, Service};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    serve(listener, async { drop(tokio::signal::ctrl_c().await) }).await
}

/// Serves until `shutdown`. Then nothing more is accepted, and each client gets a Close.
pub async fn serve(listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), BoxError> {
    let sessions =
        Service::new().on_message(async |session, message| session.send(message).await).attach()?;
    let app = Router::new().route("/", get(index)).route("/feed", any(feed)).with_state(sessions.clone());
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let (end, ended) = oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async { drop(ended.await) });
    // At the same time: axum waits for connections of HTTP/2 until the sessions on them are over.
    let draining = async {
        shutdown.await;
        drop(end);
        sessions.drain().await;
    };
    let (served, ()) = tokio::join!(serving.into_future(), draining);
    Ok(served?)
}

async fn index() -> &'static str {
    "open a WebSocket at /feed\n"
}

/// Other extractors of axum's may stand before the request: who may open a session is the application's to say.
async fn feed(
    State(sessions): State<Attached>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> impl IntoResponse {
    sessions.open(request, peer).await
}
