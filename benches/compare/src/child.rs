//! Processes that are pinned to cores and die with us.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A process in a group of its own, which is killed as a whole when this is dropped.
pub(crate) struct Child {
    pub(crate) process: tokio::process::Child,
    pub(crate) pid: Pid,
}

impl Child {
    /// Starts `program` on these cores, by way of [`become_pinned`].
    pub(crate) fn spawn(
        cores: &[usize],
        program: &OsStr,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        prepare: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
        command.args(["pin", &cores.join(","), "--"]).arg(program).args(args);
        command.stdin(Stdio::null()).process_group(0);
        prepare(&mut command);
        let process = tokio::process::Command::from(command).spawn().context("can't start a process")?;
        let pid = process.id().context("a process ended at once")?;
        Ok(Self { process, pid: Pid::from_raw(i32::try_from(pid)?) })
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// It has ended, and not in order.
    pub(crate) fn has_failed(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(status) if status.is_none_or(|status| status.success()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The id is not used again before it has been waited for.
        if self.process.id().is_some() {
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }
}

/// Numbers of cores, as they are passed to a pinned process.
#[derive(Debug, Clone)]
pub(crate) struct Cores(pub(crate) Vec<usize>);

/// Reads `0,1`.
pub(crate) fn parse_cores(text: &str) -> Result<Cores, std::num::ParseIntError> {
    text.split(',').map(str::parse).collect::<Result<_, _>>().map(Cores)
}

/// This process runs on these cores from now on.
pub(crate) fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|core| set.set(*core))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("there are no cores {cores:?}"))
}

/// Pins this process, asks to be told when the parent dies, and becomes the command; so the process id
/// stays what the parent was given.
pub(crate) fn become_pinned(cores: &[usize], command: &[OsString]) -> anyhow::Result<()> {
    set_pdeathsig(Signal::SIGTERM)?;
    pin(cores)?;
    let (program, args) = command.split_first().context("no command")?;
    let e: io::Error = Command::new(program).args(args).exec();
    Err(e).with_context(|| program.display().to_string())
}
