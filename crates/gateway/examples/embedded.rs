//! A gateway within a program of your own: an echo service on a port that the system chooses, until Ctrl-C.
//!
//! `cargo run --example embedded`, then `websocat ws://127.0.0.1:PORT/`.

use std::path::Path;

use gateway::Gateway;
use gateway::config::Config;

const CONFIG: &str = r#"
[[listener]]
address = "127.0.0.1:0"
tls = false

[[route]]
path = "/"
service = "echo"
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let gateway = Gateway::bind(Config::from_toml(CONFIG, Path::new("."))?).await?;
    tracing::info!(addresses = ?gateway.addresses(), "open one of these with ws://");
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    gateway.serve(interrupted).await;
    Ok(())
}
