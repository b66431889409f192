//! What a log must hold after a crash, kept outside the simulation that dies.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use millstream::{
    io::{
        Disk,
        sim::{Sim, SimDisk, SimIo},
    },
    storage::{
        Log, LogError, LogListener, LogOptions, ReadError, Recovered, RecoveryChecks,
        RecoveryObserver, Replay, ShardStorage, SnapshotRejected, StorageConfig,
    },
};
use millstream_protocol::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId, TopicPartition,
    batch::{BatchBuilder, BatchHeader, Compression, NO_HEADERS, place},
};

/// One appended batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub base: Offset,
    pub next: Offset,
    pub epoch: LeaderEpoch,
    pub bytes: Vec<u8>,
}

/// What was done to the log, as far as its user knows.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Everything appended and not cut since.
    pub batches: Vec<Batch>,
    /// Everything below was acknowledged.
    pub acknowledged: Offset,
    /// The log's start, and where it may be moving to.
    pub log_start: Offset,
    pub log_start_asked: Offset,
    /// Where a truncation under way will cut: nothing above may be counted on any more.
    pub cutting: Option<Offset>,
    /// Acknowledged means no more than "in memory".
    pub buffered: bool,
    /// The log failed.
    pub failed: bool,
    /// Batches that were appended and refused for want of space.
    pub refused: usize,
    pub checkpoints_wanted: u32,
}

/// The oracle as the log's listener.
#[derive(Clone, Default)]
pub struct Shared(pub Rc<RefCell<Oracle>>);

impl Batch {
    /// Its largest record timestamp.
    pub fn max_timestamp_ms(&self) -> i64 {
        let header = BatchHeader::decode(&self.bytes).expect("a batch");
        header.max_timestamp_ms
    }
}

/// Appends a batch to a log, and tells the oracle.
pub fn append(shared: &Shared, log: &Log<SimIo>, batch: Batch) -> Result<(), LogError> {
    let max_timestamp_ms = batch.max_timestamp_ms();
    // The oracle knows first: the log may be persisting it before append returns.
    shared.0.borrow_mut().batches.push(batch.clone());
    let Batch {
        base, next, epoch, ..
    } = batch;
    let appended = log.append(&batch.bytes, base, next, epoch, max_timestamp_ms, 1);
    if appended.is_err() {
        shared.0.borrow_mut().batches.pop();
    }
    appended
}

impl LogListener for Shared {
    fn persisted(&self, up_to: Offset) {
        let mut oracle = self.0.borrow_mut();
        assert!(up_to > oracle.acknowledged, "acknowledgements only grow");
        assert!(
            up_to <= oracle.end(),
            "what was not appended is not acknowledged"
        );
        assert!(!oracle.failed, "nothing is acknowledged after a failure");
        oracle.acknowledged = up_to;
    }

    fn refused(&self, end: Offset, error: &LogError) {
        assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
        let mut oracle = self.0.borrow_mut();
        assert!(end >= oracle.acknowledged, "what was acknowledged stays");
        let before = oracle.batches.len();
        oracle.batches.retain(|batch| batch.next <= end);
        assert_eq!(oracle.end(), end, "whole batches are refused");
        oracle.refused += before - oracle.batches.len();
    }

    fn failed(&self, _error: &LogError) {
        let mut oracle = self.0.borrow_mut();
        assert!(!oracle.failed, "a log fails once");
        oracle.failed = true;
    }

    fn checkpoint_wanted(&self) {
        self.0.borrow_mut().checkpoints_wanted += 1;
    }
}

