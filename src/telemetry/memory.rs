//! The memory of the process, and how much it may use.

use std::{fs, path::Path};

use rustix::param::page_size;

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub resident: u64,
    /// Of the process's control group, or the machine's memory where that is less.
    pub limit: u64,
}

impl Memory {
    /// None where the system does not say (it is not Linux).
    pub(crate) fn now() -> Option<Self> {
        let statm = fs::read_to_string("/proc/self/statm").ok()?;
        let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        Some(Self { resident: pages * page_size() as u64, limit: limit()? })
    }

    /// How much of the limit is in use, in percent.
    pub(crate) fn percent(self) -> u64 {
        self.resident * 100 / self.limit.max(1)
    }
}

fn limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = machine_memory(&fs::read_to_string("/proc/meminfo").ok()?);
    let groups = groups.lines().filter_map(|line| {
        // Version 2 has one line, "0::/path"; version 1 one per controller, "9:memory:/path".
        let (root, file, path) = match line.splitn(3, ':').collect::<Vec<_>>()[..] {
            [_, "", path] => ("/sys/fs/cgroup", "memory.max", path),
            [_, "memory", path] => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path),
            _ => return None,
        };
        lowest_limit(Path::new(root), path, file)
    });
    groups.chain(machine).min()
}

/// The lowest limit of a group and of those that it is in.
fn lowest_limit(root: &Path, path: &str, file: &str) -> Option<u64> {
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    // "max" is no limit.
    groups.filter_map(|group| fs::read_to_string(root.join(group).join(file)).ok()?.trim().parse().ok()).min()
}

fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_less_than_its_limit() {
        let memory = Memory::now().unwrap();
        assert!(memory.resident > 1 << 20 && memory.resident < memory.limit, "{memory:?}");
        assert_eq!(Memory { resident: 95, limit: 100 }.percent(), 95);
    }

    #[test]
    fn the_lowest_limit_of_a_group_and_those_around_it_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        assert_eq!(lowest_limit(root.path(), "/outer/inner", "memory.max"), None);

        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("outer/memory.max"), "1000\n").unwrap();
        fs::write(root.path().join("memory.max"), "2000\n").unwrap();
        assert_eq!(lowest_limit(root.path(), "/outer/inner", "memory.max"), Some(1000));
        assert_eq!(machine_memory("MemTotal:       24 kB\nMemFree: 1 kB"), Some(24 * 1024));
    }
}
