//! Names of services, whose SRV records have the servers.

use std::sync::Arc;

use tls_acceptor::ServerName;

use crate::site::endpoint::Endpoint;
use crate::site::server_tls::ServerTls;

/// Checks a backend of an upstream with `resolve = "srv"`. Its certificate is to be valid for the domain of the service: the
/// names of targets come from the DNS, which anybody may have changed (RFC 6125 §6.2.1).
///
/// # Errors
/// A sentence about what is wrong.
pub(super) fn service(endpoint: &mut Endpoint, written: &str) -> Result<(), String> {
    let Some(name) = endpoint.host_name() else { return Ok(()) };
    let example = "such as \"http://_chat._tcp.internal\"";
    let labels: Vec<_> = name.splitn(3, '.').collect();
    let [service, protocol, domain] = labels[..] else {
        return Err(format!(
            "with resolve = \"srv\", expected the name of a service {example}, found {name:?}"
        ));
    };
    if !service.starts_with('_') || !protocol.starts_with('_') {
        return Err(format!(
            "with resolve = \"srv\", expected the name of a service {example}, found {name:?}"
        ));
    }
    let authority = written.split("://").nth(1).unwrap_or(written).split('/').next().unwrap_or_default();
    if authority.contains(':') {
        return Err(format!(
            "with resolve = \"srv\", SRV records have the ports: remove the one in {authority:?}"
        ));
    }
    if let Some(tls) = &endpoint.tls {
        let name = ServerName::parse(domain.trim_end_matches('.'))
            .ok_or_else(|| format!("a certificate can't be valid for {domain:?}"))?;
        endpoint.tls = Some(Arc::new(ServerTls::new(name, tls.settings.clone())));
    }
    Ok(())
}
