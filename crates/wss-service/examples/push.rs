//! A task that has nothing to do with any client pushes the time to all of them, each second. Who is too slow misses some.
//!
//! ```sh
//! cargo run -p wss-service --example push
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::interval;
use wss_service::{BoxError, Hub, Service, Settings, SlowClient, To};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let service = service("127.0.0.1:8080")?;
    tokio::spawn(push(service.hub(), Duration::from_secs(1)));
    Ok(service.run().await?)
}

/// The newest times wait for a slow client, not the oldest.
pub fn service(address: &str) -> Result<Service, BoxError> {
    let settings = Settings { outbox_max: 4096, slow_client: SlowClient::DropOldest, ..Settings::default() };
    Ok(Service::bind(address)?.settings(settings))
}

/// Pushes for ever.
pub async fn push(hub: Hub, every: Duration) {
    let mut ticks = interval(every);
    loop {
        ticks.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        hub.try_send_to(To::All, format!("{}", now.as_secs()));
    }
}
