//! The host that the generator runs on: a figure without it can't be compared.

use std::fs;

use serde::{Deserialize, Serialize};

/// What the host is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Its name.
    pub name: String,
    /// Kernel and its version.
    pub kernel: String,
    /// Model of the processor.
    pub cpu_model: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// How the kernel sets the processor's clock, where it does.
    pub cpu_governor: Option<String>,
}

impl HostFacts {
    /// Reads them from the kernel; what can't be read stays empty.
    #[must_use]
    pub fn read() -> Self {
        let system = rustix::system::uname();
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let governor = text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            name: system.nodename().to_string_lossy().into_owned(),
            kernel: format!(
                "{} {}",
                system.sysname().to_string_lossy(),
                system.release().to_string_lossy()
            ),
            cpu_model: cpu_model(&text("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: memory_bytes(&text("/proc/meminfo")),
            cpu_governor: Some(governor.trim().to_owned()).filter(|name| !name.is_empty()),
        }
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn memory_bytes(meminfo: &str) -> u64 {
    let kib = meminfo.lines().find_map(|line| {
        let value = line.strip_prefix("MemTotal:")?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_understood() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nprocessor\t: 1\n";
        assert_eq!(cpu_model(cpuinfo), "Some CPU @ 3 GHz");
        assert_eq!(cpu_model(""), std::env::consts::ARCH);
        assert_eq!(memory_bytes("MemFree: 1 kB\nMemTotal:  2048 kB\n"), 2 << 20);
        let here = HostFacts::read();
        assert!(here.cores > 0 && here.memory_bytes > 0, "{here:?}");
        assert!(here.kernel.starts_with("Linux "), "{here:?}");
    }
}
