//! A topic's settings: one table from which parsing, printing, ranges and errors derive.
//!
//! Only what a topic sets itself is kept in the metadata log; the rest follows the broker's
//! defaults, so a changed default reaches every topic that did not choose.

use std::fmt::Write as _;

use millstream_protocol::{
    limits::{DEFAULT_MAX_BATCH_SIZE, MAX_BATCH_SIZE},
    messages::ConfigEntry,
};

use super::{
    cleanup::{CleanupPolicy, Ratio},
    quantity::{parse_duration_ms, parse_size},
};

const DAY_MS: u64 = 86_400_000;
/// The longest period a setting takes: about a hundred years.
const MAX_PERIOD_MS: u64 = 36_500 * DAY_MS;
/// The longest delay there may be: ten years.
const MAX_DELAY_HORIZON_MS: u64 = 3_660 * DAY_MS;
const MIN_SEGMENT_SIZE: u64 = 64 << 10;
const MAX_SEGMENT_SIZE: u64 = 16 << 30;
const MAX_RETENTION_SIZE: u64 = 1 << 60;

/// When a produce is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once its bytes are on stable storage.
    #[default]
    Flushed,
    /// Once its bytes are in memory; they are flushed every 100 ms.
    Buffered,
}

/// Which time of a record its age is counted from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetentionClock {
    /// When the broker appended it.
    #[default]
    Append,
    /// The record's own timestamp.
    Record,
}

/// Whose time a record carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's, when it appends.
    LogAppendTime,
}

/// A topic's settings, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// A segment is closed at this size, in bytes; see also [`TopicConfig::roll_size`].
    pub segment_bytes: u64,
    /// A segment is closed at this age, in milliseconds; see also [`TopicConfig::roll_ms`].
    pub segment_ms: u64,
    /// When a produce is acknowledged.
    pub durability: Durability,
    /// Records older than this may go, in milliseconds; `None` keeps them for ever.
    pub retention_ms: Option<u64>,
    /// The oldest segments beyond this many bytes a partition may go; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// Which time `retention_ms` counts from.
    pub retention_clock: RetentionClock,
    /// Largest record batch, in bytes.
    pub max_batch_bytes: u32,
    /// Whose time a record carries.
    pub timestamp_type: TimestampType,
    /// What happens to old records.
    pub cleanup_policy: CleanupPolicy,
    /// A tombstone stays this long after compaction first met it, in milliseconds.
    pub delete_retention_ms: u64,
    /// Compaction leaves alone what was appended less than so many milliseconds ago.
    pub min_compaction_lag_ms: u64,
    /// Compaction does not wait longer than so many milliseconds; `None` is no limit.
    pub max_compaction_lag_ms: Option<u64>,
    /// The part of a log that compaction has not seen yet, from which on it sets to work.
    pub min_cleanable_dirty_ratio: Ratio,
    /// A delayed record may be due so long after its acceptance, in milliseconds.
    pub delay_horizon_ms: u64,
    /// A record is not given to readers any more when its timestamp is older than this, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Bit `i`: row `i` of the table was set on the topic.
    set: u32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            segment_ms: DAY_MS,
            durability: Durability::default(),
            retention_ms: Some(7 * DAY_MS),
            retention_bytes: None,
            retention_clock: RetentionClock::default(),
            max_batch_bytes: DEFAULT_MAX_BATCH_SIZE,
            timestamp_type: TimestampType::default(),
            cleanup_policy: CleanupPolicy::default(),
            delete_retention_ms: DAY_MS,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: None,
            min_cleanable_dirty_ratio: Ratio::HALF,
            delay_horizon_ms: 366 * DAY_MS,
            ttl_ms: None,
            set: 0,
        }
    }
}

