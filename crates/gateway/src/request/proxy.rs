//! Requests for a backend: plain ones over kept-alive connections, handshakes over one of their
//! own. What comes back is judged before the client sees any of it.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Response, StatusCode, Version, response};
use tokio::time::Instant;
use upgrade_handler::casing::{Kept, Spelling};
use upgrade_handler::{Agreed, FalseAnswer, Key, Upgrade, ask};

use crate::context::Connection;
use crate::context::redial::SessionRedial;
use crate::context::registry::{SessionOpener, StayReason};
use crate::request::attempts::Attempts;
use crate::request::body::AnswerBody;
use crate::request::failure::{Failure, decline, log_repairs};
use crate::request::handshake::{Shaken, Verdict, shake_hands};
use crate::request::http2::{self, Sent};
use crate::request::redial::{self, KeptHead};
use crate::request::reply::{RequestError, Served, Upgraded};
use crate::request::server_head::ServerHead;
use crate::session::Other;
use crate::session::report::Report;
use crate::site::retry::RetryOn;
use crate::site::route::{Compression, Route};
use crate::site::upstream::{Protocol, Upstream};
use crate::upstream::body::{Gate, RequestBody, ToBackend, UploadProgress};
use crate::upstream::dial::DialError;
use crate::upstream::forward::{self, Hop};
use crate::upstream::h1::connection::{IdleConnection, ResponseBody, SendRequestError};
use crate::upstream::h1::request::RequestWriter;
use crate::upstream::http2::request::Http2Request;
use crate::upstream::identity;
use crate::upstream::interim::Interim;
use crate::upstream::pool::{Lease, Pool};

/// Passes a plain request on and its answer back. `interim` gets what comes before it, if the client can hear it.
///
/// # Errors
/// 502 or 504, with the cause for the log.
pub(super) async fn request(
    connection: &Connection,
    upstream: &Arc<Upstream>,
    report: &mut Report,
    hop: &Hop<'_>,
    head: Box<Parts>,
    body: RequestBody,
    interim: Option<&Interim>,
) -> Result<Served, RequestError> {
    let mut attempts = Attempts::begin(connection, upstream, report, hop, &head, false).await?;
    if upstream.connector.protocol == Protocol::Http2 {
        let version = head.version;
        let sending = http2::send(connection, &mut attempts, report, hop, head, body, interim);
        let sent = Box::pin(sending).await; // larger than the rest
        let (mut head, answer) = match sent.inspect_err(|failure| attempts.note(report, failure))? {
            Sent::Answer(head, answer) => (head, answer),
            Sent::Http1Required(request) => {
                report.set_over_http2(false);
                let sent = Box::pin(send_again(connection, &attempts, *request, version, interim)).await;
                return answered(&attempts, report, sent);
            }
        };
        attempts.answered(report, head.status);
        forward::response(&mut head.headers);
        head.version = Version::HTTP_11;
        return Ok(Served::Answer(Response::from_parts(head, AnswerBody::Http2(answer))));
    }
    let sent = send_pooled(connection, &mut attempts, report, hop, head, body, interim).await;
    answered(&attempts, report, sent)
}

/// Judges what a server has answered over HTTP/1.1.
fn answered(
    attempts: &Attempts<'_>,
    report: &mut Report,
    sent: Result<Response<AnswerBody>, Failure>,
) -> Result<Served, RequestError> {
    // It is large: it is changed where it is, and not taken apart.
    let mut answer = match sent {
        Ok(answer) => answer,
        Err(failure) => {
            attempts.note(report, &failure);
            return Err(failure.into());
        }
    };
    attempts.answered(report, answer.status());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::from(FalseAnswer::Unasked).into());
    }
    forward::response(answer.headers_mut());
    *answer.version_mut() = Version::HTTP_11;
    Ok(Served::Answer(answer))
}

/// Sends over HTTP/1.1 what its server doesn't take over HTTP/2. No other server is asked: it may speak HTTP/2 alone.
async fn send_again(
    connection: &Connection,
    attempts: &Attempts<'_>,
    request: Http2Request,
    version: Version,
    interim: Option<&Interim>,
) -> Result<Response<AnswerBody>, Failure> {
    let (head, body, on_continue) = request.into_http1();
    let (pool, upstream, endpoint) = (&connection.worker.pool, attempts.upstream(), attempts.endpoint());
    let progress = body.progress();
    let logs_in = identity::logs_in(&head.headers);
    let mut request = RequestWriter::new(&head, b"", body, on_continue);
    let (mut backend, mut lease) = lease(connection, attempts).await?;
    loop {
        progress.touch();
        let asked = tokio::select! {
            biased;
            asked = backend.send_request(request, interim) => asked,
            () = progress.backend_idles(upstream.response_timeout, lease.timer.as_mut()) => {
                return Err(Failure::Timeout { after: upstream.response_timeout });
            }
        };
        match asked {
            Ok((head, answer)) => {
                progress.answered();
                return Ok(keep(connection, attempts, lease, head, answer, (logs_in, version)));
            }
            Err(_) if progress.is_stalled() => return Err(Failure::ClientStalled),
            // A kept connection had ended.
            Err(SendRequestError::Retry { request: again, reused: true, .. }) => request = *again,
            Err(e) => return Err(e.into()),
        }
        (backend, lease) = pool.lease_new(upstream.connector, endpoint).await?;
    }
}

