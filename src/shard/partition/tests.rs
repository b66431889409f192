//! What a partition's shell refuses before its machine is asked.

use millstream_protocol::{
    PartitionIndex, TopicId,
    batch::{BatchBuilder, Compression, NO_HEADERS},
};

use super::*;
use crate::{
    io::sim::{Sim, SimIo},
    storage::StorageConfig,
};

async fn open(io: &SimIo) -> Rc<PartitionShell<SimIo>> {
    let config = StorageConfig {
        first_life: 1 << 40,
        data_dir: "/data".into(),
        cache_size: 1 << 20,
        unflushed_limit: 1 << 20,
        open_files: 2,
        journal_file_size: 1 << 20,
        journal_size_max: 2 << 20,
        prepared_size: 0,
        prepared_file_size: 128 << 10,
    };
    let storage = ShardStorage::new(io.clone(), config, std::sync::Arc::default());
    let id = TopicPartition {
        topic: TopicId::default(),
        partition: PartitionIndex(0),
    };
    let config = TopicConfig::default();
    let opened = PartitionShell::open(io.clone(), &storage, id, LeaderEpoch(0), &config).await;
    opened.expect("an empty log opens").0
}

/// Each within its limit, all within a frame, and more than a chunk may hold.
#[test]
fn many_batches_beyond_the_largest_append_are_refused() {
    Sim::new(1).run(|io| async move {
        let shell = open(&io).await;
        let mut builder = BatchBuilder::new();
        let value = vec![7; 4_000_000];
        builder
            .push(1, None, Some(&value), NO_HEADERS)
            .expect("a record");
        let batch = builder.finish(None, Compression::None);
        let mut records = batch.repeat(17);
        assert!(records.len() < millstream_protocol::limits::MAX_FRAME_SIZE as usize);
        let refused = shell.prepare(&mut records, 1).unwrap_err();
        assert_eq!(refused.error_code(), ErrorCode::BatchTooLarge);
        assert_eq!(
            shell.prepare(&mut records[..batch.len()], 1).unwrap().len(),
            1
        );
    });
}
