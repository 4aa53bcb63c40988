//! Sessions and an axum application on one port: `/feed` is a WebSocket, everything else is axum's.
//!
//! ```sh
//! cargo run -p wss-service --example axum
//! ```

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use wss_service::{BoxError, Hub, Service, To};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    Ok(service("127.0.0.1:8080")?.run().await?)
}

/// Handlers of axum send to the sessions by the hub.
pub fn service(address: &str) -> Result<Service, BoxError> {
    let service = Service::bind(address)?;
    let app = Router::new().route("/", get(index)).route("/publish", post(publish)).with_state(service.hub());
    Ok(service.path("/feed").otherwise(app))
}

async fn index() -> &'static str {
    "open a WebSocket at /feed, and post to /publish\n"
}

/// What is posted goes to all sessions.
async fn publish(State(hub): State<Hub>, text: String) -> String {
    let delivery = hub.send_to(To::All, text).await;
    format!("sent to {}\n", delivery.queued)
}
