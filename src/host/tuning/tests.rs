use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{files::chosen, *};

/// A host in a directory, with a kernel that shows choices in brackets and refuses what it does not know.
struct Fake {
    tree: Tree,
    temp: tempfile::TempDir,
    refuses: RefCell<Vec<String>>,
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

const CPUS: &str = "/sys/devices/system/cpu";

impl Fake {
    fn new() -> Self {
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

    fn set(&self, path: &str, text: &str) {
        put(self.temp.path(), path, text);
    }

    fn host<'a>(&'a self, shard_cpus: Option<&'a [usize]>) -> Host<'a> {
        Host {
            files: self,
            shard_cpus,
            data_dir: Path::new("/var/lib/millstream"),
            ring_refused: None,
        }
    }

    /// What one item says.
    fn finding(&self, name: &str) -> Finding {
        let item = ITEMS.iter().find(|item| item.name == name).unwrap();
        (item.check)(&self.host(Some(&[1, 2, 3])))
    }

    fn plan(&self) -> Vec<(&'static Item, Vec<Change>)> {
        let host = self.host(Some(&[1, 2, 3]));
        let plan = ITEMS.iter().map(|item| (item, (item.check)(&host).changes));
        plan.filter(|(_, changes)| !changes.is_empty()).collect()
    }

    /// Where records are kept: beside the tree, not in it.
    fn state(&self) -> PathBuf {
        self.temp.path().join("state/undo.json")
    }

    /// Every file of the tree, byte for byte.
    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
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

fn paths(finding: &Finding) -> Vec<(&str, &str)> {
    let changes = finding.changes.iter();
    changes
        .map(|it| (it.path.as_str(), it.value.as_str()))
        .collect()
}

#[test]
fn names_differ_and_the_weightiest_come_first() {
    let mut names: Vec<_> = ITEMS.iter().map(|item| item.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ITEMS.len());
    assert!(ITEMS.is_sorted_by(|one, next| one.importance >= next.importance));
    assert!(ITEMS.iter().all(|item| item.why.ends_with('.')));
}

#[test]
fn an_untuned_host_is_seen_as_it_is() {
    let fake = Fake::new();
    let outcome = |name: &str| fake.finding(name).outcome;
    for name in [
        "io-uring",
        "mount-flushes",
        "write-cache",
        "file-system",
        "locked-memory",
    ] {
        assert_eq!(outcome(name), Outcome::Ok, "{name}");
    }
    for item in &ITEMS {
        let finding = fake.finding(item.name);
        if finding.outcome == Outcome::NotOk {
            assert!(
                finding.remedy.is_some() || !finding.changes.is_empty(),
                "{} says neither what to do nor does it",
                item.name
            );
        }
    }
    let governor = fake.finding("cpu-governor");
    assert_eq!(governor.found, "powersave, schedutil on CPU 0-1");
    assert_eq!(governor.changes.len(), 2);
    let queue = "/sys/block/nvme0n1/queue";
    assert_eq!(
        paths(&fake.finding("block-scheduler")),
        [(format!("{queue}/scheduler").as_str(), "none")]
    );
    assert_eq!(
        paths(&fake.finding("block-nomerges")),
        [(format!("{queue}/nomerges").as_str(), "2")]
    );
    assert_eq!(
        paths(&fake.finding("irq-affinity")),
        [
            ("/proc/irq/41/smp_affinity_list", "0"),
            ("/proc/irq/42/smp_affinity_list", "0")
        ]
    );
    assert_eq!(
        paths(&fake.finding("rps-affinity")),
        [("/sys/class/net/eth0/queues/rx-0/rps_cpus", "1")]
    );
    assert_eq!(fake.finding("clock-source").changes[0].value, "tsc");
    assert_eq!(fake.finding("huge-pages").changes[0].value, "madvise");
    assert_eq!(fake.finding("vm-swappiness").changes[0].value, "1");
    assert_eq!(fake.finding("net-somaxconn").changes[0].value, "4096");
    assert_eq!(outcome("open-files"), Outcome::NotOk);
    assert_eq!(fake.finding("mount-options").found, "no noatime at /");
}

#[test]
fn an_empty_host_says_nothing_wrong() {
    let temp = tempfile::tempdir().unwrap();
    let tree = Tree::new(temp.path());
    let host = Host {
        files: &tree,
        shard_cpus: None,
        data_dir: Path::new("/data"),
        ring_refused: None,
    };
    for item in &ITEMS {
        let finding = (item.check)(&host);
        assert_ne!(
            finding.outcome,
            Outcome::NotOk,
            "{}: {}",
            item.name,
            finding.found
        );
        assert!(finding.changes.is_empty());
    }
}

#[test]
fn what_is_unsafe_is_named_and_never_changed() {
    let fake = Fake::new();
    fake.set(
        "proc/self/mountinfo",
        "1 0 259:2 / / rw,noatime,nobarrier - ext4 /dev/nvme0n1p2 rw\n",
    );
    fake.set("sys/devices/nvme0n1/queue/write_cache", "write through\n");
    fake.set(
        "sys/devices/nvme0n1/device/scsi_disk/0:0:0:0/cache_type",
        "write back\n",
    );
    fake.set("proc/sys/kernel/io_uring_disabled", "2\n");
    for name in ["mount-flushes", "write-cache", "io-uring"] {
        let finding = fake.finding(name);
        assert_eq!(finding.outcome, Outcome::NotOk, "{name}: {}", finding.found);
        assert!(
            finding.changes.is_empty() && finding.remedy.is_some(),
            "{name}"
        );
    }
    assert_eq!(fake.finding("mount-options").outcome, Outcome::Ok);
}

#[test]
fn mappings_and_file_systems_lead_to_their_disks() {
    let fake = Fake::new();
    // A mapping on a partition on the disk.
    fake.set("sys/dev/block/253:0/uevent", "DEVNAME=dm-0\nDEVTYPE=disk\n");
    fake.set("sys/dev/block/253:0/slaves/nvme0n1p2/uevent", "");
    fake.set(
        "proc/self/mountinfo",
        "1 0 253:0 / / rw - ext4 /dev/mapper/root rw\n",
    );
    assert_eq!(fake.finding("block-nomerges").found, "nvme0n1: 0");
    fake.set(
        "proc/self/mountinfo",
        "1 0 0:30 / / rw - btrfs /dev/nvme0n1p2 rw\n",
    );
    assert_eq!(fake.finding("block-nomerges").found, "nvme0n1: 0");
    assert_eq!(fake.finding("file-system").outcome, Outcome::NotOk);
    fake.set("proc/self/mountinfo", "1 0 0:30 / / rw - tmpfs tmpfs rw\n");
    assert_eq!(fake.finding("block-nomerges").outcome, Outcome::CannotTell);
    assert_eq!(fake.finding("file-system").outcome, Outcome::NotOk);
}

#[test]
fn interrupts_have_nowhere_to_go_if_shards_take_every_cpu() {
    let fake = Fake::new();
    for shard_cpus in [None, Some(&[0, 1, 2, 3][..])] {
        for name in ["irq-affinity", "rps-affinity"] {
            let item = ITEMS.iter().find(|item| item.name == name).unwrap();
            let finding = (item.check)(&fake.host(shard_cpus));
            assert_eq!(finding.outcome, Outcome::CannotTell, "{name}");
        }
    }
    fake.set("proc/77/comm", "irqbalance\n");
    let finding = fake.finding("irq-affinity");
    assert!(
        finding
            .remedy
            .unwrap()
            .contains("IRQBALANCE_BANNED_CPULIST=1-3")
    );
}

#[test]
fn what_was_applied_is_well_and_what_was_undone_is_as_before() {
    let fake = Fake::new();
    let before = fake.bytes();
    let plan = fake.plan();
    assert!(plan.len() >= 9, "{}", plan.len());
    for (item, changes) in &plan {
        assert!(
            changes.iter().all(|it| item.may_set(&it.path)),
            "{}",
            item.name
        );
    }
    assert!(apply(&fake, &plan, &fake.state()).unwrap().is_empty());
    for (item, _) in &plan {
        assert_eq!(
            fake.finding(item.name).outcome,
            Outcome::Ok,
            "{}",
            item.name
        );
    }
    assert_ne!(fake.bytes(), before);
    let Undone::Files(files) = undo(&fake, &fake.state(), false).unwrap() else {
        panic!("there was something to undo");
    };
    assert!(
        files.iter().all(|(_, outcome)| *outcome == Restored::Back),
        "{files:?}"
    );
    assert_eq!(fake.bytes(), before);
    assert!(!fake.state().exists());
    assert_eq!(undo(&fake, &fake.state(), false).unwrap(), Undone::Nothing);
}

#[test]
fn a_second_apply_keeps_what_was_there_before_the_first() {
    let fake = Fake::new();
    let before = fake.bytes();
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    fake.set("proc/sys/vm/swappiness", "30\n");
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    undo(&fake, &fake.state(), false).unwrap();
    assert_eq!(fake.bytes(), before);
}

#[test]
fn what_the_kernel_refuses_is_told_and_the_rest_is_done() {
    let fake = Fake::new();
    let before = fake.bytes();
    let irq = "/proc/irq/41/smp_affinity_list".to_owned();
    fake.refuses.borrow_mut().push(irq.clone());
    let refused = apply(&fake, &fake.plan(), &fake.state()).unwrap();
    let refused: Vec<_> = refused.into_iter().map(|it| it.path).collect();
    assert_eq!(refused, [irq]);
    assert_eq!(fake.read("/proc/irq/42/smp_affinity_list").unwrap(), "0\n");
    undo(&fake, &fake.state(), false).unwrap();
    assert_eq!(fake.bytes(), before);
}

#[test]
fn a_later_change_by_somebody_else_stays_unless_forced() {
    let fake = Fake::new();
    let before = fake.bytes();
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    fake.set("proc/sys/vm/swappiness", "7\n");
    // An apply that does not concern it leaves it somebody else's.
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    let Undone::Files(files) = undo(&fake, &fake.state(), false).unwrap() else {
        panic!("there was something to undo");
    };
    let left: Vec<_> = files
        .into_iter()
        .filter(|(_, it)| *it != Restored::Back)
        .collect();
    let changed = Restored::ChangedSince("7".to_owned());
    assert_eq!(left, [("/proc/sys/vm/swappiness".to_owned(), changed)]);
    assert!(fake.state().exists());
    undo(&fake, &fake.state(), true).unwrap();
    assert_eq!(fake.bytes(), before);
    assert!(!fake.state().exists());
}

#[test]
fn an_apply_that_was_cut_short_can_be_undone() {
    let fake = Fake::new();
    let before = fake.bytes();
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    // As if it had died after the writes, before it learnt how the kernel shows them.
    let mut record = Record::read(&fake.state()).unwrap().unwrap();
    for entry in &mut record.entries {
        entry.after = None;
    }
    record.write(&fake.state()).unwrap();
    undo(&fake, &fake.state(), false).unwrap();
    assert_eq!(fake.bytes(), before);
}

#[test]
fn after_a_restart_of_the_host_nothing_is_put_back() {
    let fake = Fake::new();
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    fake.set("proc/sys/kernel/random/boot_id", "second\n");
    fake.set("proc/sys/vm/swappiness", "60\n");
    let after = fake.bytes();
    assert_eq!(undo(&fake, &fake.state(), true).unwrap(), Undone::Restarted);
    assert_eq!(fake.bytes(), after);
    assert!(!fake.state().exists());
    // And an apply begins a new record.
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    fs::write(fake.state(), "{}").unwrap();
    assert!(matches!(
        undo(&fake, &fake.state(), false),
        Err(RecordError::Format(..))
    ));
    assert!(matches!(
        apply(&fake, &fake.plan(), &fake.state()),
        Err(RecordError::Format(..))
    ));
}

#[test]
fn a_record_that_names_other_files_is_not_believed() {
    let fake = Fake::new();
    fake.set("proc/sys/kernel/core_pattern", "core\n");
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    let text = fs::read_to_string(fake.state()).unwrap();
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/irq/../smp_affinity_list",
        "/proc/irq/a/b/smp_affinity_list",
    ] {
        let forged = text.replace("/proc/irq/41/smp_affinity_list", path);
        assert_ne!(forged, text);
        fs::write(fake.state(), forged).unwrap();
        let before = fake.bytes();
        let undone = undo(&fake, &fake.state(), true);
        assert!(matches!(undone, Err(RecordError::Foreign(_, named)) if named == path));
        assert_eq!(fake.bytes(), before);
    }
}

#[test]
fn a_link_in_the_place_of_the_record_is_not_followed() {
    let fake = Fake::new();
    let victim = fake.temp.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    fs::create_dir_all(fake.state().parent().unwrap()).unwrap();
    symlink(&victim, fake.state().with_extension("json.new")).unwrap();
    apply(&fake, &fake.plan(), &fake.state()).unwrap();
    assert_eq!(fs::read_to_string(victim).unwrap(), "untouched");
}

#[test]
fn nothing_is_changed_that_could_not_be_put_back() {
    let fake = Fake::new();
    let before = fake.bytes();
    let state = fake.temp.path().join("proc/swaps/undo.json");
    assert!(matches!(
        apply(&fake, &fake.plan(), &state),
        Err(RecordError::Read(..) | RecordError::Write(..))
    ));
    assert_eq!(fake.bytes(), before);
}

/// The manual, and the files that make the same values last, say what the items do.
#[test]
fn documents_and_static_files_agree() {
    let manual = include_str!("../../../docs/tuning.md");
    for item in &ITEMS {
        let row = format!("| `{}` |", item.name);
        let row = manual.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("docs/tuning.md lacks {}", item.name));
        let set = row
            .rsplit('|')
            .nth(1)
            .is_some_and(|cell| cell.trim().starts_with("yes"));
        assert_eq!(set, !item.sets.is_empty(), "{row}");
    }
    let fake = Fake::new();
    for line in include_str!("../../../tuning/sysctl.conf").lines() {
        if let Some((name, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            fake.set(&format!("proc/sys/{}", name.replace('.', "/")), value);
        }
    }
    for name in ["vm-swappiness", "net-somaxconn"] {
        assert_eq!(fake.finding(name).outcome, Outcome::Ok, "{name}");
    }
    let rules = include_str!("../../../tuning/60-millstream.rules");
    for name in ["block-scheduler", "block-nomerges"] {
        let finding = fake.finding(name);
        let change = &finding.changes[0];
        let attribute = change.path.rsplit('/').next().unwrap();
        let rule = format!("ATTR{{queue/{attribute}}}=\"{}\"", change.value);
        assert!(rules.contains(&rule), "{rule}");
    }
}

#[test]
fn the_script_says_what_apply_does() {
    let fake = Fake::new();
    let text = script(&fake, &fake.plan());
    assert!(text.starts_with("#!/bin/sh\n"));
    assert!(
        text.contains("echo 1 > /proc/sys/vm/swappiness  # was: 60\n"),
        "{text}"
    );
    let line = "echo none > /sys/block/nvme0n1/queue/scheduler  # was: none [mq-deadline] kyber\n";
    assert!(text.contains(line), "{text}");
    let commands = text
        .lines()
        .filter(|line| line.starts_with("echo "))
        .count();
    let changes: usize = fake.plan().iter().map(|(_, changes)| changes.len()).sum();
    assert_eq!(commands, changes);
    assert_eq!(
        chosen(
            &fake
                .read(&format!("{CPUS}/cpu0/cpufreq/scaling_governor"))
                .unwrap()
        ),
        "powersave"
    );
}
