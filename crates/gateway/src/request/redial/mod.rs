//! Another server for a session that has lost its own: the handshake once more.

mod judge;
mod loss;
pub(crate) mod moved;

use std::fmt;
use std::future::ready;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use frame_core::close::{Close, SERVICE_RESTART};
use frame_core::redial::{HELD_MAX, Lost, Options, RedialStream, Redialer, Redialling};
use http::header::{HeaderMap, SEC_WEBSOCKET_KEY};
use http::request::Parts;
use http::{Method, Request, StatusCode, Uri, response};
use net_io::state::StateWriter;
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};
use upgrade_handler::{Agreed, Handoff, Key, offered};

use crate::context::Connection;
use crate::context::redial::{RedialStatus, SessionRedial};
use crate::context::registry::Registered;
use crate::net::clock;
use crate::request::failure::Failure;
use crate::request::handshake::{Verdict, shake_hands};
use crate::session::redial::Lasting;
use crate::session::report::Report;
use crate::site::balance::Balance;
use crate::site::redial::{Redial, RedialFailure, Search};
use crate::site::redial_queue::Handshake;
use crate::site::route::Route;
use crate::site::server::{Assignment, ServerState};
use crate::site::upstream::{Ask, Unavailable, Upstream};
use crate::telemetry::record::ServerTimes;
use crate::upstream::forward::append_lines;
use crate::upstream::h1::encode::{Coding, put_head};
use crate::upstream::stream::BackendStream;
use net_io::proxy_protocol::encode;

/// The longest head that is kept for a session, in bytes.
const HEAD_MAX: usize = 8 * 1024;
/// How long the connection of a server that was left may take to end.
const LEAVE_WAIT: Duration = Duration::from_secs(2);
/// A client that may not use the route any more (RFC 6455 §7.4.1, policy).
const POLICY: u16 = 1008;
/// A server that was lost is an unexpected condition.
const LOST: u16 = 1011;

/// A handshake that can be repeated, before it is answered.
pub(super) struct KeptHead {
    target: Box<str>,
    /// As on the wire, without the key.
    fields: Vec<u8>,
}

impl KeptHead {
    /// Keeps a handshake that is ready to be sent with `lines`, to which the session's name is added; `None`: it is too
    /// long.
    pub(super) fn new(head: &Parts, lines: &mut Vec<u8>) -> Option<Self> {
        let before = lines.len();
        lines.extend_from_slice(format!("Wssgate-Session: {:032x}\r\n", rand::random::<u128>()).as_bytes());
        let mut wire = Vec::new();
        put_head(head, lines, Coding::Empty, &mut wire);
        if wire.len() > HEAD_MAX {
            lines.truncate(before); // a session that ends with its server has none
            return None;
        }
        let mut fields = Vec::with_capacity(wire.len());
        for line in wire.split_inclusive(|byte| *byte == b'\n').skip(1) {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if !name.eq_ignore_ascii_case(SEC_WEBSOCKET_KEY.as_str().as_bytes()) && line != b"\r\n" {
                fields.extend_from_slice(line);
            }
        }
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).into();
        Some(Self { target, fields })
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        append_lines(&self.fields, &mut headers);
        headers
    }
}

/// Whether the session that is about to begin outlives its server, for the registry. `is_alone`: what one message leaves
/// to the next is nothing, so that another server can read it.
pub(super) fn judge(kept: Option<&KeptHead>, is_alone: bool) -> SessionRedial {
    match (kept, is_alone) {
        (None, _) => SessionRedial::Unable("the handshake is longer than 8 KiB"),
        (Some(_), false) => SessionRedial::Unable("the compression depends on earlier messages"),
        (Some(_), true) => SessionRedial::On(Arc::default()),
    }
}

