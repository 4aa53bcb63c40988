//! HTTP/2 with clients, by h2: hyper's own engine, without hyper around it.
//!
//! A tunnel has to send RST_STREAM when its backend sent RST, and to notice that of the client (RFC 8441 §5); one
//! malformed CONNECT must not end the connection that other WebSockets live on; and small DATA
//! frames are WebSocket's daily bread, while h2 counts them as an attack by default. hyper has no
//! way to say any of this.

mod open;

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use frame_core::metered::Metered;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE, Entry, HeaderMap, HeaderValue};
use http::response::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use httpdate::HttpDate;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};
use upgrade_handler::flood::Counted;
use upgrade_handler::hop_by_hop::remove_hop_by_hop;
use upgrade_handler::resets::Resets;
use upgrade_handler::turn::in_turns;
use upgrade_handler::{Queued, Tunnel};

use crate::context::idle::{IdleWait, IdleWaits};
use crate::context::{Connection, Worker};
use crate::edge::http2::open::{OpenStream, OpenStreams, SweptStream};
use crate::edge::lent::{Lent, lend};
use crate::edge::linger;
use crate::net::limits::HEAD_LEN_MAX;
use crate::net::limits::STALL_MAX;
use crate::net::listening::PeerName;
use crate::net::patience::StallTimeout;
use crate::net::stop::StopSignal;
use crate::net::stream::Transport;
use crate::request::body::ToClient;
use crate::request::reply::Reply;
use crate::request::{Peer, exchange};
use crate::session::{Carrier, Client, deflated};
use crate::upstream::body::{Http2Body, MALFORMED_TRAILERS, RequestBody, Rest};
use crate::upstream::forward::expects_continue;
use crate::upstream::interim::Interim;

/// Streams a client may have open at once.
const STREAMS_MAX: u32 = 256;
/// What a client may send on a stream before it is read.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for a connection: so many times a stream's that stalled streams don't stall others.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
/// h2 charges a DATA frame under 256 bytes with what is missing to 256 until it is taken, and ends
/// the connection when this is used up. Half the streams that the window allows may be full of
/// frames of a few bytes each.
const SMALL_FRAMES_BUDGET: usize = 16 * 1024 * 1024;
/// What is queued for a client on one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// One DATA frame of the default size.
const CHUNK_LEN: usize = 16 * 1024;
/// The longest one that fits into one TLS record with its head (RFC 8446 §5.1, RFC 9113 §4.1).
const RECORD_LEN: usize = 16 * 1024 - 9;
/// How long a client is given to acknowledge the end of the connection.
const END_WAIT: Duration = Duration::from_secs(2);

/// Serves the streams of a connection until it ends; `websockets` may be opened on them. In each case the client gets a
/// close_notify (RFC 8446 §6.1).
pub async fn serve<T: Transport>(connection: Arc<Connection>, mut transport: T, websockets: bool) {
    let _counts = connection.worker.under_way.http2_connection();
    transport.gather_writes();
    let (io, back) = lend(transport);
    streams(&connection, io, websockets).await;
    if let Ok(io) = back.await {
        linger::end(io, &connection.worker.draining).await;
    }
}

