//! What an operator reads: the lines that a service writes by `tracing`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::PATIENCE;
use support::pki::{Order, Pki};
use support::ws::WebSocket;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tracing_subscriber::fmt;
use wss_service::{Certificates, HandlerError, Message, Refusal, Service, Session, StatusCode};

/// The lines of this program.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The first line that has all of this.
    async fn with(&self, parts: &[&str]) -> String {
        let patience = Instant::now() + PATIENCE;
        loop {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            if let Some(line) = text.lines().find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.to_owned();
            }
            assert!(Instant::now() < patience, "no line with {parts:?} in\n{text}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_log_says_where_it_listens_what_is_wrong_with_certificates_and_how_a_session_went() {
    let lines = Lines::default();
    let writer = lines.clone();
    fmt().with_ansi(false).with_writer(move || writer.clone()).init();

    let (certs, pki) = (TempDir::new().unwrap(), Pki::new());
    pki.issue_as(&Order { until_days: 5, ..Order::new(&["a.test"]) }).write(certs.path(), "a.test");
    let secure = Service::bind("127.0.0.1:0").unwrap();
    let address = secure.addresses()[0].to_string();
    tokio::spawn(secure.certificates(Certificates::directory(certs.path()).unwrap()).run());
    lines.with(&["INFO", "listening", &address, "tls=true"]).await;
    lines.with(&["WARN", "a certificate expires", "a.test.crt", "days_left="]).await;
    let broken = certs.path().join("a.test.crt");
    std::fs::write(&broken, "no certificate").unwrap();
    lines.with(&["WARN", "certificates", broken.to_str().unwrap(), "neither PEM"]).await;

    let plain = Service::bind("127.0.0.1:0").unwrap();
    let address = plain.addresses()[0];
    tokio::spawn(plain.path("/path").on_open(refuse_some).on_message(fail).run());
    lines.with(&["listening", &address.to_string(), "tls=false"]).await;
    let tcp = TcpStream::connect(address).await.unwrap();
    assert!(WebSocket::connect(tcp, "a.test", "/path?no", "").await.is_err());
    lines
        .with(&[
            "INFO",
            "refused",
            "path=\"/path\"",
            "status=401",
            "the handler refuses it: a token is needed\"",
        ])
        .await;
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut client = WebSocket::connect(tcp, "a.test", "/path", "").await.unwrap().0;
    client.text("hello").await;
    client.expect_close(1011).await;
    let session = ["ERROR", "session", "path=\"/path\"", "user=\"ann\"", "code=1011", "it can't"];
    lines.with(&session).await;
}

async fn refuse_some(session: Session) -> Result<(), Refusal> {
    match session.query() {
        Some("no") => Err(Refusal::new(StatusCode::UNAUTHORIZED).with_body("a token is needed\nand more\n")),
        _ => Ok(()),
    }
}

async fn fail(session: Session, _: Message) -> Result<(), HandlerError> {
    session.bind_user("ann");
    Err("it can't".into())
}
