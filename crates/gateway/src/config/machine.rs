//! How much memory there is for this process.

use std::fs;
use std::path::Path;

/// The machine's memory or the limit of the process's control group, whichever is less, in bytes; `None` if
/// neither can be read.
pub(super) fn memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| limit(&text, Path::new("/sys/fs/cgroup")));
    machine.into_iter().chain(group).min()
}

/// The first line of `/proc/meminfo`, in KiB (proc_meminfo(5)).
fn total(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of the group and of those above it (cgroups(7)), of version 2, or of version 1.
fn limit(groups: &str, root: &Path) -> Option<u64> {
    let groups = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers {
            "" => Some((root.to_owned(), path, "memory.max")),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some((root.join("memory"), path, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    groups
        .flat_map(|(root, path, file)| {
            // In a container the path may be the host's: then only the root can be read.
            Path::new(path.trim_start_matches('/'))
                .ancestors()
                .filter_map(|group| fs::read_to_string(root.join(group).join(file)).ok())
                .filter_map(|text| text.trim().parse().ok()) // "max": none
                .collect::<Vec<u64>>()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_machines_or_the_groups() {
        assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(total("nothing"), None);
        let root = tempfile::TempDir::new().unwrap();
        let inner = root.path().join("system.slice/wssgate.service");
        fs::create_dir_all(&inner).unwrap();
        let groups = "1:cpu:/x\n0::/system.slice/wssgate.service\n";
        assert_eq!(limit(groups, root.path()), None);
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit(groups, root.path()), None);
        fs::write(inner.parent().unwrap().join("memory.max"), "2000\n").unwrap();
        assert_eq!(limit(groups, root.path()), Some(2000));
        fs::write(inner.join("memory.max"), "1000\n").unwrap();
        assert_eq!(limit(groups, root.path()), Some(1000));
        fs::create_dir_all(root.path().join("memory")).unwrap();
        fs::write(root.path().join("memory/memory.limit_in_bytes"), "500\n").unwrap();
        assert_eq!(limit("4:memory,hugetlb:/docker/abc\n", root.path()), Some(500));
        assert_eq!(limit("", root.path()), None);
    }
}