/// A new connection to another server, after there is none to the first.
async fn dial_next(
    connection: &Connection,
    attempts: &mut Attempts<'_>,
    report: &mut Report,
    failure: DialError,
) -> Result<(IdleConnection, Lease), Failure> {
    let mut failure = Failure::from(failure);
    loop {
        if !attempts.next_after(report, &failure) {
            return Err(failure);
        }
        let pool = &connection.worker.pool;
        let begun = Instant::now();
        match pool.lease(attempts.upstream().connector, attempts.endpoint()).await {
            Ok(leased) => {
                if leased.1.is_new {
                    report.times().connected(begun);
                }
                return Ok(leased);
            }
            Err(next) => failure = next.into(),
        }
    }
}

/// What a request needs that is sent again.
struct Again<'a> {
    connection: &'a Connection,
    progress: &'a UploadProgress,
    /// Of a request that may be repeated, and whose body is still there.
    spare: Option<Spare>,
    heads: ServerHead<'a>,
    interim: Option<&'a Interim>,
}

/// A request that a server has already had.
struct Spare {
    head: Box<Parts>,
    lines: Vec<u8>,
    body: ToBackend,
}

impl Again<'_> {
    /// Sends a request again as long as that may bring an answer: over a new connection to the same server if a kept
    /// one had ended, else to another server.
    async fn ask(
        mut self,
        mut asked: Result<(response::Parts, ResponseBody), SendRequestError>,
        attempts: &mut Attempts<'_>,
        report: &mut Report,
        lease: &mut Lease,
    ) -> Result<(response::Parts, ResponseBody), Failure> {
        loop {
            let mut request = match asked {
                Err(_) if self.progress.is_stalled() => return Err(Failure::ClientStalled),
                Err(SendRequestError::Retry { request, reused: true, .. }) => *request,
                Err(SendRequestError::Retry { request, why, .. }) => {
                    if !attempts.next(report, RetryOn::Broken, &why) {
                        return Err(Failure::Broke(why));
                    }
                    *request
                }
                Ok((head, answer)) => {
                    match self.spare.as_ref().and_then(|spare| Some((spare, spare.body.copy()?))) {
                        Some((Spare { head: spare, lines, .. }, body))
                            if attempts.next_after_status(report, head.status) =>
                        {
                            drop(answer);
                            RequestWriter::new(spare, lines, body, None)
                        }
                        _ => return Ok((head, answer)),
                    }
                }
                Err(e) => return Err(e.into()),
            };
            let (pool, upstream) = (&self.connection.worker.pool, attempts.upstream());
            let begun = Instant::now();
            let (backend, fresh) = match pool.lease_new(upstream.connector, attempts.endpoint()).await {
                Ok(leased) => {
                    report.times().connected(begun);
                    leased
                }
                Err(failure) => dial_next(self.connection, attempts, report, failure).await?,
            };
            let begun = Instant::now();
            *lease = fresh;
            if let Some((head, lines)) = self.heads.next(attempts.endpoint()) {
                request.set_head(&head, &lines);
            }
            self.progress.touch();
            asked = tokio::select! {
                biased;
                asked = backend.send_request(request, self.interim) => asked,
                () = self.progress.backend_idles(upstream.response_timeout, lease.timer.as_mut()) => {
                    return Err(Failure::Timeout { after: upstream.response_timeout });
                }
            };
            if asked.is_ok() {
                report.times().answered(begun);
            }
        }
    }
}

