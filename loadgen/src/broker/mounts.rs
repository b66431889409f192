//! Which file system a path is on, read from `/proc/self/mountinfo` (proc(5)).

use std::{fs, path::Path};

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its type, such as `ext4`.
    pub file_system: String,
    /// What it is on, such as `/dev/nvme0n1p2`.
    pub source: String,
    /// Options of the mount and of the file system, separated by commas.
    pub options: String,
}

impl Mount {
    /// Whether what is written there is in memory alone.
    pub fn is_memory(&self) -> bool {
        matches!(self.file_system.as_str(), "tmpfs" | "ramfs" | "devtmpfs")
    }
}

/// The innermost mount that holds an absolute path.
pub fn of(path: &Path) -> Option<Mount> {
    innermost(&fs::read_to_string("/proc/self/mountinfo").ok()?, path)
}

fn innermost(mounts: &str, path: &Path) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in mounts.lines() {
        // 36 35 98:0 /root /mount/point options optional… - type source super-options
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(point), Some(options)) = (left.get(4), left.get(5)) else {
            continue;
        };
        let &[file_system, source, of_file_system] = right.as_slice() else {
            continue;
        };
        let point = point.replace("\\040", " ");
        let depth = Path::new(&point).components().count();
        // Of mounts on one point the last one shows.
        if path.starts_with(&point) && best.as_ref().is_none_or(|(other, _)| depth >= *other) {
            let mount = Mount {
                file_system: file_system.to_owned(),
                source: source.to_owned(),
                options: format!("{options},{of_file_system}"),
            };
            best = Some((depth, mount));
        }
    }
    best.map(|(_, mount)| mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 22 0:20 / /dev/shm rw,nosuid - tmpfs tmpfs rw
31 22 8:1 / /mnt/a\\040b rw shared:1 - xfs /dev/sda1 rw
32 22 8:2 / /mnt/a\\040b ro - btrfs /dev/sda2 ro";

    #[test]
    fn the_innermost_and_last_mount_shows() {
        let found = |path: &str| innermost(MOUNTS, Path::new(path)).unwrap();
        let root = found("/home/x");
        assert_eq!(
            (root.file_system.as_str(), root.source.as_str()),
            ("ext4", "/dev/vda")
        );
        assert_eq!(root.options, "rw,relatime,rw,discard");
        assert!(!root.is_memory());
        assert!(found("/dev/shm/data").is_memory());
        assert_eq!(found("/dev/shmem").file_system, "ext4");
        assert_eq!(found("/mnt/a b/c").file_system, "btrfs");
    }
}
