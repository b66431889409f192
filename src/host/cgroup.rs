//! Limits of the control group that the process is in: version 2, or version 1, or both at once.
//!
//! A limit anywhere between the process and the root holds, so the whole path is read.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What the control group allows; `None` where it sets no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CgroupLimits {
    /// Cores' worth of time, such as 1.5.
    pub cpu_quota: Option<f64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
}

/// Reads the limits of this process; on a host without control groups there are none.
pub(super) fn cgroup_limits() -> CgroupLimits {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits_under(Path::new("/sys/fs/cgroup"), &membership)
}

fn limits_under(root: &Path, membership: &str) -> CgroupLimits {
    let mut limits = CgroupLimits::default();
    // Each line: number, controllers, path. Version 2 has number 0 and no controllers.
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            for directory in [root.to_owned(), root.join("unified")] {
                limits.tighten(each_ancestor(&directory, path, version_2));
            }
        }
        for controller in controllers.split(',') {
            let directory = root.join(controller);
            match controller {
                "cpu" => limits.tighten(each_ancestor(&directory, path, version_1_cpu)),
                "memory" => limits.tighten(each_ancestor(&directory, path, version_1_memory)),
                _ => {}
            }
        }
    }
    limits
}

impl CgroupLimits {
    fn tighten(&mut self, other: Self) {
        let quotas = [self.cpu_quota, other.cpu_quota];
        self.cpu_quota = quotas.into_iter().flatten().reduce(f64::min);
        let sizes = [self.memory_bytes, other.memory_bytes];
        self.memory_bytes = sizes.into_iter().flatten().min();
    }
}

/// The tightest limits from `path` up to the root. In a container the path may name a directory
/// that only the host sees; the root of the mount is then the container's own group.
fn each_ancestor(root: &Path, path: &str, read: fn(&Path) -> CgroupLimits) -> CgroupLimits {
    let mut limits = CgroupLimits::default();
    let mut directory = root.join(path);
    loop {
        limits.tighten(read(&directory));
        if directory == root || !directory.pop() || !directory.starts_with(root) {
            return limits;
        }
    }
}

fn version_2(directory: &Path) -> CgroupLimits {
    let cpu_max = text(directory.join("cpu.max"));
    let mut words = cpu_max.split_whitespace();
    CgroupLimits {
        cpu_quota: quota(words.next(), words.next()),
        memory_bytes: text(directory.join("memory.max")).trim().parse().ok(),
    }
}

fn version_1_cpu(directory: &Path) -> CgroupLimits {
    let quota_us = text(directory.join("cpu.cfs_quota_us"));
    let period_us = text(directory.join("cpu.cfs_period_us"));
    CgroupLimits {
        cpu_quota: quota(Some(quota_us.trim()), Some(period_us.trim())),
        memory_bytes: None,
    }
}

fn version_1_memory(directory: &Path) -> CgroupLimits {
    let bytes = text(directory.join("memory.limit_in_bytes"))
        .trim()
        .parse()
        .ok();
    // "No limit" is the largest number of whole pages.
    CgroupLimits {
        cpu_quota: None,
        memory_bytes: bytes.filter(|bytes| *bytes < 1 << 60),
    }
}

fn quota(quota_us: Option<&str>, period_us: Option<&str>) -> Option<f64> {
    let (quota_us, period_us): (f64, f64) = (quota_us?.parse().ok()?, period_us?.parse().ok()?);
    (quota_us > 0.0 && period_us > 0.0).then(|| quota_us / period_us)
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = temp.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        temp
    }

    #[test]
    fn version_2_takes_the_tightest_of_the_path() {
        let temp = tree(&[
            ("a/cpu.max", "150000 100000\n"),
            ("a/memory.max", "1073741824\n"),
            ("a/b/cpu.max", "max 100000\n"),
            ("a/b/memory.max", "max\n"),
        ]);
        let limits = limits_under(temp.path(), "0::/a/b\n");
        assert_eq!(
            limits,
            CgroupLimits {
                cpu_quota: Some(1.5),
                memory_bytes: Some(1 << 30)
            }
        );
    }

    #[test]
    fn a_path_that_only_the_host_sees_falls_back_to_the_mount() {
        let temp = tree(&[("cpu.max", "50000 100000"), ("memory.max", "4096")]);
        let limits = limits_under(temp.path(), "0::/docker/0123\n");
        assert_eq!(
            limits,
            CgroupLimits {
                cpu_quota: Some(0.5),
                memory_bytes: Some(4096)
            }
        );
    }

    #[test]
    fn version_1_and_no_limits() {
        let temp = tree(&[
            ("cpu/x/cpu.cfs_quota_us", "200000\n"),
            ("cpu/x/cpu.cfs_period_us", "100000\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
            ("memory/y/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.limit_in_bytes", "2147483648\n"),
        ]);
        let limits = limits_under(temp.path(), "4:memory:/y\n1:cpu,cpuacct:/x\n0::/\n");
        assert_eq!(
            limits,
            CgroupLimits {
                cpu_quota: Some(2.0),
                memory_bytes: Some(2 << 30)
            }
        );
        assert_eq!(
            limits_under(temp.path(), "1:cpu:/\n"),
            CgroupLimits::default()
        );
        assert_eq!(
            limits_under(temp.path(), "gibberish"),
            CgroupLimits::default()
        );
    }
}
