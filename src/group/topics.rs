//! The topics that groups may subscribe to, as one table for all groups of a shard, and what changed
//! between two tables.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{PartitionIndex, TopicId, TopicPartition};
use regex_automata::{
    meta::{BuildError, Config, Regex},
    util::syntax,
};

/// Every topic of users: name, identity, number of partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    by_name: BTreeMap<String, TopicId>,
    by_id: BTreeMap<TopicId, (String, u32)>,
}

impl Topics {
    /// The table of these topics.
    #[must_use]
    pub fn new(topics: impl IntoIterator<Item = (String, TopicId, u32)>) -> Self {
        let mut table = Self::default();
        for (name, id, partitions) in topics {
            table.by_name.insert(name.clone(), id);
            table.by_id.insert(id, (name, partitions));
        }
        table
    }

    /// The topic of a name.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<TopicId> {
        self.by_name.get(name).copied()
    }

    /// The name of a topic.
    #[must_use]
    pub fn name(&self, id: TopicId) -> Option<&str> {
        self.by_id.get(&id).map(|(name, _)| name.as_str())
    }

    /// How many partitions a topic has; none if it is gone.
    #[must_use]
    pub fn partition_count(&self, id: TopicId) -> u32 {
        self.by_id.get(&id).map_or(0, |(_, count)| *count)
    }

    /// Whether the partition is there.
    #[must_use]
    pub fn has(&self, partition: TopicPartition) -> bool {
        partition.partition.0 < self.partition_count(partition.topic)
    }

    /// Names and identities, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, TopicId)> {
        self.by_name.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// The partitions of a topic.
    pub fn partitions(&self, topic: TopicId) -> impl Iterator<Item = TopicPartition> + use<> {
        (0..self.partition_count(topic)).map(move |number| TopicPartition {
            topic,
            partition: PartitionIndex(number),
        })
    }

    /// What is different in `newer`.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> TopicsChange {
        let mut change = TopicsChange::default();
        for (id, (name, count)) in &newer.by_id {
            match self.by_id.get(id) {
                None => change.born.push((name.clone(), *id)),
                Some((_, before)) if before != count => {
                    change.touched.insert(*id);
                }
                Some(_) => {}
            }
        }
        let gone = self
            .by_id
            .keys()
            .filter(|id| !newer.by_id.contains_key(*id));
        change.touched.extend(gone);
        change
    }
}

/// The difference between two tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicsChange {
    /// New topics.
    pub born: Vec<(String, TopicId)>,
    /// Topics that are gone or have another number of partitions.
    pub touched: BTreeSet<TopicId>,
}

impl TopicsChange {
    /// Nothing that a group could mind.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.born.is_empty() && self.touched.is_empty()
    }
}

/// A pattern over topic names: a regular expression that must match the whole name.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    expression: Regex,
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern cannot be used: {0}")]
pub struct PatternError(String);

/// Memory that a compiled pattern may take, in bytes.
const PATTERN_MEMORY: usize = 256 << 10;

impl Pattern {
    /// Compiles a pattern. Topic names are ASCII, so classes such as `\d` are too.
    ///
    /// # Errors
    /// It is no regular expression, or takes too much memory.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        // The plainest engine: names are short, and the others hold more memory for each pattern.
        let plain = Config::new()
            .nfa_size_limit(Some(PATTERN_MEMORY))
            .auto_prefilter(false)
            .backtrack(false)
            .onepass(false)
            .hybrid(false)
            .dfa(false);
        let expression = Regex::builder()
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .configure(plain.utf8_empty(false))
            .build(&format!("^(?:{source})$"))
            .map_err(|error| PatternError(reason(&error)))?;
        Ok(Self {
            source: source.to_owned(),
            expression,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// About how much memory it takes besides its source, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        // What it is compiled to, and what matching needs besides.
        2 * self.expression.memory_usage()
    }

    /// Whether a topic is meant.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        self.expression.is_match(topic.as_bytes())
    }
}

fn reason(error: &BuildError) -> String {
    match error.syntax_error() {
        Some(syntax) => syntax.to_string(),
        None => error.to_string(),
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_whole_names() {
        let pattern = Pattern::new("orders|pay.*").expect("a pattern");
        assert!(pattern.matches("orders") && pattern.matches("payments"));
        assert!(!pattern.matches("orders-2") && !pattern.matches("my-orders"));
        assert!(Pattern::new("(").is_err());
        assert!(Pattern::new(&"(a{1000}){1000}".repeat(3)).is_err());
        let class = Pattern::new("t[0-9]+(-dlq)?").expect("a pattern");
        assert!(class.matches("t12") && class.matches("t1-dlq") && !class.matches("t-dlq"));
        assert!(!class.matches("t1\n") && !class.matches("\nt1"));
    }

    #[test]
    fn a_pattern_tells_what_it_takes() {
        let small = Pattern::new("orders-.*").expect("a pattern").size();
        assert!((100..20_000).contains(&small), "{small}");
        let large = Pattern::new("(a{500}){2}").expect("a pattern").size();
        assert!(
            (20_000..=2 * PATTERN_MEMORY + 100).contains(&large),
            "{large}"
        );
    }
}
