//! A schedule in a checkpoint of its delay log. Described in `docs/format/delay.md`.

use millstream_protocol::{DecodeError, Reader, Wire};

use super::{
    finished::Finished, pending::Pending, recent::Entry, runs::RunRef, schedule::Schedule,
};

const VERSION: u16 = 1;

/// Bytes that are no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the schedule of delayed records cannot be read: {0}")]
pub struct Unusable(#[from] DecodeError);

impl Schedule {
    /// For a checkpoint of everything appended to the delay log so far. What is handed over and not yet
    /// known to be durable waits again, for whoever reads this.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.waiting.len() * 32);
        VERSION.encode(&mut out);
        self.key.0.encode(&mut out);
        self.key.1.encode(&mut out);
        self.end.encode(&mut out);
        self.delivered_below.encode(&mut out);
        self.pending.encode(&mut out);
        let mut finished = self.finished.clone();
        for undone in &self.undone {
            finished.add(super::finished::End {
                offset: undone.offset,
                id: undone.id,
                delivered: false,
            });
        }
        finished.encode(&mut out);
        let handed_over = self.handed_over.iter().flat_map(|it| &it.entries);
        let moving = self.taken.iter().chain(handed_over).copied();
        let waiting = self.waiting.iter().map(|((due_ms, offset), id)| Entry {
            due_ms: *due_ms,
            offset: *offset,
            id: *id,
        });
        let waiting = waiting.filter(|entry| self.pending.contains(entry.offset));
        let unwritten = self.runs.unwritten();
        let waiting = waiting.chain(unwritten.filter(|entry| self.pending.contains(entry.offset)));
        self.runs.next_number.encode(&mut out);
        let runs: Vec<RunRef> = self.runs.on_disk().collect();
        u32::try_from(runs.len()).expect("few").encode(&mut out);
        runs.iter().for_each(|run| run.encode(&mut out));
        let at = out.len();
        0u64.encode(&mut out);
        let mut count = 0u64;
        for entry in moving.chain(waiting) {
            entry.encode(&mut out);
            count += 1;
        }
        out[at..at + 8].copy_from_slice(&count.to_le_bytes());
        out
    }

    /// From a checkpoint's bytes; none is a log without one.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn restore(bytes: &[u8], new_key: (u64, u64)) -> Result<Self, Unusable> {
        let mut schedule = Self::new(new_key);
        if bytes.is_empty() {
            return Ok(schedule);
        }
        let mut reader = Reader::new(bytes);
        if u16::decode(&mut reader)? != VERSION {
            return Err(DecodeError::OutOfRange("a version this build does not know").into());
        }
        schedule.key = (Wire::decode(&mut reader)?, Wire::decode(&mut reader)?);
        schedule.end = Wire::decode(&mut reader)?;
        schedule.delivered_below = Wire::decode(&mut reader)?;
        schedule.pending = Pending::decode(&mut reader)?;
        schedule.finished = Finished::decode(&mut reader)?;
        schedule.runs.next_number = Wire::decode(&mut reader)?;
        for _ in 0..u32::decode(&mut reader)? {
            schedule.runs.add_known(RunRef::decode(&mut reader)?);
        }
        for _ in 0..u64::decode(&mut reader)? {
            schedule.wait(Entry::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(schedule)
    }
}
