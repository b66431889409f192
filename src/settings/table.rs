//! The table: one row for each setting.

use crate::types::{
    TopicConfig,
    quantity::{parse_duration_ms, parse_size},
};

use super::{
    Settings,
    values::{
        LogFormat, core_list, host_port, show_core_list, show_topic_defaults, socket_address,
        topic_defaults,
    },
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What a value could not be, and why if there is more to say than `takes`.
pub(super) type Refused = Option<String>;

/// One setting.
pub(super) struct Row {
    /// `data-dir`: the flag is `--data-dir`, the variable `MILLSTREAM_DATA_DIR`, the key `data-dir`.
    pub name: &'static str,
    /// Placeholder in help.
    pub value_name: &'static str,
    /// What it takes, in words, for errors.
    pub takes: &'static str,
    /// Help.
    pub doc: &'static str,
    /// Reads a value into the settings; they are unchanged if it is refused.
    pub parse: fn(&mut Settings, &str) -> Result<(), Refused>,
    /// The value as text that `parse` reads back.
    pub show: fn(&Settings) -> String,
}

impl Row {
    /// The environment variable.
    pub(super) fn variable(&self) -> String {
        format!(
            "MILLSTREAM_{}",
            self.name.to_ascii_uppercase().replace('-', "_")
        )
    }
}

macro_rules! row {
    ($name:literal, $field:ident, $value_name:literal, $takes:literal, $doc:literal, $parse:expr, $show:expr) => {
        Row {
            name: $name,
            value_name: $value_name,
            takes: $takes,
            doc: $doc,
            parse: |settings, text| {
                settings.$field = $parse(text.trim()).ok_or(None)?;
                Ok(())
            },
            show: |settings| $show(&settings.$field),
        }
    };
}

/// Every setting, in the order of help and of `--print-config`.
pub(super) static ROWS: [Row; 16] = [
    row!(
        "data-dir",
        data_dir,
        "DIR",
        "a path",
        "Directory that holds everything; made if it is missing",
        |text: &str| (!text.is_empty()).then(|| text.into()),
        |value: &std::path::PathBuf| value.display().to_string()
    ),
    row!(
        "listen",
        listen,
        "IP:PORT",
        "IP:PORT, such as 127.0.0.1:7400 or 0.0.0.0:7400",
        "Address that clients connect to",
        socket_address,
        ToString::to_string
    ),
    row!(
        "advertise",
        advertise,
        "HOST:PORT",
        "HOST:PORT, or none",
        "Address that clients are told to use, if it is not the one they connected to",
        |text| optional(text, "none", host_port),
        |value: &_| show_optional(value, "none")
    ),
    row!(
        "admin-listen",
        admin_listen,
        "IP:PORT",
        "IP:PORT, or off",
        "Address of /metrics, /healthz and /readyz over HTTP",
        |text| optional(text, "off", socket_address),
        |value: &_| show_optional(value, "off")
    ),
    row!(
        "shards",
        shards,
        "N",
        "1 to 1024, or auto",
        "Number of shards; auto is one for each core that the affinity mask and the cgroup allow",
        |text| optional(text, "auto", |text| number(text, 1, 1024)),
        |value: &_| show_optional(value, "auto")
    ),
    row!(
        "cores",
        cores,
        "LIST",
        "a list such as 0,2-5, or auto",
        "Cores that shards may use",
        |text| optional(text, "auto", core_list),
        |value: &Option<Vec<usize>>| value.as_deref().map_or("auto".to_owned(), show_core_list)
    ),
    row!(
        "pin",
        pin,
        "BOOL",
        "true or false",
        "Keep each shard on its core",
        boolean,
        ToString::to_string
    ),
    row!(
        "dedicated",
        dedicated,
        "BOOL",
        "true or false",
        "Let shards spin before they sleep: less latency on a host that has nothing else to do",
        boolean,
        ToString::to_string
    ),
    row!(
        "memory",
        memory_bytes,
        "SIZE",
        "64MiB to 16TiB, or auto",
        "Memory budget; auto is a quarter of the cgroup's limit or of the host",
        |text| optional(text, "auto", memory),
        |value: &_| show_optional(value, "auto")
    ),
    row!(
        "prepared-space",
        prepared_space_bytes,
        "SIZE",
        "0 to 16TiB",
        "Disk space filled with zeros in quiet moments, 256 MiB at a time for each shard, for partitions that are written fast",
        |text| parse_size(text).filter(|bytes| *bytes <= 16 << 40),
        ToString::to_string
    ),
    row!(
        "direct-io",
        direct_io,
        "auto|off",
        "auto or off",
        "Go around the page cache where the file system can",
        |text| choice(text, &[("auto", true), ("off", false)]),
        |value: &bool| if *value { "auto" } else { "off" }.to_owned()
    ),
    row!(
        "log-format",
        log_format,
        "text|json",
        "text or json",
        "How log lines on stderr look",
        |text| choice(
            text,
            &[("text", LogFormat::Text), ("json", LogFormat::Json)]
        ),
        |value: &LogFormat| match value {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
        .to_owned()
    ),
    row!(
        "log-level",
        log_level,
        "LEVEL",
        "error, warn, info, debug, trace, or directives such as info,millstream::storage=debug",
        "Which log lines there are",
        log_level,
        ToString::to_string
    ),
    Row {
        name: "shutdown-timeout",
        value_name: "DURATION",
        takes: "a duration up to 1h, such as 30s",
        doc: "How long a clean shutdown may take before it is given up",
        parse: |settings, text| {
            settings.shutdown_timeout_ms = shutdown_timeout_ms(text.trim())?;
            Ok(())
        },
        show: |settings| match settings.shutdown_timeout_ms {
            ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
            ms => format!("{ms}ms"),
        },
    },
    Row {
        name: "group-offsets-retention",
        value_name: "DURATION",
        takes: "a duration from 1s, such as 30d",
        doc: "How long the offsets of a consumer group are kept that has no members and commits nothing",
        parse: |settings, text| {
            let parsed = parse_duration_ms(text.trim()).filter(|ms| *ms >= 1000);
            settings.group_offsets_retention_ms = parsed.ok_or(None)?;
            Ok(())
        },
        show: |settings| match settings.group_offsets_retention_ms {
            ms if ms % DAY_MS == 0 => format!("{}d", ms / DAY_MS),
            ms => format!("{ms}ms"),
        },
    },
    Row {
        name: "topic-defaults",
        value_name: "NAME=VALUE,…",
        takes: "a list such as retention.ms=1d,durability=buffered",
        doc: "What a topic's settings are while it sets none; in the file, a table",
        parse: |settings, text| {
            settings.topic_defaults = topic_defaults(text).map_err(Some)?;
            Ok(())
        },
        show: |settings| show_topic_defaults(&settings.topic_defaults),
    },
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: "./data".into(),
            listen: ([127, 0, 0, 1], 7400).into(),
            advertise: None,
            admin_listen: Some(([127, 0, 0, 1], 7401).into()),
            shards: None,
            cores: None,
            pin: true,
            dedicated: false,
            memory_bytes: None,
            prepared_space_bytes: 0,
            direct_io: true,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            shutdown_timeout_ms: 30_000,
            group_offsets_retention_ms: 30 * DAY_MS,
            topic_defaults: TopicConfig::default(),
        }
    }
}

