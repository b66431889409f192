use std::collections::BTreeMap;

use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId,
    TopicPartition,
    batch::{Attributes, BATCH_HEADER_SIZE, BatchHeader, Compression},
    messages::DivergingEpoch,
};
use proptest::prelude::*;

use super::{
    producers::{PRODUCER_EXPIRATION_MS, REMEMBERED_BATCHES},
    *,
};

const NOW_MS: i64 = 1_700_000_000_000;

fn id() -> TopicPartition {
    TopicPartition {
        topic: TopicId::default(),
        partition: PartitionIndex(0),
    }
}

fn batch(producer: i64, epoch: i16, sequence: i32, records: u32) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(0),
        size: u32::try_from(BATCH_HEADER_SIZE).expect("61") + records,
        leader_epoch: LeaderEpoch(-1),
        crc: 0,
        attributes: Attributes::new(Compression::None),
        last_offset_delta: records - 1,
        base_timestamp_ms: NOW_MS,
        max_timestamp_ms: NOW_MS,
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: sequence,
        record_count: records,
    }
}

fn plain(records: u32) -> BatchHeader {
    batch(-1, -1, -1, records)
}

struct Harness {
    partition: Partition<u32>,
}

impl Harness {
    fn new() -> Self {
        Self {
            partition: Partition::new(id(), LeaderEpoch(3), Recovered::default()),
        }
    }

    fn apply(&mut self, event: Event<'_, u32>) -> Vec<Action<u32>> {
        let mut actions = Vec::new();
        self.partition.apply(event, &mut actions);
        self.partition.check();
        actions
    }

    fn produce(&mut self, token: u32, batches: &[BatchHeader]) -> Vec<Action<u32>> {
        let leader_epoch = LeaderEpoch::UNKNOWN;
        self.apply(Event::Produce {
            token,
            batches,
            leader_epoch,
            now_ms: NOW_MS,
        })
    }

    fn persisted(&mut self, up_to: i64) -> Vec<Action<u32>> {
        self.apply(Event::Persisted {
            up_to: Offset(up_to),
        })
    }
}

fn append(base: i64, next: i64) -> Action<u32> {
    let epoch = LeaderEpoch(3);
    Action::Append {
        skip: 0,
        base_offset: Offset(base),
        next_offset: Offset(next),
        epoch,
    }
}

fn acknowledged(token: u32, base: i64) -> Action<u32> {
    Action::Answer {
        token,
        result: Ok(Offset(base)),
    }
}

fn refused(token: u32, error: ErrorCode, detail: Detail) -> Action<u32> {
    Action::Answer {
        token,
        result: Err(Refusal { error, detail }),
    }
}

#[test]
fn nothing_is_acknowledged_or_visible_before_it_is_durable() {
    let mut harness = Harness::new();
    assert_eq!(harness.produce(1, &[plain(3)]), [append(0, 3)]);
    assert_eq!(harness.produce(2, &[plain(2), plain(1)]), [append(3, 6)]);
    let fetch = |harness: &Harness, offset| {
        harness
            .partition
            .fetch(Offset(offset), LeaderEpoch::UNKNOWN, LeaderEpoch::UNKNOWN)
    };
    assert_eq!(fetch(&harness, 0), FetchVerdict::AtEnd);
    assert_eq!(
        harness.persisted(4),
        [acknowledged(1, 0), Action::HighWatermarkMoved]
    );
    assert_eq!(fetch(&harness, 0), FetchVerdict::Read { up_to: Offset(4) });
    assert_eq!(
        harness.persisted(6),
        [acknowledged(2, 3), Action::HighWatermarkMoved]
    );
    assert_eq!(harness.persisted(6), []);
}

#[test]
fn a_repeat_waits_for_its_original() {
    let mut harness = Harness::new();
    assert_eq!(harness.produce(1, &[batch(9, 0, 0, 2)]), [append(0, 2)]);
    assert_eq!(harness.produce(2, &[batch(9, 0, 0, 2)]), []);
    assert_eq!(harness.produce(3, &[batch(9, 0, 2, 1)]), [append(2, 3)]);
    let both = [
        acknowledged(1, 0),
        acknowledged(2, 0),
        Action::HighWatermarkMoved,
    ];
    assert_eq!(harness.persisted(2), both);
    assert_eq!(
        harness.produce(4, &[batch(9, 0, 0, 2)]),
        [acknowledged(4, 0)]
    );
}

