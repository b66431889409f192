//! Topic names: `[A-Za-z0-9._-]{1,249}`, and neither `.` nor `..`, since names reach file paths.

use crate::limits::MAX_TOPIC_NAME;

/// Why a name is no topic name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// No characters.
    #[error("a topic name is empty")]
    Empty,
    /// More than 249 characters.
    #[error("a topic name of {0} characters is longer than {MAX_TOPIC_NAME}")]
    TooLong(usize),
    /// A character outside the set.
    #[error(
        "character {0:?} is not allowed in a topic name: use letters, digits, '.', '_' and '-'"
    )]
    Character(char),
    /// `.` or `..`.
    #[error("'.' and '..' are not topic names")]
    Dots,
}

/// Checks a name for a topic.
///
/// # Errors
/// [`TopicNameError`] says which rule it breaks.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameError> {
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name.len() > MAX_TOPIC_NAME {
        return Err(TopicNameError::TooLong(name.chars().count()));
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(odd) = name.chars().find(|c| !allowed(c)) {
        return Err(TopicNameError::Character(odd));
    }
    if name == "." || name == ".." {
        return Err(TopicNameError::Dots);
    }
    Ok(())
}

/// The internal topic that keeps groups and their offsets. The partition of a group is that of its name
/// as a key ([`partition_for_key`](crate::partitioner::partition_for_key)); who leads it coordinates the group.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Whether the topic belongs to the broker: users may read it, not create or delete it.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    name.starts_with("__")
}
