//! Counts the system calls of a gateway, with perf where it works, else with strace.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{sleep, timeout};

use crate::child::Child;

const EVENT: &str = "raw_syscalls:sys_enter";
/// Neither tool says when it has attached.
const ATTACHING: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracer {
    Perf,
    Strace,
}

impl Tracer {
    /// The first that works here.
    pub(crate) fn find() -> Option<Self> {
        let works = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if works("perf", &["stat", "-e", EVENT, "true"]) {
            Some(Self::Perf)
        } else if works("strace", &["-c", "true"]) {
            Some(Self::Strace)
        } else {
            None
        }
    }

    /// Counts from now on.
    pub(crate) async fn attach(self, pids: &[Pid], dir: &Path, core: usize) -> anyhow::Result<Counting> {
        let file = dir.join("system-calls");
        let name = file.to_string_lossy().into_owned();
        let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
        let joined = pids.join(",");
        let (program, args) = match self {
            Self::Perf => ("perf", vec!["stat", "-x,", "-e", EVENT, "-o", &name, "-p", &joined]),
            Self::Strace => ("strace", vec!["-f", "-c", "-o", &name, "-p", &joined]),
        };
        let mut child = Child::spawn(&[core], OsStr::new(program), args, |command| {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        })?;
        sleep(ATTACHING).await;
        if child.has_ended() {
            bail!("{program} can't attach to the gateway");
        }
        Ok(Counting { tracer: self, child, file })
    }
}

/// A count under way.
pub(crate) struct Counting {
    tracer: Tracer,
    child: Child,
    file: PathBuf,
}

impl Counting {
    /// The number of calls since [`Tracer::attach`].
    pub(crate) async fn finish(mut self) -> anyhow::Result<u64> {
        kill(self.child.pid, Signal::SIGINT)?;
        timeout(Duration::from_secs(10), self.child.process.wait()).await.context("the tracer hangs")??;
        let text = fs::read_to_string(&self.file)?;
        let parse = match self.tracer {
            Tracer::Perf => parse_perf,
            Tracer::Strace => parse_strace,
        };
        parse(&text).with_context(|| format!("not the output of {:?}: {text}", self.tracer))
    }
}

/// `count,unit,event,…`
fn parse_perf(text: &str) -> Option<u64> {
    text.lines().find(|line| line.contains(EVENT))?.split(',').next()?.parse().ok()
}

/// `percent seconds usecs/call calls [errors] total`
fn parse_strace(text: &str) -> Option<u64> {
    text.lines().find(|line| line.ends_with(" total"))?.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_are_understood() {
        let perf = "# started on Mon\n\n3442,,raw_syscalls:sys_enter,222373529,100.00,,\n";
        assert_eq!(parse_perf(perf), Some(3442));
        assert_eq!(parse_perf("<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n"), None);
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                      \x20 0.00    0.000000           0         1           close\n\
                      100.00    0.000042           0        57         3 total\n";
        assert_eq!(parse_strace(strace), Some(57));
    }
}
