//! A session on its way from one process to another: its sockets, and a record of everything else.
//!
//! ```text
//! take_apart   a session that has frozen -> sockets + record     in the old process
//! put_together sockets + record -> a session that can go on      in the new one; or in the old one, if it stays
//! ```
//!
//! The record has the format of [`net_io::state`]. It is made of values that are taken apart field by field, so that a
//! new field doesn't compile until it is in the record, or is said not to be.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frame_core::deflated::Deflating;
use frame_core::endpoint::EndpointState;
use frame_core::endpoint::bridge::BridgeState;
use frame_core::metered::Meter;
use frame_core::opaque::OpaqueState;
use frame_core::relay::RelayState;
use net_io::state::{StateError, StateReader, StateWriter};
use net_io::{Tcp, Unix};
use tls_acceptor::{TlsState, TlsStream};
use upgrade_handler::Handoff;
use zeroize::Zeroizing;

use super::redial::{ReadRedialer, Redialled, StillRedial};
use super::report::Report;
use crate::context::Worker;
use crate::context::redial::SessionRedial;
use crate::context::registry::{Registered, SessionOpener};
use crate::context::transit::{FrozenSession, machine_time};
use crate::net::stream::Stream;
use crate::site::endpoint::Endpoint;
use crate::site::route::Route;
use crate::site::route_id::RouteId;
use crate::telemetry::record::Compressed;
use crate::upstream::stream::BackendStream;

/// What this release knows. Raised with each field that is added.
pub(crate) const VERSION: u8 = 10;
/// The least version that understands what this release writes.
const NEEDS: u8 = 1;
/// The same for a session that has to end when its client's identity is no longer valid.
const NEEDS_IDENTITY: u8 = 2;
/// The same for a session whose messages or bytes are counted: without that, bytes of the client would be lost.
const NEEDS_METER: u8 = 4;
/// The same for a session that is no relay between two WebSockets.
const NEEDS_KIND: u8 = 5;
/// The same for a session that asks other servers, if its client is judged by a certificate before.
const NEEDS_RULES: u8 = 6;
/// The same for a session whose messages the gateway compresses: without that, its client would not be understood.
const NEEDS_DEFLATING: u8 = 9;

