//! The table of items, the weightiest first.

use super::{
    block, cpu, file_system, interrupts,
    item::{
        Importance::{High, Low, Medium},
        Item,
    },
    kernel, limits,
};

/// Every item.
pub static ITEMS: [Item; 16] = [
    Item {
        name: "io-uring",
        importance: High,
        why: "All disk and network work goes through it: without it there is no broker.",
        sets: &[],
        check: kernel::io_uring,
    },
    Item {
        name: "mount-flushes",
        importance: High,
        why: "A record is acknowledged after a flush. A mount that drops flushes makes that promise empty.",
        sets: &[],
        check: file_system::flushes,
    },
    Item {
        name: "write-cache",
        importance: High,
        why: "A disk with a volatile write cache keeps what it was given only once it was flushed. Disks with power-loss \
              protection have none, and acknowledge several times faster.",
        sets: &[],
        check: block::write_cache,
    },
    Item {
        name: "file-system",
        importance: High,
        why: "Direct I/O into preallocated, zero-filled files is fast on ext4 and XFS; others buffer, copy or refuse.",
        sets: &[],
        check: file_system::kind,
    },
    Item {
        name: "open-files",
        importance: High,
        why: "Connections and segments each take a descriptor. The broker raises its soft limit to the hard one, not beyond.",
        sets: &[],
        check: limits::open_files,
    },
    Item {
        name: "cpu-governor",
        importance: Medium,
        why: "A shard that waits for the disk looks idle, so a saving governor lowers its clock just before the answer comes.",
        sets: &["/sys/devices/system/cpu/*/cpufreq/scaling_governor"],
        check: cpu::governor,
    },
    Item {
        name: "clock-source",
        importance: Medium,
        why: "Shards read the clock all the time. A slow source makes each reading a system call or a trip to the chip set.",
        sets: &["/sys/devices/system/clocksource/clocksource0/current_clocksource"],
        check: cpu::clock_source,
    },
    Item {
        name: "irq-affinity",
        importance: Medium,
        why: "Interrupts of a busy network card take a shard's CPU away in the middle of its work: they show in the tail of latency.",
        sets: &["/proc/irq/*/smp_affinity_list"],
        check: interrupts::irq_affinity,
    },
    Item {
        name: "rps-affinity",
        importance: Medium,
        why: "Packets that are steered to a shard's CPU take its time as interrupts would.",
        sets: &["/sys/class/net/*/queues/*/rps_cpus"],
        check: interrupts::rps_affinity,
    },
    Item {
        name: "block-scheduler",
        importance: Medium,
        why: "Writes are large and already in order; a scheduler sorts them again, under a lock, and delays flushes.",
        sets: &["/sys/block/*/queue/scheduler"],
        check: block::scheduler,
    },
    Item {
        name: "vm-swappiness",
        importance: Medium,
        why: "A page of a shard that was swapped out stops every partition on it until the page is back.",
        sets: &["/proc/sys/vm/swappiness"],
        check: kernel::swappiness,
    },
    Item {
        name: "block-nomerges",
        importance: Low,
        why: "Writes are as large as they can be; looking for neighbours to merge them with costs CPU and finds none.",
        sets: &["/sys/block/*/queue/nomerges"],
        check: block::nomerges,
    },
    Item {
        name: "mount-options",
        importance: Low,
        why: "Access times make reads write; trimming at each deletion of a segment stalls the journal of the file system; \
              data=journal writes everything twice.",
        sets: &[],
        check: file_system::options,
    },
    Item {
        name: "net-somaxconn",
        importance: Low,
        why: "When many clients connect at once, as after a restart, those beyond the queue wait a second or more to try again.",
        sets: &["/proc/sys/net/core/somaxconn"],
        check: kernel::somaxconn,
    },
    Item {
        name: "huge-pages",
        importance: Low,
        why: "The broker declines huge pages for its own memory. `always` makes the kernel compact memory for others meanwhile.",
        sets: &["/sys/kernel/mm/transparent_hugepage/enabled"],
        check: kernel::huge_pages,
    },
    Item {
        name: "locked-memory",
        importance: Low,
        why: "Each shard's ring locks less than 100 KiB; only very low limits stand in its way.",
        sets: &[],
        check: limits::locked_memory,
    },
];
