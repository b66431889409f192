//! The consumer machine, event by event: each test asserts the exact list of actions.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_protocol::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, ShardId, TopicId, TopicPartition,
    batch::{BatchBuilder, Compression, NO_HEADERS, place},
    messages::{DivergingEpoch, FetchPartitionResult},
};

use super::{Action, Config, Event, FetchId, Item, Machine};
use crate::{
    consumer::record::{OutOfRangePolicy, TruncationPolicy},
    error::{ConsumeError, RequestError},
    metadata::{Leader, Node, Topic},
};

const TOPIC: TopicId = TopicId(uuid::Uuid::from_u128(1));

pub(super) fn config() -> Config {
    Config {
        prefetch_bytes: 1 << 20,
        fetch_bytes: 10_000,
        max_wait_ms: 500,
        out_of_range: OutOfRangePolicy::Error,
        truncation: TruncationPolicy::Error,
        seed: 1,
    }
}

pub(super) fn at(partition: u32) -> TopicPartition {
    TopicPartition {
        topic: TOPIC,
        partition: PartitionIndex(partition),
    }
}

pub(super) fn leader(shard: u32, epoch: i32) -> Leader {
    Leader {
        node: Node {
            broker: BrokerId(0),
            shard: ShardId(shard),
        },
        epoch: LeaderEpoch(epoch),
    }
}

pub(super) fn assigned(partition: u32, offset: i64) -> Event {
    Event::Assigned {
        at: at(partition),
        topic: "t".into(),
        leader: Some(leader(0, 1)),
        offset: Offset(offset),
        read_epoch: LeaderEpoch::UNKNOWN,
    }
}

/// A batch of `count` records from `base_offset` on, each with its offset and epoch as the value.
pub(super) fn batch(base_offset: i64, count: i64, epoch: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for offset in base_offset..base_offset + count {
        let value = format!("{offset}e{epoch}");
        builder
            .push(5, None, Some(value.as_bytes()), NO_HEADERS)
            .expect("small");
    }
    let mut batch = builder.finish(None, Compression::Lz4);
    place(&mut batch, Offset(base_offset), LeaderEpoch(epoch));
    batch
}

pub(super) fn answer(partition: u32, error: ErrorCode, end: i64) -> FetchPartitionResult {
    FetchPartitionResult {
        topic: TOPIC,
        partition: PartitionIndex(partition),
        error,
        high_watermark: Offset(end),
        leader_epoch: LeaderEpoch::UNKNOWN,
        ..FetchPartitionResult::default()
    }
}

/// A machine, its clock, and what it said in words.
struct Bench {
    machine: Machine,
    now: Duration,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self {
            machine: Machine::new(config),
            now: Duration::ZERO,
        }
    }

    fn apply(&mut self, event: Event) -> Vec<String> {
        let mut actions = Vec::new();
        self.machine.apply(self.now, event, &mut actions);
        self.machine.check();
        actions.into_iter().map(say).collect()
    }

    fn tick(&mut self, ms: u64) -> Vec<String> {
        self.now += Duration::from_millis(ms);
        self.apply(Event::Ticked)
    }

    /// One partition's reply with these batches.
    fn fetched(
        &mut self,
        id: u64,
        mut result: FetchPartitionResult,
        batches: &[Vec<u8>],
    ) -> Vec<String> {
        let records = Bytes::from(batches.concat());
        result.records_size = u32::try_from(records.len()).expect("small");
        self.apply(Event::Fetched(FetchId(id), vec![result], records))
    }

    /// Takes everything there is: the records' values, obstacles as text.
    fn take(&mut self) -> Vec<String> {
        let mut taken = Vec::new();
        while let Some(item) = self.machine.take(true) {
            match item {
                Item::Batch(batch) => {
                    let records = batch.records().expect("valid").into_iter();
                    let values = records.map(|it| it.value.expect("set"));
                    taken.extend(values.map(|it| String::from_utf8_lossy(&it).into_owned()));
                }
                Item::Obstacle(_, error) => taken.push(error.to_string()),
            }
            self.machine.check();
        }
        taken
    }
}

/// `fetch 1 of 0 wait 500: p0 from 3 e1 last 1`.
fn say(action: Action) -> String {
    match action {
        Action::Fetch { id, node, request } => {
            let mut said = format!(
                "fetch {} of {} wait {}:",
                id.0, node.shard, request.max_wait_ms
            );
            for it in request.partitions {
                said += &format!(
                    " p{} from {} e{} last {}",
                    it.partition, it.fetch_offset, it.leader_epoch, it.last_fetched_epoch
                );
            }
            said
        }
        Action::RefreshTopic { name, .. } => format!("refresh {name}"),
        Action::ForgetTopic(_) => "forget".to_owned(),
        Action::Warn(error) => format!("warn {error}"),
    }
}

