//! What is known of a session, on its way to another process.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, Version};
use net_io::state::{StateError, StateReader, StateWriter};
use tls_acceptor::{ClientRules, Negotiated};
use tokio::time::Instant;

use super::Report;
use crate::context::identity::Identity;
use crate::context::quotas::{ConnectionSlot, SessionPlace};
use crate::context::{Connection, Redirect, Tls, TlsClient, Worker};
use crate::net::limits::ClientLimits;
use crate::site::endpoint::Endpoint;
use crate::site::route::Route;
use crate::site::server::Assignment;
use crate::telemetry::record::ServerTimes;
use crate::upstream::body::UploadProgress;

/// Of the connection of a moved session, which reads no more requests.
static NO_REQUESTS: LazyLock<Arc<ClientLimits>> = LazyLock::new(|| ClientLimits::DEFAULT.into());

/// How a session counts as one of its client's: by this value of a field, or by its address.
#[derive(Debug, Default)]
pub(in crate::session) struct CountedBy(Option<HeaderValue>);

impl Report {
    /// Writes what is known of a session. Another process writes its line in the log: this one writes none.
    pub(in crate::session) fn leave(mut self, out: &mut StateWriter) {
        self.written = true;
        let Self {
            connection,
            started,
            generation,
            method,
            version,
            path,
            client,
            host,
            route: _, // the session's
            server,
            status,
            cause,
            request_id,
            upgrade,
            received,
            is_over_http2: _, // such a session stays
            id: _,            // the session's
            is_session: _,
            written: _,
            is_omitted: _, // not a session
            place,
            identity,
            redials: _, // the session's
            limit: _,   // of one that has ended
            times,
            compression: _, // as the session has it
        } = &self;
        let Connection {
            peer,
            local,
            tls,
            limits: _,   // of requests
            redirect: _, // of requests
            worker: _,
            listener,
            slot: _, // one in each process
            own: _,  // what is left of it serves no more requests
        } = &**connection;
        out.section(|out| {
            out.bytes(peer.to_string().as_bytes());
            out.bytes(local.to_string().as_bytes());
            out.bytes(listener.as_bytes());
            out.option(tls.as_ref(), |out, tls| {
                let Tls { server_name, version, negotiated: _, client: _ } = tls; // below
                out.bytes(version.as_bytes());
                out.option(server_name.as_deref(), |out, name| out.bytes(name.as_bytes()));
            });
            out.duration(started.elapsed());
            out.u64(*generation);
            out.bytes(method.as_str().as_bytes());
            out.u8(match *version {
                Version::HTTP_10 => 10,
                Version::HTTP_2 => 20,
                _ => 11,
            });
            out.bytes(path.as_bytes());
            out.bytes(client.to_string().as_bytes());
            out.option(host.as_deref(), |out, host| out.bytes(host.as_bytes()));
            out.option(server.as_ref(), |out, server| out.bytes(server.endpoint().url().as_bytes()));
            out.option(*status, |out, status| out.u16(status.as_u16()));
            out.option(cause.as_deref(), |out, cause| out.bytes(cause.as_bytes()));
            out.option(request_id.as_deref(), |out, id| out.bytes(id.as_bytes()));
            out.bool(place.is_some());
            out.option(identity.as_deref(), |out, identity| identity.write_state(out));
            let value = place.as_deref().and_then(SessionPlace::value);
            out.option(value, |out, value| out.bytes(value.as_bytes()));
            out.option(upgrade.as_deref(), |out, protocol| out.bytes(protocol.as_bytes()));
            out.option(received.as_deref(), |out, progress| out.u64(progress.bytes()));
            out.option(self.client_rules(), |out, rules| out.array(&rules.to_bytes()));
            let negotiated = tls.as_ref().and_then(|tls| tls.negotiated);
            out.option(negotiated, |out, negotiated| out.array(&negotiated.to_bytes()));
            let ServerTimes { connect_us, answer_us } = *times;
            for time in [connect_us, answer_us] {
                out.u32(time.map_or(0, NonZeroU32::get));
            }
        });
    }

