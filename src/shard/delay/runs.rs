//! The index on disk of what waits: runs of entries by due time, in files beside the delay log's segments. They
//! are made from the delay log, and made again from it where they are missing or damaged.

use std::{collections::BTreeSet, io, path::PathBuf, rc::Rc};

use millstream_protocol::{Offset, batch::Batches};

use super::{Delay, deliver::TRY_AGAIN};
use crate::{
    delay::{
        BLOCK_ENTRIES, DamagedBlock, Entry, HEAD_ENTRIES, RUN_BLOCK_SIZE, RunRef, block_of,
        decode_block, encode_block,
    },
    io::{Buffer as _, DiskFile as _, Io, Monotonic, OpenMode},
};

/// Blocks that are written at once.
const BLOCKS_WRITTEN_AT_ONCE: usize = 64;
/// Blocks that are read at once: a head's worth.
const BLOCKS_READ_AT_ONCE: usize = HEAD_ENTRIES / BLOCK_ENTRIES;
/// Bytes of the delay log that are read at once when the index is made again.
const REBUILD_READ_SIZE: usize = 1 << 20;

impl<I: Io> Delay<I> {
    fn run_dir(&self) -> Option<PathBuf> {
        let log = self.log.get()?;
        Some(self.storage.dir_of(log.log().id()))
    }

    fn run_path(&self, number: u64) -> Option<PathBuf> {
        Some(self.run_dir()?.join(format!("{number:020}.due")))
    }

    /// Keeps no more than so many due times in memory, besides what is next of each run on disk.
    pub fn spill_beyond(&self, count: usize) {
        self.schedule.borrow_mut().spill_beyond(count);
        self.changed.raise();
    }

    /// Brings what is not due soon to disk, if much is in memory; what could not be written before, first.
    pub(super) async fn spill(&self) {
        if self.io.now() < self.spill_again_at.get() {
            return;
        }
        loop {
            let spilled = {
                let mut schedule = self.schedule.borrow_mut();
                schedule.spill_again().or_else(|| schedule.spill())
            };
            let Some((number, entries)) = spilled else {
                return;
            };
            match self.write_run(number, &entries).await {
                Ok(()) => self.schedule.borrow_mut().run_written(number),
                Err(error) => {
                    // It stays in memory for now.
                    tracing::warn!(%error, "due times of delayed records stay in memory");
                    let again_at = self.io.now().0 + nanoseconds(TRY_AGAIN);
                    return self.spill_again_at.set(Monotonic(again_at));
                }
            }
        }
    }

