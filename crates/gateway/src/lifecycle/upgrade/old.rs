//! The old gateway's side of a takeover: starts the new one, hands over what it needs, and waits.
//!
//! Until the new one is told to begin, nothing has changed here, and a failure has no effect.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::process::{Child, Command};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::context::transit::Transit;
use crate::lifecycle::load::ConfigSource;
use crate::lifecycle::upgrade::batch::in_time;
use crate::lifecycle::upgrade::leave::{Meanwhile, MoveCount, move_sessions, unexpected};
use crate::lifecycle::upgrade::origin::{LAUNCH, Program, STEP};
use crate::lifecycle::upgrade::protocol::{Channel, DESCRIPTORS_MAX, Inheritance, UpgradeMessage};
use crate::net::listening::ListenAddress;
use crate::ops::control::protocol::{ControlResponse, Request};
use crate::worker::Handle;

/// Why there is no takeover; `None` if there may be one.
pub(crate) fn refusal(pid: u32, source: &ConfigSource, is_going_on: bool) -> Option<&'static str> {
    if pid == 1 {
        // The kernel ends every process of a container with its first.
        Some("this is process 1 of a container, which would end with it; start a new container instead")
    } else if matches!(source, ConfigSource::BuiltIn { .. }) {
        Some(
            "the demonstration can't be taken over, nor what else runs without a configuration file; give one with --config FILE or --write FILE",
        )
    } else if matches!(source, ConfigSource::Given(_)) {
        Some("this gateway is a part of another program")
    } else if is_going_on {
        Some("a takeover is in progress already")
    } else {
        None
    }
}

/// Why the old gateway carries on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeoverError {
    #[error("{} can't be started: {error}", path.display())]
    Start { path: PathBuf, error: io::Error },
    #[error("the new process ended ({0}) before it sent its first message; its log may say why")]
    Ended(ExitStatus),
    #[error("the new process ended before it was ready; its log says why")]
    Gone,
    #[error("the new process could not start: {0}")]
    Refused(String),
    #[error("the new process was not ready after {0:?} and has been killed")]
    Late(Duration),
    #[error("communication with the new process failed: {0}")]
    Talk(#[from] io::Error),
    #[error("the new process failed while sessions were moved to it, and has been killed: {0}")]
    Move(io::Error),
    #[error("the new process sent an unexpected message: {0}")]
    Strange(String),
    #[error(
        "{0} was drained or served again while the new process started, and its release can't be told so; send SIGUSR2 again"
    )]
    Drained(String),
    #[error("the task of the takeover panicked: {0}")]
    Panic(#[from] JoinError),
}

/// A takeover in progress. Given up when dropped; then the new process ends.
#[derive(Debug)]
pub(crate) struct Takeover {
    task: JoinHandle<Result<Successor, TakeoverError>>,
    pub(crate) started: Instant,
}

/// A new gateway that is ready, and waits for the message to begin.
#[derive(Debug)]
pub(crate) struct Successor {
    channel: Channel,
    pub(crate) pid: u32,
    pub(crate) version: String,
    /// Those of this gateway's listeners that it goes on with.
    pub(crate) listeners: Vec<ListenAddress>,
    /// How many sockets it was given.
    pub(crate) sockets: usize,
    /// Sessions may be moved to it.
    pub(crate) takes_sessions: bool,
    /// Commands of operators may be sent to it.
    pub(crate) takes_commands: bool,
    /// The routes and servers that it was told are drained.
    pub(crate) drained: Vec<String>,
    process: Option<OwnedFd>,
}

impl Takeover {
    /// Starts `program`, which has `limit` to become ready. Within a runtime.
    pub(crate) fn start(
        program: Program,
        limit: Duration,
        inheritance: impl Future<Output = io::Result<Inheritance>> + Send + 'static,
    ) -> Self {
        let task = tokio::spawn(async move { prepare(&program, limit, inheritance).await });
        Self { task, started: Instant::now() }
    }

