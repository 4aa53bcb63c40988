//! The program as it is started: `--version`, `check`, the demonstration, and what keeps it from
//! starting.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::backend::echo;
use support::gateway::{Setup, config, route};
use support::http1::ask;
use support::http2::Http2;
use support::pki::{Issued, Order, Pki, self_signed};
use support::soon;
use support::tls::{TLS12, TLS13, Tls, leaf};
use support::ws::WebSocket;
use tempfile::TempDir;
use tokio::net::TcpStream;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");
const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

fn check(directory: &Path, config: &str) -> Output {
    let file = directory.join("wssgate.toml");
    std::fs::write(&file, config).unwrap();
    Command::new(BINARY).arg("check").arg("--config").arg(file).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn it_tells_its_version() {
    let output = Command::new(BINARY).arg("--version").output().unwrap();
    assert_eq!(text(&output.stdout), format!("wssgate {}\n", env!("CARGO_PKG_VERSION")));
    assert!(output.status.success());
}

#[test]
fn it_prints_its_options() {
    let print = |command: &str| Command::new(BINARY).arg(command).output().unwrap();
    let reference = print("reference");
    assert!(reference.status.success());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    assert_eq!(text(&reference.stdout), std::fs::read_to_string(file).unwrap());
    let schema: serde_json::Value = serde_json::from_slice(&print("schema").stdout).unwrap();
    assert_eq!(schema["properties"]["workers"]["maximum"], 1024);
    let help = text(&print("--help").stdout);
    assert!(help.contains("  reference ") && help.contains("  schema "), "{help}");
}

/// The commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = text(&Command::new(BINARY).arg("--help").output().unwrap().stdout);
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    list.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_has_its_manual_page() {
    let temp = TempDir::new().unwrap();
    let output = Command::new(BINARY).arg("manual").arg(temp.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page = |name: &str| std::fs::read_to_string(temp.path().join(name)).unwrap();
    let main = page("wssgate.1");
    assert!(main.contains(".TH wssgate 1") && main.contains("edge gateway"), "{main}");
    for command in commands().iter().filter(|command| *command != "help") {
        let page = page(&format!("wssgate-{command}.1"));
        assert!(page.contains(&format!(".TH wssgate-{command} 1")), "{page}");
    }
    assert!(page("wssgate-proxy.1").contains("wssgate proxy ./app.sock"));
    let nowhere = Command::new(BINARY).args(["manual", "/nowhere"]).output().unwrap();
    assert!(!nowhere.status.success() && text(&nowhere.stderr).contains("to /nowhere"));
}

#[test]
fn shells_complete_every_command() {
    let script = |shell: &str| {
        let output = Command::new(BINARY).args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    for command in commands() {
        assert!(script("zsh").contains(&format!("'{command}:")), "{command}");
        assert!(script("fish").contains(&format!("-a \"{command}\"")), "{command}");
    }
    // What bash makes of `wssgate pr`.
    let ask = "COMP_WORDS=(wssgate pr) COMP_CWORD=1; _wssgate wssgate pr wssgate; echo \"${COMPREPLY[*]}\"";
    let bash = Command::new("bash").arg("-c").arg(script("bash") + ask).output().unwrap();
    assert_eq!(text(&bash.stdout), "proxy\n", "{}", text(&bash.stderr));
    assert!(!Command::new(BINARY).args(["completions", "tcsh"]).output().unwrap().status.success());
}

#[test]
fn check_shows_what_a_configuration_would_do() {
    let temp = TempDir::new().unwrap();
    let pki = Pki::new();
    let certs = temp.path().join("certs");
    let write = |order: &Order, name| {
        let issued: Issued = pki.issue_as(order);
        issued.write(&certs, name);
    };
    write(&Order::new(&["default.test", "*.default.test"]), "default");
    write(&Order { from_days: -90, until_days: -3, ..Order::new(&["old.test"]) }, "expired");
    write(&Order { from_days: -50, ..Order::new(&["default.test"]) }, "older");
    let routes = route("/wss", "127.0.0.1:8282".parse().unwrap())
        + "[route.websocket]\nidle_timeout = \"1h\"\nmax_message = \"16MiB\"\norigins = [\"https://default.test\"]\n"
        + ECHO;
    let output = check(temp.path(), &config("", &routes));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for expect in [
        "127.0.0.1:0",
        "TLS 1.2+: h2, http/1.1",
        "plain text: http/1.1",
        "/wss",
        "http://127.0.0.1:8282",
        "echo service",
        "idle 1h",
        "messages up to 16",
        "origins https://default.test",
        "default.test (default)",
        "*.default.test",
        "ECDSA",
        "Test Intermediate",
        "days left",
        "EXPIRED",
        "default.crt",
        "it was issued earlier",
        "older.crt",
        "warning:",
        "HAS EXPIRED",
    ] {
        assert!(shown.contains(expect), "no {expect:?} in\n{shown}");
    }
}

#[tokio::test]
async fn a_self_signed_ca_certificate_is_served_and_warned_about() {
    let setup = Setup::new(BINARY);
    let issued = self_signed(&["default.test"]);
    issued.write(&setup.path().join("certs"), "default");
    let text_of = |output: Output| text(&output.stdout) + &text(&output.stderr);
    let remedy = "make a new one with -addext basicConstraints=critical,CA:FALSE";
    let shown = text_of(check(setup.path(), &config("", ECHO)));
    assert!(shown.contains("warning: ") && shown.contains(remedy), "{shown}");
    let gateway = setup.start(&config("", ECHO));
    let warning = gateway.wait("certificates");
    assert!(warning["problem"].as_str().unwrap().ends_with(remedy), "{warning}");
    for versions in [TLS12, TLS13] {
        let client = Tls::with(versions, Some("default.test"), &[], &[]);
        assert_eq!(leaf(&client.connect(gateway.address()).await.unwrap()), issued.der);
    }
}

/// Each of these is likely not meant so, and none of it forbids to start.
#[tokio::test]
async fn check_looks_across() {
    let setup = Setup::new(BINARY);
    let certs = setup.path().join("certs");
    Pki::new().issue(&["default.test", "*.domain.com"]).write(&certs, "default");
    let everybody = std::fs::Permissions::from_mode;
    std::fs::set_permissions(setup.path(), everybody(0o755)).unwrap();
    std::fs::set_permissions(certs.join("default.key"), everybody(0o644)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let routes = format!(
        "[[route]]\nhost = \"domain.com\"\npath = \"/\"\nservice = \"echo\"\n{ECHO}\
         [admin]\naddress = \"{taken}\"\n"
    );
    let output = check(setup.path(), &config("", &routes));
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}");
    for expect in [
        "host domain.com: *.domain.com is not valid for domain.com itself; clients get the default's",
        "default.key: every user of this machine has access to the private key (mode 0644)",
        &format!("warning: {taken} is in use: another program listens there"),
    ] {
        assert!(shown.contains(expect), "no {expect:?} in\n{shown}");
    }
    assert_eq!(shown.matches("warning: ").count(), 3, "{shown}");
    let gateway = setup.start(&config("", &routes.replace(&taken.to_string(), "127.0.0.3:0")));
    let said = gateway.wait("configuration");
    assert!(said["problem"].as_str().unwrap().contains("host domain.com"), "{said}");
    // Its own listeners are no obstacle.
    let own = gateway.address();
    let text_of = |address| config("", ECHO).replacen("127.0.0.1:0", address, 1);
    let shown = text(&check(gateway.path(), &text_of(&own.to_string())).stdout);
    assert!(!shown.contains("is in use"), "{shown}");
}

#[test]
fn check_names_every_problem() {
    let temp = TempDir::new().unwrap();
    Pki::new().issue(&["default.test"]).write(&temp.path().join("certs"), "default");
    let named = "[[certificate]]\nchain = \"missing.crt\"\nkey = \"missing.key\"\n";
    let wrong = config("worker = 2", &(named.to_owned() + &ECHO.replace("echo", "ecco")));
    let output = check(temp.path(), &wrong);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let file = temp.path().join("wssgate.toml").display().to_string();
    for (line, expect) in [
        (1, "did you mean workers?"),
        (12, "missing.crt: can't be read"),
        (13, "missing.key: can't be read"),
        (16, "expected \"echo\" or \"console\""),
    ] {
        let found = said.lines().any(|l| l.starts_with(&format!("{file}:{line}:")) && l.contains(expect));
        assert!(found, "no {expect:?} at line {line} in\n{said}");
    }
    assert!(said.contains("4 problems"), "{said}");
    assert!(output.stdout.is_empty());
    let output = Command::new(BINARY).arg("check").output().unwrap();
    assert!(!output.status.success() && text(&output.stderr).contains("wssgate check FILE"));
}

#[test]
fn check_shows_limits() {
    let temp = TempDir::new().unwrap();
    std::fs::write(
        temp.path().join("htpasswd"),
        "alice:$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe\n",
    )
    .unwrap();
    let listener = "max_connections = 5000\n[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n";
    let routes = "[[route]]\npath = \"/open\"\nservice = \"echo\"\n\
                  [[route]]\npath = \"/chat\"\nservice = \"echo\"\n\
                  [route.websocket]\nmessages = \"600/m\"\nbytes = \"1MiB/s\"\non_limit = \"close\"\n\
                  [route.access]\ndeny = \"10.0.0.0/8\"\nbasic = { file = \"htpasswd\" }\n\
                  requests = \"50/s\"\nsessions = 100\nper = \"subject\"\nmax_body = \"10MiB\"\n";
    let shown = text_of(&check(temp.path(), &format!("{listener}{routes}")));
    let limits: Vec<&str> = shown.split("Limits\n").nth(1).unwrap().lines().collect();
    let squeezed: Vec<String> =
        limits.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let all = squeezed.join("\n");
    assert!(squeezed[1].starts_with("the gateway - max_connections 5000, max_memory "), "{shown}");
    assert!(!all.contains("/open"), "{shown}");
    for expect in [
        "deny, basic ",
        "htpasswd",
        "requests 50/s, sessions 100, per subject",
        "failures ",
        "max_body 10.0 MiB",
    ] {
        assert!(all.contains(expect), "no {expect:?} in\n{shown}");
    }
    assert!(all.contains("messages 600/m, bytes 1.0 MiB/s, on_limit close"), "{shown}");
}

/// A socket that isn't there yet may come, so it is no problem.
#[test]
fn check_looks_for_unix_sockets() {
    let temp = TempDir::new().unwrap();
    let path = |name: &str| temp.path().join(name).display().to_string();
    let _listening = std::os::unix::net::UnixListener::bind(path("there.sock")).unwrap();
    std::fs::write(path("file"), "").unwrap();
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n";
    let routes = format!(
        "[[upstream]]\nname = \"pool\"\nservers = [\"unix:{there}\",\n\"unix:{}\"]\n\
         [[route]]\npath = \"/pool\"\nproxy = \"pool\"\n\
         [[route]]\npath = \"/app\"\nproxy = \"http://unix:{}:/\"\n\
         [[route]]\npath = \"/php\"\nfastcgi = {{ root = \".\", server = \"unix:{}\" }}\n\
         [[route]]\npath = \"/auth\"\nproxy = \"unix:{there}\"\n[route.access]\n\
         forward = {{ url = \"http://unix:{}:/verify\" }}\n",
        path("pool.sock"),
        path("file"),
        path("php.sock"),
        path("auth.sock"),
        there = path("there.sock"),
    );
    let output = check(temp.path(), &format!("{listener}{routes}"));
    let said = text_of(&output);
    assert!(output.status.success(), "{said}");
    let warnings: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
    let file = temp.path().join("wssgate.toml").display().to_string();
    let missing = |name: &str| {
        format!(
            "there is no socket {} now; start the server that listens on it, or correct the path",
            path(name)
        )
    };
    let expected = [
        (7, missing("pool.sock")),
        (13, format!("{} is no socket; write the path that the server listens on", path("file"))),
        (16, missing("php.sock")),
        (21, missing("auth.sock")),
    ];
    assert_eq!(warnings.len(), expected.len(), "{said}");
    for (warning, (line, what)) in warnings.iter().zip(expected) {
        assert!(warning.starts_with(&format!("{file}:{line}:")) && warning.ends_with(&what), "{warning}");
    }
}

/// What upstreams can't do is a warning, or a problem if no request could be served.
#[test]
fn check_sees_what_upstreams_can_not_do() {
    let temp = TempDir::new().unwrap();
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n[dns]\nhosts = \"hosts\"\nservers = \"127.0.0.1:9\"\n";
    std::fs::write(temp.path().join("hosts"), "127.0.0.1 known.test\n").unwrap();
    Pki::new().issue(&["known.test"]).write(temp.path(), "known");
    let upstream = |servers: &str, more: &str| {
        format!(
            "{listener}[[upstream]]\nname = \"pool\"\nservers = [{servers}]\n{more}\n\
             [[route]]\npath = \"/\"\nproxy = \"pool\"\n"
        )
    };
    let limited = "{ address = \"http://known.test:1\", weight = 9, max_sessions = 100 }, \
                   { address = \"http://known.test:2\", max_sessions = 100 }";
    for (text, warning) in [
        (
            upstream(limited, ""),
            "the weight of known.test:1 can't be met: by its weight it gets 9 of 10 sessions",
        ),
        (upstream("\"http://unknown.test:1\"", ""), "the backend's name unknown.test can't be resolved: "),
        (
            upstream("\"http://known.test:1\"", "source_addresses = [\"127.0.0.1\", \"198.51.100.77\"]"),
            "source_addresses of pool: 198.51.100.77 is not an address of this machine at the moment",
        ),
        (upstream("\"http://known.test:1\"", ""), ""),
    ] {
        let output = check(temp.path(), &text);
        let said = text_of(&output);
        let warnings: Vec<_> = said.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert!(output.status.success(), "{said}");
        assert_eq!(warnings.len(), usize::from(!warning.is_empty()), "{said}");
        assert!(warnings.iter().all(|line| line.contains(warning)), "{said}");
    }
    let text = upstream("\"https://known.test\"", "tls = { ca = \"known.key\" }");
    let output = check(temp.path(), &text);
    let said = text_of(&output);
    assert!(
        !output.status.success() && said.contains("known.key: there is no certificate of an authority in it"),
        "{said}"
    );
}

/// Servers that requests are judged by are named with the place, as everything else in the file.
#[test]
fn check_says_where_a_server_is_named_that_is_not_there() {
    let temp = TempDir::new().unwrap();
    let access = |what: &str| {
        format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n\n[[route]]\npath = \"/\"\nservice = \"echo\"\n\
             [route.access]\n{what}\n"
        )
    };
    for (what, place, says) in [
        (
            "forward = { url = \"http://unknown.invalid/verify\" }",
            "9:19",
            "forward: the name unknown.invalid can't be resolved now: ",
        ),
        (
            "jwt = { jwks = \"http://unknown.invalid/keys\" }",
            "9:16",
            "jwks: the keys can't be fetched from http://unknown.invalid:80/keys now: ",
        ),
    ] {
        let output = check(temp.path(), &access(what));
        let said = text_of(&output);
        let warnings: Vec<_> = said.lines().filter(|line| line.starts_with("warning: ")).collect();
        let [warning] = warnings[..] else { panic!("{said}") };
        assert!(output.status.success() && warning.contains(&format!(":{place}: {says}")), "{said}");
        assert!(
            warning.ends_with("; until it can, requests get 503")
                || warning.ends_with("; until they can, requests get 503"),
            "{said}"
        );
    }
}

fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// What is wrong with a key is said at the line of `key`, what is wrong with a chain at that of `chain`.
#[test]
fn problems_with_a_key_point_at_the_key() {
    const CHAIN: usize = 12;
    const KEY: usize = 13;
    let temp = TempDir::new().unwrap();
    let certs = temp.path().join("certs");
    let pki = Pki::new();
    pki.issue(&["default.test"]).write(&certs, "default");
    pki.issue(&["other.test"]).write(&certs, "other");
    std::fs::create_dir(certs.join("folder")).unwrap();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAw\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (file, content) in [
        ("words.pem", "no key\n"),
        ("empty.pem", ""),
        ("encrypted.pem", encrypted),
        ("broken.pem", "-----BEGIN PRIVATE KEY-----\nMAAw\n-----END PRIVATE KEY-----\n"),
    ] {
        std::fs::write(certs.join(file), content).unwrap();
    }
    for (chain, key, expect) in [
        ("default.crt", "missing.key", &[(KEY, "missing.key: can't be read")][..]),
        ("default.crt", "folder", &[(KEY, "folder: ")]),
        ("default.crt", "words.pem", &[(KEY, "words.pem: ")]),
        ("default.crt", "empty.pem", &[(KEY, "empty.pem: ")]),
        ("default.crt", "encrypted.pem", &[(KEY, "encrypted.pem: ")]),
        ("default.crt", "broken.pem", &[(KEY, "broken.pem: ")]),
        ("default.crt", "default.crt", &[(KEY, "default.crt: holds no private key")]), // one file for both
        ("missing.pem", "missing.pem", &[(CHAIN, "missing.pem: can't be read")]),
        ("default.crt", "other.crt", &[(KEY, "other.crt: holds no private key")]),
        ("default.crt", "other.key", &[(KEY, "other.key: does not match the certificate in ")]),
        ("words.pem", "default.key", &[(CHAIN, "words.pem: ")]),
        ("missing.crt", "missing.key", &[(CHAIN, "missing.crt: "), (KEY, "missing.key: ")]),
    ] {
        let named = format!("[[certificate]]\nchain = \"certs/{chain}\"\nkey = \"certs/{key}\"\n");
        let output = check(temp.path(), &config("", &(named + ECHO)));
        let said = text(&output.stderr);
        let file = temp.path().join("wssgate.toml").display().to_string();
        for (line, what) in expect {
            let found = said.lines().any(|l| l.starts_with(&format!("{file}:{line}:")) && l.contains(what));
            assert!(found, "no {what:?} at line {line} for {chain} and {key} in\n{said}");
        }
        assert_eq!(output.status.code(), Some(1));
    }
}

/// As people know it from other programs.
#[test]
fn commands_in_other_spellings() {
    let temp = TempDir::new().unwrap();
    let file = temp.path().join("wssgate.toml");
    std::fs::write(&file, format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n{ECHO}")).unwrap();
    let file = file.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).env("WSSGATE_CONFIG", "/nowhere.toml").output().unwrap()
    };
    for arguments in
        [&["check", file][..], &["validate", file], &["-t", file], &["-t", "-c", file], &[file, "-t"]]
    {
        let output = run(arguments);
        assert!(text(&output.stdout).contains("echo service"), "{arguments:?}: {}", text(&output.stderr));
    }
    assert_eq!(text(&run(&["version"]).stdout), text(&run(&["--version"]).stdout));
    let output = run(&["chekc"]);
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("\"chekc\" is neither a command nor a file"),
        "{}",
        text(&output.stderr)
    );
}