#[test]
fn reads_ahead_skips_what_is_before_and_knows_the_end() {
    let mut bench = Bench::new(config());
    // The end is unknown: the first fetch does not wait.
    let said = bench.apply(assigned(0, 3));
    assert_eq!(said, ["fetch 1 of 0 wait 0: p0 from 3 e1 last -1"]);
    assert!(!bench.machine.is_at_end());
    let said = bench.fetched(
        1,
        answer(0, ErrorCode::None, 6),
        &[batch(0, 2, 1), batch(2, 4, 1)],
    );
    assert_eq!(said, ["fetch 2 of 0 wait 500: p0 from 6 e1 last 1"]);
    assert_eq!(bench.machine.position(at(0)), Some(Offset(3)));
    assert_eq!(bench.take(), ["3e1", "4e1", "5e1"]);
    assert_eq!(bench.machine.position(at(0)), Some(Offset(6)));
    assert!(bench.machine.is_at_end());
    assert_eq!(bench.tick(0), [""; 0], "one fetch at a time");
    let said = bench.fetched(2, answer(0, ErrorCode::None, 6), &[]);
    assert_eq!(said, ["fetch 3 of 0 wait 500: p0 from 6 e1 last 1"]);
}

#[test]
fn reading_ahead_stops_at_the_budget_and_goes_on_when_something_is_taken() {
    let mut settings = config();
    settings.prefetch_bytes = 150;
    let mut bench = Bench::new(settings);
    assert_eq!(bench.apply(assigned(0, 0)).len(), 1);
    let said = bench.fetched(1, answer(0, ErrorCode::None, 40), &[batch(0, 20, 1)]);
    assert_eq!(said, [""; 0], "more than the budget is here");
    assert_eq!(bench.take().len(), 20);
    assert_eq!(
        bench.tick(0),
        ["fetch 2 of 0 wait 500: p0 from 20 e1 last 1"]
    );
}

#[test]
fn a_seek_forgets_what_was_read_ahead_and_the_reply_under_way() {
    let mut bench = Bench::new(config());
    bench.apply(assigned(0, 0));
    bench.fetched(1, answer(0, ErrorCode::None, 9), &[batch(0, 3, 1)]);
    let said = bench.apply(assigned(0, 7));
    assert_eq!(said, ["fetch 3 of 0 wait 500: p0 from 7 e1 last -1"]);
    assert_eq!(
        bench.fetched(2, answer(0, ErrorCode::None, 9), &[batch(3, 3, 1)]),
        [""; 0]
    );
    bench.fetched(3, answer(0, ErrorCode::None, 9), &[batch(6, 3, 1)]);
    assert_eq!(bench.take(), ["7e1", "8e1"]);
    bench.apply(Event::Unassigned(at(0)));
    assert_eq!(
        bench.fetched(4, answer(0, ErrorCode::None, 9), &[batch(9, 1, 1)]),
        [""; 0]
    );
    assert_eq!(bench.take(), [""; 0]);
}

#[test]
fn partitions_of_a_shard_share_a_request_and_others_get_their_own() {
    let mut bench = Bench::new(config());
    bench.apply(assigned(0, 0));
    assert_eq!(bench.apply(assigned(1, 0)).len(), 1);
    let error = RequestError::TimedOut {
        address: "a:1".into(),
        timeout: Duration::ZERO,
    };
    let said = bench.apply(Event::FetchFailed(FetchId(1), error.clone()));
    assert_eq!(said, ["refresh t"]);
    assert_eq!(bench.apply(Event::FetchFailed(FetchId(2), error)), [""; 0]);
    let mut both = bench.tick(100);
    assert!(
        both == ["fetch 3 of 0 wait 0: p0 from 0 e1 last -1 p1 from 0 e1 last -1"]
            || both == ["fetch 3 of 0 wait 0: p1 from 0 e1 last -1 p0 from 0 e1 last -1"]
    );
    both.clear();
    // One of them moved.
    let topic = Topic {
        name: "t".into(),
        id: TOPIC,
        leaders: vec![Some(leader(0, 1)), Some(leader(2, 2))],
        heard_at: Duration::ZERO,
    };
    assert_eq!(bench.apply(Event::TopicLearned(Arc::new(topic))), [""; 0]);
    let mut moved = answer(1, ErrorCode::NotLeader, 0);
    moved.leader_epoch = LeaderEpoch(2);
    moved.shard = ShardId(2);
    let results = vec![answer(0, ErrorCode::None, 0), moved];
    let said = bench.apply(Event::Fetched(FetchId(3), results, Bytes::new()));
    assert_eq!(
        said,
        ["fetch 4 of 0 wait 500: p0 from 0 e1 last -1", "refresh t"]
    );
    assert_eq!(
        bench.tick(200),
        ["fetch 5 of 2 wait 0: p1 from 0 e2 last -1"]
    );
}

