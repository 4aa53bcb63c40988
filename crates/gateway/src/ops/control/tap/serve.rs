//! The gateway's end of a tap: from the queue of the sessions to the one who asks.
//!
//! A tap ends with the connection that asked for it, with the last session that it watches, when taps are turned off,
//! and when the control socket closes. A client that takes nothing keeps no session waiting: the queue is bounded.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, BytesMut};
use frame_core::head::Sender;
use frame_core::tap::{CopyKind, TapCopy, TapEvent, TapReceiver};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{CAPTURE_LEN_MAX, CopyInfo, Kind, TapLine, TapReport, TapRequest, TappedSession};
use crate::context::registry::Entry;
use crate::context::taps::{Capture, TAP_SESSIONS_MAX, Tap, Which};
use crate::net::listening::{ClientName, PeerName};
use crate::ops::control::protocol::{ControlResponse, Request};
use crate::ops::control::targets::unhidden;
use crate::ops::overview::Overview;
use crate::site::drained::DrainTarget;

/// Lines that are written together, in bytes.
const WRITE_LEN: usize = 64 * 1024;
/// How long a client may take nothing.
const WRITE_TIME: Duration = Duration::from_secs(60);
/// How long it may take for the last lines.
const LAST_WRITE_TIME: Duration = Duration::from_secs(2);
/// How often sessions are looked for that have gone without a word.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A tap at work.
struct Serving<'a> {
    overview: &'a Overview,
    tap: Tap,
    queue: TapReceiver,
    write: &'a mut OwnedWriteHalf,
    /// Lines that are not written.
    lines: BytesMut,
    /// Sessions that are watched, and those of them that have said so.
    watched: HashSet<u64>,
    begun: HashSet<u64>,
    /// One more will be when it opens.
    is_waiting: bool,
    frames: u64,
}

/// Obeys a `tap`; returns the last line.
///
/// # Errors
/// If the client takes nothing any more.
pub(in crate::ops::control) async fn serve(
    overview: &Overview,
    request: &Request,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    stop: &CancellationToken,
) -> io::Result<ControlResponse> {
    let asked = request.tap.clone().unwrap_or_default();
    let which = match which(overview, &asked) {
        Ok(which) => which,
        Err(why) => return Ok(ControlResponse::error(why)),
    };
    let found = match sessions(overview, request.id, &asked, &which) {
        Ok(found) => found,
        Err(why) => return Ok(ControlResponse::error(why)),
    };
    let len = asked.bytes.min(CAPTURE_LEN_MAX);
    let capture = Capture { len, deflated_len: if asked.inflate { CAPTURE_LEN_MAX } else { len } };
    let (tap, queue) = match overview.taps.begin(capture) {
        Ok(begun) => begun,
        Err(why) => return Ok(ControlResponse::error(why.to_string())),
    };
    let (mut watched, mut taken) = (HashSet::new(), Vec::new());
    for id in found {
        match overview.session(id) {
            Some(entry) if tap.watch(id, &entry.handle) => drop(watched.insert(id)),
            Some(_) => taken.push(id),
            None => {} // it has just ended
        }
    }
    if watched.is_empty() && !asked.next {
        let why = if taken.is_empty() {
            "it has just ended"
        } else {
            "another tap watches it, and each has one at most"
        };
        return Ok(ControlResponse::error(format!("there is no session to be tapped: {why}")));
    }
    let peer = AsRef::<tokio::net::UnixStream>::as_ref(write).peer_cred()?;
    let (uid, pid) = (peer.uid(), peer.pid());
    let route = which.route.as_ref().map(tracing::field::display);
    let client = which.client.map(tracing::field::display);
    info!(uid, pid, id = request.id, route, client, next = asked.next, bytes = asked.bytes, "a tap begins");
    let is_waiting = asked.next;
    if is_waiting {
        tap.watch_next(which);
    }
    let (begun, lines) = (HashSet::new(), BytesMut::new());
    let mut serving = Serving { overview, tap, queue, write, lines, watched, begun, is_waiting, frames: 0 };
    let off = serving.tap.off.clone();
    let why = tokio::select! {
        done = serving.run(taken) => done,
        () = off.cancelled() => Ok("taps were turned off by a reload"),
        () = stop.cancelled() => Ok("the control socket has closed: the gateway ends, or another process has taken over"),
        () = ended(read) => Err(ErrorKind::ConnectionReset.into()),
    };
    let Serving { tap, queue, write, mut lines, frames, .. } = serving;
    drop(tap); // the sessions go on without it
    let dropped = queue.dropped();
    let shown = match &why {
        Ok(why) => (*why).to_owned(),
        Err(e) => match e.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "who asked has gone".to_owned(),
            ErrorKind::TimedOut => format!("who asked has taken nothing for {WRITE_TIME:?}"),
            _ => e.to_string(),
        },
    };
    info!(uid, pid, id = request.id, frames, dropped, cause = shown, "a tap has ended");
    let why = why?;
    timeout(LAST_WRITE_TIME, write.write_all_buf(&mut lines)).await??;
    let report = TapReport { why: why.to_owned(), frames, dropped };
    Ok(ControlResponse { tap: Some(report), ..ControlResponse::done() })
}

