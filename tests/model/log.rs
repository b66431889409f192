//! A partition's log against a list of batches.

use std::{rc::Rc, time::Duration};

use millstream::{
    io::{
        Clock,
        sim::{Sim, SimIo},
    },
    storage::{Log, ReadError},
};
use millstream_protocol::{LeaderEpoch, Offset};
use proptest::prelude::*;

use crate::oracle::{
    Batch, Shared, append, batch, disk, open, options, snapshot, storage_with_journal,
};

#[derive(Clone, Debug)]
enum Step {
    Append {
        record_count: u32,
        size: usize,
        salt: u64,
    },
    /// Offsets in thousandths of the log.
    Read {
        from: i64,
        length: i64,
        max_bytes: usize,
    },
    FindTime {
        at: i64,
    },
    Trim {
        to: i64,
    },
    Truncate {
        to: i64,
    },
    Checkpoint,
    Sleep {
        millis: u64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 1..500usize, 2 => 500..9000usize, 1 => 9000..70_000usize];
    prop_oneof![
        8 => (1..4u32, size, any::<u64>()).prop_map(|(record_count, size, salt)| Step::Append {
            record_count,
            size,
            salt
        }),
        6 => (0..1000i64, 0..1000i64, 0..200_000usize).prop_map(|(from, length, max_bytes)| {
            Step::Read { from, length, max_bytes }
        }),
        2 => (0..1200i64).prop_map(|at| Step::FindTime { at }),
        1 => (0..1000i64).prop_map(|to| Step::Trim { to }),
        1 => (500..1000i64).prop_map(|to| Step::Truncate { to }),
        1 => Just(Step::Checkpoint),
        2 => (0..300u64).prop_map(|millis| Step::Sleep { millis }),
        1 => Just(Step::Reopen),
    ]
}

/// The log as it should be.
#[derive(Default)]
struct Model {
    batches: Vec<Batch>,
    log_start: Offset,
}

impl Model {
    fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, |batch| batch.next)
    }

    fn offset(&self, thousandths: i64) -> Offset {
        let length = self.end().0 - self.log_start.0;
        Offset(self.log_start.0 + length * thousandths / 1000)
    }

    /// What a read must give if nothing but the limits cuts it short.
    fn read(&self, from: Offset, up_to: Offset) -> Vec<u8> {
        let within = |batch: &&Batch| batch.next > from && batch.next <= up_to;
        let batches = self.batches.iter().filter(within);
        batches.flat_map(|batch| batch.bytes.clone()).collect()
    }

    fn find_time(&self, timestamp_ms: i64) -> Option<(Offset, i64)> {
        let present = self
            .batches
            .iter()
            .filter(|batch| batch.next > self.log_start);
        let mut times = present.map(|batch| (batch.base, batch.max_timestamp_ms()));
        times.find(|(_, max)| *max >= timestamp_ms)
    }
}

async fn read(log: &Log<SimIo>, model: &Model, from: Offset, up_to: Offset, max_bytes: usize) {
    let slices = log.read(from, up_to, max_bytes).await.expect("a read");
    let bytes: Vec<u8> = slices
        .iter()
        .flat_map(|slice| slice.bytes().to_vec())
        .collect();
    let expected = model.read(from, up_to);
    assert!(
        expected.starts_with(&bytes),
        "other records than were appended"
    );
    let first = model.batches.iter().find(|batch| batch.next > from);
    let first = first
        .filter(|batch| batch.next <= up_to)
        .map_or(0, |batch| batch.bytes.len());
    assert!(bytes.len() >= first, "at least the first batch");
    assert!(
        bytes.len() <= max_bytes.max(first),
        "no more than was asked for"
    );
    let whole = model
        .batches
        .iter()
        .any(|batch| bytes.ends_with(&batch.bytes));
    assert!(bytes.is_empty() || whole, "whole batches");
}

async fn run(io: SimIo, steps: Vec<Step>) {
    let storage = storage_with_journal(&io, true).await;
    let storage = storage.expect("a disk that works");
    let shared = Shared::default();
    let mut model = Model::default();
    let (mut log, _, _) = open(&storage, options(), &shared).await;
    for step in steps {
        apply(&io, &mut log, &shared, &mut model, step).await;
        assert_eq!(
            (log.log_start(), log.log_end()),
            (model.log_start, model.end())
        );
        let past = Offset(model.end().0 + 1);
        let beyond = log.read(past, past, 1).await;
        assert!(matches!(beyond, Err(ReadError::OutOfRange { .. })));
    }
    io.sleep(Duration::from_secs(1)).await;
    assert_eq!(log.durable_end(), model.end());
    let stats = log.stats();
    assert_eq!(stats.unflushed_bytes, 0);
    assert_eq!(storage.counters().unflushed_bytes, 0);
    assert!(stats.physical_bytes >= stats.logical_bytes);
}

async fn apply(
    io: &SimIo,
    log: &mut Rc<Log<SimIo>>,
    shared: &Shared,
    model: &mut Model,
    step: Step,
) {
    match step {
        Step::Append {
            record_count,
            size,
            salt,
        } => {
            let batch = batch(log.log_end(), LeaderEpoch(0), record_count, size, salt);
            append(shared, log, batch.clone()).expect("an append");
            model.batches.push(batch);
        }
        Step::Read {
            from,
            length,
            max_bytes,
        } => {
            let from = model.offset(from);
            let up_to = Offset(from.0 + (model.end().0 - from.0) * length / 1000);
            read(log, model, from, up_to, max_bytes).await;
        }
        Step::FindTime { at } => {
            let timestamp_ms = model.offset(at).0 * 10;
            let found = log.find_time(timestamp_ms).await.expect("a search");
            assert_eq!(found, model.find_time(timestamp_ms));
        }
        Step::Trim { to } => {
            let to = model.offset(to);
            log.set_log_start(to).await.expect("a trim");
            model.log_start = to;
        }
        Step::Truncate { to } => {
            let to = model.offset(to);
            let kept = model.batches.iter().rev().find(|batch| batch.next <= to);
            if kept.map_or(Offset::ZERO, |batch| batch.next) < model.log_start {
                return;
            }
            log.truncate(to).await.expect("a truncation");
            model.batches.retain(|batch| batch.next <= to);
            let oracle = &mut *shared.0.borrow_mut();
            oracle.batches.clone_from(&model.batches);
            oracle.acknowledged = model.end();
        }
        Step::Checkpoint => {
            let snapshot = snapshot(log.log_end());
            log.checkpoint(snapshot).await.expect("a checkpoint");
        }
        Step::Sleep { millis } => io.sleep(Duration::from_millis(millis)).await,
        Step::Reopen => {
            log.close(snapshot(model.end()))
                .await
                .expect("a clean stop");
            let storage = storage_with_journal(io, true).await;
            let storage = storage.expect("a disk that works");
            let (again, recovered, _) = open(&storage, options(), shared).await;
            assert_eq!((recovered.damage, recovered.report), (None, None));
            *log = again;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_log_is_a_list_of_batches(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..60)) {
        Sim::new(seed).with_disk(&disk()).run(|io| run(io, steps));
    }
}

/// The record before the cut is trimmed, and found all the same.
#[test]
fn a_log_may_be_cut_at_its_start() {
    let append = |salt| Step::Append {
        record_count: 1,
        size: 1,
        salt,
    };
    let steps = vec![
        append(0),
        append(1),
        Step::Trim { to: 500 },
        Step::Truncate { to: 500 },
        append(2),
    ];
    Sim::new(0).with_disk(&disk()).run(|io| run(io, steps));
}
