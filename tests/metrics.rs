//! Metrics: what changes them, in which format they come, and that what is deployed with them names no others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

use flate2::read::GzDecoder;
use support::backend::{Backend, echo};
use support::gateway::{Gateway, Setup, config, route, send_signal};
use support::http1::{Answer, ask};
use support::tls::Tls;
use support::until;
use support::ws::{CLOSE, PING, PONG, WebSocket};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const ADMIN: &str = "[admin]\naddress = \"127.0.0.3:0\"\n";
const ECHO: &str = "[[route]]\npath = \"/echo\"\nservice = \"echo\"\n";

fn start(top: &str, routes: &str) -> Gateway {
    Setup::new(env!("CARGO_BIN_EXE_wssgate"))
        .with_certificate(&["default.test"])
        .start(&config(top, &format!("{routes}{ADMIN}")))
}

async fn scrape(admin: SocketAddr, fields: &str) -> Answer {
    let mut io = TcpStream::connect(admin).await.unwrap();
    ask(&mut io, format!("GET /metrics HTTP/1.1\r\nHost: admin\r\n{fields}\r\n")).await
}

async fn get(gateway: &Gateway, path: &str) -> u16 {
    let mut io = gateway.connect_plain().await;
    ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n\r\n")).await.status()
}

async fn socket(gateway: &Gateway, path: &str) -> WebSocket {
    WebSocket::connect(gateway.connect_plain().await, "default.test", path, "").await.unwrap().0
}