async fn streams<T: Transport>(connection: &Arc<Connection>, io: Lent<T>, websockets: bool) {
    let (peer, limits) = (connection.peer, *connection.limits);
    let (io, flood) = Counted::new(StallTimeout::new(io));
    let (io, turn_end) = in_turns(io);
    let mut builder = Builder::new();
    if websockets {
        builder.enable_connect_protocol(); // RFC 8441 §3; without it h2 resets a stream with :protocol
    }
    let handshake = builder
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES_BUDGET)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(HEAD_LEN_MAX).unwrap_or(u32::MAX))
        .handshake::<_, Bytes>(io);
    let handshake = async {
        tokio::select! {
            biased;
            h2 = handshake => h2.map_err(|e| e.to_string()),
            e = turn_end.failed() => Err(e.to_string()),
        }
    };
    let mut h2 = match timeout(limits.header_timeout, handshake).await {
        Ok(Ok(h2)) => h2,
        Ok(Err(cause)) => return debug!(peer = %PeerName(peer), cause, "connection ended"),
        Err(_) => return debug!(peer = %PeerName(peer), "the client sent no HTTP/2 preface in time"),
    };
    let open = Arc::new(OpenStreams::default());
    let worker = connection.worker.clone();
    let shared = Arc::new(Peer::new(peer.ip()));
    let (mut used, mut ending) = (false, false);
    // Made once: a turn of the loop is a request.
    let mut draining = pin!(worker.draining.cancelled());
    let mut retiring = pin!(worker.retiring.cancelled());
    let mut quiet = pin!(sleep(limits.header_timeout));
    let mut resets = Resets::new(std::time::Instant::now());
    let (waits, mut idle) = (connection.idle_waits(), None::<IdleWait>);
    loop {
        tokio::select! {
            biased;
            accepted = h2.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let given_up = open.take_given_up();
                    if given_up > 0 && resets.are_too_many(given_up, std::time::Instant::now()) {
                        h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM); // RFC 9113 §10.5
                        info!(peer = %PeerName(peer), "connection closed: the client resets its requests before they are answered");
                        continue;
                    }
                    let guard = open.enter();
                    used = true;
                    idle = None;
                    // On the heap: a task is moved several times before it runs, and when it has ended.
                    let task = Box::pin(stream(connection.clone(), shared.clone(), request, respond, guard));
                    worker.tasks.spawn(SweptStream::new(task, open.clone()));
                }
                Some(Err(e)) => return debug!(peer = %PeerName(peer), cause = %e, "connection ended"),
                None => return,
            },
            // Right behind h2's turn, and whenever the network takes more.
            e = turn_end.failed() => return debug!(peer = %PeerName(peer), cause = %e, "connection ended"),
            () = flood.noticed() => {
                h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM); // RFC 9113 §10.5
                info!(peer = %PeerName(peer), "connection closed: the client floods it with frames that carry nothing");
            }
            () = open.sweep_with_connection() => {}
            () = open.all_closed() => {
                let patience = if ending { END_WAIT } else { limits.keep_alive_timeout };
                quiet.as_mut().reset(Instant::now() + patience);
                idle = waits.as_ref().map(IdleWaits::begin);
            }
            () = called_off(&mut idle), if !ending => quiet.as_mut().reset(Instant::now()),
            () = &mut draining, if !ending => {
                ending = true;
                quiet.as_mut().reset(Instant::now() + END_WAIT);
                h2.graceful_shutdown(); // GOAWAY; streams in flight finish
            }
            // A client that has just shaken hands is not sent away before it got anything.
            () = &mut retiring, if used && !ending => {
                ending = true;
                quiet.as_mut().reset(Instant::now() + END_WAIT);
                h2.graceful_shutdown();
            }
            () = &mut quiet, if open.is_empty() => {
                if ending {
                    return; // a client that is no longer there
                }
                ending = true;
                quiet.as_mut().reset(Instant::now() + END_WAIT);
                h2.graceful_shutdown();
            }
        }
    }
}

/// Returns when the connection is to end for another one, once.
async fn called_off(idle: &mut Option<IdleWait>) {
    match idle {
        Some(wait) => wait.await,
        None => std::future::pending().await,
    }
    *idle = None;
}