/// Why a setting was refused. The message names the setting and what it takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such setting.
    #[error("there is no topic setting {name:?}{}", hint(.nearest))]
    UnknownName {
        /// What was asked for, shortened if it is absurdly long.
        name: String,
        /// The nearest name there is.
        nearest: Option<&'static str>,
    },
    /// The value is no value of the setting.
    #[error("{name}={value:?} is not allowed: {name} takes {takes}")]
    BadValue {
        /// The setting.
        name: &'static str,
        /// What was asked for, shortened if it is absurdly long.
        value: String,
        /// What it takes.
        takes: &'static str,
    },
    /// A compacted topic keeps the last record of each key, however old.
    #[error("ttl.ms is not for compacted topics: they keep the last record of every key")]
    TtlOfCompacted,
    /// One request sets the same name twice.
    #[error("{name} is given twice")]
    Twice {
        /// The setting.
        name: &'static str,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(
        || {
            format!(
                "; the settings are {}",
                TopicConfig::names().collect::<Vec<_>>().join(", ")
            )
        },
        |name| format!("; did you mean {name}?"),
    )
}

/// One row of the table.
struct Row {
    name: &'static str,
    takes: &'static str,
    doc: &'static str,
    parse: fn(&mut TopicConfig, &str) -> Option<()>,
    show: fn(&TopicConfig) -> String,
    copy: fn(&mut TopicConfig, &TopicConfig),
}

macro_rules! row {
    ($name:literal, $field:ident, $takes:literal, $doc:literal, $parse:expr, $show:expr) => {
        Row {
            name: $name,
            takes: $takes,
            doc: $doc,
            parse: |config, text| {
                config.$field = $parse(text)?;
                Some(())
            },
            show: |config| $show(config.$field),
            copy: |to, from| to.$field = from.$field,
        }
    };
}

/// Every setting, by name. Rows are never reordered while a process runs; nothing stored counts them.
static ROWS: [Row; 15] = [
    row!(
        "cleanup.policy",
        cleanup_policy,
        "delete, compact, or both with a comma",
        "What happens to old records: `delete` lets whole segments go once retention has passed, `compact` a record once a later one has its key",
        CleanupPolicy::parse,
        |v: CleanupPolicy| v.name().to_owned()
    ),
    row!(
        "delay.horizon.ms",
        delay_horizon_ms,
        "1s to 3660d",
        "How long after its acceptance a delayed record may be due",
        |t| between(parse_duration_ms(t)?, 1_000, MAX_DELAY_HORIZON_MS),
        |v: u64| v.to_string()
    ),
    row!(
        "delete.retention.ms",
        delete_retention_ms,
        "0 to 36500d",
        "How long a tombstone stays after compaction first met it",
        period,
        |v: u64| v.to_string()
    ),
    row!(
        "durability",
        durability,
        "flushed or buffered",
        "`flushed`: acknowledged once on stable storage; `buffered`: once in memory, flushed every 100 ms",
        |t| named(t, &DURABILITIES),
        |v| name_of(v, &DURABILITIES)
    ),
    row!(
        "max.batch.bytes",
        max_batch_bytes,
        "1KiB to 64MiB",
        "Largest record batch",
        batch_size,
        |v: u32| v.to_string()
    ),
    row!(
        "max.compaction.lag.ms",
        max_compaction_lag_ms,
        "1s to 36500d, or -1 for no limit",
        "Compaction does not wait longer than this, whatever the dirty ratio; segments are closed at this age",
        |t| unlimited(t, parse_duration_ms, MAX_PERIOD_MS)
            .filter(|lag| lag.is_none_or(|lag| lag >= 1_000)),
        show_unlimited
    ),
    row!(
        "message.timestamp.type",
        timestamp_type,
        "CreateTime or LogAppendTime",
        "Whose time a record carries: the producer's or the broker's",
        |t| named(t, &TIMESTAMPS),
        |v| name_of(v, &TIMESTAMPS)
    ),
    row!(
        "min.cleanable.dirty.ratio",
        min_cleanable_dirty_ratio,
        "0 to 1, such as 0.5",
        "Part of a log's closed segments that compaction has not seen yet, from which on it sets to work",
        Ratio::parse,
        Ratio::show
    ),
    row!(
        "min.compaction.lag.ms",
        min_compaction_lag_ms,
        "0 to 36500d",
        "Compaction leaves alone what was appended less than this ago",
        period,
        |v: u64| v.to_string()
    ),
    row!(
        "retention.bytes",
        retention_bytes,
        "1 byte to 1EiB, or -1 for no limit",
        "Oldest segments of a partition beyond this size may go",
        |t| unlimited(t, parse_size, MAX_RETENTION_SIZE),
        show_unlimited
    ),
    row!(
        "retention.clock",
        retention_clock,
        "append or record",
        "What `retention.ms` counts from: the append or the record's own timestamp",
        |t| named(t, &CLOCKS),
        |v| name_of(v, &CLOCKS)
    ),
    row!(
        "retention.ms",
        retention_ms,
        "1 ms to 36500d, or -1 for ever",
        "Records older than this may go",
        |t| unlimited(t, parse_duration_ms, MAX_PERIOD_MS),
        show_unlimited
    ),
    row!(
        "segment.bytes",
        segment_bytes,
        "64KiB to 16GiB",
        "Size at which a segment is closed",
        |t| between(parse_size(t)?, MIN_SEGMENT_SIZE, MAX_SEGMENT_SIZE),
        |v: u64| v.to_string()
    ),
    row!(
        "segment.ms",
        segment_ms,
        "1s to 36500d",
        "Age at which a segment is closed",
        |t| between(parse_duration_ms(t)?, 1_000, MAX_PERIOD_MS),
        |v: u64| v.to_string()
    ),
    row!(
        "ttl.ms",
        ttl_ms,
        "1 ms to 36500d, or -1 for ever; not with cleanup.policy=compact",
        "Readers get no record whose timestamp is older than this, still there or not",
        |t| unlimited(t, parse_duration_ms, MAX_PERIOD_MS),
        show_unlimited
    ),
];

