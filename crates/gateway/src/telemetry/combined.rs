//! The format of Apache and nginx that most tools read: `combined`, without the query.
//!
//! `192.0.2.7 - alice [30/Nov/2026:01:22:16 +0000] "GET /wss HTTP/1.1" 101 1903442 "-" "-"`: what a peer has sent is
//! escaped as nginx does it, so that it can't end its field or its line. Where the client came from and what it calls
//! itself is not known.

use super::address::write_ip;
use super::escape::escape_word;
use super::line_buf::LineBuf;
use super::peer::cut;
use super::record::{Kind, Record};
use super::stamp::Stamp;

/// Writes the line, without its end.
pub(super) fn write(record: &Record<'_>, stamp: &Stamp, out: &mut LineBuf) {
    write_ip(record.client, out);
    out.text(" - ");
    match record.subject {
        Some(subject) if !subject.is_empty() => word(&cut(subject), out),
        _ => out.text("-"),
    }
    out.text(" [");
    stamp.write_as_apache(out);
    out.text("] \"");
    word(&cut(record.method.as_str()), out);
    out.text(" ");
    word(record.path, out);
    out.text(" ");
    out.text(record.protocol());
    out.text("\" ");
    match record.status {
        Some(status) => out.number(status.as_u16().into()),
        None => out.text("-"),
    }
    out.text(" ");
    let sent_bytes = match record.kind {
        Kind::Request { sent_bytes, .. } => Some(sent_bytes),
        Kind::Opened { .. } => None,
        Kind::Session { outcome, .. } => outcome.ok().map(|outcome| outcome.from_backend.payload_bytes),
    };
    match sent_bytes {
        Some(bytes) => out.number(bytes),
        None => out.text("-"),
    }
    out.text(" \"-\" \"-\"");
}

/// Writing into a [`LineBuf`] can't fail.
fn word(value: &str, out: &mut LineBuf) {
    let _ = escape_word(value, out);
}