async fn stream(
    connection: Arc<Connection>,
    peer: Arc<Peer>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    open: OpenStream,
) {
    let (head, recv) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let mut body_wanted = None;
    let mut body_rest = None;
    let (body, tunnel) = if head.method == Method::CONNECT {
        (RequestBody::Empty, Some(recv)) // DATA frames are the tunnel's
    } else if recv.is_end_stream() {
        (RequestBody::Empty, None)
    } else {
        let length = head.headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        let wanted = expects_continue(&head.headers).then(|| sender(&mut body_wanted));
        (RequestBody::Http2(Http2Body::new(recv, length, wanted, sender(&mut body_rest))), None)
    };
    let worker = connection.worker.clone();
    let interim = Interim::default();
    let reply = {
        let mut exchange = pin!(exchange(&connection, &peer, Box::new(head), body, Some(&interim)));
        loop {
            tokio::select! {
                biased;
                // Before the exchange finds its body broken off: the report says so.
                _ = poll_fn(|cx| respond.poll_reset(cx)) => return open.give_up(),
                reply = &mut exchange => break reply,
                // Only the exchange has any, and it was polled just now.
                answers = taken(&interim) => send_informational(&mut respond, answers),
                asked = received(&mut body_wanted) => {
                    body_wanted = None;
                    if asked {
                        let mut go_on = Response::new(());
                        *go_on.status_mut() = StatusCode::CONTINUE;
                        let _ = respond.send_informational(go_on); // a failure shows with the answer
                    }
                }
            }
        }
    };
    send_informational(&mut respond, interim.take());
    match (reply, tunnel) {
        (Reply::Answer(answer), _) => {
            let (head, mut body) = answer.into_parts();
            let Some(rest) = body_rest else {
                send_answer(&mut respond, head, &mut body, is_head).await;
                return;
            };
            let mut upload = Upload { rest, unread: None, told: false };
            let sent = tokio::select! {
                biased;
                () = upload.malformed() => None,
                sent = send_answer(&mut respond, head, &mut body, is_head) => Some(sent),
            };
            match sent {
                None => {
                    body.withheld(MALFORMED_TRAILERS);
                    respond.send_reset(Reason::PROTOCOL_ERROR); // RFC 9113 §8.1.1
                }
                Some(true) => upload.read_rest(&worker.draining).await,
                Some(false) => {}
            }
        }
        (Reply::Tunnel(mut answer, session, deflating), Some(recv)) => {
            finish_head(answer.headers_mut());
            match respond.send_response(answer, false) {
                Ok(send) => {
                    let client = Client(Tunnel::new(send, recv));
                    match (session.meter(), deflating) {
                        (None, None) => spawn_session(&worker, session.run(client, Carrier::Http2), open),
                        (Some(meter), None) => {
                            let client = Metered::new(client, meter);
                            spawn_session(&worker, session.run(client, Carrier::Http2), open);
                        }
                        (meter, Some(deflating)) => {
                            let client = deflated(client, meter, deflating);
                            spawn_session(&worker, session.run(client, Carrier::Http2), open);
                        }
                    }
                }
                Err(e) => session.abandon(&e),
            }
        }
        // Only a CONNECT is judged to be an upgrade over HTTP/2.
        (Reply::Tunnel(..), None) => respond.send_reset(Reason::INTERNAL_ERROR),
    }
}

/// Runs a session in a task of its own: that of its request is as large as a request needs it.
fn spawn_session(worker: &Worker, session: impl Future<Output = ()> + Send + 'static, open: OpenStream) {
    worker.tasks.spawn(async move {
        session.await;
        drop(open);
    });
}

/// Interim answers, when some have come.
async fn taken(interim: &Interim) -> Vec<Response<()>> {
    poll_fn(|_| match interim.take() {
        none if none.is_empty() => Poll::Pending,
        some => Poll::Ready(some),
    })
    .await
}

fn send_informational(respond: &mut SendResponse<Bytes>, answers: Vec<Response<()>>) {
    for answer in answers {
        let _ = respond.send_informational(answer); // a failure shows with the answer
    }
}

/// A new sender, whose receiver is put into `receiver`.
fn sender<T>(receiver: &mut Option<oneshot::Receiver<T>>) -> oneshot::Sender<T> {
    let (sender, its_receiver) = oneshot::channel();
    *receiver = Some(its_receiver);
    sender
}

/// Returns true when the sender has sent, false when it was dropped; waits for ever if there is none.
async fn received(receiver: &mut Option<oneshot::Receiver<()>>) -> bool {
    match receiver {
        Some(receiver) => receiver.await.is_ok(),
        None => pending().await,
    }
}

/// What becomes of a request's body, beside and behind the answer.
struct Upload {
    rest: oneshot::Receiver<Rest>,
    unread: Option<RecvStream>,
    /// `rest` has said all it will say.
    told: bool,
}

impl Upload {
    /// Returns if the body is malformed.
    ///
    /// # Cancel safety
    /// Safe.
    async fn malformed(&mut self) {
        if !self.told {
            let rest = (&mut self.rest).await;
            self.told = true;
            match rest {
                Ok(Rest::Malformed) => return,
                Ok(Rest::Unread(recv)) => self.unread = Some(recv),
                Err(_) => {}
            }
        }
        pending::<()>().await;
    }

    /// The client may still be sending a body that is not used. Ending the stream now would be a RST_STREAM right
    /// behind the answer (RFC 9113 §8.1), and some clients then report that instead.
    async fn read_rest(mut self, draining: &StopSignal) {
        // Not before the backend has had of it what it takes.
        if !self.told
            && let Ok(Rest::Unread(recv)) = self.rest.await
        {
            self.unread = Some(recv);
        }
        let Some(mut recv) = self.unread else { return };
        let bounds = linger::Bounds::begin();
        while let Some(Some(Ok(data))) = bounds.hold(recv.data(), draining).await {
            if recv.flow_control().release_capacity(data.len()).is_err() {
                return;
            }
        }
    }
}

