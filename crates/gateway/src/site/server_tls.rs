//! TLS towards a server: what it is trusted by, and under which name.

use std::fmt;
use std::sync::OnceLock;

use tls_acceptor::{ConnectorSettings, ServerName, TlsConnector};

use crate::site::written::Place;

/// TLS towards one server.
pub struct ServerTls {
    /// Its certificate has to be valid for this name.
    pub name: ServerName,
    /// Whom it is trusted by, and what it is shown.
    pub settings: ConnectorSettings,
    /// Where the configuration says so.
    pub written_at: Place,
    /// What does handshakes, from when the files were read.
    connector: OnceLock<TlsConnector>,
}

impl ServerTls {
    /// Its files are not read yet: see [`Self::prepare`].
    #[must_use]
    pub fn new(name: ServerName, settings: ConnectorSettings) -> Self {
        Self { name, settings, written_at: Place::default(), connector: OnceLock::new() }
    }

    /// Sets what was made of the files; only the first counts.
    pub fn prepare(&self, connector: TlsConnector) {
        let _ = self.connector.set(connector);
    }

    /// What does handshakes. It is there before requests are served.
    #[must_use]
    pub fn connector(&self) -> Option<&TlsConnector> {
        self.connector.get()
    }

    /// A connection of one with the same key serves requests of the other.
    pub(super) fn key(&self) -> (String, u64) {
        (self.name.to_string(), self.connector().map_or(0, TlsConnector::fingerprint))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("name", &self.name).field("settings", &self.settings).finish()
    }
}
