//! `[route.tls]`: TLS towards backends.

use std::sync::Arc;

use tls_acceptor::{ClientCertificate, ConnectorSettings};

use super::document::Document;
use super::kind::{self, List, Options, Table};
use super::option::options;
use super::spec::At;
use crate::site::server::Server;
use crate::site::server_tls::ServerTls;

options! {
    /// TLS towards the backend of the route above it, whose address begins with `https://` or `wss://`.
    struct TlsOptions: "[route.tls]";

    /// Files with certificates of authorities: the backend's certificate has to be issued by one of them.
    ca: List<kind::File>, otherwise = "the authorities that the system trusts";
    /// The name that is asked for, and that the backend's certificate has to be valid for.
    server_name: kind::TlsName, otherwise = "the host in the address";
    /// The certificate of the gateway, for backends that ask for one.
    client_certificate: Table<ClientCertificateOptions>, optional;
}

options! {
    /// The certificate that the gateway shows to backends.
    struct ClientCertificateOptions: "[route.tls.client_certificate]";

    /// The file with the certificate, and behind it those that issued it.
    chain: kind::File, required = "\"gateway.pem\"";
    /// The file with its private key.
    key: kind::File, required = "\"gateway.key\"";
}

/// Gives the backends the settings of a section.
pub(super) fn apply(d: &mut Document<'_>, section: TlsOptions, servers: &mut [Server]) {
    let place = section.written().place;
    if servers.iter().all(|server| server.endpoint.tls.is_none()) {
        d.problem(
            place,
            "tls: the backend's address has no TLS: write https:// in proxy, or remove this section",
        );
        return;
    }
    if let Some(At { value, place }) = &section.ca
        && value.is_empty()
    {
        d.problem(
            *place,
            "ca: an empty list would trust no backend; leave it out for the system's authorities",
        );
    }
    let client_certificate = section.client_certificate.and_then(|At { value, .. }| {
        let (chain, key) = value.chain.zip(value.key)?;
        Some(ClientCertificate { chain: chain.value, key: key.value })
    });
    let settings = ConnectorSettings {
        authorities: section.ca.map_or_else(Vec::new, |at| at.value),
        client_certificate,
    };
    for server in servers {
        let endpoint = Arc::make_mut(&mut server.endpoint);
        let Some(old) = &endpoint.tls else { continue };
        let name = section.server_name.as_ref().map_or_else(|| old.name.clone(), |at| at.value.clone());
        let mut tls = ServerTls::new(name, settings.clone());
        tls.written_at = (place.line, place.column);
        endpoint.tls = Some(Arc::new(tls));
    }
}
