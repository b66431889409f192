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
        self.delivered_below().encode(&mut out);
        self.pending.encode(&mut out);
        let mut finished = self.finished.clone();
        for undone in self.undone.iter() {
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
        let lost = self.index_lost.then_some(RunRef::LOST);
        let runs: Vec<RunRef> = self.runs.on_disk().chain(lost).collect();
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
        schedule.runs.next_number = RunRef::number_of(u64::decode(&mut reader)?)?;
        for _ in 0..u32::decode(&mut reader)? {
            match RunRef::decode(&mut reader)? {
                RunRef::LOST => schedule.index_lost = true,
                run if schedule.runs.holds(run.number) => {
                    return Err(DecodeError::OutOfRange("a run is named twice").into());
                }
                run => schedule.runs.add_known(run),
            }
        }
        for _ in 0..u64::decode(&mut reader)? {
            schedule.wait(Entry::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(schedule)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delay::{Deliveries, Recovered};

    fn with_run(run: RunRef, next_number: u64) -> Vec<u8> {
        let mut schedule = Schedule::new((1, 2));
        schedule.runs.next_number = next_number;
        schedule.runs.add_known(RunRef {
            number: 7,
            count: 9,
            position: 2,
        });
        let mut bytes = schedule.snapshot();
        let at = bytes.len() - 8 - RunRef::MIN_SIZE;
        let mut named = Vec::new();
        run.encode(&mut named);
        bytes[at..at + RunRef::MIN_SIZE].copy_from_slice(&named);
        bytes
    }

    #[test]
    fn a_snapshot_says_that_the_index_is_lost() {
        let mut schedule = Schedule::new((1, 2));
        schedule.lose_index();
        let again = Schedule::restore(&schedule.snapshot(), (3, 4)).expect("its own");
        assert!(again.index_is_lost());
        schedule.runs_known();
        let again = Schedule::restore(&schedule.snapshot(), (3, 4)).expect("its own");
        assert!(!again.index_is_lost());
    }

    #[test]
    fn numbers_that_would_overflow_are_refused() {
        let run = |number, count, position| RunRef {
            number,
            count,
            position,
        };
        let good = with_run(run(8, 9, 2), 9);
        assert!(Schedule::restore(&good, (3, 4)).is_ok());
        for bad in [
            with_run(run(u64::MAX, 1, 0), 8),
            with_run(run(u64::MAX - 1, 0, 0), 8),
            with_run(run(8, u64::MAX, u64::MAX), 8),
            with_run(run(8, 1, 2), 8),
        ] {
            assert!(Schedule::restore(&bad, (3, 4)).is_err());
        }
        let mut schedule = Schedule::new((1, 2));
        schedule.runs.next_number = u64::MAX;
        assert!(Schedule::restore(&schedule.snapshot(), (3, 4)).is_err());
    }

    proptest! {
        /// Whatever a file says whose checksum holds, nothing overflows.
        #[test]
        fn any_bytes_are_refused_or_used(
            at in any::<prop::sample::Index>(),
            with in prop::collection::vec(prop_oneof![Just(0xff), Just(0x7f), any::<u8>()], 1..9),
        ) {
            let mut bytes = with_run(RunRef { number: 7, count: 9, position: 2 }, 8);
            let entry = Entry { due_ms: 5, ..Entry::default() };
            let count = bytes.len() - 8;
            bytes[count..].copy_from_slice(&1u64.to_le_bytes());
            entry.encode(&mut bytes);
            let at = at.index(bytes.len());
            for (byte, with) in bytes[at..].iter_mut().zip(with) {
                *byte = with;
            }
            if let Ok(mut schedule) = Schedule::restore(&bytes, (3, 4)) {
                let end = millstream_protocol::Offset(100);
                let recovered = Recovered {
                    start: millstream_protocol::Offset::ZERO,
                    end,
                    partition_end: end,
                };
                let _ = schedule.settle(recovered, &Deliveries::default());
                while let Some(run) = schedule.wants_load() {
                    schedule.run_loaded(run.number, &vec![Entry::default(); 100_000]);
                    if run.count > 100_000 {
                        break;
                    }
                }
                let taken = schedule.take_due(i64::MAX, 10);
                schedule.put_back(&taken);
                schedule.spill_beyond(0);
                let _ = (schedule.spill(), schedule.deadline(), schedule.needed_from());
                let _ = schedule.snapshot();
            }
        }
    }
}
