//! `wssgate doctor`: what it finds of a gateway, of a machine, and of a configuration without a gateway.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};
use support::backend::{Backend, echo};
use support::dns::Dns;
use support::gateway::{Setup, config, route};
use support::http1::ask;
use support::pki::{Order, Pki};
use support::ws::WebSocket;
use support::{soon, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");
const CONTROL: &str = "[control]\nsocket = \"control.sock\"\n";
const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

/// What the doctor has said.
struct Said {
    code: i32,
    text: String,
}

impl Said {
    fn findings(&self) -> Vec<Value> {
        let lines = self.text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter_map(|line| line.get("finding").cloned()).collect()
    }

    /// Those of one area that need attention.
    fn of(&self, area: &str) -> Vec<Value> {
        let mut all = self.findings();
        all.retain(|finding| finding["area"] == area && finding["level"] != "note");
        all
    }

    fn last(&self) -> Value {
        serde_json::from_str(self.text.lines().last().unwrap()).unwrap()
    }
}

async fn doctor(directory: &Path, arguments: &str) -> Said {
    let mut command = Command::new(BINARY);
    command
        .arg("doctor")
        .args(arguments.split_whitespace())
        .arg("--config")
        .arg(directory.join("wssgate.toml"));
    let output = soon(command.env_remove("RUNTIME_DIRECTORY").output()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    Said { code: output.status.code().unwrap(), text: String::from_utf8(output.stdout).unwrap() }
}

fn setup() -> Setup {
    Setup::new(BINARY).with_certificate(&["default.test"])
}

#[tokio::test]
async fn a_gateway_that_serves_has_nothing_of_its_own_to_be_mended() {
    let gateway = setup().start(&config("", &(ECHO.to_owned() + CONTROL)));
    let said = doctor(gateway.path(), "--json").await;
    for area in ["gateway", "configuration", "servers", "names", "descriptors", "log", "addresses"] {
        assert_eq!(said.of(area), [] as [Value; 0], "{}", said.text);
    }
    let attention = said.last()["attention"].as_u64().unwrap();
    assert_eq!((said.last()["ok"].clone(), said.code), (json!(attention == 0), i32::from(attention > 0)));
    let text = doctor(gateway.path(), "").await.text;
    assert!(text.contains("in order: gateway, configuration"), "{text}");
}

#[tokio::test]
async fn a_server_that_is_down_is_found_with_what_to_do() {
    let health = "[upstream.health]\nprobe = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"100ms\"\nfall = 1\n";
    let address = Backend::unreachable();
    let routes = format!(
        "[[upstream]]\nname = \"chat\"\nservers = [\"http://{address}\"]\n{health}[[route]]\npath = \"/\"\nproxy = \"chat\"\n{CONTROL}"
    );
    let gateway = setup().start(&config("", &routes));
    gateway.wait_for(
        |line| line["state"] == "down" || line["message"].as_str().is_some_and(|m| m.contains("down")),
        0,
        "down",
    );
    let said = doctor(gateway.path(), "--json").await;
    let found = said.of("servers");
    let [finding] = &found[..] else { panic!("{}", said.text) };
    assert_eq!(finding["level"], "PROBLEM");
    assert!(
        finding["what"].as_str().unwrap().starts_with(&format!("{address} of chat is down")),
        "{finding}"
    );
    assert!(finding["see"].as_str().unwrap().contains("wssgate upstreams"));
    assert!(!finding["do"].as_str().unwrap().is_empty());
    assert_eq!((said.code, &said.last()["ok"]), (1, &json!(false)));
}

#[tokio::test]
async fn descriptors_that_are_nearly_used_up_are_found() {
    let gateway = setup().with_descriptors(64).start(&config("workers = 1\n", &(ECHO.to_owned() + CONTROL)));
    let used = || gateway.descriptors().len();
    let mut clients = Vec::new();
    while used() < 53 {
        clients.push(gateway.connect_plain().await);
        let before = clients.len();
        support::until(async || used() >= before).await;
    }
    let said = doctor(gateway.path(), "--json").await;
    let found = said.of("descriptors");
    assert!(
        found.len() == 1 && found[0]["what"].as_str().unwrap().contains("of 64 file descriptors"),
        "{}",
        said.text
    );
    assert_eq!(said.code, 1);
}

#[tokio::test]
async fn without_a_gateway_the_configuration_and_the_machine_are_looked_at() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap();
    let setup = setup();
    let listener = format!("[[listener]]\naddress = \"{address}\"\ntls = false\n");
    let good = format!("{listener}{}{CONTROL}", route("/", "127.0.0.1:1".parse().unwrap()));
    std::fs::write(setup.config_file(), &good).unwrap();
    let said = doctor(setup.path(), "--json").await;
    let gateway = said.of("gateway");
    assert!(
        gateway.len() == 1 && gateway[0]["what"].as_str().unwrap().contains("there is no control socket"),
        "{}",
        said.text
    );
    // This test's own program is in the way.
    let addresses = said.of("addresses");
    let pid = std::process::id();
    assert!(
        addresses
            .iter()
            .any(|finding| finding["what"].as_str().unwrap().contains(&format!("(process {pid})"))),
        "{}",
        said.text
    );
    assert_eq!(said.code, 1);
    // A configuration that can't be used.
    std::fs::write(setup.config_file(), good.replace("path = ", "paht = ")).unwrap();
    let said = doctor(setup.path(), "--json").await;
    let found = said.of("configuration");
    assert!(
        found.iter().any(|finding| finding["what"].as_str().unwrap().contains("unknown key \"paht\"")),
        "{}",
        said.text
    );
    let text = doctor(setup.path(), "").await.text;
    assert!(text.starts_with("PROBLEM  ") && text.contains("  see: ") && text.contains("  do:  "), "{text}");
    assert!(text.ends_with("need attention\n"), "{text}");
}

#[tokio::test]
async fn a_log_that_loses_lines_is_found() {
    let gateway = setup().start(&config("", &format!("{ECHO}{CONTROL}[log]\naccess = \"/dev/full\"\n")));
    let request = "GET /nowhere HTTP/1.1\r\nHost: default.test\r\n\r\n";
    ask(&mut gateway.connect_plain().await, request).await;
    // The line is written later, by a thread of its own.
    let found = async || doctor(gateway.path(), "--json").await.of("log");
    until(async || !found().await.is_empty()).await;
    let finding = &found().await[0];
    assert!(finding["what"].as_str().unwrap().starts_with("1 lines of the log are lost"), "{finding}");
    assert!(finding["do"].as_str().unwrap().contains("look at the disk"), "{finding}");
}

#[tokio::test]
async fn certificates_without_their_issuer_and_nearly_expired_are_found() {
    let setup = Setup::new(BINARY);
    let pki = Pki::new();
    let soon = Order { until_days: 3, ..Order::new(&["soon.test"]) };
    pki.issue_as(&soon).write(&setup.path().join("certs"), "soon");
    let incomplete = Pki::new().issue(&["default.test"]); // by another one: no other file has its issuer
    incomplete.write(&setup.path().join("certs"), "default");
    let gateway = setup.start(&config("", &(ECHO.to_owned() + CONTROL)));
    let of = async || doctor(gateway.path(), "--json").await.of("certificates");
    let found = of().await;
    let expires = |one: &Value| one["what"].as_str().unwrap().contains("soon.test");
    assert!(!found.is_empty() && found.iter().all(expires), "{found:?}");
    let says = |found: &[Value], key: &str, part: &str| {
        found.iter().any(|one| one[key].as_str().unwrap().contains(part))
    };
    assert!(says(&found, "see", " -servername soon.test "), "{found:?}");
    assert!(says(&found, "do", "renew it"), "{found:?}");
    // The file has the certificate alone, as people copy cert.pem in place of fullchain.pem.
    std::fs::write(gateway.path().join("certs/default.crt"), &incomplete.leaf).unwrap();
    let found = of().await;
    let chain =
        found.iter().find(|one| one["what"].as_str().unwrap().contains("Test Intermediate is missing"));
    let chain = chain.unwrap_or_else(|| panic!("{found:?}"));
    assert!(chain["see"].as_str().unwrap().starts_with("wssgate check "), "{chain}");
    assert!(chain["do"].as_str().unwrap().contains("fullchain.pem"), "{chain}");
}

#[tokio::test]
async fn a_name_that_can_t_be_resolved_and_a_socket_that_is_not_there_are_found() {
    let dns = Dns::start();
    dns.set("app.test", 1, &["127.0.0.1"]);
    let routes = format!(
        "{}{CONTROL}[[route]]\npath = \"/\"\nproxy = \"http://app.test:1\"\n[[route]]\npath = \"/unix\"\nproxy = \"unix:/nothing/is/here.sock\"\n",
        dns.section()
    );
    let setup = setup();
    std::fs::write(setup.path().join("resolv.conf"), "").unwrap();
    std::fs::write(setup.path().join("hosts"), "127.0.0.1 localhost\n").unwrap();
    let gateway = setup.start(&config("", &routes));
    assert_eq!(doctor(gateway.path(), "--json").await.of("names"), [] as [Value; 0]);
    dns.remove("app.test");
    let said = doctor(gateway.path(), "--json").await;
    assert!(
        said.of("names").iter().any(|one| one["what"].as_str().unwrap().contains("app.test")),
        "{}",
        said.text
    );
    let sockets = said.of("servers");
    assert!(
        sockets.iter().any(|one| one["what"].as_str().unwrap().contains("/nothing/is/here.sock")),
        "{}",
        said.text
    );
}

/// None is accepted at a listener any more: clients have taken all descriptors.
#[tokio::test]
async fn clients_that_wait_to_be_accepted_are_found() {
    const LIMIT: usize = 60;
    let text = config("workers = 1\n", &(ECHO.to_owned() + CONTROL))
        .replace("tls = false", "tls = false\nheader_timeout = \"5m\"");
    let gateway = setup().with_descriptors(LIMIT).start(&text);
    let plain = gateway.addresses()[1];
    let mut clients = Vec::new();
    for _ in 0..LIMIT + 70 {
        // Silent clients would be disconnected for others.
        let mut client = TcpStream::connect(plain).await.unwrap();
        client.write_all(b"GET").await.unwrap();
        clients.push(client);
    }
    let found = async || doctor(gateway.path(), "--json").await.of("queues");
    let waits = |one: &Value| {
        one["what"].as_str().unwrap().ends_with(&format!("connections wait to be accepted at {plain}"))
    };
    until(async || found().await.iter().any(waits)).await;
    let finding = found().await.into_iter().find(waits).unwrap();
    assert_eq!((&finding["level"], &finding["see"]), (&json!("PROBLEM"), &json!("ss -ltn")));
    assert!(finding["do"].as_str().unwrap().contains("descriptors are used up"), "{finding}");
    drop(clients);
    until(async || !found().await.iter().any(waits)).await;
}

#[tokio::test]
async fn connections_that_are_nearly_as_many_as_there_may_be_are_found() {
    let gateway = setup().start(&config("max_connections = 10\n", &(ECHO.to_owned() + CONTROL)));
    let mut sessions = Vec::new();
    for (count, level) in [(7, None), (8, Some("warning")), (10, Some("PROBLEM"))] {
        while sessions.len() < count {
            let io = gateway.connect_plain().await;
            sessions.push(WebSocket::connect(io, "default.test", "/", "").await.unwrap());
        }
        let found = doctor(gateway.path(), "--json").await.of("gateway");
        let said = found.iter().map(|one| (one["level"].as_str().unwrap(), one["what"].as_str().unwrap()));
        let what = format!("{count} of 10 connections are open");
        let expected: Vec<_> = level.map(|level| (level, &*what)).into_iter().collect();
        assert_eq!(said.collect::<Vec<_>>(), expected);
        assert!(found.iter().all(|one| one["do"].as_str().unwrap().contains("raise max_connections")));
    }
}

#[tokio::test]
async fn requests_that_wait_for_a_server_are_found() {
    let (server, _) = echo().await;
    let routes = format!(
        "[[upstream]]\nname = \"small\"\nservers = [{{ address = \"http://{}\", max_sessions = 1 }}]\n\
         queue = {{ length = 5, timeout = \"1h\" }}\n[[route]]\npath = \"/\"\nproxy = \"small\"\n{CONTROL}",
        server.address
    );
    let gateway = setup().start(&config("", &routes));
    let session = WebSocket::connect(gateway.connect_plain().await, "default.test", "/", "").await.unwrap();
    assert_eq!(doctor(gateway.path(), "--json").await.of("servers"), [] as [Value; 0]);
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut io = gateway.connect_plain().await;
        io.write_all(b"GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await.unwrap();
        waiting.push(io);
    }
    let found = async || doctor(gateway.path(), "--json").await.of("servers");
    let says = |one: &Value| one["what"] == "2 requests wait for a server of small";
    until(async || found().await.iter().any(says)).await;
    let finding = &found().await[0];
    assert_eq!((&finding["level"], &finding["see"]), (&json!("warning"), &json!("wssgate upstreams")));
    assert!(finding["do"].as_str().unwrap().contains("max_sessions"), "{finding}");
    drop(session);
    until(async || found().await.is_empty()).await;
}

/// What the configuration says is enough: nothing has to listen.
#[tokio::test]
async fn a_listener_that_takes_ipv6_alone_is_found() {
    let setup = setup();
    let found = async |addresses: &str| {
        let text = format!("[[listener]]\naddress = {addresses}\ntls = false\n{ECHO}{CONTROL}");
        std::fs::write(setup.config_file(), text).unwrap();
        let mut found = doctor(setup.path(), "--json").await.of("addresses");
        found.retain(|one| one["what"].as_str().unwrap().contains("takes no IPv4"));
        found
    };
    let finding = &found("\"[::]:44443\"").await[..];
    let [finding] = finding else { panic!("{finding:?}") };
    assert!(finding["what"].as_str().unwrap().contains("nothing listens on 0.0.0.0:44443"), "{finding}");
    assert_eq!(finding["do"], "address = [\"0.0.0.0:44443\", \"[::]:44443\"] in the listener");
    assert_eq!(found("[\"0.0.0.0:44443\", \"[::]:44443\"]").await, [] as [Value; 0]);
}
