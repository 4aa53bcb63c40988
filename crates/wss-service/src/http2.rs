//! HTTP/2 with clients, by h2: hyper's own engine, without hyper around it.
//!
//! A session's stream has to end by RST_STREAM where TCP would by RST, and to notice that of the client (RFC 8441 §5); one
//! malformed CONNECT must not end the connection that other sessions live on; and h2 counts small DATA frames, which are
//! what WebSockets are made of, as an attack by default. hyper has no way to say any of this.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use frame_core::policy::STALL_MAX;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use httpdate::HttpDate;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use upgrade_handler::Tunnel;
use upgrade_handler::flood::Counted;
use upgrade_handler::hop_by_hop::remove_hop_by_hop;
use upgrade_handler::resets::Resets;
use upgrade_handler::turn::in_turns;

use crate::answer::{Reply, answer};
use crate::body::{AnswerBody, RequestBody};
use crate::client::Connection;
use crate::handler::Handler;
use crate::log;
use crate::shared::Shared;
use crate::stream::{Client, Stream};

/// Streams a client may have open at once.
const STREAMS_MAX: u32 = 256;
/// Tasks of streams, with those whose client has reset the stream while a handler is at work.
const TASKS_MAX: usize = 2 * STREAMS_MAX as usize;
/// What a client may send on a stream before it is read.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for a connection: so many times a stream's that stalled streams don't stall others.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
/// h2 charges a DATA frame under 256 bytes with what is missing to 256 until it is taken, and ends the connection when this
/// is used up.
const SMALL_FRAMES_BUDGET: usize = 16 * 1024 * 1024;
/// What is queued for a client on one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// One DATA frame of the default size.
const CHUNK_LEN: usize = 16 * 1024;
/// The longest head of a request, in bytes.
const HEAD_LEN_MAX: u32 = 64 * 1024;
/// How long a client is given to acknowledge the end of the connection.
const END_WAIT: Duration = Duration::from_secs(2);

/// Serves the streams of a connection until it ends.
pub(crate) async fn serve<H: Handler>(shared: Arc<Shared<H>>, connection: Connection, mut stream: Stream) {
    let (peer, patience) = (connection.link.peer, shared.settings.header_timeout);
    stream.gather_writes();
    let (io, flood) = Counted::new(stream);
    let (io, turn_end) = in_turns(io);
    let handshake = Builder::new()
        .enable_connect_protocol() // RFC 8441 §3; without it h2 resets a stream with :protocol
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES_BUDGET)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEAD_LEN_MAX)
        .handshake::<_, Bytes>(io);
    let handshake = async {
        tokio::select! {
            biased;
            h2 = handshake => h2.map_err(|e| e.to_string()),
            e = turn_end.failed() => Err(e.to_string()),
        }
    };
    let mut h2 = match timeout(patience, handshake).await {
        Ok(Ok(h2)) => h2,
        Ok(Err(cause)) => return log::no_connection(peer, &cause),
        Err(_) => return log::no_connection(peer, &"the client sent no HTTP/2 preface in time"),
    };
    let (mut resets, given_up) = (Resets::new(std::time::Instant::now()), Arc::new(AtomicUsize::new(0)));
    let streams = TaskTracker::new();
    streams.close(); // so that they can be waited for
    let (mut busy, mut ending) = (false, false);
    let mut quiet = pin!(sleep(patience));
    let mut draining = pin!(shared.end.draining.cancelled());
    loop {
        tokio::select! {
            biased;
            accepted = h2.accept() => match accepted {
                Some(Ok((_, mut respond))) if streams.len() >= TASKS_MAX => {
                    respond.send_reset(Reason::REFUSED_STREAM); // RFC 9113 §8.7: it may be tried again
                }
                Some(Ok((request, respond))) => {
                    let more = given_up.swap(0, Ordering::Relaxed);
                    if more > 0 && resets.are_too_many(more, std::time::Instant::now()) {
                        h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM); // RFC 9113 §10.5
                        log::warning("connection closed: the client resets its requests before they are answered", &peer);
                        continue;
                    }
                    busy = true;
                    // On the heap: a task is moved several times before it runs.
                    let task = Box::pin(serve_stream(shared.clone(), connection.clone(), request, respond, given_up.clone()));
                    shared.end.tasks.spawn(streams.track_future(task));
                }
                Some(Err(e)) => return log::no_connection(peer, &e),
                None => return,
            },
            // Right behind h2's turn, and whenever the network takes more.
            e = turn_end.failed() => return log::no_connection(peer, &e),
            () = flood.noticed() => {
                h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM); // RFC 9113 §10.5
                log::warning("connection closed: the client floods it with frames that carry nothing", &peer);
            }
            () = streams.wait(), if busy => {
                busy = false;
                quiet.as_mut().reset(Instant::now() + if ending { END_WAIT } else { patience });
            }
            () = &mut draining, if !ending => {
                ending = true;
                quiet.as_mut().reset(Instant::now() + END_WAIT);
                h2.graceful_shutdown(); // GOAWAY; streams in flight finish
            }
            () = &mut quiet, if !busy => {
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

async fn serve_stream<H: Handler>(
    shared: Arc<Shared<H>>,
    connection: Connection,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    given_up: Arc<AtomicUsize>,
) {
    let (head, recv) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let (body, tunnel) = match recv {
        recv if head.method == Method::CONNECT => (RequestBody::empty(), Some(recv)), // DATA is the tunnel's
        recv if recv.is_end_stream() => (RequestBody::empty(), None),
        recv => (RequestBody::http2(recv), None),
    };
    let reply = tokio::select! {
        biased;
        _ = poll_fn(|cx| respond.poll_reset(cx)) => {
            given_up.fetch_add(1, Ordering::Relaxed);
            return;
        }
        reply = answer(&shared, &connection, Request::from_parts(head, body)) => reply,
    };
    match (reply, tunnel) {
        (Reply::Answer(answer), _) => send_answer(&mut respond, answer, is_head).await,
        (Reply::Open(mut answer, opened), Some(recv)) => {
            finish_head(answer.headers_mut());
            match respond.send_response(answer, false) {
                Ok(send) => opened.run(Client(Tunnel::new(send, recv))).await,
                Err(_) => opened.abandon().await, // the client has reset the stream
            }
        }
        // Only a CONNECT is judged to be a handshake over HTTP/2.
        (Reply::Open(_, opened), None) => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            opened.abandon().await;
        }
    }
}

