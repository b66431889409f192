//! What follows from a history, once for all invariants: what became of each record, who had which
//! offset, and how old things can have been by the wall clock.

use std::collections::BTreeMap;

use millstream::types::{Durability, TopicConfig};
use millstream_protocol::{Offset, TopicId, TopicPartition};

use super::{DelayEvent, GroupWhat, History, ReaderId, Record, RecordId, What};

/// What its producer was told of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet.
    Pending,
    /// It is durable; where, if the broker still knew.
    Acknowledged(Option<Offset>),
    /// It is durable, and is to come when it is due.
    Accepted,
    /// It was given up, and may have been written.
    Uncertain,
    /// It was not written.
    Refused,
}

/// What is known of a record. Places in the history are indexes of events.
#[derive(Clone, Debug)]
pub struct RecordFacts {
    pub fate: Fate,
    pub sent: usize,
    /// When someone first knew that it is in the log.
    pub known: Option<usize>,
    /// Each offset at which anyone has seen it, with when that was.
    pub offsets: Vec<(Offset, usize)>,
}

/// What a reader has since it began, with when it got each.
pub type View = Vec<(Offset, RecordId, usize)>;

/// See the module.
pub struct Facts<'a> {
    pub history: &'a History,
    pub records: Vec<RecordFacts>,
    /// Each offset that was ever seen, and every record seen there.
    pub names: BTreeMap<TopicPartition, BTreeMap<Offset, Vec<RecordId>>>,
    /// Settings of each topic, with when they came.
    configs: BTreeMap<TopicId, Vec<(usize, TopicConfig)>>,
    /// Where the wall clock parts from virtual time in another way than before.
    steps: Vec<usize>,
}

impl<'a> Facts<'a> {
    pub fn of(history: &'a History) -> Self {
        let unknown = RecordFacts {
            fate: Fate::Pending,
            sent: 0,
            known: None,
            offsets: Vec::new(),
        };
        let mut facts = Self {
            history,
            records: vec![unknown; history.records.len()],
            names: BTreeMap::new(),
            configs: BTreeMap::new(),
            steps: Vec::new(),
        };
        let mut ahead_ms = None;
        for (index, event) in history.events.iter().enumerate() {
            let now_ms = i64::try_from(event.moment.now_us / 1_000).expect("short");
            if ahead_ms.replace(event.moment.wall_ms - now_ms)
                != Some(event.moment.wall_ms - now_ms)
            {
                facts.steps.push(index);
            }
            facts.learn(index, &event.what);
        }
        facts
    }

    fn learn(&mut self, index: usize, what: &What) {
        match what {
            What::Created { topic, config } | What::Altered { topic, config } => {
                let known = self.configs.entry(*topic).or_default();
                known.push((index, TopicConfig::clone(config)));
            }
            What::Sent(id) => self.record_mut(*id).sent = index,
            What::Acknowledged(id, offset) => {
                self.record_mut(*id).fate = Fate::Acknowledged(*offset);
                self.seen(*id, *offset, index);
            }
            What::Delay(DelayEvent::Accepted(id, _)) => {
                self.record_mut(*id).fate = Fate::Accepted;
            }
            What::GivenUp(id, true) => self.record_mut(*id).fate = Fate::Uncertain,
            What::GivenUp(id, false) => self.record_mut(*id).fate = Fate::Refused,
            What::Read(_, _, offset, id) => self.seen(*id, Some(*offset), index),
            What::Group(event) => {
                if let GroupWhat::Reads(_, offset, id) = &event.what {
                    self.seen(*id, Some(*offset), index);
                }
            }
            _ => {}
        }
    }

    fn seen(&mut self, id: RecordId, offset: Option<Offset>, index: usize) {
        let at = self.sent(id).at;
        let record = self.record_mut(id);
        record.known.get_or_insert(index);
        let Some(offset) = offset else { return };
        if record.offsets.iter().all(|(seen, _)| *seen != offset) {
            record.offsets.push((offset, index));
            let names = self.names.entry(at).or_default();
            names.entry(offset).or_default().push(id);
        }
    }

    fn record_mut(&mut self, id: RecordId) -> &mut RecordFacts {
        &mut self.records[usize::try_from(id).expect("an index")]
    }

    pub fn record(&self, id: RecordId) -> &RecordFacts {
        &self.records[usize::try_from(id).expect("an index")]
    }

