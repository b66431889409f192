//! A host in a directory, for tests.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::super::*;

/// A host in a directory, with a kernel that shows choices in brackets and refuses what it does not know.
pub struct Fake {
    tree: Tree,
    pub temp: tempfile::TempDir,
    pub refuses: RefCell<Vec<String>>,
}

/// A bare-metal host with everything left as distributions leave it: four CPUs, an NVMe disk with a
/// partition, a network card.
const UNTUNED: &[(&str, &str)] = &[
    ("proc/sys/kernel/random/boot_id", "first\n"),
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    ("proc/sys/vm/swappiness", "60\n"),
    ("proc/sys/net/core/somaxconn", "128\n"),
    ("proc/swaps", "Filename\tType\n/dev/sda2 partition\n"),
    (
        "proc/self/limits",
        "Limit  Soft  Hard  Units\nMax open files            1024  4096  files\n\
         Max locked memory         8388608  8388608  bytes\n",
    ),
    (
        "proc/self/mountinfo",
        "1 0 259:2 / / rw,relatime - ext4 /dev/nvme0n1p2 rw\n",
    ),
    ("sys/devices/system/cpu/online", "0-3\n"),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "powersave\n",
    ),
    (
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
        "schedutil\n",
    ),
    (
        "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor",
        "performance\n",
    ),
    ("sys/devices/system/cpu/cpufreq/boost", "1\n"),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "hpet\n",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/available_clocksource",
        "tsc hpet acpi_pm\n",
    ),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "[always] madvise never\n",
    ),
    (
        "sys/devices/nvme0n1/uevent",
        "DEVNAME=nvme0n1\nDEVTYPE=disk\n",
    ),
    (
        "sys/devices/nvme0n1/nvme0n1p2/uevent",
        "DEVNAME=nvme0n1p2\nDEVTYPE=partition\n",
    ),
    (
        "sys/devices/nvme0n1/queue/scheduler",
        "none [mq-deadline] kyber\n",
    ),
    ("sys/devices/nvme0n1/queue/nomerges", "0\n"),
    ("sys/devices/nvme0n1/queue/write_cache", "write back\n"),
    ("sys/devices/nvme0n1/queue/rotational", "0\n"),
    (
        "sys/devices/eth0/device/modalias",
        "virtio:d00000001v00001AF4\n",
    ),
    ("sys/devices/eth0/msi_irqs/41", "msix\n"),
    ("sys/devices/eth0/msi_irqs/42", "msix\n"),
    ("sys/devices/eth0/queues/rx-0/rps_cpus", "f\n"),
    ("proc/irq/41/smp_affinity_list", "0-3\n"),
    ("proc/irq/42/smp_affinity_list", "3\n"),
];

impl Fake {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for (path, text) in UNTUNED {
            put(temp.path(), path, text);
        }
        for (link, to) in [
            ("sys/dev/block/259:2", "../../devices/nvme0n1/nvme0n1p2"),
            (
                "sys/class/block/nvme0n1p2",
                "../../devices/nvme0n1/nvme0n1p2",
            ),
            ("sys/block/nvme0n1", "../devices/nvme0n1"),
            ("sys/class/net/eth0", "../../devices/eth0"),
        ] {
            let link = temp.path().join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(to, link).unwrap();
        }
        Self {
            tree: Tree::new(temp.path()),
            temp,
            refuses: RefCell::default(),
        }
    }

    pub fn set(&self, path: &str, text: &str) {
        put(self.temp.path(), path, text);
    }

    pub fn host<'a>(&'a self, shard_cpus: Option<&'a [usize]>) -> Host<'a> {
        Host {
            files: self,
            shard_cpus,
            data_dir: Path::new("/var/lib/millstream"),
            ring_refused: None,
        }
    }

    /// What one item says.
    pub fn finding(&self, name: &str) -> Finding {
        let item = ITEMS.iter().find(|item| item.name == name).unwrap();
        (item.check)(&self.host(Some(&[1, 2, 3])))
    }

    pub fn plan(&self) -> Vec<(&'static Item, Vec<Change>)> {
        let host = self.host(Some(&[1, 2, 3]));
        let plan = ITEMS.iter().map(|item| (item, (item.check)(&host).changes));
        plan.filter(|(_, changes)| !changes.is_empty()).collect()
    }

    /// Where records are kept: beside the tree, not in it.
    pub fn state(&self) -> PathBuf {
        self.temp.path().join("state/undo.json")
    }

    /// Every file of the tree, byte for byte.
    pub fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for top in ["proc", "sys"] {
            collect(&self.temp.path().join(top), &mut files);
        }
        files
    }
}

impl HostFiles for Fake {
    fn read(&self, path: &str) -> io::Result<String> {
        self.tree.read(path)
    }

    fn list(&self, path: &str) -> Vec<String> {
        self.tree.list(path)
    }

    fn write(&self, path: &str, value: &str) -> io::Result<()> {
        if self.refuses.borrow().iter().any(|it| it == path) {
            return Err(io::Error::other("refused"));
        }
        let now = self.read(path)?;
        if !now.contains('[') {
            return self.tree.write(path, value);
        }
        let plain = now.replace(['[', ']'], "");
        let choices: Vec<&str> = plain.split_whitespace().collect();
        if !choices.contains(&value) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let shown = choices.iter().map(|choice| match *choice == value {
            true => format!("[{choice}]"),
            false => (*choice).to_owned(),
        });
        self.tree.write(path, &shown.collect::<Vec<_>>().join(" "))
    }
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn collect(directory: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&entry.path(), files);
        } else if kind.is_file() {
            files.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
}