async fn send_pooled(
    connection: &Connection,
    attempts: &mut Attempts<'_>,
    report: &mut Report,
    hop: &Hop<'_>,
    mut head: Box<Parts>,
    mut body: RequestBody,
    interim: Option<&Interim>,
) -> Result<Response<AnswerBody>, Failure> {
    body.settle(&head).await;
    let upstream = attempts.upstream();
    let (logs_in, version) = (identity::logs_in(&head.headers), head.version);
    keep_names(upstream, &mut head);
    let (mut heads, mut lines) = ServerHead::first(hop, &mut head, attempts.endpoint());
    let (on_continue, gate) = Gate::of(&head, &body);
    let mut body = ToBackend::new(body, gate, connection.limits.body_rate);
    let progress = body.progress();
    report.received(progress.clone());
    if let (Some(max @ 1..), None, false) = (upstream.buffer_request, &on_continue, body.has_length()) {
        Box::pin(body.hold(max)).await; // larger than the rest, and for few
    }
    let mut begun = Instant::now();
    let (backend, mut lease) = match lease(connection, attempts).await {
        Ok((backend, lease)) if !lease.is_new => (backend, lease),
        leased => {
            let leased = match leased {
                Ok(leased) => {
                    report.times().connected(begun);
                    leased
                }
                Err(failure) => Box::pin(dial_next(connection, attempts, report, failure)).await?,
            };
            begun = Instant::now();
            leased
        }
    };
    if let Some(next) = heads.next(attempts.endpoint()) {
        (head, lines) = next;
    }
    let copy = if attempts.spares(&head) { body.copy() } else { None };
    let spare = copy.map(|body| Spare { head: head.clone(), lines: lines.clone(), body });
    let request = RequestWriter::new(&head, &lines, body, on_continue);
    drop(head);

    let timeout = || Failure::Timeout { after: upstream.response_timeout };
    let asked = tokio::select! {
        biased;
        asked = backend.send_request(request, interim) => asked,
        () = progress.backend_idles(upstream.response_timeout, lease.timer.as_mut()) => return Err(timeout()),
    };
    if asked.is_ok() {
        report.times().answered(begun);
    }
    let (head, answer) = match asked {
        Ok((head, answer)) if !attempts.counts(RetryOn::Status(head.status)) => (head, answer),
        asked => {
            let again = Again { connection, progress: &progress, spare, heads, interim };
            Box::pin(again.ask(asked, attempts, report, &mut lease)).await? // rare, and large
        }
    };
    progress.answered();
    Ok(keep(connection, attempts, lease, head, answer, (logs_in, version)))
}

/// A kept connection that the client has logged in, else that of the pool, else a new one.
async fn lease(
    connection: &Connection,
    attempts: &Attempts<'_>,
) -> Result<(IdleConnection, Lease), DialError> {
    if let Some(own) = connection.own.get()
        && let Some(leased) = own.lease_idle(attempts.endpoint()).await
    {
        return Ok(leased);
    }
    connection.worker.pool.lease(attempts.upstream().connector, attempts.endpoint()).await
}

/// The answer for the client, behind which the connection is kept: for all, or for this client alone.
fn keep(
    connection: &Connection,
    attempts: &Attempts<'_>,
    mut lease: Lease,
    head: response::Parts,
    answer: ResponseBody,
    (logs_in, version): (bool, Version),
) -> Response<AnswerBody> {
    log_repairs(attempts.upstream(), answer.repairs());
    if logs_in || identity::challenges(&head) {
        lease.belongs_to(own_pool(connection, version));
    } else if attempts.endpoint().header.is_some() && attempts.upstream().connector.pooled {
        lease.belongs_to(Some(connection.own.get_or_init(Arc::default)));
    }
    Response::from_parts(head, AnswerBody::Backend { answer, lease: Some(lease) })
}

/// Has the names of fields written as the client spells them, where the route wants that. Names that tell a backend
/// who the client is are ours, and keep our spelling.
pub(super) fn keep_names(upstream: &Upstream, head: &mut Parts) {
    if !upstream.keeps_names || head.extensions.get::<Kept>().is_none() {
        return;
    }
    let mut spelling = Spelling::of(head);
    for name in head.headers.keys().filter(|name| forward::is_about_client(name.as_str())) {
        spelling.remove(name);
    }
    head.extensions.insert(spelling);
}

/// Where the connections go that the client has logged in. A connection over HTTP/2 has none: it may be shared by
/// several users of another proxy, and its streams can't say which of them belong together.
fn own_pool(connection: &Connection, version: Version) -> Option<&Arc<Pool>> {
    (version != Version::HTTP_2).then(|| connection.own.get_or_init(Arc::default))
}

