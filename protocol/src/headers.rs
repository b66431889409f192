//! The record headers that mean something to broker or client. Numbers are written in decimal digits.

use crate::limits::MAX_DELAY_ID_SIZE;

/// When to deliver a delayed record, in milliseconds since 1970.
pub const DELIVER_AT: &str = "millstream.deliver-at";
/// How long after its acceptance to deliver a delayed record, in milliseconds.
pub const DELIVER_AFTER: &str = "millstream.deliver-after";
/// What its producer calls a delayed record.
pub const DELAY_ID: &str = "millstream.delay-id";
/// On a delayed record that was delivered: its timestamp as its producer had it.
pub const ORIGINAL_TIMESTAMP: &str = "millstream.original-timestamp";
/// On a delayed record that was delivered: what the broker called it.
pub const DELAY_OFFSET: &str = "millstream.delay-offset";
/// How long a record may be read after its timestamp, in milliseconds: clients leave it out after that.
pub const TTL: &str = "millstream.ttl";

/// What a delayed record says about when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Milliseconds since 1970.
    At(i64),
    /// Milliseconds from acceptance.
    After(i64),
}

/// Why a record cannot be delayed as it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelayError {
    /// It does not say when.
    #[error("it has neither header {DELIVER_AT} nor {DELIVER_AFTER}")]
    Missing,
    /// It says so twice.
    #[error("it has more than one of the headers {DELIVER_AT} and {DELIVER_AFTER}")]
    Twice,
    /// What it says is no number of milliseconds.
    #[error("its header {0} is no number of milliseconds from 0 on, in decimal digits")]
    Malformed(&'static str),
    /// Its id cannot be one.
    #[error("its header {DELAY_ID} is not 1 to {MAX_DELAY_ID_SIZE} bytes of UTF-8, given once")]
    Id,
}

/// What the headers of a delayed record say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay<'a> {
    /// When it is due.
    pub due: Due,
    /// What its producer calls it.
    pub id: Option<&'a str>,
}

impl<'a> Delay<'a> {
    /// Reads what a record's headers say of its delay.
    ///
    /// # Errors
    /// [`DelayError`].
    pub fn of(
        headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<Self, DelayError> {
        let (mut due, mut id) = (None, None);
        for (name, value) in headers {
            let found = if name == DELIVER_AT.as_bytes() {
                Due::At(number(value).ok_or(DelayError::Malformed(DELIVER_AT))?)
            } else if name == DELIVER_AFTER.as_bytes() {
                Due::After(number(value).ok_or(DelayError::Malformed(DELIVER_AFTER))?)
            } else if name == DELAY_ID.as_bytes() {
                let text = value.and_then(|value| std::str::from_utf8(value).ok());
                let fits = |text: &&str| (1..=MAX_DELAY_ID_SIZE).contains(&text.len());
                let text = text.filter(fits).ok_or(DelayError::Id)?;
                if id.replace(text).is_some() {
                    return Err(DelayError::Id);
                }
                continue;
            } else {
                continue;
            };
            if due.replace(found).is_some() {
                return Err(DelayError::Twice);
            }
        }
        let due = due.ok_or(DelayError::Missing)?;
        Ok(Self { due, id })
    }
}

/// Reads a header's number.
#[must_use]
pub fn number(value: Option<&[u8]>) -> Option<i64> {
    let text = value.filter(|text| !text.is_empty() && text.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(headers: &[(&'a str, &'a str)]) -> Result<Delay<'a>, DelayError> {
        let headers = headers.iter();
        Delay::of(headers.map(|(name, value)| (name.as_bytes(), Some(value.as_bytes()))))
    }

    #[test]
    fn a_record_says_once_when_it_is_due() {
        let at = of(&[("x", "1"), (DELIVER_AT, "17"), (DELAY_ID, "a")]);
        let due = Due::At(17);
        assert_eq!(at, Ok(Delay { due, id: Some("a") }));
        let due = Due::After(0);
        assert_eq!(of(&[(DELIVER_AFTER, "0")]), Ok(Delay { due, id: None }));
        assert_eq!(of(&[("x", "1")]), Err(DelayError::Missing));
        let twice = of(&[(DELIVER_AFTER, "0"), (DELIVER_AT, "0")]);
        assert_eq!(twice, Err(DelayError::Twice));
        for bad in ["", "-1", "+1", " 1", "1s", "99999999999999999999"] {
            let refused = of(&[(DELIVER_AT, bad)]);
            assert_eq!(refused, Err(DelayError::Malformed(DELIVER_AT)), "{bad}");
        }
        let long = "i".repeat(MAX_DELAY_ID_SIZE + 1);
        for bad in ["", long.as_str()] {
            assert_eq!(
                of(&[(DELIVER_AT, "1"), (DELAY_ID, bad)]),
                Err(DelayError::Id)
            );
        }
    }
}
