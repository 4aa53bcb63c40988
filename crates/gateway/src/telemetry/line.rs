//! The line of one request or session, when it is over, as each format has it. Pure, but for the duration.

use std::time::Duration;

use frame_core::handle::RateLimit;
use frame_core::outcome::{Cause, Outcome, Party, RoundTrips, Waits};
use tls_acceptor::Alpn;
use tracing::Level;

use super::address::{write_address, write_ip};
use super::combined;
use super::fields::{Fields, JsonFields, TextFields};
use super::live;
use super::peer::cut;
use super::record::{Kind, Record, ServerTimes};
use super::stamp::Stamp;
use crate::site::route_id::RouteId;

/// How an access line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineFormat {
    /// As the other lines of a log for people.
    Text {
        /// For a terminal.
        has_colors: bool,
    },
    /// For a person who watches.
    Live {
        /// For a terminal.
        has_colors: bool,
    },
    /// One object.
    Json,
    /// As Apache and nginx call it.
    Combined,
}

/// What an operator may have to act on stands out.
pub(super) fn is_warning(record: &Record<'_>) -> bool {
    match record.kind {
        Kind::Request { .. } => record.status.is_some_and(|status| status.is_server_error()),
        Kind::Session { outcome, .. } => {
            outcome.is_none_or(|outcome| matches!(outcome.cause, Cause::Lost { party: Party::Backend, .. }))
        }
    }
}

pub(super) fn level(is_warning: bool) -> Level {
    if is_warning { Level::WARN } else { Level::INFO }
}