/// `wssgate FILE` runs.
#[test]
fn a_file_alone_is_the_configuration() {
    let temp = TempDir::new().unwrap();
    let file = temp.path().join("wssgate.toml");
    std::fs::write(&file, format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n{ECHO}")).unwrap();
    let mut child = Command::new(BINARY).arg(file).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let is_ready = lines.any(|line| line.unwrap().contains("ready"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_ready);
}

#[tokio::test]
async fn a_port_that_is_taken_is_not_shared() {
    let start = |config: &str| Setup::new(BINARY).with_certificate(&["default.test"]).launch(config);
    let first = start(&config("", ECHO));
    first.wait("ready");
    let taken = first.address().to_string();
    let mut second = start(&config("", ECHO).replacen("127.0.0.1:0", &taken, 1));
    assert_eq!(second.wait_end().code(), Some(1));
    let line = second.wait("the configuration can't be used");
    let problem = line["problem"].as_str().unwrap();
    assert!(problem.contains(&taken) && problem.contains("listens there already"), "{line}");
    // The first goes on alone.
    for _ in 0..8 {
        let mut io = Tls::new("default.test", &[]).connect(first.address()).await.unwrap();
        assert_eq!(ask(&mut io, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await.status(), 426);
    }
}

#[test]
fn it_does_not_start_with_what_is_broken() {
    let setup = Setup::new(BINARY);
    let mut gateway = setup.launch(&config("", ECHO));
    assert_eq!(gateway.wait_end().code(), Some(1));
    let line = gateway.wait("the configuration can't be used");
    let problem = line["problem"].as_str().unwrap();
    assert!(problem.contains(":8:13:") && problem.contains("certs: can't be read"), "{line}");
    let mut nothing = Setup::new(BINARY).launch("");
    assert_eq!(nothing.wait_end().code(), Some(1));
    assert_eq!(nothing.lines("the configuration can't be used").len(), 2);
}

/// The configuration is a pipe, so the gateway stands still before it has read anything.
#[tokio::test]
async fn an_early_hangup_does_not_kill_and_is_not_lost() {
    let setup = Setup::new(BINARY).with_certificate(&["default.test"]);
    let pipe = setup.config_file();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let gateway = setup.launch_as_it_is();
    // As soon as there is a handler, and long before anything else is there.
    let status = format!("/proc/{}/status", gateway.pid());
    let catches_hangup = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 1 == 1
    };
    while !catches_hangup() {
        std::thread::yield_now();
    }
    for _ in 0..3 {
        gateway.signal("HUP");
    }
    assert!(gateway.log().is_empty());
    std::fs::write(&pipe, config("", ECHO)).unwrap();
    gateway.wait("ready");
    std::fs::write(&pipe, config("", ECHO)).unwrap();
    gateway.wait("reloaded");
    let mut io = Tls::new("default.test", &[]).connect(gateway.address()).await.unwrap();
    assert_eq!(ask(&mut io, "GET / HTTP/1.1\r\nHost: default.test\r\n\r\n").await.status(), 426);
}

#[tokio::test]
async fn the_demonstration_makes_one_certificate_and_says_where_it_is() {
    let temp = TempDir::new().unwrap();
    let certificate = temp.path().join("state/wssgate/dev/cert.pem");
    let mut first = Vec::new();
    for _ in 0..2 {
        let mut child = Command::new(BINARY)
            .current_dir(temp.path())
            .env("XDG_STATE_HOME", temp.path().join("state"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        while !said.contains("Ctrl-C") {
            assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
        }
        assert!(said.contains("No configuration file was given"), "{said}");
        assert!(said.contains(certificate.to_str().unwrap()), "{said}");
        let port = said.split("https://localhost:").nth(1).unwrap().split('/').next().unwrap();
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let stream = Tls::new("localhost", &["http/1.1"]).connect(address).await.unwrap();
        let leaf = support::tls::leaf(&stream).to_vec();
        let mut io = stream;
        let page = ask(&mut io, format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n")).await;
        assert!(page.text().contains("WebSocket console"), "{page:?}");
        let (mut socket, _) = WebSocket::connect(io, "localhost", "/wss", "").await.unwrap();
        socket.echoes("tom").await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(first.is_empty() || first == leaf, "made once and kept");
        first = leaf;
    }
}

#[tokio::test]
async fn the_console_page() {
    let setup = Setup::new(BINARY).with_certificate(&["default.test"]);
    let routes =
        "[[route]]\npath = \"/try\"\nservice = \"console\"\n[[route]]\npath = \"/wss\"\nservice = \"echo\"\n";
    let gateway = setup.start(&config("", routes));
    let get = async |path: &str| {
        let mut io = Tls::new("default.test", &[]).connect(gateway.address()).await.unwrap();
        ask(&mut io, format!("GET {path} HTTP/1.1\r\nHost: default.test\r\n\r\n")).await
    };
    let page = get("/try/").await;
    let policy = page.head.get("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(page.text().contains("<script src=\"console.js\" defer></script>"));
    assert!(!page.text().contains("http"), "no external asset");
    assert_eq!(get("/try").await.head.get("location"), Some("/try/"));
    for (path, kind) in [("/try/console.js", "text/javascript"), ("/try/console.css", "text/css")] {
        assert!(get(path).await.head.get("content-type").unwrap().starts_with(kind));
    }
    assert_eq!(get("/try/other").await.status(), 404);
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    let refused = WebSocket::connect(io, "default.test", "/try/", "").await;
    assert_eq!(refused.err().unwrap().status(), 404);
}

/// A line of the log as fields; what is counted or measured is as good as any other number.
fn shape(line: &str) -> Vec<String> {
    let masked = line.replace(|c: char| c.is_ascii_digit(), "0");
    let mut fields = vec![String::new()];
    let (mut quoted, mut last) = (false, ' ');
    for c in masked.chars() {
        quoted ^= c == '"' && last != '\\';
        match c {
            ' ' if !quoted => fields.push(String::new()),
            '0' if last == '0' => {}
            _ => fields.last_mut().unwrap().push(c),
        }
        last = c;
    }
    fields
}

#[tokio::test]
async fn the_line_in_the_book_is_what_it_prints() {
    let (backend, _seen) = echo().await;
    let temp = TempDir::new().unwrap();
    Pki::new().issue(&["domain.com"]).write(&temp.path().join("certs"), "domain");
    let file = temp.path().join("wssgate.toml");
    let routes = format!(
        "[[route]]\nhost = \"domain.com\"\npath = \"/wss\"\nproxy = \"http://{}\"\n",
        backend.address
    );
    std::fs::write(&file, config("", &routes).replace("default.test", "domain.com")).unwrap();
    let mut child = Command::new(BINARY).arg("--config").arg(file).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address =
        lines.find_map(|line| line.split_once(" listening address=").map(|(_, rest)| rest.to_owned()));
    let address = address.unwrap().split(' ').next().unwrap().parse().unwrap();
    let io = Tls::new("domain.com", &["h2"]).connect(address).await.unwrap();
    let mut client = Http2::connect(io, "domain.com").await;
    let (mut socket, _) = client.websocket("/wss", &[]).await.unwrap();
    socket.echoes("tom").await;
    socket.close(1001).await;
    socket.expect_close(1001).await;
    drop(socket);
    let find = move || lines.find(|line| line.contains(" session "));
    let line = soon(tokio::task::spawn_blocking(find)).await.unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let book = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/log.md")).unwrap();
    let sample = book.split("```text\nINFO ").nth(1).unwrap().split("\n```").next().unwrap();
    let sample: Vec<&str> = sample.split_whitespace().collect();
    let printed = line.split_once("INFO ").unwrap().1;
    assert_eq!(shape(&sample.join(" ")), shape(printed), "{line}");
}

/// Whatever clients send and files hold.
#[tokio::test]
async fn lines_of_text_are_logfmt() {
    let setup = Setup::new(BINARY).with_text_log().with_certificate(&["default.test"]);
    let gone = "[[route]]\npath = \"/gone\"\nproxy = \"http://127.0.0.1:1\"\n";
    let gateway = setup.start(&config("", &(ECHO.to_owned() + gone)));
    let (tls, plain) = (gateway.addresses()[0], gateway.addresses()[1]);
    for request in [
        "GET /a=b\"c HTTP/1.1\r\nHost: default.test\r\n\r\n",
        "GET /gone HTTP/1.1\r\nHost: default.test\r\n\r\n",
        "G=T /\\ HTTP/1.1\r\nHost: default.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a=\"b\"\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "not HTTP\r\n\r\n",
    ] {
        let mut io = TcpStream::connect(plain).await.unwrap();
        ask(&mut io, request).await;
    }
    ask(&mut TcpStream::connect(tls).await.unwrap(), "GET / HTTP/1.1\r\n\r\n").await;
    let tcp = TcpStream::connect(plain).await.unwrap();
    let mut socket = WebSocket::connect(tcp, "default.test", "/", "").await.unwrap().0;
    socket.close(1001).await;
    let session = gateway.wait("session");
    assert_eq!((&session["close_code"], &session["ended_by"]), (&"1001".into(), &"client".into()));
    gateway.write_config(&config("nonsense = \"a \\n=\"", ECHO));
    assert!(gateway.reload()["message"].as_str().unwrap().starts_with("reload refused"));
    std::fs::write(gateway.path().join("certs/a=b.pem"), "-----BEGIN").unwrap();
    gateway.write_config(&config("", ECHO));
    assert_eq!(gateway.reload()["message"], "reloaded");
    gateway.signal("TERM");
    gateway.wait("drained: the last connection has ended");
    // The same field is always written the same way.
    let mut quoted = HashMap::new();
    let lines = gateway.all_lines();
    for line in &lines {
        let text = line["line"].as_str().unwrap_or_else(|| panic!("not logfmt: {line}"));
        for (name, value) in line.as_object().unwrap() {
            let is_quoted = text.contains(&format!(" {name}=\""));
            if is_quoted || text.contains(&format!(" {name}={}", value.as_str().unwrap())) {
                assert_eq!(*quoted.entry(name.clone()).or_insert(is_quoted), is_quoted, "{name} in {text}");
            }
        }
    }
    assert!(quoted["cause"] && quoted["path"] && !quoted["peer"] && quoted.len() > 20, "{quoted:?}");
    let requests = lines.iter().filter(|line| line["message"] == "request").count();
    assert_eq!(requests, 4, "{}", gateway.log());
}
