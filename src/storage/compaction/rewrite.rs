//! Writing a segment anew, and putting it in the place of the old one.
//!
//! What is written has a name of its own until it is flushed. Then it takes the segment's name: before the
//! directory is flushed a crash leaves the old file or the new one, and either is the segment. The index is
//! made from the chunks: the old one goes first, and names another end if it comes back.

use std::{io, path::PathBuf, rc::Rc, sync::Arc};

use millstream_protocol::{Offset, batch::BatchFilter};

use super::{
    Interrupted, Pass,
    output::{Group, Output, OutputChunk},
    retain::{Kept, Rules, Tally},
    source::Source,
};
use crate::{
    io::{BLOCK_SIZE, Buffer, Disk, DiskFile, Io, OpenMode, align_up},
    storage::{
        Log, LogError,
        appender::Placed,
        format::{
            chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
            names,
            segment::{CompactionMark, SEGMENT_HEADER_SIZE, SegmentHeader},
        },
        run,
        segments::{Compacted, Segment},
        whole_file,
    },
};

/// A segment that was written and is not in its place yet.
struct Written<F> {
    file: F,
    path: PathBuf,
    /// What it is to be known as.
    segment: Segment,
    last: Option<ChunkHeader>,
}

impl<I: Io> Log<I> {
    /// What `rules` would do to a segment.
    pub(super) async fn look_through(
        &self,
        base: Offset,
        rules: &Rules<'_>,
        pass: &Pass<'_>,
    ) -> Result<Tally, Interrupted> {
        let mut source = Source::open(self, base).await?;
        let mut filter = BatchFilter::default();
        let mut tally = Tally::default();
        while let Some(part) = source.next(&pass.incarnations).await? {
            self.spend(pass, part.size()).await?;
            for (_, view, payload) in part.chunks() {
                for (header, at) in run::batches(payload) {
                    if header.next_offset() <= view.next {
                        rules.apply(&mut filter, &header, &payload[at], &mut tally);
                    }
                    self.storage.io.yield_if_needed().await;
                }
            }
        }
        Ok(tally)
    }

    /// Writes a segment anew as `rules` say, with a mark that `mark_of` makes, and puts it in the place of
    /// the old one. Gives what was done and the bytes that it takes now.
    pub(super) async fn rewrite(
        &self,
        base: Offset,
        rules: &Rules<'_>,
        mark_of: impl Fn(&Tally) -> CompactionMark,
        pass: &Pass<'_>,
    ) -> Result<(Tally, u64), Interrupted> {
        let old = {
            let state = self.state.borrow();
            let segment = state.segments.0.get(&base);
            segment.cloned().ok_or(Interrupted::Stopped)?
        };
        let path = names::compacting_path(&self.dir, base);
        let written = self.write_anew(&old, &path, rules, mark_of, pass).await;
        let replaced = match written {
            Ok((tally, written)) => {
                let size = written.segment.end;
                let replaced = self.replace(&old, written, pass).await;
                replaced.map(|()| (tally, size))
            }
            Err(error) => Err(error),
        };
        if replaced.is_err() {
            // What is left of it is removed by the next attempt, or by recovery.
            let _ = self.storage.io.remove_file(&path).await;
        }
        replaced
    }

