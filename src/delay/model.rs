//! The schedule against a model, over random histories of two logs that crash: what was accepted and not
//! taken back is in the partition once, in the end.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::{
    LeaderEpoch, Offset,
    batch::{BatchBuilder, BatchHeader, Batches, Compression, DecodedBatch, place_all},
    headers,
    messages::CancelOutcome,
};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// Records with these delays and ids, as one batch.
    Accept(Vec<(u8, Option<u8>)>),
    /// Cancel by delay id or by id.
    Cancel(u8, bool),
    /// Time passes.
    Pass(u8),
    /// Take what is due; hand so much of it over, and put the rest back.
    Deliver(u8, u8),
    /// A log becomes durable up to its end, or is cut to what is durable.
    LogDurable,
    LogCut,
    PartitionDurable,
    PartitionCut,
    /// A checkpoint that becomes durable.
    LogCheckpoint,
    PartitionCheckpoint,
    /// What is far away goes to disk; the file is finished, or not yet.
    Spill(bool),
    /// The index is lost, and made again as far as so much of the log has it; the rest comes later.
    Rebuild(u8),
    /// What is not needed of the delay log goes.
    Clean,
    /// The process dies; so much of what was not durable is kept, in both logs.
    Crash(u8, u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let record = (0u8..40, proptest::option::weighted(0.4, 0u8..4));
    let op = prop_oneof![
        4 => prop::collection::vec(record, 1..4).prop_map(Op::Accept),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(at, by_id)| Op::Cancel(at, by_id)),
        2 => (0u8..30).prop_map(Op::Pass),
        4 => (1u8..6, 0u8..6).prop_map(|(taken, handed)| Op::Deliver(taken, handed)),
        4 => Just(Op::LogDurable),
        1 => Just(Op::LogCut),
        3 => Just(Op::PartitionDurable),
        1 => Just(Op::PartitionCut),
        1 => Just(Op::LogCheckpoint),
        1 => Just(Op::PartitionCheckpoint),
        3 => any::<bool>().prop_map(Op::Spill),
        2 => any::<u8>().prop_map(Op::Rebuild),
        1 => Just(Op::Clean),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(log, partition)| Op::Crash(log, partition)),
    ];
    prop::collection::vec(op, 1..80)
}

/// A log: batches, how many are durable, and the newest checkpoint: what it covers, and its snapshot.
#[derive(Default)]
struct Log {
    batches: Vec<Vec<u8>>,
    durable: usize,
    checkpoint: (usize, Vec<u8>),
}

impl Log {
    fn offset(&self, count: usize) -> Offset {
        let last = self.batches[..count].last();
        last.map_or(Offset::ZERO, |batch| header(batch).next_offset())
    }

    fn end(&self) -> Offset {
        self.offset(self.batches.len())
    }

    fn append(&mut self, mut batches: Vec<u8>) -> Vec<u8> {
        place_all(&mut batches, self.end(), LeaderEpoch(0)).expect("good batches");
        for batch in Batches::checked(&batches) {
            self.batches.push(batch.expect("a good batch").1.to_vec());
        }
        batches
    }

    fn crash(&mut self, keep: u8) {
        let loose = self.batches.len() - self.durable;
        self.batches
            .truncate(self.durable + loose * usize::from(keep) / 255);
        self.durable = self.batches.len();
    }
}

fn header(batch: &[u8]) -> BatchHeader {
    BatchHeader::decode(batch).expect("a batch")
}

/// What a producer knows of one record.
#[derive(Clone, Debug, Default)]
struct Sent {
    offset: Offset,
    id: Option<u8>,
    accepted: bool,
    /// Something was asked that may have taken it back.
    leaving: bool,
    cancelled: bool,
}

struct World {
    now_ms: i64,
    log: Log,
    partition: Log,
    schedule: Schedule,
    deliveries: Deliveries,
    sent: Vec<Sent>,
    /// Notes, and what they cancel.
    notes: BTreeMap<Offset, usize>,
    /// Files of runs.
    disk: BTreeMap<u64, Vec<Entry>>,
    /// The delay log begins here.
    log_start: Offset,
    /// The index is being made again: the offset up to which that goes, and where it stands.
    rebuilding: Option<(Offset, Offset)>,
}