    async fn write_run(&self, number: u64, entries: &[Entry]) -> io::Result<()> {
        let (Some(dir), Some(path)) = (self.run_dir(), self.run_path(number)) else {
            return Ok(());
        };
        self.io.create_dir_all(&dir).await?;
        let file = match self.io.open(&path, OpenMode::CreateNew).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Of an attempt that no checkpoint knows.
                self.io.remove_file(&path).await?;
                self.io.open(&path, OpenMode::CreateNew).await?
            }
            opened => opened?,
        };
        let mut index = 0;
        for piece in entries.chunks(BLOCK_ENTRIES * BLOCKS_WRITTEN_AT_ONCE) {
            let position = index * RUN_BLOCK_SIZE as u64;
            let blocks = piece.chunks(BLOCK_ENTRIES);
            let mut buffer = self.io.buffer(blocks.len() * RUN_BLOCK_SIZE);
            let out = buffer.bytes_mut().chunks_mut(RUN_BLOCK_SIZE);
            for (entries, block) in blocks.zip(out) {
                encode_block(number, index, entries, block);
                index += 1;
            }
            file.write_at(Rc::new(buffer), position).await?;
            self.io.yield_if_needed().await;
        }
        file.sync_data().await?;
        file.close().await?;
        self.io.sync_dir(&dir).await
    }

    /// Reads so many blocks' worth of entries from where a run stands.
    async fn read_run(&self, run: RunRef) -> io::Result<Vec<Entry>> {
        let damaged = |error: DamagedBlock| io::Error::new(io::ErrorKind::InvalidData, error);
        let path = self.run_path(run.number).ok_or(io::ErrorKind::NotFound)?;
        let file = self.io.open(&path, OpenMode::Read).await?;
        let (mut index, place) = block_of(run.position);
        let size = BLOCKS_READ_AT_ONCE * RUN_BLOCK_SIZE;
        let buffer = file.read_at(index * RUN_BLOCK_SIZE as u64, size).await?;
        let mut entries = Vec::with_capacity(HEAD_ENTRIES);
        for block in buffer.bytes().chunks(RUN_BLOCK_SIZE) {
            entries.extend(decode_block(run.number, index, block).map_err(damaged)?);
            index += 1;
        }
        entries.drain(..place.min(entries.len()));
        let left = usize::try_from(run.count - run.position).unwrap_or(usize::MAX);
        entries.truncate(left);
        match entries.is_empty() && left > 0 {
            true => Err(damaged(DamagedBlock)),
            false => Ok(entries),
        }
    }

    /// Fills heads that run low. False if the index must be made again.
    pub(super) async fn load_heads(&self) -> bool {
        loop {
            let wanted = self.schedule.borrow().wants_load();
            let Some(run) = wanted else {
                return true;
            };
            match self.read_run(run).await {
                Ok(entries) => self.schedule.borrow_mut().run_loaded(run.number, &entries),
                Err(error) => {
                    let number = run.number;
                    tracing::warn!(%error, "index {number} of delayed records cannot be used");
                    return false;
                }
            }
        }
    }

    /// At the start: goes through every run, for ids and for damage.
    pub(super) async fn verify_runs(&self) -> bool {
        let runs: Vec<RunRef> = self.schedule.borrow().runs_on_disk().collect();
        for mut run in runs {
            while run.position < run.count {
                match self.read_run(run).await {
                    Ok(entries) => {
                        run.position += entries.len() as u64;
                        self.schedule.borrow_mut().know_ids(&entries);
                    }
                    Err(error) => {
                        let number = run.number;
                        tracing::warn!(%error, "index {number} of delayed records cannot be used");
                        return false;
                    }
                }
                self.io.yield_if_needed().await;
            }
        }
        self.schedule.borrow_mut().runs_known();
        true
    }

    /// At the start, before anybody asks for an id: the index is gone through, or made again.
    pub(super) async fn know_runs(&self) {
        let lost = self.schedule.borrow().index_is_lost();
        if !lost && self.verify_runs().await {
            return;
        }
        if let Err(trouble) = self.rebuild().await {
            // It is tried again, and nothing accepted, nothing cancelled until then.
            self.note_trouble(trouble);
        }
    }

    /// Makes the index again from the delay log. Until that is done, checkpoints say that it is lost.
    pub(super) async fn rebuild(&self) -> Result<(), String> {
        let Some(log) = self.log.get() else {
            return Ok(());
        };
        self.schedule.borrow_mut().lose_index();
        // What is not durable is in no run.
        let end = log.with_machine(crate::partition::Partition::high_watermark);
        let first = self.schedule.borrow().needed_from();
        let mut from = first.unwrap_or(end).max(log.log().log_start());
        let mut count = 0u64;
        while from < end {
            if self.stopped.get() {
                return Err("it is being closed".to_owned());
            }
            let read = log.log().read_some(from, end, REBUILD_READ_SIZE).await;
            let (slices, next) = read.map_err(|error| error.to_string())?;
            let before = from;
            for slice in slices {
                for batch in Batches::trusted(slice.bytes()) {
                    let (header, bytes) = batch.map_err(|error| error.to_string())?;
                    let rebuilt = self.schedule.borrow_mut().rebuild(&header, bytes);
                    count += rebuilt.map_err(|error| error.to_string())?;
                    from = from.max(header.next_offset());
                    self.io.yield_if_needed().await;
                }
            }
            from = from.max(next);
            if from == before {
                return Err(format!("the delay log gives nothing at {from}"));
            }
            self.spill().await;
            self.io.yield_if_needed().await;
        }
        self.schedule.borrow_mut().runs_known();
        tracing::info!(partition = %log.log().id(), "the index of {count} delayed records was made again");
        Ok(())
    }

    /// Removes files of runs that are used up and that no checkpoint names.
    pub(super) async fn remove_runs(&self, numbers: Vec<u64>) {
        for number in numbers {
            let Some(path) = self.run_path(number) else {
                return;
            };
            // What is left is removed at the next start.
            let _ = self.io.remove_file(&path).await;
        }
    }

    /// At the start: removes files of runs that no checkpoint names.
    pub(super) async fn remove_orphans(&self) {
        let Some(dir) = self.run_dir() else { return };
        let Ok(files) = self.io.read_dir(&dir).await else {
            return;
        };
        for path in files {
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_suffix(".due")?.parse().ok());
            if number.is_some_and(|number: u64| !self.schedule.borrow().holds_run(number)) {
                let _ = self.io.remove_file(&path).await;
            }
        }
    }

    /// What waits behind a place, in order, as many as there are or are wanted.
    pub(super) async fn page(&self, after: (i64, Offset), count: usize) -> io::Result<Vec<Entry>> {
        let (mut page, runs): (BTreeSet<Entry>, Vec<RunRef>) = {
            let schedule = self.schedule.borrow();
            let in_memory = schedule.list(after).take(count);
            (in_memory.collect(), schedule.runs_on_disk().collect())
        };
        for run in runs {
            let read = self.page_of(run, after, count, &mut page).await;
            if let Err(error) = read
                && self.schedule.borrow().holds_run(run.number)
            {
                return Err(error);
            }
            // Otherwise all of it was delivered meanwhile.
            while page.len() > count {
                page.pop_last();
            }
        }
        Ok(page.into_iter().collect())
    }

    /// Adds what waits of one run behind a place.
    async fn page_of(
        &self,
        run: RunRef,
        after: (i64, Offset),
        count: usize,
        page: &mut BTreeSet<Entry>,
    ) -> io::Result<()> {
        let is_behind = |entry: &Entry| (entry.due_ms, entry.offset) > after;
        let mut at = self.first_behind(run, is_behind).await?;
        let mut taken = 0;
        while at.position < at.count && taken < count {
            let entries = self.read_run(at).await?;
            at.position += entries.len() as u64;
            let schedule = self.schedule.borrow();
            let waits = |entry: &Entry| is_behind(entry) && schedule.is_waiting(entry.offset);
            let before = page.len();
            page.extend(entries.into_iter().filter(waits));
            taken += page.len() - before;
        }
        Ok(())
    }

    /// A run from a little before its first entry that lies behind a place.
    async fn first_behind(
        &self,
        run: RunRef,
        is_behind: impl Fn(&Entry) -> bool,
    ) -> io::Result<RunRef> {
        let (mut low, mut high) = (run.position, run.count);
        while high - low > HEAD_ENTRIES as u64 {
            let middle = low + (high - low) / 2;
            let at = RunRef {
                position: middle,
                ..run
            };
            let entries = self.read_run(at).await?;
            match entries.first().is_some_and(&is_behind) {
                true => high = middle,
                false => low = middle,
            }
        }
        Ok(RunRef {
            position: low,
            ..run
        })
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
