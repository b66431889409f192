//! Someone who is no member of any group asks what was committed, all the time: while a group is being loaded
//! too.

use std::{collections::BTreeSet, rc::Rc, sync::Arc, time::Duration};

use millstream::io::{Clock as _, TaskClass, Tasks as _};
use millstream_protocol::{
    ErrorCode, TopicPartition,
    messages::{ANY_SHARD, OffsetFetchRequest},
};

use crate::{
    control::Metadata,
    history::{GroupEvent, GroupWhat, MemberName, Recorder, What},
    wire::Connections,
    world::World,
};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(150);
/// Between two questions while there is no answer: the broker may be about to start.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Asks for one group.
struct Asker {
    group: u32,
    who: MemberName,
    names: BTreeSet<String>,
    metadata: Metadata,
    connections: Rc<Connections>,
    recorder: Recorder,
}

impl Asker {
    /// For each group of a world.
    fn all(world: &World, who: &str) -> Vec<Self> {
        let of = |group| Self {
            group,
            who: who.into(),
            names: world
                .scenario
                .topics
                .iter()
                .map(|it| it.name.clone())
                .collect(),
            metadata: world.broker.metadata().clone(),
            connections: Connections::new(world.clients.clone()),
            recorder: world.recorder.clone(),
        };
        (0..world.scenario.groups).map(of).collect()
    }

    fn note(&self, what: GroupWhat) {
        let (group, who) = (self.group, Rc::clone(&self.who));
        self.recorder
            .note(What::Group(GroupEvent { group, who, what }));
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        let image = self.metadata.image();
        let topics = image.topics().filter(|it| self.names.contains(&*it.name));
        let topics: Vec<Arc<_>> = topics.cloned().collect();
        let all = topics.iter().flat_map(|topic| {
            let partitions = 0..topic.partition_count();
            partitions.map(|partition| TopicPartition {
                topic: topic.id,
                partition: partition.into(),
            })
        });
        all.collect()
    }

    /// Asks for everything; false if there is no answer.
    async fn ask(&self) -> bool {
        let all = self.partitions();
        all.iter().for_each(|at| self.note(GroupWhat::Asks(*at)));
        let request = OffsetFetchRequest {
            group: format!("g{}", self.group),
            partitions: Some(all),
        };
        let found = match self.connections.request(ANY_SHARD, &request, &[]).await {
            Ok((found, _)) if found.error == ErrorCode::None => found,
            _ => return false,
        };
        for it in found.partitions {
            let (topic, partition) = (it.topic, it.partition);
            let id = it.metadata.parse().ok();
            let heard = id.map(|id| (it.offset, id));
            self.note(GroupWhat::Hears(TopicPartition { topic, partition }, heard));
        }
        true
    }
}

impl World {
    /// Begins to ask, until `stop_watching`.
    pub fn watch_commits(&self) {
        for asker in Asker::all(self, "watcher") {
            let (io, stop) = (self.clients.clone(), Rc::clone(&self.stop_watching));
            self.clients.spawn(TaskClass::Foreground, async move {
                while !stop.get() {
                    let pause = if asker.ask().await {
                        PAUSE
                    } else {
                        RETRY_PAUSE
                    };
                    io.sleep(pause).await;
                }
            });
        }
    }

    /// Asks until there is an answer for each group.
    pub async fn find_commits(&self) {
        for asker in Asker::all(self, "admin") {
            let deadline = self.io.now() + Duration::from_secs(60);
            while !asker.ask().await {
                assert!(self.io.now() < deadline, "commits can't be had");
                self.io.sleep(RETRY_PAUSE).await;
            }
        }
    }
}