    async fn write_anew(
        &self,
        old: &Segment,
        path: &std::path::Path,
        rules: &Rules<'_>,
        mark_of: impl Fn(&Tally) -> CompactionMark,
        pass: &Pass<'_>,
    ) -> Result<(Tally, Written<<I as Disk>::File>), Interrupted> {
        let io = &self.storage.io;
        let failed = |operation| self.file_error(operation, path);
        match io.remove_file(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing")(error));
            }
            _ => {}
        }
        let opened = io.open(path, OpenMode::CreateNew).await;
        let file = opened.map_err(failed("creating"))?;
        // A refusal for want of space comes here, before anything is written.
        let allocated = file.allocate(old.end).await;
        allocated.map_err(failed("allocating"))?;
        let mut written = Written {
            file,
            path: path.to_owned(),
            segment: Segment::empty(old.base, 0),
            last: None,
        };
        let tally = self.write_chunks(old, &mut written, rules, pass).await?;
        if written.segment.end == old.end {
            // Nothing but its end tells the index of the one from that of the other.
            self.write_seal(&mut written, pass).await?;
        }
        let header = SegmentHeader {
            id: self.id,
            base: old.base,
            created_ms: io.wall_ms(),
            compaction: Some(mark_of(&tally)),
        };
        let mut block = io.buffer(BLOCK_SIZE);
        header.encode(block.bytes_mut());
        let file = written.file.clone();
        let first = file.write_at(Rc::new(block), 0).await;
        first.map_err(failed("writing"))?;
        let cut = file.truncate(written.segment.end).await;
        cut.map_err(failed("truncating"))?;
        file.sync_data().await.map_err(failed("flushing"))?;
        written.segment.file_size = written.segment.end;
        written.segment.first_append_ms = old.first_append_ms;
        written.segment.last_append_ms = old.last_append_ms;
        written.segment.compacted = header
            .compaction
            .map_or(Compacted::Never, Compacted::Marked);
        Ok((tally, written))
    }

    async fn write_chunks(
        &self,
        old: &Segment,
        written: &mut Written<<I as Disk>::File>,
        rules: &Rules<'_>,
        pass: &Pass<'_>,
    ) -> Result<Tally, Interrupted> {
        let mut source = Source::open(self, old.base).await?;
        let mut output = Output::new(self.id, old.base);
        let mut filter = BatchFilter::default();
        let mut tally = Tally::default();
        let mut chunks = Vec::new();
        let mut end = old.base;
        while let Some(part) = source.next(&pass.incarnations).await? {
            self.spend(pass, part.size()).await?;
            for (header, view, payload) in part.chunks() {
                if view.base == view.next {
                    // A sealing chunk; what it says is long true.
                    continue;
                }
                let group = Group {
                    epoch: header.epoch,
                    incarnation: header.incarnation,
                };
                output.begin(group, view.base, &mut chunks);
                output.appended_at(view.append_time_ms);
                end = view.next;
                for (header, at) in run::batches(payload) {
                    let batch = &payload[at];
                    if header.next_offset() > view.next {
                        break;
                    }
                    match rules.apply(&mut filter, &header, batch, &mut tally) {
                        Kept::All => output.push(batch, &mut chunks),
                        Kept::Part(batch) => output.push(&batch, &mut chunks),
                        Kept::Nothing => {}
                    }
                    self.write_all(&mut chunks, written, pass).await?;
                    self.storage.io.yield_if_needed().await;
                }
            }
        }
        output.finish(end, &mut chunks);
        self.write_all(&mut chunks, written, pass).await?;
        assert_eq!(
            written.segment.next, old.next,
            "a segment keeps its offsets"
        );
        Ok(tally)
    }

    async fn write_all(
        &self,
        chunks: &mut Vec<OutputChunk>,
        written: &mut Written<<I as Disk>::File>,
        pass: &Pass<'_>,
    ) -> Result<(), Interrupted> {
        for chunk in chunks.drain(..) {
            self.write_one(&chunk.header, &chunk.payload, written, pass)
                .await?;
        }
        Ok(())
    }

    async fn write_seal(
        &self,
        written: &mut Written<<I as Disk>::File>,
        pass: &Pass<'_>,
    ) -> Result<(), Interrupted> {
        let Some(last) = written.last else {
            return Ok(());
        };
        let seal = ChunkHeader {
            payload_size: 0,
            batch_count: 0,
            base: last.next,
            flushed: last.next,
            max_timestamp_ms: i64::MIN,
            ..last
        };
        self.write_one(&seal, &[], written, pass).await
    }

    async fn write_one(
        &self,
        header: &ChunkHeader,
        payload: &[u8],
        written: &mut Written<<I as Disk>::File>,
        pass: &Pass<'_>,
    ) -> Result<(), Interrupted> {
        let used = CHUNK_HEADER_SIZE + payload.len();
        let mut buffer = self.storage.io.buffer(align_up(used));
        let bytes = buffer.bytes_mut();
        bytes[CHUNK_HEADER_SIZE..used].copy_from_slice(payload);
        bytes[used..].fill(0);
        header.seal(&mut bytes[..used]);
        let size = bytes.len();
        let position = written.segment.end;
        let done = written.file.write_at(Rc::new(buffer), position).await;
        done.map_err(self.file_error("writing", &written.path))?;
        written.segment.add(&Placed {
            segment: written.segment.base,
            position,
            end: position + size as u64,
            base: header.base,
            next: header.next,
            epoch: header.epoch,
            max_timestamp_ms: header.max_timestamp_ms,
            append_time_ms: header.append_time_ms,
        });
        written.last = Some(*header);
        self.spend(pass, size).await
    }

    /// Puts what was written in the place of the old segment.
    async fn replace(
        &self,
        old: &Segment,
        written: Written<<I as Disk>::File>,
        pass: &Pass<'_>,
    ) -> Result<(), Interrupted> {
        let base = old.base;
        // Nobody removes or cuts segments meanwhile.
        let _held = self.slots.hold().await;
        self.check(pass)?;
        let unchanged = {
            let state = self.state.borrow();
            let present = state.segments.0.get(&base);
            present.is_some_and(|present| (present.end, present.next) == (old.end, old.next))
        };
        if !unchanged {
            return Err(Interrupted::Stopped);
        }
        let path = names::segment_path(&self.dir, base);
        // Readers stay with the old file until the new one is there for good.
        let opened = self.file(base).await;
        let file = opened.map_err(self.file_error("opening", &path))?;
        *self.replacing.borrow_mut() = Some((base, file));
        let named = self.take_name(base, &written).await;
        let index = self.archived_index(&written.segment);
        {
            let state = &mut *self.state.borrow_mut();
            if named.is_ok() {
                state.segments.0.insert(base, written.segment);
                state.checkpoint_wanted = true;
                state.reading.replace();
                let mut cache = self.storage.cache.borrow_mut();
                cache.forget_between(self.key, base, old.next);
                self.storage.files.borrow_mut().forget(self.key, base);
            }
            *self.replacing.borrow_mut() = None;
        }
        named?;
        if let Some(index) = index {
            // Only saves time; one that is torn is made again.
            let path = names::index_path(&self.dir, base);
            let _ = whole_file::write(&self.storage.io, &path, &index.encode()).await;
        }
        Ok(())
    }

    async fn take_name(
        &self,
        base: Offset,
        written: &Written<<I as Disk>::File>,
    ) -> Result<(), Interrupted> {
        let io = &self.storage.io;
        let path = names::segment_path(&self.dir, base);
        let index = names::index_path(&self.dir, base);
        match io.remove_file(&index).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.file_error("removing", &index)(error));
            }
            _ => {}
        }
        let renamed = io.rename(&written.path, &path).await;
        renamed.map_err(self.file_error("renaming", &written.path))?;
        if let Err(error) = io.sync_dir(&self.dir).await {
            // Which of the two is the segment cannot be told any more.
            self.fail("flushing", &self.dir, error);
            return Err(Interrupted::Stopped);
        }
        Ok(())
    }

    fn file_error(
        &self,
        operation: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Interrupted + use<I> {
        let path = path.to_owned();
        move |error| {
            let full = error.kind() == io::ErrorKind::StorageFull;
            Interrupted::Failed(if full {
                LogError::DiskFull { path }
            } else {
                LogError::Io {
                    operation,
                    path,
                    error: Arc::new(error),
                }
            })
        }
    }
}

const _: () = assert!(SEGMENT_HEADER_SIZE == BLOCK_SIZE as u64);
