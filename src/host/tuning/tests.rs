mod change;
mod fake;

use std::path::Path;

use super::*;
use fake::Fake;

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
