//! Reads the facts. What can't be read is left out, so that the rest is still judged.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use net_io::unix_now;
use tls_acceptor::Expiries;
use tokio::net::lookup_host;
use tokio::process::Command;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::facts::{ConfigFacts, Descriptors, Facts, Listening, Owner};
use super::proc::{self, TcpSocket};
use crate::config::Config;
use crate::lifecycle::{self, ConfigSource};
use crate::ops::control::client::fetch;
use crate::ops::control::protocol::{Request, Status};

/// How long the gateway, the DNS and `timedatectl` are waited for.
const WAIT: Duration = Duration::from_secs(5);
/// Between two looks at what grows.
const PAUSE: Duration = Duration::from_secs(1);
/// Names that are looked up.
const NAMES_MAX: usize = 32;
/// Says whether the kernel's clock is in step.
const TIMEDATECTL: &str = "timedatectl";
/// It exists as long as systemd-timesyncd keeps the clock in step.
const TIMESYNC: &str = "/run/systemd/timesync/synchronized";

/// All facts.
pub(super) async fn gather(config: Option<PathBuf>, socket: &Path) -> Facts {
    let before = overflows();
    let (gateway, (config, names), is_in_step, ()) = tokio::join!(
        ask(socket),
        configured(config),
        in_step(Path::new(TIMESYNC), TIMEDATECTL),
        sleep(PAUSE)
    );
    let overflows = before.zip(overflows()).map(|(before, after)| [before, after]);
    let (gateway, silence) = match gateway {
        Ok(status) => (Some(status), String::new()),
        Err(why) => (None, why),
    };
    let pid = gateway.as_ref().map(|status| status.pid);
    let names_with_ipv6 = with_ipv6(names).await;
    let machine = spawn_blocking(move || machine(pid)).await.unwrap_or_default();
    Facts { gateway, silence, config, is_in_step, overflows, names_with_ipv6, ..machine }
}

async fn ask(socket: &Path) -> Result<Status, String> {
    let request = Request { command: "status".to_owned(), ..Request::default() };
    match timeout(WAIT, fetch(socket, &request)).await {
        Ok(Ok(answer)) => answer
            .status
            .ok_or_else(|| answer.error.unwrap_or_else(|| "it says nothing of itself".to_owned())),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("it does not answer on {} within {WAIT:?}", socket.display())),
    }
}

/// What the configuration says, and the names that clients use.
async fn configured(file: Option<PathBuf>) -> (Option<ConfigFacts>, Vec<String>) {
    let Some(file) = file else { return (None, Vec::new()) };
    let shown = file.display().to_string();
    let source = file.clone();
    let loaded = spawn_blocking(move || lifecycle::load(&ConfigSource::File(source), None)).await;
    let mut candidate = match loaded {
        Ok(Ok(candidate)) => candidate,
        Ok(Err(problems)) => {
            let config = spawn_blocking(move || Config::read(&file).0).await;
            let listeners = config.map(|config| addresses(&config)).unwrap_or_default();
            let problems = problems.0.iter().map(ToString::to_string).collect();
            return (
                Some(ConfigFacts { file: shown, problems, listeners, ..ConfigFacts::default() }),
                Vec::new(),
            );
        }
        Err(_) => return (None, Vec::new()),
    };
    lifecycle::look_around(&mut candidate).await;
    let hide = |text: String| candidate.config.hidden.hide(&text);
    let names = candidate.loaded.set.names().map(|(name, _)| name.to_string());
    let names = names.filter(|name| !name.contains('*')).take(NAMES_MAX).collect();
    let expiring = Expiries::default().news(&candidate.loaded.set, unix_now());
    let facts = ConfigFacts {
        file: shown,
        problems: Vec::new(),
        certificate_warnings: candidate.loaded.warnings.iter().map(|one| hide(one.to_string())).collect(),
        unresolved: candidate.unresolved.iter().cloned().map(hide).collect(),
        absent: candidate.absent.iter().cloned().map(hide).collect(),
        warnings: candidate.warnings_of_files().map(hide).collect(),
        expiring: expiring.into_iter().map(|expiry| expiry.to_string()).collect(),
        listeners: addresses(&candidate.config),
    };
    (Some(facts), names)
}

