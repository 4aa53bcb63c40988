//! A gateway within another program: this test's process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::path::Path;

use gateway::Gateway;
use gateway::config::Config;
use gateway::lifecycle::{Ending, StartError};
use support::pki::Pki;
use support::soon;
use support::tls::Tls;
use support::ws::WebSocket;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

const ROUTE: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

fn config(text: &str, directory: &Path) -> Config {
    Config::from_toml(&format!("workers = 1\n{text}\n{ROUTE}"), directory).unwrap()
}

#[tokio::test]
async fn it_serves_until_its_shutdown_and_ends_sessions_in_order() {
    let directory = tempfile::TempDir::new().unwrap();
    let pki = Pki::new();
    pki.issue(&["a.test"]).write(directory.path(), "a");
    let tls = "drain_window = \"1ms\"\n[certificates]\ndirectory = \".\"\n\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let plain = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n";
    let first = Gateway::bind(config(tls, directory.path())).await.unwrap();
    let second = Gateway::bind(config(plain, directory.path())).await.unwrap();
    let (at_tls, at_plain) = (first.addresses()[0], second.addresses()[0]);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(first.serve(async { drop(stopped.await) }));
    let others = tokio::spawn(second.serve(std::future::pending()));

    let io = Tls::new("a.test", &["http/1.1"]).connect(at_tls).await.unwrap();
    let mut session = WebSocket::connect(io, "a.test", "/", "").await.unwrap().0;
    session.echoes("over TLS").await;
    let mut other =
        WebSocket::connect(TcpStream::connect(at_plain).await.unwrap(), "a.test", "/", "").await.unwrap().0;
    other.echoes("in plain text").await;

    stop.send(()).unwrap();
    session.expect_close(1001).await;
    session.close(1001).await;
    assert_eq!(soon(serving).await.unwrap(), Ending::Terminated);
    assert!(TcpStream::connect(at_tls).await.is_err(), "its socket is closed");
    other.echoes("another gateway of the process goes on").await;

    others.abort();
    other.expect_end().await;
}

#[tokio::test]
async fn what_can_not_be_carried_out_is_an_error_and_leaves_nothing_open() {
    let directory = tempfile::TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!("[[listener]]\naddress = \"{address}\"\ntls = false\n");
    let error = Gateway::bind(config(&text, directory.path())).await.unwrap_err();
    assert!(matches!(&error, StartError::Config(problems) if problems.0.len() == 1), "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
    drop(taken);
    let gateway = Gateway::bind(config(&text, directory.path())).await.unwrap();
    drop(gateway);
    Gateway::bind(config(&text, directory.path())).await.unwrap();
}
