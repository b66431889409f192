//! The appender's steps, one rule a test.

use millstream_protocol::{
    LeaderEpoch, Offset, TopicPartition,
    batch::{BatchBuilder, Compression, NO_HEADERS, place},
};

use super::{Append, Appender, FlushNeed, Lane, Position, Step};
use crate::{
    io::Buffer,
    storage::{
        LogOptions,
        format::chunk::ChunkHeader,
        limits::{FIRST_ALLOCATION, GATHER_SIZE, MAX_CHUNK_SIZE},
        test_buffer::Memory,
    },
};

struct Test {
    appender: Appender<Memory>,
    options: LogOptions,
    epoch: LeaderEpoch,
    now_ms: i64,
}

impl Test {
    fn new() -> Self {
        let start = Position {
            segment: Offset::ZERO,
            position: 4096,
            next: Offset::ZERO,
        };
        let make = |size| Memory(vec![0xa5; size]);
        let id = TopicPartition::default();
        Self {
            appender: Appender::new(id, 1, start, Offset::ZERO, None, make),
            options: LogOptions::default(),
            epoch: LeaderEpoch(0),
            now_ms: 1,
        }
    }

    /// With a first segment that has plenty of space.
    fn with_segment() -> Self {
        let mut test = Self::new();
        test.append(10);
        assert_eq!(test.steps(), ["create 0 262144"]);
        test.appender.created(Offset::ZERO, 64 << 20);
        assert_eq!(test.steps(), ["write 0 at 0:4096 4096"]);
        test.appender.written(0);
        assert_eq!(test.steps(), ["flush {0}"]);
        test.appender.flushed();
        assert!(test.appender.is_idle());
        test
    }

    fn append(&mut self, size: usize) {
        let first = self.appender.log_end();
        let mut builder = BatchBuilder::new();
        let value = vec![7; size];
        builder
            .push(0, None, Some(&value), NO_HEADERS)
            .expect("a record");
        let mut batches = builder.finish(None, Compression::None);
        place(&mut batches, first, self.epoch);
        self.appender.append(&Append {
            batches: &batches,
            first,
            next: first.plus(1),
            epoch: self.epoch,
            max_timestamp_ms: 0,
            batch_count: 1,
            now_ms: self.now_ms,
            incarnation: None,
        });
    }

    /// All there is to do, flushes included.
    fn steps(&mut self) -> Vec<String> {
        let next = |test: &mut Self| {
            test.appender.next_step(
                &test.options,
                test.now_ms,
                Lane::Direct,
                FlushNeed::Everything,
            )
        };
        std::iter::from_fn(|| next(self))
            .map(|step| show(&step))
            .collect()
    }
}

fn show(step: &Step<Memory>) -> String {
    match step {
        Step::Write {
            number,
            segment,
            position,
            run,
        } => {
            let bytes = run.buffer.bytes();
            ChunkHeader::verified(bytes).expect("what is written is a valid chunk");
            format!("write {number} at {segment}:{position} {}", bytes.len())
        }
        Step::Flush { segments } => {
            let bases: Vec<String> = segments.iter().map(|base| base.0.to_string()).collect();
            format!("flush {{{}}}", bases.join(","))
        }
        Step::Create { base, size } => format!("create {base} {size}"),
        Step::Allocate { segment, size } => format!("allocate {segment} {size}"),
    }
}

#[test]
fn nothing_happens_before_the_first_append() {
    assert_eq!(Test::new().steps(), Vec::<String>::new());
}

#[test]
fn what_comes_during_a_write_gathers() {
    let mut test = Test::with_segment();
    test.append(10);
    test.append(10);
    assert_eq!(test.steps(), ["write 1 at 0:8192 4096"]);
    test.append(10);
    test.append(10_000);
    assert_eq!(
        test.steps(),
        Vec::<String>::new(),
        "too little, and one is in flight"
    );
    test.append(GATHER_SIZE);
    assert_eq!(test.steps(), ["write 2 at 0:12288 274432"]);
}

