//! Consumer groups on a shard: one coordinator for each partition of the offsets topic that it owns.
//!
//! A group belongs to the partition of its name. What must outlive the process, committed offsets and who
//! is a member, are records of that partition, appended like any other and answered when durable.

mod commit;
mod coordinator;
mod entry;
mod here;
mod large;
mod load;
mod order;
mod requests;
mod upkeep;
mod wire;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};

use millstream_protocol::{
    PartitionIndex, TopicId, TopicPartition,
    names::{OFFSETS_TOPIC, is_internal},
    partitioner::partition_for_key,
};

use crate::{
    controller::MetadataImage,
    group::{Event, Topics},
    io::{Io, Signal, TaskClass},
    shard::{Shard, partition::PartitionShell},
};

use self::coordinator::Coordinator;
pub(super) use self::requests::{GroupRequest, GroupResponse};

/// The part of a shard's memory that groups may take.
const MEMORY_PART: usize = 8;

/// What a shard knows of groups.
pub(super) struct Groups {
    coordinators: RefCell<BTreeMap<PartitionIndex, Rc<Coordinator>>>,
    /// The topics of users, as of the newest metadata.
    topics: RefCell<Rc<Topics>>,
    /// The offsets topic, once it is there, and how many partitions it has.
    place: Cell<Option<(TopicId, u32)>>,
    /// Groups may have something due; raised when one comes to life.
    alive: Signal,
    /// About what groups take, in bytes.
    used: Rc<Cell<usize>>,
    limit: usize,
    /// Offsets of a group without members are kept so long, in milliseconds.
    retention_ms: i64,
}

impl Groups {
    pub(super) fn new(memory: usize, retention_ms: i64) -> Self {
        Self {
            coordinators: RefCell::default(),
            topics: RefCell::default(),
            place: Cell::new(None),
            alive: Signal::default(),
            used: Rc::default(),
            limit: memory / MEMORY_PART,
            retention_ms,
        }
    }

    fn all(&self) -> Vec<Rc<Coordinator>> {
        self.coordinators.borrow().values().cloned().collect()
    }

    fn has_room(&self, more: usize) -> bool {
        self.used.get() + more <= self.limit
    }

    /// Whether a topic may be written by the broker alone.
    pub(super) fn is_offsets_topic(&self, topic: TopicId) -> bool {
        self.place.get().is_some_and(|(id, _)| id == topic)
    }
}

impl<I: Io> Shard<I> {
    /// Takes the topics of newer metadata and tells every group what changed.
    pub(super) fn groups_take_image(self: &Rc<Self>, image: &MetadataImage) {
        let groups = &self.groups;
        if let Some(topic) = image.topic_named(OFFSETS_TOPIC) {
            groups.place.set(Some((topic.id, topic.partition_count())));
        }
        let of_users = image.topics().filter(|topic| !is_internal(&topic.name));
        let of_users = of_users.map(|it| (it.name.clone(), it.id, it.partition_count()));
        let newest = Rc::new(Topics::new(of_users));
        let before = groups.topics.replace(Rc::clone(&newest));
        let change = Rc::new(before.changes(&newest));
        if change.is_empty() {
            return;
        }
        for coordinator in groups.all() {
            if coordinator.refusal().is_some() {
                // It takes the newest when it is loaded.
                continue;
            }
            let names = coordinator.group_names();
            for name in names {
                let event = Event::Topics(Rc::clone(&newest), Rc::clone(&change));
                self.apply_to_group(&coordinator, &name, event);
            }
            self.forget_offsets_of(&coordinator, |offsets| {
                let gone = change.touched.iter();
                let gone = gone.filter(|id| newest.name(**id).is_none());
                gone.flat_map(|id| offsets.recorded_of(*id)).collect()
            });
        }
    }

    /// A partition was opened: if it is one of the offsets topic, its groups are loaded.
    pub(super) fn coordinate(self: &Rc<Self>, id: TopicPartition, shell: &Rc<PartitionShell<I>>) {
        let image = Arc::clone(&self.image.borrow());
        let offsets_topic = image.topic_named(OFFSETS_TOPIC);
        if offsets_topic.is_none_or(|topic| topic.id != id.topic) {
            return;
        }
        let epoch = shell.with_machine(|machine| machine.epoch());
        let coordinator = Rc::new(Coordinator::new(id, epoch));
        let mut coordinators = self.groups.coordinators.borrow_mut();
        coordinators.insert(id.partition, Rc::clone(&coordinator));
        drop(coordinators);
        let load = Rc::clone(self).load_groups(coordinator, Rc::clone(shell));
        self.io().spawn(TaskClass::Foreground, load);
    }

    /// The partition of a group; `None` while the offsets topic is not there.
    fn place_of(self: &Rc<Self>, group: &str) -> Option<TopicPartition> {
        if self.groups.place.get().is_none() {
            self.take_newer_image();
        }
        let (topic, count) = self.groups.place.get()?;
        Some(TopicPartition {
            topic,
            partition: partition_for_key(group.as_bytes(), count),
        })
    }
}
