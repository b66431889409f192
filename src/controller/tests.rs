//! The controller under random histories, and its refusals.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{
    BrokerId, ErrorCode, LeaderEpoch, ProducerId, TopicId,
    messages::{AlterTopicRequest, CreatePartitionsRequest, NewTopic},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    format::{Entry, decode_snapshot, encode_snapshot},
    *,
};

pub(super) fn seat() -> Seat {
    Seat {
        cluster_id: ClusterId(Uuid::from_u128(7)),
        broker_id: BrokerId(0),
        topic_defaults: TopicConfig::default(),
    }
}

pub(super) fn topic(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

pub(super) fn started() -> Controller {
    let mut controller = Controller::new(seat());
    let start = Command::BrokerStarted {
        broker: BrokerId(0),
        incarnation: Uuid::from_u128(1),
    };
    apply(&mut controller, &start).unwrap();
    controller
}

pub(super) fn apply(
    controller: &mut Controller,
    command: &Command,
) -> Result<Outcome, ControllerError> {
    let result = controller.apply(controller.index() + 1, controller.term().max(1), command);
    controller.check();
    result
}

pub(super) fn create(id: u128, name: &str, partitions: usize) -> Command {
    Command::CreateTopic {
        id: topic(id),
        name: name.to_owned(),
        configs: vec![("retention.ms".to_owned(), "1h".to_owned())],
        assignments: vec![vec![BrokerId(0)]; partitions],
    }
}

fn new_topic(name: &str) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        ..NewTopic::default()
    }
}

