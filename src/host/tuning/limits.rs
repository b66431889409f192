//! Limits of processes. Those of this one are read: a service has what its unit gives it.

use super::item::{Finding, Host};

/// Files and connections that a broker of some size wants open.
const OPEN_FILES: u64 = 65_536;
/// What a shard's ring may lock, with room to spare.
const LOCKED_PER_SHARD: u64 = 128 << 10;

pub(super) fn open_files(host: &Host<'_>) -> Finding {
    judge(host, "Max open files", OPEN_FILES).unwrap_or_else(|finding| {
        finding.remedy(
            "tuning/limits.conf for log-in sessions, LimitNOFILE=65536 in systemd, \
             --ulimit nofile=65536 in Docker",
        )
    })
}

pub(super) fn locked_memory(host: &Host<'_>) -> Finding {
    let wanted = LOCKED_PER_SHARD.saturating_mul(host.shard_count() as u64);
    judge(host, "Max locked memory", wanted).unwrap_or_else(|finding| {
        finding.remedy(
            "tuning/limits.conf for log-in sessions, LimitMEMLOCK=64M in systemd, \
             --ulimit memlock=67108864 in Docker",
        )
    })
}

/// The hard limit: the broker raises the soft one to it. An error is a finding that wants a remedy.
fn judge(host: &Host<'_>, name: &str, wanted: u64) -> Result<Finding, Finding> {
    let limits = host.read("/proc/self/limits").unwrap_or_default();
    let values = limits.lines().find_map(|line| line.strip_prefix(name));
    let hard = values.and_then(|values| values.split_whitespace().nth(1));
    match hard.map(|hard| (hard, hard.parse::<u64>())) {
        None => Ok(Finding::cannot_tell("the kernel does not say")),
        Some(("unlimited", _)) => Ok(Finding::ok("unlimited")),
        Some((_, Ok(hard))) if hard >= wanted => Ok(Finding::ok(hard.to_string())),
        Some((hard, Ok(_))) => Err(Finding::not_ok(format!(
            "{hard} in this session, {wanted} is wanted"
        ))),
        Some((hard, Err(_))) => Ok(Finding::cannot_tell(format!("{hard:?}"))),
    }
}
