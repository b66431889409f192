//! Which partitions are open on a shard: follows the metadata.

use std::{rc::Rc, sync::Arc, time::Duration};

use futures_channel::oneshot;
use futures_util::future::join_all;
use millstream_protocol::{LeaderEpoch, PartitionIndex, ShardId, TopicId, TopicPartition};

use crate::{
    control::ControlRequest,
    controller::{MetadataImage, TopicImage},
    io::{Io, TaskClass},
    shard::{ControlMessage, Shard, partition::PartitionShell},
    storage::DELAY_DIR,
    types::TopicConfig,
};

/// Partitions of one shard that are opened or closed at the same time.
pub(super) const OPEN_AT_ONCE: usize = 64;

/// Connections have this long to take their last answers when the broker stops.
const CONNECTIONS_END_WITHIN: Duration = Duration::from_secs(2);

/// A place for a partition that this shard owns.
pub(super) enum Slot<I: Io> {
    /// Being opened.
    Loading,
    /// Open.
    Open(Rc<PartitionShell<I>>),
    /// Could not be opened; the reason.
    Failed(String),
}

impl<I: Io> Shard<I> {
    /// Takes the newest metadata if this shard is behind it.
    pub(super) fn take_newer_image(self: &Rc<Self>) {
        self.take_image(false);
    }

    pub(super) fn take_image(self: &Rc<Self>, at_start: bool) {
        if self.control.image_index() == self.image.borrow().index && !at_start {
            return;
        }
        if self.stop.get() {
            // A partition that is being closed must not be opened beside itself.
            return;
        }
        let newest = self.control.image();
        let before = self.image.replace(Arc::clone(&newest));
        for topic in newest.topics() {
            let known = before.topic(topic.id).filter(|_| !at_start);
            if !known.is_some_and(|known| Arc::ptr_eq(known, topic)) {
                self.take_topic(topic);
            }
        }
        self.drop_topics(&newest);
        for topic in newest.deleted() {
            self.remove_files(topic);
        }
        self.groups_take_image(&newest);
    }

    fn take_topic(self: &Rc<Self>, topic: &Arc<TopicImage>) {
        for (number, partition) in (0..).zip(&topic.partitions) {
            let id = TopicPartition {
                topic: topic.id,
                partition: PartitionIndex(number),
            };
            if !self.owns(id) {
                continue;
            }
            let mut partitions = self.partitions.borrow_mut();
            match partitions.get(&id) {
                Some(Slot::Open(shell)) => {
                    let shell = Rc::clone(shell);
                    drop(partitions);
                    shell.update(&topic.config, partition.leader_epoch);
                }
                Some(Slot::Loading | Slot::Failed(_)) => {}
                None => {
                    partitions.insert(id, Slot::Loading);
                    drop(partitions);
                    self.open(id, partition.leader_epoch, topic.config.clone());
                }
            }
        }
    }

    fn open(self: &Rc<Self>, id: TopicPartition, epoch: LeaderEpoch, config: TopicConfig) {
        self.loading.set(self.loading.get() + 1);
        let shard = Rc::clone(self);
        self.io().spawn(TaskClass::Foreground, async move {
            let turn = shard.opening.take(1).await;
            let opened =
                PartitionShell::open(shard.io.clone(), &shard.storage, id, epoch, &config).await;
            drop(turn);
            shard.opened(id, opened);
            shard.loading.set(shard.loading.get() - 1);
            shard.loaded.raise();
        });
    }

    fn opened(
        self: &Rc<Self>,
        id: TopicPartition,
        opened: Result<(Rc<PartitionShell<I>>, Option<String>), crate::storage::LogError>,
    ) {
        let slot = match opened {
            Ok((shell, report)) => {
                if let Some(report) = report {
                    tracing::info!("{}: recovered: {report}", self.name_of(id));
                }
                if let Some(damage) = shell.damage() {
                    tracing::error!(partition = %self.name_of(id), "{damage}");
                }
                Slot::Open(shell)
            }
            Err(error) => {
                tracing::error!(partition = %self.name_of(id), %error, "partition offline");
                Slot::Failed(error.to_string())
            }
        };
        // The topic may have been deleted or altered meanwhile.
        let image = Arc::clone(&self.image.borrow());
        let Some(topic) = image.topic(id.topic) else {
            if let Slot::Open(shell) = slot {
                self.remove(id, shell);
            }
            return;
        };
        if let (Slot::Open(shell), Some(partition)) = (&slot, topic.partition(id.partition)) {
            shell.update(&topic.config, partition.leader_epoch);
            self.coordinate(id, shell);
        }
        self.partitions.borrow_mut().insert(id, slot);
    }

    /// A partition as users name it.
    pub(super) fn name_of(&self, id: TopicPartition) -> String {
        let image = self.image.borrow();
        let name = image
            .topic(id.topic)
            .map_or_else(|| id.topic.to_string(), |t| t.name.clone());
        format!("{name}/{}", id.partition)
    }

    fn drop_topics(self: &Rc<Self>, image: &MetadataImage) {
        let gone: Vec<TopicPartition> = {
            let partitions = self.partitions.borrow();
            partitions
                .keys()
                .filter(|id| image.topic(id.topic).is_none())
                .copied()
                .collect()
        };
        for id in gone {
            let slot = self.partitions.borrow_mut().remove(&id);
            if let Some(Slot::Open(shell)) = slot {
                self.remove(id, shell);
            }
        }
    }

