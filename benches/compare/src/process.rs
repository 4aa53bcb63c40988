//! What the kernel knows about processes: their children, their CPU time, their memory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// What `/proc/stat` counts in, on any machine of ours.
const TICK: Duration = Duration::from_millis(10);

/// A process and all its descendants.
pub(crate) fn tree(root: Pid) -> anyhow::Result<Vec<Pid>> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))?;
        for task in tasks {
            // A thread may have ended meanwhile.
            let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)));
        }
        next += 1;
    }
    Ok(all)
}

/// The processes whose working directory this is.
pub(crate) fn working_in(dir: &Path) -> Vec<Pid> {
    let Ok(dir) = dir.canonicalize() else { return Vec::new() };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // One may have ended meanwhile, or belong to another user.
    let is_there = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir);
    pids.filter(is_there).map(Pid::from_raw).collect()
}

/// User and system time that processes have used, in nanoseconds of precision and with the threads
/// that have ended, which sums over `/proc/PID/task` would lack.
pub(crate) fn cpu_time(pids: &[Pid]) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for &pid in pids {
        let clock = clock_getcpuclockid(pid).with_context(|| format!("process {pid} has ended"))?;
        sum += Duration::from(clock_gettime(clock).with_context(|| format!("process {pid} has ended"))?);
    }
    Ok(sum)
}

/// How often threads of processes that are still there went to sleep of their own accord.
pub(crate) fn sleeps(pids: &[Pid]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))? {
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// Time that cores have not been idle.
pub(crate) fn busy(cores: &[usize]) -> anyhow::Result<Duration> {
    let file = "/proc/stat";
    let text = fs::read_to_string(file).context(file)?;
    let mut sum = Duration::ZERO;
    for core in cores {
        let ticks = parse_busy(&text, *core).with_context(|| format!("no core {core} in {file}"))?;
        sum += TICK * u32::try_from(ticks)?;
    }
    Ok(sum)
}

/// User, nice, system, interrupts; neither idle nor waiting, nor stolen by other machines.
fn parse_busy(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core}");
    let line = stat.lines().find(|line| line.split(' ').next() == Some(&name))?;
    let ticks: Vec<u64> = line.split(' ').skip(1).map_while(|field| field.parse().ok()).collect();
    let &[user, nice, system, _idle, _waiting, hard, soft, ..] = ticks.as_slice() else { return None };
    Some(user + nice + system + hard + soft)
}

/// Proportional set size of processes, in bytes.
pub(crate) fn pss(pids: &[Pid]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&file).with_context(|| file.clone())?;
        let Some(bytes) = parse_pss(&text) else { bail!("no Pss in {file}") };
        sum += bytes;
    }
    Ok(sum)
}

/// What the kernel keeps for itself in small pieces, sockets among them; in bytes, of the whole machine.
pub(crate) fn slab() -> anyhow::Result<u64> {
    let file = "/proc/meminfo";
    let text = fs::read_to_string(file).context(file)?;
    parse_kilobytes(&text, "Slab:").with_context(|| format!("no Slab in {file}"))
}

fn parse_pss(smaps: &str) -> Option<u64> {
    parse_kilobytes(smaps, "Pss:")
}

fn parse_kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_about_ourselves() {
        let own = [Pid::this()];
        assert!(tree(own[0]).unwrap().contains(&own[0]));
        assert!(cpu_time(&own).unwrap() > Duration::ZERO);
        assert!(pss(&own).unwrap() > 4096);
        assert!(slab().unwrap() > 4096);
    }

    #[test]
    fn a_core_is_busy_with_what_is_not_idle() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 1 2 4 100 200 8 16 300 0 0\ncpu10 7 7 7 7 7 7 7 7 7 7\n";
        assert_eq!(parse_busy(stat, 1), Some(31));
        assert_eq!(parse_busy(stat, 0), None);
    }

    #[test]
    fn pss_is_the_line_of_that_name() {
        let text =
            "55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:   100 kB\nPss:    42 kB\nPss_Dirty: 9 kB\n";
        assert_eq!(parse_pss(text), Some(42 * 1024));
        assert_eq!(parse_pss("Rss: 1 kB"), None);
    }
}