/// Sends an answer. One that breaks off is reset, so that the client doesn't take it for whole.
async fn send_answer(respond: &mut SendResponse<Bytes>, answer: Response<AnswerBody>, is_head: bool) {
    let (mut head, body) = answer.into_parts();
    finish_head(&mut head.headers);
    let has_none = head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let (Some(len), false) = (body.size_hint().exact(), has_none || is_head) {
        head.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(len));
    }
    let ends = is_head || body.is_end_stream();
    // An error: the client has reset the stream.
    if let Ok(mut send) = respond.send_response(Response::from_parts(head, ()), ends)
        && !ends
    {
        send_body(&mut send, body).await;
    }
}

async fn send_body(send: &mut SendStream<Bytes>, body: AnswerBody) {
    let mut body = pin!(body);
    loop {
        let frame = tokio::select! {
            frame = poll_fn(|cx| body.as_mut().poll_frame(cx)) => frame,
            _ = poll_fn(|cx| send.poll_reset(cx)) => return,
        };
        match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                if !send_data(send, data).await {
                    return;
                }
            }
            Some(Ok(Err(frame))) => {
                if let Ok(mut trailers) = frame.into_trailers() {
                    remove_hop_by_hop(&mut trailers);
                    let _ = send.send_trailers(trailers); // an error: the client has gone
                }
                return;
            }
            Some(Err(e)) => {
                log::failed_beside("an answer has broken off", &e);
                return send.send_reset(Reason::INTERNAL_ERROR);
            }
            None => {
                let _ = send.send_data(Bytes::new(), true);
                return;
            }
        }
    }
}

/// Says whether the client still takes data.
async fn send_data(send: &mut SendStream<Bytes>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        send.reserve_capacity(data.len().min(CHUNK_LEN));
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
        let chunk = data.split_to(send.capacity().min(data.len()).min(CHUNK_LEN));
        if send.send_data(chunk, false).is_err() {
            return false;
        }
    }
    true
}

/// What hyper would do: no fields of a hop, and a Date (RFC 9110 §6.6.1).
fn finish_head(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers); // RFC 9113 §8.2.2
    if !headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::try_from(HttpDate::from(SystemTime::now()).to_string())
    {
        headers.insert(DATE, date);
    }
}
