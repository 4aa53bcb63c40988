//! What the operating system knows of the process, under the names that every Prometheus exporter uses.

use std::fmt;
use std::fs;
use std::time::Duration;

use net_io::unix_now;
use rustix::time::{ClockId, clock_gettime};

use super::page::Page;
use crate::ops::overview::Overview;

pub(super) fn write(page: &mut Page<'_>, overview: &Overview) -> fmt::Result {
    let cpu = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    page.counter("process_cpu_seconds_total", "Processor time of the process")?.seconds(&[], cpu)?;
    let started = unix_now() - i64::try_from(overview.started.elapsed().as_secs()).unwrap_or(0);
    page.gauge("process_start_time_seconds", "Unix time at which the process was started")?
        .sample(&[], started)?;
    if let Some(open) = descriptors() {
        page.gauge("process_open_fds", "Descriptors that are open")?.sample(&[], open)?;
    }
    if let Ok((max, _)) = rlimit::getrlimit(rlimit::Resource::NOFILE) {
        page.gauge("process_max_fds", "Descriptors that may be open")?.sample(&[], max)?;
    }
    if let Some((resident, data)) = memory() {
        page.gauge("process_resident_memory_bytes", "Memory of the process that is in RAM")?
            .sample(&[], resident)?;
        page.gauge("process_virtual_memory_bytes", "Addresses that the process has reserved")?
            .sample(&[], data)?;
    }
    Ok(())
}

/// Open descriptors of this process; `None`: there is no `/proc`.
fn descriptors() -> Option<u64> {
    // Since Linux 6.2 this is their number, and no walk over them.
    let len = fs::metadata("/proc/self/fd").ok()?.len();
    if len > 0 { Some(len) } else { Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64) }
}

/// Resident and virtual memory of this process, in bytes.
fn memory() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = |key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    Some((value("VmRSS:")?, value("VmSize:")?))
}

/// How long this thread of the process was ready and had no processor; `None`: the kernel doesn't say.
pub(super) fn cpu_wait(tid: i32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).ok()?;
    Some(Duration::from_nanos(text.split_whitespace().nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_the_process() {
        let before = descriptors().unwrap();
        let files: Vec<_> = (0..200).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(descriptors().unwrap() >= before.saturating_sub(100) + 200, "{before}");
        drop(files);
        let (resident, reserved) = memory().unwrap();
        assert!(resident > 1 << 20 && reserved >= resident, "{resident} {reserved}");
    }
}