const DURABILITIES: [(Durability, &str); 2] = [
    (Durability::Flushed, "flushed"),
    (Durability::Buffered, "buffered"),
];
const CLOCKS: [(RetentionClock, &str); 2] = [
    (RetentionClock::Append, "append"),
    (RetentionClock::Record, "record"),
];
const TIMESTAMPS: [(TimestampType, &str); 2] = [
    (TimestampType::CreateTime, "CreateTime"),
    (TimestampType::LogAppendTime, "LogAppendTime"),
];

fn named<T: Copy>(text: &str, names: &[(T, &str)]) -> Option<T> {
    let found = names
        .iter()
        .find(|(_, name)| name.eq_ignore_ascii_case(text.trim()));
    found.map(|(value, _)| *value)
}

fn name_of<T: PartialEq>(value: T, names: &[(T, &str)]) -> String {
    let found = names.iter().find(|(named, _)| *named == value);
    found.expect("every value is in its table").1.to_owned()
}

fn between(value: u64, low: u64, high: u64) -> Option<u64> {
    (low..=high).contains(&value).then_some(value)
}

fn period(text: &str) -> Option<u64> {
    between(parse_duration_ms(text)?, 0, MAX_PERIOD_MS)
}

fn batch_size(text: &str) -> Option<u32> {
    let size = between(parse_size(text)?, 1 << 10, u64::from(MAX_BATCH_SIZE))?;
    u32::try_from(size).ok()
}

fn unlimited(text: &str, parse: fn(&str) -> Option<u64>, high: u64) -> Option<Option<u64>> {
    if text.trim() == "-1" {
        return Some(None);
    }
    between(parse(text)?, 1, high).map(Some)
}

fn show_unlimited(value: Option<u64>) -> String {
    value.map_or_else(|| "-1".to_owned(), |value| value.to_string())
}

fn row(name: &str) -> Result<(usize, &'static Row), ConfigError> {
    let found = ROWS.iter().enumerate().find(|(_, row)| row.name == name);
    found.ok_or_else(|| ConfigError::UnknownName {
        name: shortened(name),
        nearest: nearest(name, TopicConfig::names()),
    })
}

