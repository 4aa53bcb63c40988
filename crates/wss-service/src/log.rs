//! What the service says of its sessions and of itself, by `tracing`: at most one line a session, at its end.

use std::time::Duration;

use frame_core::outcome::{Outcome, Traffic};
use tls_acceptor::{Expiry, ExpiryLevel, ReloadReport};
use tokio::net::TcpListener;
use tracing::{debug, error, info, warn};

use crate::closed::Closed;
use crate::drive::Failure;
use crate::panics::Panic;
use crate::session::Session;

/// Bytes that a line shows of a peer's text, and of what a handler says, which may have such a text in it.
const SHOWN_MAX: usize = 256;

/// Connections are accepted from now on.
pub(crate) fn listening(listener: &TcpListener, is_tls: bool) {
    if let Ok(address) = listener.local_addr() {
        info!(%address, tls = is_tls, "listening");
    }
}

/// A session has ended.
pub(crate) fn session(
    session: &Session,
    took: Duration,
    closed: &Closed,
    outcome: Option<&Outcome>,
    failure: Option<&Failure>,
) {
    let (received, sent) =
        outcome.map_or((Traffic::default(), Traffic::default()), |o| (o.from_client, o.from_backend));
    let (user, failure) = (session.user(), failure.map(ToString::to_string));
    macro_rules! write_line {
        ($level:ident) => {
            $level!(
                id = format_args!("{:016x}", session.id()),
                client = %session.client(),
                server_name = session.tls().and_then(|tls| tls.server_name.as_deref()),
                path = shown(session.path()),
                user = user.as_deref().map(shown),
                duration_s = took.as_secs_f64(),
                messages_in = received.messages,
                bytes_in = received.payload_bytes,
                messages_out = sent.messages,
                bytes_out = sent.payload_bytes,
                dropped = session.dropped_messages(),
                ended_by = closed.by.as_str(),
                code = closed.code,
                reason = shown(&closed.reason),
                cause = %closed.cause,
                failure = failure.as_deref().map(shown),
                "session"
            )
        };
    }
    match &failure {
        None => write_line!(info),
        Some(_) => write_line!(error),
    }
}

/// A handler has failed, in a session whose line another writes.
pub(crate) fn failed(session: &Session, failure: &Failure) {
    let id = format_args!("{:016x}", session.id());
    let cause = failure.to_string();
    error!(id, client = %session.client(), path = shown(session.path()), cause = shown(&cause), "a handler has failed");
}

/// Other certificates are served from now on.
pub(crate) fn certificates(report: &ReloadReport) {
    info!(
        generation = report.generation,
        added = report.added.len(),
        removed = report.removed.len(),
        replaced = report.replaced.len(),
        kept = report.kept.len(),
        unchanged = report.unchanged,
        nearest_expiry_days = report.nearest_expiry.as_ref().map(|(days, _)| days),
        "certificates"
    );
}

/// A certificate has come nearer to its end.
pub(crate) fn expiry(expiry: &Expiry) {
    let days_left = expiry.days_left;
    match expiry.stage {
        ExpiryLevel::Within(_) => warn!(problem = %expiry, days_left, "a certificate expires"),
        ExpiryLevel::Expired(_) => error!(problem = %expiry, days_left, "a certificate has expired"),
    }
}

/// A handshake was refused.
pub(crate) fn refused(client: std::net::IpAddr, path: &str, status: u16, cause: &str) {
    info!(%client, path = shown(path), status, cause, "refused");
}

/// A handler has panicked where there is no session that says so.
pub(crate) fn panicked(what: &str, panic: &Panic) {
    error!(place = panic.place, said = shown(&panic.message), "{what} has panicked");
}

/// A connection came to nothing, as connections of port scanners and of people who close a tab do.
pub(crate) fn no_connection(peer: std::net::SocketAddr, cause: &dyn std::fmt::Display) {
    debug!(%peer, %cause, "no connection");
}

/// The engine of the cluster is connected, and knows all users and groups.
#[cfg(feature = "cluster")]
pub(crate) fn cluster_connected(process: &str, engine: &str) {
    info!(process, engine, "cluster connected");
}

/// It is not, or no longer.
#[cfg(feature = "cluster")]
pub(crate) fn cluster_away(cause: &str) {
    let cause = format_args!("{}", shown(cause)); // a thousand commands may have failed
    warn!(%cause, "cluster away: only sessions of this process hear each other, it is tried again");
}

/// Something was dropped or refused, and `count` times since this was last said.
#[cfg(feature = "cluster")]
pub(crate) fn cluster_complaint(what: &str, cause: &dyn std::fmt::Display, count: u64) {
    let cause = cause.to_string(); // it may quote what came
    warn!(cause = shown(&cause), count, "{what}");
}

/// What is beside the sessions has failed, and may quote a client.
pub(crate) fn failed_beside(what: &str, cause: &dyn std::fmt::Display) {
    let cause = cause.to_string();
    warn!(cause = shown(&cause), "{what}");
}

/// Something is wrong that an operator should look at.
pub(crate) fn warning(what: &str, cause: &dyn std::fmt::Display) {
    warn!(%cause, "{what}");
}

/// The service has come to a stage of its life.
pub(crate) fn stage(what: &str, sessions: usize) {
    info!(sessions, "{what}");
}

/// The front of a peer's text.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_MAX)]
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber, subscriber};

    use super::*;

    /// Keeps the values of fields.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Visit for Kept {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0.lock().unwrap().push(format!("{field}={value:?}"));
        }
    }

    impl Subscriber for Kept {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn what_a_panic_quotes_of_a_client_is_cut_and_escaped() {
        let kept = Kept::default();
        let message = format!("no command: \n{}", "a".repeat(10_000));
        let panic = Panic { place: "chat.rs:7:9".into(), message };
        subscriber::with_default(kept.clone(), || panicked("on_close", &panic));
        let fields = kept.0.lock().unwrap().join(" ");
        assert!(fields.contains("said=\"no command: \\naaa") && fields.len() < 2 * SHOWN_MAX, "{fields}");
    }
}