#[test]
fn sequences_are_checked() {
    let mut harness = Harness::new();
    harness.produce(1, &[batch(9, 1, 0, 5)]);
    harness.produce(1, &[batch(9, 1, 5, 2)]);
    let gap = Detail::ExpectedSequence(7);
    assert_eq!(
        harness.produce(2, &[batch(9, 1, 8, 1)]),
        [refused(2, ErrorCode::OutOfOrderSequence, gap)]
    );
    assert_eq!(
        harness.produce(3, &[batch(9, 0, 7, 1)]),
        [refused(3, ErrorCode::ProducerFenced, Detail::None)]
    );
    assert_eq!(
        harness.produce(4, &[batch(9, 2, 7, 1)]),
        [refused(
            4,
            ErrorCode::OutOfOrderSequence,
            Detail::ExpectedSequence(0)
        )]
    );
    let count = i32::try_from(REMEMBERED_BATCHES).unwrap();
    for next in 0..count {
        harness.produce(10, &[batch(9, 1, 7 + next, 1)]);
    }
    harness.persisted(7 + i64::from(count));
    harness.produce(11, &[batch(9, 1, 7 + count, 1)]);
    assert_eq!(
        harness.produce(5, &[batch(9, 1, 5, 2)]),
        [refused(5, ErrorCode::DuplicateSequence, Detail::None)]
    );
    // Overlapping what is remembered in part is no repeat of anything.
    assert_eq!(
        harness.produce(6, &[batch(9, 1, 5 + count, 5)]),
        [refused(
            6,
            ErrorCode::OutOfOrderSequence,
            Detail::ExpectedSequence(8 + count)
        )]
    );
}

/// Found by simulation: a full disk refused a producer's first batches and took a later one that was
/// under way; the first ones, sent again, then passed for old repeats and were acknowledged.
#[test]
fn a_batch_behind_a_refused_one_is_not_taken() {
    let mut harness = Harness::new();
    assert_eq!(harness.produce(1, &[batch(9, 0, 0, 2)]), [append(0, 2)]);
    assert_eq!(harness.produce(2, &[batch(9, 0, 2, 1)]), [append(2, 3)]);
    let mut actions = Vec::new();
    let full = Event::Refused {
        end: Offset(0),
        error: ErrorCode::DiskFull,
    };
    harness.partition.apply(full, &mut actions);
    let gap = Detail::ExpectedSequence(0);
    assert_eq!(
        harness.produce(3, &[batch(9, 0, 3, 1)]),
        [refused(3, ErrorCode::OutOfOrderSequence, gap)]
    );
    assert_eq!(harness.produce(5, &[batch(9, 0, 0, 2)]), [append(0, 2)]);
}

#[test]
fn a_producer_that_is_not_known_begins_anywhere_and_nothing_before_that_is_a_repeat() {
    let mut harness = Harness::new();
    assert_eq!(harness.produce(1, &[batch(8, 4, 17, 3)]), [append(0, 3)]);
    let expected = |sequence| Detail::ExpectedSequence(sequence);
    // Refused when it first came, perhaps; in any case not in the log.
    assert_eq!(
        harness.produce(2, &[batch(8, 4, 15, 2)]),
        [refused(2, ErrorCode::OutOfOrderSequence, expected(20))]
    );
    assert_eq!(harness.produce(3, &[batch(8, 4, 20, 1)]), [append(3, 4)]);
    // Cut away, it begins where it began.
    harness.apply(Event::Refused {
        end: Offset(0),
        error: ErrorCode::DiskFull,
    });
    assert_eq!(
        harness.produce(4, &[batch(8, 4, 20, 1)]),
        [refused(4, ErrorCode::OutOfOrderSequence, expected(17))]
    );
    assert_eq!(harness.produce(5, &[batch(8, 4, 17, 3)]), [append(0, 3)]);
    let answers = [acknowledged(5, 0), Action::HighWatermarkMoved];
    assert_eq!(harness.persisted(3), answers);
}

