//! `[certificates]` and `[[certificate]]`: where the certificates are.

use tls_acceptor::{ClientAuthFiles, Named, Plan};

use super::acme_settings::AcmeSettings;
use super::document::Document;
use super::kind::{self, List, Options, Table};
use super::model::{CertificatePlaces, NamedPlaces};
use super::option::options;
use super::problem::FIRST_LINE;
use super::rules;
use super::spec::At;

options! {
    /// Certificates of a directory. Their names are read from the certificates.
    struct CertificatesOptions: "[certificates]";

    /// Every chain and key in this directory and below it is used.
    directory: kind::File, optional;
    /// The name whose certificate is sent to clients that send no server name or an unknown one. Without it they
    /// are refused.
    default: kind::CertificateName, optional;
    /// Whether changed certificate files are picked up without a signal.
    watch: kind::Boolean, otherwise = "`true` with a `directory` or with `[acme]`, else `false`";
}

options! {
    /// One certificate, beside those of the directory or instead of them.
    struct CertificateOptions: "[[certificate]]";

    /// The certificate and its issuers in PEM, in one file or in several.
    chain: List<kind::File>, required = "\"/etc/ssl/domain.com/fullchain.pem\"";
    /// The private key in PEM.
    key: kind::File, required = "\"/etc/ssl/domain.com/privkey.pem\"";
    /// The certificates that clients of its names show, `{ ca = "clients.pem" }`.
    client_auth: Table<ClientAuthOptions>, optional;
}

options! {
    /// The certificates that clients show who ask for a name of the certificate above. Clients of other names are not
    /// asked. The rules belong to the names, whichever certificate answers for them. A connection is for hosts with the
    /// same rules: a request for another one gets 421, and so does one in plain text for a host that requires
    /// certificates.
    struct ClientAuthOptions: "[certificate.client_auth]";

    /// Files with certificates of authorities: a client's certificate has to be issued by one of them.
    ca: List<kind::File>, required = "\"clients.pem\"";
    /// Whether clients without a certificate are refused. Those with one that is not valid are refused in any case.
    required: kind::Boolean, default = true;
    /// Files with revocation lists, in PEM or DER. With one, each issuer of a client's certificate needs a list that has
    /// not expired. They are judged when a connection begins.
    crl: List<kind::File>, optional;
}

/// Also: whether their files are watched.
pub(super) fn read(
    d: &mut Document<'_>,
    section: Option<CertificatesOptions>,
    named: Vec<CertificateOptions>,
    acme: Option<&AcmeSettings>,
) -> (Plan, bool, CertificatePlaces) {
    let awaited = acme.map(AcmeSettings::awaited).unwrap_or_default();
    let on_demand = acme.filter(|acme| acme.on_demand.is_some()).map(AcmeSettings::on_demand_directory);
    let mut plan = Plan { awaited, on_demand, ..Plan::default() };
    let mut places = CertificatePlaces { section: FIRST_LINE, ..CertificatePlaces::default() };
    let mut watch = None;
    if let Some(section) = section {
        places.section = section.written().place;
        let watch_at = section.place_of("watch");
        (places.directory, places.default) = (section.place_of("directory"), section.place_of("default"));
        plan.directory = section.directory.map(|at| at.value);
        plan.default = section.default.map(|at| at.value);
        watch = section.watch.map(|at| at.value);
        if watch == Some(false) && acme.is_some() {
            d.problem(
                watch_at,
                "watch: certificates of [acme] come while the gateway runs; write true, or remove it",
            );
        }
    }
    for section in named {
        let (Some(chain), Some(key)) = (section.chain, section.key) else { continue };
        if let Some(what) = rules::chain(&chain.value) {
            d.problem(chain.place, what);
        }
        let At { value, place } = key;
        let auth_place = section.client_auth.as_ref().map_or(place, |at| at.place);
        let client_auth = section.client_auth.and_then(|at| {
            let ca = at.value.ca?;
            if ca.value.is_empty() {
                d.problem(
                    ca.place,
                    "ca: an empty list would refuse every client; write a file with authorities",
                );
            }
            Some(ClientAuthFiles {
                authorities: ca.value,
                revocation_lists: at.value.crl.map_or_else(Vec::new, |at| at.value),
                required: at.value.required.value,
            })
        });
        places.named.push(NamedPlaces { chain: chain.place, key: place, client_auth: auth_place });
        plan.named.push(Named { chain: chain.value, key: value, client_auth });
    }
    // Certificates that are named one by one are often replaced one by one, and are then read when a signal says so.
    let watch = watch.unwrap_or(plan.directory.is_some() || acme.is_some());
    (plan, watch, places)
}
