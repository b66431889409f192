//! Committed offsets: what is acknowledged is what the next coordinator reads, whatever else is under way.

use std::time::Duration;

use millstream::io::{
    Clock as _,
    sim::{CrashPolicy, DiskTimes, Sim},
};
use millstream_protocol::{
    ErrorCode, LeaderEpoch, Offset, TopicPartition,
    messages::{
        ANY_SHARD, DeleteGroupsRequest, DeleteGroupsResult, NO_EPOCH, OffsetCommitPartition,
        OffsetCommitRequest, OffsetFetchRequest,
    },
};

use crate::{
    full_disk::{LOOK, set_free},
    scenario::topic,
    small::Small,
};

const PAUSE: Duration = Duration::from_millis(100);

impl Small {
    fn at(&self) -> TopicPartition {
        TopicPartition {
            topic: self.topic,
            ..TopicPartition::default()
        }
    }

    /// Commits for a group without members. It is sent at once.
    fn commit(&self, offset: i64) -> impl Future<Output = (ErrorCode, String)> + use<> {
        let at = self.at();
        let request = OffsetCommitRequest {
            group: "g".to_owned(),
            member_id: String::new(),
            member_epoch: NO_EPOCH,
            partitions: vec![OffsetCommitPartition {
                topic: at.topic,
                partition: at.partition,
                offset: Offset(offset),
                leader_epoch: LeaderEpoch::UNKNOWN,
                metadata: String::new(),
            }],
        };
        let answered = self.world.admin.request(ANY_SHARD, &request, &[]);
        async move {
            let mut reply = answered.await.expect("it is answered in time").0;
            let result = reply.partitions.remove(0);
            (result.error, result.message)
        }
    }

    async fn committed_durably(&self, offset: i64) {
        loop {
            match self.commit(offset).await {
                (ErrorCode::None, _) => return,
                (error, message) => assert!(error.is_retriable(), "{error:?}: {message}"),
            }
            self.sleep(PAUSE).await;
        }
    }

    async fn try_fetch_committed(&self) -> Result<Offset, (ErrorCode, String)> {
        let request = OffsetFetchRequest {
            group: "g".to_owned(),
            partitions: Some(vec![self.at()]),
        };
        let reply = self.world.ask(&request).await;
        match reply.error {
            ErrorCode::None => Ok(reply.partitions[0].offset),
            error => Err((error, reply.message)),
        }
    }

    async fn fetch_committed(&self) -> Offset {
        loop {
            match self.try_fetch_committed().await {
                Ok(offset) => return offset,
                Err((error, message)) => assert!(error.is_retriable(), "{error:?}: {message}"),
            }
            self.sleep(PAUSE).await;
        }
    }

    fn delete_group(&self) -> impl Future<Output = DeleteGroupsResult> + use<> {
        let request = DeleteGroupsRequest {
            groups: vec!["g".to_owned()],
        };
        let answered = self.world.admin.request(ANY_SHARD, &request, &[]);
        async move {
            let mut reply = answered.await.expect("it is answered in time").0;
            reply.groups.remove(0)
        }
    }
}

/// A group is deleted while a commit of it is on its way to the disk. The commit comes first in the log, so
/// it is deleted as well; before, it was there until the next start.
#[test]
fn a_deletion_beside_a_commit_leaves_what_the_log_says() {
    Sim::new(1).run(|io| async move {
        let mut small = Small::start(io.clone(), topic("t", 1, "flushed")).await;
        small.committed_durably(5).await;
        assert_eq!(small.fetch_committed().await, Offset(5));
        let disk = small.world.broker.disk().clone();
        disk.set_times(DiskTimes::default().slower(500));
        let commit = small.commit(6);
        small.sleep(Duration::from_millis(10)).await;
        let begun = io.now();
        let deletion = small.delete_group();
        let (committed, deleted) = futures_util::future::join(commit, deletion).await;
        assert_eq!(
            (committed.0, deleted.error),
            (ErrorCode::None, ErrorCode::None)
        );
        assert!(
            io.now().since(begun) > Duration::from_millis(10),
            "the disk was slow"
        );
        disk.set_times(DiskTimes::default());
        assert_eq!(small.fetch_committed().await, Offset(-1));
        small.world.cut_power(CrashPolicy::KeepAll).await;
        small.world.broker.ready().await;
        assert_eq!(small.fetch_committed().await, Offset(-1));
        small.committed_durably(7).await;
        assert_eq!(small.fetch_committed().await, Offset(7));
        small.world.broker.stop().await;
    });
}

/// On a full disk a topic is deleted of which offsets were committed. That has to be noted, and the groups go
/// on meanwhile; before, they were read anew twice a second.
#[test]
fn a_full_disk_does_not_keep_groups_from_being_served() {
    Sim::new(1).run(|io| async move {
        let mut small = Small::start(io.clone(), topic("t", 1, "flushed")).await;
        small.world.create(&topic("other", 1, "flushed")).await;
        small.committed_durably(5).await;
        set_free(&small, &io, -(1 << 20)).await;
        small.sleep(LOOK).await;
        assert_eq!(small.commit(6).await.0, ErrorCode::DiskFull);
        small.world.delete("t").await;
        for _ in 0..30 {
            small.sleep(PAUSE).await;
            assert_eq!(small.try_fetch_committed().await, Ok(Offset(-1)));
        }
        small.world.broker.stop().await;
    });
}
