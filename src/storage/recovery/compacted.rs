//! Segments that compaction replaced after the last checkpoint: that names them as they were before.
//!
//! A replacement has the name, the offsets and the place of what it replaced; only its size and its
//! chunks differ, and its first block says what it is. It is believed if its chunks follow each other from
//! its first offset up to the one where the next segment begins, and then the file ends.

use millstream_protocol::Offset;

use super::{Recovery, failed};
use crate::{
    io::{BLOCK_SIZE, Buffer, DiskFile, Io, OpenMode},
    storage::{
        LogError,
        format::{checkpoint::SegmentV1, names, segment::SegmentHeader},
        incarnations::Incarnations,
        limits::SCAN_READ_SIZE,
        run::{self, Expected, RunEnd},
        segments::Segment,
    },
};

impl<I: Io> Recovery<'_, I> {
    /// The segment as it is now, if compaction replaced what the checkpoint describes.
    pub(super) async fn compacted_since(
        &self,
        summary: &SegmentV1,
        size: u64,
        incarnations: &Incarnations,
    ) -> Result<Option<Segment>, LogError> {
        let base = Offset(summary.base);
        if !self.listed.contains(&base) {
            return Ok(None);
        }
        let path = names::segment_path(self.dir, base);
        let opened = self.io.open(&path, OpenMode::Read).await;
        let file = opened.map_err(failed("opening", &path))?;
        let block = file.read_at(0, BLOCK_SIZE).await;
        let block = block.map_err(failed("reading", &path))?;
        let replaced = SegmentHeader::decode(block.bytes()).is_ok_and(|header| {
            header.id == self.id && header.base == base && header.compaction.is_some()
        });
        if !replaced {
            return Ok(None);
        }
        let mut segment = Segment::empty(base, size);
        let mut expected = Expected {
            id: self.id,
            incarnations,
            next: base,
        };
        let mut read_size = SCAN_READ_SIZE;
        while segment.end < size {
            let position = segment.end;
            let _charge = self.storage.reading.take(read_size).await;
            let buffer = file.read_at(position, read_size).await;
            let buffer = buffer.map_err(failed("reading", &path))?;
            let (chunks, end) = run::parse(buffer.bytes(), &mut expected);
            for chunk in &chunks {
                segment.add(&chunk.placed(base, position));
            }
            match end {
                RunEnd::Needs(_) if segment.end > position => read_size = SCAN_READ_SIZE,
                RunEnd::Needs(needed) if read_size < needed => read_size = needed,
                RunEnd::Needs(_) | RunEnd::NoChunk(_) => break,
            }
            self.io.yield_if_needed().await;
        }
        let whole = segment.end == size && segment.next == Offset(summary.next);
        Ok(whole.then_some(Segment {
            first_append_ms: summary.first_append_ms,
            last_append_ms: summary.last_append_ms,
            ..segment
        }))
    }
}
