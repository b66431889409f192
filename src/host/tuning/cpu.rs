//! Processors: how fast they run, and how they tell the time.

use super::{
    files::show_cpu_list,
    item::{Finding, Host},
};

const CPUS: &str = "/sys/devices/system/cpu";
const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0";

/// Clocks that a process reads without a system call.
const FAST_CLOCKS: [&str; 5] = [
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
    "riscv_clocksource",
];

pub(super) fn governor(host: &Host<'_>) -> Finding {
    let mut slow = Vec::new();
    let mut changes = Vec::new();
    let mut count = 0;
    let mut names = Vec::new();
    for name in host.files.list(CPUS) {
        let Some(cpu) = name.strip_prefix("cpu").and_then(|it| it.parse().ok()) else {
            continue;
        };
        let path = format!("{CPUS}/{name}/cpufreq/scaling_governor");
        let Some(governor) = host.read(&path) else {
            continue;
        };
        count += 1;
        let governor = governor.trim().to_owned();
        if governor == "performance" {
            continue;
        }
        slow.push(cpu);
        let offered = host.read(&format!(
            "{CPUS}/{name}/cpufreq/scaling_available_governors"
        ));
        if offered.is_none_or(|all| all.split_whitespace().any(|it| it == "performance")) {
            changes.push(path);
        }
        if !names.contains(&governor) {
            names.push(governor);
        }
    }
    slow.sort_unstable();
    if count == 0 {
        return Finding::cannot_tell("no frequency control here; a virtual machine's host has it");
    }
    if slow.is_empty() {
        return Finding::ok(format!("performance on {count} CPU(s)"));
    }
    let found = format!("{} on CPU {}", names.join(", "), show_cpu_list(&slow));
    let mut finding = Finding::not_ok(found);
    if changes.is_empty() {
        finding = finding.remedy("this driver offers no governor `performance`: load another");
    }
    changes
        .into_iter()
        .fold(finding, |finding, path| finding.change(path, "performance"))
}

pub(super) fn clock_source(host: &Host<'_>) -> Finding {
    let current = format!("{CLOCK}/current_clocksource");
    let Some(clock) = host.read(&current) else {
        return Finding::cannot_tell("the kernel does not say");
    };
    let clock = clock.trim();
    if FAST_CLOCKS.contains(&clock) {
        return Finding::ok(clock);
    }
    let offered = host.read(&format!("{CLOCK}/available_clocksource"));
    let offered = offered.unwrap_or_default();
    // What the kernel found to be unreliable it does not offer.
    let better = FAST_CLOCKS
        .iter()
        .find(|fast| offered.split_whitespace().any(|it| it == **fast));
    match better {
        Some(better) => Finding::not_ok(clock).change(current, *better),
        None => Finding::not_ok(clock).remedy(
            "the kernel offers nothing faster: see `dmesg` for why it gave up on the TSC, and the \
             firmware's settings for an invariant one",
        ),
    }
}
