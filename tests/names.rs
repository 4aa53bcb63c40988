//! Names of servers: what the DNS and the system's files say counts without a reload.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::backend::{Backend, Seen, echo_at, serve};
use support::dns::Dns;
use support::gateway::{Gateway, Setup, config};
use support::http1::{Answer, ask};
use support::http2_server::{Http2Seen, connection, echo};
use support::pki::Pki;
use support::tls::{TLS13, acceptor};
use support::until;
use support::ws::WebSocket;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

fn setup() -> Setup {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]);
    std::fs::write(setup.path().join("resolv.conf"), "search corp.test\n").unwrap();
    std::fs::write(setup.path().join("hosts"), "127.0.0.1 localhost\n").unwrap();
    setup
}

/// One port of 127.0.0.1, 127.0.0.2 and 127.0.0.3.
async fn listeners() -> (u16, [TcpListener; 3]) {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        let at = |ip: &'static str| TcpListener::bind((ip, port));
        if let (Ok(second), Ok(third)) = (at("127.0.0.2").await, at("127.0.0.3").await) {
            return (port, [first, second, third]);
        }
    }
}

/// Servers there.
async fn three() -> (u16, [(Backend, Seen); 3]) {
    let (port, listeners) = listeners().await;
    (port, listeners.map(echo_at))
}

async fn plain(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.addresses()[1]).await.unwrap()
}

async fn get(gateway: &Gateway) -> Answer {
    ask(&mut plain(gateway).await, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await
}

async fn open(gateway: &Gateway) -> WebSocket {
    WebSocket::connect(plain(gateway).await, "default.test", "/ws", "").await.unwrap().0
}

/// The server that the next request goes to.
async fn server(gateway: &Gateway) -> String {
    let before = gateway.lines("request").len();
    let answer = get(gateway).await;
    assert_eq!(answer.status(), 200, "{}", gateway.log());
    gateway.wait_nth("request", before)["backend"].as_str().unwrap().to_owned()
}

fn counts(servers: &[(Backend, Seen); 3]) -> [usize; 3] {
    servers.each_ref().map(|(_, seen)| seen.count())
}

fn upstream(lines: &str, servers: &str) -> String {
    format!(
        "[[upstream]]\nname = \"pool\"\nservers = [{servers}]\n{lines}\n[[route]]\npath = \"/\"\nproxy = \"pool\"\n"
    )
}

fn run(directory: &Path, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_wssgate")).args(arguments).current_dir(directory).output();
    let output = output.unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (text, output.status.success())
}

fn upstreams(gateway: &Gateway) -> Value {
    let (text, _) = run(gateway.path(), &["upstreams", "--json", "--socket", "control.sock"]);
    let answer: Value = serde_json::from_str(&text).unwrap_or_default(); // none in the middle of a takeover
    answer["upstreams"][0].clone()
}

const CONTROL: &str =
    "workers = 2\n[control]\nsocket = \"control.sock\"\n[admin]\naddress = \"127.0.0.3:0\"\n";

#[tokio::test]
async fn a_name_in_a_route_is_followed_without_a_reload() {
    let (port, servers) = three().await;
    let dns = Dns::start();
    dns.set("app.test", 1, &["127.0.0.1"]);
    let top = format!("{CONTROL}{}", dns.section());
    let gateway = setup()
        .start(&config(&top, &format!("[[route]]\npath = \"/\"\nproxy = \"http://App.test:{port}\"\n")));
    assert_eq!(gateway.wait("a name is resolved")["found"], "127.0.0.1");
    for _ in 0..4 {
        assert_eq!(server(&gateway).await, format!("App.test:{port}"));
    }
    assert_eq!(counts(&servers), [4, 0, 0]);
    let mut session = open(&gateway).await;
    dns.set("app.test", 1, &["127.0.0.2"]);
    assert_eq!(gateway.wait("a name leads elsewhere")["found"], "127.0.0.2");
    // Neither a new connection nor a kept one leads to the old address; sessions stay.
    for _ in 0..4 {
        get(&gateway).await;
    }
    assert_eq!(counts(&servers), [5, 4, 0]);
    session.echoes("still here").await;
    // With several addresses, connections go to all of them.
    dns.set("app.test", 1, &["127.0.0.2", "127.0.0.3"]);
    gateway.wait_nth("a name leads elsewhere", 1);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(open(&gateway).await);
    }
    assert_eq!(counts(&servers), [5, 6, 2]);
    let name = &upstreams(&gateway)["names"][0];
    assert_eq!((&name["name"], &name["found"][1]), (&"app.test".into(), &"127.0.0.3".into()));
    assert!(name["resolved_ms"].as_u64().unwrap() < 20_000 && name["lookups"].as_u64().unwrap() >= 3);
}