/// The candidate most like `name`, if any is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A name as long as this is no slip of the fingers, and the distance costs its square.
    if name.len() > 128 {
        return None;
    }
    let folded = name.to_ascii_lowercase().replace(['_', '-'], ".");
    candidates
        .map(|known| {
            (
                strsim::jaro_winkler(&folded, &known.replace(['_', '-'], ".")),
                known,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        let _ = write!(short, "… ({} bytes)", text.len());
    }
    short
}

impl TopicConfig {
    /// The name of every setting, sorted.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ROWS.iter().map(|row| row.name)
    }

    /// What the setting takes and what it does, in words, for help texts.
    #[must_use]
    pub fn describe(name: &str) -> Option<(&'static str, &'static str)> {
        row(name).ok().map(|(_, row)| (row.takes, row.doc))
    }

    /// Sets `name` from text, as a topic's own choice.
    ///
    /// # Errors
    /// The name is unknown or the value out of range; nothing has changed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let (index, row) = row(name)?;
        (row.parse)(self, value).ok_or_else(|| ConfigError::BadValue {
            name: row.name,
            value: shortened(value),
            takes: row.takes,
        })?;
        self.set |= 1 << index;
        Ok(())
    }

    /// Gives `name` its default again.
    ///
    /// # Errors
    /// The name is unknown.
    pub fn unset(&mut self, name: &str, defaults: &Self) -> Result<(), ConfigError> {
        let (index, row) = row(name)?;
        (row.copy)(self, defaults);
        self.set &= !(1 << index);
        Ok(())
    }

    /// These settings with changes made, all or none: a value sets, `None` restores the default.
    ///
    /// # Errors
    /// The first change that cannot be made, or a name that is given twice.
    pub fn altered<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
        defaults: &Self,
    ) -> Result<Self, ConfigError> {
        let mut altered = self.clone();
        let mut seen = 0_u32;
        for (name, value) in changes {
            let (index, row) = row(name)?;
            if seen & (1 << index) != 0 {
                return Err(ConfigError::Twice { name: row.name });
            }
            seen |= 1 << index;
            match value {
                Some(value) => altered.set(name, value)?,
                None => altered.unset(name, defaults)?,
            }
        }
        if altered.ttl_ms.is_some() && altered.cleanup_policy.compacts() {
            return Err(ConfigError::TtlOfCompacted);
        }
        Ok(altered)
    }

    /// The same values as defaults for topics: nothing counts as set.
    #[must_use]
    pub fn as_defaults(mut self) -> Self {
        self.set = 0;
        self
    }

    /// What the topic itself sets, as text that [`TopicConfig::set`] reads back.
    pub fn overrides(&self) -> impl Iterator<Item = (&'static str, String)> {
        let rows = ROWS.iter().enumerate();
        rows.filter(|(index, _)| self.set & (1 << index) != 0)
            .map(|(_, row)| (row.name, (row.show)(self)))
    }

    /// Every setting with its value, for replies.
    #[must_use]
    pub fn entries(&self) -> Vec<ConfigEntry> {
        let rows = ROWS.iter().enumerate();
        rows.map(|(index, row)| ConfigEntry {
            name: row.name.to_owned(),
            value: (row.show)(self),
            is_set: self.set & (1 << index) != 0,
        })
        .collect()
    }

    /// Size at which a segment is closed: small enough that retention can let go in eighths.
    #[must_use]
    pub fn roll_size(&self) -> u64 {
        let limit = self.retention_bytes;
        let limit = limit.filter(|_| self.cleanup_policy.deletes());
        let eighth = limit.map_or(u64::MAX, |limit| limit / 8);
        self.segment_bytes.min(eighth.max(MIN_SEGMENT_SIZE))
    }

    /// Age at which a segment is closed, in milliseconds: for the same reason, and because compaction
    /// never touches the segment that is appended to.
    #[must_use]
    pub fn roll_ms(&self) -> u64 {
        let policy = self.cleanup_policy;
        let period = self.retention_ms.filter(|_| policy.deletes());
        let eighth = period.map_or(u64::MAX, |period| (period / 8).max(1_000));
        let lag = self.max_compaction_lag_ms.filter(|_| policy.compacts());
        self.segment_ms.min(eighth).min(lag.unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