const TERMS: Terms = Terms {
    now_ms: 0,
    horizon_ms: 1_000,
    max_batch_size: 1 << 20,
    keys_required: true,
};

impl World {
    fn new() -> Self {
        let mut schedule = Schedule::new((1, 2));
        let end = Offset::ZERO;
        let recovered = Recovered {
            start: end,
            end,
            partition_end: end,
        };
        assert!(schedule.settle(recovered, &Deliveries::default()));
        Self {
            now_ms: 1_000,
            log: Log::default(),
            partition: Log::default(),
            schedule,
            deliveries: Deliveries::default(),
            sent: Vec::new(),
            notes: BTreeMap::new(),
            disk: BTreeMap::new(),
            log_start: Offset::ZERO,
            rebuilding: None,
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Accept(records) => self.accept(records),
            Op::Cancel(at, by_id) => self.cancel(usize::from(*at), *by_id),
            Op::Pass(ms) => self.now_ms += i64::from(*ms),
            Op::Deliver(taken, handed) => self.deliver(usize::from(*taken), usize::from(*handed)),
            Op::LogDurable => {
                self.log.durable = self.log.batches.len();
                self.log_durable();
            }
            Op::LogCut => {
                self.log.batches.truncate(self.log.durable);
                self.schedule.cut(self.log.end());
                self.forget_cut();
            }
            Op::PartitionDurable => {
                self.partition.durable = self.partition.batches.len();
                self.schedule.delivered(self.partition.end());
            }
            Op::PartitionCut => {
                self.partition.batches.truncate(self.partition.durable);
                let end = self.partition.end();
                self.deliveries.cut(end);
                self.schedule.partition_cut(end);
            }
            Op::LogCheckpoint => self.log_checkpoint(),
            Op::PartitionCheckpoint => {
                let covers = self.partition.batches.len();
                self.partition.durable = covers;
                self.partition.checkpoint = (covers, self.deliveries.snapshot());
            }
            Op::Spill(finished) => {
                self.schedule.spill_at = 1;
                let again = self.schedule.spill_again();
                let first = again.or_else(|| self.schedule.spill());
                if let Some((number, entries)) = first {
                    assert!(entries.is_sorted());
                    self.disk.insert(number, entries);
                    if *finished {
                        self.schedule.run_written(number);
                    }
                }
            }
            Op::Rebuild(share) => self.rebuild(*share),
            Op::Clean => {
                let durable = self.log.offset(self.log.durable);
                let keep = self.schedule.needed_from().unwrap_or(durable);
                self.log_start = self.log_start.max(keep);
            }
            Op::Crash(log, partition) => self.crash(*log, *partition),
        }
        self.schedule.check();
    }

    /// Begins to make the index again, or goes on with it, through a share of what is left of the log.
    fn rebuild(&mut self, share: u8) {
        let (end, mut from) = self.rebuilding.unwrap_or_else(|| {
            self.schedule.lose_index();
            let end = self.log.offset(self.log.durable);
            let first = self.schedule.needed_from().unwrap_or(end);
            assert!(first >= self.log_start, "{first} is needed");
            (end, first)
        });
        let all = self.log.batches.iter();
        let left = |batch: &&Vec<u8>| {
            let header = header(batch);
            header.next_offset() > from && header.base_offset < end
        };
        let left: Vec<&Vec<u8>> = all.filter(left).collect();
        let count = (left.len() * usize::from(share)).div_ceil(255);
        for batch in &left[..count] {
            let rebuilt = self.schedule.rebuild(&header(batch), batch);
            rebuilt.expect("good batches");
            from = header(batch).next_offset();
        }
        self.rebuilding = (count < left.len()).then_some((end, from));
        if self.rebuilding.is_none() {
            self.schedule.runs_known();
        }
    }

    fn finish_rebuild(&mut self) {
        if self.rebuilding.is_some() {
            self.rebuild(255);
        }
    }