#[tokio::test]
async fn a_name_that_stops_resolving_keeps_its_addresses_and_says_so_once() {
    let (port, servers) = three().await;
    let dns = Dns::start();
    dns.set("app.test", 1, &["127.0.0.1"]);
    let top = format!("{CONTROL}{}", dns.section());
    let gateway = setup()
        .start(&config(&top, &format!("[[route]]\npath = \"/\"\nproxy = \"http://app.test:{port}\"\n")));
    assert_eq!(get(&gateway).await.status(), 200);
    dns.remove("app.test");
    let line = gateway.wait("a name can't be resolved any more: its last addresses stay in use");
    assert_eq!(
        (&line["name"], &line["kept"], &line["level"]),
        (&"app.test".into(), &"127.0.0.1".into(), &"WARN".into())
    );
    let asked = dns.asked("app.test");
    until(async || dns.asked("app.test") > asked + 4).await;
    dns.fail(true);
    until(async || dns.asked("app.test") > asked + 8).await;
    assert_eq!(get(&gateway).await.status(), 200);
    assert_eq!(counts(&servers), [2, 0, 0]);
    assert_eq!(gateway.lines("a name can't be resolved any more: its last addresses stay in use").len(), 1);
    let name = &upstreams(&gateway)["names"][0];
    assert!(name["failures"].as_u64().unwrap() >= 2 && name["problem"].is_string(), "{name}");
    let failures = gateway.metric("wssgate_name_failures_total{name=\"app.test\",kind=\"addresses\"}").await;
    assert!(failures >= 2, "{failures}");
    // A reload keeps what is known, and says that it can't be resolved.
    let report = gateway.reload();
    assert_eq!(report["message"], "reloaded", "{report}");
    assert_eq!(get(&gateway).await.status(), 200);
    dns.fail(false);
    dns.set("app.test", 1, &["127.0.0.1"]);
    gateway.wait("a name is resolved again");
}

#[tokio::test]
async fn a_server_that_has_come_back_elsewhere_is_found_whatever_the_ttl_is() {
    let (port, [first, second, _third]) = three().await;
    let dns = Dns::start();
    dns.set("app.test", 3600, &["127.0.0.1"]);
    let route = format!("[[route]]\npath = \"/\"\npool = \"off\"\nproxy = \"http://app.test:{port}\"\n");
    let gateway = setup().start(&config(&dns.section(), &route));
    assert_eq!(get(&gateway).await.status(), 200);
    dns.set("app.test", 3600, &["127.0.0.2"]);
    let asked = dns.asked("app.test");
    drop(first.0);
    // A look-up that ended less than a second ago is not repeated.
    until(async || get(&gateway).await.status() == 200).await;
    assert_eq!((second.1.count() > 0, dns.asked("app.test") > asked, first.1.count()), (true, true, 1));
}

