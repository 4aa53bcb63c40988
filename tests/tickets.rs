//! Resumption across restarts and nodes, by ticket keys from a file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::HandshakeKind::{self, Full, Resumed};
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::pki::Pki;
use support::tls::{TLS12, TLS13, Tls};
use support::ws::WebSocket;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");
const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

fn fresh_key() -> String {
    let output = Command::new(BINARY).arg("ticket-key").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// One certificate and one file of ticket keys for any number of gateways.
struct Site {
    directory: TempDir,
    keys: PathBuf,
}

impl Site {
    fn new(keys: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        Pki::new().issue(&["default.test"]).write(&directory.path().join("certs"), "default");
        let site = Self { keys: directory.path().join("ticket.keys"), directory };
        site.write_keys(keys);
        site
    }

    /// As an operator should: whole, or not at all.
    fn write_keys(&self, keys: &[&str]) {
        let new = self.keys.with_extension("new");
        fs::write(&new, keys.concat()).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, &self.keys).unwrap();
    }

    fn config(&self) -> String {
        let certs = self.directory.path().join("certs").display().to_string();
        let top = format!("ticket_keys = \"{}\"", self.keys.display());
        config(&top, ECHO).replace("\"certs\"", &format!("\"{certs}\""))
    }

    fn start(&self) -> Gateway {
        Setup::new(BINARY).start(&self.config())
    }
}

