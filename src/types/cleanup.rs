//! What happens to a topic's old records, and the quantities that only its compaction needs.

/// What happens to old records. Kafka's names; both may be given, in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// Whole segments are deleted once retention has passed.
    #[default]
    Delete,
    /// A record goes once a later one has its key.
    Compact,
    /// Both.
    CompactDelete,
}

impl CleanupPolicy {
    /// Records with keys that came again go, so every record needs a key.
    #[must_use]
    pub fn compacts(self) -> bool {
        matches!(self, Self::Compact | Self::CompactDelete)
    }

    /// Segments go once retention has passed.
    #[must_use]
    pub fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::CompactDelete)
    }

    /// From a list of `delete` and `compact`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (mut compacts, mut deletes) = (false, false);
        for word in text.split(',') {
            let known = match word.trim().to_ascii_lowercase().as_str() {
                "compact" => &mut compacts,
                "delete" => &mut deletes,
                _ => return None,
            };
            *known = true;
        }
        Some(match (compacts, deletes) {
            (true, true) => Self::CompactDelete,
            (true, false) => Self::Compact,
            (false, _) => Self::Delete,
        })
    }

    /// As [`CleanupPolicy::parse`] reads it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactDelete => "compact,delete",
        }
    }
}

const MILLION: u32 = 1_000_000;

/// A part of a whole, from 0 to 1, exact to the millionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Ratio {
    /// One half.
    pub const HALF: Self = Self(MILLION / 2);

    /// `part` of `whole`; of nothing it is 0.
    #[must_use]
    pub fn of(part: u64, whole: u64) -> Self {
        let millionths = u128::from(part) * u128::from(MILLION);
        let millionths = millionths.checked_div(u128::from(whole)).unwrap_or(0);
        Self(u32::try_from(millionths).map_or(MILLION, |it| it.min(MILLION)))
    }

    /// From `0`, `1`, `0.5` and the like, up to six digits behind the point.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 6 {
            return None;
        }
        let whole: u32 = whole.parse().ok()?;
        let part: u32 = format!("{part:0<6}").parse().ok()?;
        let millionths = whole.checked_mul(MILLION)?.checked_add(part)?;
        (millionths <= MILLION).then_some(Self(millionths))
    }

    /// As [`Ratio::parse`] reads it, without needless digits.
    #[must_use]
    pub fn show(self) -> String {
        let text = format!("{}.{:06}", self.0 / MILLION, self.0 % MILLION);
        let short = text.trim_end_matches('0').trim_end_matches('.');
        short.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_read_back_in_any_order() {
        for policy in [
            CleanupPolicy::Delete,
            CleanupPolicy::Compact,
            CleanupPolicy::CompactDelete,
        ] {
            assert_eq!(CleanupPolicy::parse(policy.name()), Some(policy));
        }
        let both = Some(CleanupPolicy::CompactDelete);
        assert_eq!(CleanupPolicy::parse("Delete, compact"), both);
        for wrong in ["", "compact,", "compactdelete", "keep"] {
            assert_eq!(CleanupPolicy::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ratios_read_back() {
        for text in ["0", "1", "0.5", "0.01", "0.000001"] {
            assert_eq!(Ratio::parse(text).unwrap().show(), text);
        }
        assert_eq!(Ratio::parse("0.50"), Some(Ratio::HALF));
        for wrong in ["", ".5", "1.1", "-1", "0.1234567", "5000", "0.5x", "1e-1"] {
            assert_eq!(Ratio::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Ratio::of(1, 2), Ratio::HALF);
        assert_eq!(Ratio::of(3, 0).show(), "0");
        assert_eq!(Ratio::of(u64::MAX, 1).show(), "1");
    }
}