#[test]
fn an_offset_out_of_range_is_an_obstacle_or_a_policy() {
    let out = || {
        let mut result = answer(0, ErrorCode::OffsetOutOfRange, 50);
        result.log_start_offset = Offset(10);
        result
    };
    let mut bench = Bench::new(config());
    bench.apply(assigned(0, 3));
    assert_eq!(bench.fetched(1, out(), &[]), [""; 0]);
    assert_eq!(bench.tick(10_000), [""; 0], "it waits for a seek");
    let obstacle = bench.take();
    assert!(obstacle[0].starts_with("offset 3 of t/0 is out of range: it holds 10 to 50"));
    let said = bench.apply(assigned(0, 10));
    assert_eq!(said, ["fetch 2 of 0 wait 0: p0 from 10 e1 last -1"]);

    for (policy, offset) in [
        (OutOfRangePolicy::Earliest, 10),
        (OutOfRangePolicy::Latest, 50),
    ] {
        let mut settings = config();
        settings.out_of_range = policy;
        let mut bench = Bench::new(settings);
        bench.apply(assigned(0, 3));
        let said = bench.fetched(1, out(), &[]);
        assert!(said[0].starts_with("warn offset 3 of t/0"), "{said:?}");
        assert_eq!(
            said[1],
            format!("fetch 2 of 0 wait 500: p0 from {offset} e1 last -1")
        );
    }
}

fn diverging(epoch: i32, end_offset: i64) -> FetchPartitionResult {
    let mut result = answer(0, ErrorCode::None, 9);
    result.diverging = Some(DivergingEpoch {
        epoch: LeaderEpoch(epoch),
        end_offset: Offset(end_offset),
    });
    result
}

#[test]
fn a_cut_below_the_position_is_reported_once() {
    let mut bench = Bench::new(config());
    bench.apply(assigned(0, 0));
    bench.fetched(
        1,
        answer(0, ErrorCode::None, 9),
        &[batch(0, 5, 1), batch(5, 3, 2)],
    );
    assert_eq!(bench.take().len(), 8);
    assert_eq!(bench.fetched(2, diverging(1, 5), &[]), [""; 0]);
    let obstacle = bench.take();
    assert!(
        obstacle[0].starts_with("t/0 was cut at 5 after it was read up to 8"),
        "{obstacle:?}"
    );
    let said = bench.apply(assigned(0, 5));
    assert_eq!(said, ["fetch 3 of 0 wait 500: p0 from 5 e1 last 1"]);
}

#[test]
fn a_cut_below_the_position_may_be_passed_over() {
    let mut settings = config();
    settings.truncation = TruncationPolicy::Continue;
    let mut bench = Bench::new(settings);
    bench.apply(assigned(0, 0));
    bench.fetched(
        1,
        answer(0, ErrorCode::None, 9),
        &[batch(0, 5, 1), batch(5, 3, 2)],
    );
    assert_eq!(bench.take().len(), 8);
    let said = bench.fetched(2, diverging(1, 5), &[]);
    assert!(said[0].starts_with("warn t/0 was cut at 5"), "{said:?}");
    assert_eq!(said[1], "fetch 3 of 0 wait 500: p0 from 5 e1 last 1");
    bench.fetched(3, answer(0, ErrorCode::None, 9), &[batch(5, 1, 3)]);
    assert_eq!(bench.take(), ["5e3"]);
}

#[test]
fn a_cut_of_what_was_only_read_ahead_is_nobodys_business() {
    let mut bench = Bench::new(config());
    bench.apply(assigned(0, 0));
    bench.fetched(
        1,
        answer(0, ErrorCode::None, 9),
        &[batch(0, 3, 1), batch(3, 4, 1)],
    );
    // The cut goes through the second batch: it is read again, from its first record on.
    let said = bench.fetched(2, diverging(1, 5), &[]);
    assert_eq!(said, ["fetch 3 of 0 wait 500: p0 from 3 e1 last 1"]);
    bench.fetched(
        3,
        answer(0, ErrorCode::None, 9),
        &[batch(3, 2, 1), batch(5, 1, 2)],
    );
    assert_eq!(bench.take(), ["0e1", "1e1", "2e1", "3e1", "4e1", "5e2"]);
}

