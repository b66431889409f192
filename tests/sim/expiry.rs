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