/// A session that goes on with other servers.
pub(super) fn lasting(
    backend: Handoff<BackendStream>,
    kept: KeptHead,
    agreed: Agreed,
    redial: &Redial,
    route: &Arc<Route>,
    report: &Report,
    (registered, redial_state): (&Registered, &SessionRedial),
) -> Box<Lasting> {
    let status = redial_state.status().cloned().unwrap_or_default();
    let unable = if let SessionRedial::Unable(why) = redial_state { Some(*why) } else { None };
    let shared = Shared {
        connection: report.connection().clone(),
        route: route.clone(),
        client: report.client(),
        host: report.host(),
        id: registered.id(),
        kept: KeptHead { fields: kept.fields.into_boxed_slice().into_vec(), ..kept },
        agreed,
        status: status.clone(),
        unable,
        search: Mutex::default(),
    };
    let redialer = SessionRedialer { shared: Arc::new(shared), since: Instant::now() };
    let options = Options { held_max: redial.held_max.min(HELD_MAX), may_repeat: redial.may_repeat };
    let handle = registered.handle().clone();
    let stream = RedialStream::new(backend, Box::new(redialer), handle, options);
    Box::new(Lasting { stream, status, frozen: None })
}

/// What a session that outlives its servers holds for that.
struct Shared {
    connection: Arc<Connection>,
    route: Arc<Route>,
    client: std::net::IpAddr,
    /// That the client has asked for.
    host: Arc<str>,
    id: u64,
    kept: KeptHead,
    agreed: Agreed,
    status: Arc<RedialStatus>,
    /// Why no other server can go on.
    unable: Option<&'static str>,
    search: Mutex<Search>,
}

struct SessionRedialer {
    shared: Arc<Shared>,
    /// When it had its server, or began to look for it.
    since: Instant,
}

impl fmt::Debug for SessionRedialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRedialer").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

impl Redialer<Handoff<BackendStream>> for SessionRedialer {
    fn redial(&mut self, lost: Lost) -> Redialling<Handoff<BackendStream>> {
        if let Some(why) = self.shared.unable {
            self.shared.current().1.redial_failed(RedialFailure::Unable);
            return Box::pin(ready(Err(close(SERVICE_RESTART, why))));
        }
        let shared = self.shared.clone();
        let lived = self.since.elapsed();
        self.since = Instant::now();
        shared.search().lived(lived);
        shared.status.search();
        debug!(id = shared.id, how = lost.how, messages = lost.messages, "a session has lost its backend");
        // A task of its own: how often the session is polled is its client's affair.
        let looking = AbortOnDropHandle::new(tokio::spawn(async move { shared.look(&lost).await }));
        Box::pin(async move {
            looking.await.unwrap_or_else(|_| Err(close(LOST, "the search for a backend was aborted")))
        })
    }

    fn write_state(&self, out: &mut StateWriter) {
        self.write_kept(out);
    }

    fn leave(&mut self, mut server: Handoff<BackendStream>) {
        tokio::spawn(async move {
            // Closing a socket with unread bytes would reset it, and destroy what the server has not read.
            let end = async {
                if server.shutdown().await.is_ok() {
                    let _ = copy(&mut server, &mut sink()).await;
                }
            };
            let _ = timeout(LEAVE_WAIT, end).await;
        });
    }

    fn cut(&mut self) {
        self.shared.current().1.redial_failed(RedialFailure::Cut);
    }
}

/// What one attempt has led to.
enum Attempt {
    /// A server goes on.
    Done(Handoff<BackendStream>, Assignment),
    /// The session can't go on.
    Over(RedialFailure, Close),
    /// Another attempt may succeed, but not before this time.
    Failed(String, Duration),
}

fn close(code: u16, reason: &str) -> Close {
    Close { code: Some(code), reason: reason.into() }
}