#[test]
fn four_writes_are_in_flight_at_most() {
    let mut test = Test::with_segment();
    for _ in 0..6 {
        test.append(MAX_CHUNK_SIZE - 1000);
    }
    let steps = test.steps();
    assert_eq!(steps.len(), 4, "{steps:?}");
    test.appender.written(2);
    assert_eq!(test.steps().len(), 2, "another write, and the flush");
}

#[test]
fn the_durable_end_moves_over_a_contiguous_prefix_only() {
    let mut test = Test::with_segment();
    for _ in 0..3 {
        test.append(GATHER_SIZE);
        test.steps();
    }
    test.appender.written(2);
    test.appender.written(3);
    assert_eq!(test.steps(), ["flush {0}"]);
    test.appender.flushed();
    assert_eq!(
        test.appender.durable().next,
        Offset(1),
        "the first is in flight"
    );
    test.appender.written(1);
    assert_eq!(test.steps(), ["flush {0}"]);
    test.appender.flushed();
    assert_eq!(test.appender.durable().next, Offset(4));
}

#[test]
fn a_flush_covers_only_what_had_completed_before_it() {
    let mut test = Test::with_segment();
    test.append(GATHER_SIZE);
    test.steps();
    test.append(GATHER_SIZE);
    test.steps();
    test.appender.written(1);
    assert_eq!(test.steps(), ["flush {0}"]);
    test.appender.written(2);
    assert_eq!(test.steps(), Vec::<String>::new(), "one flush at a time");
    test.appender.flushed();
    assert_eq!(test.appender.durable().next, Offset(2));
    assert_eq!(test.steps(), ["flush {0}"]);
    test.appender.flushed();
    assert_eq!(test.appender.durable().next, Offset(3));
}

#[test]
fn chunks_carry_one_epoch_and_the_durable_end() {
    let mut test = Test::with_segment();
    test.append(10);
    test.epoch = LeaderEpoch(1);
    test.append(10);
    let mut headers = Vec::new();
    while let Some(step) =
        test.appender
            .next_step(&test.options, 1, Lane::Direct, FlushNeed::Everything)
    {
        if let Step::Write { number, run, .. } = step {
            headers.push(ChunkHeader::verified(run.buffer.bytes()).unwrap());
            test.appender.written(number);
        }
    }
    let seen: Vec<_> = headers
        .iter()
        .map(|header| (header.epoch, header.flushed))
        .collect();
    assert_eq!(seen[0], (LeaderEpoch(0), Offset(1)));
    assert_eq!(seen[1], (LeaderEpoch(1), Offset(1)));
}

#[test]
fn an_idle_log_is_sealed_once() {
    let mut test = Test::with_segment();
    assert!(test.appender.seal_log(5));
    assert!(!test.appender.seal_log(5), "not before that one is durable");
    assert_eq!(test.steps(), ["write 1 at 0:8192 4096"]);
    test.appender.written(1);
    test.steps();
    test.appender.flushed();
    assert!(!test.appender.seal_log(5), "the end has its mark");
}

#[test]
fn segments_roll_by_size_and_by_age() {
    let mut test = Test::with_segment();
    test.options.segment_size = 64 << 10;
    test.append(70_000);
    // No more than the segment may hold, but for a chunk that is larger alone.
    assert_eq!(test.steps(), ["create 1 77824"]);
    test.appender.created(Offset(1), 1 << 20);
    assert_eq!(test.steps(), ["write 1 at 1:4096 73728"]);
    test.appender.written(1);
    test.steps();
    test.appender.flushed();
    test.options.segment_size = 1 << 30;
    test.append(10);
    assert_eq!(test.steps(), ["write 2 at 1:77824 4096"]);
    test.appender.written(2);
    test.steps();
    test.appender.flushed();
    test.now_ms = 1 + test.options.segment_roll_ms;
    test.append(10);
    assert_eq!(test.steps(), ["create 3 4194304"]);
}

