//! The URL of a server that the gateway itself asks: for an authorization, for keys.

use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;
use tls_acceptor::ConnectorSettings;

use super::document::Document;
use super::spec::At;
use crate::site::endpoint::Endpoint;
use crate::site::server_tls::ServerTls;

/// The server of a URL, which is trusted by these authorities, or by those of the system, and the path.
pub(super) fn read(
    d: &mut Document<'_>,
    key: &str,
    url: &At<String>,
    authorities: Option<&At<Vec<PathBuf>>>,
) -> Option<(Arc<Endpoint>, Uri)> {
    let At { value: url, place } = url;
    let (mut endpoint, uri) =
        Endpoint::parse_url(url).map_err(|what| d.problem(*place, format!("{key}: {what}"))).ok()?;
    d.server(&endpoint, *place);
    match (&endpoint.tls, authorities) {
        (None, Some(At { place, .. })) => {
            d.problem(*place, "ca: the address has no TLS: write https:// there, or remove it");
        }
        (Some(_), Some(At { value, place })) if value.is_empty() => {
            d.problem(
                *place,
                "ca: an empty list would trust no server; leave it out for the system's authorities",
            );
        }
        _ => {}
    }
    if let Some(tls) = &endpoint.tls {
        let authorities = authorities.map(|at| at.value.clone()).unwrap_or_default();
        let settings = ConnectorSettings { authorities, ..tls.settings.clone() };
        let mut tls = ServerTls::new(tls.name.clone(), settings);
        tls.written_at = *place;
        endpoint.tls = Some(Arc::new(tls));
    }
    Some((Arc::new(endpoint), uri))
}
