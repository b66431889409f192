//! Parsing, printing, refusals.

use super::*;

#[test]
fn names_are_sorted_and_unique() {
    assert!(TopicConfig::names().is_sorted_by(|a, b| a < b));
}

#[test]
fn every_default_reads_back() {
    let defaults = TopicConfig::default();
    for entry in defaults.entries() {
        assert!(!entry.is_set);
        let mut config = defaults.clone();
        config.set(&entry.name, &entry.value).unwrap();
        assert_eq!(
            config.overrides().collect::<Vec<_>>(),
            [(
                TopicConfig::names()
                    .find(|name| *name == entry.name)
                    .unwrap(),
                entry.value.clone(),
            )]
        );
        assert_eq!(config.as_defaults(), defaults, "{}", entry.name);
    }
}

#[test]
fn overrides_survive_the_round_trip() {
    let mut config = TopicConfig::default();
    let chosen = [
        ("durability", "buffered"),
        ("max.batch.bytes", "64MiB"),
        ("message.timestamp.type", "logappendtime"),
        ("retention.bytes", "-1"),
        ("retention.clock", "record"),
        ("retention.ms", "1h"),
        ("segment.bytes", "1MiB"),
    ];
    for (name, value) in chosen {
        config.set(name, value).unwrap();
    }
    assert_eq!(config.durability, Durability::Buffered);
    assert_eq!(config.max_batch_bytes, 64 << 20);
    assert_eq!(config.retention_ms, Some(3_600_000));
    let mut read_back = TopicConfig::default();
    for (name, value) in config.overrides() {
        read_back.set(name, &value).unwrap();
    }
    assert_eq!(read_back, config);
}

#[test]
fn refusals_name_the_setting_the_range_and_the_nearest() {
    let mut config = TopicConfig::default();
    let before = config.clone();
    let error = config.set("retention.ns", "1").unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no topic setting \"retention.ns\"; did you mean retention.ms?"
    );
    let error = config.set("segment_bytes", "1").unwrap_err().to_string();
    assert!(error.ends_with("did you mean segment.bytes?"), "{error}");
    let error = config
        .set("max.batch.bytes", "65MiB")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "max.batch.bytes=\"65MiB\" is not allowed: max.batch.bytes takes 1KiB to 64MiB"
    );
    let error = config
        .set(&"x".repeat(100_000), "1")
        .unwrap_err()
        .to_string();
    assert!(error.len() < 400 && error.contains("segment.ms"), "{error}");
    for bad in ["-2", "0", "", "ten", "1e3", "99999999999999999999"] {
        assert!(config.set("retention.ms", bad).is_err(), "{bad}");
    }
    assert_eq!(config, before);
}

#[test]
fn alterations_are_all_or_none() {
    let defaults = TopicConfig::default();
    let mut config = defaults.clone();
    config.set("segment.ms", "1h").unwrap();
    let altered = config.altered(
        [("segment.ms", None), ("durability", Some("buffered"))],
        &defaults,
    );
    let altered = altered.unwrap();
    assert_eq!(altered.segment_ms, DAY_MS);
    assert_eq!(altered.overrides().count(), 1);
    let twice = config.altered(
        [("segment.ms", None), ("segment.ms", Some("1h"))],
        &defaults,
    );
    assert_eq!(twice, Err(ConfigError::Twice { name: "segment.ms" }));
}

#[test]
fn short_retention_is_no_lie() {
    let mut config = TopicConfig::default();
    config.set("retention.ms", "8h").unwrap();
    config.set("retention.bytes", "80MiB").unwrap();
    assert_eq!(config.roll_ms(), 3_600_000);
    assert_eq!(config.roll_size(), 10 << 20);
    config.set("retention.bytes", "1").unwrap();
    assert_eq!(config.roll_size(), MIN_SEGMENT_SIZE);
}