/// Why a session can't be moved, or put together again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    /// Its record is not one, or is of a release that is too new.
    #[error("{0}")]
    State(#[from] StateError),
    /// A socket.
    #[error("a socket of the session: {0}")]
    Socket(#[from] io::Error),
}

/// What a socket is wrapped in; numbers of the format.
const PLAIN: u8 = 0;
const TLS: u8 = 1;
const UNIX: u8 = 2;
/// There is no server's connection. In its place the client's socket goes twice, so that every session has two.
const NONE: u8 = 3;

/// What a session is; numbers of the format.
const RELAY: u8 = 0;
const ECHO: u8 = 1;
const BRIDGE: u8 = 2;
const OPAQUE: u8 = 3;
const REDIAL: u8 = 4;

/// A session that has frozen, and that no task runs. When it is dropped, its sockets are closed, and nothing else
/// happens: another process may have them, too.
#[derive(Debug)]
pub(crate) struct StillSession {
    pub(super) report: Box<Report>,
    pub(super) registered: Registered,
    pub(super) route: Arc<Route>,
    /// The extension was agreed upon with its server.
    pub(super) deflate: bool,
    pub(super) client: Handoff<Stream>,
    pub(super) still: Still,
    /// What counts the client's messages or bytes.
    pub(super) meter: Option<Box<Meter>>,
    /// What compresses the session's messages.
    pub(super) deflating: Option<Box<Deflating>>,
}

/// What is at the other end of a session that has frozen, and how far the session has come.
#[derive(Debug)]
pub(super) enum Still {
    /// A WebSocket server.
    Relay(Handoff<BackendStream>, Box<RelayState>),
    /// The gateway itself.
    Echo(Box<EndpointState>),
    /// A server behind `tcp://`.
    Tcp(BackendStream, Box<BridgeState>),
    /// A server that speaks another protocol.
    Opaque(Handoff<BackendStream>, Box<OpaqueState>),
    /// One WebSocket server after the other.
    Redial(Box<StillRedial>),
}

/// Where the route of a session has to lead.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leads<'a> {
    /// To this server.
    Server(&'a Endpoint),
    /// To servers that are replaced when they are lost.
    Servers,
    /// To the echo service.
    Echo,
}

impl Still {
    fn kind(&self) -> u8 {
        match self {
            Self::Relay(..) => RELAY,
            Self::Echo(_) => ECHO,
            Self::Tcp(..) => BRIDGE,
            Self::Opaque(..) => OPAQUE,
            Self::Redial(_) => REDIAL,
        }
    }

    /// Whether it outlives its servers, for the registry.
    fn redial(&self) -> SessionRedial {
        match self {
            Self::Redial(still) => SessionRedial::On(still.status.clone()),
            _ => SessionRedial::Off,
        }
    }

    /// The connection to the server, and the state.
    fn into_parts(self) -> (Option<Handoff<BackendStream>>, Zeroizing<Vec<u8>>) {
        match self {
            Self::Relay(backend, state) => (Some(backend), state.encode()),
            Self::Echo(state) => (None, state.encode()),
            Self::Tcp(backend, state) => (Some(Handoff::new(backend, Bytes::new())), state.encode()),
            Self::Opaque(backend, state) => (Some(backend), state.encode()),
            Self::Redial(still) => still.into_parts(),
        }
    }

    /// What [`Self::into_parts`] gave of a session of this kind.
    fn from_parts(
        kind: u8,
        backend: Option<Handoff<BackendStream>>,
        state: &[u8],
        session: &Redialled<'_>,
        read_redialer: ReadRedialer,
    ) -> Result<Self, StateError> {
        Ok(match (kind, backend) {
            (REDIAL, backend) => {
                Self::Redial(Box::new(StillRedial::from_parts(backend, state, session, read_redialer)?))
            }
            (RELAY, Some(backend)) => Self::Relay(backend, RelayState::decode(state)?),
            (ECHO, None) => Self::Echo(EndpointState::decode(state)?),
            (BRIDGE, Some(backend)) => Self::Tcp(backend.into_parts().0, BridgeState::decode(state)?),
            (OPAQUE, Some(backend)) => Self::Opaque(backend, OpaqueState::decode(state)?),
            _ => return Err(StateError::Invalid("the kind of a session")),
        })
    }
}

/// Takes a session apart. Nothing is written to its sockets, nor are they shut down.
///
/// # Errors
/// If a socket is lost by it, or the TLS stream can't be written down. The session is gone then.
pub(super) fn take_apart(session: StillSession) -> Result<FrozenSession, MoveError> {
    let StillSession { report, registered, route, deflate, client, still, meter, deflating } = session;
    let session_kind = still.kind();
    let mut out = StateWriter::new(match (session_kind, &meter, report.has_identity()) {
        _ if deflating.is_some() => NEEDS_DEFLATING,
        (RELAY, None, false) => NEEDS,
        (RELAY, None, true) => NEEDS_IDENTITY,
        (RELAY, Some(_), _) => NEEDS_METER,
        (REDIAL, ..) if report.client_rules().is_some() => NEEDS_RULES,
        _ => NEEDS_KIND,
    });
    out.duration(machine_time());
    out.u64(registered.id());
    out.bytes(route.id.as_str().as_bytes());
    out.u64(route.id.fields());
    out.bool(deflate);
    let task = report.worker().tasks.token();
    report.leave(&mut out);
    let client = write_client(&mut out, client)?;
    let (backend, state) = still.into_parts();
    let backend = match backend {
        Some(backend) => write_backend(&mut out, session_kind, backend)?,
        None => {
            write_stream(&mut out, NONE, &[], &[], session_kind);
            client.try_clone()?
        }
    };
    out.bytes(&state);
    out.option(meter, |out, meter| meter.write_state(out));
    out.option(deflating, |out, deflating| deflating.write_state(out));
    Ok(FrozenSession { sockets: [client, backend], state: out.finish(), registered, task })
}

fn write_client(out: &mut StateWriter, client: Handoff<Stream>) -> Result<OwnedFd, MoveError> {
    let (stream, ahead) = client.into_parts();
    match stream {
        Stream::Plain(tcp) => {
            write_stream(out, PLAIN, &ahead, &[], RELAY);
            Ok(tcp.into_std()?.into())
        }
        Stream::Tls(tls) => write_tls(out, *tls, &ahead, RELAY),
    }
}

/// The kind of the session stands with its server.
fn write_backend(
    out: &mut StateWriter,
    session_kind: u8,
    backend: Handoff<BackendStream>,
) -> Result<OwnedFd, MoveError> {
    let (stream, ahead) = backend.into_parts();
    match stream {
        BackendStream::Tcp(tcp) => {
            write_stream(out, PLAIN, &ahead, &[], session_kind);
            Ok(tcp.into_std()?.into())
        }
        BackendStream::Unix(unix) => {
            write_stream(out, UNIX, &ahead, &[], session_kind);
            Ok(unix.into_std()?.into())
        }
        BackendStream::Tls(tls) => write_tls(out, *tls, &ahead, session_kind),
        BackendStream::Http2(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()), // such a session stays
    }
}

fn write_tls(
    out: &mut StateWriter,
    stream: TlsStream,
    ahead: &[u8],
    session_kind: u8,
) -> Result<OwnedFd, MoveError> {
    let (tcp, state) = stream.freeze();
    write_stream(out, TLS, ahead, &state.encode()?, session_kind);
    Ok(tcp.into_std()?.into())
}

/// Relays are written as they were when there was nothing else.
fn write_stream(out: &mut StateWriter, transport: u8, ahead: &[u8], tls: &[u8], session_kind: u8) {
    out.section(|out| {
        out.u8(transport);
        out.bytes(ahead);
        out.bytes(tls);
        if session_kind != RELAY {
            out.u8(session_kind);
        }
    });
}

/// Puts a session together that was taken apart, within the runtime of `worker`. It keeps its place in the registry
/// if it has one, else it gets one under its old id; the duration is when it froze, by [`machine_time`]; `find_route` knows its route by id, and the server behind it.
///
/// # Errors
/// If the record can't be read.
pub(crate) fn put_together(
    worker: &Arc<Worker>,
    sockets: [OwnedFd; 2],
    state: &[u8],
    registered: Option<Registered>,
    find_route: impl FnOnce(&RouteId, Leads<'_>) -> Option<Arc<Route>>,
    read_redialer: ReadRedialer,
) -> Result<(StillSession, Duration), MoveError> {
    let mut fields = StateReader::new(state, VERSION)?;
    let frozen_at = fields.duration()?;
    let id = fields.u64()?;
    let route = RouteId::from_parts(fields.text()?, fields.u64()?);
    let deflate = fields.bool()?;
    let (mut report, counts) = Report::arrive(&mut fields, worker)?;
    let [client, backend] = sockets;
    let client = read_client(&mut fields.section()?, client)?;
    let mut server = fields.section()?;
    let backend = read_backend(&mut server, backend)?;
    let session_kind = if server.is_at_end() { RELAY } else { server.u8()? };
    let leads = match (session_kind, report.asked_backend()) {
        (REDIAL, _) => Leads::Servers,
        (ECHO, _) => Leads::Echo,
        (_, Some(server)) => Leads::Server(server),
        (_, None) => return Err(StateError::Invalid("the server of a session").into()),
    };
    let route = find_route(&route, leads).ok_or(StateError::Invalid("a route"))?;
    report.return_to(&route); // before it is registered: operators see its server
    // Of a session that is registered, operators see it there.
    let known =
        registered.as_ref().and_then(|place| worker.sessions.get(place.id())?.who.redial.status().cloned());
    let session = Redialled { report: &report, route: &route, id, known };
    let still = Still::from_parts(session_kind, backend, fields.bytes()?, &session, read_redialer)?;
    let registered = registered.unwrap_or_else(|| {
        let who = SessionOpener { redial: still.redial(), ..report.who() };
        worker.sessions.register_again(id, &route, who)
    });
    report.settle(id, &route, counts);
    let mut meter = None;
    if !fields.is_at_end() {
        let counts = worker.quotas.sessions_limited.clone();
        meter = fields.option(|fields| Meter::read_state(fields, registered.handle().clone(), counts))?;
    }
    let mut deflating = None;
    if !fields.is_at_end() {
        let budget = worker.compression.budget();
        deflating = fields.option(|fields| Deflating::read_state(fields, budget))?;
    }
    if let Some(deflating) = &mut deflating {
        deflating.count_in(route.counts().here().deflated.clone());
    }
    report.compressed(Compressed::of(deflate, deflating.is_some()));
    let session = StillSession { report, registered, route, deflate, client, still, meter, deflating };
    Ok((session, frozen_at))
}

fn read_client(fields: &mut StateReader<'_>, socket: OwnedFd) -> Result<Handoff<Stream>, MoveError> {
    let (transport, ahead, tls) = (fields.u8()?, Bytes::copy_from_slice(fields.bytes()?), fields.bytes()?);
    let stream = match transport {
        PLAIN => Stream::Plain(Tcp::from_std(socket.into())?),
        TLS => Stream::Tls(Box::new(read_tls(socket, tls)?)),
        _ => return Err(StateError::Invalid("the kind of a client's connection").into()),
    };
    Ok(Handoff::new(stream, ahead))
}

fn read_backend(
    fields: &mut StateReader<'_>,
    socket: OwnedFd,
) -> Result<Option<Handoff<BackendStream>>, MoveError> {
    let (transport, ahead, tls) = (fields.u8()?, Bytes::copy_from_slice(fields.bytes()?), fields.bytes()?);
    let stream = match transport {
        PLAIN => BackendStream::Tcp(Tcp::from_std(socket.into())?),
        UNIX => BackendStream::Unix(Unix::from_std(socket.into())?),
        TLS => BackendStream::Tls(Box::new(read_tls(socket, tls)?)),
        NONE => return Ok(None),
        _ => return Err(StateError::Invalid("the kind of a server's connection").into()),
    };
    Ok(Some(Handoff::new(stream, ahead)))
}

fn read_tls(socket: OwnedFd, state: &[u8]) -> Result<TlsStream, MoveError> {
    let state = TlsState::decode(state)?;
    Ok(TlsStream::thaw(Tcp::from_std(socket.into())?, state))
}

#[cfg(test)]
mod tests;