    /// How it went.
    ///
    /// # Cancel safety
    /// Safe; not to be asked again after it has answered.
    pub(crate) async fn finished(&mut self) -> Result<Successor, TakeoverError> {
        (&mut self.task).await?
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A SIGHUP came during the takeover: what it asks for may have been changed after the new process,
/// `successor`, has read it.
pub(crate) fn pass_on_hangup(successor: u32) {
    let passed = process_id(successor).map(|pid| kill_process(pid, Signal::HUP));
    match passed {
        Some(Ok(())) => info!(successor, "SIGHUP is passed on to the new process"),
        _ => warn!(successor, "SIGHUP could not be passed on: send it to the new process"),
    }
}

fn process_id(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

async fn prepare(
    program: &Program,
    limit: Duration,
    inheritance: impl Future<Output = io::Result<Inheritance>>,
) -> Result<Successor, TakeoverError> {
    let (channel, theirs) = Channel::pair()?;
    let mut child = Command::new(&program.path)
        .args(&program.arguments)
        .env(STEP, LAUNCH)
        // They were this process's; the new one is given what is left of them.
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::from(theirs))
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| TakeoverError::Start { path: program.path.clone(), error })?;
    let mut process = None;
    match timeout(limit, converse(&mut child, channel, &mut process, inheritance)).await {
        Ok(result) => result.map(|successor| Successor { process, ..successor }),
        Err(_) => {
            kill(process.as_ref());
            Err(TakeoverError::Late(limit))
        }
    }
}

fn kill(process: Option<&OwnedFd>) {
    if let Some(process) = process {
        let _ = pidfd_send_signal(process, Signal::KILL); // it may have ended just now
    }
}

/// Everything up to [`UpgradeMessage::Ready`]. `process` becomes the new gateway, so that it can be killed.
async fn converse(
    child: &mut Child,
    channel: Channel,
    process: &mut Option<OwnedFd>,
    inheritance: impl Future<Output = io::Result<Inheritance>>,
) -> Result<Successor, TakeoverError> {
    // What was started starts the gateway and ends.
    let status = child.wait().await?;
    if !status.success() {
        return Err(TakeoverError::Ended(status));
    }
    let (pid, version, takes_servers) = match next(&channel).await? {
        Some(UpgradeMessage::Hello { pid, version, takes_servers }) => (pid, version, takes_servers),
        None => return Err(TakeoverError::Ended(status)),
        Some(other) => return Err(TakeoverError::Strange(format!("{other:?}"))),
    };
    *process = process_id(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    info!(pid, version, "takeover: the new process runs and reads its configuration");
    let mut inheritance = inheritance.await?;
    if !takes_servers {
        inheritance.servers.clear();
    }
    let sockets = inheritance.sockets.len();
    let handed = hand_over(&channel, &inheritance).await;
    match next(&channel).await? {
        Some(UpgradeMessage::Ready { listeners, takes_sessions, takes_commands }) => Ok(Successor {
            channel,
            pid,
            version,
            listeners,
            sockets,
            takes_sessions,
            takes_commands,
            drained: inheritance.drained,
            process: None,
        }),
        Some(UpgradeMessage::Failed { reason }) => Err(TakeoverError::Refused(reason)),
        Some(other) => Err(TakeoverError::Strange(format!("{other:?}"))),
        None => handed.map_err(TakeoverError::from).and(Err(TakeoverError::Gone)),
    }
}

async fn hand_over(channel: &Channel, inheritance: &Inheritance) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let offer = UpgradeMessage::Offer {
        pid: std::process::id(),
        version,
        sockets: inheritance.sockets.len(),
        drained: inheritance.drained.clone(),
        servers: inheritance.servers.len(),
    };
    channel.send(&offer, &[]).await?;
    channel.send_bytes(&inheritance.tickets.export(), &[]).await?;
    for piece in &inheritance.servers {
        channel.send_bytes(piece, &[]).await?;
    }
    for same in inheritance.sockets.chunk_by(|(a, _), (b, _)| a == b) {
        for some in same.chunks(DESCRIPTORS_MAX) {
            let descriptors: Vec<BorrowedFd<'_>> = some.iter().map(|(_, socket)| socket.as_fd()).collect();
            if let Some((whose, _)) = some.first() {
                let message = UpgradeMessage::Sockets { whose: whose.clone(), count: descriptors.len() };
                channel.send(&message, &descriptors).await?;
            }
        }
    }
    Ok(())
}

async fn next(channel: &Channel) -> io::Result<Option<UpgradeMessage>> {
    Ok(channel.receive().await?.map(|(message, _)| message))
}

impl Successor {
    /// Moves the sessions of `workers` to it, if it takes any. Between two batches there is `meanwhile`.
    ///
    /// # Errors
    /// If it fails. Then it is killed: it may not go on with sessions that go on here. What it had taken before is
    /// lost, and in `count`.
    pub(crate) async fn take_sessions(
        &self,
        workers: &[Handle],
        transit: &Transit,
        wait: Duration,
        count: &mut MoveCount,
        meanwhile: &mut impl Meanwhile,
    ) -> Result<(), TakeoverError> {
        if !self.takes_sessions {
            return Ok(());
        }
        let moving = move_sessions(&self.channel, workers, transit, wait, count, meanwhile);
        moving.await.inspect_err(|_| kill(self.process.as_ref())).map_err(TakeoverError::Move)
    }

    /// Has it obey a command of an operator. Not while a batch is under way.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) async fn obey(&self, command: Request) -> io::Result<ControlResponse> {
        in_time(self.channel.send(&UpgradeMessage::Command(command), &[])).await?;
        match in_time(self.channel.receive()).await? {
            Some((UpgradeMessage::Answer(answer), _)) => Ok(*answer),
            other => Err(unexpected(other)),
        }
    }

    /// This process was told to end before it handed over: that was meant for the service.
    pub(crate) async fn end(&self) {
        if self.takes_commands && self.channel.send(&UpgradeMessage::End, &[]).await.is_ok() {
            info!(successor = self.pid, "the order to end is passed on to the new process");
        } else {
            warn!(
                successor = self.pid,
                "the order to end could not be passed on: send SIGTERM to the new process"
            );
        }
    }

    /// Says which sessions stay.
    pub(crate) async fn send_left(&self, count: &MoveCount) {
        if self.takes_sessions {
            let left = UpgradeMessage::Left { sessions: count.left.clone() };
            let _ = self.channel.send(&left, &[]).await; // it is for the metrics only
        }
    }

    /// From here on it accepts connections. When the value is dropped, it speaks for the service.
    ///
    /// # Errors
    /// If it has ended meanwhile; then nothing has changed.
    pub(crate) async fn go(&self) -> Result<(), TakeoverError> {
        self.channel.send(&UpgradeMessage::Go, &[]).await.map_err(|_| TakeoverError::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_there_is_no_takeover() {
        let file = ConfigSource::File("wssgate.toml".into());
        let built_in = ConfigSource::BuiltIn { text: String::new() };
        for (pid, source, is_going_on, expect) in [
            (7, &file, false, None),
            (1, &file, false, Some("process 1")),
            (7, &built_in, false, Some("demonstration")),
            (7, &file, true, Some("already")),
        ] {
            let why = refusal(pid, source, is_going_on);
            assert_eq!(why.is_some(), expect.is_some(), "{why:?}");
            assert!(why.unwrap_or_default().contains(expect.unwrap_or_default()), "{why:?}");
        }
    }
}