    fn remove(self: &Rc<Self>, id: TopicPartition, shell: Rc<PartitionShell<I>>) {
        self.loading.set(self.loading.get() + 1);
        let shard = Rc::clone(self);
        self.io().spawn(TaskClass::Background, async move {
            if let Err(error) = shell.remove().await {
                tracing::warn!(partition = %id, %error, "files could not be removed");
            }
            shard.loading.set(shard.loading.get() - 1);
            shard.loaded.raise();
        });
    }

    /// Removes this shard's files of a deleted topic, then tells shard 0.
    fn remove_files(self: &Rc<Self>, topic: TopicId) {
        if !self.removing.borrow_mut().insert(topic) {
            return;
        }
        let shard = Rc::clone(self);
        self.io().spawn(TaskClass::Background, async move {
            // Partitions that were open or being opened go first, by their own way.
            shard.loaded.wait_until(|| shard.loading.get() == 0).await;
            match shard.remove_leftovers(topic).await {
                Ok(()) => {
                    if let Some(first) = shard.peer(ShardId(0)) {
                        // A full lane only means that the topic is forgotten at the next start.
                        let _ = first.control.try_send(ControlMessage::FilesGone(topic));
                    }
                }
                Err(error) => {
                    tracing::warn!(%topic, %error, "files of a deleted topic could not be removed");
                }
            }
        });
    }

    async fn remove_leftovers(&self, topic: TopicId) -> std::io::Result<()> {
        let dir = self
            .config
            .storage
            .data_dir
            .join("topics")
            .join(topic.to_string());
        for partition in read_dir_if_there(&self.io, &dir).await? {
            let number = partition
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let Some(number) = number else { continue };
            let id = TopicPartition {
                topic,
                partition: PartitionIndex(number),
            };
            if !self.owns(id) {
                continue;
            }
            let delay = partition.join(DELAY_DIR);
            let delayed = read_dir_if_there(&self.io, &delay).await?;
            for file in &delayed {
                self.io.remove_file(file).await?;
            }
            if let Err(error) = self.io.remove_dir(&delay).await
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(error);
            }
            for file in self.io.read_dir(&partition).await? {
                self.io.remove_file(&file).await?;
            }
            self.io.remove_dir(&partition).await?;
        }
        Ok(())
    }

    /// On shard 0: once every shard has removed its files, the topic is forgotten.
    pub(super) fn files_gone(self: &Rc<Self>, topic: TopicId) {
        let gone = {
            let mut files_gone = self.files_gone.borrow_mut();
            let count = files_gone.entry(topic).or_default();
            *count += 1;
            *count
        };
        if gone < self.config.shard_count {
            return;
        }
        self.files_gone.borrow_mut().remove(&topic);
        let shard = Rc::clone(self);
        self.io().spawn(TaskClass::Background, async move {
            let topics = shard.config.storage.data_dir.join("topics");
            let dir = topics.join(topic.to_string());
            let removed = match shard.io.remove_dir(&dir).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => match shard.io.sync_dir(&topics).await {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                },
            };
            match removed {
                Ok(()) => {
                    let forget = ControlRequest::ForgetTopic(topic);
                    // Refused for load: the topic is forgotten at the next start.
                    let _ = shard.control.submit(forget, Box::new(|_| ()));
                }
                Err(error) => tracing::warn!(%topic, %error, "a topic's directory is still there"),
            }
        });
    }

    /// Takes newer metadata and tells when everything it brings is open.
    pub(super) fn refresh(self: &Rc<Self>, done: Option<oneshot::Sender<()>>) {
        self.take_newer_image();
        if let Some(done) = done {
            let shard = Rc::clone(self);
            self.io().spawn(TaskClass::Foreground, async move {
                shard.loaded.wait_until(|| shard.loading.get() == 0).await;
                let _ = done.send(());
            });
        }
    }

    /// Waits until every shard has taken the newest metadata: what was just created can be used.
    pub(super) async fn refresh_everywhere(self: &Rc<Self>) {
        let asked: Vec<_> = self
            .peers
            .iter()
            .map(|peer| {
                let (done, taken) = oneshot::channel();
                // A full lane has a refresh in it already; the reply then comes a little early.
                let _ = peer.control.try_send(ControlMessage::Refresh(Some(done)));
                taken
            })
            .collect();
        join_all(asked).await;
    }

    /// Ends connections, makes everything durable and closes it.
    pub(super) async fn close_everything(self: &Rc<Self>) {
        self.stop.set(true);
        self.stopping.raise();
        let ended = std::pin::pin!(
            self.connections_ended
                .wait_until(|| self.connections.get() == 0)
        );
        let timeout = std::pin::pin!(self.io().sleep(CONNECTIONS_END_WITHIN));
        futures_util::future::select(ended, timeout).await;
        self.loaded.wait_until(|| self.loading.get() == 0).await;
        let open: Vec<_> = std::mem::take(&mut *self.partitions.borrow_mut())
            .into_values()
            .filter_map(|slot| match slot {
                Slot::Open(shell) => Some(shell),
                Slot::Loading | Slot::Failed(_) => None,
            })
            .collect();
        let close_all = open.iter().map(|shell| async {
            let _turn = self.opening.take(1).await;
            let closed = shell.close().await;
            if let Err(error) = &closed {
                tracing::error!(partition = %shell.log().id(), %error, "not closed cleanly");
            }
            closed.is_ok()
        });
        let all_closed = join_all(close_all).await.into_iter().all(|closed| closed);
        if let Err(error) = self.storage.close(all_closed).await {
            tracing::warn!(%error, "the journal is still there; the next start reads it");
        }
    }
}

async fn read_dir_if_there<I: Io>(
    io: &I,
    dir: &std::path::Path,
) -> std::io::Result<Vec<std::path::PathBuf>> {
    match io.read_dir(dir).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}
