//! A log under compaction against a map: what is left always has the last value of each key, in order, and
//! nothing that was not appended; and tombstones stay for their time.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use millstream::{
    io::{
        Clock, Random,
        sim::{DiskTimes, Sim, SimIo},
    },
    storage::{CompactionOptions, Log, LogOptions, Pace, ShardStorage},
};
use millstream_protocol::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch::{BatchBuilder, BatchHeader, Batches, Compression, DecodedBatch, NO_HEADERS, place},
};
use proptest::prelude::*;

use crate::oracle::{Batch, Shared, append, disk, open, snapshot, storage_with_journal};

/// A tombstone is kept for so long, in milliseconds.
const DELETE_RETENTION_MS: i64 = 5_000;

#[derive(Clone, Debug)]
struct Input {
    key: Option<u8>,
    /// `None` is a tombstone.
    size: Option<usize>,
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        records: Vec<Input>,
        codec: usize,
        salt: u64,
    },
    Compact {
        memory: usize,
    },
    Read {
        from: i64,
    },
    /// Reads while a pass is under way.
    ReadMeanwhile {
        from: i64,
    },
    Trim {
        to: i64,
    },
    Truncate {
        to: i64,
    },
    Lead,
    Checkpoint,
    Sleep {
        millis: u64,
    },
    Reopen {
        lose_snapshot: bool,
    },
}

fn input() -> impl Strategy<Value = Input> {
    let key = prop_oneof![20 => (0..30_u8).prop_map(Some), 1 => Just(None)];
    let size = prop_oneof![
        2 => Just(None),
        6 => (0..300_usize).prop_map(Some),
        2 => (1000..12_000_usize).prop_map(Some),
    ];
    (key, size).prop_map(|(key, size)| Input { key, size })
}

fn step() -> impl Strategy<Value = Step> {
    let append = (
        prop::collection::vec(input(), 1..6),
        0..5_usize,
        any::<u64>(),
    );
    prop_oneof![
        20 => append.prop_map(|(records, codec, salt)| Step::Append { records, codec, salt }),
        4 => prop_oneof![Just(0), Just(1 << 20)].prop_map(|memory| Step::Compact { memory }),
        2 => (0..1000_i64).prop_map(|from| Step::Read { from }),
        3 => (0..1000_i64).prop_map(|from| Step::ReadMeanwhile { from }),
        1 => (0..300_i64).prop_map(|to| Step::Trim { to }),
        1 => (700..1000_i64).prop_map(|to| Step::Truncate { to }),
        1 => Just(Step::Lead),
        3 => Just(Step::Checkpoint),
        2 => (0..4000_u64).prop_map(|millis| Step::Sleep { millis }),
        1 => any::<bool>().prop_map(|lose_snapshot| Step::Reopen { lose_snapshot }),
    ]
}

/// A record as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_ms: i64,
    /// Since when it may be compacted, at the earliest.
    appended_ms: i64,
}

/// Everything that was ever appended and not cut, by offset.
#[derive(Default)]
struct Model {
    records: BTreeMap<i64, Record>,
    ends: Vec<Offset>,
    start: Offset,
    epoch: i32,
    end: Offset,
    /// Compaction went by what lies below.
    clean: Offset,
}

impl Model {
    fn offset(&self, thousandths: i64) -> Offset {
        Offset(self.start.0 + (self.end.0 - self.start.0) * thousandths / 1000)
    }

    /// What has to be there from `from` on: the last record of each key, and what has no key.
    fn needed(&self, from: Offset, now_ms: i64) -> Vec<i64> {
        let mut last = BTreeMap::new();
        for (offset, record) in &self.records {
            if let Some(key) = &record.key {
                last.insert(key.clone(), *offset);
            }
        }
        let needed = self.records.range(from.0..).filter(|(offset, record)| {
            let newest = record.key.as_ref().is_none_or(|key| last[key] == **offset);
            let expired = record.key.is_some()
                && record.value.is_none()
                && now_ms - record.appended_ms >= DELETE_RETENTION_MS;
            newest && !expired
        });
        needed.map(|(offset, _)| *offset).collect()
    }
}

fn options() -> LogOptions {
    LogOptions {
        segment_size: 64 << 10,
        ..LogOptions::default()
    }
}

/// A record as it was read, with its offset.
type Seen = (i64, Option<Vec<u8>>, Option<Vec<u8>>, i64);