#[tokio::test]
async fn each_address_is_a_server_and_one_that_leaves_gets_no_requests() {
    let (port, servers) = three().await;
    let dns = Dns::start();
    dns.truncate(); // so the answers come by TCP
    dns.set("app.test", 1, &["127.0.0.1", "127.0.0.2", "::1"]);
    let top = format!("{CONTROL}{}", dns.section());
    let routes = |on_down: &str| {
        upstream(
            &format!("resolve = \"dns\"\n[upstream.health]\non_down = \"{on_down}\"\n"),
            &format!("\"http://app.test:{port}\""),
        )
    };
    let gateway = setup().start(&config(&top, &routes("keep")));
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(open(&gateway).await);
    }
    // IPv4 alone, since the third may be one of the others.
    assert_eq!(counts(&servers), [2, 2, 0]);
    dns.set("app.test", 1, &["127.0.0.2", "127.0.0.3"]);
    let line = gateway.wait("a backend has left: its name leads elsewhere");
    assert_eq!((&line["backend"], &line["sessions"]), (&format!("127.0.0.1:{port}").into(), &2.into()));
    for _ in 0..2 {
        sessions.push(open(&gateway).await);
    }
    assert_eq!(counts(&servers), [2, 2, 2], "the new one has the fewest");
    for session in &mut sessions {
        session.echoes("all are here").await;
    }
    let info = upstreams(&gateway);
    let state = |i: usize| info["servers"][i]["state"].as_str().unwrap().to_owned();
    assert_eq!([state(0), state(1), state(2)], ["up", "up", "left"], "{info}");
    assert_eq!((&info["servers"][2]["sessions"], &info["servers"][2]["weight"]), (&2.into(), &0.into()));
    let (table, _) = run(gateway.path(), &["upstreams", "--socket", "control.sock"]);
    assert!(
        table.contains("its name leads elsewhere now") && table.contains("127.0.0.2, 127.0.0.3"),
        "{table}"
    );
    // It comes back with what it has.
    dns.set("app.test", 1, &["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    until(async || {
        let info = upstreams(&gateway);
        info["servers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|server| server["state"] == "up" && server["sessions"] == 2)
    })
    .await;
    // Another way to go.
    gateway.write_config(&config(&top, &routes("close")));
    assert_eq!(gateway.reload()["message"], "reloaded");
    dns.set("app.test", 1, &["127.0.0.2"]);
    gateway.wait_nth("session", 3);
    let ended = gateway.lines("session");
    assert!(
        ended.iter().all(|line| line["close_code"] == 1012 && line["backend"] != format!("127.0.0.2:{port}")),
        "{ended:?}"
    );
}

#[tokio::test]
async fn priorities_and_weights_of_srv_records_count() {
    let (port, servers) = three().await;
    let dns = Dns::start();
    for (host, ip) in [("a.test", "127.0.0.1"), ("b.test", "127.0.0.2"), ("spare.test", "127.0.0.3")] {
        dns.set(host, 60, &[ip]);
    }
    let all = [(1, 3, port, "a.test"), (1, 1, port, "b.test"), (2, 9, port, "spare.test")];
    dns.set_service("_chat._tcp.test", 1, &all);
    let top = format!("{CONTROL}{}", dns.section());
    let gateway = setup().start(&config(
        &top,
        &upstream("resolve = \"srv\"\nbalance = \"round-robin\"", "\"http://_chat._tcp.test\""),
    ));
    for _ in 0..8 {
        get(&gateway).await;
    }
    assert_eq!(counts(&servers), [6, 2, 0]);
    // Those of the second priority are for when there is none of the first.
    dns.set_service("_chat._tcp.test", 1, &all[2..]);
    gateway.wait_nth("a backend has left: its name leads elsewhere", 1);
    assert_eq!(server(&gateway).await, format!("spare.test:{port}"));
    dns.set_service("_chat._tcp.test", 1, &all);
    until(async || server(&gateway).await != format!("spare.test:{port}")).await;
    let [a, b, spare] = servers;
    drop((a.0, b.0));
    // The first priority refuses: each request is tried at three servers at most.
    until(async || get(&gateway).await.status() == 200).await;
    assert!(spare.1.count() > 0);
}

