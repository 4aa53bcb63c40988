//! A WebSocket service over TLS. Put a certificate and its key into `certs/`, then:
//!
//! ```sh
//! cargo run -p wss-service --example fifteen_lines
//! ```

use wss_service::{BoxError, Certificates, Service};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    Ok(service("0.0.0.0:8282", "certs")?.run().await?)
}

/// Says "ok" to every message.
pub fn service(address: &str, certs: &str) -> Result<Service, BoxError> {
    Ok(Service::bind(address)?
        .certificates(Certificates::directory(certs)?) // hot: changed files, SIGHUP, or reload()
        .on_message(async |session, _message| session.send("ok").await))
}