#[test]
fn a_damaged_batch_stops_its_partition_behind_what_is_good() {
    let mut bench = Bench::new(config());
    bench.apply(assigned(0, 0));
    let mut bad = batch(2, 2, 1);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    bench.fetched(
        1,
        answer(0, ErrorCode::None, 9),
        &[batch(0, 2, 1), bad, batch(4, 1, 1)],
    );
    let Some(Item::Batch(good)) = bench.machine.take(true) else {
        panic!("the first batch is good");
    };
    assert_eq!(good.records().map(|it| it.len()).ok(), Some(2));
    let Some(Item::Batch(bad)) = bench.machine.take(true) else {
        panic!("the second one is there");
    };
    let error = bad.records().expect_err("its checksum is wrong");
    assert!(matches!(
        error,
        ConsumeError::Corrupt {
            offset: Offset(2),
            ..
        }
    ));
    let said = bench.apply(Event::Damaged {
        at: at(0),
        position: Offset(2),
        error,
    });
    assert_eq!(said, [""; 0]);
    assert!(bench.machine.take(false).is_none());
    assert_eq!(bench.take().len(), 1, "nothing behind the damage");
    assert_eq!(bench.machine.position(at(0)), Some(Offset(2)));
}

#[test]
fn refusals_pause_or_stop() {
    let mut bench = Bench::new(config());
    bench.apply(assigned(0, 0));
    assert_eq!(
        bench.fetched(1, answer(0, ErrorCode::PartitionLoading, -1), &[]),
        [""; 0]
    );
    assert!(bench.machine.deadline(bench.now).is_some());
    assert_eq!(bench.tick(100).len(), 1);
    assert_eq!(
        bench.fetched(2, answer(0, ErrorCode::PartitionOffline, -1), &[]),
        [""; 0]
    );
    assert!(bench.take()[0].contains("PartitionOffline"));
    assert_eq!(bench.tick(10_000), [""; 0]);

    let mut bench = Bench::new(config());
    bench.apply(assigned(0, 0));
    assert_eq!(
        bench.fetched(1, answer(0, ErrorCode::UnknownTopic, -1), &[]),
        ["forget"]
    );
    assert!(bench.take()[0].starts_with("no topic \"t\""));
}

#[test]
fn a_paused_partition_keeps_what_it_has_and_asks_for_nothing() {
    let mut bench = Bench::new(config());
    let mut ask = |event| bench.apply(event);
    assert_eq!(ask(assigned(0, 0)).len(), 1);
    assert_eq!(ask(assigned(1, 0)).len(), 1);
    let batches = [batch(0, 2, 1), batch(2, 1, 1)];
    bench.fetched(1, answer(0, ErrorCode::None, 7), &batches);
    assert_eq!(bench.machine.lag(at(0)), Some(7));
    assert_eq!(bench.machine.lag(at(1)), None, "no reply yet");
    bench.apply(Event::Paused(at(0)));
    assert!(!bench.machine.has_items());
    assert_eq!(bench.take(), [""; 0]);
    // What was on its way when it was paused is kept, too.
    assert_eq!(
        bench.fetched(3, answer(0, ErrorCode::None, 9), &[batch(3, 1, 1)]),
        [""; 0]
    );
    bench.fetched(2, answer(1, ErrorCode::None, 1), &[batch(0, 1, 1)]);
    assert_eq!(bench.take(), ["0e1"], "the other one's");
    assert_eq!(bench.machine.lag(at(1)), Some(0));
    let resumed = bench.apply(Event::Resumed(at(0)));
    assert_eq!(resumed.len(), 1, "{resumed:?}");
    assert_eq!(bench.take(), ["0e1", "1e1", "2e1", "3e1"]);
    assert_eq!(bench.machine.lag(at(0)), Some(5));
}

#[test]
fn a_seek_moves_a_paused_partition_and_leaves_it_paused() {
    let mut bench = Bench::new(config());
    bench.apply(assigned(0, 0));
    bench.fetched(1, answer(0, ErrorCode::None, 9), &[batch(0, 2, 1)]);
    bench.apply(Event::Paused(at(0)));
    assert_eq!(bench.apply(assigned(0, 5)), [""; 0], "asks for nothing");
    bench.apply(Event::Resumed(at(0)));
    assert_eq!(bench.take(), [""; 0], "what was held is of another place");
    assert_eq!(bench.machine.position(at(0)), Some(Offset(5)));
    assert_eq!(bench.machine.paused(), []);
}