#[test]
fn a_producer_that_was_silent_for_a_day_is_forgotten() {
    let mut harness = Harness::new();
    harness.produce(1, &[batch(8, 0, 0, 3)]);
    harness.persisted(3);
    harness
        .partition
        .expire_producers(NOW_MS + PRODUCER_EXPIRATION_MS, 0);
    assert_eq!(
        harness.produce(2, &[batch(8, 0, 0, 3)]),
        [acknowledged(2, 0)]
    );
    harness
        .partition
        .expire_producers(NOW_MS + PRODUCER_EXPIRATION_MS + 1, 0);
    assert!(harness.partition.producers().is_empty());
    assert_eq!(harness.produce(3, &[batch(8, 0, 40, 1)]), [append(3, 4)]);
}

#[test]
fn sequences_wrap_to_zero() {
    let mut producers = Producers::default();
    producers.appended(&batch(9, 0, i32::MAX - 1, 2), NOW_MS, Offset(2));
    let recovered = Recovered {
        log_end: Offset(2),
        producers,
        ..Recovered::default()
    };
    let mut harness = Harness {
        partition: Partition::new(id(), LeaderEpoch(3), recovered),
    };
    assert_eq!(harness.produce(2, &[batch(9, 0, 0, 4)]), [append(2, 6)]);
    harness.persisted(6);
    assert_eq!(
        harness.produce(3, &[batch(9, 0, i32::MAX - 1, 2)]),
        [acknowledged(3, 0)]
    );
}

#[test]
fn the_rest_of_a_produce_that_a_crash_cut_is_appended() {
    let mut producers = Producers::default();
    producers.appended(&batch(9, 0, 0, 2), NOW_MS, Offset(2));
    let log_end = Offset(2);
    let recovered = Recovered {
        log_end,
        producers,
        ..Recovered::default()
    };
    let partition = Partition::new(id(), LeaderEpoch(3), recovered);
    let mut harness = Harness { partition };
    let rest = Action::Append {
        skip: 1,
        base_offset: Offset(2),
        next_offset: Offset(5),
        epoch: LeaderEpoch(3),
    };
    assert_eq!(
        harness.produce(1, &[batch(9, 0, 0, 2), batch(9, 0, 2, 3)]),
        [rest]
    );
    assert_eq!(
        harness.persisted(5),
        [acknowledged(1, 0), Action::HighWatermarkMoved]
    );
}

#[test]
fn a_refused_tail_gives_its_offsets_and_sequences_back() {
    let mut harness = Harness::new();
    harness.produce(1, &[batch(9, 0, 0, 2)]);
    harness.persisted(2);
    harness.produce(2, &[batch(9, 0, 2, 2)]);
    harness.produce(3, &[plain(1)]);
    let full = Event::Refused {
        end: Offset(2),
        error: ErrorCode::DiskFull,
    };
    let answers = harness.apply(full);
    assert_eq!(
        answers,
        [
            refused(3, ErrorCode::DiskFull, Detail::None),
            refused(2, ErrorCode::DiskFull, Detail::None),
        ]
    );
    assert_eq!(harness.produce(4, &[batch(9, 0, 2, 2)]), [append(2, 4)]);
}

#[test]
fn nothing_is_acknowledged_after_the_disk_failed() {
    let mut harness = Harness::new();
    harness.produce(1, &[plain(1)]);
    let failed = harness.apply(Event::Failed);
    assert_eq!(failed, [refused(1, ErrorCode::StorageError, Detail::None)]);
    assert_eq!(harness.persisted(1), []);
    let offline = [refused(2, ErrorCode::PartitionOffline, Detail::None)];
    assert_eq!(harness.produce(2, &[plain(1)]), offline);
}