/// Every record from `from` up to `up_to`, batch by batch.
async fn read(log: &Log<SimIo>, from: Offset, up_to: Offset) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut at = from;
    while at < up_to {
        let slices = log.read(at, up_to, 30_000).await.expect("a read");
        assert!(!slices.is_empty(), "nothing at {at}, end {up_to}");
        for slice in &slices {
            for batch in Batches::checked(slice.bytes()) {
                let (header, bytes) = batch.expect("a batch");
                assert!(header.next_offset() > at, "batches follow each other");
                at = header.next_offset();
                let opened = DecodedBatch::open(bytes).expect("a batch");
                for record in opened.records() {
                    let record = record.expect("a record");
                    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                    seen.push((
                        record.offset.0,
                        owned(record.key),
                        owned(record.value),
                        record.timestamp_ms,
                    ));
                }
            }
        }
    }
    seen.retain(|record| record.0 >= from.0);
    seen
}

/// What was read has all that is needed, in order, and nothing else than what was appended.
fn check(model: &Model, from: Offset, now_ms: i64, seen: &[Seen]) {
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "order never changes");
    for (offset, key, value, timestamp_ms) in seen {
        let record = model.records.get(offset).expect("nothing is invented");
        assert_eq!(
            (key, value),
            (&record.key, &record.value),
            "offset {offset}"
        );
        assert_eq!(*timestamp_ms, record.timestamp_ms, "offset {offset}");
    }
    let found: Vec<i64> = seen.iter().map(|record| record.0).collect();
    for offset in model.needed(from, now_ms) {
        assert!(found.binary_search(&offset).is_ok(), "{offset} is lost");
    }
    // Where a key is deleted for good, an older value must not come back.
    let last_seen: BTreeMap<_, _> = seen.iter().map(|it| (it.1.clone(), it.0)).collect();
    for (key, offset) in last_seen.iter().filter(|(key, _)| key.is_some()) {
        let later = model.records.range(offset + 1..);
        let superseded = later.filter(|(_, record)| record.key == *key).count();
        assert_eq!(
            superseded, 0,
            "a value before the last one of its key is the last there"
        );
    }
}

struct World {
    io: SimIo,
    storage: Rc<ShardStorage<SimIo>>,
    log: Rc<Log<SimIo>>,
    shared: Shared,
    model: Model,
    pace: Rc<Pace>,
}

impl World {
    async fn begin(io: SimIo, options: LogOptions) -> Self {
        let storage = storage_with_journal(&io, true).await.expect("a journal");
        let shared = Shared::default();
        let (log, ..) = open(&storage, options, &shared).await;
        Self {
            io,
            storage,
            log,
            shared,
            model: Model::default(),
            pace: Rc::new(Pace::new(64 << 20)),
        }
    }

    fn append(&mut self, records: &[Input], codec: usize, salt: u64) {
        let base = self.log.log_end();
        let mut builder = BatchBuilder::new();
        for (at, input) in (0_i64..).zip(records) {
            let key = input.key.map(|key| vec![key; 3]);
            let fill = salt.to_le_bytes();
            let value = input.size.map(|size| {
                let bytes = (0..size).map(|at| fill[at % 8] ^ (at.to_le_bytes()[0] / 16));
                bytes.collect::<Vec<u8>>()
            });
            let timestamp_ms = base.0 * 10 + i64::from(fill[0]) - at;
            let pushed = builder.push(timestamp_ms, key.as_deref(), value.as_deref(), NO_HEADERS);
            pushed.expect("a small record");
            let record = Record {
                key,
                value,
                timestamp_ms,
                appended_ms: self.io.wall_ms(),
            };
            self.model.records.insert(base.0 + at, record);
        }
        let producer = (ProducerId(1), ProducerEpoch(0), 0);
        let epoch = LeaderEpoch(self.model.epoch);
        let mut bytes = builder.finish(Some(producer), Compression::ALL[codec]);
        place(&mut bytes, base, epoch);
        let next = BatchHeader::decode(&bytes).expect("a batch").next_offset();
        let batch = Batch {
            base,
            next,
            epoch,
            bytes,
        };
        append(&self.shared, &self.log, batch).expect("an append");
        self.model.ends.push(next);
        self.model.end = next;
    }

    async fn settle(&self) {
        let end = self.log.log_end();
        while self.shared.0.borrow().acknowledged < end {
            self.io.sleep(Duration::from_millis(1)).await;
        }
    }

    fn options(memory: usize) -> CompactionOptions {
        CompactionOptions {
            delete_retention_ms: DELETE_RETENTION_MS,
            min_lag_ms: 0,
            memory,
            ..CompactionOptions::default()
        }
    }

    /// Passes until there is no more to do.
    async fn compact(&self, memory: usize) {
        let compact = || self.log.compact(Self::options(memory), &self.pace);
        while compact().await.expect("a pass").more {}
        let segments = self.log.stats().segments;
        let last = segments
            .last()
            .map_or(Offset::ZERO, |last| last.base_offset);
        assert!(segments.is_sorted_by(|a, b| a.next_offset == b.base_offset));
        assert!(last <= self.log.log_end());
    }

