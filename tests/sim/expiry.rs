//! Retention: what is old goes, whether anything follows it or not.

use std::time::Duration;

use millstream::io::sim::{CrashPolicy, Sim};
use millstream_protocol::{ErrorCode, Offset};

use crate::{scenario::topic, small::Small};

/// The last segment of a topic that gets no more records is rolled, so that it can go. Offsets go on where
/// they were, and a repeat of what expired is still known, also after a power cut.
#[test]
fn records_expire_though_nothing_follows_them() {
    for (size, policy) in [(300, CrashPolicy::DropAll), (40_000, CrashPolicy::KeepAll)] {
        Sim::new(1).run(|io| async move {
            let mut new = topic("t", 1, "flushed");
            let retention = ("retention.ms".to_owned(), "60000".to_owned());
            new.configs.push(retention);
            let mut small = Small::start(io, new).await;
            for sequence in 0..3 {
                let done = small.produce(sequence, size).await;
                assert_eq!(done.error, ErrorCode::None, "{done:?}");
            }
            assert_eq!(small.range().await, (Offset(0), Offset(3)));
            small.sleep(Duration::from_secs(200)).await;
            assert_eq!(small.range().await, (Offset(3), Offset(3)));
            for again in [false, true] {
                if again {
                    small.world.cut_power(policy).await;
                    small.world.broker.ready().await;
                    assert_eq!(small.range().await, (Offset(3), Offset(3)));
                }
                let repeated = small.produce(2, size).await;
                assert_eq!(
                    (repeated.error, repeated.base_offset),
                    (ErrorCode::None, Offset(2))
                );
            }
            let next = small.produce(3, size).await;
            assert_eq!((next.error, next.base_offset), (ErrorCode::None, Offset(3)));
        });
    }
}

/// A clock that is set back makes nothing older than it is: what was appended before keeps its time, though what
/// follows it in its segment says an earlier one.
#[test]
fn a_clock_that_is_set_back_lets_nothing_go_too_soon() {
    Sim::new(1).run(|io| async move {
        let mut new = topic("t", 1, "flushed");
        let retention = ("retention.ms".to_owned(), "60000".to_owned());
        new.configs.push(retention);
        let small = Small::start(io.clone(), new).await;
        small.produce(0, 40_000).await;
        io.step_wall(-50_000);
        small.produce(1, 10_000).await;
        small.sleep(Duration::from_secs(80)).await;
        assert_eq!(small.range().await, (Offset(0), Offset(2)));
        small.sleep(Duration::from_secs(80)).await;
        assert_eq!(small.range().await, (Offset(2), Offset(2)));
    });
}

/// Little that trickles in shares a chunk for long: each record has its whole time all the same.
#[test]
fn what_shares_a_chunk_with_older_records_has_its_whole_time() {
    Sim::new(1).run(|io| async move {
        let mut new = topic("t", 1, "flushed");
        let retention = ("retention.ms".to_owned(), "600000".to_owned());
        new.configs.push(retention);
        let small = Small::start(io, new).await;
        small.produce(0, 100).await;
        small.sleep(Duration::from_secs(70)).await;
        small.produce(1, 100).await;
        small.sleep(Duration::from_secs(590)).await;
        assert_eq!(small.range().await.1, Offset(2));
        assert!(small.range().await.0 <= Offset(1), "record 1 is too young");
        small.sleep(Duration::from_secs(200)).await;
        assert_eq!(small.range().await, (Offset(2), Offset(2)));
    });
}

const DAY_MS: i64 = 86_400_000;

/// A clock that jumps ahead is not believed for an hour: nothing is deleted for it if it is set back in time.
/// Nor is a producer forgotten, however far the jump: it was not silent for that long.
#[test]
fn a_clock_that_jumps_ahead_is_not_believed_at_once() {
    Sim::new(1).run(|io| async move {
        let mut new = topic("t", 1, "flushed");
        let retention = ("retention.ms".to_owned(), "600000".to_owned());
        new.configs.push(retention);
        let small = Small::start(io.clone(), new).await;
        for sequence in 0..3 {
            small.produce(sequence, 40_000).await;
        }
        small.sleep(Duration::from_secs(20)).await;
        io.step_wall(3 * DAY_MS);
        small.sleep(Duration::from_secs(100)).await;
        let repeated = small.produce(2, 40_000).await;
        assert_eq!(
            (repeated.error, repeated.base_offset),
            (ErrorCode::None, Offset(2))
        );
        assert_eq!(small.range().await, (Offset(0), Offset(3)));
        io.step_wall(-3 * DAY_MS);
        small.sleep(Duration::from_secs(400)).await;
        assert_eq!(small.range().await, (Offset(0), Offset(3)));
        // Right or not, after an hour it counts.
        io.step_wall(3 * DAY_MS);
        small.sleep(Duration::from_secs(3000)).await;
        assert_eq!(small.range().await, (Offset(0), Offset(3)));
        small.sleep(Duration::from_secs(800)).await;
        assert_eq!(small.range().await, (Offset(3), Offset(3)));
        let next = small.produce(3, 40_000).await;
        assert_eq!((next.error, next.base_offset), (ErrorCode::None, Offset(3)));
    });
}

/// `retention.clock=record` counts from the records' own times, whatever the broker's clock said at the append.
#[test]
fn records_are_as_old_as_they_say_if_the_topic_wants_it() {
    Sim::new(1).run(|io| async move {
        let mut new = topic("t", 1, "flushed");
        for (name, value) in [("retention.ms", "60000"), ("retention.clock", "record")] {
            new.configs.push((name.to_owned(), value.to_owned()));
        }
        let small = Small::start(io, new).await;
        // They carry the time 1 of 1970.
        small.produce(0, 40_000).await;
        small.produce(1, 40_000).await;
        small.sleep(Duration::from_secs(30)).await;
        assert_eq!(small.range().await, (Offset(2), Offset(2)));
    });
}
