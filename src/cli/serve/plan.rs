//! From settings and what the host has to what the broker is told. Pure.

use std::time::Duration;

use crate::{
    broker::{Authentication, BrokerSettings, ListenerProtocol, ListenerSettings},
    control::DataDir,
    host::{DiskFacts, Resources},
    settings::Settings,
    storage::limits::PREPARED_FILE_SIZE,
    types::quantity::show_size,
};

/// How long a shard of a dedicated host spins before it sleeps.
const DEDICATED_SPIN: Duration = Duration::from_micros(200);
/// One in so many descriptors is for segment files; most of the others are for connections.
const SEGMENT_FILES_SHARE: u64 = 4;
/// More descriptors than this for segment files gain nothing.
const MAX_SEGMENT_FILES: u64 = 32_768;
/// Descriptors that are neither: rings, timers, the metadata log, files in passing.
const OTHER_FILES: u64 = 256;

/// What the broker is told, and what of it people want to see.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) broker: BrokerSettings,
}

impl Plan {
    pub(super) fn of(
        settings: &Settings,
        dir: &DataDir,
        disk: &DiskFacts,
        resources: &Resources,
        open_files: u64,
    ) -> Self {
        let listener = ListenerSettings {
            name: "native".to_owned(),
            protocol: ListenerProtocol::Native,
            address: settings.listen,
            advertised: settings.advertise.clone().map(|it| (it.host, it.port)),
            authentication: Authentication::None,
        };
        let segment_files = (open_files / SEGMENT_FILES_SHARE).min(MAX_SEGMENT_FILES);
        Self {
            broker: BrokerSettings {
                data_dir: dir.path().to_owned(),
                first_life: dir.first_life(),
                listeners: vec![listener],
                shard_cpus: shard_cpus(settings, resources),
                memory: settings
                    .memory_bytes
                    .unwrap_or_else(|| resources.default_memory_bytes()),
                prepared_space: settings.prepared_space_bytes,
                direct_io: settings.direct_io && disk.direct,
                spin: settings.dedicated.then_some(DEDICATED_SPIN),
                open_files: usize::try_from(segment_files).unwrap_or(usize::MAX),
                max_connections: open_files.saturating_sub(segment_files + OTHER_FILES),
                group_offsets_retention_ms: i64::try_from(settings.group_offsets_retention_ms)
                    .unwrap_or(i64::MAX),
            },
        }
    }
}

/// Why these settings cannot work on this host.
pub(super) fn refusal(settings: &Settings, resources: &Resources) -> Option<String> {
    let limit = resources.memory_limit_bytes;
    let wanted = settings.memory_bytes.filter(|wanted| *wanted > limit)?;
    Some(format!(
        "--memory {} is more than the {} that this host, or the control group of this process, has: give less (without \
         --memory a quarter of it is taken)",
        show_size(wanted),
        show_size(limit)
    ))
}

/// What works, but hardly as meant.
pub(super) fn more_shards_than_cores(settings: &Settings, resources: &Resources) -> Option<String> {
    let cores = settings.cores.as_ref().unwrap_or(&resources.cores).len();
    let shards = settings.shards.filter(|shards| *shards as usize > cores)?;
    let default = resources.default_shard_count();
    Some(format!(
        "--shards {shards} is more than the {cores} cores there are: shards take turns on them, unpinned, and each has \
         a part of the memory to itself; one for each core is best (without --shards: {default})"
    ))
}

/// Space that is prepared in whole files of each shard, of which this is less than one.
pub(super) fn too_little_to_prepare(settings: &Settings, shard_count: usize) -> Option<String> {
    let least = PREPARED_FILE_SIZE * shard_count as u64;
    let asked = settings.prepared_space_bytes;
    (1..least).contains(&asked).then(|| {
        format!(
            "--prepared-space {} prepares nothing: it takes {} for each of {shard_count} shards, {} in all",
            show_size(asked),
            show_size(PREPARED_FILE_SIZE),
            show_size(least)
        )
    })
}

/// The core of each shard, or none where it may roam: with more shards than cores, pinning would
/// only keep them from spreading.
fn shard_cpus(settings: &Settings, resources: &Resources) -> Vec<Option<usize>> {
    let usable = match &settings.cores {
        Some(cores) => Resources {
            cores: cores.clone(),
            ..resources.clone()
        },
        None => resources.clone(),
    };
    let count = settings
        .shards
        .unwrap_or_else(|| usable.default_shard_count()) as usize;
    let pinned = settings.pin && count <= usable.cores.len();
    (0..count)
        .map(|shard| pinned.then(|| usable.cores[shard]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(settings: Settings, cores: &[usize], cpu_quota: Option<f64>) -> Vec<Option<usize>> {
        let resources = Resources {
            cores: cores.to_vec(),
            cpu_quota,
            memory_limit_bytes: 1 << 30,
        };
        shard_cpus(&settings, &resources)
    }

    #[test]
    fn less_than_a_file_of_each_shard_prepares_nothing() {
        let told = |bytes| {
            let settings = Settings {
                prepared_space_bytes: bytes,
                ..Settings::default()
            };
            too_little_to_prepare(&settings, 4)
        };
        assert_eq!((told(0), told(1 << 30)), (None, None));
        let said = told((1 << 30) - 1).unwrap();
        assert!(said.contains("1 GiB in all"), "{said}");
    }

    #[test]
    fn what_the_host_has_not_is_refused_or_told() {
        let host = Resources {
            cores: vec![0, 1],
            cpu_quota: None,
            memory_limit_bytes: 24 << 30,
        };
        let memory = |bytes| {
            let settings = Settings {
                memory_bytes: Some(bytes),
                ..Settings::default()
            };
            refusal(&settings, &host)
        };
        assert_eq!(memory(24 << 30), None);
        let said = memory(900 << 30).unwrap();
        assert!(said.contains("900") && said.contains("24 GiB"), "{said}");
        let shards = |count| {
            let settings = Settings {
                shards: Some(count),
                ..Settings::default()
            };
            more_shards_than_cores(&settings, &host)
        };
        assert_eq!(shards(2), None);
        let said = shards(1000).unwrap();
        assert!(said.contains("--shards 1000"), "{said}");
        assert!(said.contains("2 cores"), "{said}");
        assert_eq!(refusal(&Settings::default(), &host), None);
        assert_eq!(more_shards_than_cores(&Settings::default(), &host), None);
    }

    #[test]
    fn shards_get_cores() {
        let defaults = Settings::default;
        assert_eq!(cpus(defaults(), &[2, 5], None), [Some(2), Some(5)]);
        assert_eq!(
            cpus(defaults(), &[0, 1, 2, 3], Some(1.5)),
            [Some(0), Some(1)]
        );
        let four = Settings {
            shards: Some(4),
            ..defaults()
        };
        assert_eq!(cpus(four, &[0, 1], None), [None; 4]);
        let chosen = Settings {
            cores: Some(vec![3]),
            ..defaults()
        };
        assert_eq!(cpus(chosen, &[0, 1, 2, 3], None), [Some(3)]);
        let free = Settings {
            pin: false,
            ..defaults()
        };
        assert_eq!(cpus(free, &[0, 1], None), [None, None]);
    }
}
