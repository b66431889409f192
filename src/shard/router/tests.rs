//! One shard of two, the other one played by the test.

use std::sync::Arc;

use futures_util::future::join;
use millstream_protocol::{
    BrokerId, ClusterId, PartitionIndex, TopicId,
    messages::{ListOffsetsPartition, ListOffsetsResult},
};

use super::*;
use crate::{
    control::{ControlRequest, Overloaded},
    controller::{Controller, MetadataImage, Seat},
    io::sim::{Sim, SimDetached, SimIo},
    shard::{BrokerFacts, ControlPlane, ShardConfig, mailbox::LANE_CAPACITY, plane::Answer},
    storage::StorageConfig,
    types::TopicConfig,
};

/// Metadata of a broker without topics.
struct Plane;

impl ControlPlane for Plane {
    fn image(&self) -> Arc<MetadataImage> {
        let seat = Seat {
            cluster_id: ClusterId::default(),
            broker_id: BrokerId(0),
            topic_defaults: TopicConfig::default(),
        };
        Arc::new(Controller::new(seat).image())
    }

    fn image_index(&self) -> u64 {
        0
    }

    fn submit(&self, _request: ControlRequest, _answer: Answer) -> Result<(), Overloaded> {
        Err(Overloaded)
    }
}

type Inboxes = ShardInboxes<SimDetached>;

/// The first of two shards, and the lanes of the other.
fn first_of_two(io: &SimIo) -> (Rc<Shard<SimIo>>, Inboxes) {
    let (own, _) = inboxes();
    let (other, other_inboxes) = inboxes();
    let facts = BrokerFacts {
        data_dir: "/data".to_owned(),
        direct_io: true,
        memory: 64 << 20,
        max_connections: 10,
        counters: (0..2).map(|_| Arc::default()).collect(),
    };
    let config = ShardConfig {
        id: ShardId(0),
        shard_count: 2,
        memory: 32 << 20,
        storage: StorageConfig {
            first_life: 1 << 40,
            data_dir: "/data".into(),
            cache_size: 1 << 20,
            unflushed_limit: 1 << 20,
            open_files: 2,
            journal_file_size: 1 << 20,
            journal_size_max: 2 << 20,
            prepared_size: 0,
            prepared_file_size: 128 << 10,
        },
        advertised: None,
        group_offsets_retention_ms: 1 << 40,
        broker: Arc::new(facts),
    };
    let shard = Shard::new(
        io.clone(),
        config,
        Rc::new(Plane),
        vec![own, other],
        Arc::default(),
    );
    (shard, other_inboxes)
}

/// A partition that the other shard owns.
fn elsewhere() -> TopicPartition {
    let of = |number| TopicPartition {
        topic: TopicId::default(),
        partition: PartitionIndex(number),
    };
    let found = (0..2).map(of).find(|id| owner_of(*id, 2) == ShardId(1));
    found.expect("partitions go round robin")
}

/// Asks the other shard for offsets; what came of it.
async fn ask(shard: &Rc<Shard<SimIo>>) -> Result<(), Unanswered> {
    let entry = ListOffsetsPartition {
        topic: elsewhere().topic,
        partition: elsewhere().partition,
        ..ListOffsetsPartition::default()
    };
    let mut results = shard
        .spread(
            &[entry],
            |_| elsewhere(),
            Op::ListOffsets,
            |reply| match reply {
                OpReply::ListOffsets(results) => results.into_iter().map(|_| Ok(())).collect(),
                _ => Vec::new(),
            },
            |_, why| Err(why),
        )
        .await;
    results.pop().expect("one result")
}

#[test]
fn an_answer_that_never_comes_is_told_from_a_question_that_was_not_taken() {
    Sim::new(1).run(|io| async move {
        let (shard, mut other) = first_of_two(&io);
        let serve = async {
            for answered in [true, false] {
                let Some(Message::Ask(_, reply)) = other.data.receive().await else {
                    panic!("a question was asked");
                };
                if answered {
                    let results = vec![ListOffsetsResult::default()];
                    assert!(reply.send(OpReply::ListOffsets(results)).is_ok());
                }
            }
            other
        };
        let ask_twice = async { (ask(&shard).await, ask(&shard).await) };
        let (answers, other) = join(ask_twice, serve).await;
        assert_eq!(answers, (Ok(()), Err(Unanswered::Dropped)));
        let waiting: Vec<_> = (0..LANE_CAPACITY)
            .map(|_| Box::pin(shard.ask(ShardId(1), Op::Describe(Vec::new()))))
            .collect();
        assert_eq!(ask(&shard).await, Err(Unanswered::Full));
        drop(other);
        assert_eq!(ask(&shard).await, Err(Unanswered::Ended));
        for waited in waiting {
            assert!(matches!(waited.await, Err(Unanswered::Dropped)));
        }
    });
}

/// A fetch that names thousands of partitions holds as much while it waits.
#[test]
fn a_fetch_that_waits_is_charged_for_all_it_names() {
    Sim::new(1).run(|io| async move {
        let (shard, _other) = first_of_two(&io);
        let count = |partitions| {
            let waiting: Vec<_> = std::iter::from_fn(|| shard.begin_to_wait(partitions)).collect();
            waiting.len()
        };
        let small = count(1);
        assert!((500..2_000).contains(&small), "{small} small ones");
        let large = count(10_000);
        assert!((1..=4).contains(&large), "{large} large ones");
        assert_eq!(count(1), small, "each gave back what it took");
    });
}
