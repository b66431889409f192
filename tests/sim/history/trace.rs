//! A history for people: one line for each event, the same for the same seed.

use std::fmt::Write as _;

use millstream_protocol::TopicPartition;

use super::{Event, History, RecordId, What};

impl History {
    /// All of it.
    pub fn trace(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            self.line(event, &mut text);
        }
        text
    }

    /// The end of it, as far as it has to do with a partition, or with all if `about` is `None`.
    pub fn trace_of(&self, about: Option<TopicPartition>, lines: usize) -> String {
        let concerns = |event: &&Event| match (about, self.partition_of(&event.what)) {
            (Some(about), Some(at)) => about == at,
            (_, None) => !matches!(event.what, What::InUse { .. }),
            (None, Some(_)) => true,
        };
        let mut last: Vec<&Event> = self
            .events
            .iter()
            .rev()
            .filter(concerns)
            .take(lines)
            .collect();
        last.reverse();
        let mut text = String::new();
        for event in last {
            self.line(event, &mut text);
        }
        text
    }

    fn partition_of(&self, what: &What) -> Option<TopicPartition> {
        match what {
            What::Sent(id) | What::Acknowledged(id, _) | What::GivenUp(id, _) => {
                Some(self.records[index(*id)].at)
            }
            What::Began(_, at, _)
            | What::Read(_, at, ..)
            | What::Invented(_, at, ..)
            | What::Replied { at, .. }
            | What::Served { at, .. }
            | What::Diverged(_, at, _)
            | What::OutOfRange(_, at, ..)
            | What::Trimming(at, _)
            | What::Whole(at, ..) => Some(*at),
            What::Group(event) => event.partition(),
            What::Delay(event) => self.delay_place(event),
            What::Created { .. }
            | What::Deleting(_)
            | What::Altered { .. }
            | What::Left(_)
            | What::InUse { .. }
            | What::Unexplained(_)
            | What::Started(_)
            | What::Note(_) => None,
        }
    }

    fn line(&self, event: &Event, text: &mut String) {
        let (seconds, micros) = (
            event.moment.now_us / 1_000_000,
            event.moment.now_us % 1_000_000,
        );
        let _ = write!(text, "{seconds:>4}.{micros:06} s ");
        let _ = match &event.what {
            What::Created { topic, config } => {
                let settings: Vec<_> = config.overrides().collect();
                writeln!(text, "topic {} {settings:?}", self.names[topic])
            }
            What::Altered { topic, config } => {
                let settings: Vec<_> = config.overrides().collect();
                writeln!(text, "topic {} altered {settings:?}", self.names[topic])
            }
            What::Sent(id) => self.sent_line(*id, text),
            What::Acknowledged(id, Some(offset)) => {
                writeln!(text, "record {id} acknowledged at {offset}")
            }
            What::Acknowledged(id, None) => {
                writeln!(text, "record {id} acknowledged, nobody knows where")
            }
            What::GivenUp(id, true) => writeln!(text, "record {id} given up, perhaps written"),
            What::GivenUp(id, false) => writeln!(text, "record {id} refused"),
            What::Began(reader, at, offset) => {
                writeln!(
                    text,
                    "reader {reader} begins {} at {offset}",
                    self.place(*at)
                )
            }
            What::Read(reader, at, offset, id) => {
                writeln!(
                    text,
                    "reader {reader} reads {} {offset}: record {id}",
                    self.place(*at)
                )
            }
            What::Invented(reader, at, offset, reason) => {
                writeln!(
                    text,
                    "reader {reader} reads {} {offset}: {reason}",
                    self.place(*at)
                )
            }
            What::Replied {
                reader,
                at,
                log_start,
                high_watermark,
                end,
            } => writeln!(
                text,
                "reader {reader} hears of {}: starts at {log_start}, high watermark {high_watermark}, records to {end:?}",
                self.place(*at)
            ),
            What::Served {
                reader,
                at,
                base,
                max_timestamp_ms,
                ..
            } => writeln!(
                text,
                "reader {reader} is given the batch of {} at {base}, up to {max_timestamp_ms} ms",
                self.place(*at)
            ),
            What::Diverged(reader, at, offset) => {
                writeln!(
                    text,
                    "reader {reader} hears that {} diverged at {offset}",
                    self.place(*at)
                )
            }
            What::OutOfRange(reader, at, offset, log_start) => writeln!(
                text,
                "reader {reader} hears that {} has no {offset} and starts at {log_start}",
                self.place(*at)
            ),
            What::Left(reader) => writeln!(text, "reader {reader} leaves"),
            What::Trimming(at, before) => {
                writeln!(
                    text,
                    "records of {} below {before} are to go",
                    self.place(*at)
                )
            }
            What::Whole(at, start, log) => writeln!(
                text,
                "{} is whole: {} records from {start} to {:?}",
                self.place(*at),
                log.len(),
                log.last().map(|(offset, _)| offset.0)
            ),
            What::InUse {
                shard,
                what,
                used,
                limit,
            } => writeln!(text, "shard {shard} uses {used} of {limit} bytes of {what}"),
            What::Group(event) => {
                self.group_line(event, text);
                Ok(())
            }
            What::Delay(event) => {
                self.delay_line(event, text);
                Ok(())
            }
            What::Deleting(topic) => writeln!(text, "topic {} is to go", self.names[topic]),
            What::Unexplained(said) => writeln!(text, "unexplained: {said}"),
            What::Started(shards) => writeln!(text, "--- the broker starts with {shards} shards"),
            What::Note(said) => writeln!(text, "--- {said}"),
        };
    }

    fn sent_line(&self, id: RecordId, text: &mut String) -> std::fmt::Result {
        let record = &self.records[index(id)];
        let key = record
            .key
            .map_or_else(|| "-".to_owned(), |key| key.to_string());
        let value = match record.tombstone {
            true => "a tombstone".to_owned(),
            false => format!("{} bytes", record.size),
        };
        let (producer, place) = (record.producer, self.place(record.at));
        let later = record.delayed.as_ref();
        let later = later.map_or_else(String::new, |it| format!(", {:?} {:?}", it.due, it.name));
        writeln!(
            text,
            "producer {producer} sends record {id} to {place}, key {key}, {value}{later}"
        )
    }
}

fn index(id: RecordId) -> usize {
    usize::try_from(id).expect("an index")
}