/// Asks a backend to open a WebSocket, and the client's tunnel only when it has.
///
/// # Errors
/// 502 or 504, with the cause for the log.
pub(super) async fn upgrade(
    connection: &Connection,
    route: &Arc<Route>,
    upstream: &Arc<Upstream>,
    report: &mut Report,
    hop: &Hop<'_>,
    mut head: Box<Parts>,
    mut upgrade: Upgrade,
) -> Result<Served, RequestError> {
    let mut attempts = Attempts::begin(connection, upstream, report, hop, &head, true).await?;
    let ends_here = matches!(route.compression, Compression::Terminate { .. });
    let offer = ends_here.then(|| std::mem::take(&mut upgrade.extensions));
    if upstream.redial.is_some() {
        upgrade.extensions.refuse_context();
    }
    let key = Key::random();
    let (logs_in, version) = (identity::logs_in(&head.headers), head.version);
    keep_names(upstream, &mut head);
    let (mut heads, mut lines) = ServerHead::first(hop, &mut head, attempts.endpoint());
    let ready = |head: &mut Parts| {
        ask(head, &upgrade, &key);
        head.headers.remove(CONTENT_LENGTH);
    };
    ready(&mut head);
    let keep = |head: &Parts, lines: &mut Vec<u8>| {
        upstream.redial.map(|redial| (redial, KeptHead::new(head, lines)))
    };
    let mut kept_head = keep(&head, &mut lines);
    let shaken = loop {
        if let Some(next) = heads.next(attempts.endpoint()) {
            (head, lines) = next;
            ready(&mut head);
            kept_head = keep(&head, &mut lines);
        }
        match shake_hands(connection, upstream, attempts.endpoint(), &head, &lines, report.times()).await {
            Ok((head, _)) if attempts.next_after_status(report, head.status) => {}
            Err(failure) if attempts.next_after(report, &failure) => {}
            shaken => break shaken,
        }
    };
    let (mut head, shaken) = shaken.inspect_err(|failure| attempts.note(report, failure))?;
    attempts.answered(report, head.status);
    let is_over_http2 = matches!(shaken, Shaken::Http2(_));
    report.set_over_http2(is_over_http2);
    if let Shaken::Http1(answer) = &shaken {
        log_repairs(upstream, answer.repairs());
    }
    let (verified, backend) = match shaken.judge(&head, &upgrade, &key) {
        Verdict::Opened(verified, backend) => (verified, backend),
        // The answer goes back as it is. Its connection is kept only for a client that logs it in.
        Verdict::Http1(answer) => {
            let own =
                (logs_in || identity::challenges(&head)).then(|| own_pool(connection, version)).flatten();
            let lease = own.map(|own| Lease::new(attempts.endpoint(), own));
            let answer = AnswerBody::Backend { answer: answer.boxed(), lease };
            return Ok(decline(head, answer, &upgrade)?);
        }
        Verdict::Http2(answer) => return Ok(decline(head, AnswerBody::Http2(answer), &upgrade)?),
    };
    let verified = verified.map_err(Failure::from);
    let (mut agreed, repairs) = verified.inspect_err(|failure| attempts.note(report, failure))?;
    log_repairs(upstream, &repairs);
    let backend = backend.ok_or(Failure::Early)?;
    forward::response(&mut head.headers);
    let redial_state = match &kept_head {
        Some((_, kept_head)) => redial::judge(kept_head.as_ref(), agreed.refuse_context()),
        None => SessionRedial::Off,
    };
    let (told, deflating) = match offer.and_then(|offer| connection.worker.compress(route, &offer)) {
        Some((field, deflating)) => {
            let told = Agreed { extensions: Some(field), ..agreed.clone() };
            (Cow::Owned(told), Some(deflating))
        }
        None => (Cow::Borrowed(&agreed), None),
    };
    let mut answer = upgrade_handler::accept(&upgrade, &told, head.headers);
    // Those of an answer whose names are kept spell them.
    let spells = upstream.keeps_names && !is_over_http2;
    *answer.extensions_mut() = if spells { head.extensions } else { connection.worker.casing.clone() };
    let deflate = agreed.deflate;
    let who = SessionOpener { redial: redial_state.clone(), ..report.who() };
    let (registered, other) = match kept_head {
        Some((redial, Some(kept_head))) => {
            let is_unable = matches!(redial_state, SessionRedial::Unable(_));
            let stays = who.stays.or(is_unable.then_some(StayReason::Redial));
            let who = SessionOpener { stays, ..who };
            let registered = connection.worker.enroll(route, who);
            let lasting = redial::lasting(
                backend,
                kept_head,
                agreed,
                &redial,
                route,
                report,
                (&registered, &redial_state),
            );
            (registered, Other::Redial(lasting))
        }
        _ => (connection.worker.enroll(route, who), Other::Backend(backend)),
    };
    Ok(Served::Upgraded(Upgraded { answer, registered, route: route.clone(), deflate, deflating, other }))
}