impl Shared {
    fn search(&self) -> std::sync::MutexGuard<'_, Search> {
        self.search.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The route as the configuration has it now, or the session's own if it has gone; with its servers, or those that
    /// the session had if it doesn't redial any more.
    fn current(&self) -> (Arc<Route>, Arc<Upstream>, Redial) {
        let site = self.connection.worker.site();
        let route = site.route(&self.route.id).unwrap_or(&self.route);
        let redials = |route: &Route| {
            let upstream = route.action.upstream()?;
            Some((upstream.clone(), upstream.redial?))
        };
        let (upstream, redial) = redials(route)
            .or_else(|| redials(&self.route))
            .unwrap_or_else(|| (Arc::new(Upstream::new(Vec::new())), Redial::DEFAULT));
        (route.clone(), upstream, redial)
    }

    /// Looks for a server until there is one, or there can't be any.
    async fn look(self: Arc<Self>, lost: &Lost) -> Result<Handoff<BackendStream>, Close> {
        let upstream = self.current().1;
        let _searching = upstream.searching();
        let mut tried: Vec<Box<str>> = Vec::new();
        if let Some(server) = self.status.server() {
            tried.push(server.endpoint.name());
            loss::note(&upstream, server, &lost.how);
        }
        self.status.begin(None); // it counts there no longer
        let mut why = lost.how.clone();
        loop {
            let (route, upstream, redial) = self.current();
            let wait = {
                let mut search = self.search();
                search.left(&redial).map(|left| search.wait(&redial, rand::random()).min(left))
            };
            let over = match wait {
                None => Some((
                    RedialFailure::Timeout,
                    close(lost.code.unwrap_or(LOST), "no backend within redial_timeout"),
                )),
                Some(wait) => {
                    sleep(wait).await;
                    self.search().spend(wait);
                    match self.attempt(&route, &upstream, &redial, &mut tried, lost).await {
                        Attempt::Done(backend, server) => {
                            debug!(id = self.id, backend = %server.endpoint(), messages = lost.messages, "a session goes on at another backend");
                            self.status.found(server);
                            return Ok(backend);
                        }
                        Attempt::Over(failure, close) => Some((failure, close)),
                        Attempt::Failed(cause, wait) => {
                            debug!(id = self.id, cause, "a session has not found a backend yet");
                            why = cause;
                            let left = self.search().left(&redial).unwrap_or_default();
                            let wait = wait.min(left); // a rate may say an hour
                            sleep(wait).await;
                            self.search().spend(wait);
                            None
                        }
                    }
                }
            };
            if let Some((failure, close)) = over {
                upstream.redial_failed(failure);
                warn!(id = self.id, route = %route.id, %close, cause = why, "a session ends: it has lost its backend");
                return Err(close);
            }
        }
    }

