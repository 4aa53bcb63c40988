//! The command's end of a tap: lines for people or programs, and a file for Wireshark.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::frame::Frame;
use super::inflate::{Inflated, Inflater};
use super::pcapng::{self, Packet};
use super::show::{Seen, Shown, json_line};
use super::{CAPTURE_LEN_MAX, CopyInfo, Kind, TapLine, TapRequest, TappedSession};
use crate::ops::control::client::{ClientError, next_line, send};
use crate::ops::control::protocol::{ControlResponse, Request};
use crate::telemetry::escape;

/// A file has so many bytes at most.
const FILE_LEN_MAX: u64 = 1 << 30;
/// Of a file.
const MODE: u32 = 0o600;
/// A close code is shown, whatever else is.
const CODE_LEN: usize = 2;
/// Of a peer that has no address.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What a tap is for, and how it is shown.
#[derive(Debug, Clone, Default)]
pub struct TapOptions {
    /// One session.
    pub id: Option<u64>,
    /// Else those of this route, and of this client; or the next one of those.
    pub which: TapRequest,
    /// Bytes of each payload that are shown as text.
    pub text: Option<usize>,
    /// And in hexadecimal.
    pub hex: Option<usize>,
    /// Frames after which it ends.
    pub count: Option<u64>,
    /// Where the frames are written for Wireshark; `-`: to the output, in place of lines.
    pub write: Option<PathBuf>,
    /// Lines are JSON.
    pub json: bool,
}

impl TapOptions {
    fn shown(&self) -> Shown {
        Shown { text: self.text, hex: self.hex }
    }

    fn request(&self) -> Request {
        let shown = self.text.max(self.hex).unwrap_or(0).clamp(CODE_LEN, CAPTURE_LEN_MAX);
        let bytes = if self.write.is_some() { CAPTURE_LEN_MAX } else { shown };
        let inflate = self.text.or(self.hex).is_some();
        let tap = TapRequest { bytes, inflate, ..self.which.clone() };
        Request { command: "tap".to_owned(), id: self.id, tap: Some(tap), ..Request::default() }
    }
}

/// A session that is watched, and the messages of both directions.
#[derive(Debug)]
struct Session {
    ends: [SocketAddr; 2],
    /// From the client, and to it; where messages may be compressed.
    inflaters: Option<[Inflater; 2]>,
}

/// Where everything goes.
struct Printer<'a, O, E> {
    options: &'a TapOptions,
    out: &'a mut O,
    err: &'a mut E,
    file: Option<File>,
    file_len: u64,
    sessions: HashMap<u64, Session>,
    frames: u64,
}

