//! What happened in a simulation, as its clients saw it: every record that was sent, every answer and
//! every read, every fault, in order, with the time. Recorders add to it and judge nothing; the
//! files of `invariants` judge the whole of it.

mod delay;
mod facts;
mod group;
mod trace;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use millstream::{
    io::{Clock as _, sim::SimIo},
    types::TopicConfig,
};
use millstream_client::ConsumerRecord;
use millstream_protocol::{
    Offset, TopicId, TopicPartition,
    headers::{DELAY_OFFSET, DELIVER_AT},
};

pub use self::{
    delay::{CancelTarget, DelayEvent, Delayed, Due},
    facts::{Facts, Fate, View},
    group::{CommitId, GroupEvent, GroupWhat, MemberName},
};

/// A record's number, in its header.
pub type RecordId = u64;

/// Number of whoever reads.
pub type ReaderId = u32;

/// The header that carries a record's number: a tombstone has no value that could.
const ID_HEADER: &str = "id";

/// A history ends with so many answers that nothing explains: clients would go on for long, and learn nothing.
const UNEXPLAINED_MAX: u32 = 20;

/// When something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Virtual time, which nothing steps.
    pub now_us: u64,
    /// The wall clock, which faults step.
    pub wall_ms: i64,
}

/// A record as it was sent.
#[derive(Clone, Debug)]
pub struct Record {
    pub producer: u32,
    pub at: TopicPartition,
    pub key: Option<u32>,
    /// It has no value.
    pub tombstone: bool,
    /// Bytes of its value.
    pub size: usize,
    /// It is to come later.
    pub delayed: Option<Delayed>,
}

/// Everything that can be noted.
#[derive(Clone, Debug)]
pub enum What {
    /// A topic is there, with these settings.
    Created {
        topic: TopicId,
        config: Box<TopicConfig>,
    },
    /// A topic has other settings from here on, or had them since shortly before.
    Altered {
        topic: TopicId,
        config: Box<TopicConfig>,
    },
    /// A producer sends.
    Sent(RecordId),
    /// It was told that the record is durable; where, if the broker still knew.
    Acknowledged(RecordId, Option<Offset>),
    /// It was told that there will be no answer; perhaps the record was written all the same.
    GivenUp(RecordId, bool),
    /// A reader begins at an offset; what it has behind it stays only if it goes on there.
    Began(ReaderId, TopicPartition, Offset),
    Read(ReaderId, TopicPartition, Offset, RecordId),
    /// A reader got something that nobody sent.
    Invented(ReaderId, TopicPartition, Offset, String),
    /// A reply says where a log starts and how far consumers see, and brings records below `end`.
    Replied {
        reader: ReaderId,
        at: TopicPartition,
        log_start: Offset,
        high_watermark: Offset,
        end: Option<Offset>,
    },
    /// A reply brings a batch of a topic whose records have a time to live. `asked` is when the request went
    /// out: an index of events.
    Served {
        reader: ReaderId,
        at: TopicPartition,
        base: Offset,
        max_timestamp_ms: i64,
        /// Nothing that readers may see lies behind it.
        is_last: bool,
        asked: usize,
    },
    /// A reader was told that the log parts from what it read.
    Diverged(ReaderId, TopicPartition, Offset),
    /// A reader was told that its offset (first) is not there, and that the log starts at another.
    OutOfRange(ReaderId, TopicPartition, Offset, Offset),
    /// A reader stops.
    Left(ReaderId),
    /// Someone is about to ask for a topic to be deleted.
    Deleting(TopicId),
    /// Someone asked for records below an offset to be deleted.
    Trimming(TopicPartition, Offset),
    /// All is quiet, and this is all of a partition, from where it starts.
    Whole(TopicPartition, Offset, Vec<(Offset, RecordId)>),
    /// What a shard has in use, and the most it may have.
    InUse {
        shard: usize,
        what: &'static str,
        used: u64,
        limit: u64,
    },
    /// Something of delayed records.
    Delay(DelayEvent),
    /// Something of a consumer group.
    Group(GroupEvent),
    /// A client was told something that nothing explains.
    Unexplained(String),
    /// The broker starts, with so many shards; whoever was connected is not any more.
    Started(u32),
    /// A fault strikes, or ends.
    Note(String),
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    pub moment: Moment,
    pub what: What,
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    pub records: Vec<Record>,
    pub events: Vec<Event>,
    /// Topics by id; one that was created again is another.
    pub names: BTreeMap<TopicId, String>,
    reader_count: ReaderId,
    unexplained_count: u32,
    commit_count: CommitId,
    cancel_count: u64,
}

/// A handle that notes things with their time.
#[derive(Clone)]
pub struct Recorder {
    io: SimIo,
    history: Rc<RefCell<History>>,
}

impl Recorder {
    pub fn new(io: &SimIo, history: &Rc<RefCell<History>>) -> Self {
        Self {
            io: io.clone(),
            history: Rc::clone(history),
        }
    }

    pub fn note(&self, what: What) {
        let moment = Moment {
            now_us: self.io.now().0 / 1_000,
            wall_ms: self.io.wall_ms(),
        };
        let unexplained = matches!(what, What::Unexplained(_));
        let history = &mut *self.history.borrow_mut();
        history.events.push(Event { moment, what });
        history.unexplained_count += u32::from(unexplained);
        assert!(
            history.unexplained_count < UNEXPLAINED_MAX,
            "so much that nothing explains does not get better"
        );
    }