    /// What [`Self::leave`] wrote, and how the session counts as one of its client's. It writes no line in the log
    /// before [`Self::opened`] is called.
    ///
    /// # Errors
    /// If it is not what that writes.
    pub(in crate::session) fn arrive(
        fields: &mut StateReader<'_>,
        worker: &Arc<Worker>,
    ) -> Result<(Box<Self>, Option<CountedBy>), StateError> {
        let mut fields = fields.section()?;
        let peer = parse(fields.text()?, "an address")?;
        let local = parse(fields.text()?, "an address")?;
        let listener = fields.text()?.into();
        let tls = fields.option(|fields| {
            let version = match fields.text()? {
                "TLSv1.2" => "TLSv1.2",
                "TLSv1.3" => "TLSv1.3",
                _ => return Err(StateError::Invalid("a version of TLS")),
            };
            Ok(Tls {
                version,
                server_name: fields.option(StateReader::text)?.map(Into::into),
                negotiated: None,
                client: None,
            })
        })?;
        let age = fields.duration()?;
        let mut report = Box::new(Self {
            connection: Arc::new(Connection {
                peer,
                local,
                tls,
                limits: NO_REQUESTS.clone(),
                redirect: Redirect::No,
                worker: worker.clone(),
                slot: ConnectionSlot::new(&worker.quotas), // it has its place already
                listener,
                own: OnceLock::new(),
            }),
            started: before(age),
            generation: fields.u64()?,
            method: Method::from_bytes(fields.bytes()?).map_err(|_| StateError::Invalid("a method"))?,
            version: match fields.u8()? {
                10 => Version::HTTP_10,
                11 => Version::HTTP_11,
                20 => Version::HTTP_2,
                _ => return Err(StateError::Invalid("a version of HTTP")),
            },
            path: fields.text()?.into(),
            client: parse(fields.text()?, "an address")?,
            host: fields.option(StateReader::text)?.map(Into::into),
            route: None,
            upgrade: None,
            server: fields.option(endpoint)?.map(Assignment::elsewhere),
            status: fields
                .option(StateReader::u16)?
                .map(|code| StatusCode::from_u16(code).map_err(|_| StateError::Invalid("a status")))
                .transpose()?,
            cause: fields.option(StateReader::text)?.map(Into::into),
            request_id: fields.option(StateReader::text)?.map(Into::into),
            received: None,
            is_over_http2: false,
            id: None,
            is_session: false,
            written: true,
            is_omitted: false,
            place: None,
            identity: None,
            redials: None,
            limit: None,
            times: ServerTimes::default(),
            compression: None,
        });
        worker.under_way.began(report.version == Version::HTTP_2);
        let mut counts = fields.bool()?.then(CountedBy::default);
        if !fields.is_at_end() {
            report.identity = fields.option(Identity::read_state)?.map(Arc::new);
        }
        if !fields.is_at_end() {
            let value = fields.option(|fields| {
                HeaderValue::from_bytes(fields.bytes()?)
                    .map_err(|_| StateError::Invalid("the value of a field"))
            })?;
            counts = counts.map(|_| CountedBy(value));
        }
        if !fields.is_at_end() {
            report.upgrade = fields.option(StateReader::text)?.map(Into::into);
            report.received = fields.option(StateReader::u64)?.map(UploadProgress::ended);
        }
        if !fields.is_at_end() {
            let rules = fields.option(|fields| Ok(ClientRules::from_bytes(fields.array()?)))?;
            // What it has shown is of requests: the identity has the subject and the end of it.
            let client = rules.map(|rules| Box::new(TlsClient { rules, certificate: None }));
            if let Some(tls) = Arc::get_mut(&mut report.connection).and_then(|alone| alone.tls.as_mut()) {
                tls.client = client;
            }
        }
        if !fields.is_at_end() {
            let negotiated = fields.option(|fields| {
                Negotiated::from_bytes(fields.array()?)
                    .ok_or(StateError::Invalid("what a TLS handshake has agreed upon"))
            })?;
            if let Some(tls) = Arc::get_mut(&mut report.connection).and_then(|alone| alone.tls.as_mut()) {
                tls.negotiated = negotiated;
            }
            let [connect_us, answer_us] = [fields.u32()?, fields.u32()?].map(NonZeroU32::new);
            report.times = ServerTimes { connect_us, answer_us };
        }
        Ok((report, counts))
    }

    /// The session has this route, and counts at its server from now on.
    pub(in crate::session) fn return_to(&mut self, route: &Arc<Route>) {
        self.routed(route);
        if let (Some(upstream), Some(old)) = (route.action.upstream(), &self.server)
            && let Some(server) = upstream.adopt(old.endpoint())
        {
            self.server = Some(server);
        }
    }

    /// The session has this id; `counts`: as one of its client's, too many or not.
    pub(in crate::session) fn settle(&mut self, id: u64, route: &Arc<Route>, counts: Option<CountedBy>) {
        self.registered(id);
        if let (Some(access), Some(CountedBy(value))) = (&route.access, counts) {
            let quotas = &self.connection.worker.quotas;
            let headers = access.per.headers(value.clone());
            let client = quotas.client(route, &access.per, self.client, &headers, self.subject());
            self.place = quotas.session(client, u32::MAX).map(|place| Box::new(place.of_value(value)));
        }
    }

    /// As if the handshake had agreed upon this.
    #[cfg(test)]
    pub(in crate::session) fn negotiate_for_test(&mut self, negotiated: Negotiated) {
        let connection = Arc::get_mut(&mut self.connection).unwrap();
        connection.tls.as_mut().unwrap().negotiated = Some(negotiated);
    }

    /// Its line says who its client is, and it ends when that is no longer valid: an earlier release would not do it.
    pub(in crate::session) fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// What its client had to show.
    pub(in crate::session) fn client_rules(&self) -> Option<ClientRules> {
        Some(self.connection.tls.as_ref()?.client.as_ref()?.rules)
    }

    /// The worker that it lives on.
    pub(in crate::session) fn worker(&self) -> &Arc<Worker> {
        &self.connection.worker
    }
}

/// The moment so long ago; now, if the machine is younger than that.
fn before(age: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(age).unwrap_or(now)
}

fn parse<T: FromStr>(text: &str, what: &'static str) -> Result<T, StateError> {
    text.parse().map_err(|_| StateError::Invalid(what))
}

fn endpoint(fields: &mut StateReader<'_>) -> Result<Endpoint, StateError> {
    let (endpoint, _) =
        Endpoint::parse(fields.text()?).map_err(|_| StateError::Invalid("the address of a server"))?;
    Ok(endpoint)
}
