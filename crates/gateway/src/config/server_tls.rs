//! `[route.tls]` and `[upstream.tls]`: TLS towards backends.

use std::path::PathBuf;
use std::sync::Arc;

use tls_acceptor::{ClientCertificate, ConnectorSettings, ServerName};

use super::document::Document;
use super::kind::{self, List, Options, Table};
use super::option::options;
use super::problem::Place;
use super::spec::At;
use crate::site::server::Server;
use crate::site::server_tls::ServerTls;

/// What TLS towards backends needs, wherever it is written.
pub(super) struct BackendTls {
    place: Place,
    authorities: Option<At<Vec<PathBuf>>>,
    server_name: Option<At<ServerName>>,
    client_certificate: Option<ClientCertificate>,
}

/// Declares a section for TLS towards backends, and the section in it.
macro_rules! tls_options {
    ($name:ident: $section:expr, $certificate:ident: $certificate_section:expr, $about:literal) => {
        options! {
            #[doc = $about]
            struct $name: $section;

            /// Files with certificates of authorities: the backend's certificate has to be issued by one of them.
            ca: List<kind::File>, otherwise = "the authorities that the system trusts";
            /// The name that is asked for, and that the backend's certificate has to be valid for.
            server_name: kind::TlsName, otherwise = "the host in the address";
            /// The certificate of the gateway, for backends that ask for one.
            client_certificate: Table<$certificate>, optional;
        }

        options! {
            /// The certificate that the gateway shows to backends.
            struct $certificate: $certificate_section;

            /// The file with the certificate, and behind it those that issued it.
            chain: kind::File, required = "\"gateway.pem\"";
            /// The file with its private key.
            key: kind::File, required = "\"gateway.key\"";
        }

        impl From<$name> for BackendTls {
            fn from(section: $name) -> Self {
                Self {
                    place: section.written().place,
                    authorities: section.ca,
                    server_name: section.server_name,
                    client_certificate: section.client_certificate.and_then(|At { value, .. }| {
                        let (chain, key) = value.chain.zip(value.key)?;
                        Some(ClientCertificate { chain: chain.value, key: key.value })
                    }),
                }
            }
        }
    };
}

tls_options!(
    TlsOptions: "[route.tls]", ClientCertificateOptions: "[route.tls.client_certificate]",
    "TLS towards the backend of the route above it, whose address begins with `https://` or `wss://`."
);

tls_options!(
    UpstreamTlsOptions: "[upstream.tls]", UpstreamCertificateOptions: "[upstream.tls.client_certificate]",
    "TLS towards the backends of the upstream above it whose addresses begin with `https://` or `wss://`."
);

/// Gives the backends the settings of a section.
pub(super) fn apply(d: &mut Document<'_>, tls: impl Into<BackendTls>, servers: &mut [Server]) {
    let BackendTls { place, authorities, server_name, client_certificate } = tls.into();
    if servers.iter().all(|server| server.endpoint.tls.is_none()) {
        d.problem(
            place,
            "tls: no address of a backend has TLS: write https:// there, or remove this section",
        );
        return;
    }
    if let Some(At { value, place }) = &authorities
        && value.is_empty()
    {
        d.problem(
            *place,
            "ca: an empty list would trust no backend; leave it out for the system's authorities",
        );
    }
    let settings = ConnectorSettings {
        authorities: authorities.map_or_else(Vec::new, |at| at.value),
        client_certificate,
    };
    for server in servers {
        let endpoint = Arc::make_mut(&mut server.endpoint);
        let Some(old) = &endpoint.tls else { continue };
        if old.written_at != Place::default() {
            d.problem(place, "tls: the upstream has [upstream.tls] already; keep one of the two");
            return;
        }
        let name = server_name.as_ref().map_or_else(|| old.name.clone(), |at| at.value.clone());
        let mut tls = ServerTls::new(name, settings.clone());
        tls.written_at = place;
        endpoint.tls = Some(Arc::new(tls));
    }
}
