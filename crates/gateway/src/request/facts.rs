//! What is known of a request, as fields of a route put it in. Gathered only for routes that have such fields.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::request::Parts;
use tls_acceptor::PeerCertificate;

use crate::context::{Connection, Tls};
use crate::net::listening::UNIX_PEER;
use crate::site::extras::Extras;
use crate::site::route::Route;
use crate::site::template::{Placeholder, Template};
use crate::upstream::edits::EditValue;
use crate::upstream::forward::Hop;

const X_REQUEST_ID: &str = "x-request-id";
/// The longest id of a trusted proxy that is kept.
const ID_LEN_MAX: usize = 128;

/// The client's certificate, as fields have it.
#[derive(Debug, Default)]
struct CertificateTexts {
    subject: Box<str>,
    fingerprint: Box<str>,
    whole: Box<str>,
}

impl CertificateTexts {
    fn of(certificate: &PeerCertificate, extras: &Extras) -> Self {
        let text = |wanted, text: &str| if extras.uses(wanted) { text.into() } else { Box::default() };
        let whole = match extras.uses(Placeholder::Certificate) {
            // RFC 9440 §2.1: a byte sequence of RFC 8941 §3.3.5.
            true => format!(":{}:", STANDARD.encode(&certificate.der)).into(),
            false => Box::default(),
        };
        Self {
            subject: text(Placeholder::CertificateSubject, &certificate.subject),
            fingerprint: certificate.fingerprint.clone(), // also the sign that there is one
            whole,
        }
    }
}

/// What is known of a request.
#[derive(Debug)]
pub(super) struct Facts {
    client: IpAddr,
    /// Empty if the request names none.
    host: Box<str>,
    port: Box<str>,
    path: Box<str>,
    /// With its `?`.
    query: Box<str>,
    rest: Box<str>,
    method: Box<str>,
    scheme: &'static str,
    server_name: Box<str>,
    tls_version: &'static str,
    /// Empty if the client has shown none, or the route has no use for it.
    certificate: CertificateTexts,
    /// Empty if the route has no use for it.
    pub request_id: Box<str>,
}

impl Facts {
    /// Gathers them.
    pub(super) fn of(
        connection: &Connection,
        route: &Route,
        extras: &Extras,
        hop: &Hop<'_>,
        head: &Parts,
    ) -> Self {
        let path = match head.uri.path() {
            "*" => "/",
            path => path,
        };
        let tls = connection.tls.as_ref();
        let rest = route.matcher.path.prefix().map_or("", |prefix| prefix.rest_of(path));
        let wants_id = extras.request.request_id || extras.uses(Placeholder::RequestId);
        Self {
            client: hop.client(&head.headers).to_canonical(),
            host: (&*hop.host.name).into(),
            port: port(hop).into(),
            path: path.into(),
            query: head.uri.query().map(|query| format!("?{query}")).unwrap_or_default().into(),
            rest: rest.into(),
            method: head.method.as_str().into(),
            scheme: if hop.tls { "https" } else { "http" },
            server_name: tls.and_then(|tls| tls.server_name.clone()).unwrap_or_default(),
            tls_version: tls.map_or("", |tls| tls.version),
            certificate: match tls.and_then(Tls::certificate) {
                Some(certificate) => CertificateTexts::of(certificate, extras),
                None => CertificateTexts::default(),
            },
            request_id: if wants_id { request_id(hop, head) } else { Box::default() },
        }
    }

    /// A field for a server, whose name is not known yet; `None` if that is no value.
    pub(super) fn fill_for_server(&self, template: &Template) -> Option<EditValue> {
        if !template.contains(Placeholder::Upstream) {
            return self.fill(template).map(EditValue::Whole);
        }
        if self.lacks(template) {
            return None;
        }
        let parts = template.split(Placeholder::Upstream);
        Some(EditValue::AroundServer(parts.iter().map(|part| self.text(part)).collect()))
    }

    /// A field's value with what is known in its place; `None` if that is no value, or would be one about a
    /// certificate that there isn't (RFC 9440 §2.2).
    pub(super) fn fill(&self, template: &Template) -> Option<HeaderValue> {
        if let Some(text) = template.constant() {
            return HeaderValue::from_str(text).ok();
        }
        if self.lacks(template) {
            return None;
        }
        HeaderValue::try_from(self.text(template)).ok()
    }

    /// It would be about a certificate that there isn't.
    fn lacks(&self, template: &Template) -> bool {
        template.is_about_client() && self.certificate.fingerprint.is_empty()
    }

    fn text(&self, template: &Template) -> String {
        let client = self.client.to_string();
        template.fill(|placeholder| match placeholder {
            Placeholder::Client => &client,
            Placeholder::Host => &self.host,
            Placeholder::Port => &self.port,
            Placeholder::Path => &self.path,
            Placeholder::Query => &self.query,
            Placeholder::Rest => &self.rest,
            Placeholder::Method => &self.method,
            Placeholder::Scheme => self.scheme,
            Placeholder::ServerName => &self.server_name,
            Placeholder::TlsVersion => self.tls_version,
            Placeholder::CertificateSubject => &self.certificate.subject,
            Placeholder::CertificateFingerprint => &self.certificate.fingerprint,
            Placeholder::Certificate => &self.certificate.whole,
            Placeholder::RequestId => &self.request_id,
            // Its value is put in for each server; the others are not in OF_FIELD.
            Placeholder::Upstream | Placeholder::Group(_) => "",
        })
    }

    /// The port that the client asked for.
    pub(super) fn port(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.port).ok()
    }

    /// An element of Forwarded (RFC 7239 §4); a host with a port has to be quoted.
    pub(super) fn forwarded(&self, hop: &Hop<'_>) -> Option<HeaderValue> {
        let node = match hop.peer.to_canonical() {
            UNIX_PEER => "unknown".to_owned(), // §6.2
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("\"[{ip}]\""), // §6.1
        };
        let host = hop.host.field.to_str().unwrap_or_default();
        let host = if host.is_empty() { String::new() } else { format!(";host=\"{host}\"") };
        HeaderValue::try_from(format!("for={node}{host};proto={}", self.scheme)).ok()
    }
}

fn port<'a>(hop: &Hop<'a>) -> &'a str {
    let field = hop.host.field.to_str().unwrap_or_default();
    let port =
        field.rsplit_once(':').map(|(_, port)| port).filter(|port| port.bytes().all(|b| b.is_ascii_digit()));
    match port {
        Some(port) if !port.is_empty() => port,
        _ if hop.tls => "443",
        _ => "80",
    }
}

/// That of a trusted proxy, or a new one.
fn request_id(hop: &Hop<'_>, head: &Parts) -> Box<str> {
    let mut sent = head.headers.get_all(X_REQUEST_ID).into_iter();
    let only = sent.next().filter(|_| sent.next().is_none() && hop.is_trusted());
    let is_good = |id: &&str| {
        (1..=ID_LEN_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    match only.and_then(|id| id.to_str().ok()).filter(is_good) {
        Some(id) => id.into(),
        None => format!("{:032x}", rand::random::<u128>()).into(),
    }
}