    pub fn say(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("--- {text}");
        self.note(What::Note(text));
    }

    /// A topic came to be.
    pub fn created(&self, name: &str, topic: TopicId, config: &TopicConfig) {
        {
            let names = &mut self.history.borrow_mut().names;
            let again = names
                .values()
                .filter(|it| it.trim_end_matches('\'') == name);
            let marks = "'".repeat(again.count());
            names
                .entry(topic)
                .or_insert_with(|| format!("{name}{marks}"));
        }
        let config = Box::new(config.clone());
        self.note(What::Created { topic, config });
    }

    /// A producer is about to send a record: its number, and its value if it has one.
    pub fn sending(&self, record: Record) -> (RecordId, Option<Vec<u8>>) {
        let id = self.history.borrow().records.len() as RecordId;
        let value = (!record.tombstone).then(|| value_of(id, record.size));
        self.history.borrow_mut().records.push(record);
        self.note(What::Sent(id));
        (id, value)
    }

    /// Its producer had no room for a record, which was the last thing that was noted.
    pub fn not_sent(&self, id: RecordId) {
        let history = &mut *self.history.borrow_mut();
        let last = history.events.pop().map(|event| event.what);
        assert!(matches!(last, Some(What::Sent(sent)) if sent == id));
        history.records.pop();
    }

    /// How many things were noted so far.
    pub fn count(&self) -> usize {
        self.history.borrow().events.len()
    }

    /// A new reader.
    pub fn reader(&self) -> ReaderId {
        let count = &mut self.history.borrow_mut().reader_count;
        *count += 1;
        *count
    }

    /// A new commit of a group.
    pub fn commit(&self) -> CommitId {
        let count = &mut self.history.borrow_mut().commit_count;
        *count += 1;
        *count
    }

    /// When a record that was sent is due, if it is delayed.
    pub fn delayed(&self, id: RecordId) -> Option<Delayed> {
        let index = usize::try_from(id).expect("an index");
        self.history.borrow().records[index].delayed.clone()
    }

    /// A new cancellation.
    pub fn cancellation(&self) -> u64 {
        let count = &mut self.history.borrow_mut().cancel_count;
        *count += 1;
        *count
    }

    /// The number of a record that was read, if anybody sent it like that.
    pub fn recognise(
        &self,
        at: TopicPartition,
        record: &ConsumerRecord,
    ) -> Result<RecordId, String> {
        self.history.borrow().recognise(at, record)
    }

    /// A reader got a record; its number, if anybody sent it.
    pub fn read(
        &self,
        reader: ReaderId,
        at: TopicPartition,
        record: &ConsumerRecord,
    ) -> Option<RecordId> {
        let recognised = self.recognise(at, record);
        self.note(match &recognised {
            Ok(id) => What::Read(reader, at, record.offset, *id),
            Err(reason) => What::Invented(reader, at, record.offset, reason.clone()),
        });
        let id = recognised.ok();
        if let Some(id) = id {
            self.look_at_delayed(id, record);
        }
        id
    }

    fn look_at_delayed(&self, id: RecordId, record: &ConsumerRecord) {
        let index = usize::try_from(id).expect("an index");
        if self.history.borrow().records[index].delayed.is_none() {
            return;
        }
        let number = |header: &str| {
            let mut found = record.headers.iter().filter(|(name, _)| name == header);
            let text = found.next_back()?.1.as_deref()?;
            std::str::from_utf8(text).ok()?.parse().ok()
        };
        let (due_ms, delay_id) = (number(DELIVER_AT), number(DELAY_OFFSET).map(Offset));
        self.note(What::Delay(DelayEvent::Seen {
            id,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            due_ms,
            delay_id,
        }));
    }
}

impl History {
    /// The record that was read, if anybody sent it like that.
    fn recognise(&self, at: TopicPartition, read: &ConsumerRecord) -> Result<RecordId, String> {
        let header = read.headers.iter().find(|(name, _)| name == ID_HEADER);
        let bytes = header.and_then(|(_, value)| value.as_deref()?.first_chunk());
        let id = bytes.map(|bytes| RecordId::from_le_bytes(*bytes));
        let id = id.ok_or_else(|| format!("no number in {read:?}"))?;
        let sent = usize::try_from(id).ok().and_then(|id| self.records.get(id));
        let sent = sent.ok_or_else(|| format!("there is no record {id}"))?;
        if sent.at != at {
            return Err(format!("record {id} was sent to {}", self.place(sent.at)));
        }
        let key = sent.key.map(|key| key.to_string());
        let value = (!sent.tombstone).then(|| value_of(id, sent.size));
        let same = key.as_deref().map(str::as_bytes) == read.key.as_deref()
            && value.as_deref() == read.value.as_deref();
        match same {
            true => Ok(id),
            false => Err(format!("record {id} was sent with another key or value")),
        }
    }

    /// A partition for people.
    pub fn place(&self, at: TopicPartition) -> String {
        let name = self.names.get(&at.topic).map_or("?", String::as_str);
        format!("{name}/{}", at.partition.0)
    }
}

/// The header that carries a record's number.
pub fn id_header(id: RecordId) -> (&'static str, Vec<u8>) {
    (ID_HEADER, id.to_le_bytes().to_vec())
}

/// A record's value: bytes that follow from its number.
fn value_of(id: RecordId, size: usize) -> Vec<u8> {
    vec![0x30 + u8::try_from(id % 64).expect("small"); size]
}