    fn accept(&mut self, records: &[(u8, Option<u8>)]) {
        let mut builder = BatchBuilder::new();
        let first = self.log.end();
        for (index, (delay, id)) in (0u32..).zip(records) {
            let (delay, id_text) = (delay.to_string(), id.map(|id| id.to_string()));
            let mut all = vec![(headers::DELIVER_AFTER, Some(delay.as_bytes()))];
            let id_text = id_text.as_deref().map(str::as_bytes);
            all.extend(id_text.map(|id| (headers::DELAY_ID, Some(id))));
            let value = self.sent.len().to_string();
            let pushed = builder.push(7, Some(b"key"), Some(value.as_bytes()), &all);
            pushed.expect("a small record");
            for same in self
                .sent
                .iter_mut()
                .filter(|it| id.is_some() && it.id == *id)
            {
                same.leaving = true;
            }
            self.sent.push(Sent {
                offset: first.plus(index),
                id: *id,
                ..Sent::default()
            });
        }
        let batch = builder.finish(None, Compression::Lz4);
        let terms = Terms {
            now_ms: self.now_ms,
            ..TERMS
        };
        let accepted = accept(&batch, &terms).expect("a good batch");
        let placed = self.log.append(accepted);
        self.schedule.batch(&header(&placed), &placed);
    }

    fn cancel(&mut self, at: usize, by_id: bool) {
        if self.sent.is_empty() {
            return;
        }
        let at = at % self.sent.len();
        let it = self.sent[at].clone();
        let id = it.id.filter(|_| by_id).map(|id| id.to_string());
        let target = id.as_deref().map_or(Target::Offset(it.offset), Target::Id);
        match self.schedule.cancel(target) {
            CancelVerdict::Note(offset) => {
                let meant = self.sent.iter().rposition(|it| it.offset == offset);
                let meant = meant.expect("it was sent");
                self.sent[meant].leaving = true;
                self.notes.insert(self.log.end(), meant);
                let placed = self.log.append(note(offset, id.as_deref(), self.now_ms));
                self.schedule.batch(&header(&placed), &placed);
            }
            CancelVerdict::Busy | CancelVerdict::Over(CancelOutcome::Unknown, _) => {}
            CancelVerdict::Over(outcome, offset) => {
                let meant = self.sent.iter().rposition(|it| it.offset == offset);
                let it = &mut self.sent[meant.expect("it was sent")];
                if outcome == CancelOutcome::Cancelled {
                    assert!(it.leaving, "somebody took it back: {it:?}");
                    it.cancelled = true;
                }
            }
        }
    }

    fn deliver(&mut self, taken: usize, handed: usize) {
        self.finish_rebuild();
        while let Some(run) = self.schedule.wants_load() {
            let entries = &self.disk[&run.number];
            let from = usize::try_from(run.position).expect("small");
            self.schedule.run_loaded(run.number, &entries[from..]);
        }
        let entries = self.schedule.take_due(self.now_ms, taken);
        self.schedule.check();
        let mut found = FoundRecords::default();
        let wanted: BTreeSet<Offset> = entries.iter().map(|entry| entry.offset).collect();
        for entry in &entries {
            for batch in &self.log.batches[..self.log.durable] {
                let read = found.collect(batch, entry.offset, &wanted, 1 << 20);
                read.expect("good batches");
            }
        }
        let there =
            |entry: &Entry| entry.offset >= self.log_start && found.of(entry.offset).is_some();
        assert!(entries.iter().all(there), "cleaned: {entries:?}");
        let handed = handed.min(entries.len());
        let packed = pack(&entries[..handed], &found, self.now_ms, 1 << 20, false);
        if let Some(parcel) = packed.expect("good records") {
            assert_eq!(parcel.entries, entries[..handed]);
            let base = self.partition.end();
            self.partition.append(parcel.batch);
            let next = self.partition.end();
            self.deliveries.handed_over(base, next, &parcel.entries);
            self.schedule.handed_over(base, next, parcel.entries);
        }
        self.schedule.put_back(&entries[handed..]);
    }

    fn log_durable(&mut self) {
        let end = self.log.offset(self.log.durable);
        self.schedule.persisted(end);
        for it in self.sent.iter_mut().filter(|it| it.offset < end) {
            it.accepted = true;
        }
        for (_, at) in self.notes.extract_if(..end, |_, _| true) {
            self.sent[at].cancelled = true;
        }
    }

