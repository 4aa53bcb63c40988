//! Files that hold secrets, broken in every way: nothing that the program says repeats them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use support::gateway::{Gateway, Setup, config};
use support::pki::{Issued, Pki};

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");
const CONTROL: &str = "[control]\nsocket = \"control.sock\"\n";
const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";
const NAMED: &str = "[[certificate]]\nchain = \"named/a.crt\"\nkey = \"named/a.key\"\n";
/// As `wssgate ticket-key` makes them.
const TICKET_KEYS: [&str; 2] = [
    "3e5d0fb1a2c48796e0d1c2b3a4958677f0e1d2c3b4a5968778695a4b3c2d1e0f",
    "91c3e5d7f9b1a2c48796e0d1c2b3a495867758697a8b9cadbecfd0e1f2031425",
];

/// What scripts, editors and full disks make of a file of PEM.
fn broken(pem: &str) -> Vec<(&'static str, Vec<u8>)> {
    let text = |what, text: String| (what, text.into_bytes());
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    vec![
        text("one line with \\n", pem.replace('\n', "\\n")),
        text("one line with blanks", pem.replace('\n', " ")),
        text("one line", pem.replace('\n', "")),
        text("in JSON", format!("{{\"key\": \"{}\"}}", pem.replace('\n', "\\n"))),
        text("in YAML", pem.lines().map(|line| format!("key: {line}\n")).collect()),
        text("truncated", pem[..pem.len() * 2 / 3].to_owned()),
        text("without its beginning", pem[40..].to_owned()),
        text("the text alone", body.clone()),
        text("bad base64", pem.replace(&body[8..12], "!?!?")),
        text("another BEGIN", pem.replacen("PRIVATE", "RSA PRIVATE", 1)),
        text("another label", pem.replace("PRIVATE KEY", "SECRET")),
        text("as a certificate", pem.replace("PRIVATE KEY", "CERTIFICATE")),
        text("the text as label", pem.replace("PRIVATE KEY", &body)),
        text("too few hyphens", pem.replace("-----", "---")),
        text("twice with a mark", format!("\u{feff}{}\u{feff}{}", pem.trim_end(), pem.replace('\n', "x"))),
        ("UTF-16", [0xff, 0xfe].into_iter().chain(pem.bytes().flat_map(|byte| [byte, 0])).collect()),
        ("binary", pem.bytes().flat_map(|byte| [byte, 0, 0xff]).collect()),
        ("behind junk", [&[0, 1, 2, 0xff, 0x80][..], pem.as_bytes()].concat()),
    ]
}

/// No piece of eight characters of the secret lines is in what was said.
#[track_caller]
fn is_silent(secrets: &[&str], said: &str, what: &str) {
    for secret in secrets {
        for at in (0..secret.len().saturating_sub(8)).step_by(4) {
            let piece = &secret[at..at + 8];
            assert!(!said.contains(piece), "{what}: {piece} of {secret} is in\n{said}");
        }
    }
}

fn lines(key: &str) -> Vec<&str> {
    key.lines().filter(|line| !line.starts_with('-')).collect()
}