#[test]
fn damaged_data_is_served_below_the_damage_only() {
    let recovered = Recovered {
        log_end: Offset(10),
        damaged_below: Some(Offset(4)),
        ..Recovered::default()
    };
    let partition = Partition::new(id(), LeaderEpoch(3), recovered);
    let mut harness = Harness { partition };
    let unknown = LeaderEpoch::UNKNOWN;
    let fetch = harness.partition.fetch(Offset(2), unknown, unknown);
    assert_eq!(fetch, FetchVerdict::Read { up_to: Offset(4) });
    let at_damage = Refusal {
        error: ErrorCode::PartitionReadOnly,
        detail: Detail::None,
    };
    let fetch = harness.partition.fetch(Offset(4), unknown, unknown);
    assert_eq!(fetch, FetchVerdict::Refused(at_damage));
    let read_only = [refused(1, ErrorCode::PartitionReadOnly, Detail::None)];
    assert_eq!(harness.produce(1, &[plain(1)]), read_only);
}

#[test]
fn damage_that_a_reader_meets_ends_appends_and_nothing_else() {
    let mut harness = Harness::new();
    harness.produce(1, &[plain(2)]);
    assert_eq!(harness.apply(Event::Damaged), [Action::HighWatermarkMoved]);
    assert_eq!(harness.apply(Event::Damaged), []);
    let read_only = [refused(2, ErrorCode::PartitionReadOnly, Detail::None)];
    assert_eq!(harness.produce(2, &[plain(1)]), read_only);
    let persisted = harness.persisted(2);
    assert!(persisted.contains(&acknowledged(1, 0)), "{persisted:?}");
    let unknown = LeaderEpoch::UNKNOWN;
    let fetch = harness.partition.fetch(Offset(0), unknown, unknown);
    assert_eq!(fetch, FetchVerdict::Read { up_to: Offset(2) });
    let fetch = harness.partition.fetch(Offset(2), unknown, unknown);
    assert!(matches!(fetch, FetchVerdict::Refused(_)), "{fetch:?}");
}

#[test]
fn epochs_fence_and_tell_of_truncation() {
    let mut epochs = Epochs::default();
    epochs.appended(LeaderEpoch(1), Offset(0));
    let recovered = Recovered {
        log_end: Offset(6),
        epochs,
        ..Recovered::default()
    };
    let partition = Partition::new(id(), LeaderEpoch(3), recovered);
    let mut harness = Harness { partition };
    let stale = Refusal {
        error: ErrorCode::FencedLeaderEpoch,
        detail: Detail::CurrentEpoch(LeaderEpoch(3)),
    };
    let fetch = harness
        .partition
        .fetch(Offset(0), LeaderEpoch(1), LeaderEpoch::UNKNOWN);
    assert_eq!(fetch, FetchVerdict::Refused(stale));
    harness.produce(1, &[plain(4)]);
    harness.persisted(10);
    // The reader has read offset 8 in epoch 1; that epoch ended at 6 here.
    let diverged = harness
        .partition
        .fetch(Offset(9), LeaderEpoch(3), LeaderEpoch(1));
    let end = DivergingEpoch {
        epoch: LeaderEpoch(1),
        end_offset: Offset(6),
    };
    assert_eq!(diverged, FetchVerdict::Diverged(end));
}

/// Found by simulation: a log that lost all of an epoch let its readers go on as if nothing were cut.
#[test]
fn a_reader_of_an_epoch_that_was_lost_as_a_whole_hears_of_it() {
    let mut harness = Harness {
        partition: Partition::new(id(), LeaderEpoch(3), Recovered::default()),
    };
    let diverged_at = |harness: &Harness, offset, last_epoch| {
        let epoch = harness.partition.epoch();
        match harness.partition.fetch(Offset(offset), epoch, last_epoch) {
            FetchVerdict::Diverged(diverging) => Some(diverging.end_offset),
            _ => None,
        }
    };
    assert_eq!(diverged_at(&harness, 4, LeaderEpoch(1)), Some(Offset(0)));
    harness.produce(1, &[plain(6)]);
    harness.persisted(6);
    assert_eq!(diverged_at(&harness, 4, LeaderEpoch(1)), Some(Offset(0)));
    assert_eq!(diverged_at(&harness, 0, LeaderEpoch(1)), None);
    assert_eq!(diverged_at(&harness, 4, LeaderEpoch(3)), None);
}

