//! How many shards and how much memory, when nobody says.

use std::fs;

use super::cgroup::cgroup_limits;

/// What the process may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources {
    /// The cores of its affinity mask, sorted.
    pub cores: Vec<usize>,
    /// Cores' worth of time that its control group allows.
    pub cpu_quota: Option<f64>,
    /// Memory that it may use at most, in bytes: the control group's limit, or the host's memory.
    pub memory_limit_bytes: u64,
}

/// Asks the host.
#[must_use]
pub fn resources() -> Resources {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut cores: Vec<usize> = cores.into_iter().map(|core| core.id).collect();
    cores.sort_unstable();
    if cores.is_empty() {
        cores.push(0);
    }
    let cgroup = cgroup_limits();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let host = host_memory_bytes(&meminfo).unwrap_or(1 << 30);
    Resources {
        cores,
        cpu_quota: cgroup.cpu_quota,
        memory_limit_bytes: cgroup.memory_bytes.map_or(host, |limit| limit.min(host)),
    }
}

impl Resources {
    /// One shard for each core, within the quota: a core's worth of time that is not there would
    /// stall every shard in turn.
    #[must_use]
    pub fn default_shard_count(&self) -> u32 {
        let cores = u32::try_from(self.cores.len()).unwrap_or(u32::MAX);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates"
        )]
        let quota = self.cpu_quota.map_or(u32::MAX, |quota| quota.ceil() as u32);
        cores.min(quota).clamp(1, 1024)
    }

    /// A quarter of what there is: the rest is the page cache's, the connections' and the kernel's.
    #[must_use]
    pub fn default_memory_bytes(&self) -> u64 {
        (self.memory_limit_bytes / 4).max(64 << 20)
    }
}

fn host_memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_not_the_core_count_sets_the_shards() {
        let mut host = Resources {
            cores: (0..8).collect(),
            cpu_quota: None,
            memory_limit_bytes: 8 << 30,
        };
        assert_eq!(host.default_shard_count(), 8);
        host.cpu_quota = Some(2.5);
        assert_eq!(host.default_shard_count(), 3);
        host.cpu_quota = Some(0.1);
        assert_eq!(host.default_shard_count(), 1);
        assert_eq!(host.default_memory_bytes(), 2 << 30);
        host.memory_limit_bytes = 100 << 20;
        assert_eq!(host.default_memory_bytes(), 64 << 20);
    }

    #[test]
    fn memory_of_the_host() {
        let meminfo = "MemTotal:        8127732 kB\nMemFree:          123 kB\n";
        assert_eq!(host_memory_bytes(meminfo), Some(8_127_732 * 1024));
        assert_eq!(host_memory_bytes("nothing"), None);
        let host = resources();
        assert!(!host.cores.is_empty() && host.memory_limit_bytes > 0);
    }
}
