//! Every partition of every topic of a run, numbered.

use std::sync::Arc;

use millstream_client::PartitionIndex;

/// The partitions of a run, numbered topic by topic.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    topics: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    name: Arc<str>,
    partitions: u32,
    /// The number of its partition 0.
    first: u32,
}

impl Spread {
    /// Topics with so many partitions each.
    #[must_use]
    pub fn new(topics: impl IntoIterator<Item = (Arc<str>, u32)>) -> Self {
        let mut first = 0;
        let topics = topics.into_iter().map(|(name, partitions)| {
            let part = Part {
                name,
                partitions,
                first,
            };
            first += partitions;
            part
        });
        Self {
            topics: topics.collect(),
        }
    }

    /// How many there are in all topics.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.topics.iter().map(|part| part.partitions).sum()
    }

    /// The topics' names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.iter().map(|part| &part.name)
    }

    /// How many topics there are.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// How many partitions a topic has.
    #[must_use]
    pub fn partitions(&self, topic: usize) -> u32 {
        self.topics[topic].partitions
    }

    /// The number of a partition of a topic.
    #[must_use]
    pub fn number(&self, topic: usize, partition: PartitionIndex) -> u32 {
        self.topics[topic].first + partition.0
    }

    /// The number of a partition of a topic by name, if it is one of the run.
    #[must_use]
    pub fn number_of(&self, topic: &str, partition: PartitionIndex) -> Option<u32> {
        let part = self.topics.iter().find(|part| &*part.name == topic)?;
        (partition.0 < part.partitions).then_some(part.first + partition.0)
    }

    /// Where the partition of a number is.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn at(&self, number: u32) -> (&Arc<str>, PartitionIndex) {
        let part = self.topics.iter().rfind(|part| part.first <= number);
        let part = part.expect("a partition of the run");
        assert!(
            number - part.first < part.partitions,
            "a partition of the run"
        );
        (&part.name, PartitionIndex(number - part.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_where_they_are() {
        let topics = [("a", 3), ("b", 1), ("c", 2)];
        let spread = Spread::new(topics.map(|(name, count)| (Arc::from(name), count)));
        assert_eq!(spread.count(), 6);
        let found: Vec<(String, u32)> = (0..6)
            .map(|number| {
                let (topic, partition) = spread.at(number);
                assert_eq!(spread.number_of(topic, partition), Some(number));
                (topic.to_string(), partition.0)
            })
            .collect();
        let expected = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("c", 0), ("c", 1)];
        assert_eq!(
            found,
            expected.map(|(name, index)| (name.to_owned(), index))
        );
        assert_eq!(spread.number(2, PartitionIndex(1)), 5);
        assert_eq!(spread.number_of("b", PartitionIndex(1)), None);
        assert_eq!(spread.number_of("d", PartitionIndex(0)), None);
    }
}