#[test]
fn space_is_allocated_ahead_and_grows() {
    let mut test = Test::new();
    test.append(10);
    test.steps();
    test.appender.created(Offset::ZERO, FIRST_ALLOCATION);
    let mut sizes = vec![FIRST_ALLOCATION];
    let mut number = 0;
    while sizes.len() < 4 {
        for step in test.steps() {
            if let Some(size) = step.strip_prefix("allocate 0 ") {
                sizes.push(size.parse().unwrap());
                test.appender
                    .allocated(Offset::ZERO, *sizes.last().unwrap());
            }
            if step.starts_with("write") {
                test.appender.written(number);
                number += 1;
            }
            if step.starts_with("flush") {
                test.appender.flushed();
            }
        }
        test.append(50_000);
    }
    let grown: Vec<u64> = sizes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(grown, [1 << 20, 4 << 20, 16 << 20]);
}

#[test]
fn a_boundary_is_where_everything_so_far_ends() {
    let mut test = Test::with_segment();
    test.append(10);
    test.appender.mark_boundary(1);
    test.append(10);
    test.appender.mark_boundary(2);
    assert_eq!(test.appender.take_boundary(1), None);
    let steps = test.steps();
    assert_eq!(steps.len(), 2, "{steps:?}");
    test.appender.written(1);
    test.appender.written(2);
    test.steps();
    test.appender.flushed();
    let first = Position {
        segment: Offset::ZERO,
        position: 12_288,
        next: Offset(2),
    };
    assert_eq!(test.appender.take_boundary(1), Some(first));
    assert_eq!(test.appender.take_boundary(1), None, "asked for once");
    test.appender.mark_boundary(3);
    test.appender.forget_boundary(3);
    assert_eq!(test.appender.take_boundary(3), None, "nobody asks any more");
    assert_eq!(
        test.appender.take_boundary(2),
        Some(test.appender.durable())
    );
}

#[test]
fn an_open_chunk_is_sealed_for_its_reader() {
    let mut test = Test::with_segment();
    test.append(10);
    test.append(10);
    assert!(test.appender.find(Offset(2)).is_none(), "it may still grow");
    assert!(test.appender.is_open_at(Offset(2)));
    test.appender.seal_open();
    let run = test.appender.find(Offset(2)).expect("it is in memory");
    assert_eq!((run.base(), run.next()), (Offset(1), Offset(3)));
    assert!(
        test.appender.find(Offset(0)).is_none(),
        "durable, so not here"
    );
    assert!(test.appender.find(Offset(3)).is_none());
}

#[test]
fn a_log_with_little_in_it_allocates_little() {
    let mut test = Test::new();
    test.append(10);
    test.steps();
    test.appender.created(Offset::ZERO, FIRST_ALLOCATION);
    for number in 0..20 {
        let steps = test.steps();
        assert!(
            steps[0].starts_with("write") && steps.len() == 1,
            "{steps:?}"
        );
        test.appender.written(number);
        assert_eq!(test.steps(), ["flush {0}"]);
        test.appender.flushed();
        test.append(10);
    }
}

#[test]
fn a_durable_chunk_behind_one_that_only_the_journal_holds_is_not_acknowledged() {
    let mut test = Test::with_segment();
    test.append(10);
    let (chunk, size, next) = {
        let entry = test.appender.hand_over(1).expect("something is pending");
        (entry.chunk, entry.through_size, entry.header.next)
    };
    test.appender.journaled(1, chunk, size, next);
    assert_eq!(test.appender.acknowledged(), next);
    test.appender.seal_open();
    let step = |test: &mut Test| {
        let (options, now) = (test.options, test.now_ms);
        let step = test
            .appender
            .next_step(&options, now, Lane::Direct, FlushNeed::Acknowledgement);
        step.map(|step| show(&step))
    };
    // The first chunk's write is slow.
    assert_eq!(step(&mut test).as_deref(), Some("write 1 at 0:8192 4096"));
    test.append(GATHER_SIZE);
    assert!(step(&mut test).expect("a write").starts_with("write 2"));
    assert_eq!(step(&mut test), None);
    test.appender.written(2);
    assert_eq!(step(&mut test).as_deref(), Some("flush {0}"));
    test.appender.written(1);
    test.appender.flushed();
    let flush = step(&mut test);
    // Chunk 1 is in the journal and in no segment: a recovery ends after it, and cuts chunk 2.
    assert!(
        test.appender.acknowledged() == next || flush.is_some(),
        "acknowledged {} over a hole, and nothing flushes it",
        test.appender.acknowledged()
    );
    assert_eq!(test.appender.acknowledged(), next, "beyond the hole");
}

