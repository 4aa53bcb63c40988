//! The user's program that puts records into the DNS.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::failure::OrderFailure;

/// How long one call may take. Many wait until the record is on all servers of the zone.
const TIMEOUT: Duration = Duration::from_secs(120);
/// So much of what it complains about is repeated. In bytes.
const COMPLAINT_LEN_MAX: u64 = 500;

/// Runs the program with further arguments, to its end.
///
/// # Errors
/// If it can't be started, takes too long, or says that it has failed.
///
/// # Cancel safety
/// A dropped call kills it.
pub(super) async fn run(command: &[String], arguments: [&str; 3]) -> Result<(), OrderFailure> {
    let Some((program, first)) = command.split_first() else {
        return Err(OrderFailure::local("there is no dns_command"));
    };
    let failed =
        |what: String| OrderFailure::local(format!("dns_command: {program} {}: {what}", arguments[0]));
    let mut child = Command::new(program)
        .args(first)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(format!("it can't be started: {e}")))?;
    let mut complaint = Vec::new();
    let running = async {
        if let Some(mut stderr) = child.stderr.take() {
            let _ = (&mut stderr).take(COMPLAINT_LEN_MAX).read_to_end(&mut complaint).await;
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await; // it must not stop at a full pipe
        }
        child.wait().await
    };
    match timeout(TIMEOUT, running).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let complaint = String::from_utf8_lossy(&complaint);
            Err(failed(format!("{status}: {}", complaint.split_whitespace().collect::<Vec<_>>().join(" "))))
        }
        Ok(Err(e)) => Err(failed(e.to_string())),
        Err(_) => Err(failed(format!("it took longer than {TIMEOUT:?}"))),
    }
}
