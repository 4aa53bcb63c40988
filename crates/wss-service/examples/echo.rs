//! Sends every message back, a text as text and bytes as bytes: what a new client is tried with, and what Autobahn's
//! fuzzing client talks to (`tests/autobahn/run`).
//!
//! ```sh
//! cargo run -p wss-service --example echo -- 127.0.0.1:8080
//! ```

use wss_service::{BoxError, Compression, Service};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let service = service(&address)?;
    println!("{}", service.addresses()[0]);
    Ok(service.run().await?)
}

/// The address may have port 0: the system chooses.
pub fn service(address: &str) -> Result<Service, BoxError> {
    let history = 32 * 1024;
    let compression =
        Compression { to_client_history: history, from_client_history: history, ..Compression::default() };
    let service = Service::bind(address)?.compression(compression);
    Ok(service.on_message(async |session, message| session.send(message).await))
}
