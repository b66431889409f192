//! Reads a partition of the offsets topic: what groups there are, what they committed, who their members
//! were. Until that is done the answer is "loading".

use std::{collections::BTreeMap, pin::pin, rc::Rc, time::Duration};

use futures_util::future::select;
use millstream_protocol::{
    Offset,
    batch::{BatchError, Batches, DecodedBatch},
};

use super::{
    coordinator::{Coordinator, Phase},
    entry::Entry,
};
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

/// Between a failure and the next try to load ...
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// ... longer each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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
    /// Loads groups and serves them; again whenever something could not be read or kept.
    pub(super) async fn load_groups(
        self: Rc<Self>,
        coordinator: Rc<Coordinator>,
        shell: Rc<PartitionShell<I>>,
    ) {
        let mut pause = FIRST_PAUSE;
        loop {
            let (phase, reason) = match self.read_groups(&shell).await {
                Ok(found) => {
                    self.begin_groups(&coordinator, found);
                    let begun = self.io().now();
                    let broken = || coordinator.trouble.borrow().is_some();
                    coordinator.moved.wait_until(broken).await;
                    if self.io().now().since(begun) > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                    let trouble = coordinator.trouble.borrow().clone().expect("just seen");
                    let phase = match trouble.error.is_retriable() {
                        true => Phase::Loading,
                        false => Phase::Failed(trouble.message.clone()),
                    };
                    (phase, trouble.message)
                }
                Err(error) => (Phase::Failed(error.to_string()), error.to_string()),
            };
            let partition = self.name_of(coordinator.partition);
            let pause_ms = pause.as_millis();
            tracing::error!(%partition, reason, pause_ms, "groups are to be loaded anew");
            coordinator.clear(phase);
            coordinator.settled().await;
            let stop = pin!(self.stopping_signal().wait_until(|| self.is_stopping_now()));
            select(pin!(self.io().sleep(pause)), stop).await;
            if self.is_stopping_now() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            *coordinator.trouble.borrow_mut() = None;
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
        for (name, found) in found {
            if found.offsets.is_empty() && found.members.is_empty() && found.record.is_none() {
                continue;
            }
            let id: Rc<str> = name.into();
            let record = found.record.unwrap_or_default();
            let mut group = Group::new(Rc::clone(&id), start, Rc::clone(&topics), record);
            for (member, record) in found.members {
                group.remember(member, record, now);
            }
            let life = coordinator.next_life();
            let entry = Entry::new(group, found.offsets, life, &self.groups.used);
            coordinator.insert(id, entry);
        }
        *coordinator.phase.borrow_mut() = Phase::Ready;
        self.groups.alive.raise();
        self.forget_offsets_of(coordinator, |offsets| {
            let recorded = offsets.recorded().into_iter();
            recorded
                .filter(|at| topics.name(at.topic).is_none())
                .collect()
        });
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
