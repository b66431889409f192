//! Times and places in a partition, as people type them.
//!
//! A time is RFC 3339 (`2026-11-22T18:00:00Z`), milliseconds since 1970 behind an `@`
//! (`@1795370400000`), or relative to now (`-1h`, `-90s`, `-2d`). A plain number is an offset.

use std::str::FromStr;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use millstream_client::{Offset, OffsetSpec, StartAt};

/// A point in time, perhaps relative to the start of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Milliseconds since 1970.
    At(i64),
    /// This many milliseconds ago.
    Ago(i64),
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first record there is.
    Beginning,
    /// Behind the last record.
    End,
    /// An offset.
    Offset(i64),
    /// The first record at or after a time.
    Time(Moment),
}

impl Moment {
    /// Milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(self) -> i64 {
        match self {
            Self::At(timestamp_ms) => timestamp_ms,
            Self::Ago(ms) => now_ms().saturating_sub(ms),
        }
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A time for people, RFC 3339 in UTC to the millisecond; the bare number where that can't say it.
#[must_use]
pub fn show_time(timestamp_ms: i64) -> String {
    match Timestamp::from_millisecond(timestamp_ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("@{timestamp_ms}"),
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(ms) = text.strip_prefix('@') {
            return ms
                .parse()
                .map(Self::At)
                .map_err(|_| format!("{ms:?} is no number of milliseconds since 1970"));
        }
        if let Some(ago) = text.strip_prefix('-') {
            return ago_ms(ago)
                .map(Self::Ago)
                .ok_or_else(|| format!("{text:?} is no time ago: write -90s, -1h30m or -2d"));
        }
        let time: Timestamp = text.parse().map_err(|_| {
            format!(
                "{text:?} is no time: write 2026-11-22T18:00:00Z, @1795370400000 (milliseconds) \
                 or -1h"
            )
        })?;
        Ok(Self::At(time.as_millisecond()))
    }
}

fn ago_ms(text: &str) -> Option<i64> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let span: Span = text.parse().ok()?;
    let duration: SignedDuration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    i64::try_from(duration.as_millis()).ok()
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "end" => Ok(Self::End),
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => text
                .parse()
                .map(Self::Offset)
                .map_err(|_| format!("{text} is larger than any offset")),
            _ => text
                .parse()
                .map(Self::Time)
                .map_err(|error| format!("{error}; or write beginning, end or an offset")),
        }
    }
}

impl From<Place> for StartAt {
    fn from(place: Place) -> Self {
        match place {
            Place::Beginning => Self::Beginning,
            Place::End => Self::End,
            Place::Offset(offset) => Self::Offset(Offset(offset)),
            Place::Time(moment) => Self::Timestamp(moment.timestamp_ms()),
        }
    }
}

impl Place {
    /// What to ask the broker to find the place in each partition.
    ///
    /// # Errors
    /// The offset, if it is one: there is nothing to ask.
    pub fn spec(self) -> Result<OffsetSpec, Offset> {
        match self {
            Self::Beginning => Ok(OffsetSpec::Earliest),
            Self::End => Ok(OffsetSpec::Latest),
            Self::Offset(offset) => Err(Offset(offset)),
            Self::Time(moment) => Ok(OffsetSpec::Timestamp(moment.timestamp_ms())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let cases = [
            ("beginning", Place::Beginning),
            ("end", Place::End),
            ("0", Place::Offset(0)),
            ("9223372036854775807", Place::Offset(i64::MAX)),
            ("@5", Place::Time(Moment::At(5))),
            ("@-5", Place::Time(Moment::At(-5))),
            ("-1h", Place::Time(Moment::Ago(3_600_000))),
            ("-1h30m", Place::Time(Moment::Ago(5_400_000))),
            ("-2d", Place::Time(Moment::Ago(172_800_000))),
            ("-250ms", Place::Time(Moment::Ago(250))),
            ("1970-01-01T00:00:01.5Z", Place::Time(Moment::At(1_500))),
            ("1970-01-01T01:00:00+01:00", Place::Time(Moment::At(0))),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        for bad in [
            "",
            "-",
            "-5",
            "--1h",
            "-1mo",
            "@",
            "@x",
            "9223372036854775808",
            "yesterday",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn times_are_shown_as_they_are_read() {
        assert_eq!(show_time(1_500), "1970-01-01T00:00:01.500Z");
        for ms in [0, 1_795_370_400_123, i64::MAX, i64::MIN] {
            assert_eq!(show_time(ms).parse(), Ok(Moment::At(ms)));
        }
    }
}