/// A certificate has to be valid for the domain of the service, and not for the target: that name comes from the DNS.
#[tokio::test]
async fn targets_of_srv_records_show_certificates_for_the_domain_of_the_service() {
    let setup = setup();
    let pki = Pki::new();
    std::fs::write(setup.path().join("ca.pem"), pki.root_pem()).unwrap();
    let behind_tls = async |ip: &str, names: &[&str]| {
        let tls = acceptor(TLS13, &pki.issue(names), None);
        Backend::on(TcpListener::bind((ip, 0)).await.unwrap(), move |tcp| {
            let tls = tls.clone();
            async move {
                if let Ok(stream) = tls.accept(tcp).await {
                    serve(stream, &Seen::default()).await;
                }
            }
        })
    };
    let good = behind_tls("127.0.0.1", &["chat.test"]).await;
    let bad = behind_tls("127.0.0.2", &["target.test"]).await;
    let dns = Dns::start();
    dns.set("own.test", 60, &["127.0.0.1"]);
    dns.set("target.test", 60, &["127.0.0.2"]);
    dns.set_service("_wss._tcp.chat.test", 60, &[(1, 1, good.address.port(), "own.test")]);
    dns.set_service("_bad._tcp.chat.test", 60, &[(1, 1, bad.address.port(), "target.test")]);
    let named = |service: &str, lines: &str| {
        format!(
            "[[upstream]]\nname = \"{service}\"\nservers = \"https://_{service}._tcp.chat.test\"\nresolve = \"srv\"\n\
             [upstream.tls]\nca = \"ca.pem\"\n{lines}\n[[route]]\npath = \"/{service}\"\nproxy = \"{service}\"\n"
        )
    };
    let text = |lines: &str| config(&dns.section(), &(named("wss", "") + &named("bad", lines)));
    let gateway = setup.start(&text(""));
    let status = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n\r\n");
        ask(&mut plain(&gateway).await, request).await.status()
    };
    assert_eq!((status("/wss").await, status("/bad").await), (200, 502), "{}", gateway.log());
    let (mut session, _) =
        WebSocket::connect(plain(&gateway).await, "default.test", "/wss", "").await.unwrap();
    session.echoes("by the same rule").await;
    let line = gateway.wait_for(|line| line["path"] == "/bad", 0, "a 502");
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.starts_with("the server's certificate is for target.test, and not for chat.test"),
        "{cause}"
    );
    // Another name may be written.
    gateway.write_config(&text("server_name = \"target.test\""));
    assert_eq!(gateway.reload()["message"], "reloaded");
    assert_eq!((status("/wss").await, status("/bad").await), (200, 200), "{}", gateway.log());
}

#[tokio::test]
async fn the_hosts_file_and_the_search_list_and_their_changes_count() {
    let (port, servers) = three().await;
    let dns = Dns::start();
    dns.set("app.corp.test", 60, &["127.0.0.1"]);
    dns.set("app.other.test", 60, &["127.0.0.2"]);
    dns.set("app", 60, &["192.0.2.1"]);
    let gateway = setup()
        .start(&config(&dns.section(), &format!("[[route]]\npath = \"/\"\nproxy = \"http://app:{port}\"\n")));
    get(&gateway).await;
    assert_eq!(counts(&servers), [1, 0, 0]);
    std::fs::write(gateway.path().join("resolv.conf"), "search other.test corp.test\n").unwrap();
    gateway.wait("a name leads elsewhere");
    get(&gateway).await;
    assert_eq!(counts(&servers), [1, 1, 0]);
    let asked = dns.asked("app.other.test");
    std::fs::write(gateway.path().join("hosts"), "127.0.0.3 some.host app # as containers have it\n")
        .unwrap();
    gateway.wait_nth("a name leads elsewhere", 1);
    get(&gateway).await;
    assert_eq!((counts(&servers), dns.asked("app.other.test")), ([1, 1, 1], asked));
    // A file that is replaced counts like one that is written.
    std::fs::write(gateway.path().join("new"), "").unwrap();
    std::fs::rename(gateway.path().join("new"), gateway.path().join("hosts")).unwrap();
    assert_eq!(gateway.wait_nth("a name leads elsewhere", 2)["found"], "127.0.0.2");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_warning() {
    let (port, servers) = three().await;
    let dns = Dns::start();
    dns.set("app.test", 1, &["127.0.0.1"]);
    let routes = |name: &str| {
        config(&dns.section(), &upstream("resolve = \"dns\"", &format!("\"http://{name}:{port}\"")))
    };
    let gateway = setup().start(&routes("app.test"));
    let file = gateway.path().join("wssgate.toml");
    let check = || run(gateway.path(), &["check", file.to_str().unwrap()]);
    let (text, is_good) = check();
    assert!(is_good && !text.contains("resolved"), "{text}");
    let mut session = open(&gateway).await;
    gateway.write_config(&routes("typo.test"));
    let (text, is_good) = check();
    let warning = "the backend's name typo.test can't be resolved: the name has no address";
    assert!(is_good && text.contains(&format!("warning: {warning}")), "{text}");
    // A reload takes it, says so, and has no server for requests.
    assert_eq!(gateway.reload()["message"], "reloaded");
    assert!(gateway.log().contains(warning), "{}", gateway.log());
    assert_eq!(get(&gateway).await.status(), 503);
    assert!(gateway.wait("request")["cause"].as_str().unwrap().contains("typo.test is not resolved"));
    session.echoes("not touched").await;
    dns.set("typo.test", 1, &["127.0.0.2"]);
    gateway.wait_for(
        |line| line["message"] == "a name leads elsewhere" && line["name"] == "typo.test",
        0,
        "found",
    );
    assert_eq!(get(&gateway).await.status(), 200);
    assert_eq!(counts(&servers), [1, 1, 0]);
}

#[tokio::test]
async fn addresses_that_do_not_answer_cost_a_quarter_of_a_second() {
    let (port, servers) = three().await;
    let dns = Dns::start();
    // A socket whose queue is full leaves a connection waiting, as a machine does that isn't there.
    let hole = TcpSocket::new_v4().unwrap();
    hole.bind(SocketAddr::from(([127, 0, 0, 4], port))).unwrap();
    let hole = hole.listen(0).unwrap();
    let _inside = std::net::TcpStream::connect((IpAddr::from([127, 0, 0, 4]), port)).unwrap();
    dns.set("app.test", 60, &["127.0.0.4", "127.0.0.1"]);
    let gateway = setup().start(&config(
        &dns.section(),
        &format!("[[route]]\npath = \"/\"\nproxy = \"http://app.test:{port}\"\npool = \"off\"\n"),
    ));
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(get(&gateway).await.status(), 200);
    }
    assert_eq!(counts(&servers), [4, 0, 0]);
    // Two of them tried the other address first. The time for a connection is 5 s.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    drop(hole);
}

