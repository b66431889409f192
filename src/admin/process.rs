//! What the kernel knows about this process, under the names that dashboards expect.

use std::fs;

use super::metrics::{Family, Sample};

/// Memory, processor time, open files, threads and version. What cannot be read is left out.
#[must_use]
pub fn process_families() -> Vec<Family> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second();
    let page_size = rustix::param::page_size();
    let mut families = from_stat(&stat, ticks, page_size);
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory being read.
        let open = entries.count().saturating_sub(1);
        families.push(gauge(
            "process_open_fds",
            "Open file descriptors.",
            as_f64(open as u64),
        ));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit {
        families.push(gauge(
            "process_max_fds",
            "Limit of open file descriptors.",
            as_f64(limit),
        ));
    }
    let version = Sample::labelled("version", env!("CARGO_PKG_VERSION"), 1.0);
    families.push(Family::gauge(
        "millstream_build",
        "The version that runs.",
        [version],
    ));
    families
}

/// Fields by number as in proc(5), counted after the name, which may hold blanks and brackets.
fn from_stat(stat: &str, ticks_per_second: u64, page_size: usize) -> Vec<Family> {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return Vec::new();
    };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok().map(as_f64);
    let mut families = Vec::new();
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        let seconds = (user + system) / as_f64(ticks_per_second);
        let help = "Processor time used.";
        families.push(Family::counter(
            "process_cpu_seconds",
            help,
            [Sample::plain(seconds)],
        ));
    }
    if let Some(threads) = field(20) {
        families.push(gauge("process_threads", "Threads.", threads));
    }
    if let Some(pages) = field(24) {
        let bytes = pages * as_f64(page_size as u64);
        families.push(gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            bytes,
        ));
    }
    families
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Family {
    Family::gauge(name, help, [Sample::plain(value)])
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are doubles; 2^53 is exact enough"
)]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 7 0 99 123456 300 1";
        let families = from_stat(stat, 100, 4096);
        let value = |name: &str| {
            families
                .iter()
                .find(|family| family.name == name)
                .unwrap()
                .samples[0]
                .value
        };
        assert_eq!(value("process_cpu_seconds"), 2.0);
        assert_eq!(value("process_threads"), 7.0);
        assert_eq!(value("process_resident_memory_bytes"), 300.0 * 4096.0);
        assert!(from_stat("", 100, 4096).is_empty());
    }

    #[test]
    fn this_process_has_all_of_them() {
        let names: Vec<_> = process_families()
            .iter()
            .map(|family| family.name.clone())
            .collect();
        for name in [
            "process_cpu_seconds",
            "process_open_fds",
            "process_resident_memory_bytes",
        ] {
            assert!(names.iter().any(|it| it == name), "{name}");
        }
    }
}