fn addresses(config: &Config) -> Vec<SocketAddr> {
    config.listeners.iter().filter_map(|listener| listener.address.ip()).collect()
}

/// What keeps the clock says so: systemd-timesyncd by a file, and others as systemd is told by the kernel.
async fn in_step(timesync: &Path, timedatectl: impl AsRef<OsStr>) -> Option<bool> {
    if fs::exists(timesync).unwrap_or_default() {
        return Some(true);
    }
    let mut command = Command::new(timedatectl);
    command.args(["show", "--property=NTPSynchronized", "--value"]).kill_on_drop(true);
    let output = timeout(WAIT, command.output()).await.ok()?.ok()?;
    match output.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

/// Those that have IPv6 addresses.
async fn with_ipv6(names: Vec<String>) -> Vec<(String, std::net::IpAddr)> {
    let mut asking = JoinSet::new();
    for name in names {
        asking.spawn(async move {
            let found = timeout(WAIT, lookup_host((name.as_str(), 443))).await.ok()?.ok()?;
            let address = found.map(|address| address.ip()).find(|ip| ip.is_ipv6() && !ip.is_loopback())?;
            Some((name, address))
        });
    }
    let mut found: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
    found.sort_unstable();
    found
}

fn overflows() -> Option<u64> {
    proc::overflows(&fs::read_to_string("/proc/net/netstat").ok()?)
}

/// What the kernel says; blocks.
fn machine(pid: Option<u32>) -> Facts {
    let sockets: Vec<TcpSocket> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| proc::tcp_sockets(&text).collect::<Vec<_>>())
        .collect();
    let number = |file: &str| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let conntrack = number("/proc/sys/net/netfilter/nf_conntrack_count");
    Facts {
        descriptors: pid.and_then(descriptors),
        ports: range.and_then(|text| proc::port_range(&text)),
        towards: proc::towards(&sockets),
        listening: listening(&sockets),
        somaxconn: number("/proc/sys/net/core/somaxconn"),
        conntrack: conntrack
            .zip(number("/proc/sys/net/netfilter/nf_conntrack_max"))
            .map(|(count, max)| [count, max]),
        has_ipv6: Some(
            fs::read_to_string("/proc/net/if_inet6").is_ok_and(|text| proc::has_global_ipv6(&text)),
        ),
        ..Facts::default()
    }
}

fn descriptors(pid: u32) -> Option<Descriptors> {
    let used = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    let max = proc::open_files(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)?;
    Some(Descriptors { used, max })
}

/// Sockets that listen, each with its owner, if this user may know that.
fn listening(sockets: &[TcpSocket]) -> Vec<Listening> {
    let listening: HashMap<u64, &TcpSocket> =
        sockets.iter().filter(|socket| socket.is_listening).map(|socket| (socket.inode, socket)).collect();
    let mut owners = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for inode in descriptors.filter_map(|entry| socket_inode(&fs::read_link(entry.path()).ok()?)) {
            if listening.contains_key(&inode) {
                let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                owners.insert(inode, Owner { pid, program: program.trim().to_owned() });
            }
        }
    }
    let mut all: Vec<_> = listening
        .into_iter()
        .map(|(inode, socket)| {
            let (address, waiting) = (socket.local, socket.waiting);
            Listening { address, waiting, owner: owners.remove(&inode) }
        })
        .collect();
    all.sort_by_key(|one| one.address);
    all
}

/// Of `socket:[4711]`.
fn socket_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The clock of the machine is not for tests: here is a machine whose clock is said to be in step, and one whose is not.
    #[tokio::test]
    async fn what_keeps_the_clock_is_asked() {
        let directory = tempfile::TempDir::new().unwrap();
        let (program, file) = (directory.path().join("timedatectl"), directory.path().join("synchronized"));
        assert_eq!(in_step(&file, &program).await, None, "nothing tells");
        for (says, expect) in [("yes", Some(true)), ("no", Some(false)), ("", None)] {
            let script =
                format!("#!/bin/sh\n[ \"$*\" = 'show --property=NTPSynchronized --value' ] && echo {says}\n");
            fs::write(&program, script).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(in_step(&file, &program).await, expect, "{says}");
        }
        fs::write(&file, "").unwrap();
        assert_eq!(in_step(&file, &program).await, Some(true), "systemd-timesyncd says it first");
    }
}
