//! Reads a partition of the offsets topic: what groups there are, what they committed, who their members
//! were. Until that is done the answer is "loading".

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use millstream_protocol::{
    Offset,
    batch::{BatchError, Batches, DecodedBatch},
};

use super::coordinator::{Coordinator, Entry, GROUP_SIZE, MEMBER_SIZE, Phase};
use crate::{
    group::{
        Group, GroupRecord, MemberRecord,
        format::Key,
        offsets::{Committed, Offsets},
    },
    io::Io,
    shard::{Shard, partition::PartitionShell},
    storage::ReadError,
};

/// Bytes read at a time.
const READ_SIZE: usize = 1 << 20;

/// Between a failure to keep something and the next try to load.
const PAUSE: Duration = Duration::from_millis(500);

/// What was read of one group.
#[derive(Default)]
struct Found {
    offsets: Offsets,
    members: BTreeMap<String, MemberRecord>,
    record: Option<GroupRecord>,
}

/// Why groups could not be loaded.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("the offsets topic cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("a batch of the offsets topic cannot be read: {0}")]
    Batch(#[from] BatchError),
    #[error("the offsets topic ends at {0} and says that it goes on")]
    Short(Offset),
}

impl<I: Io> Shard<I> {
    /// Loads groups and serves them; again whenever something could not be kept.
    pub(super) async fn load_groups(
        self: Rc<Self>,
        coordinator: Rc<Coordinator>,
        shell: Rc<PartitionShell<I>>,
    ) {
        loop {
            match self.read_groups(&shell).await {
                Ok(found) => self.begin_groups(&coordinator, found),
                Err(error) => {
                    let partition = self.name_of(coordinator.partition);
                    tracing::error!(%partition, %error, "groups cannot be loaded");
                    coordinator.clear(Phase::Failed(error.to_string()));
                    return;
                }
            }
            coordinator
                .moved
                .wait_until(|| coordinator.broken.get())
                .await;
            tracing::warn!("what groups decided could not be kept: they are loaded anew");
            self.uncharge(&coordinator);
            coordinator.clear(Phase::Loading);
            coordinator.settled().await;
            self.io().sleep(PAUSE).await;
            if self.is_stopping_now() {
                return;
            }
            coordinator.broken.set(false);
        }
    }

    async fn read_groups(
        self: &Rc<Self>,
        shell: &Rc<PartitionShell<I>>,
    ) -> Result<BTreeMap<String, Found>, LoadError> {
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        let (mut next, end) =
            shell.with_machine(|machine| (machine.log_start(), machine.high_watermark()));
        while next < end {
            let (slices, after) = shell.log().read_some(next, end, READ_SIZE).await?;
            if after <= next {
                return Err(LoadError::Short(next));
            }
            for slice in &slices {
                for batch in Batches::trusted(slice.bytes()) {
                    let (_, bytes) = batch?;
                    take_batch(bytes, &mut found)?;
                }
            }
            next = after;
            self.io().yield_if_needed().await;
        }
        Ok(found)
    }

    fn begin_groups(
        self: &Rc<Self>,
        coordinator: &Rc<Coordinator>,
        found: BTreeMap<String, Found>,
    ) {
        if self.is_stopping_now() {
            return;
        }
        let now = self.io().now();
        let topics = Rc::clone(&self.groups.topics.borrow());
        let start = coordinator.start.get();
        let mut used = self.groups.used.get();
        for (name, found) in found {
            if found.offsets.is_empty() && found.members.is_empty() && found.record.is_none() {
                continue;
            }
            let id: Rc<str> = name.into();
            let record = found.record.unwrap_or_default();
            let mut group = Group::new(Rc::clone(&id), start, Rc::clone(&topics), record);
            used += GROUP_SIZE + found.offsets.size() + found.members.len() * MEMBER_SIZE;
            for (member, record) in found.members {
                group.remember(member, record, now);
            }
            let entry = Entry {
                due: group.deadline(),
                group,
                offsets: found.offsets,
            };
            coordinator.groups.borrow_mut().insert(id, entry);
        }
        self.groups.used.set(used);
        *coordinator.phase.borrow_mut() = Phase::Ready;
        self.groups.alive.raise();
        self.forget_offsets_of_deleted_topics(coordinator);
    }

    /// Gives back what the groups of a coordinator take, before they are forgotten.
    pub(super) fn uncharge(&self, coordinator: &Coordinator) {
        let groups = coordinator.groups.borrow();
        let sizes = groups.values().map(|entry| {
            GROUP_SIZE + entry.offsets.size() + entry.group.member_count() * MEMBER_SIZE
        });
        let used = self.groups.used.get();
        self.groups.used.set(used.saturating_sub(sizes.sum()));
    }
}

fn take_batch(bytes: &[u8], found: &mut BTreeMap<String, Found>) -> Result<(), BatchError> {
    let batch = DecodedBatch::open(bytes)?;
    for record in batch.records() {
        let record = record?;
        let key = record.key.map(Key::decode);
        let Some(Ok(Some(key))) = key else {
            // Of a newer broker, which this one may follow after a step back.
            tracing::warn!(offset = %record.offset, "a record of the offsets topic is of an unknown kind");
            continue;
        };
        let group = found.entry(key.group().to_owned()).or_default();
        if let Err(error) = take_record(key, record.value, group) {
            tracing::warn!(offset = %record.offset, %error, "a record of the offsets topic cannot be read");
        }
    }
    Ok(())
}

fn take_record(
    key: Key,
    value: Option<&[u8]>,
    group: &mut Found,
) -> Result<(), millstream_protocol::DecodeError> {
    match key {
        Key::Offset(_, partition) => {
            let committed = value.map(Committed::decode).transpose()?;
            group.offsets.take(partition, committed);
        }
        Key::Member(_, member) => match value {
            Some(bytes) => drop(group.members.insert(member, MemberRecord::decode(bytes)?)),
            None => drop(group.members.remove(&member)),
        },
        Key::Group(_) => group.record = value.map(GroupRecord::decode).transpose()?,
    }
    Ok(())
}
