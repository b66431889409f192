//! The consumer machine against a simulated log that grows, is trimmed, forks and moves, behind a
//! network that delays and loses replies. Whatever happens: what the consumer was handed, cut where
//! it was told of a cut, is what the log holds.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, ShardId,
    batch::BatchHeader,
    messages::{DivergingEpoch, FetchPartition, FetchPartitionResult, FetchRequest},
};
use proptest::prelude::*;

use super::{
    Action, Event, FetchId, Item, Machine,
    tests::{answer, assigned, at, batch, config, leader},
};
use crate::{
    consumer::record::TruncationPolicy,
    error::{ConsumeError, RequestError},
    metadata::Topic,
};

const PARTITIONS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Append {
        partition: usize,
        count: i64,
    },
    /// A new leader does not have the last records.
    Fork {
        partition: usize,
        cut: usize,
    },
    Trim {
        partition: usize,
        batches: usize,
    },
    /// One of the requests under way reaches the broker, and its reply the client.
    Exchange {
        which: usize,
    },
    /// One of them is lost.
    Lose {
        which: usize,
    },
    Take {
        items: usize,
    },
    Seek {
        partition: usize,
        back: i64,
    },
    Pause {
        partition: usize,
    },
    Resume {
        partition: usize,
    },
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        6 => (partition.clone(), 1..5i64)
            .prop_map(|(partition, count)| Step::Append { partition, count }),
        1 => (partition.clone(), 0..4usize)
            .prop_map(|(partition, cut)| Step::Fork { partition, cut }),
        1 => (partition.clone(), 0..4usize)
            .prop_map(|(partition, batches)| Step::Trim { partition, batches }),
        8 => (0..4usize).prop_map(|which| Step::Exchange { which }),
        1 => (0..4usize).prop_map(|which| Step::Lose { which }),
        4 => (1..5usize).prop_map(|items| Step::Take { items }),
        1 => partition.clone().prop_map(|partition| Step::Pause { partition }),
        1 => partition.clone().prop_map(|partition| Step::Resume { partition }),
        1 => (partition, 0..10i64).prop_map(|(partition, back)| Step::Seek { partition, back }),
        3 => (1..200u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

#[derive(Debug, Default)]
struct Log {
    epoch: i32,
    shard: u32,
    start: i64,
    end: i64,
    batches: Vec<Vec<u8>>,
}

impl Log {
    fn headers(&self) -> impl Iterator<Item = (BatchHeader, &Vec<u8>)> {
        let headers = self.batches.iter();
        headers.map(|it| (BatchHeader::decode(it).expect("a batch"), it))
    }

    /// Where the reader's log parts from this one: behind the last batch of an epoch not above the
    /// reader's.
    fn diverging(&self, wanted: &FetchPartition) -> Option<DivergingEpoch> {
        let theirs = wanted.last_fetched_epoch;
        if theirs == LeaderEpoch::UNKNOWN {
            return None;
        }
        let known = self
            .headers()
            .filter(|(it, _)| it.leader_epoch <= theirs)
            .last();
        let (epoch, end_offset) = match known {
            Some((it, _)) => (it.leader_epoch, it.next_offset()),
            None => (LeaderEpoch(0), Offset(self.start)),
        };
        let parted = epoch < theirs || end_offset < wanted.fetch_offset;
        // Everything was trimmed: nothing is left to compare.
        (parted && !self.batches.is_empty()).then_some(DivergingEpoch { epoch, end_offset })
    }

    fn fetch(
        &self,
        index: u32,
        shard: u32,
        wanted: &FetchPartition,
    ) -> (FetchPartitionResult, Vec<u8>) {
        let mut result = answer(index, ErrorCode::None, self.end);
        result.log_start_offset = Offset(self.start);
        result.leader_epoch = LeaderEpoch(self.epoch);
        result.shard = ShardId(self.shard);
        let mut records = Vec::new();
        if shard != self.shard || wanted.leader_epoch.0 != self.epoch {
            result.error = ErrorCode::NotLeader;
        } else if let Some(diverging) = self.diverging(wanted) {
            result.diverging = Some(diverging);
        } else if !(self.start..=self.end).contains(&wanted.fetch_offset.0) {
            result.error = ErrorCode::OffsetOutOfRange;
        } else {
            let wanted =
                |(header, _): &(BatchHeader, _)| header.next_offset() > wanted.fetch_offset;
            for (_, bytes) in self.headers().filter(wanted) {
                if !records.is_empty() && records.len() + bytes.len() > 300 {
                    break;
                }
                records.extend_from_slice(bytes);
            }
            result.records_size = u32::try_from(records.len()).expect("few");
        }
        (result, records)
    }
}

struct World {
    machine: Machine,
    now: Duration,
    logs: Vec<Log>,
    under_way: Vec<(FetchId, u32, FetchRequest)>,
    /// What was handed out, by partition: values by offset.
    views: Vec<BTreeMap<i64, String>>,
    paused: [bool; PARTITIONS],
}

impl World {
    fn new(truncation: TruncationPolicy, prefetch_bytes: usize) -> Self {
        let mut settings = config();
        settings.truncation = truncation;
        settings.prefetch_bytes = prefetch_bytes;
        let log = || Log {
            epoch: 1,
            ..Log::default()
        };
        let mut world = Self {
            machine: Machine::new(settings),
            now: Duration::ZERO,
            logs: (0..PARTITIONS).map(|_| log()).collect(),
            under_way: Vec::new(),
            views: vec![BTreeMap::new(); PARTITIONS],
            paused: [false; PARTITIONS],
        };
        for partition in 0..PARTITIONS {
            world.apply(assigned(u32::try_from(partition).expect("few"), 0));
        }
        world
    }

    fn apply(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.machine.apply(self.now, event, &mut actions);
        self.machine.check();
        for action in actions {
            match action {
                Action::Fetch { id, node, request } => {
                    for wanted in &request.partitions {
                        assert!(!self.paused[wanted.partition.0 as usize], "asked for");
                    }
                    self.under_way.push((id, node.shard.0, request));
                }
                Action::RefreshTopic { name, id } => {
                    let leaders = self.logs.iter();
                    let leaders = leaders.map(|log| Some(leader(log.shard, log.epoch)));
                    let topic = Topic {
                        name,
                        id,
                        leaders: leaders.collect(),
                        heard_at: self.now,
                    };
                    self.apply(Event::TopicLearned(topic.into()));
                }
                Action::Warn(ConsumeError::LogTruncated {
                    partition,
                    diverged_at,
                    ..
                }) => self.cut(partition.0 as usize, diverged_at.0),
                Action::Warn(error) => panic!("no policy for this: {error}"),
                Action::ForgetTopic(_) => panic!("no topic is deleted here"),
            }
        }
    }

    fn cut(&mut self, partition: usize, from: i64) {
        self.views[partition].retain(|offset, _| *offset < from);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append { partition, count } => {
                let log = &mut self.logs[partition];
                log.batches.push(batch(log.end, count, log.epoch));
                log.end += count;
            }
            Step::Fork { partition, cut } => {
                let log = &mut self.logs[partition];
                log.epoch += 1;
                log.shard = 1 - log.shard;
                let keep = log.batches.len().saturating_sub(cut).max(1);
                log.batches.truncate(keep);
                let end = log
                    .headers()
                    .last()
                    .map_or(log.end, |(it, _)| it.next_offset().0);
                log.end = end;
                // A leader begins its epoch with a record, or the cut could not be told.
                self.step(Step::Append {
                    partition,
                    count: 1,
                });
            }
            Step::Trim { partition, batches } => {
                let log = &mut self.logs[partition];
                let gone = batches.min(log.batches.len().saturating_sub(1));
                log.batches.drain(..gone);
                let start = log
                    .headers()
                    .next()
                    .map_or(log.start, |(it, _)| it.base_offset.0);
                log.start = start;
            }
            Step::Exchange { which } => self.exchange(which),
            Step::Lose { which } => {
                if let Some((id, ..)) = self.pick(which) {
                    let error = RequestError::ConnectionLost {
                        address: "a:1".into(),
                        reason: "it broke".into(),
                    };
                    self.apply(Event::FetchFailed(id, error));
                }
            }
            Step::Take { items } => self.take(items),
            Step::Seek { partition, back } => {
                let index = u32::try_from(partition).expect("few");
                let position = self.machine.position(at(index)).expect("assigned").0;
                // Read anew from there on; what is known from before is no longer checked.
                let to = (position - back).max(0);
                self.views[partition].clear();
                self.apply(assigned(index, to));
            }
            Step::Pause { partition } => {
                let index = u32::try_from(partition).expect("few");
                self.paused[partition] = true;
                self.apply(Event::Paused(at(index)));
            }
            Step::Resume { partition } => {
                let index = u32::try_from(partition).expect("few");
                self.paused[partition] = false;
                self.apply(Event::Resumed(at(index)));
            }
            Step::Wait { ms } => {
                self.now += Duration::from_millis(ms);
                self.apply(Event::Ticked);
            }
        }
    }

    fn pick(&mut self, which: usize) -> Option<(FetchId, u32, FetchRequest)> {
        let count = self.under_way.len();
        (count > 0).then(|| self.under_way.remove(which % count))
    }

    fn exchange(&mut self, which: usize) {
        let Some((id, shard, request)) = self.pick(which) else {
            return;
        };
        let mut results = Vec::new();
        let mut records = Vec::new();
        for wanted in &request.partitions {
            let index = wanted.partition.0;
            let (result, bytes) = self.logs[index as usize].fetch(index, shard, wanted);
            results.push(result);
            records.extend(bytes);
        }
        self.apply(Event::Fetched(id, results, Bytes::from(records)));
    }

    fn take(&mut self, items: usize) {
        for _ in 0..items {
            match self.machine.take(true) {
                None => break,
                Some(Item::Batch(batch)) => {
                    assert!(!self.paused[batch.partition().0 as usize], "handed out");
                    let view = &mut self.views[batch.partition().0 as usize];
                    for record in batch.records().expect("valid") {
                        let next = view.last_key_value().map(|(last, _)| last + 1);
                        assert!(next.is_none_or(|next| next == record.offset.0), "in order");
                        let value = record.value.expect("set").to_vec();
                        view.insert(record.offset.0, String::from_utf8(value).expect("text"));
                    }
                }
                Some(Item::Obstacle(at, error)) => self.overcome(at.partition.0, error),
            }
        }
        self.apply(Event::Ticked);
    }

    /// Does what the error advises.
    fn overcome(&mut self, index: u32, error: ConsumeError) {
        let to = match error {
            ConsumeError::LogTruncated { diverged_at, .. } => {
                self.cut(index as usize, diverged_at.0);
                diverged_at.0
            }
            ConsumeError::OffsetOutOfRange { log_start, .. } => {
                self.views[index as usize].clear();
                log_start.0
            }
            error => panic!("nothing here fails so: {error}"),
        };
        self.apply(assigned(index, to));
    }

    /// No more changes: everything is read, and it is what the logs hold.
    fn finish(&mut self) {
        for partition in 0..PARTITIONS {
            self.step(Step::Resume { partition });
        }
        for _ in 0..2000 {
            self.exchange(0);
            self.take(10);
            let ended = |(log, index): (&Log, u32)| {
                self.machine.position(at(index)) == Some(Offset(log.end))
            };
            // The last replies are awaited too: they may yet tell of a cut.
            let quiet = self.under_way.iter().all(|(_, shard, request)| {
                request.partitions.iter().all(|it| {
                    let log = &self.logs[it.partition.0 as usize];
                    let current = log.fetch(it.partition.0, *shard, it).0;
                    current.error == ErrorCode::None && current.diverging.is_none()
                })
            });
            let waiting: usize = self.under_way.iter().map(|it| it.2.partitions.len()).sum();
            if self.logs.iter().zip(0..).all(ended) && quiet && waiting == PARTITIONS {
                return self.compare();
            }
            self.now += Duration::from_millis(10);
            self.apply(Event::Ticked);
        }
        panic!("it does not get to the end: {:?}", self.machine);
    }

    fn compare(&self) {
        for (log, view) in self.logs.iter().zip(&self.views) {
            let mut held = BTreeMap::new();
            for (header, _) in log.headers() {
                for offset in header.base_offset.0..header.next_offset().0 {
                    held.insert(offset, format!("{offset}e{}", header.leader_epoch));
                }
            }
            for (offset, value) in view {
                // What has been trimmed since can't be compared.
                if *offset >= log.start {
                    assert_eq!(held.get(offset), Some(value), "offset {offset}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_handed_out_is_what_the_log_holds(
        steps in proptest::collection::vec(step(), 0..150),
        continues in any::<bool>(),
        prefetch_bytes in prop_oneof![Just(1usize), Just(400), Just(1 << 20)],
    ) {
        let policy = if continues { TruncationPolicy::Continue } else { TruncationPolicy::Error };
        let mut world = World::new(policy, prefetch_bytes);
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}
