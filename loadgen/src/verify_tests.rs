//! Every kind of fault, seeded into a log that is otherwise right, must be found and counted exactly.

use super::*;
use crate::payload::Payload;

const RUN: u64 = 77;

/// A log of one partition: values in offset order.
fn log(producers: u32, count: u64) -> Vec<Vec<u8>> {
    let mut payload = Payload::new(64, true, 0.5, 1);
    (0..count)
        .flat_map(|sequence| (0..producers).map(move |producer| (producer, sequence)))
        .map(|(producer, sequence)| {
            let head = Head {
                run: RUN,
                producer,
                partition: 0,
                sequence,
                intended_us: 0,
            };
            value(&mut payload, &head)
        })
        .collect()
}

fn value(payload: &mut Payload, head: &Head) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    payload.write(&mut out, head, 64);
    out.to_vec()
}

fn marks(producers: u32, answered: u64) -> Acknowledged {
    let marks = (0..producers).map(|producer| {
        let mark = Mark {
            answered,
            ..Mark::default()
        };
        ((producer, 0), mark)
    });
    Acknowledged {
        run: RUN,
        topics: vec!["t".into()],
        marks: marks.collect(),
    }
}

fn read(values: &[Vec<u8>]) -> Verifier {
    let mut verifier = Verifier::new(Some(RUN));
    for (offset, value) in (0..).zip(values) {
        verifier.record(0, offset, Some(value));
    }
    verifier
}

fn counts(verdict: &Verdict) -> [u64; 4] {
    assert_eq!(verdict.is_clean(), verdict.examples.is_empty());
    let Verdict {
        lost,
        repeated,
        reordered,
        corrupt,
        ..
    } = verdict;
    [*lost, *repeated, *reordered, *corrupt]
}

#[test]
fn a_right_log_is_clean() {
    let verdict = read(&log(3, 100)).finish(Some(&marks(3, 100)), &[0]);
    assert_eq!(counts(&verdict), [0, 0, 0, 0]);
    assert_eq!(verdict.received, 300);
    assert_eq!(verdict.acknowledged, Some(300));
}

#[test]
fn loss_is_found_within_and_at_the_end() {
    let mut values = log(2, 100);
    values.truncate(190);
    values.drain(20..24);
    let verdict = read(&values).finish(Some(&marks(2, 100)), &[0]);
    assert_eq!(counts(&verdict), [14, 0, 0, 0]);
    let unknown = read(&values).finish(None, &[0]);
    assert_eq!(
        counts(&unknown),
        [4, 0, 0, 0],
        "the end is unknown without marks"
    );
}

#[test]
fn a_partition_that_lost_everything_is_found() {
    let verdict = Verifier::new(Some(RUN)).finish(Some(&marks(1, 9)), &[0]);
    assert_eq!(counts(&verdict), [9, 0, 0, 0]);
    let elsewhere = Verifier::new(Some(RUN)).finish(Some(&marks(1, 9)), &[1]);
    assert_eq!(
        counts(&elsewhere),
        [0, 0, 0, 0],
        "another reader's partition"
    );
}

#[test]
fn what_was_never_acknowledged_may_be_missing_or_there() {
    let mut values = log(1, 100);
    values.drain(40..50);
    let mut known = marks(1, 90);
    known.marks.get_mut(&(0, 0)).unwrap().failed = vec![(40, 48)];
    let verdict = read(&values).finish(Some(&known), &[0]);
    assert_eq!(counts(&verdict), [2, 0, 0, 0]);
}

#[test]
fn repeats_and_reorders_are_told_apart() {
    let mut values = log(1, 100);
    values.insert(50, values[49].clone());
    values.push(values[3].clone());
    values.swap(10, 11);
    let verdict = read(&values).finish(Some(&marks(1, 100)), &[0]);
    assert_eq!(counts(&verdict), [0, 2, 1, 0]);
}

#[test]
fn an_offset_read_twice_is_a_repeat() {
    let values = log(1, 5);
    let mut verifier = read(&values);
    verifier.record(0, 4, Some(&values[4]));
    assert_eq!(counts(&verifier.finish(None, &[0])), [0, 1, 0, 0]);
}

#[test]
fn corruption_and_a_wrong_partition_are_found() {
    let mut values = log(1, 20);
    values[5][60] ^= 1;
    let mut verifier = read(&values);
    verifier.record(1, 0, Some(&values[6]));
    let verdict = verifier.finish(Some(&marks(1, 20)), &[0]);
    assert_eq!(
        counts(&verdict),
        [1, 0, 0, 2],
        "a corrupt record is lost too"
    );
}

#[test]
fn others_records_are_not_judged() {
    let mut verifier = read(&log(1, 3));
    verifier.record(0, 3, Some(b"hello"));
    verifier.record(0, 4, None);
    let other = Head {
        run: RUN + 1,
        producer: 0,
        partition: 0,
        sequence: 9,
        intended_us: 0,
    };
    verifier.record(
        0,
        5,
        Some(&value(&mut Payload::new(64, true, 0.5, 1), &other)),
    );
    let verdict = verifier.finish(Some(&marks(1, 3)), &[0]);
    assert_eq!(counts(&verdict), [0, 0, 0, 0]);
    assert_eq!((verdict.received, verdict.foreign), (3, 3));
}

#[test]
fn a_log_whose_start_was_deleted_begins_anywhere() {
    let values = log(1, 100);
    let mut verifier = Verifier::new(None);
    verifier.begins_late(0);
    for (offset, value) in (40..).zip(&values[40..]) {
        verifier.record(0, offset, Some(value));
    }
    assert_eq!(counts(&verifier.finish(None, &[0])), [0, 0, 0, 0]);
}

#[test]
fn a_record_that_is_not_where_it_was_acknowledged_is_found() {
    let values = log(1, 20);
    let mut known = marks(1, 10);
    known.marks.get_mut(&(0, 0)).unwrap().last_offset = 9;
    let judge = |known: &Acknowledged, expected: bool| {
        let mut verifier = Verifier::new(Some(RUN));
        if expected {
            verifier.expect(known);
        }
        for (offset, value) in (0..).zip(&values) {
            verifier.record(0, offset, Some(value));
        }
        verifier.finish(Some(known), &[0]).moved
    };
    assert_eq!(judge(&known, true), 0);
    known.marks.get_mut(&(0, 0)).unwrap().last_offset = 8;
    assert_eq!(judge(&known, true), 1, "known before the reading");
    let mut all = marks(1, 20);
    all.marks.get_mut(&(0, 0)).unwrap().last_offset = 19;
    assert_eq!(judge(&all, false), 0);
    all.marks.get_mut(&(0, 0)).unwrap().last_offset = 20;
    assert_eq!(judge(&all, false), 1, "the last record of all");
}
