//! Interrupts of network cards, and the work they leave behind: on CPUs that no shard runs on.
//!
//! Those of disks stay where they are: the completion of a write is wanted on the CPU that waits for
//! it, and the kernel does not let the queues of NVMe be moved.

use super::{
    files::{cpu_list, cpus_of_mask, mask_of_cpus, show_cpu_list},
    item::{Finding, Host},
};

const CARDS: &str = "/sys/class/net";

/// CPUs of shards, and those that are left for everything else.
struct Split {
    shards: Vec<usize>,
    others: Vec<usize>,
}

impl Split {
    /// The reason, if there is nothing to move anything to.
    fn of(host: &Host<'_>) -> Result<Self, Finding> {
        let Some(online) = host.online_cpus() else {
            return Err(Finding::cannot_tell(
                "the host does not say which CPUs it has",
            ));
        };
        let shards: Vec<usize> = host
            .shard_cpus
            .map_or_else(|| online.clone(), <[_]>::to_vec);
        let others: Vec<usize> = online
            .into_iter()
            .filter(|cpu| !shards.contains(cpu))
            .collect();
        if others.is_empty() {
            return Err(Finding::cannot_tell(
                "shards take every CPU: give `--cores` here what you give `serve`",
            ));
        }
        Ok(Self { shards, others })
    }

    fn meets_shards(&self, cpus: &[usize]) -> bool {
        cpus.iter().any(|cpu| self.shards.contains(cpu))
    }
}

pub(super) fn irq_affinity(host: &Host<'_>) -> Finding {
    let split = match Split::of(host) {
        Ok(split) => split,
        Err(finding) => return finding,
    };
    let mut numbers = Vec::new();
    for card in cards(host) {
        numbers.extend(interrupts_of(host, &card));
    }
    let mut seen = 0;
    let mut astray = Vec::new();
    for number in numbers {
        let path = format!("/proc/irq/{number}/smp_affinity_list");
        let Some(cpus) = host.read(&path).and_then(|text| cpu_list(&text)) else {
            continue;
        };
        seen += 1;
        if split.meets_shards(&cpus) {
            astray.push((number, path));
        }
    }
    if seen == 0 {
        return Finding::cannot_tell("no network card with interrupts of its own");
    }
    if astray.is_empty() {
        return Finding::ok(format!("{seen} interrupt(s), none on a shard's CPU"));
    }
    let names: Vec<&str> = astray.iter().map(|(number, _)| number.as_str()).collect();
    let found = format!("{} may come to a shard's CPU", names.join(", "));
    let mut finding = Finding::not_ok(found);
    if irqbalance_runs(host) {
        finding = finding.remedy(format!(
            "irqbalance runs and moves interrupts back: set IRQBALANCE_BANNED_CPULIST={} for it",
            show_cpu_list(&split.shards)
        ));
    }
    let others = show_cpu_list(&split.others);
    astray
        .into_iter()
        .fold(finding, |finding, (_, path)| finding.change(path, &others))
}

/// Receive packet steering hands packets to other CPUs than the interrupt's. Off is well.
pub(super) fn rps_affinity(host: &Host<'_>) -> Finding {
    let split = match Split::of(host) {
        Ok(split) => split,
        Err(finding) => return finding,
    };
    let mut seen = 0;
    let mut names = Vec::new();
    let mut changes = Vec::new();
    for card in cards(host) {
        for queue in host.files.list(&format!("{CARDS}/{card}/queues")) {
            let path = format!("{CARDS}/{card}/queues/{queue}/rps_cpus");
            let Some(cpus) = host.read(&path).and_then(|text| cpus_of_mask(&text)) else {
                continue;
            };
            seen += 1;
            if split.meets_shards(&cpus) {
                let left: Vec<usize> = cpus
                    .into_iter()
                    .filter(|cpu| !split.shards.contains(cpu))
                    .collect();
                names.push(format!("{card}/{queue}"));
                changes.push((path, mask_of_cpus(&left)));
            }
        }
    }
    if seen == 0 {
        return Finding::cannot_tell("no network card with receive queues");
    }
    if changes.is_empty() {
        return Finding::ok(format!("{seen} queue(s), none steered to a shard's CPU"));
    }
    let finding = Finding::not_ok(format!("{} steered to a shard's CPU", names.join(", ")));
    changes
        .into_iter()
        .fold(finding, |finding, (path, mask)| finding.change(path, mask))
}

/// Interfaces with hardware behind them.
fn cards(host: &Host<'_>) -> Vec<String> {
    let mut cards = host.files.list(CARDS);
    cards.retain(|card| {
        !host
            .files
            .list(&format!("{CARDS}/{card}/device"))
            .is_empty()
    });
    cards
}

/// A virtio card's interrupts belong to the PCI function above it.
fn interrupts_of(host: &Host<'_>, card: &str) -> Vec<String> {
    let device = format!("{CARDS}/{card}/device");
    let own = host.files.list(&format!("{device}/msi_irqs"));
    let modalias = host.read(&format!("{device}/modalias"));
    let virtio = modalias.is_some_and(|text| text.starts_with("virtio:"));
    match own.is_empty() && virtio {
        true => host.files.list(&format!("{device}/../msi_irqs")),
        false => own,
    }
}

fn irqbalance_runs(host: &Host<'_>) -> bool {
    let processes = host.files.list("/proc");
    let mut processes = processes
        .iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    processes.any(|process| {
        let name = host.read(&format!("/proc/{process}/comm"));
        name.is_some_and(|name| name.trim() == "irqbalance")
    })
}