async fn kind(client: &Tls, gateway: &Gateway) -> HandshakeKind {
    let mut stream = client.connect(gateway.address()).await.unwrap();
    // TLS 1.3 tickets come with the first bytes of the server's.
    assert_eq!(ask(&mut stream, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await.status(), 426);
    stream.get_ref().1.handshake_kind().unwrap()
}

fn clients() -> [Tls; 2] {
    [TLS12, TLS13].map(|versions| Tls::with(versions, Some("default.test"), &[], &[]))
}

#[tokio::test]
async fn sessions_resume_after_a_restart() {
    let site = Site::new(&[&fresh_key()]);
    let mut gateway = site.start();
    let clients = clients();
    for client in &clients {
        assert_eq!(kind(client, &gateway).await, Full);
    }
    gateway.signal("TERM");
    gateway.ends_well();
    let gateway = site.start();
    for client in &clients {
        assert_eq!(kind(client, &gateway).await, Resumed);
        assert_eq!(kind(client, &gateway).await, Resumed);
    }
}

#[tokio::test]
async fn without_a_file_a_restart_forgets() {
    let site = Site::new(&[]);
    let config = site.config().replacen("ticket_keys", "# ticket_keys", 1);
    let [old, new] = clients();
    let gateway = Setup::new(BINARY).start(&config);
    assert_eq!(kind(&old, &gateway).await, Full);
    assert_eq!(kind(&new, &gateway).await, Full);
    drop(gateway);
    let gateway = Setup::new(BINARY).start(&config);
    assert_eq!(kind(&old, &gateway).await, Full);
    assert_eq!(kind(&new, &gateway).await, Full);
}

#[tokio::test]
async fn a_session_of_one_node_resumes_on_another() {
    let site = Site::new(&[&fresh_key()]);
    let nodes = [site.start(), site.start()];
    for client in clients() {
        assert_eq!(kind(&client, &nodes[0]).await, Full);
        assert_eq!(kind(&client, &nodes[1]).await, Resumed);
        assert_eq!(kind(&client, &nodes[0]).await, Resumed);
    }
}

#[tokio::test]
async fn keys_are_rotated_by_hangup() {
    let (first, second, third) = (fresh_key(), fresh_key(), fresh_key());
    let site = Site::new(&[&first]);
    let gateway = site.start();
    let name = |key: &str| key.split(" # ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(gateway.wait("ready")["ticket_key"], name(&first));
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    let mut live = WebSocket::connect(io, "default.test", "/", "").await.unwrap().0;
    // One client each, since a resumption brings tickets of the new key.
    let mut earlier = [clients(), clients()].concat();
    for client in &earlier {
        assert_eq!(kind(client, &gateway).await, Full);
    }
    let later = clients();
    site.write_keys(&[&second, &first]);
    // The file counts when it is read.
    assert_eq!(kind(&earlier.pop().unwrap(), &gateway).await, Resumed);
    let report = gateway.reload();
    assert_eq!((&report["message"], &report["ticket_key"]), (&"reloaded".into(), &name(&second).into()));
    assert_eq!(kind(&earlier.pop().unwrap(), &gateway).await, Resumed, "the old key opens");
    for client in &later {
        assert_eq!(kind(client, &gateway).await, Full);
    }
    site.write_keys(&[&third, &second]);
    assert_eq!(gateway.reload()["ticket_key"], name(&third));
    for client in &earlier {
        assert_eq!(kind(client, &gateway).await, Full, "the old key is gone");
    }
    for client in &later {
        assert_eq!(kind(client, &gateway).await, Resumed, "the new one sealed");
    }
    live.echoes("still here").await;
}

#[tokio::test]
async fn keys_in_memory_take_over_when_the_file_is_not_wanted_any_more() {
    let site = Site::new(&[&fresh_key()]);
    let gateway = site.start();
    let clients = clients();
    for client in &clients {
        assert_eq!(kind(client, &gateway).await, Full);
    }
    gateway.write_config(&site.config().replacen("ticket_keys", "# ticket_keys", 1));
    let report = gateway.reload();
    assert_eq!((&report["message"], &report["ticket_key"]), (&"reloaded".into(), &serde_json::Value::Null));
    let other = site.start();
    for client in &clients {
        assert_eq!(kind(client, &gateway).await, Resumed);
        assert_eq!(kind(client, &other).await, Full, "the new ticket is of the new key");
    }
}

#[tokio::test]
async fn a_broken_key_file_is_refused_and_the_old_keys_stay() {
    let (first, second) = (fresh_key(), fresh_key());
    let site = Site::new(&[&first]);
    let gateway = site.start();
    let clients = clients();
    for client in &clients {
        assert_eq!(kind(client, &gateway).await, Full);
    }
    let short = second.replacen(&second[..2], "", 1);
    for (keys, expect) in [
        (vec![&*short, &*first], "ticket.keys:1:1: expected a key of 64 hexadecimal digits, found 62"),
        (vec!["\n", &*first, &*first], "ticket.keys:3:1: this key is already in the file (line 2)"),
        (vec!["# all removed\n"], "ticket.keys:2:1: the file has no key"),
    ] {
        site.write_keys(&keys);
        let line = gateway.reload();
        assert_eq!(line["message"], "reload refused: the old generation stays in use");
        let said = line["first"].as_str().unwrap();
        assert!(said.contains(expect), "{said}");
        assert!(!gateway.log().contains(&first[..16]) && !gateway.log().contains(&second[2..16]));
        for client in &clients {
            assert_eq!(kind(client, &gateway).await, Resumed);
        }
    }
    fs::remove_file(&site.keys).unwrap();
    let line = gateway.reload();
    let said = line["first"].as_str().unwrap();
    assert!(said.contains("wssgate.toml:1:15: ticket_keys:") && said.contains("can't be read"), "{said}");
    // Nor does anything start with it.
    let mut refused = Setup::new(BINARY).launch(&site.config());
    assert!(!refused.wait_end().success());
    assert!(refused.log().contains("ticket.keys can't be read"), "{}", refused.log());
}

#[test]
fn keys_that_others_may_read_are_warned_about() {
    let site = Site::new(&[&fresh_key(), &fresh_key()]);
    let check = |config: &Path| {
        let output = Command::new(BINARY).args(["check", "--config"]).arg(config).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let file = site.directory.path().join("wssgate.toml");
    fs::write(&file, site.config()).unwrap();
    let said = check(&file);
    assert!(
        said.contains("Ticket keys") && said.contains("encrypt and decrypt") && !said.contains("warning"),
        "{said}"
    );
    fs::set_permissions(&site.keys, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(check(&file).contains("warning: ") && check(&file).contains("(mode 0644)"));
    let gateway = site.start();
    let line = gateway.wait("ticket keys");
    assert!(line["problem"].as_str().unwrap().contains("(mode 0644)"), "{line}");
}