    /// Asks one server.
    async fn attempt(
        &self,
        route: &Arc<Route>,
        upstream: &Arc<Upstream>,
        redial: &Redial,
        tried: &mut Vec<Box<str>>,
        lost: &Lost,
    ) -> Attempt {
        let headers = self.kept.headers();
        let access = route.access.as_deref();
        if let Err(attempt) = self.judge(access, &headers) {
            return attempt;
        }
        let current = upstream.current();
        let upstream: &Upstream = &current;
        let (at, server) = match self.choose(upstream, &headers, tried) {
            Ok(chosen) => chosen,
            Err(e) => return Attempt::Failed(e.to_string(), Duration::ZERO),
        };
        let Some(handshake) = self.begin_handshake(server.server(), redial).await else {
            tried.push(server.endpoint().name());
            let cause = format!("{} handshakes are under way with it, and none ends", redial.handshakes_max);
            return Attempt::Failed(cause, Duration::ZERO);
        };
        // Others may be served first, which is no time of this session's.
        sleep(server.server().turn(redial.pace, clock::now())).await;
        if let Err(attempt) = self.confirm(access).await {
            return attempt; // which is not the server's affair
        }
        let Some(limit) = self.search().attempt(redial, upstream.servers.len() > 1) else {
            return Attempt::Failed("no time is left".to_owned(), Duration::ZERO);
        };
        let begun = Instant::now();
        let asked = timeout(limit, self.ask(upstream, at, lost)).await;
        self.search().spend(begun.elapsed());
        drop(handshake);
        let failed = |cause: String| {
            upstream.failed(server.server(), &cause);
            Attempt::Failed(cause, Duration::ZERO)
        };
        let attempt = match asked {
            Err(_) => failed(format!("no answer within {limit:?}")),
            Ok(Err(failure)) if failure.is_servers() => failed(failure.to_string()),
            Ok(Err(failure)) => Attempt::Failed(failure.to_string(), Duration::ZERO),
            Ok(Ok(Asked::Refused(close))) => Attempt::Over(RedialFailure::Refused, close),
            Ok(Ok(Asked::Answered(status))) if status.is_server_error() => {
                failed(format!("it answered {status}"))
            }
            Ok(Ok(Asked::Answered(status))) => {
                Attempt::Failed(format!("it answered {status}"), Duration::ZERO)
            }
            Ok(Ok(Asked::Other(what))) => {
                let close = close(SERVICE_RESTART, &format!("another backend has chosen {what}"));
                Attempt::Over(RedialFailure::Changed, close)
            }
            Ok(Ok(Asked::Open(backend))) => {
                server.server().succeeded();
                return Attempt::Done(backend, server);
            }
        };
        tried.push(server.endpoint().name());
        attempt
    }

    /// Waits until the server has fewer handshakes under way than it may have. The wait is this session's time only if
    /// the server takes no others meanwhile; `None`: it was too long.
    async fn begin_handshake<'a>(&self, server: &'a ServerState, redial: &Redial) -> Option<Handshake<'a>> {
        let mut beginning = pin!(server.begin_handshake(redial.handshakes_max));
        loop {
            let wait = self.search().left(redial)?.min(redial.interval);
            let taken = server.redials();
            match timeout(wait, &mut beginning).await {
                Ok(handshake) => return Some(handshake),
                Err(_) if server.redials() > taken => {}
                Err(_) => {
                    self.search().spend(wait);
                    return None;
                }
            }
        }
    }

    /// Chooses a server: one that was not tried yet, if there is any.
    fn choose(
        &self,
        upstream: &Upstream,
        headers: &HeaderMap,
        tried: &mut Vec<Box<str>>,
    ) -> Result<(usize, Assignment), Unavailable> {
        let key = match upstream.balance {
            Balance::Hash => {
                let uri: Option<Uri> = self.kept.target.parse().ok();
                upstream.hash.of(self.client, headers, uri.as_ref().and_then(Uri::query))
            }
            _ => 0,
        };
        let positions: Vec<usize> = upstream
            .servers
            .iter()
            .enumerate()
            .filter(|(_, server)| tried.contains(&server.endpoint.name()))
            .map(|(at, _)| at)
            .collect();
        upstream.choose(Ask { key, preferred: None, tried: &positions }).or_else(|_| {
            tried.clear();
            upstream.choose(Ask { key, preferred: None, tried: &[] })
        })
    }

    /// The handshake, as it was, with a new key.
    async fn ask(&self, upstream: &Upstream, at: usize, lost: &Lost) -> Result<Asked, Failure> {
        let key = Key::random();
        let mut lines = self.kept.fields.clone();
        let resumes = self.status.redials() + 1;
        for (name, value) in [("Wssgate-Resume", u64::from(resumes)), ("Wssgate-Messages", lost.messages)] {
            lines.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        lines.extend_from_slice(b"Sec-WebSocket-Key: ");
        lines.extend_from_slice(key.value().as_bytes());
        lines.extend_from_slice(b"\r\n");
        let mut head = Request::new(()).into_parts().0;
        head.method = Method::GET;
        head.uri = self.kept.target.parse().unwrap_or_default();
        let connection = &*self.connection;
        let endpoint = &upstream.servers[at].endpoint;
        let own = upstream.connector.proxy_protocol.map(|version| {
            let port = connection.port_of(self.client).unwrap_or(0);
            Arc::new(endpoint.for_client(encode(version, (self.client, port).into(), connection.local)))
        });
        let endpoint = own.as_ref().unwrap_or(endpoint);
        let times = &mut ServerTimes::default(); // those of its first server are in its line
        let (head, shaken) = shake_hands(connection, upstream, endpoint, &head, &lines, times).await?;
        if head.status.is_client_error() {
            return Ok(Asked::Refused(refusal(&head)));
        }
        let offer = offered(&self.kept.headers());
        let Verdict::Opened(verified, backend) = shaken.judge(&head, &offer, &key) else {
            return Ok(Asked::Answered(head.status));
        };
        let (mut agreed, _) = verified?;
        if !agreed.refuse_context() || !agreed.is_same(&self.agreed) {
            let is_protocol = agreed.protocol != self.agreed.protocol;
            return Ok(Asked::Other(if is_protocol { "another subprotocol" } else { "other extensions" }));
        }
        Ok(Asked::Open(backend.ok_or(Failure::Early)?))
    }
}

