//! The URL that says which names may have a certificate.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Uri};
use tls_acceptor::{ConnectorSettings, TlsConnector};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use crate::config::OnDemandSettings;
use crate::site::endpoint::Endpoint;
use crate::upstream::fetch::exchange;

/// Answers are read to their end, but only their status counts. In bytes.
const ANSWER_LEN_MAX: usize = 64 * 1024;

/// Asks whether names may have certificates.
pub(super) struct Permission {
    settings: OnDemandSettings,
    /// What is asked, and with which path.
    asked: OnceCell<(Arc<Endpoint>, Uri)>,
}

impl Permission {
    pub(super) fn new(settings: OnDemandSettings) -> Self {
        Self { settings, asked: OnceCell::new() }
    }

    /// Whether `name` may have a certificate: the list has it, and the URL allows it.
    ///
    /// # Errors
    /// Why the URL has not said.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn is_given(&self, name: &str) -> Result<bool, String> {
        if !self.settings.allowed.allows(name) {
            return Ok(false);
        }
        let Some(url) = &self.settings.ask else { return Ok(true) };
        let (endpoint, uri) = self.asked.get_or_try_init(|| prepare(url)).await?;
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = with_name(uri, name)?;
        let limit = self.settings.ask_timeout;
        let answer = exchange(endpoint, request, limit, ANSWER_LEN_MAX).await;
        answer.map(|answer| answer.status().is_success()).map_err(|e| e.to_string())
    }
}

async fn prepare(url: &str) -> Result<(Arc<Endpoint>, Uri), String> {
    let (endpoint, uri) = Endpoint::parse_url(url)?;
    if let Some(tls) = &endpoint.tls {
        let connector = spawn_blocking(|| TlsConnector::new(&ConnectorSettings::default())).await;
        tls.prepare(connector.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?);
    }
    Ok((Arc::new(endpoint), uri))
}

/// With the name in the query. What a name is made of needs no escapes there.
fn with_name(uri: &Uri, name: &str) -> Result<Uri, String> {
    let join = if uri.query().is_some() { '&' } else { '?' };
    format!("{uri}{join}domain={name}").parse().map_err(|e| format!("{uri}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_stands_in_the_query() {
        for (uri, expect) in [("/", "/?domain=a.test"), ("/may?key=1", "/may?key=1&domain=a.test")] {
            assert_eq!(with_name(&uri.parse().unwrap(), "a.test").unwrap(), expect);
        }
    }
}
