//! What a reader has is a part of the log without gaps, from where it began: it gets what was sent, in
//! order, nothing twice, nothing left out, nothing above the high watermark, and what it has stays so
//! unless it is told otherwise.

use std::collections::BTreeMap;

use millstream_protocol::{Offset, TopicPartition};

use super::Findings;
use crate::history::{Facts, ReaderId, RecordId, View, What};

type Position = BTreeMap<(ReaderId, TopicPartition), Offset>;

pub fn check(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    replies(facts, findings);
    nothing_comes_back(facts, findings);
    let mut positions = Position::new();
    for event in &facts.history.events {
        match &event.what {
            What::Began(reader, at, offset) => _ = positions.insert((*reader, *at), *offset),
            What::Read(reader, at, offset, _) => {
                let gaps = facts.has_gaps(*at);
                let next = positions.insert((*reader, *at), offset.plus(1));
                let fine = next.is_some_and(|next| match gaps {
                    true => next <= *offset,
                    false => next == *offset,
                });
                if !fine {
                    let message = format!("reader {reader} got {offset} where {next:?} comes next");
                    findings.add(*at, message);
                }
            }
            _ => {}
        }
    }
    facts.each_view(|index, views| {
        if let What::Whole(at, start, log) = &facts.history.events[index].what {
            for ((reader, _), view) in views.iter().filter(|((_, of), _)| of == at) {
                stays(facts, findings, *at, *reader, view, (*start, log));
            }
        }
    });
}

fn replies(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut shown: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    for event in &facts.history.events {
        match &event.what {
            What::Invented(reader, at, offset, reason) => {
                findings.add(*at, format!("{offset}: reader {reader}: {reason}"));
            }
            What::Replied {
                reader,
                at,
                high_watermark,
                end,
                ..
            } => {
                let known = shown.entry(*at).or_default();
                *known = (*known).max(*high_watermark);
                if end.is_some_and(|end| end > *high_watermark) {
                    let message = format!(
                        "reader {reader} got records to {end:?}, above the high watermark {high_watermark}"
                    );
                    findings.add(*at, message);
                }
            }
            What::Diverged(reader, at, offset) if !facts.is_buffered(*at) => {
                let message = format!(
                    "reader {reader} hears that a flushed log lost what it showed from {offset} on"
                );
                findings.add(*at, message);
            }
            What::OutOfRange(reader, at, offset, log_start)
                if offset >= log_start && !facts.is_buffered(*at) =>
            {
                let message =
                    format!("reader {reader} hears that {offset} is beyond a flushed log's end");
                findings.add(*at, message);
            }
            What::Whole(at, start, log) if facts.keeps_all(*at) => {
                let end = log.last().map_or(*start, |(offset, _)| offset.plus(1));
                let shown = shown.get(at).copied().unwrap_or(Offset::ZERO);
                if end < shown {
                    let message =
                        format!("it ends at {end}, and consumers were shown up to {shown}");
                    findings.add(*at, message);
                }
            }
            _ => {}
        }
    }
}

/// When nobody sends any more, nothing appears in a log that was read to its end.
fn nothing_comes_back(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let mut whole: BTreeMap<TopicPartition, BTreeMap<Offset, RecordId>> = BTreeMap::new();
    for event in &facts.history.events {
        match &event.what {
            What::Sent(id) => _ = whole.remove(&facts.sent(*id).at),
            // With a clock that is set back, what was over is not.
            What::Whole(at, ..) if facts.ttl_ms(*at, usize::MAX).is_some() => {}
            What::Whole(at, _, log) => {
                let log: BTreeMap<Offset, RecordId> = log.iter().copied().collect();
                let before = whole.remove(at);
                for (offset, id) in &log {
                    if before
                        .as_ref()
                        .is_some_and(|before| before.get(offset) != Some(id))
                    {
                        let message = format!(
                            "{offset}: record {id} was not there before, and nobody sent it since"
                        );
                        findings.add(*at, message);
                    }
                }
                whole.insert(*at, log);
            }
            _ => {}
        }
    }
}

/// What a reader has, and did not hear to be cut, is in the log.
fn stays(
    facts: &Facts<'_>,
    findings: &mut Findings<'_>,
    at: TopicPartition,
    reader: ReaderId,
    view: &View,
    (start, log): (Offset, &[(Offset, RecordId)]),
) {
    let there: BTreeMap<Offset, RecordId> = log.iter().copied().collect();
    for (offset, id, _) in view.iter().filter(|(offset, ..)| *offset >= start) {
        let found = there.get(offset);
        let gone = found.is_none() && facts.has_gaps(at);
        if found != Some(id) && !gone {
            let message = format!("{offset}: reader {reader} has record {id}, the log {found:?}");
            findings.add(at, message);
        }
    }
}
