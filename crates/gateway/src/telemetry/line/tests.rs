use std::num::NonZeroU32;
use std::time::UNIX_EPOCH;

use frame_core::outcome::{Exit, Traffic};
use http::{Method, StatusCode, Version};
use proptest::prelude::*;
use serde_json::Value;
use support::logfmt;
use tls_acceptor::Negotiated;
use tokio::time::Instant;

use super::*;
use crate::telemetry::record::Cut;

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
        compression: None,
        kind,
    }
}

/// Without TLS and a server.
fn plain<'a>(route: &'a RouteId, kind: Kind<'a>) -> Record<'a> {
    Record { negotiated: None, times: ServerTimes::default(), ..record(route, kind) }
}

fn line(format: LineFormat, of: &impl Subject) -> String {
    let (mut stamp, mut line) = (Stamp::NEW, LineBuf::NEW);
    stamp.set(UNIX_EPOCH + Duration::from_micros(1_764_465_736_123_456));
    format.write(of, of.is_warning(), &stamp, &mut line);
    line.into_string()
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
    assert_eq!(
        line(TEXT, &request),
        format!("{begin} request {common} connect_ms=0.412 answer_ms=71.005 sent_bytes=7")
    );
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
        r#""connect_ms":0.412,"answer_ms":71.005,"sent_bytes":7}"#
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
    let session = record(&route, Kind::Session { id: Some(9), outcome: Ok(&outcome) });
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
    let other = Kind::Session { id: Some(9), outcome: Ok(&outcome) };
    let other = Record { upgrade: Some("tcp"), ..plain(&route, other) };
    let end = concat!(
        r#"id=9 ended_by="client" cause="both streams have ended, that of the client first" upgrade="tcp" "#,
        "received_bytes=2 sent_bytes=5 client_wait_ms=17 ping_ms=20.001 ping_min_ms=0.950 ping_max_ms=1200.000"
    );
    assert_eq!(line(TEXT, &other), format!("{begin} session {common} {end}"));
    outcome.cause = Cause::Lost { party: Party::Backend, how: frame_core::outcome::Ended::Eof };
    let lost = record(&route, Kind::Session { id: None, outcome: Ok(&outcome) });
    assert!(line(TEXT, &lost).starts_with("2025-11-30T01:22:16.123456Z  WARN session peer="));
    let cut = plain(&route, Kind::Session { id: None, outcome: Err(Cut::End) });
    let end = r#"ended_by="gateway" close_code=1006 cause="cut: the gateway has ended (drain_timeout, or a second signal)""#;
    assert_eq!(line(TEXT, &cut), format!("{} session {common} {end}", begin.replace("INFO", "WARN")));
}

#[test]
fn sessions_have_lines_before_they_end() {
    let route = RouteId::named("domain.com/wss");
    let opened = plain(&route, Kind::Opened { id: Some(9) });
    let text = line(TEXT, &opened);
    assert!(text.contains(" INFO session opened peer=192.0.2.7:50122 client=2001:db8::1 "), "{text}");
    assert!(text.ends_with(" status=200 request_bytes=5 duration_ms=0 id=9"), "{text}");
    for (passes, ends_here, end) in
        [(true, false, "compression=\"pass\""), (false, true, "compression=\"terminate\"")]
    {
        let compression = Compressed::of(passes, ends_here);
        let text = line(TEXT, &Record { compression, ..plain(&route, opened.kind) });
        assert!(text.ends_with(&format!(" id=9 {end}")), "{text}");
    }
    let snapshot = Snapshot {
        from_client: Traffic { messages: 1, payload_bytes: 2, wire_bytes: 8, largest: 2 },
        waits: Waits { client_ms: 0, backend_ms: 17 },
        idle: Duration::from_millis(1500),
        ..Snapshot::default()
    };
    let progress = Progress {
        id: 9,
        peer: opened.peer,
        client: opened.client,
        protocol: "HTTP/1.1",
        route: &route,
        backend: Some("127.0.0.1:8282"),
        subject: Some("alice"),
        redials: Some(2),
        started: Instant::now(),
        snapshot: &snapshot,
    };
    let expect = concat!(
        r#"2025-11-30T01:22:16.123456Z  INFO session goes on peer=192.0.2.7:50122 client=2001:db8::1 "#,
        r#"protocol="HTTP/1.1" route="domain.com/wss" backend="127.0.0.1:8282" subject="alice" redials=2 "#,
        "duration_ms=0 id=9 received_messages=1 received_bytes=2 received_largest=2 received_wire_bytes=8 ",
        "sent_messages=0 sent_bytes=0 sent_largest=0 sent_wire_bytes=0 backend_wait_ms=17 idle_ms=1500"
    );
    assert_eq!(line(TEXT, &progress), expect);
    let short = line(LineFormat::Live { has_colors: false }, &progress);
    assert_eq!(short, "domain.com/wss open for 0 ms by 2001:db8::1, 1 message received, 0 sent");
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
            ..record(&route, Kind::Session { id: None, outcome: Ok(&outcome) })
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