/// What a server has made of the handshake.
enum Asked {
    Open(Handoff<BackendStream>),
    Refused(Close),
    Answered(StatusCode),
    Other(&'static str),
}

/// What the client is told when a server doesn't want it any more.
fn refusal(head: &response::Parts) -> Close {
    let own = head.headers.get("wssgate-close").and_then(|code| code.to_str().ok()?.parse::<u16>().ok());
    let own = own.filter(|code| Close::parse(&code.to_be_bytes()).is_ok());
    close(own.unwrap_or(POLICY), &format!("the backend answered {}", head.status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &str)]) -> Parts {
        let mut request =
            Request::get("/chat?room=1").header("host", "domain.com").header("sec-websocket-key", "a");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_head_is_kept_without_its_key() {
        let mut lines = b"X-Real-IP: 192.0.2.1\r\n".to_vec();
        let kept =
            KeptHead::new(&head(&[("cookie", "a=b"), ("x-two", "1"), ("x-two", "2")]), &mut lines).unwrap();
        assert_eq!(&*kept.target, "/chat?room=1");
        let text = String::from_utf8(kept.fields.clone()).unwrap();
        let (before, id) = text.split_once("Wssgate-Session: ").unwrap();
        assert_eq!(
            before,
            "Host: domain.com\r\nCookie: a=b\r\nX-Two: 1\r\nX-Two: 2\r\nX-Real-IP: 192.0.2.1\r\n"
        );
        assert!(id.trim_end().len() == 32 && id.trim_end().bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert!(lines.ends_with(format!("Wssgate-Session: {id}").as_bytes()));
        let headers = kept.headers();
        assert_eq!(headers.get_all("x-two").iter().count(), 2);
        assert_eq!(headers["cookie"], "a=b");
    }

    #[test]
    fn one_that_is_too_long_is_not() {
        let mut lines = Vec::new();
        assert!(KeptHead::new(&head(&[("cookie", &"a".repeat(HEAD_MAX - 200))]), &mut lines).is_some());
        lines.clear();
        assert!(KeptHead::new(&head(&[("cookie", &"a".repeat(HEAD_MAX))]), &mut lines).is_none());
        assert!(lines.is_empty(), "it has no name either");
    }

    #[test]
    fn a_server_says_with_what_the_client_is_closed() {
        for (field, code) in [(None, 1008), (Some("4001"), 4001), (Some("1005"), 1008), (Some("x"), 1008)] {
            let mut answer = http::Response::builder().status(403);
            if let Some(field) = field {
                answer = answer.header("Wssgate-Close", field);
            }
            assert_eq!(refusal(&answer.body(()).unwrap().into_parts().0).code, Some(code), "{field:?}");
        }
    }
}