    async fn check_from(&self, from: Offset) {
        let seen = read(&self.log, from, self.log.log_end()).await;
        let needed_at = self.io.wall_ms();
        check(&self.model, from, needed_at, &seen);
    }

    async fn read_meanwhile(&self, from: Offset) {
        let log = Rc::clone(&self.log);
        let pace = Rc::clone(&self.pace);
        let done = Rc::new(std::cell::Cell::new(false));
        let flag = Rc::clone(&done);
        use millstream::io::{TaskClass, Tasks};
        self.io.spawn(TaskClass::Background, async move {
            log.compact(Self::options(1 << 20), &pace)
                .await
                .expect("a pass");
            flag.set(true);
        });
        // Several, beginning in different places: each finds the segments in another state.
        let readers = (0..4).map(|reader| {
            let from = Offset((from.0 + reader * 7).min(self.log.log_end().0));
            let done = Rc::clone(&done);
            async move {
                while !done.get() {
                    self.check_from(from).await;
                    let pause = 100 + 70 * u64::try_from(reader).expect("a small number");
                    self.io.sleep(Duration::from_micros(pause)).await;
                }
            }
        });
        futures_util::future::join_all(readers).await;
        self.check_from(from).await;
    }

    async fn truncate(&mut self, to: Offset) {
        self.settle().await;
        // What compaction went by is durable and stays.
        let known = self.log.know_compaction().await;
        known.expect("first blocks can be read");
        let segments = self.log.stats().segments;
        let clean = segments.iter().filter_map(|it| it.compaction);
        let clean = clean.map(|mark| mark.clean_end).max();
        let clean = clean.map_or(self.model.clean, |clean| clean.max(self.model.clean));
        self.model.clean = clean;
        let to = to.max(clean);
        let end = self.log.truncate(to).await.expect("a cut");
        assert!(end <= to);
        self.model.records.retain(|offset, _| *offset < end.0);
        self.model.ends.retain(|it| *it <= end);
        self.model.end = end;
        let oracle = &mut *self.shared.0.borrow_mut();
        oracle.batches.retain(|batch| batch.next <= end);
        oracle.acknowledged = end;
        self.model.epoch += 1;
    }

    async fn reopen(&mut self, lose_snapshot: bool) {
        let end = self.log.log_end();
        // What no observer takes for a snapshot makes recovery read everything.
        let state = if lose_snapshot {
            vec![1]
        } else {
            snapshot(end)
        };
        self.log.close(state).await.expect("a clean stop");
        self.storage.close(true).await.expect("a clean stop");
        self.storage = storage_with_journal(&self.io, true)
            .await
            .expect("a journal");
        let (log, recovered, seen) = open(&self.storage, options(), &self.shared).await;
        assert_eq!(recovered.damage, None);
        assert_eq!(
            (recovered.log_end, recovered.log_start),
            (end, self.model.start)
        );
        let shown = seen.batches.last().map(BatchHeader::next_offset);
        assert_eq!(shown.unwrap_or(seen.snapshot), end);
        self.log = log;
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append {
                records,
                codec,
                salt,
            } => self.append(&records, codec, salt),
            Step::Compact { memory } => self.compact(memory).await,
            Step::Read { from } => self.check_from(self.model.offset(from)).await,
            Step::ReadMeanwhile { from } => {
                self.read_meanwhile(self.model.offset(from)).await;
            }
            Step::Trim { to } => {
                let to = self.model.offset(to);
                self.settle().await;
                self.log.set_log_start(to).await.expect("a trim");
                self.model.start = to;
            }
            Step::Truncate { to } => {
                let to = self.model.offset(to);
                self.truncate(to).await;
            }
            Step::Lead => self.model.epoch += 1,
            Step::Checkpoint => {
                let state = snapshot(self.log.log_end());
                self.log.checkpoint(state).await.expect("a checkpoint");
            }
            Step::Sleep { millis } => self.io.sleep(Duration::from_millis(millis)).await,
            Step::Reopen { lose_snapshot } => self.reopen(lose_snapshot).await,
        }
    }
}

async fn run(io: SimIo, steps: Vec<Step>) -> u64 {
    let mut world = World::begin(io, options()).await;
    for step in steps {
        world.step(step).await;
    }
    world.settle().await;
    let state = snapshot(world.log.log_end());
    world.log.checkpoint(state).await.expect("a checkpoint");
    world.compact(1 << 20).await;
    world.check_from(world.model.start).await;
    world.reopen(true).await;
    world.check_from(world.model.start).await;
    let marked = world.log.know_compaction().await;
    marked.expect("first blocks can be read");
    let segments = world.log.stats().segments;
    segments.iter().filter(|it| it.compaction.is_some()).count() as u64
}