#[tokio::test]
async fn a_takeover_keeps_the_sessions_of_a_server_that_has_left() {
    let (port, servers) = three().await;
    let dns = Dns::start();
    dns.set("app.test", 1, &["127.0.0.1"]);
    let top = format!("{CONTROL}{}", dns.section());
    let routes = upstream("resolve = \"dns\"", &format!("\"http://app.test:{port}\""));
    let gateway = setup().start(&config(&top, &routes));
    let mut session = open(&gateway).await;
    dns.set("app.test", 1, &["127.0.0.2"]);
    gateway.wait("a backend has left: its name leads elsewhere");
    let mut other = open(&gateway).await;
    gateway.take_over();
    until(async || upstreams(&gateway)["servers"][0]["sessions"] == 1).await;
    session.echoes("moved").await;
    other.echoes("moved").await;
    assert_eq!(get(&gateway).await.status(), 200);
    assert_eq!(counts(&servers), [1, 2, 0]);
    let info = upstreams(&gateway);
    assert_eq!(info["servers"][1]["server"], format!("127.0.0.1:{port}"), "{info}");
    assert_eq!(info["servers"][1]["sessions"], 1, "{info}");
}

#[tokio::test]
async fn a_takeover_hands_on_addresses_that_the_dns_no_longer_tells() {
    let (port, servers) = three().await;
    let dns = Dns::start();
    dns.set("app.test", 1, &["127.0.0.1"]);
    dns.set("pods.test", 1, &["127.0.0.2"]);
    dns.set_service("_chat._tcp.test", 1, &[(1, 1, port, "chat.test")]);
    dns.set("chat.test", 1, &["127.0.0.3"]);
    let top = format!("{CONTROL}{}", dns.section());
    let named = |name: &str, resolve: &str, path: &str| {
        format!(
            "[[upstream]]\nname = \"{path}\"\nservers = \"http://{name}\"\nresolve = \"{resolve}\"\n\
             [[route]]\npath = \"/{path}\"\nproxy = \"{path}\"\n"
        )
    };
    let routes = named(&format!("app.test:{port}"), "host", "app")
        + &named(&format!("pods.test:{port}"), "dns", "pods")
        + &named("_chat._tcp.test", "srv", "chat");
    let gateway = setup().start(&config(&top, &routes));
    let all = async |gateway: &Gateway| {
        for path in ["app", "pods", "chat"] {
            let request = format!("GET /{path} HTTP/1.1\r\nHost: default.test\r\n\r\n");
            assert_eq!(ask(&mut plain(gateway).await, request).await.status(), 200, "{}", gateway.log());
        }
    };
    all(&gateway).await;
    dns.fail(true);
    for _ in 0..2 {
        gateway.take_over();
        all(&gateway).await;
    }
    assert_eq!(counts(&servers), [3, 3, 3]);
    let kept = gateway.wait_for(
        |line| {
            let message = "a name can't be resolved any more: its last addresses stay in use";
            line["message"] == message && line["name"] == "pods.test"
        },
        0,
        "kept addresses",
    );
    assert_eq!(kept["kept"], "127.0.0.2");
    dns.fail(false);
    dns.set("app.test", 1, &["127.0.0.2"]);
    until(async || {
        all(&gateway).await;
        counts(&servers)[1] > counts(&servers)[2]
    })
    .await;
}

