//! Locked memory: how much a process may have, and how the rings of its shards share it.
//!
//! Registered buffers count against the limit, and on newer kernels the rings themselves. Stock hosts
//! give ordinary users 8 MiB, which must suffice for any number of shards: rings get shallower
//! before a start fails.

use rustix::process::Resource;

/// Number of the capability to lock memory without limit (`CAP_IPC_LOCK`).
const CAP_IPC_LOCK: u32 = 14;
/// Rings of a shard: main, latency and polling.
const RING_COUNT: u64 = 3;
/// What an entry of a ring takes, in bytes: a submission, its place in the queue, two completions.
const ENTRY_SIZE: u64 = 64 + 4 + 2 * 16;
/// What a ring takes besides, rounding to pages included.
const RING_OVERHEAD: u64 = 12 << 10;
/// Shallower than this no ring gets, whatever the limit.
const DEPTH_MIN: usize = 256;
/// Registered memory of a shard at most, and at least: glommio takes no less.
const IO_MEMORY_SIZE_MAX: u64 = 8 << 20;
const IO_MEMORY_SIZE_MIN: u64 = 64 << 10;

/// Bytes that this process may lock; `None` if there is no limit for it.
#[must_use]
pub fn locked_memory_limit() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if may_lock_all(&status) {
        return None;
    }
    rustix::process::getrlimit(Resource::Memlock).current
}

/// Root in a container often lacks the capability, so the user tells nothing.
fn may_lock_all(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << CAP_IPC_LOCK) != 0)
}

/// How a shard's rings are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingPlan {
    /// Entries of each ring.
    pub(super) depth: usize,
    /// Registered memory, in bytes; each ring pins all of it.
    pub(super) io_memory: usize,
}

/// What each of `shard_count` shards may take of the limit. An eighth is left for the rest of the
/// process.
pub(super) fn plan(limit: Option<u64>, shard_count: usize, depth_max: usize) -> RingPlan {
    let budget = limit.map(|limit| limit / 8 * 7 / shard_count.max(1) as u64);
    let mut depth = depth_max;
    let rings = |depth: usize| RING_COUNT * (depth as u64 * ENTRY_SIZE + RING_OVERHEAD);
    let buffers = RING_COUNT * IO_MEMORY_SIZE_MIN;
    while depth > DEPTH_MIN && budget.is_some_and(|budget| rings(depth) + buffers > budget) {
        depth /= 2;
    }
    let left = budget.map_or(u64::MAX, |budget| budget.saturating_sub(rings(depth)));
    let io_memory = (left / RING_COUNT).clamp(IO_MEMORY_SIZE_MIN, IO_MEMORY_SIZE_MAX);
    RingPlan {
        depth,
        io_memory: usize::try_from(io_memory).expect("at most 8 MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(plan: RingPlan, shard_count: u64) -> u64 {
        let ring = plan.depth as u64 * ENTRY_SIZE + RING_OVERHEAD + plan.io_memory as u64;
        shard_count * RING_COUNT * ring
    }

    #[test]
    fn what_a_stock_host_allows_suffices_for_many_shards() {
        let limit = 8 << 20;
        assert_eq!(plan(Some(limit), 1, 4096).depth, 4096);
        assert_eq!(plan(Some(limit), 2, 4096).depth, 4096);
        for shard_count in 1..=20_u64 {
            let plan = plan(Some(limit), usize::try_from(shard_count).unwrap(), 4096);
            assert!(
                pinned(plan, shard_count) <= limit,
                "{shard_count}: {plan:?}"
            );
            assert!(plan.depth >= 256, "{shard_count}: {plan:?}");
        }
        let many = RingPlan {
            depth: 256,
            io_memory: 64 << 10,
        };
        assert_eq!(plan(Some(limit), 1000, 4096), many);
    }

    #[test]
    fn without_a_limit_nothing_is_saved() {
        let full = RingPlan {
            depth: 4096,
            io_memory: 8 << 20,
        };
        assert_eq!(plan(None, 64, 4096), full);
        assert_eq!(plan(Some(u64::MAX), 0, 4096), full);
        assert_eq!(plan(None, 1, 128).depth, 128);
    }

    #[test]
    fn the_capability_and_not_the_user_decides() {
        assert!(may_lock_all("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        // Root as Docker starts it.
        assert!(!may_lock_all("CapEff:\t00000000a80425fb\n"));
        assert!(!may_lock_all("CapEff:\t0000000000000000\n"));
        assert!(!may_lock_all(""));
    }
}