#[tokio::test]
async fn a_scraper_gets_the_format_that_it_asks_for() {
    let gateway = start("", ECHO);
    for (accept, kind) in [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("Accept: */*\r\n", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "Accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3\r\n",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ] {
        let answer = scrape(gateway.admin(), accept).await;
        assert_eq!((answer.status(), answer.head.get("content-type")), (200, Some(kind)), "{accept}");
        let is_open = kind.starts_with("application");
        let text = answer.text();
        assert_eq!(text.ends_with("\n# EOF\n"), is_open);
        assert_eq!(text.contains("\n# UNIT process_resident_memory_bytes bytes\n"), is_open);
        let family = if is_open { "wssgate_reloads" } else { "wssgate_reloads_total" };
        assert!(text.contains(&format!("\n# TYPE {family} counter\n")), "{text}");
        assert!(text.contains("\nwssgate_reloads_total{result=\"taken\"} 0\n"), "{text}");
        // Each family stands once, and each sample.
        for lines in [
            text.lines().filter(|line| line.starts_with("# TYPE")).collect::<Vec<_>>(),
            text.lines().collect(),
        ] {
            let once: BTreeSet<_> = lines.iter().collect();
            assert_eq!(once.len(), lines.len());
        }
    }
}

/// As Prometheus asks for it. Of what clients take, only gzip is made.
#[tokio::test]
async fn a_scraper_gets_it_compressed_if_it_takes_that() {
    let gateway = start("", ECHO);
    for (fields, coding) in [
        ("Accept-Encoding: gzip\r\n", Some("gzip")),
        ("Accept-Encoding: br, zstd, gzip;q=0.1\r\n", Some("gzip")),
        ("Accept-Encoding: br\r\n", None),
        ("Accept-Encoding: gzip;q=0\r\n", None),
        ("", None),
    ] {
        let answer = scrape(gateway.admin(), fields).await;
        assert_eq!((answer.status(), answer.head.get("content-encoding")), (200, coding), "{fields}");
        assert_eq!(answer.head.get("vary"), Some("accept, accept-encoding"));
        let mut text = String::new();
        match coding {
            Some(_) => GzDecoder::new(&*answer.body).read_to_string(&mut text).unwrap(),
            None => (&*answer.body).read_to_string(&mut text).unwrap(),
        };
        assert!(text.contains("\nwssgate_reloads_total{result=\"taken\"} 0\n"), "{text}");
    }
}

#[tokio::test]
async fn requests_and_sessions_are_counted_by_route() {
    let (backend, _) = echo().await;
    let gone = Backend::unreachable();
    let routes = [ECHO.to_owned(), route("/ws", backend.address), route("/gone", gone)].concat();
    let gateway = start("workers = 2", &routes);
    let count = async |name: &str| gateway.metric(name).await;
    for _ in 0..3 {
        assert_eq!(get(&gateway, "/gone").await, 502);
    }
    assert_eq!(get(&gateway, "/nowhere").await, 404);
    until(async || count("wssgate_requests_total{route=\"/gone\",class=\"5xx\"}").await == 3).await;
    assert_eq!(count("wssgate_requests_total{route=\"\",class=\"4xx\"}").await, 1);
    assert_eq!(count("wssgate_request_duration_seconds_count{route=\"/gone\"}").await, 3);
    assert_eq!(count("wssgate_request_duration_seconds_bucket{route=\"/gone\",le=\"+Inf\"}").await, 3);

    let (mut first, mut second, third) =
        (socket(&gateway, "/ws").await, socket(&gateway, "/echo").await, socket(&gateway, "/ws").await);
    first.close(1000).await;
    first.expect_close(1000).await;
    second.close(3999).await;
    second.expect_close(3999).await;
    drop(third);
    gateway.wait_nth("session", 2);
    assert_eq!(count("wssgate_sessions_opened_total{route=\"/ws\"}").await, 2);
    assert_eq!(count("wssgate_sessions_closed_total{route=\"/ws\",cause=\"client_close\"}").await, 1);
    assert_eq!(count("wssgate_sessions_closed_total{route=\"/ws\",cause=\"client_lost\"}").await, 1);
    assert_eq!(count("wssgate_sessions_closed_total").await, 3);
    for (cause, code) in [("client_close", "1000"), ("client_close", "3xxx"), ("client_lost", "1006")] {
        let name = format!("wssgate_session_close_codes_total{{cause=\"{cause}\",code=\"{code}\"}}");
        assert_eq!(count(&name).await, 1, "{name}");
    }
    assert_eq!(count("wssgate_requests_total{route=\"/ws\",class=\"1xx\"}").await, 2);
    // By upstream: what has never answered has no times.
    let upstream = format!("{{upstream=\"{}\"}}", backend.address);
    for (name, total) in [("connect", 2), ("answer", 2)] {
        let name = format!("wssgate_upstream_{name}_duration_seconds_count");
        assert_eq!(count(&format!("{name}{upstream}")).await, total, "{name}");
        assert_eq!(count(&name).await, total, "{name}");
    }
    assert_eq!(count("wssgate_sessions").await, 0);
    // A reload sets no counter back to 0.
    assert_eq!(gateway.reload()["generation"], 2);
    assert_eq!(count("wssgate_requests_total{route=\"/gone\",class=\"5xx\"}").await, 3);
    assert_eq!(count("wssgate_reload_refused").await, 0);
    gateway.write_config("nothing");
    gateway.reload();
    assert_eq!(count("wssgate_reload_refused").await, 1);
}

/// Those of a session that lives on are seen, too, and at its end they are not counted again.
#[tokio::test]
async fn messages_are_counted_by_route_and_sender() {
    let (backend, _) = echo().await;
    let gateway = start("workers = 2", &[ECHO, &route("/ws", backend.address)].concat());
    let count = async |name: &str| gateway.metric(name).await;
    let sessions: [WebSocket; 2] = [socket(&gateway, "/ws").await, socket(&gateway, "/echo").await];
    for (mut socket, route) in sessions.into_iter().zip(["/ws", "/echo"]) {
        for _ in 0..3 {
            socket.echoes("hello").await;
        }
        let counts = async || {
            let mut counts = Vec::new();
            for from in ["client", "backend"] {
                let labels = format!("{{route=\"{route}\",from=\"{from}\"}}");
                for name in ["messages", "message_payload_bytes"] {
                    counts.push(count(&format!("wssgate_{name}_total{labels}")).await);
                }
            }
            counts
        };
        let sized = async |from: &str, what: &str, le: &str| {
            count(&format!("wssgate_message_size_bytes_{what}{{route=\"{route}\",from=\"{from}\"{le}}}"))
                .await
        };
        assert_eq!(sized("client", "count", "").await, 3, "as they come");
        until(async || counts().await == [3, 15, 3, 15]).await;
        socket.text(&"x".repeat(100)).await;
        socket.expect_text(&"x".repeat(100)).await;
        socket.close(1000).await;
        socket.expect_close(1000).await;
        gateway.wait_for(|line| line["message"] == "session" && line["route"] == route, 0, "the end");
        assert_eq!(counts().await, [4, 115, 4, 115]);
        for from in ["client", "backend"] {
            let bucket = |le: &str| {
                format!(
                    "wssgate_session_largest_message_bytes_bucket{{route=\"{route}\",from=\"{from}\",le=\"{le}\"}}"
                )
            };
            assert_eq!([count(&bucket("64")).await, count(&bucket("256")).await], [0, 1]);
            let [small, all] =
                [sized(from, "bucket", ",le=\"64\"").await, sized(from, "bucket", ",le=\"256\"").await];
            assert_eq!([small, all], [3, 4]);
        }
    }
}

/// A session that has come from another process and is silent has its series, at 0.
#[tokio::test]
async fn a_route_whose_sessions_came_from_another_process_is_seen_at_once() {
    let mut gateway = start("workers = 1", ECHO);
    let mut socket = socket(&gateway, "/echo").await;
    socket.echoes("hello").await;
    let pid = gateway.take_over();
    // Until the old process has ended, it may be the one that answers.
    until(async || {
        let page = scrape(gateway.admin(), "").await.text();
        [
            "wssgate_messages_total{route=\"/echo\",from=\"client\"}",
            "wssgate_ping_round_trip_seconds_count{route=\"/echo\"}",
        ]
        .iter()
        .all(|series| page.contains(&format!("\n{series} 0\n")))
    })
    .await;
    send_signal(pid, "TERM");
    socket.expect_close(1001).await;
    socket.close(1001).await;
    gateway.wait_end();
}

#[tokio::test]
async fn pings_are_measured_by_route() {
    let (backend, _) = echo().await;
    let pinging = "[route.websocket]\nping_interval = \"100ms\"\npong_timeout = \"30s\"\n";
    let routes: String =
        [ECHO.to_owned(), route("/ws", backend.address)].map(|route| route + pinging).concat();
    let gateway = start("workers = 2", &routes);
    for path in ["/ws", "/echo"] {
        let count = async || {
            let name = format!("wssgate_ping_round_trip_seconds_count{{route=\"{path}\"}}");
            gateway.metric(&name).await
        };
        let mut socket = socket(&gateway, path).await;
        // The client may have its answer before the session's task runs.
        let opened = format!("wssgate_sessions_opened_total{{route=\"{path}\"}}");
        until(async || gateway.metric(&opened).await == 1).await;
        assert_eq!(count().await, 0);
        for n in 1..=2 {
            let ping = socket.receive().await.unwrap();
            assert_eq!(ping.b0, PING);
            socket.send(PONG, &ping.payload).await;
            until(async || count().await == n).await;
        }
    }
}

#[tokio::test]
async fn handshakes_are_counted_by_result() {
    let gateway = start("workers = 1", ECHO);
    let name = |labels: &str| {
        let address = gateway.address();
        format!("wssgate_tls_handshakes_total{{listener=\"{address}\",{labels}}}")
    };
    let client = Tls::new("default.test", &["http/1.1"]);
    for _ in 0..2 {
        let mut io = client.connect(gateway.address()).await.unwrap();
        let page = ask(&mut io, "GET /nowhere HTTP/1.1\r\nHost: default.test\r\n\r\n").await;
        assert_eq!(page.status(), 404);
    }
    let mut text = TcpStream::connect(gateway.address()).await.unwrap();
    text.write_all(b"\x80\x80\x80\x80 no hello\r\n\r\n").await.unwrap();
    let listener = |page: &str| {
        page.split("wssgate_tls_handshakes_total{listener=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned()
    };
    let page = scrape(gateway.admin(), "").await.text();
    let named = name("x").replace(&gateway.address().to_string(), &listener(&page));
    let sample = async |labels: &str| gateway.metric(&named.replace('x', labels)).await;
    assert_eq!(sample("result=\"done\",version=\"TLSv1.3\",resumed=\"false\"").await, 1, "{page}");
    assert_eq!(sample("result=\"done\",version=\"TLSv1.3\",resumed=\"true\"").await, 1);
    until(async || sample("result=\"not_tls\",version=\"\",resumed=\"\"").await == 1).await;
    assert_eq!(gateway.metric("wssgate_tls_handshake_duration_seconds_count").await, 2);
}

#[tokio::test]
async fn workers_and_the_process_are_seen() {
    let gateway = start("workers = 2", ECHO);
    let mut socket = socket(&gateway, "/echo").await;
    for _ in 0..100 {
        socket.echoes("hello").await;
    }
    let value = async |name: &str| {
        let page = scrape(gateway.admin(), "").await.text();
        let is_asked = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = page.lines().filter(is_asked).map(|line| line.rsplit(' ').next().unwrap());
        values.map(|value| value.parse::<f64>().unwrap()).sum::<f64>()
    };
    // A worker says what it has done when it wakes, once a second at least.
    until(async || value("wssgate_worker_busy_seconds_total").await > 0.0).await;
    assert!(value("wssgate_worker_longest_turn_seconds").await > 0.0);
    until(async || value("wssgate_worker_delay_seconds_count").await >= 2.0).await;
    assert!(value("wssgate_worker_cpu_wait_seconds_total").await > 0.0);
    let (open, max) = (value("process_open_fds").await, value("process_max_fds").await);
    assert!(open > 10.0 && open < max, "{open} {max}");
    assert!(value("process_resident_memory_bytes").await > 1e6);
    assert!(value("process_cpu_seconds_total").await > 0.0);
    assert!(value("process_start_time_seconds").await > 1.7e9);
    assert_eq!(value("wssgate_build_info").await, 1.0);
}

/// What is written for a thousand routes takes long, above all without optimization; neither the one worker nor the
/// main thread is the one that does it.
#[tokio::test]
async fn a_scrape_of_a_thousand_routes_holds_up_nothing() {
    let routes: String = (0..1000).map(|n| ECHO.replace("/echo", &format!("/{n}"))).collect();
    let gateway = start("workers = 1", &routes);
    let mut io = gateway.connect_plain().await;
    for n in 0..1000 {
        let request = format!("GET /{n} HTTP/1.1\r\nHost: default.test\r\n\r\n");
        assert_eq!(ask(&mut io, request).await.status(), 426);
    }
    let mut socket = socket(&gateway, "/7").await;
    let admin = gateway.admin();
    let scraping = tokio::spawn(async move { scrape(admin, "").await.text() });
    let (mut echoes, mut probes) = (0, 0);
    while !scraping.is_finished() {
        socket.echoes("hello").await;
        echoes += 1;
        let mut io = TcpStream::connect(admin).await.unwrap();
        let alive = ask(&mut io, "GET /healthz HTTP/1.1\r\nHost: admin\r\n\r\n").await;
        probes += u32::from(alive.status() == 200);
    }
    let page = scraping.await.unwrap();
    assert!(page.lines().count() > 20_000, "{} lines", page.lines().count());
    assert!(page.contains("\nwssgate_requests_total{route=\"/999\",class=\"4xx\"} 1\n"));
    assert!(echoes > 2 && probes > 2, "{echoes} messages and {probes} probes in the time of a scrape");
}

/// Else a client could fill the memory of what scrapes. Whatever peers send, there are no other series than before, but
/// for a close code of the list.
#[tokio::test]
async fn no_label_has_a_value_from_a_peer() {
    let (backend, _) = echo().await;
    let gateway = start("workers = 1", &[ECHO, &route("/ws", backend.address)].concat());
    let series = async || {
        let page = scrape(gateway.admin(), "").await.text();
        assert!(!page.to_ascii_lowercase().contains("peculiar"), "{page}");
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<BTreeSet<_>>()
    };
    // Each route, and none, has been used, and each kind of session.
    assert_eq!((get(&gateway, "/nowhere").await, get(&gateway, "/ws").await), (404, 200));
    for path in ["/ws", "/echo"] {
        let mut socket = socket(&gateway, path).await;
        socket.echoes("hello").await;
        socket.close(1000).await;
        socket.expect_close(1000).await;
    }
    gateway.wait_nth("session", 1);
    let before = series().await;

    const FIELDS: &str = "User-Agent: peculiar\r\nX-Forwarded-For: peculiar\r\nForwarded: for=peculiar\r\n\
                          X-Request-Id: peculiar\r\nOrigin: http://default.test\r\nPeculiar: peculiar\r\n";
    let mut statuses = BTreeSet::new();
    for (method, path, host) in [
        ("PECULIAR", "/ws", "default.test"),
        ("PECULIAR", "/echo", "default.test"),
        ("GET", "/peculiar?peculiar=peculiar", "default.test"),
        ("GET", "/ws/peculiar", "default.test"),
        ("GET", "/", "peculiar.test"),
        ("GET", "/ws", "peculiar.test:1"),
        ("GET", "/peculiar\"}%20peculiar{%22", "default.test"),
    ] {
        let mut io = gateway.connect_plain().await;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{FIELDS}\r\n");
        statuses.insert(ask(&mut io, request).await.status());
    }
    for path in ["/ws", "/echo"] {
        let fields =
            format!("{FIELDS}Sec-WebSocket-Protocol: peculiar\r\nSec-WebSocket-Extensions: peculiar\r\n");
        let io = gateway.connect_plain().await;
        let (mut socket, _) = WebSocket::connect(io, "default.test", path, &fields).await.unwrap();
        socket.echoes("peculiar").await;
        socket.send(CLOSE, [&4321_u16.to_be_bytes()[..], b"peculiar"].concat()).await;
        socket.expect_close(4321).await;
    }
    let alpn = Tls::new("peculiar.test", &["peculiar", "http/1.1"]).connect(gateway.address()).await;
    drop(alpn);
    let refused = Tls::new("default.test", &["peculiar"]).connect(gateway.address()).await;
    assert!(refused.is_err());
    gateway.wait_nth("session", 3);
    until(async || gateway.metric("wssgate_tls_handshakes_total").await == 2).await;

    assert!(statuses.len() > 1, "{statuses:?}");
    let after = series().await;
    assert_eq!(before.difference(&after).count(), 0);
    let new: Vec<_> = after.difference(&before).collect();
    assert_eq!(new, ["wssgate_session_close_codes_total{cause=\"client_close\",code=\"4xxx\"}"]);
}

/// What `deploy/prometheus` and `deploy/grafana` ask for, a gateway has.
#[tokio::test]
async fn dashboard_and_alerts_name_what_there_is() {
    let (backend, _) = echo().await;
    let acme = "[acme]\ndirectory = \"https://127.0.0.1:1/directory\"\nnames = [[\"late.test\"]]\n";
    let text = config("max_memory = \"64MiB\"", &[&route("/ws", backend.address), acme, ADMIN].concat());
    let text = text.replace("watch = false", "watch = true"); // certificates of an authority come meanwhile
    let gateway = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]).start(&text);
    let mut socket = socket(&gateway, "/ws").await;
    socket.echoes("hello").await;
    socket.close(1000).await;
    socket.expect_close(1000).await;
    gateway.wait("session");
    let page = scrape(gateway.admin(), "").await.text();
    let names: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let mut seen = 0;
    for file in ["prometheus/wssgate.rules.yml", "prometheus/wssgate.rules.test.yml", "grafana/wssgate.json"]
    {
        let text = fs::read_to_string(deploy.join(file)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("wssgate_") || word.starts_with("process_")) {
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            assert!(
                names.contains(word) || names.contains(base),
                "{file} asks for {word}, which there is not"
            );
            // A family without a sample would be as bad.
            assert!(page.lines().any(|line| line.starts_with(word)), "{file}: {word} has no sample");
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen} names: is the test still right?");
    serde_json::from_str::<serde_json::Value>(
        &fs::read_to_string(deploy.join("grafana/wssgate.json")).unwrap(),
    )
    .unwrap();
}
