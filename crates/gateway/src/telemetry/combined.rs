//! The format of Apache and nginx that most tools read: `combined`, without the query.
//!
//! `192.0.2.7 - alice [30/Nov/2026:01:22:16 +0000] "GET /wss HTTP/1.1" 101 1903442 "-" "-"`: what a peer has sent is
//! escaped as nginx does it, so that it can't end its field or its line. Where the client came from and what it calls
//! itself is not known.

use super::address::write_ip;
use super::escape::escape_word;
use super::peer::cut;
use super::record::{Kind, Record};
use super::stamp::Stamp;

/// Writes the line, without its end.
pub(super) fn write(record: &Record<'_>, stamp: &Stamp, out: &mut String) {
    write_ip(record.client, out);
    out.push_str(" - ");
    match record.subject {
        Some(subject) if !subject.is_empty() => escape_word(&cut(subject), out),
        _ => out.push('-'),
    }
    out.push_str(" [");
    stamp.write_as_apache(out);
    out.push_str("] \"");
    escape_word(&cut(record.method.as_str()), out);
    out.push(' ');
    escape_word(record.path, out);
    out.push(' ');
    out.push_str(record.protocol());
    out.push_str("\" ");
    match record.status {
        Some(status) => out.push_str(itoa::Buffer::new().format(status.as_u16())),
        None => out.push('-'),
    }
    out.push(' ');
    let sent_bytes = match record.kind {
        Kind::Request { sent_bytes, .. } => Some(sent_bytes),
        Kind::Opened { .. } => None,
        Kind::Session { outcome, .. } => outcome.ok().map(|outcome| outcome.from_backend.payload_bytes),
    };
    match sent_bytes {
        Some(bytes) => out.push_str(itoa::Buffer::new().format(bytes)),
        None => out.push('-'),
    }
    out.push_str(" \"-\" \"-\"");
}