/// Sends an answer, and waits until the network has it; one that breaks off is reset, so that
/// the client doesn't take it for complete. Returns whether the client has all of it.
async fn send_answer(
    respond: &mut SendResponse<Bytes>,
    mut head: Parts,
    body: &mut ToClient,
    is_head: bool,
) -> bool {
    finish_head(&mut head.headers);
    if let (Some(len), Entry::Vacant(field)) = (body.size_hint().exact(), head.headers.entry(CONTENT_LENGTH))
        && head.status.as_u16() >= 200
        && !matches!(head.status.as_u16(), 204 | 304)
        && !is_head
    {
        field.insert(HeaderValue::from(len));
    }
    let ends = is_head || body.is_end_stream();
    let Ok(mut send) = respond.send_response(Response::from_parts(head, ()), ends) else {
        return false; // the client has reset the stream
    };
    if ends {
        return true;
    }
    let queued = Arc::default();
    if !send_body(&mut send, body, &queued).await {
        return false;
    }
    let reset = tokio::select! {
        biased;
        _ = poll_fn(|cx| send.poll_reset(cx)) => true,
        () = poll_fn(|cx| queued.poll_sent(cx)) => false,
    };
    if reset {
        body.lost();
    }
    !reset
}

/// Queues a body; says whether it is whole.
async fn send_body(send: &mut SendStream<Bytes>, body: &mut ToClient, queued: &Arc<Queued>) -> bool {
    loop {
        let frame = tokio::select! {
            frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)) => frame,
            _ = poll_fn(|cx| send.poll_reset(cx)) => return false,
        };
        match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                let ends = body.is_end_stream();
                if !send_data(send, data, ends, queued).await {
                    body.lost();
                    return false;
                }
                if ends {
                    return true;
                }
            }
            Some(Ok(Err(frame))) => {
                if let Ok(mut trailers) = frame.into_trailers() {
                    remove_hop_by_hop(&mut trailers);
                    return send.send_trailers(trailers).is_ok();
                }
            }
            Some(Err(_)) => {
                send.send_reset(Reason::INTERNAL_ERROR);
                return false;
            }
            None => return send.send_data(Bytes::new(), true).is_ok(),
        }
    }
}

/// Says whether the client still takes data.
async fn send_data(send: &mut SendStream<Bytes>, mut data: Bytes, ends: bool, queued: &Arc<Queued>) -> bool {
    while !data.is_empty() {
        let len = frame_len(data.len());
        send.reserve_capacity(data.len().min(len));
        while send.capacity() == 0 {
            match timeout(STALL_MAX, poll_fn(|cx| send.poll_capacity(cx))).await {
                Ok(Some(Ok(_))) => {}
                Ok(_) => return false,
                Err(_) => {
                    send.send_reset(Reason::CANCEL); // it took nothing for so long
                    return false;
                }
            }
        }
        let chunk = data.split_to(send.capacity().min(data.len()).min(len));
        if send.send_data(queued.count(chunk), ends && data.is_empty()).is_err() {
            return false;
        }
    }
    true
}

/// How long the next DATA frame is, of so many bytes: with a record of its own, unless that takes one frame more.
fn frame_len(len: usize) -> usize {
    if len <= len.div_ceil(CHUNK_LEN) * RECORD_LEN { RECORD_LEN } else { CHUNK_LEN }
}

/// What hyper would do: no fields of a hop (RFC 9113 §8.2.2), and a Date (RFC 9110 §6.6.1).
fn finish_head(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    if let Entry::Vacant(field) = headers.entry(DATE)
        && let Some(date) = date()
    {
        field.insert(date);
    }
}

/// The time, written once a second.
fn date() -> Option<HeaderValue> {
    thread_local! {
        static WRITTEN: RefCell<Option<(Duration, HeaderValue)>> = const { RefCell::new(None) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WRITTEN.with_borrow_mut(|written| match written {
        Some((then, field)) if then.as_secs() == now.as_secs() => Some(field.clone()),
        _ => {
            let date = HttpDate::from(UNIX_EPOCH + now);
            let field = HeaderValue::try_from(date.to_string()).ok()?;
            Some(written.insert((now, field)).1.clone())
        }
    })
}

#[cfg(test)]
mod tests;
