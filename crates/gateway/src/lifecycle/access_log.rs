//! The access log's file: opened before anything is swapped, opened again at SIGUSR1, and whole at the end.

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::config::{AccessTarget, Config, LogSettings, Problem};
use crate::telemetry::access::{AccessLog, PreparedAccess};

/// Opens what `config` wants. Without it (`None`) there is one problem more.
pub(super) fn prepare(
    log: &AccessLog,
    config: &Config,
    problems: &mut Vec<Problem>,
) -> Option<PreparedAccess> {
    let LogSettings { access, access_place, format, sessions } = &config.log;
    match log.prepare(access, *format, *sessions) {
        Ok(prepared) => Some(prepared),
        Err(e) => {
            let what = match access {
                AccessTarget::File(path) => format!("{}: can't be opened for writing: {e}", path.display()),
                AccessTarget::Syslog(path) => {
                    format!("{}: the system's log can't be reached: {e}", path.display())
                }
                AccessTarget::Log | AccessTarget::Off => e.to_string(),
            };
            problems.push(config.problem(*access_place, what));
            None
        }
    }
}

/// Opens the file again whenever `asked`, whatever else the process does: it may drain for an hour.
pub(super) async fn reopen_when(mut asked: Signal, log: AccessLog) {
    while asked.recv().await.is_some() {
        let log = log.clone();
        // A file system may hang.
        if let Err(e) = spawn_blocking(move || log.reopen()).await {
            warn!(cause = %e, "the access log can't be opened again");
        }
    }
}

/// Waits until what the workers have handed over is written, a second at most.
pub(super) async fn finish(log: AccessLog) {
    if let Err(e) = spawn_blocking(move || log.finish()).await {
        warn!(cause = %e, "the access log's end is lost");
    }
}
