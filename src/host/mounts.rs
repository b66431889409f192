//! Which mount holds a directory, from the kernel's own list.

use std::path::Path;

/// One mount, as `/proc/self/mountinfo` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor` of the device; major 0 where the file system has none of its own.
    pub device: String,
    /// Where it is mounted.
    pub point: String,
    /// Type of the file system, such as `ext4`.
    pub file_system: String,
    /// What is mounted: a device for most, any word for the others.
    pub source: String,
    /// Options of the mount and of the file system, in that order.
    pub options: Vec<String>,
}

impl Mount {
    /// The innermost mount that holds `directory`, which is absolute and without links.
    pub(super) fn holding(mountinfo: &str, directory: &Path) -> Option<Self> {
        let mut best: Option<(usize, Self)> = None;
        for mount in mountinfo.lines().filter_map(Self::parse) {
            let depth = Path::new(&mount.point).components().count();
            // Of mounts on one point the last one shows.
            let closer = best.as_ref().is_none_or(|(other, _)| depth >= *other);
            if closer && directory.starts_with(&mount.point) {
                best = Some((depth, mount));
            }
        }
        best.map(|(_, mount)| mount)
    }

    /// `36 35 98:0 /root /mount/point options optional… - type source options`
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let mut right = right.split(' ');
        let (file_system, source) = (right.next()?, right.next()?);
        let words = left.get(5)?.split(',');
        let words = words.chain(right.next().unwrap_or_default().split(','));
        Some(Self {
            device: (*left.get(2)?).to_owned(),
            point: unescape(left.get(4)?),
            file_system: file_system.to_owned(),
            source: unescape(source),
            options: words
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }

    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|it| it == option)
    }
}

/// The kernel writes space, tab, line feed and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - overlay overlay rw
23 22 0:20 / /data rw shared:1 - tmpfs tmpfs rw
broken
24 23 254:1 / /data rw,noatime shared:2 - ext4 /dev/vdb rw,data=journal
25 22 0:21 / /data\\040two rw - xfs /dev/vdc rw
";

    #[test]
    fn the_innermost_mount_counts() {
        let of = |path: &str| {
            let mount = Mount::holding(MOUNTS, Path::new(path));
            mount.unwrap().file_system
        };
        assert_eq!(of("/data/topics"), "ext4");
        assert_eq!(of("/database"), "overlay");
        assert_eq!(of("/data two/x"), "xfs");
        assert_eq!(of("/"), "overlay");
    }

    #[test]
    fn options_of_both_kinds_are_read() {
        let mount = Mount::holding(MOUNTS, Path::new("/data")).unwrap();
        assert_eq!(mount.device, "254:1");
        assert_eq!(mount.source, "/dev/vdb");
        assert!(mount.has("noatime") && mount.has("data=journal"));
        assert!(!mount.has("data"));
    }
}
