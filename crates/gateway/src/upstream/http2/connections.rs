//! The connections of one worker: how many there are for a server follows from the streams that are open.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::site::endpoint::Endpoint;
use crate::site::upstream::Connector;
use crate::upstream::dial::{DialError, NotHttp2};
use crate::upstream::http2::connection::{FreeStream, Http2Connection};

/// How long a connection without a stream is kept.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How long it is remembered that a server offers no WebSockets over HTTP/2, if nothing else is heard of it.
const MEMORY_TIME: Duration = Duration::from_secs(600);

/// How long it is remembered that a server wants HTTP/1.1.
const HTTP1_TIME: Duration = Duration::from_secs(60);

/// Connections by server.
#[derive(Debug, Default)]
pub struct Connections {
    servers: Mutex<BTreeMap<Arc<Endpoint>, Arc<Server>>>,
}

/// Those to one server.
#[derive(Debug, Default)]
struct Server {
    connections: Mutex<Vec<Arc<Http2Connection>>>,
    /// One is made at a time: those that wait for it may all get a stream of it.
    dialing: tokio::sync::Mutex<()>,
    /// When its settings said last that it offers no WebSockets.
    no_websockets: Mutex<Option<Instant>>,
    /// When it last ended a connection because it wants HTTP/1.1.
    http1_required: Mutex<Option<Instant>>,
}

/// How many connections and streams there are to a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Http2Counts {
    /// Connections, with those that take no more requests.
    pub connections: usize,
    /// Open streams.
    pub streams: usize,
}

impl Sum for Http2Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, one| Self {
            connections: sum.connections + one.connections,
            streams: sum.streams + one.streams,
        })
    }
}

impl Connections {
    /// A stream to `endpoint`: of the first connection that has room, else of a new one. `None`: the server wants
    /// HTTP/1.1.
    ///
    /// # Errors
    /// If there is none, and no connection can be made.
    ///
    /// # Cancel safety
    /// A dropped call makes no connection.
    pub(crate) async fn stream(
        &self,
        connector: Connector,
        endpoint: &Arc<Endpoint>,
    ) -> Result<Option<FreeStream>, DialError> {
        let server = self.server(endpoint);
        if is_remembered(&server.http1_required, HTTP1_TIME) {
            return Ok(None);
        }
        if let Some(stream) = server.free_stream(endpoint) {
            return Ok(Some(stream));
        }
        let begun = Instant::now();
        let stream = Box::pin(server.new_stream(connector, endpoint)).await?; // rare, and larger than the rest
        Ok(Some(stream.connecting_since(begun)))
    }

