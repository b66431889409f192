//! Where records go, on a whole machine.

use millstream_protocol::{ErrorCode, PartitionIndex};

use super::{
    Config, Event, Refusal,
    bench::{Bench, answer, at, config, topic},
};
use crate::producer::{
    partitioner::{
        Murmur2, PartitionChoice, Partitioner, Partitioning, RecordView, RoundRobin,
        TopicPartitions,
    },
    record::ProducerRecord,
};

fn ready(partitions: usize, settings: Config) -> Bench {
    let mut bench = Bench::new(settings);
    let learned = topic(&vec![0; partitions], 1);
    assert_eq!(bench.apply(Event::TopicLearned(learned)), [""; 0]);
    assert_eq!(bench.identity(7), [""; 0]);
    bench
}

/// How many records each partition has.
fn records(bench: &Bench) -> Vec<u32> {
    let partitions = bench.machine.topics.values().next().expect("a topic");
    let counts = partitions.partitions.iter().map(|it| {
        let counts = it.batches.iter().map(|batch| batch.record_count);
        counts.sum()
    });
    counts.collect()
}

fn send(bench: &mut Bench, key: Option<&str>, size: usize) -> Result<(), Refusal> {
    let mut record = ProducerRecord::to("t").value("v".repeat(size));
    if let Some(key) = key {
        record = record.key(key.to_owned());
    }
    bench.append_record(&record).map(|_wake| ())
}

#[test]
fn keyless_records_fill_a_batch_then_go_to_the_next_partition() {
    let mut bench = ready(3, config());
    let mut filled = Vec::new();
    for _ in 0..6 {
        assert_eq!(send(&mut bench, None, 300), Ok(()));
        filled.push(records(&bench));
    }
    // Batches are of 1000 bytes, and records a little larger than their values: two to a batch.
    assert_eq!(filled[1].iter().max(), Some(&2), "{filled:?}");
    assert_eq!(filled[3].iter().min(), Some(&0), "{filled:?}");
    assert_eq!(filled[5], [2, 2, 2]);
}

#[test]
fn a_batch_that_left_is_done_too() {
    let mut bench = ready(3, config());
    let mut visited = Vec::new();
    for number in 1..=6 {
        assert_eq!(send(&mut bench, None, 10), Ok(()));
        let sent = bench.tick(0);
        assert_eq!(sent.len(), 1, "{sent:?}");
        let before = records(&bench);
        let partition = before.iter().position(|count| *count == 1).expect("one");
        let partition = u32::try_from(partition).expect("small");
        bench.replied(number, &[answer(partition, ErrorCode::None, 0)]);
        visited.push(partition);
    }
    assert_eq!(visited[..3], visited[3..], "in turn");
    visited.sort_unstable();
    assert_eq!(visited, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn keyless_records_keep_away_from_a_partition_that_fails() {
    let mut bench = ready(2, config());
    bench.append(0, "first").expect("room");
    assert_eq!(bench.tick(0).len(), 1);
    assert_eq!(
        bench.replied(1, &[answer(0, ErrorCode::Overloaded, -1)]),
        [""; 0]
    );
    for _ in 0..6 {
        assert_eq!(send(&mut bench, None, 300), Ok(()));
    }
    assert_eq!(records(&bench), [1, 6]);
}

#[test]
fn keys_go_to_their_partition_and_move_when_partitions_are_added() {
    let mut bench = ready(2, config());
    // murmur2 puts it on 1 of 2 and on 2 of 3.
    let key = "d";
    let of = |count| Murmur2::partition_of(key.as_bytes(), count).0;
    assert_eq!((of(2), of(3)), (1, 2), "a key that moves");
    assert_eq!(send(&mut bench, Some(key), 1), Ok(()));
    assert_eq!(records(&bench), [0, 1]);
    bench.apply(Event::TopicLearned(topic(&[0; 3], 1)));
    assert_eq!(send(&mut bench, Some(key), 1), Ok(()));
    assert_eq!(records(&bench), [0, 1, 1]);
}

#[test]
fn each_topic_has_a_partitioner_of_its_own() {
    let mut settings = config();
    settings.partitioning = Partitioning::by(RoundRobin::default());
    let mut bench = ready(2, settings);
    let mut other = (*topic(&[0, 0], 1)).clone();
    other.name = "u".into();
    other.id = millstream_protocol::TopicId(uuid::Uuid::from_u128(2));
    bench.apply(Event::TopicLearned(other.into()));
    let mut send = |topic: &'static str| {
        let record = ProducerRecord::to(topic).key("same").value("v");
        bench.append_record(&record).expect("room");
    };
    ["t", "u", "t", "t", "u"].into_iter().for_each(&mut send);
    assert_eq!(records(&bench), [2, 1]);
}

/// Says what it was told to.
#[derive(Clone, Debug)]
struct Fixed(u32);

impl Partitioner for Fixed {
    fn partition(
        &mut self,
        record: &RecordView<'_>,
        partitions: &TopicPartitions<'_>,
    ) -> PartitionChoice {
        assert_eq!((record.topic, partitions.count()), ("t", 2));
        PartitionChoice::Partition(PartitionIndex(self.0))
    }
}

#[test]
fn a_partitioner_of_the_user_decides_unless_the_record_names_its_partition() {
    let mut settings = config();
    settings.partitioning = Partitioning::by(Fixed(1));
    let mut bench = ready(2, settings.clone());
    assert_eq!(send(&mut bench, Some("k"), 1), Ok(()));
    assert_eq!(send(&mut bench, None, 1), Ok(()));
    assert_eq!(bench.append(0, "named"), Ok(true));
    assert_eq!(records(&bench), [1, 2]);

    settings.partitioning = Partitioning::by(Fixed(2));
    let mut bench = ready(2, settings);
    let unknown = Refusal::UnknownPartition {
        partition: PartitionIndex(2),
        count: 2,
    };
    assert_eq!(send(&mut bench, None, 1), Err(unknown));
    assert!(bench.machine.partition(at(0)).is_some());
}