    /// What the log refused was never sent, as far as anybody counts.
    fn forget_cut(&mut self) {
        let end = self.log.end();
        self.notes.retain(|note, _| *note < end);
        for it in self.sent.iter_mut().filter(|it| it.offset >= end) {
            it.offset = Offset(i64::MAX);
            it.leaving = true;
        }
    }

    fn log_checkpoint(&mut self) {
        self.schedule
            .delivered(self.partition.offset(self.partition.durable));
        let covered = self.schedule.delivered_below();
        let covers = self.log.batches.len();
        let snapshot = self.schedule.snapshot();
        self.log.durable = covers;
        self.log.checkpoint = (covers, snapshot);
        self.log_durable();
        self.deliveries.forget_below(covered);
    }

    fn crash(&mut self, log: u8, partition: u8) {
        self.log.crash(log);
        self.partition.crash(partition);
        self.forget_cut();
        let (from, snapshot) = &self.partition.checkpoint;
        self.deliveries = Deliveries::restore(snapshot).expect("its own snapshot");
        for batch in &self.partition.batches[*from..] {
            self.deliveries.batch(&header(batch), batch, 0);
        }
        let (from, snapshot) = &self.log.checkpoint;
        self.schedule = Schedule::restore(snapshot, (3, 4)).expect("its own snapshot");
        for batch in &self.log.batches[*from..] {
            self.schedule.batch(&header(batch), batch);
        }
        let end = self.log.end();
        let recovered = Recovered {
            start: self.log_start,
            end,
            partition_end: self.partition.end(),
        };
        let whole = self.schedule.settle(recovered, &self.deliveries);
        assert!(whole, "a crash loses no checkpoint");
        assert_eq!(self.schedule.unreadable(), None);
        self.rebuilding = None;
        if self.schedule.index_is_lost() {
            self.rebuild(255);
        }
        let runs: Vec<RunRef> = self.schedule.runs_on_disk().collect();
        for run in runs {
            self.schedule.know_ids(&self.disk[&run.number]);
        }
        self.schedule.runs_known();
        self.schedule.check();
        self.log_durable();
    }

    /// Everything is delivered that waits.
    fn finish(&mut self) {
        self.apply(&Op::LogDurable);
        self.now_ms += 1_000;
        while self.schedule.pending() > 0 {
            self.apply(&Op::Deliver(9, 9));
            self.apply(&Op::PartitionDurable);
        }
    }

    fn verdict(&self) {
        let mut times = vec![0; self.sent.len()];
        for batch in &self.partition.batches {
            let opened = DecodedBatch::open(batch).expect("a batch");
            for record in opened.records() {
                let record = record.expect("a record");
                let value = headers::number(record.value).expect("a number");
                times[usize::try_from(value).expect("small")] += 1;
                let due = Delivery::due_ms(&record);
                assert!(record.timestamp_ms >= due, "never early");
            }
        }
        for (it, times) in self.sent.iter().zip(times) {
            assert!(times <= 1, "{times} times: {it:?}");
            assert!(times == 0 || !it.cancelled, "cancelled: {it:?}");
            assert!(times == 1 || it.leaving || !it.accepted, "lost: {it:?}");
        }
        let offsets = self
            .partition
            .batches
            .iter()
            .map(|it| header(it).base_offset);
        assert_eq!(
            offsets.collect::<BTreeSet<_>>().len(),
            self.partition.batches.len()
        );
    }
}

struct Delivery;

impl Delivery {
    fn due_ms(record: &millstream_protocol::batch::Record<'_>) -> i64 {
        let mut all = record.headers;
        let due = all.find(|(name, _)| *name == headers::DELIVER_AT.as_bytes());
        headers::number(due.expect("a due time").1).expect("a number")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn each_record_is_delivered_once_whatever_happens(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        world.finish();
        world.verdict();
        // And a crash after all that brings nothing back.
        let delivered = world.partition.batches.len();
        world.apply(&Op::Crash(255, 255));
        world.finish();
        prop_assert_eq!(world.partition.batches.len(), delivered);
    }
}