    /// `endpoint` has said that it wants HTTP/1.1 (RFC 9113 §7), for the connection and not for one request.
    pub(crate) fn wants_http1(&self, endpoint: &Arc<Endpoint>) {
        let now = Some(Instant::now());
        *self.server(endpoint).http1_required.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// It is known that `endpoint` offers no WebSockets over HTTP/2.
    pub(crate) fn has_no_websockets(&self, endpoint: &Arc<Endpoint>) -> bool {
        is_remembered(&self.server(endpoint).no_websockets, MEMORY_TIME)
    }

    /// How many connections and streams there are to `endpoint`.
    #[must_use]
    pub fn counts(&self, endpoint: &Endpoint) -> Http2Counts {
        let Some(server) = self.lock().get(endpoint).cloned() else { return Http2Counts::default() };
        let connections = server.lock();
        let streams = connections.iter().map(|connection| connection.open_streams()).sum();
        Http2Counts { connections: connections.len(), streams }
    }

    /// Closes what was idle for too long or leads to an address that its name has lost, and forgets what has ended.
    pub fn prune(&self) {
        self.lock().retain(|endpoint, server| {
            let mut connections = server.lock();
            connections.retain(|connection| {
                if connection.idle_time() >= IDLE_TIME || !connection.is_meant(endpoint) {
                    connection.close();
                }
                // One that takes no more requests is counted until its last stream has ended.
                !connection.is_closed() || connection.open_streams() > 0
            });
            !connections.is_empty()
                || Arc::strong_count(server) > 1
                || is_remembered(&server.no_websockets, MEMORY_TIME)
                || is_remembered(&server.http1_required, HTTP1_TIME)
        });
    }

    fn server(&self, endpoint: &Arc<Endpoint>) -> Arc<Server> {
        let mut servers = self.lock();
        match servers.get(endpoint) {
            Some(server) => server.clone(),
            None => servers.entry(endpoint.clone()).or_default().clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<Endpoint>, Arc<Server>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_remembered(heard: &Mutex<Option<Instant>>, time: Duration) -> bool {
    heard.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|heard| heard.elapsed() < time)
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Http2Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of a connection that leads to where the endpoint's name leads now. Others end with their last stream.
    fn free_stream(&self, endpoint: &Endpoint) -> Option<FreeStream> {
        self.lock().iter().find_map(|connection| {
            if connection.is_meant(endpoint) {
                return connection.stream();
            }
            connection.close();
            None
        })
    }

    async fn new_stream(&self, connector: Connector, endpoint: &Endpoint) -> Result<FreeStream, DialError> {
        let late = |_| DialError::Timeout { after: connector.connect_timeout };
        let _turn = timeout(connector.connect_timeout, self.dialing.lock()).await.map_err(late)?;
        if let Some(stream) = self.free_stream(endpoint) {
            return Ok(stream);
        }
        let connection = Http2Connection::open(connector, endpoint).await?;
        let heard = (!connection.offers_websockets()).then(Instant::now);
        *self.no_websockets.lock().unwrap_or_else(PoisonError::into_inner) = heard;
        let stream = connection.stream();
        self.lock().push(connection);
        // It may have ended meanwhile.
        stream.ok_or(DialError::NotHttp2 { error: NotHttp2::End })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::{advance, pause};

    use super::*;
    use crate::site::upstream::Upstream;

    #[tokio::test]
    async fn a_connection_is_kept_while_it_has_a_stream_and_a_minute_longer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let mut server = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
            server.accept().await.is_none()
        });
        let (connections, endpoint) = (Connections::default(), Arc::new(Endpoint::new("127.0.0.1", port)));
        let connector = Upstream::new(Vec::new()).connector;
        let stream = connections.stream(connector, &endpoint).await.unwrap().unwrap();
        assert!(
            !stream.is_reused()
                && stream.connect_begun().is_some()
                && connections.has_no_websockets(&endpoint)
        );
        pause();
        let counts = |streams| Http2Counts { connections: 1, streams };
        connections.prune();
        advance(2 * IDLE_TIME).await;
        connections.prune();
        assert_eq!(connections.counts(&endpoint), counts(1));
        drop(stream);
        connections.prune(); // from now on
        advance(IDLE_TIME / 2).await;
        let again = connections.stream(connector, &endpoint).await.unwrap().unwrap();
        assert!(again.is_reused() && again.connect_begun().is_none());
        connections.prune();
        drop(again);
        connections.prune();
        advance(IDLE_TIME / 2).await;
        connections.prune();
        assert_eq!(connections.counts(&endpoint), counts(0));
        advance(IDLE_TIME).await;
        connections.prune();
        assert_eq!(connections.counts(&endpoint), Http2Counts::default());
        assert!(serving.await.unwrap(), "it has ended without a request");
        advance(MEMORY_TIME).await;
        assert!(!connections.has_no_websockets(&endpoint));
        connections.wants_http1(&endpoint);
        connections.prune();
        assert!(connections.stream(connector, &endpoint).await.unwrap().is_none());
        advance(HTTP1_TIME).await;
        assert!(!is_remembered(&connections.server(&endpoint).http1_required, HTTP1_TIME));
    }
}