#[test]
fn starting_a_broker_raises_the_epoch_of_all_it_leads() {
    let mut controller = started();
    apply(&mut controller, &create(1, "a", 3)).unwrap();
    let epochs = |controller: &Controller| {
        let image = controller.image();
        let topic = image.topic_named("a").unwrap();
        topic
            .partitions
            .iter()
            .map(|partition| partition.leader_epoch.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(epochs(&controller), [0, 0, 0]);
    let incarnation = Uuid::from_u128(2);
    let other = Command::BrokerStarted {
        broker: BrokerId(9),
        incarnation,
    };
    apply(&mut controller, &other).unwrap();
    assert_eq!(epochs(&controller), [0, 0, 0]);
    let again = Command::BrokerStarted {
        broker: BrokerId(0),
        incarnation,
    };
    apply(&mut controller, &again).unwrap();
    assert_eq!(epochs(&controller), [1, 1, 1]);
}

#[test]
fn a_deleted_topic_is_remembered_until_it_is_forgotten() {
    let mut controller = started();
    apply(&mut controller, &create(1, "a", 1)).unwrap();
    apply(&mut controller, &Command::DeleteTopic { id: topic(1) }).unwrap();
    let image = controller.image();
    assert!(image.topic_named("a").is_none() && image.is_deleted(topic(1)));
    assert_eq!(
        apply(&mut controller, &create(1, "a", 1)),
        Err(ControllerError::TopicIdReused(topic(1)))
    );
    apply(&mut controller, &create(2, "a", 1)).unwrap();
    apply(&mut controller, &Command::ForgetTopic { id: topic(1) }).unwrap();
    assert_eq!(controller.image().deleted().count(), 0);
    assert_eq!(
        apply(&mut controller, &Command::ForgetTopic { id: topic(2) }),
        Err(ControllerError::NotDeleted(topic(2)))
    );
}

#[test]
fn users_requests_are_refused_with_a_reason() {
    let mut controller = started();
    apply(&mut controller, &create(1, "a", 2)).unwrap();
    let refused = |result: Result<Command, ControllerError>| {
        let error = result.unwrap_err();
        (ErrorCode::from(&error), error.to_string())
    };
    let plan = |new: NewTopic| refused(controller.plan_topic(topic(2), new));
    assert_eq!(plan(new_topic("../x")).0, ErrorCode::InvalidTopicName);
    assert_eq!(
        plan(new_topic(&"n".repeat(10_000))).0,
        ErrorCode::InvalidTopicName
    );
    assert_eq!(plan(new_topic("__offsets")).0, ErrorCode::NotAuthorized);
    assert_eq!(plan(new_topic("a")).0, ErrorCode::TopicExists);
    let many = NewTopic {
        partitions: u32::MAX,
        ..new_topic("b")
    };
    assert_eq!(plan(many).0, ErrorCode::InvalidPartitions);
    let replicated = NewTopic {
        replication_factor: 3,
        ..new_topic("b")
    };
    assert_eq!(
        plan(replicated),
        (
            ErrorCode::InvalidReplicationFactor,
            "replication factor 3 needs 3 brokers: this cluster has 1".to_owned()
        )
    );
    let odd = NewTopic {
        configs: vec![("durabilty".to_owned(), "flushed".to_owned())],
        ..new_topic("b")
    };
    let (code, message) = plan(odd);
    assert_eq!(code, ErrorCode::InvalidConfig);
    assert!(message.ends_with("did you mean durability?"), "{message}");
    assert_eq!(
        refused(controller.plan_deletion("b")).0,
        ErrorCode::UnknownTopic
    );
    let fewer = CreatePartitionsRequest {
        name: "a".to_owned(),
        total: 2,
    };
    assert_eq!(
        refused(controller.plan_partitions(&fewer)).0,
        ErrorCode::InvalidPartitions
    );
    let change = AlterTopicRequest {
        name: "a".to_owned(),
        configs: vec![("segment.ms".to_owned(), Some("never".to_owned()))],
        force: false,
    };
    assert_eq!(
        refused(controller.plan_alteration(change)).0,
        ErrorCode::InvalidConfig
    );
}

#[test]
fn requests_made_at_once_cannot_both_win() {
    let mut controller = started();
    apply(&mut controller, &create(1, "a", 1)).unwrap();
    let request = CreatePartitionsRequest {
        name: "a".to_owned(),
        total: 4,
    };
    let command = controller.plan_partitions(&request).unwrap();
    apply(&mut controller, &command).unwrap();
    assert_eq!(
        apply(&mut controller, &command),
        Err(ControllerError::Conflict(topic(1)))
    );
    assert_eq!(
        controller
            .image()
            .topic_named("a")
            .unwrap()
            .partition_count(),
        4
    );
}

#[test]
fn altering_restores_defaults_too() {
    let mut controller = started();
    apply(&mut controller, &create(1, "a", 1)).unwrap();
    let changes = vec![
        ("retention.ms".to_owned(), None),
        ("durability".to_owned(), Some("buffered".into())),
    ];
    apply(
        &mut controller,
        &Command::AlterTopic {
            id: topic(1),
            changes,
        },
    )
    .unwrap();
    let image = controller.image();
    let config = &image.topic_named("a").unwrap().config;
    assert_eq!(config.retention_ms, TopicConfig::default().retention_ms);
    assert_eq!(
        config.overrides().collect::<Vec<_>>(),
        [("durability", "buffered".to_owned())]
    );
}

#[derive(Clone, Debug)]
enum Op {
    Start(u32),
    Create {
        id: u128,
        name: usize,
        partitions: usize,
    },
    Delete(u128),
    Alter(u128, bool),
    Grow(u128, u32, usize),
    Ids(u32),
    Forget(u128),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let id = 0_u128..6;
    let op = prop_oneof![
        (0_u32..2).prop_map(Op::Start),
        (id.clone(), 0_usize..4, 0_usize..4).prop_map(|(id, name, partitions)| Op::Create {
            id,
            name,
            partitions
        }),
        id.clone().prop_map(Op::Delete),
        (id.clone(), any::<bool>()).prop_map(|(id, set)| Op::Alter(id, set)),
        (id.clone(), 0_u32..5, 0_usize..3).prop_map(|(id, from, more)| Op::Grow(id, from, more)),
        (0_u32..2000).prop_map(Op::Ids),
        id.prop_map(Op::Forget),
    ];
    prop::collection::vec(op, 1..60)
}

/// Topic ids as the shell makes them: one that was forgotten never comes again.
#[derive(Default)]
struct Ids(BTreeMap<u128, u128>);

impl Ids {
    fn of(&self, number: u128) -> u128 {
        number + 100 * self.0.get(&number).copied().unwrap_or(0)
    }
}

fn command_of(op: &Op, step: usize, ids: &Ids) -> Command {
    let topic = |number| topic(ids.of(number));
    match op {
        Op::Start(broker) => Command::BrokerStarted {
            broker: BrokerId(*broker),
            incarnation: Uuid::from_u128(step as u128),
        },
        Op::Create {
            id,
            name,
            partitions,
        } => create(ids.of(*id), ["a", "b", "__c", ".."][*name], *partitions),
        Op::Delete(id) => Command::DeleteTopic { id: topic(*id) },
        Op::Alter(id, set) => Command::AlterTopic {
            id: topic(*id),
            changes: vec![("segment.ms".to_owned(), set.then(|| "5000".to_owned()))],
        },
        Op::Grow(id, present, more) => Command::CreatePartitions {
            id: topic(*id),
            present: *present,
            assignments: vec![vec![BrokerId(0)]; *more],
        },
        Op::Ids(count) => Command::AllocateProducerIds {
            broker: BrokerId(0),
            count: *count,
        },
        Op::Forget(id) => Command::ForgetTopic { id: topic(*id) },
    }
}

/// What a change must never do, whatever it is.
fn assert_only_grows(before: &MetadataImage, after: &MetadataImage) {
    assert_eq!(after.index, before.index + 1);
    for old in before.topics() {
        let Some(new) = after.topic(old.id) else {
            assert!(after.is_deleted(old.id), "a topic vanished without a trace");
            continue;
        };
        assert_eq!(new.name, old.name);
        assert!(
            new.partitions.len() >= old.partitions.len(),
            "partitions vanished"
        );
        for (new, old) in new.partitions.iter().zip(&old.partitions) {
            assert!(new.leader_epoch >= old.leader_epoch, "a leader epoch fell");
        }
    }
    for id in before.deleted() {
        assert!(
            after.topic(id).is_none(),
            "a deleted topic's id was used again"
        );
    }
}

proptest! {
    #[test]
    fn any_history_keeps_the_invariants(ops in ops()) {
        let mut controller = Controller::new(seat());
        let mut ids = Ids::default();
        let mut producer_ids = BTreeSet::new();
        let mut epochs: BTreeMap<TopicId, LeaderEpoch> = BTreeMap::new();
        for (step, op) in ops.iter().enumerate() {
            let command = command_of(op, step, &ids);
            let before = controller.image();
            let planned = controller.validate(&command);
            let entry = Entry { term: 1, index: controller.index() + 1, command };
            let entry = Entry::decode(&entry.encode()).unwrap();
            let result = controller.apply(entry.index, entry.term, &entry.command);
            controller.check();
            let after = controller.image();
            assert_only_grows(&before, &after);
            prop_assert_eq!(planned.as_ref().err(), result.as_ref().err());
            match result {
                Err(_) => {
                    let unchanged = MetadataImage { index: after.index, term: after.term, ..before };
                    prop_assert_eq!(unchanged, after);
                }
                Ok(Outcome::ProducerIds { first: ProducerId(first), count }) => {
                    for id in first..first + i64::from(count) {
                        prop_assert!(producer_ids.insert(id), "producer id {} twice", id);
                    }
                }
                Ok(Outcome::TopicForgotten(id)) => {
                    *ids.0.entry(id.0.as_u128() % 100).or_default() += 1;
                }
                Ok(_) => {}
            }
            if let Op::Start(0) = op {
                for topic in controller.image().topics() {
                    let epoch = topic.partitions[0].leader_epoch;
                    let before = epochs.insert(topic.id, epoch);
                    prop_assert!(before.is_none_or(|before| before < epoch), "no new epoch");
                }
            }
        }
        let restored = decode_snapshot(&encode_snapshot(&controller), seat()).unwrap();
        restored.check();
        prop_assert_eq!(restored.image(), controller.image());
        prop_assert_eq!(restored.next_producer_id, controller.next_producer_id);
        prop_assert_eq!(restored.brokers, controller.brokers);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Entry::decode(&bytes);
        let _ = decode_snapshot(&bytes, seat());
    }
}