/// The client has gone, or says something. An empty line asks for nothing.
async fn ended(read: &mut BufReader<OwnedReadHalf>) {
    while matches!(read.read_u8().await, Ok(b'\n')) {}
}

/// What a tap for several sessions is for.
fn which(overview: &Overview, asked: &TapRequest) -> Result<Which, String> {
    let Some(name) = &asked.route else { return Ok(Which { route: None, client: asked.client }) };
    let site = overview.site.load_full();
    let name = unhidden(&site, name);
    match DrainTarget::parse(&name, site.all_routes())? {
        DrainTarget::Route(route) => Ok(Which { route: Some(route), client: asked.client }),
        DrainTarget::Server(_) => {
            Err(format!("{name} is no route; `wssgate status` lists the routes, as --route takes them"))
        }
    }
}

/// The live sessions that are asked for.
fn sessions(
    overview: &Overview,
    id: Option<u64>,
    asked: &TapRequest,
    which: &Which,
) -> Result<Vec<u64>, String> {
    if let Some(id) = id {
        return match overview.session(id) {
            Some(_) => Ok(vec![id]),
            None => Err(format!("there is no live session {id}; `wssgate sessions` lists them")),
        };
    }
    if asked.next {
        return Ok(Vec::new());
    }
    if *which == Which::default() {
        return Err("tap needs the id of a session, --route, --client, or --next".to_owned());
    }
    let covers = |entry: &Entry| which.covers(&entry.route.id, entry.who.client);
    let found: Vec<u64> = overview.sessions.iter().flat_map(|sessions| sessions.ids_of(covers)).collect();
    match found.len() {
        0 => Err("no live session matches; with --next the next one that opens is tapped".to_owned()),
        1..=TAP_SESSIONS_MAX => Ok(found),
        count => Err(format!(
            "{count} live sessions match, and a tap watches {TAP_SESSIONS_MAX} at most: add --client, or name one by its id \
             (`wssgate sessions`)"
        )),
    }
}

impl Serving<'_> {
    /// Runs until nothing is left to be watched.
    async fn run(&mut self, taken: Vec<u64>) -> io::Result<&'static str> {
        for session in taken {
            self.say(&TapLine::Taken { session })?;
        }
        let mut look = interval(LOOK_INTERVAL);
        while self.is_waiting || !self.watched.is_empty() {
            tokio::select! {
                event = self.queue.recv() => if let Some(event) = event {
                    self.on_event(event)?;
                },
                _ = look.tick() => self.look(),
            }
            while self.lines.len() < WRITE_LEN
                && let Some(event) = self.queue.try_recv()
            {
                self.on_event(event)?;
            }
            while self.lines.has_remaining() {
                if timeout(WRITE_TIME, self.write.write_buf(&mut self.lines)).await?? == 0 {
                    return Err(ErrorKind::WriteZero.into());
                }
            }
        }
        Ok("no session is left to be watched")
    }

    /// A session that went without a word, since it ended when the tap began.
    fn look(&self) {
        self.watched
            .iter()
            .filter(|id| self.overview.session(**id).is_none())
            .for_each(|id| self.tap.forget(*id));
    }

    fn on_event(&mut self, event: TapEvent) -> io::Result<()> {
        match event {
            TapEvent::Began { session, is_whole, deflate } => {
                if self.watched.insert(session) {
                    self.is_waiting = false; // the one that was waited for
                }
                if self.begun.insert(session) {
                    let session = self.describe(session, is_whole, deflate);
                    self.say(&TapLine::Tapped(session))?;
                }
            }
            TapEvent::Copy(copy) => {
                self.frames += 1;
                self.say(&TapLine::Copy(info(copy)))?;
            }
            TapEvent::Ended { session, why } => {
                self.watched.remove(&session);
                self.is_waiting &= !self.begun.contains(&session);
                self.say(&TapLine::Ended { session, why: why.into() })?;
            }
        }
        Ok(())
    }

    fn describe(&self, session: u64, from_beginning: bool, deflate: bool) -> TappedSession {
        let site = self.overview.site.load_full();
        let known = self.overview.session(session).map(|entry| TappedSession {
            peer: PeerName(entry.who.peer).to_string(),
            client: ClientName(entry.who.client).to_string(),
            route: site.hidden.hide(entry.route.id.as_str()),
            to: site.hidden.hide(&entry.route.action.to_string()),
            local: self.tap.local(session),
            ..TappedSession::default()
        });
        TappedSession { session, from_beginning, deflate, ..known.unwrap_or_default() }
    }

    fn say(&mut self, line: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(line)?;
        self.lines.extend_from_slice(&text);
        self.lines.extend_from_slice(b"\n");
        Ok(())
    }
}

fn info(copy: TapCopy) -> CopyInfo {
    let TapCopy { session, at, sender, kind, len, wire, dropped } = copy;
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (kind, violation) = match kind {
        CopyKind::Frame => (Kind::Frame, None),
        CopyKind::Bytes => (Kind::Bytes, None),
        CopyKind::Violation(violation) => (Kind::Violation, Some(violation.to_string())),
    };
    CopyInfo {
        session,
        at_us: u64::try_from(at.as_micros()).unwrap_or(u64::MAX),
        from_client: sender == Sender::Client,
        kind,
        violation,
        len,
        wire: BASE64_STANDARD.encode(&wire),
        dropped,
    }
}
