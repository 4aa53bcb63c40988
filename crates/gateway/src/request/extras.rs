//! What a route does besides its action: before the action with the request, behind it with the answer.

use std::sync::Arc;

use http::HeaderName;
use http::header::{FORWARDED, HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;

use crate::context::Connection;
use crate::request::coding::Coding;
use crate::request::compress;
use crate::request::cors::{self, Allowed};
use crate::request::facts::Facts;
use crate::request::pages;
use crate::request::reply::{ErrorResponse, Served};
use crate::session::report::Report;
use crate::site::extras::{Extras, Field};
use crate::site::route::{Action, Route};
use crate::upstream::edits::Edits;
use crate::upstream::forward::Hop;

static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is left to do when there is an answer.
#[derive(Debug)]
pub(super) struct Aside {
    route: Arc<Route>,
    facts: Facts,
    allowed: Option<Allowed>,
    /// How the client wants the answer compressed.
    coding: Option<Coding>,
}

impl Aside {
    /// Begins with a request of a route that has extras.
    pub(super) fn begin(
        connection: &Connection,
        route: &Arc<Route>,
        extras: &Extras,
        hop: &Hop<'_>,
        head: &Parts,
        report: &mut Report,
    ) -> Self {
        let facts = Facts::of(connection, route, extras, hop, head);
        if !facts.request_id.is_empty() {
            report.request_id(&facts.request_id);
        }
        let allowed = extras.cors.as_ref().map(|cors| Allowed::judge(cors, &head.headers));
        let coding = extras.compress.as_ref().and_then(|_| compress::wanted(&head.headers, &head.method));
        Self { route: route.clone(), facts, allowed, coding }
    }

    /// The answer to a preflight request; `None` if the request is none.
    ///
    /// # Errors
    /// 403 for an origin that may not.
    pub(super) fn preflight(&self, extras: &Extras, head: &Parts) -> Result<Option<Served>, ErrorResponse> {
        match (&extras.cors, &self.allowed) {
            (Some(cors), Some(allowed)) => cors::preflight(cors, head, allowed),
            _ => Ok(None),
        }
    }

    /// What the backend gets besides or in place of the client's fields.
    pub(super) fn edits<'a>(&self, extras: &'a Extras, hop: &Hop<'_>, head: &Parts) -> Edits<'a> {
        let fields = &extras.request;
        let mut edits = Edits {
            reserved: Some(&fields.about_client),
            remove: fields.edits.remove.iter().collect(),
            put: Vec::new(),
        };
        if fields.forwarded
            && let Some(value) = self.facts.forwarded(hop)
        {
            edits.put.push((false, &FORWARDED, "Forwarded", value.into())); // behind those of trusted proxies
        }
        if fields.forwarded_port
            && !(hop.is_trusted() && head.headers.contains_key(&X_FORWARDED_PORT))
            && let Some(value) = self.facts.port()
        {
            edits.put.push((true, &X_FORWARDED_PORT, "X-Forwarded-Port", value.into()));
        }
        if fields.request_id
            && let Ok(value) = HeaderValue::from_str(&self.facts.request_id)
        {
            edits.put.push((true, &X_REQUEST_ID, "X-Request-Id", value.into()));
        }
        let mut put = |replaces, field: &'a Field| {
            if let Some(value) = self.facts.fill_for_server(&field.value) {
                edits.put.push((replaces, &field.name, &field.spelled, value));
            }
        };
        fields.edits.set.iter().for_each(|field| put(true, field));
        fields.edits.add.iter().for_each(|field| put(false, field));
        edits
    }

    /// Finishes an answer. `is_tls`: the client's connection is encrypted; `wants_json`: the client accepts no page.
    pub(super) fn finish(self, is_tls: bool, wants_json: bool, served: &mut Served) {
        let Some(extras) = &self.route.extras else { return };
        if let (Some(pages), Served::Answer(answer)) = (&extras.pages, &mut *served) {
            let explained =
                matches!(&self.route.action, Action::Respond(fixed) if fixed.body.constant() != Some(""));
            pages::replace(pages, wants_json, explained, answer);
        }
        if let (Some(settings), Served::Answer(answer)) = (&extras.compress, &mut *served) {
            compress::compress(settings, self.coding, answer);
        }
        let headers = match served {
            Served::Answer(answer) => answer.headers_mut(),
            Served::Upgraded(upgraded) => upgraded.answer.headers_mut(),
        };
        if let Some(allowed) = self.allowed {
            allowed.write_to(headers);
        }
        edit(extras, &self.facts, is_tls, headers);
    }
}

fn edit(extras: &Extras, facts: &Facts, is_tls: bool, headers: &mut HeaderMap) {
    let edits = &extras.response;
    for name in &edits.remove {
        headers.remove(name);
    }
    // RFC 6797 §7.2: not over connections without encryption.
    let may_be_sent = |field: &&Field| is_tls || field.name != STRICT_TRANSPORT_SECURITY;
    for field in edits.set.iter().filter(may_be_sent) {
        if let Some(value) = facts.fill(&field.value) {
            headers.insert(field.name.clone(), value);
        }
    }
    for field in edits.add.iter().filter(may_be_sent) {
        if let Some(value) = facts.fill(&field.value) {
            headers.append(field.name.clone(), value);
        }
    }
}