fn optional<T>(text: &str, none: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text.eq_ignore_ascii_case(none) {
        true => Some(None),
        false => parse(text).map(Some),
    }
}

fn show_optional<T: ToString>(value: &Option<T>, none: &str) -> String {
    value
        .as_ref()
        .map_or_else(|| none.to_owned(), ToString::to_string)
}

fn number(text: &str, low: u32, high: u32) -> Option<u32> {
    text.parse()
        .ok()
        .filter(|number| (low..=high).contains(number))
}

fn memory(text: &str) -> Option<u64> {
    parse_size(text).filter(|bytes| (64 << 20..=16 << 40).contains(bytes))
}

fn shutdown_timeout_ms(text: &str) -> Result<u64, Refused> {
    // Whoever writes 5 means seconds; the settings of topics, which are milliseconds by Kafka's custom, say so in
    // their names.
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let reason = format!("{text} has no unit: write {text}s or {text}ms");
        return Err(Some(reason));
    }
    let in_range = parse_duration_ms(text).filter(|ms| (1..=3_600_000).contains(ms));
    in_range.ok_or(None)
}

fn boolean(text: &str) -> Option<bool> {
    choice(text, &[("true", true), ("false", false)])
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Option<T> {
    let found = choices
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value)
}

fn log_level(text: &str) -> Option<String> {
    use tracing_subscriber::EnvFilter;
    // A directive that is only a misspelt level would silence everything: it reads as a target.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let plausible = |part: &str| part.contains('=') || levels.contains(&part.trim());
    let valid = text.split(',').all(plausible) && EnvFilter::builder().parse(text).is_ok();
    valid.then(|| text.to_owned())
}