/// Has the gateway behind the socket at `path` show its sessions, until one of them ends the tap. Says whether the gateway
/// has obeyed; if not, what it says is in `err`.
///
/// # Errors
/// If the gateway hangs up, or something can't be written.
///
/// # Cancel safety
/// Safe: everything that has come is written.
pub async fn watch(
    path: &Path,
    options: &TapOptions,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<bool, ClientError> {
    match print(path, options, out, err).await {
        Err(ClientError::Io(e)) if e.kind() == ErrorKind::BrokenPipe => Ok(true), // `| head` has enough
        ended => ended,
    }
}

async fn print(
    path: &Path,
    options: &TapOptions,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<bool, ClientError> {
    let file = match &options.write {
        Some(path) if path != Path::new("-") => Some(create(path)?), // before anything is tapped
        Some(_) | None => None,
    };
    let mut lines = send(path, &options.request()).await?;
    let sessions = HashMap::new();
    let out = &mut BufWriter::new(out);
    let mut printer = Printer { options, out, err, file, file_len: 0, sessions, frames: 0 };
    if options.write.is_some() {
        printer.write_block(&pcapng::begin())?; // who reads it needs it before the first frame
        printer.flush()?;
    }
    if options.which.next {
        writeln!(printer.err, "waiting for the next session")?;
    }
    let mut line = Vec::new();
    loop {
        next_line(&mut lines, &mut line).await?;
        let said: Value = serde_json::from_slice(&line)?;
        if said.get("ok").is_some() {
            return printer.on_end(&serde_json::from_value(said)?);
        }
        // A later release may say more.
        if let Ok(said) = serde_json::from_value(said) {
            printer.on_line(said)?;
        }
        if lines.buffer().is_empty() {
            printer.flush()?;
        }
        if options.count.is_some_and(|count| printer.frames >= count) || printer.file_len >= FILE_LEN_MAX {
            printer.flush()?;
            if printer.file_len >= FILE_LEN_MAX {
                writeln!(printer.err, "the file has 1 GiB, and the tap ends")?;
            }
            return Ok(true);
        }
    }
}

impl<O: Write, E: Write> Printer<'_, O, E> {
    fn on_line(&mut self, said: TapLine) -> io::Result<()> {
        if let TapLine::Copy(copy) = &said {
            return self.on_copy(copy);
        }
        let shown = if self.options.json { json_line(&serde_json::to_value(&said)?) } else { String::new() };
        match said {
            TapLine::Tapped(session) => {
                let TappedSession { session: id, client, peer, route, to, from_beginning, .. } = &session;
                let since = if *from_beginning { "from its beginning" } else { "from now on" };
                let text = format!("session {id} {since}: client {client} ({peer}), route {route}, to {to}");
                self.say(&text, &shown)?;
                self.sessions.insert(*id, Session::new(&session));
                Ok(())
            }
            TapLine::Copy(_) => Ok(()),
            TapLine::Ended { session, why } => {
                self.sessions.remove(&session);
                self.say(&format!("session {session} is not tapped any more: {why}"), &shown)
            }
            TapLine::Taken { session } => {
                self.say(&format!("session {session} is left out: another tap watches it"), &shown)
            }
        }
    }

    /// What is no frame.
    fn say(&mut self, text: &str, json: &str) -> io::Result<()> {
        if self.options.json && !self.writes_to_out() {
            return self.out.write_all(json.as_bytes());
        }
        self.flush()?; // the lines before it come first
        writeln!(self.err, "{}", escape::visible(text))
    }

    fn on_copy(&mut self, copy: &CopyInfo) -> io::Result<()> {
        let Ok(wire) = BASE64_STANDARD.decode(&copy.wire) else { return Ok(()) };
        self.frames += 1;
        let nobody = || Session { ends: [NOWHERE; 2], inflaters: None };
        let session = self.sessions.entry(copy.session).or_insert_with(nobody);
        if self.options.write.is_some() {
            let [client, gateway] = session.ends;
            let ends = if copy.from_client { [client, gateway] } else { [gateway, client] };
            let is_frame = copy.kind == Kind::Frame;
            let packet = Packet { at_us: copy.at_us, ends, is_frame, wire: &wire, len: copy.wire_len(&wire) };
            let block = pcapng::packet(&packet);
            self.write_block(&block)?;
            if self.writes_to_out() {
                return Ok(());
            }
        }
        let frame = Some(&wire).filter(|_| copy.kind == Kind::Frame);
        let frame = frame.and_then(|wire| Frame::parse(wire, copy.from_client));
        let inflater = session_inflater(&mut self.sessions, copy);
        let shown = self.options.shown();
        let wanted = shown.text.max(shown.hex);
        let inflated = match (&frame, inflater, wanted) {
            (Some(frame), Some(inflater), Some(wanted)) => {
                if copy.dropped > 0 {
                    inflater.on_gap();
                }
                inflater.on_frame(frame, wanted)
            }
            _ => Inflated::AsSent,
        };
        let seen = Seen { copy, wire: &wire, frame, inflated };
        if self.options.json {
            return self.out.write_all(json_line(&seen.json(shown)).as_bytes());
        }
        if copy.dropped > 0 {
            let way = if copy.from_client { "from the client" } else { "to the client" };
            writeln!(
                self.out,
                "({} frames of session {} {way} are left out: they came too fast)",
                copy.dropped, copy.session
            )?;
        }
        self.out.write_all(seen.text(shown).as_bytes())
    }

    fn writes_to_out(&self) -> bool {
        self.options.write.as_deref() == Some(Path::new("-"))
    }

    /// To the file, or to the output in its place.
    fn write_block(&mut self, block: &[u8]) -> io::Result<()> {
        self.file_len += block.len() as u64;
        match &mut self.file {
            Some(file) => file.write_all(block),
            None => self.out.write_all(block),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn on_end(mut self, answer: &ControlResponse) -> Result<bool, ClientError> {
        self.flush()?;
        if self.options.json && !self.writes_to_out() {
            let last = json_line(&serde_json::to_value(answer)?);
            self.out.write_all(last.as_bytes())?;
            return Ok(answer.ok);
        }
        if let Some(error) = &answer.error {
            writeln!(self.err, "wssgate: {}", escape::visible(error))?;
        }
        if let Some(report) = &answer.tap {
            let left_out = match report.dropped {
                0 => String::new(),
                dropped => format!(" ({dropped} more were left out: they came too fast)"),
            };
            writeln!(self.err, "{} frames{left_out}; {}", report.frames, report.why)?;
        }
        Ok(answer.ok)
    }
}

fn session_inflater<'a>(
    sessions: &'a mut HashMap<u64, Session>,
    copy: &CopyInfo,
) -> Option<&'a mut Inflater> {
    let [from_client, to_client] = sessions.get_mut(&copy.session)?.inflaters.as_mut()?;
    Some(if copy.from_client { from_client } else { to_client })
}

impl Session {
    fn new(tapped: &TappedSession) -> Self {
        let client = tapped.peer.parse().unwrap_or(NOWHERE);
        let inflaters = tapped.deflate.then(|| [Inflater::new(), Inflater::new()]);
        Self { ends: [client, tapped.local.unwrap_or(NOWHERE)], inflaters }
    }
}

impl CopyInfo {
    /// The length of all of it on the wire, of which `wire` is the front: of a frame with its head.
    fn wire_len(&self, wire: &[u8]) -> u64 {
        match (self.kind, Frame::parse(wire, self.from_client)) {
            (Kind::Frame, Some(frame)) => self.len + (wire.len() - frame.payload.len()) as u64,
            _ => self.len,
        }
    }
}

/// For its owner alone, also if it was there: it has what people have said to each other.
fn create(path: &Path) -> Result<File, ClientError> {
    let create = || {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
        if file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(MODE))?; // else it is a pipe or a device
        }
        Ok(file)
    };
    create().map_err(|error| ClientError::File { path: path.to_owned(), error })
}