#[test]
fn a_time_far_ahead_is_refused() {
    let mut harness = Harness::new();
    let mut ahead = plain(1);
    ahead.max_timestamp_ms = NOW_MS + MAX_TIMESTAMP_AHEAD_MS + 1;
    let detail = Detail::Timestamp(ahead.max_timestamp_ms);
    let refused = [refused(1, ErrorCode::InvalidTimestamp, detail)];
    assert_eq!(harness.produce(1, &[ahead]), refused);
}

proptest! {
    #[test]
    fn producers_survive_their_snapshot(
        appends in prop::collection::vec((0i64..5, 0i16..3, 0i32..50, 1u32..9), 0..60)
    ) {
        let mut producers = Producers::default();
        let mut end = Offset(0);
        for (producer, epoch, sequence, records) in appends {
            let mut header = batch(producer, epoch, sequence, records);
            header.base_offset = end;
            end = header.next_offset();
            producers.appended(&header, NOW_MS + end.0, Offset(i64::MAX));
        }
        let bytes = producers.snapshot();
        prop_assert_eq!(&Producers::restore(&bytes).expect("own bytes"), &producers);
        for cut in 0..bytes.len() {
            prop_assert!(Producers::restore(&bytes[..cut]).is_err());
        }
    }

    /// Idempotent producers over a partition that persists, refuses and is reopened at random:
    /// each sequence stands in the log once, in order, and every acknowledgement names its place.
    #[test]
    fn idempotent_producers_against_a_model(steps in prop::collection::vec((0u8..10, 0i64..3), 1..200)) {
        let mut harness = Harness::new();
        let mut log: Vec<(i64, i32)> = Vec::new();
        let mut next: BTreeMap<i64, i32> = BTreeMap::new();
        let mut unanswered: BTreeMap<u32, (i64, i32)> = BTreeMap::new();
        let mut acknowledged_at: BTreeMap<(i64, i32), i64> = BTreeMap::new();
        let mut token = 0;
        for (step, producer) in steps {
            let sequence = next.get(&producer).copied().unwrap_or(0);
            let actions = match step {
                0..=4 => {
                    token += 1;
                    unanswered.insert(token, (producer, sequence));
                    harness.produce(token, &[batch(producer, 0, sequence, 1)])
                }
                5 | 6 if sequence > 0 => {
                    token += 1;
                    unanswered.insert(token, (producer, sequence - 1));
                    harness.produce(token, &[batch(producer, 0, sequence - 1, 1)])
                }
                7 | 8 => {
                    let end = harness.partition.log_end();
                    let durable = harness.partition.high_watermark();
                    harness.persisted(durable.0 + (end.0 - durable.0 + 1) / 2)
                }
                9 => {
                    let end = harness.partition.high_watermark();
                    let cut = usize::try_from(end.0).expect("small");
                    for (producer, _) in log.drain(cut..) {
                        *next.get_mut(&producer).expect("it appended") -= 1;
                    }
                    harness.apply(Event::Refused { end, error: ErrorCode::DiskFull })
                }
                _ => Vec::new(),
            };
            for action in actions {
                match action {
                    Action::Append { base_offset, .. } => {
                        prop_assert_eq!(base_offset.0, i64::try_from(log.len()).expect("small"));
                        let what = unanswered[&token];
                        prop_assert!(!log.contains(&what), "{:?} stands twice", what);
                        log.push(what);
                        *next.entry(what.0).or_default() += 1;
                    }
                    Action::Answer { token, result: Ok(offset) } => {
                        let what = unanswered.remove(&token).expect("answered once");
                        prop_assert!(offset < harness.partition.high_watermark());
                        prop_assert_eq!(log[usize::try_from(offset.0).expect("small")], what);
                        let first = *acknowledged_at.entry(what).or_insert(offset.0);
                        prop_assert_eq!(first, offset.0);
                    }
                    Action::Answer { token, result: Err(refusal) } => {
                        unanswered.remove(&token).expect("answered once");
                        prop_assert_eq!(refusal.error, ErrorCode::DiskFull);
                    }
                    Action::HighWatermarkMoved => {}
                }
            }
        }
    }
}