impl Oracle {
    /// The log's end.
    pub fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, |batch| batch.next)
    }

    /// What is wrong with a recovered log, if anything.
    pub fn verdict(&self, found: &Found) -> Result<(), String> {
        let Recovered {
            log_start,
            log_end,
            damage,
            ..
        } = &found.recovered;
        if let Some(damage) = damage {
            return Err(format!("damage where there is none: {damage:?}"));
        }
        if *log_start < self.log_start || *log_start > self.log_start_asked {
            return Err(format!("the log's start is {log_start}"));
        }
        let acknowledged = self
            .cutting
            .unwrap_or(self.acknowledged)
            .min(self.acknowledged);
        if *log_end < acknowledged && !self.buffered {
            return Err(format!(
                "acknowledged up to {acknowledged}, ends at {log_end}"
            ));
        }
        let kept = self.batches.iter().filter(|batch| batch.next <= *log_end);
        if kept
            .clone()
            .next_back()
            .map_or(Offset::ZERO, |batch| batch.next)
            != *log_end
        {
            return Err(format!("the log's end {log_end} is no batch's"));
        }
        let expected = kept.clone().filter(|batch| batch.next > *log_start);
        let expected: Vec<u8> = expected.flat_map(|batch| batch.bytes.clone()).collect();
        if found.bytes != expected {
            return Err("the records are not those that were appended".to_owned());
        }
        self.check_observer(found)?;
        self.check_epochs(found)
    }

    fn check_observer(&self, found: &Found) -> Result<(), String> {
        let seen = &found.seen;
        let mut next = seen.snapshot;
        for header in &seen.batches {
            if header.base_offset > next && next >= found.recovered.log_start {
                return Err(format!(
                    "a batch before {} was not shown",
                    header.base_offset
                ));
            }
            next = header.next_offset();
        }
        let end = found.recovered.log_end;
        if next != end && !(seen.batches.is_empty() && next == Offset::ZERO && end == next) {
            return Err(format!(
                "batches were shown up to {next}, the log ends at {end}"
            ));
        }
        Ok(())
    }

    fn check_epochs(&self, found: &Found) -> Result<(), String> {
        let Recovered {
            log_start,
            log_end,
            epochs,
            ..
        } = &found.recovered;
        let mut expected: Vec<(LeaderEpoch, Offset)> = Vec::new();
        for batch in self.batches.iter().filter(|batch| batch.next <= *log_end) {
            if expected.last().is_none_or(|(last, _)| *last < batch.epoch) {
                expected.push((batch.epoch, batch.base));
            }
        }
        let above = |list: &[(LeaderEpoch, Offset)]| {
            let below = list.partition_point(|(_, start)| start <= log_start);
            list[below.saturating_sub(usize::from(below > 0))..].to_vec()
        };
        let (mut expected, mut actual) = (above(&expected), above(epochs));
        // Where the log's start lies inside an epoch, only its number is certain.
        for list in [&mut expected, &mut actual] {
            if let Some(first) = list.first_mut() {
                first.1 = first.1.max(*log_start);
            }
        }
        if actual == expected {
            return Ok(());
        }
        Err(format!("epochs {actual:?}, expected {expected:?}"))
    }
}

/// What recovery showed to its observer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub snapshot: Offset,
    pub batches: Vec<BatchHeader>,
}

impl RecoveryObserver for Seen {
    fn snapshot(&mut self, bytes: &[u8]) -> Result<(), SnapshotRejected> {
        self.batches.clear();
        self.snapshot = match bytes.try_into() {
            Ok(bytes) => Offset(i64::from_le_bytes(bytes)),
            Err(_) if bytes.is_empty() => Offset::ZERO,
            Err(_) => return Err(SnapshotRejected),
        };
        Ok(())
    }

    fn batch(&mut self, header: &BatchHeader, _bytes: &[u8], _append_time_ms: i64) {
        self.batches.push(*header);
    }
}

/// A snapshot of producer state that covers everything below `end`.
pub fn snapshot(end: Offset) -> Vec<u8> {
    end.0.to_le_bytes().to_vec()
}

/// A log that was opened, and all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub recovered: Recovered,
    pub seen: Seen,
    pub bytes: Vec<u8>,
}

pub fn id() -> TopicPartition {
    TopicPartition {
        topic: TopicId("6a6f2c0e-5a6b-4f5e-9d0c-3c1c5d8f0a11".parse().unwrap()),
        partition: PartitionIndex(3),
    }
}

/// Number of the first life of every log.
pub const FIRST_LIFE: u64 = 1 << 40;

pub fn config() -> StorageConfig {
    StorageConfig {
        first_life: FIRST_LIFE,
        data_dir: "/data".into(),
        cache_size: 64 << 10,
        unflushed_limit: 16 << 20,
        open_files: 2,
        // Small, so that files are used again.
        journal_file_size: 96 << 10,
        journal_size_max: (3 * 96) << 10,
        prepared_size: 0,
        prepared_file_size: 128 << 10,
    }
}

/// Storage that has no journal: every append goes to its segment.
pub fn storage(io: &SimIo) -> Rc<ShardStorage<SimIo>> {
    storage_with_cache(io, config().cache_size)
}

/// The same with a cache of so many bytes.
pub fn storage_with_cache(io: &SimIo, cache_size: usize) -> Rc<ShardStorage<SimIo>> {
    let config = StorageConfig {
        cache_size,
        ..config()
    };
    ShardStorage::with_checks(io.clone(), config, Arc::default(), CHECKS.get())
}