#[test]
fn what_is_left_is_what_the_map_holds() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        ..ProptestConfig::default()
    });
    let compacted = std::cell::Cell::new(0);
    let steps = prop::collection::vec(step(), 1..120);
    let ran = runner.run(&steps, |steps| {
        let disk = disk();
        let mut sim = Sim::new(1).with_disk(&disk);
        compacted.set(compacted.get() + sim.run(|io| run(io, steps)));
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("{failure}");
    }
    assert!(compacted.get() > 100, "only {} segments", compacted.get());
}

/// One key again and again: one record of the closed segments is left, however little memory there is.
#[test]
fn many_keys_and_little_memory_take_several_passes() {
    let disk = disk();
    Sim::new(2).with_disk(&disk).run(|io| async move {
        let mut world = World::begin(io, options()).await;
        for round in 0..600_u64 {
            let records: Vec<Input> = (0..8)
                .map(|at| Input {
                    key: Some(u8::try_from((round * 8 + at) % 200).expect("below 200")),
                    size: Some(500),
                })
                .collect();
            world.append(&records, 0, round);
            if round % 10 == 0 {
                world.settle().await;
            }
        }
        world.settle().await;
        let state = snapshot(world.log.log_end());
        world.log.checkpoint(state).await.expect("a checkpoint");
        let before = world.log.stats().logical_bytes;
        // Six keys at a time.
        let mut passes = 0;
        while world
            .log
            .compact(World::options(0), &world.pace)
            .await
            .expect("a pass")
            .more
        {
            passes += 1;
        }
        let after = world.log.stats().logical_bytes;
        world.check_from(Offset::ZERO).await;
        assert!(passes > 100, "{passes} passes");
        assert!(after * 3 < before, "{before} bytes, then {after}");
    });
}

/// Readers everywhere while segments are replaced under them: each read finds what lies at its offset or
/// follows it, and none fails.
#[test]
fn readers_on_their_way_do_not_notice() {
    let micros = Duration::from_micros;
    // Opening a file may take longer than it takes to put another in its place.
    let slow_opens = DiskTimes {
        flush: (micros(10), micros(500)),
        metadata: (micros(10), micros(4_000)),
        ..DiskTimes::default()
    };
    for times in [DiskTimes::default(), slow_opens] {
        readers_jump_about(times);
    }
}

fn readers_jump_about(times: DiskTimes) {
    let disk = disk();
    disk.set_times(times);
    Sim::new(3).with_disk(&disk).run(|io| async move {
        // Large enough that an index leads into the middle of a segment, where nothing stays in its place.
        let options = LogOptions {
            segment_size: 400 << 10,
            ..LogOptions::default()
        };
        let mut world = World::begin(io, options).await;
        let mut reads = 0;
        for round in 0..6_u64 {
            for batch in 0..180 {
                let key = |at| u8::try_from((batch * 5 + at + round) % 90).expect("below 90");
                let input = |at| Input {
                    key: Some(key(at)),
                    size: Some(1500),
                };
                let records: Vec<Input> = (0..6).map(input).collect();
                world.append(&records, 0, (round << 8) ^ batch);
                if batch % 8 == 0 {
                    world.settle().await;
                }
            }
            world.settle().await;
            let state = snapshot(world.log.log_end());
            world.log.checkpoint(state).await.expect("a checkpoint");
            reads += world.read_everywhere(round).await;
        }
        assert!(reads > 5_000, "{reads} reads");
    });
}

impl World {
    /// Has readers jump about until a pass is over; gives how often they read.
    async fn read_everywhere(&self, seed: u64) -> u64 {
        let done = std::cell::Cell::new(false);
        let reads = std::cell::Cell::new(0);
        let end = self.log.log_end();
        let readers = (0..12_u64).map(|reader| {
            let (done, reads) = (&done, &reads);
            async move {
                let mut random = Random::new(seed * 100 + reader);
                let length = u64::try_from(end.0).expect("a length");
                while !done.get() {
                    let at = i64::try_from(random.below(length)).expect("an offset");
                    let slices = self.log.read(Offset(at), end, 1).await.expect("a read");
                    let header = BatchHeader::decode(slices[0].bytes()).expect("a batch");
                    assert!(header.next_offset() > Offset(at));
                    reads.set(reads.get() + 1);
                }
            }
        });
        let pass = async {
            self.compact(1 << 20).await;
            done.set(true);
        };
        futures_util::future::join(futures_util::future::join_all(readers), pass).await;
        reads.get()
    }
}