#[test]
fn what_went_nowhere_is_taken_back_and_its_offsets_are_free_again() {
    let mut test = Test::with_segment();
    test.append(MAX_CHUNK_SIZE / 2);
    assert_eq!(test.steps(), ["write 1 at 0:8192 528384"]);
    test.append(MAX_CHUNK_SIZE - 8192);
    test.append(10_000);
    assert_eq!(test.appender.log_end(), Offset(4));
    let size = test.appender.take_back(Offset(1));
    assert!(size > MAX_CHUNK_SIZE);
    // What is being written stays.
    assert_eq!(test.appender.log_end(), Offset(2));
    assert_eq!(test.appender.take_back(Offset(1)), 0);
    test.appender.written(1);
    assert_eq!(test.steps(), ["flush {0}"]);
    test.appender.flushed();
    assert!(test.appender.is_idle());
    test.append(10);
    assert_eq!(test.appender.acknowledged(), Offset(2));
    assert_eq!(test.appender.log_end(), Offset(3));
}

#[test]
fn what_somebody_was_told_of_is_not_taken_back() {
    let mut test = Test::with_segment();
    test.append(10);
    assert_eq!(test.appender.take_back(Offset(2)), 0);
    assert_eq!(test.appender.log_end(), Offset(2));
}

/// A frame may be on disk though nobody was told.
#[test]
fn what_the_journal_was_handed_is_not_taken_back() {
    let mut test = Test::with_segment();
    test.append(10);
    let (chunk, through, next) = {
        let entry = test.appender.hand_over(1).expect("something is pending");
        (entry.chunk, entry.through_size, entry.header.next)
    };
    test.append(20_000);
    assert!(test.appender.take_back(Offset(1)) > 20_000);
    assert_eq!(test.appender.log_end(), Offset(2));
    assert_eq!(test.appender.take_back(Offset(1)), 0);
    test.appender.journaled(1, chunk, through, next);
    assert_eq!(test.appender.acknowledged(), Offset(2));
    test.append(10);
    let entry = test.appender.hand_over(2).expect("the new one is pending");
    assert_eq!(
        (entry.header.base, entry.header.batch_count),
        (Offset(2), 1)
    );
}

/// The batch for which there was no room in the segment is refused, and what stays would fit there again:
/// the new segment still begins where it was to begin.
#[test]
fn what_is_left_of_a_chunk_waits_for_the_segment_that_was_begun_for_it() {
    let mut test = Test::with_segment();
    test.options.segment_size = 64 << 10;
    test.append(10);
    let (chunk, through, next) = {
        let entry = test.appender.hand_over(1).expect("something is pending");
        (entry.chunk, entry.through_size, entry.header.next)
    };
    test.appender.journaled(1, chunk, through, next);
    test.append(200_000);
    assert_eq!(test.steps(), ["create 1 204800"]);
    assert!(test.appender.take_back(Offset(1)) > 200_000);
    assert_eq!(test.appender.log_end(), Offset(2));
    assert_eq!(test.steps(), Vec::<String>::new());
    test.appender.created(Offset(1), 204_800);
    assert_eq!(test.steps(), ["write 1 at 1:4096 4096"]);
}
