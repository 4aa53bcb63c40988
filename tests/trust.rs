//! `wssgate trust`: an authority of this machine's, and the stores that are told of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use support::apart::apart;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const BINARY: &str = env!("CARGO_BIN_EXE_wssgate");
const AUTHORITY: &str = "state/wssgate/authority.pem";
const CERTIFICATE: &str = "state/wssgate/dev/cert.pem";

/// A user's directory, with tools that only write down how they are called.
fn home() -> TempDir {
    let home = TempDir::new().unwrap();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let tool = bin.join("certutil");
    // It creates what it is told to, and knows what it was told.
    let script = "#!/bin/sh\necho \"$@\" >>$HOME/calls\ncase $3 in -N) : >\"${2#sql:}/cert9.db\" ;; esac\n";
    fs::write(&tool, script).unwrap();
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755)).unwrap();
    home
}

/// `path` is where tools are looked for.
fn wssgate(home: &Path, path: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(home).env("HOME", home).env("XDG_STATE_HOME", home.join("state"));
    command.env("PATH", path);
    command
}

/// Nothing on this path changes the system.
fn run(home: &Path, arguments: &[&str]) -> Output {
    let path = home.join("bin");
    wssgate(home, path.to_str().unwrap(), arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// `wssgate echo`, until it is dropped.
struct Echo(Child, SocketAddr, String);

impl Echo {
    fn start(home: &Path) -> Self {
        let mut command = wssgate(home, "", &["echo", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut welcome = String::new();
        while !welcome.contains("Ctrl-C") {
            assert!(stdout.read_line(&mut welcome).unwrap() > 0, "{welcome}");
        }
        let port = welcome.split("https://localhost:").nth(1).unwrap().split('/').next().unwrap();
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        Self(child, address, welcome)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A handshake of a client that trusts this authority alone.
async fn handshake(authority: &Path, address: SocketAddr, name: &str) -> Result<(), std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map(drop)
}

#[tokio::test]
async fn the_development_certificate_is_trusted_by_its_authority() {
    let temp = home();
    let home = temp.path();
    let profile = home.join(".mozilla/firefox/abc.default");
    fs::create_dir_all(&profile).unwrap();
    fs::write(profile.join("cert9.db"), "").unwrap();
    let (authority, certificate) = (home.join(AUTHORITY), home.join(CERTIFICATE));
    assert!(Echo::start(home).2.contains("run `wssgate trust` once"));
    let trusted = run(home, &["trust"]);
    assert!(trusted.status.success(), "{}", said(&trusted));
    let calls = fs::read_to_string(home.join("calls")).unwrap();
    let name = fs::read_to_string(&authority).unwrap().lines().next().unwrap()[2..].to_owned();
    for (database, is_new) in [(home.join(".pki/nssdb"), true), (profile, false)] {
        let database = database.display();
        assert_eq!(calls.contains(&format!("-d sql:{database} -N --empty-password\n")), is_new, "{calls}");
        let added = format!("-d sql:{database} -A -t C,, -n {name} -i {}\n", authority.display());
        assert!(calls.contains(&added), "{calls}");
    }
    // It is the only key that is left, and it is not the authority's.
    let files = |directory: &str| {
        let mut names: Vec<_> = fs::read_dir(home.join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(files("state/wssgate"), ["authority.pem", "dev"]);
    assert_eq!(files("state/wssgate/dev"), ["cert.pem", "key.pem"]);
    let echo = Echo::start(home);
    assert!(echo.2.contains("signed by this machine's authority"), "{}", echo.2);
    for name in ["localhost", "127.0.0.1"] {
        handshake(&authority, echo.1, name).await.unwrap();
    }
    assert!(handshake(&authority, echo.1, "domain.com").await.is_err());
    // The second time nothing is made.
    let before = (fs::read(&authority).unwrap(), fs::read(&certificate).unwrap());
    assert!(run(home, &["trust"]).status.success());
    assert_eq!(before, (fs::read(&authority).unwrap(), fs::read(&certificate).unwrap()));

    let removed = run(home, &["trust", "--remove"]);
    assert!(removed.status.success(), "{}", said(&removed));
    let calls = fs::read_to_string(home.join("calls")).unwrap();
    assert_eq!(calls.matches(&format!(" -D -n {name}\n")).count(), 2, "{calls}");
    assert!(!authority.exists() && before.1 != fs::read(&certificate).unwrap());
    let again = run(home, &["trust", "--remove"]);
    assert!(again.status.success() && said(&again).contains("there is no authority"), "{}", said(&again));
}

#[test]
fn a_missing_tool_is_named() {
    let temp = home();
    fs::remove_file(temp.path().join("bin/certutil")).unwrap();
    let output = run(temp.path(), &["trust"]);
    let said = said(&output);
    assert!(!output.status.success() && said.contains("certutil is missing; install it"), "{said}");
    assert!(said.contains("not added to the system's authorities"), "{said}");
}

/// With Debian's own tool, on copies of what it changes.
#[test]
fn the_systems_authorities() {
    let test = "the_systems_authorities";
    let prepare = "cp -a /etc/ssl/certs $WSSGATE_TEST_PLACE/certs && mkdir -p $WSSGATE_TEST_PLACE/local && \
                   mount --bind $WSSGATE_TEST_PLACE/certs /etc/ssl/certs && \
                   mount --bind $WSSGATE_TEST_PLACE/local /usr/local/share/ca-certificates && \
                   command -v update-ca-certificates >/dev/null";
    let Some(place) = apart(test, &[&["--mount"], &["--user", "--map-root-user", "--mount"]], prepare) else {
        return;
    };
    let home = home();
    let path = format!("{}:{}", home.path().join("bin").display(), std::env::var("PATH").unwrap());
    let trust = |more: &[&str]| {
        let output = wssgate(home.path(), &path, &[&["trust"], more].concat()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let bundle = || fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap();
    let before = bundle();
    let shown = trust(&[]);
    assert!(shown.contains("added to the system's authorities"), "{shown}");
    let authority = fs::read_to_string(home.path().join(AUTHORITY)).unwrap();
    let body = authority.split_once('\n').unwrap().1;
    assert!(!before.contains(body) && bundle().contains(body));
    assert_eq!(fs::read_dir(place.join("local")).unwrap().count(), 1);
    let shown = trust(&["--remove"]);
    assert!(shown.contains("removed from the system's authorities"), "{shown}");
    assert!(!bundle().contains(body));
    assert_eq!(fs::read_dir(place.join("local")).unwrap().count(), 0);
}