/// Connections to it, those that have ended, and requests.
type Http2Server = (Backend, Http2Seen, Arc<AtomicUsize>);

fn http2_at(listener: TcpListener) -> Http2Server {
    let (seen, ended) = (Http2Seen::default(), Arc::<AtomicUsize>::default());
    let (of_server, count) = (seen.clone(), ended.clone());
    let backend = Backend::on(listener, move |tcp| {
        let (seen, count) = (of_server.clone(), count.clone());
        let mut builder = h2::server::Builder::new();
        builder.enable_connect_protocol();
        async move {
            connection(tcp, &builder, &seen, echo).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (backend, seen, ended)
}

#[tokio::test]
async fn connections_over_http2_to_an_address_that_has_gone_end_with_their_last_stream() {
    for resolve in ["host", "dns"] {
        let (port, listeners) = listeners().await;
        let servers = listeners.map(http2_at);
        let dns = Dns::start();
        dns.set("app.test", 1, &["127.0.0.1", "127.0.0.2"]);
        let lines = format!("resolve = \"{resolve}\"\nprotocol = \"h2\"\n");
        let top = format!("{}{}", CONTROL.replace("workers = 2", "workers = 1"), dns.section());
        let routes = upstream(&lines, &format!("\"http://app.test:{port}\""));
        let gateway = setup().start(&config(&top, &routes));
        let requests = || servers.each_ref().map(|(_, seen, _)| seen.count());
        let connections = || servers.each_ref().map(|(_, seen, _)| seen.connections());
        let ended = || servers.each_ref().map(|(_, _, ended)| ended.load(Ordering::Relaxed));
        let mut sessions = Vec::new();
        for _ in 0..2 {
            sessions.push(open(&gateway).await);
        }
        let before = connections();
        // With "host" all streams share the first connection, whose address may be either.
        let (left, stays) = if before[0] > 0 { (0, 1) } else { (1, 0) };
        let ips = ["127.0.0.1", "127.0.0.2"];
        dns.set("app.test", 1, &[ips[stays], "127.0.0.3"]);
        gateway.wait("a name leads elsewhere");
        let asked = requests();
        for _ in 0..4 {
            get(&gateway).await;
        }
        assert_eq!(requests()[left], asked[left], "{resolve}: it gets nothing any more");
        assert_eq!(requests().iter().sum::<usize>(), asked.iter().sum::<usize>() + 4);
        for session in &mut sessions {
            session.echoes("still here").await;
        }
        assert_eq!(ended(), [0; 3], "{resolve}: it has streams");
        if resolve == "dns" {
            assert_eq!(connections()[stays], before[stays], "one whose address stays is used on");
        }
        for session in &mut sessions {
            session.close(1000).await;
            session.expect_close(1000).await;
        }
        until(async || ended()[left] == 1).await;
        assert_eq!((ended()[stays], ended()[2]), (0, 0), "{resolve}");
    }
}
