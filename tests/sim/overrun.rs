//! Readers that deletion overtakes: they are told so, where the log starts now, and it is counted; in the middle
//! of a read from a slow disk as well.

use std::time::Duration;

use futures_util::future::join;
use millstream::io::sim::{DiskTimes, Sim, SimIo};
use millstream_protocol::{ErrorCode, Offset, messages::FetchPartitionResult};

use crate::{scenario::topic, small::Small};

const RECORDS: i32 = 12;
const END: Offset = Offset(RECORDS as i64);

async fn filled(io: &SimIo) -> Small {
    let small = Small::start(io.clone(), topic("t", 1, "flushed")).await;
    for sequence in 0..RECORDS {
        small.produce(sequence, 30_000).await;
    }
    small
}

fn overrun(small: &Small) -> u64 {
    let counters = small.world.broker.counters().iter();
    counters.map(|shard| shard.readers_overrun.value()).sum()
}

#[test]
fn a_reader_of_what_was_deleted_hears_where_the_log_starts() {
    Sim::new(1).run(|io| async move {
        let small = filled(&io).await;
        small.trim(Offset(7)).await;
        let (told, bytes) = small.fetched(Offset(2)).await;
        assert_eq!((told.error, bytes), (ErrorCode::OffsetOutOfRange, 0));
        assert_eq!(told.log_start_offset, Offset(7));
        assert_eq!(overrun(&small), 1);
        // Beyond the end is another mistake.
        let (told, _) = small.fetched(Offset(99)).await;
        assert_eq!(told.error, ErrorCode::OffsetOutOfRange);
        assert_eq!(overrun(&small), 1);
    });
}

/// The records go while they are read: the reply has them, or says that they are gone, and never something
/// else. Both happen, at some of the moments that are tried.
#[test]
fn a_read_that_deletion_overtakes_half_way_is_told_so() {
    let mut gone = 0;
    let mut there = 0;
    for moment in 0..60 {
        let told =
            Sim::new(moment).run(move |io| overtaken(io, Duration::from_millis(moment * 20)));
        match told.error {
            ErrorCode::None => there += 1,
            // Refused before it was read says how far the log goes.
            ErrorCode::OffsetOutOfRange if told.message.contains("which has") => {}
            ErrorCode::OffsetOutOfRange => {
                assert_eq!(told.log_start_offset, END);
                gone += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(gone > 2 && there > 2, "{gone} gone, {there} there");
}

/// What a fetch is told that begins a moment after everything began to be deleted.
async fn overtaken(io: SimIo, moment: Duration) -> FetchPartitionResult {
    let mut small = filled(&io).await;
    // Nothing of it is in memory.
    small.world.broker.stop().await;
    small.world.start();
    small.world.broker.ready().await;
    let disk = small.world.broker.disk();
    disk.set_times(DiskTimes::default().slower(200));
    let reading = {
        let small = &small;
        async move {
            small.sleep(moment).await;
            small.fetched(Offset(0)).await
        }
    };
    let ((told, bytes), ()) = join(reading, small.trim(END)).await;
    assert_eq!(bytes > 0, told.error == ErrorCode::None);
    let counted = u64::from(told.error == ErrorCode::OffsetOutOfRange);
    assert_eq!(overrun(&small), counted);
    told
}
