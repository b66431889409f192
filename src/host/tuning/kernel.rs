//! Kernel-wide settings: memory, the network's queue of connections, io_uring.

use super::{
    files::chosen,
    item::{Finding, Host},
};
use crate::io::uring::BACKLOG_COUNT;

const SWAPPINESS: &str = "/proc/sys/vm/swappiness";
/// The most that is let pass, and what is set otherwise.
const MAX_SWAPPINESS: u64 = 10;
const LEAST_SWAPPINESS: u64 = 1;

const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
const IO_URING_DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

pub(super) fn swappiness(host: &Host<'_>) -> Finding {
    // The first line is a heading.
    let areas = host.read("/proc/swaps").map(|text| text.lines().count());
    if areas.is_some_and(|lines| lines <= 1) {
        return Finding::ok("no swap");
    }
    match number(host, SWAPPINESS) {
        None => Finding::cannot_tell("the kernel does not say"),
        Some(value) if value <= MAX_SWAPPINESS => Finding::ok(value.to_string()),
        Some(value) => {
            Finding::not_ok(value.to_string()).change(SWAPPINESS, LEAST_SWAPPINESS.to_string())
        }
    }
}

pub(super) fn huge_pages(host: &Host<'_>) -> Finding {
    let Some(text) = host.read(HUGE_PAGES) else {
        return Finding::ok("none in this kernel");
    };
    match chosen(&text) {
        "always" => Finding::not_ok("always").change(HUGE_PAGES, "madvise"),
        choice => Finding::ok(choice),
    }
}

pub(super) fn somaxconn(host: &Host<'_>) -> Finding {
    let wanted = u64::from(BACKLOG_COUNT.unsigned_abs());
    match number(host, SOMAXCONN) {
        None => Finding::cannot_tell("the kernel does not say"),
        Some(value) if value >= wanted => Finding::ok(value.to_string()),
        Some(value) => Finding::not_ok(value.to_string()).change(SOMAXCONN, wanted.to_string()),
    }
}

/// Never changed by `apply`: who turned it off had a reason, and is to be asked.
pub(super) fn io_uring(host: &Host<'_>) -> Finding {
    if let Some(why) = &host.ring_refused {
        return Finding::not_ok("not available").remedy(why.clone());
    }
    let remedy = "ask who set it, then `sysctl kernel.io_uring_disabled=0`";
    match number(host, IO_URING_DISABLED) {
        None | Some(0) => Finding::ok("available"),
        Some(1) => {
            Finding::cannot_tell("for root and the group kernel.io_uring_group only").remedy(remedy)
        }
        Some(value) => Finding::not_ok(format!("kernel.io_uring_disabled={value}")).remedy(remedy),
    }
}

fn number(host: &Host<'_>, path: &str) -> Option<u64> {
    host.read(path)?.trim().parse().ok()
}