/// Storage with what the last journal holds, and one of its own if asked for.
pub async fn storage_with_journal(
    io: &SimIo,
    journal: bool,
) -> Result<Rc<ShardStorage<SimIo>>, LogError> {
    let config = config();
    let replay = Replay::read(io, &config.data_dir).await?;
    let storage = ShardStorage::with_checks(io.clone(), config, replay, CHECKS.get());
    if journal {
        storage.start().await;
        storage.journal_started().await;
    }
    Ok(storage)
}

thread_local! {
    static CHECKS: Cell<RecoveryChecks> = Cell::default();
}

/// Runs a test with some checks of recovery left out.
pub fn with_checks<T>(checks: RecoveryChecks, test: impl FnOnce() -> T) -> T {
    CHECKS.set(checks);
    let result = test();
    CHECKS.set(RecoveryChecks::default());
    result
}

/// A disk with a durable data directory, which the broker makes before any log.
pub fn disk() -> SimDisk {
    let disk = SimDisk::new();
    Sim::new(0).with_disk(&disk).run(|io| async move {
        io.create_dir_all("/data".as_ref()).await.unwrap();
        io.sync_dir("/".as_ref()).await.unwrap();
    });
    disk
}

/// Small segments, so that a short workload rolls them.
pub fn options() -> LogOptions {
    LogOptions {
        segment_size: 128 << 10,
        ..LogOptions::default()
    }
}

/// A log, what its recovery found, and what it showed.
pub type Opened = (Rc<Log<SimIo>>, Recovered, Seen);

/// Opens the log.
pub async fn open(
    storage: &Rc<ShardStorage<SimIo>>,
    options: LogOptions,
    listener: &Shared,
) -> Opened {
    let opened = try_open(storage, options, listener).await;
    opened.expect("nothing stands against opening it")
}

/// Opens the log on a disk that may fail.
pub async fn try_open(
    storage: &Rc<ShardStorage<SimIo>>,
    options: LogOptions,
    listener: &Shared,
) -> Result<Opened, LogError> {
    let mut seen = Seen::default();
    let listener: Rc<dyn LogListener> = Rc::new(listener.clone());
    let opened = Log::open(storage, id(), options, listener, &mut seen).await;
    let opened = opened.map(|(log, recovered)| (log, recovered, seen))?;
    let removed = storage.finish_replay().await;
    removed.map_err(|error| LogError::Io {
        operation: "removing",
        path: "/data/journal".into(),
        error: Arc::new(error),
    })?;
    Ok(opened)
}

/// Opens the log on `io` and reads all of it.
pub async fn recover(io: SimIo) -> Found {
    let storage = storage_with_journal(&io, true).await;
    let storage = storage.expect("the journal can be read");
    let (log, mut recovered, seen) = open(&storage, options(), &Shared::default()).await;
    let read = read_all(&log, recovered.log_start, recovered.log_end).await;
    let bytes = read.expect("what was recovered can be read");
    // What was done is told once.
    recovered.report = None;
    Found {
        recovered,
        seen,
        bytes,
    }
}

/// All batches between two offsets, in reads of several sizes.
pub async fn read_all(log: &Log<SimIo>, from: Offset, up_to: Offset) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    let mut at = from;
    let mut max_bytes = 1;
    while at < up_to {
        let slices = log.read(at, up_to, max_bytes).await?;
        assert!(!slices.is_empty(), "no batch at {at}, end {up_to}");
        for slice in slices {
            let mut rest = slice.bytes();
            while !rest.is_empty() {
                let header = BatchHeader::decode(rest).expect("whole batches");
                at = header.next_offset();
                rest = &rest[header.size as usize..];
            }
            bytes.extend_from_slice(slice.bytes());
        }
        max_bytes = max_bytes * 7 % 100_003;
    }
    Ok(bytes)
}

/// A batch of `record_count` records that take about `size` bytes, at an offset.
pub fn batch(base: Offset, epoch: LeaderEpoch, record_count: u32, size: usize, salt: u64) -> Batch {
    let mut builder = BatchBuilder::new();
    let mut word = salt | 1;
    for record in 0..record_count {
        let value: Vec<u8> = (0..size / record_count as usize)
            .map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                word.to_le_bytes()[7]
            })
            .collect();
        // Timestamps neither rise with the offsets nor are far from it.
        let jitter = i64::try_from(salt % 300).expect("a small number");
        let timestamp_ms = base.0 * 10 + jitter + i64::from(record);
        let pushed = builder.push(timestamp_ms, None, Some(&value), NO_HEADERS);
        pushed.expect("a small record");
    }
    let producer = (ProducerId(1), ProducerEpoch(0), 0);
    let mut bytes = builder.finish(Some(producer), Compression::None);
    place(&mut bytes, base, epoch);
    Batch {
        base,
        next: base.plus(record_count),
        epoch,
        bytes,
    }
}
