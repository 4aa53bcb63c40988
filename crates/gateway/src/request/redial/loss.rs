//! A server has lost its sessions: the log says so once for all of a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use crate::site::server::ServerState;
use crate::site::upstream::Upstream;

/// For how long losses are counted before they are logged.
const INTERVAL: Duration = Duration::from_secs(1);

/// Notes that `server` has lost a session, which looks for another one. `how`: of the first one of a line.
pub(super) fn note(upstream: &Upstream, server: Arc<ServerState>, how: &str) {
    if !server.lost_session() {
        return;
    }
    let (upstream, how) = (upstream.to_string(), how.to_owned());
    tokio::spawn(async move {
        sleep(INTERVAL).await;
        let sessions = server.take_lost();
        info!(upstream, backend = %server.endpoint, sessions, how, "a backend has lost sessions, which look for another one");
    });
}