/// What a command has said, on both outputs.
fn run(arguments: &[&str], file: &Path) -> String {
    let output = Command::new(BINARY).args(arguments).arg("--config").arg(file).output().unwrap();
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn everything(gateway: &Gateway) -> String {
    let file = gateway.path().join("wssgate.toml");
    let outputs =
        [&["check"][..], &["reload"], &["reload", "--json"], &["status", "--json"]].map(|a| run(a, &file));
    outputs.concat() + &gateway.log()
}

fn lay_out(setup: &Setup, pki: &Pki) -> Issued {
    pki.issue(&["default.test"]).write(&setup.path().join("certs"), "default");
    let issued = pki.issue(&["a.test"]);
    issued.write(&setup.path().join("certs"), "a");
    issued.write(&setup.path().join("named"), "a");
    issued
}

#[tokio::test]
async fn a_broken_key_is_never_repeated() {
    let setup = Setup::new(BINARY);
    let pki = Pki::new();
    let issued = lay_out(&setup, &pki);
    let secrets = lines(&issued.key);
    fs::write(setup.path().join("tickets"), TICKET_KEYS[0]).unwrap();
    let text = config("ticket_keys = \"tickets\"\n", &format!("{ECHO}{NAMED}{CONTROL}"))
        .replace("watch = false\n", "");
    let gateway = setup.start(&text);
    let path = |file: &str| gateway.path().join(file);
    for (complaints, (what, bytes)) in broken(&issued.key).into_iter().enumerate() {
        fs::write(path("named/a.key"), &bytes).unwrap();
        fs::write(path("certs/a.key"), &bytes).unwrap();
        // The renewal, then an operator's reload.
        gateway.wait_for(|line| line["message"] == "certificates", complaints, what);
        let said = everything(&gateway);
        assert!(said.contains("a.key"), "{what}: {said}");
        is_silent(&secrets, &said, what);
        fs::write(path("named/a.key"), &issued.key).unwrap();
    }
    // And a start.
    for (what, bytes) in broken(&issued.key) {
        fs::write(path("certs/a.key"), &bytes).unwrap();
        fs::write(path("named/a.key"), &bytes).unwrap();
        let said = run(&[], &path("wssgate.toml"));
        assert!(said.contains("a.key"), "{what}: {said}");
        is_silent(&secrets, &said, what);
    }
}

#[tokio::test]
async fn a_broken_file_of_ticket_keys_is_never_repeated() {
    let setup = Setup::new(BINARY);
    lay_out(&setup, &Pki::new());
    let good = format!("{}\n{}\n", TICKET_KEYS[0], TICKET_KEYS[1]);
    fs::write(setup.path().join("tickets"), &good).unwrap();
    let gateway = setup.start(&config("ticket_keys = \"tickets\"\n", &format!("{ECHO}{CONTROL}")));
    for (what, text) in [
        ("one line with \\n", good.replace('\n', "\\n")),
        ("one line", good.replace('\n', "")),
        ("cut", good[..40].to_owned()),
        ("no digit", good.replace('e', "x")),
        ("twice", good.clone() + &good),
        ("as PEM", format!("-----BEGIN KEY-----\n{good}-----END KEY-----\n")),
        ("as TOML", format!("key = \"{}\"\n", TICKET_KEYS[0])),
        ("a mark", format!("\u{feff}{good}")),
    ] {
        fs::write(gateway.path().join("tickets"), text).unwrap();
        is_silent(&TICKET_KEYS, &everything(&gateway), what);
    }
}

#[tokio::test]
async fn a_secret_in_the_configuration_is_never_repeated() {
    let setup = Setup::new(BINARY);
    let issued = lay_out(&setup, &Pki::new());
    let (key, good) = (&issued.key, config("", &format!("{ECHO}{NAMED}{CONTROL}")));
    let one_line = key.trim_end().replace('\n', "\\n");
    let body = lines(key).concat();
    // Some keys have letters and digits alone.
    let label = body.replace(['+', '/', '='], "a");
    let ticket = TICKET_KEYS[0];
    let named = |value: &str| good.replace("\"named/a.key\"", value);
    let texts = [
        ("a key as key", named(&format!("\"{one_line}\""))),
        ("in many lines", named(&format!("\"\"\"\n{key}\"\"\""))),
        ("in many lines, literally", named(&format!("'''{key}'''"))),
        ("in the wrong quotes", named(&format!("\"{key}\""))),
        ("without quotes", named(key)),
        ("its text alone", named(&format!("\"{body}\""))),
        ("as a chain", good.replace("\"named/a.crt\"", &format!("[\"named/a.crt\", \"{one_line}\"]"))),
        ("as a directory", good.replace("directory = \"certs\"", &format!("directory = \"{body}\""))),
        ("as a key of TOML", format!("{key}\n{good}")),
        ("as a key in quotes", format!("\"{one_line}\" = 1\n{good}")),
        ("as another key", format!("secret = \"{one_line}\"\n{good}")),
        ("as a duration", format!("drain_timeout = \"{body}\"\n{good}")),
        ("as a number", format!("workers = \"{body}\"\n{good}")),
        ("as a host", good.replace("path = \"/\"", &format!("path = \"/\"\nhost = \"{body}\""))),
        ("as a label", good.replace("path = \"/\"", &format!("path = \"/\"\nhost = \"{label}\""))),
        ("as a path", good.replace("path = \"/\"", &format!("path = \"{body}\""))),
        (
            "as an origin",
            good.replace(ECHO, &format!("{ECHO}[route.websocket]\norigins = [\"{one_line}\"]\n")),
        ),
        ("a ticket key", format!("ticket_keys = \"{ticket}\"\n{good}")),
        ("a ticket key without quotes", format!("ticket_keys = {ticket}\n{good}")),
        ("a ticket key as a key", format!("{ticket} = 1\n{good}")),
        ("a ticket key as a socket", good.replace("\"control.sock\"", &format!("\"{ticket}\""))),
        (
            "a password",
            good.replace("service = \"echo\"", &format!("proxy = \"http://user:{body}@127.0.0.1:1/\"")),
        ),
    ];
    let gateway = setup.start(&good);
    let mut secrets = lines(key);
    secrets.push(ticket);
    for (what, text) in texts {
        gateway.write_config(&text);
        let file = gateway.path().join("wssgate.toml");
        let checked = run(&["check"], &file);
        assert!(checked.contains("wssgate.toml:") || checked.contains("wssgate:"), "{what}: {checked}");
        gateway.signal("HUP");
        let socket = gateway.path().join("control.sock");
        let reloaded = run(&["reload", "--socket", socket.to_str().unwrap()], &file);
        is_silent(&secrets, &format!("{checked}{reloaded}{}{}", run(&[], &file), gateway.log()), what);
    }
}
