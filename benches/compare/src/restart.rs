//! What a new binary costs: a gateway that is replaced under sockets that stay open, in the way that its manual
//! describes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::gateways::{Installed, Running, Step};
use crate::harness::{Backend, Load};
use crate::job::Live;
use crate::live_load::{BETWEEN, load_of_live_sockets};
use crate::process::{pss, working_in};
use crate::setup::Site;

/// From the first step of the replacement until it is looked what is there.
const AFTER: Duration = Duration::from_secs(10);
/// New sockets are opened in so many parts, so long after each other, while the gateway is replaced.
const PARTS: usize = 10;
const PART: Duration = Duration::from_millis(100);
/// A step that takes longer has failed.
const STEP_TIME: Duration = Duration::from_secs(10);

/// What came of one gateway.
#[derive(Debug, Serialize)]
pub(crate) struct Restarted {
    pub(crate) live: Live,
    /// Before and after.
    pub(crate) processes: [usize; 2],
    /// In bytes.
    pub(crate) memory: [f64; 2],
}

/// Replaces a gateway under so many live sockets; so many more come meanwhile.
pub(crate) async fn watch(
    installed: &Installed,
    sockets: usize,
    more: usize,
    cores: [usize; 2],
) -> anyhow::Result<Restarted> {
    let site = Site::prepare()?;
    let [gateway_core, load_core] = cores;
    let backend = Backend::start(load_core).await?;
    let daemon = [("daemon", "on".to_owned())];
    let mut running = installed.start(&site, backend.port, &[gateway_core], &daemon).await?;
    let _end = EndAll(running.dir.clone());
    let mut load: Load<'_> = load_of_live_sockets(cores, &site, &backend, running.port).await?;
    load.tell(&format!("more {sockets}")).await?;
    load.ready().await?;
    sleep(BETWEEN).await; // the first message of a socket is dearer than the rest
    let before = working_in(&running.dir);
    let memory = pss(&before)? as f64;
    load.tell("mark").await?;
    load.ready().await?;
    let end = Instant::now() + AFTER;
    let steps = async {
        for step in &installed.gateway.restart {
            timeout(STEP_TIME, take(step, &mut running, &[gateway_core]))
                .await
                .context("a step takes too long")??;
        }
        anyhow::Ok(())
    };
    let arrivals = async {
        for part in 0..PARTS {
            let more = more * (part + 1) / PARTS - more * part / PARTS;
            load.tell(&format!("more {more}")).await?;
            if more > 0 {
                load.ready().await?;
            }
            sleep(PART).await;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(steps, arrivals)?;
    sleep_until(end).await;
    load.tell("end").await?;
    let live: Live = serde_json::from_str(&load.line().await?)?;
    let after = working_in(&running.dir);
    let memory = [memory, pss(&after)? as f64];
    Ok(Restarted { live, processes: [before.len(), after.len()], memory })
}

async fn take(step: &Step, running: &mut Running, cores: &[usize]) -> anyhow::Result<()> {
    let Step::Signal { name, pid, after } = step else { return running.again(cores).await };
    let pid = match pid {
        Some(file) => {
            let file = running.fill(file)?;
            let text = read(&file).await;
            Pid::from_raw(text.trim().parse().with_context(|| format!("no process id in {file}"))?)
        }
        None => running.child.pid,
    };
    if let Some(file) = after {
        read(&running.fill(file)?).await;
    }
    let Ok(signal) = name.parse::<Signal>() else { bail!("no signal {name}") };
    Ok(kill(pid, signal)?)
}

/// The content of a file, as soon as there is one.
async fn read(file: &str) -> String {
    loop {
        match fs::read_to_string(file) {
            Ok(text) if !text.is_empty() => return text,
            _ => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Ends every process that works in this directory: which they are changes with each takeover.
struct EndAll(PathBuf);

impl Drop for EndAll {
    fn drop(&mut self) {
        for pid in working_in(Path::new(&self.0)) {
            let _ = kill(pid, Signal::SIGKILL); // it may have ended just now
        }
    }
}