    /// A record as it was sent.
    pub fn sent(&self, id: RecordId) -> &'a Record {
        &self.history.records[usize::try_from(id).expect("an index")]
    }

    /// Every record, with its number.
    pub fn each(&self) -> impl Iterator<Item = (RecordId, &'a Record, &RecordFacts)> {
        let all = (0..).zip(&self.history.records).zip(&self.records);
        all.map(|((id, sent), facts)| (id, sent, facts))
    }

    /// The settings that a topic had by then.
    pub fn configs(&self, topic: TopicId, by: usize) -> impl Iterator<Item = &TopicConfig> {
        let known = self.configs.get(&topic).into_iter().flatten();
        known
            .filter(move |(index, _)| *index <= by)
            .map(|(_, config)| config)
    }

    /// Its unflushed end may be lost when the power goes.
    pub fn is_buffered(&self, at: TopicPartition) -> bool {
        let mut configs = self.configs(at.topic, usize::MAX);
        configs.any(|config| config.durability == Durability::Buffered)
    }

    /// Records in the middle of it may go.
    pub fn is_compacted(&self, at: TopicPartition) -> bool {
        let mut configs = self.configs(at.topic, usize::MAX);
        configs.any(|config| config.cleanup_policy.compacts())
    }

    /// The least and the most that the wall clock showed between two events.
    pub fn wall_ms(&self, from: usize, to: usize) -> (i64, i64) {
        let events = &self.history.events;
        let wall_ms = |index: usize| events[index].moment.wall_ms;
        let (mut least, mut most) = (
            wall_ms(from).min(wall_ms(to)),
            wall_ms(from).max(wall_ms(to)),
        );
        let first = self.steps.partition_point(|step| *step <= from);
        let within = self.steps[first..].iter().take_while(|step| **step <= to);
        for step in within {
            // It grows from step to step.
            least = least.min(wall_ms(*step));
            most = most.max(wall_ms(step - 1)).max(wall_ms(*step));
        }
        (least, most)
    }

    /// The least time to live that its records had by then, in milliseconds.
    pub fn ttl_ms(&self, at: TopicPartition, by: usize) -> Option<i64> {
        let least = self.configs(at.topic, by).filter_map(|it| it.ttl_ms).min();
        least.map(|ttl_ms| i64::try_from(ttl_ms).expect("short"))
    }

    /// Its records had a time to live at all times until then.
    pub fn always_lives(&self, at: TopicPartition, by: usize) -> bool {
        self.configs(at.topic, by).all(|it| it.ttl_ms.is_some())
    }

    /// Readers may miss records in the middle of it.
    pub fn has_gaps(&self, at: TopicPartition) -> bool {
        self.is_compacted(at) || self.ttl_ms(at, usize::MAX).is_some()
    }

    /// Records in it go only with its start.
    pub fn keeps_all(&self, at: TopicPartition) -> bool {
        !self.is_buffered(at) && !self.has_gaps(at)
    }

    /// The most that the clock by which delayed records are due can have shown, by event: it never goes back,
    /// and runs no faster than time.
    pub fn latest_clocks_ms(&self) -> Vec<i64> {
        let mut ahead_ms = i64::MIN;
        let events = self.history.events.iter();
        let latest = events.map(|event| {
            let now_ms = i64::try_from(event.moment.now_us / 1_000).expect("short");
            ahead_ms = ahead_ms.max(event.moment.wall_ms - now_ms);
            now_ms + ahead_ms
        });
        latest.collect()
    }

    /// How old a record can have been at most by the broker's clock, at any time until then.
    pub fn age_ms(&self, id: RecordId, by: usize) -> u64 {
        let record = self.record(id);
        let known = record.known.unwrap_or(by).min(by).max(record.sent);
        let (appended, _) = self.wall_ms(record.sent, known);
        let (_, latest) = self.wall_ms(record.sent, by.max(record.sent));
        u64::try_from(latest - appended).unwrap_or(0) + CLOCK_GRAIN_MS
    }

    /// Goes through what each reader has of each partition; `look` is asked at every event.
    pub fn each_view(
        &self,
        mut look: impl FnMut(usize, &BTreeMap<(ReaderId, TopicPartition), View>),
    ) {
        let mut views: BTreeMap<(ReaderId, TopicPartition), View> = BTreeMap::new();
        for (index, event) in self.history.events.iter().enumerate() {
            match &event.what {
                What::Began(reader, at, offset) => {
                    let view = views.entry((*reader, *at)).or_default();
                    view.retain(|(read, ..)| read < offset);
                    let goes_on = |last: &(Offset, RecordId, usize)| last.0.plus(1) == *offset;
                    if !view.last().is_some_and(goes_on) {
                        view.clear();
                    }
                }
                What::Read(reader, at, offset, id) => {
                    let view = views.entry((*reader, *at)).or_default();
                    view.push((*offset, *id, index));
                }
                What::Left(reader) => views.retain(|(of, _), _| of != reader),
                _ => {}
            }
            look(index, &views);
        }
    }
}

/// Wall clocks show whole milliseconds.
const CLOCK_GRAIN_MS: u64 = 2;