pub(super) fn message(record: &Record<'_>) -> &'static str {
    match record.kind {
        Kind::Request { .. } => "request",
        Kind::Session { .. } => "session",
    }
}

impl LineFormat {
    /// Writes the line, without its end.
    pub(super) fn write(self, record: &Record<'_>, is_warning: bool, stamp: &Stamp, out: &mut String) {
        match self {
            Self::Text { has_colors } => {
                let [dim, color, end] = match (has_colors, is_warning) {
                    (false, _) => [""; 3],
                    (true, false) => ["\x1b[2m", "\x1b[32m", "\x1b[0m"],
                    (true, true) => ["\x1b[2m", "\x1b[33m", "\x1b[0m"],
                };
                out.push_str(dim);
                stamp.write(out);
                let level = if is_warning { " WARN" } else { " INFO" };
                for part in [end, " ", color, level, end, " ", message(record)] {
                    out.push_str(part);
                }
                fields(record, &mut TextFields { out, has_colors });
            }
            Self::Json => {
                out.push_str("{\"timestamp\":\"");
                stamp.write(out);
                for part in [
                    "\",\"level\":\"",
                    level(is_warning).as_str(),
                    "\",\"message\":\"",
                    message(record),
                    "\"",
                ] {
                    out.push_str(part);
                }
                fields(record, &mut JsonFields(out));
                out.push('}');
            }
            Self::Live { has_colors } => {
                let mut values = live::Values::default();
                fields(record, &mut values);
                live::write(message(record), &values, has_colors, out);
            }
            Self::Combined => combined::write(record, stamp, out),
        }
    }
}

/// The fields that every line has, then those of its kind.
pub(super) fn fields(record: &Record<'_>, out: &mut impl Fields) {
    out.bare("peer", |out| write_address(record.peer, out));
    out.bare("client", |out| write_ip(record.client, out));
    string(out, "server_name", record.server_name);
    string(out, "tls", record.tls);
    out.string("protocol", record.protocol());
    out.word("method", &cut(record.method.as_str()));
    string(out, "host", record.host);
    out.string("path", record.path);
    string(out, "route", record.route.map(RouteId::as_str));
    out.number("generation", record.generation);
    string(out, "backend", record.backend);
    string(out, "backend_protocol", record.backend_protocol);
    if let Some(status) = record.status {
        out.number("status", status.as_u16());
    }
    if let Some(bytes) = record.request_bytes {
        out.number("request_bytes", bytes);
    }
    string(out, "request_id", record.request_id);
    string(out, "subject", record.subject.map(cut).as_deref());
    if let Some(redials) = record.redials {
        out.number("redials", redials);
    }
    string(out, "limit", record.limit.map(RateLimit::as_str));
    out.number("duration_ms", millis(record.duration()));
    match record.kind {
        Kind::Request { sent_bytes, cause } => {
            out.number("sent_bytes", sent_bytes);
            string(out, "cause", cause.map(cut).as_deref());
        }
        Kind::Session { id, outcome } => {
            if let Some(id) = id {
                out.number("id", id);
            }
            begun(record, out);
            match outcome {
                Some(outcome) => ended(outcome, record.upgrade, out),
                None => {
                    out.string("ended_by", Party::Gateway.as_str());
                    out.number("close_code", 1006_u16);
                    out.string("cause", "cut: the gateway has ended (drain_timeout, or a second signal)");
                }
            }
        }
    }
}

/// How a session has begun.
fn begun(record: &Record<'_>, out: &mut impl Fields) {
    if let Some(negotiated) = record.negotiated {
        out.string("tls_suite", negotiated.suite());
        string(out, "tls_group", negotiated.group());
        out.flag("tls_resumed", negotiated.is_resumed());
        string(out, "alpn", negotiated.alpn().map(Alpn::as_str));
    }
    let ServerTimes { connect_us, answer_us } = record.times;
    for (name, time) in [("connect_ms", connect_us), ("answer_ms", answer_us)] {
        if let Some(us) = time {
            out.millis(name, us.get());
        }
    }
}

/// How a session has ended, and what it was like.
fn ended(outcome: &Outcome, upgrade: Option<&str>, out: &mut impl Fields) {
    let (up, down) = (outcome.from_client, outcome.from_backend);
    // Another protocol has neither codes nor messages.
    let is_websocket = upgrade.is_none();
    out.string("ended_by", outcome.cause.ended_by().as_str());
    if is_websocket {
        out.number("close_code", outcome.cause.close_code());
    }
    out.shown("cause", &outcome.cause); // at most a Close's reason is a peer's: 123 bytes
    if let Cause::Closed { close, .. } = &outcome.cause
        && !close.reason.is_empty()
    {
        out.string("close_reason", &close.reason);
    }
    string(out, "upgrade", upgrade);
    for ([messages, bytes, largest, wire], traffic) in [(RECEIVED, up), (SENT, down)] {
        if is_websocket {
            out.number(messages, traffic.messages);
        }
        out.number(bytes, traffic.payload_bytes);
        if is_websocket {
            out.number(largest, traffic.largest);
            out.number(wire, traffic.wire_bytes);
        }
    }
    let Waits { client_ms, backend_ms } = outcome.waits;
    for (name, waited) in [("client_wait_ms", client_ms), ("backend_wait_ms", backend_ms)] {
        if waited > 0 {
            out.number(name, waited);
        }
    }
    if let Some(RoundTrips { last_us, min_us, max_us }) = outcome.pings {
        for (name, us) in [("ping_ms", last_us), ("ping_min_ms", min_us), ("ping_max_ms", max_us)] {
            out.millis(name, us);
        }
    }
}

/// Names of what came from the client.
const RECEIVED: [&str; 4] =
    ["received_messages", "received_bytes", "received_largest", "received_wire_bytes"];
/// Names of what came from the backend.
const SENT: [&str; 4] = ["sent_messages", "sent_bytes", "sent_largest", "sent_wire_bytes"];

fn string(out: &mut impl Fields, name: &'static str, value: Option<&str>) {
    if let Some(value) = value {
        out.string(name, value);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::UNIX_EPOCH;

    use frame_core::close::Close;
    use frame_core::outcome::{Exit, Traffic};
    use http::{Method, StatusCode, Version};
    use proptest::prelude::*;
    use serde_json::Value;
    use support::logfmt;
    use tls_acceptor::Negotiated;
    use tokio::time::Instant;

    use super::*;

    const TEXT: LineFormat = LineFormat::Text { has_colors: false };
    const COLORS: LineFormat = LineFormat::Text { has_colors: true };

    fn record<'a>(route: &'a RouteId, kind: Kind<'a>) -> Record<'a> {
        Record {
            peer: ([192, 0, 2, 7], 50_122).into(),
            client: "2001:db8::1".parse().unwrap(),
            server_name: Some("domain.com"),
            tls: Some("TLSv1.3"),
            negotiated: Negotiated::from_bytes([0x13, 1, 0x11, 0xEC, 2, 0]),
            version: Version::HTTP_2,
            method: &Method::GET,
            host: Some("domain.com"),
            path: "/wss",
            route: Some(route),
            generation: 3,
            backend: Some("127.0.0.1:8282"),
            backend_protocol: None,
            times: ServerTimes { connect_us: NonZeroU32::new(412), answer_us: NonZeroU32::new(71_005) },
            status: Some(StatusCode::OK),
            upgrade: None,
            request_bytes: Some(5),
            started: Instant::now(),
            request_id: None,
            subject: None,
            redials: None,
            limit: None,
            kind,
        }
    }

    /// Without TLS and a server.
    fn plain<'a>(route: &'a RouteId, kind: Kind<'a>) -> Record<'a> {
        Record { negotiated: None, times: ServerTimes::default(), ..record(route, kind) }
    }

    fn line(format: LineFormat, record: &Record<'_>) -> String {
        let (mut stamp, mut line) = (Stamp::NEW, String::new());
        stamp.set(UNIX_EPOCH + Duration::from_micros(1_764_465_736_123_456));
        format.write(record, is_warning(record), &stamp, &mut line);
        line
    }

    #[test]
    fn lines_look_like_others_of_the_log() {
        let route = RouteId::named("domain.com/wss");
        let request = record(&route, Kind::Request { sent_bytes: 7, cause: None });
        let begin = "2025-11-30T01:22:16.123456Z  INFO";
        let common = concat!(
            r#"peer=192.0.2.7:50122 client=2001:db8::1 server_name="domain.com" tls="TLSv1.3" protocol="HTTP/2" "#,
            r#"method=GET host="domain.com" path="/wss" route="domain.com/wss" generation=3 "#,
            r#"backend="127.0.0.1:8282" status=200 request_bytes=5 duration_ms=0"#
        );
        assert_eq!(line(TEXT, &request), format!("{begin} request {common} sent_bytes=7"));
        let colored = line(COLORS, &request);
        let time = "\x1b[2m2025-11-30T01:22:16.123456Z\x1b[0m";
        let peer = "\x1b[3mpeer\x1b[0m\x1b[2m=\x1b[0m192.0.2.7:50122 ";
        assert!(colored.starts_with(&format!("{time} \x1b[32m INFO\x1b[0m request {peer}")), "{colored:?}");
        let json = line(LineFormat::Json, &request);
        let expect = concat!(
            r#"{"timestamp":"2025-11-30T01:22:16.123456Z","level":"INFO","message":"request","#,
            r#""peer":"192.0.2.7:50122","client":"2001:db8::1","server_name":"domain.com","tls":"TLSv1.3","#,
            r#""protocol":"HTTP/2","method":"GET","host":"domain.com","path":"/wss","route":"domain.com/wss","#,
            r#""generation":3,"backend":"127.0.0.1:8282","status":200,"request_bytes":5,"duration_ms":0,"#,
            r#""sent_bytes":7}"#
        );
        assert_eq!(json, expect);

        let close = Close { code: Some(1001), reason: "\"bye\"".into() };
        let mut outcome = Outcome {
            cause: Cause::Closed { by: Party::Client, close },
            from_client: Traffic { messages: 1, payload_bytes: 2, wire_bytes: 8, largest: 2 },
            from_backend: Traffic { messages: 4, payload_bytes: 5, wire_bytes: 13, largest: 3 },
            waits: Waits { client_ms: 17, backend_ms: 0 },
            pings: Some(RoundTrips { last_us: 20_001, min_us: 950, max_us: 1_200_000 }),
            client: Exit::Orderly,
            backend: Exit::Orderly,
        };
        let session = record(&route, Kind::Session { id: Some(9), outcome: Some(&outcome) });
        let end = concat!(
            r#"id=9 tls_suite="TLS_AES_128_GCM_SHA256" tls_group="X25519MLKEM768" tls_resumed=false alpn="h2" "#,
            r#"connect_ms=0.412 answer_ms=71.005 ended_by="client" close_code=1001 "#,
            r#"cause="closed by client (1001 \"\\\"bye\\\"\")" close_reason="\"bye\"" "#,
            "received_messages=1 received_bytes=2 received_largest=2 received_wire_bytes=8 ",
            "sent_messages=4 sent_bytes=5 sent_largest=3 sent_wire_bytes=13 ",
            "client_wait_ms=17 ping_ms=20.001 ping_min_ms=0.950 ping_max_ms=1200.000"
        );
        assert_eq!(line(TEXT, &session), format!("{begin} session {common} {end}"));
        let json: Value = serde_json::from_str(&line(LineFormat::Json, &session)).unwrap();
        assert_eq!((&json["connect_ms"], &json["tls_resumed"]), (&Value::from(0.412), &Value::from(false)));
        outcome.cause = Cause::Finished { first: Party::Client };
        let other = Kind::Session { id: Some(9), outcome: Some(&outcome) };
        let other = Record { upgrade: Some("tcp"), ..plain(&route, other) };
        let end = concat!(
            r#"id=9 ended_by="client" cause="both streams have ended, that of the client first" upgrade="tcp" "#,
            "received_bytes=2 sent_bytes=5 client_wait_ms=17 ping_ms=20.001 ping_min_ms=0.950 ping_max_ms=1200.000"
        );
        assert_eq!(line(TEXT, &other), format!("{begin} session {common} {end}"));
        outcome.cause = Cause::Lost { party: Party::Backend, how: frame_core::outcome::Ended::Eof };
        let lost = record(&route, Kind::Session { id: None, outcome: Some(&outcome) });
        assert!(line(TEXT, &lost).starts_with("2025-11-30T01:22:16.123456Z  WARN session peer="));
        let cut = plain(&route, Kind::Session { id: None, outcome: None });
        let end = r#"ended_by="gateway" close_code=1006 cause="cut: the gateway has ended (drain_timeout, or a second signal)""#;
        assert_eq!(line(TEXT, &cut), format!("{} session {common} {end}", begin.replace("INFO", "WARN")));
    }

    proptest! {
        /// Whatever peers send: a line is one line, each value is read back, and nothing in it changes how a terminal
        /// looks.
        #[test]
        fn peers_forge_nothing(host: String, path in "\\PC{0,20}", subject: String, reason in "\\PC{0,9}|[\u{0}-\u{9f}]{0,9}") {
            let route = RouteId::named("/");
            let close = Close { code: Some(1000), reason: reason.as_str().into() };
            let outcome = Outcome {
                cause: Cause::Closed { by: Party::Client, close },
                from_client: Traffic::default(),
                from_backend: Traffic::default(),
                waits: Waits::default(),
                pings: None,
                client: Exit::Orderly,
                backend: Exit::Orderly,
            };
            let session = Record {
                host: Some(&host),
                path: &path,
                subject: Some(&subject),
                ..record(&route, Kind::Session { id: None, outcome: Some(&outcome) })
            };
            let (text, json) = (line(TEXT, &session), line(LineFormat::Json, &session));
            for line in [&text, &json] {
                prop_assert!(!line.contains(char::is_control), "{line:?}");
            }
            let pairs = logfmt::parse(&text).unwrap();
            let object: Value = serde_json::from_str(&json).unwrap();
            for (name, value) in
                [("host", &*host), ("path", &*path), ("subject", &*cut(&subject)), ("cause", &*outcome.cause.to_string())]
                .into_iter().chain((!reason.is_empty()).then_some(("close_reason", &*reason)))
            {
                let found = pairs.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref());
                prop_assert_eq!(found, Some(value));
                prop_assert_eq!(object[name].as_str(), Some(value));
            }
        }
    }
}
