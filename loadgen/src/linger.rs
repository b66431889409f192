//! How long batches wait, on the command line and in results: a time, or `auto`.

use std::{fmt, str::FromStr, time::Duration};

use millstream_client::Linger;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::units::parse_duration;

const AUTO: &str = "auto";

/// A linger: in JSON, milliseconds or "auto".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LingerTime(pub Linger);

impl From<Duration> for LingerTime {
    fn from(linger: Duration) -> Self {
        Self(Linger::Fixed(linger))
    }
}

impl FromStr for LingerTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            AUTO => Ok(Self(Linger::Auto)),
            time => parse_duration(time).map(Self::from),
        }
    }
}

/// `0`, `500 us`, `2 ms`, `auto`.
impl fmt::Display for LingerTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Linger::Fixed(linger) = self.0 else {
            return formatter.pad(AUTO);
        };
        let text = match linger.as_micros() {
            0 => "0".to_owned(),
            us if us.is_multiple_of(1000) => format!("{} ms", us / 1000),
            us => format!("{us} us"),
        };
        formatter.pad(&text)
    }
}

impl Serialize for LingerTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Linger::Fixed(linger) => serializer.serialize_f64(linger.as_secs_f64() * 1e3),
            Linger::Auto => serializer.serialize_str(AUTO),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Ms(f64),
    Word(String),
}

impl<'de> Deserialize<'de> for LingerTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Ms(ms) => Duration::try_from_secs_f64(ms / 1e3)
                .map(Self::from)
                .map_err(D::Error::custom),
            Written::Word(word) => word.parse().map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_auto_are_read_written_and_shown() {
        for (text, json, shown) in [
            ("0", "0.0", "0"),
            ("500us", "0.5", "500 us"),
            ("5ms", "5.0", "5 ms"),
            ("auto", "\"auto\"", "auto"),
        ] {
            let linger: LingerTime = text.parse().expect(text);
            assert_eq!(serde_json::to_string(&linger).expect(text), json);
            let read: LingerTime = serde_json::from_str(json).expect(json);
            assert_eq!((read, read.to_string().as_str()), (linger, shown));
        }
        assert!("soon".parse::<LingerTime>().is_err());
        assert!(serde_json::from_str::<LingerTime>("-1.0").is_err());
    }
}
