//! Reading a closed segment from its first chunk to its last, past the cache and verified as readers do.

use std::sync::Arc;

use millstream_protocol::{Offset, TopicPartition};

use crate::{
    io::{Buffer, Disk, DiskFile, Io},
    storage::{
        Log, LogError, ReadError,
        format::{
            chunk::{CHUNK_HEADER_SIZE, ChunkHeader},
            names,
            segment::SEGMENT_HEADER_SIZE,
        },
        incarnations::Incarnations,
        limits::COMPACTION_READ_SIZE,
        run::{self, ChunkView, Expected, RunEnd},
    },
};

/// A segment on its way through compaction.
pub(super) struct Source<I: Io> {
    file: <I as Disk>::File,
    id: TopicPartition,
    path: std::path::PathBuf,
    position: u64,
    end: u64,
    next: Offset,
    read_size: usize,
}

/// Some chunks of it.
pub(super) struct Part<B> {
    buffer: B,
    chunks: Vec<ChunkView>,
}

impl<B: Buffer> Part<B> {
    /// The chunks: what each says of itself, where it ends as part of the log, and its batches.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkHeader, &ChunkView, &[u8])> {
        self.chunks.iter().map(|view| {
            let bytes = self.buffer.bytes();
            let start = view.payload.start - CHUNK_HEADER_SIZE;
            let header = ChunkHeader::peek(&bytes[start..]).expect("the chunk was verified");
            (header, view, &bytes[view.payload.clone()])
        })
    }

    /// Bytes that were read for it.
    pub fn size(&self) -> usize {
        self.buffer.bytes().len()
    }
}

impl<I: Io> Source<I> {
    /// The segment of `log` with this base offset, as it is now.
    pub async fn open(log: &Log<I>, base: Offset) -> Result<Self, LogError> {
        let path = names::segment_path(&log.dir, base);
        let end = {
            let state = log.state.borrow();
            let segment = state.segments.0.get(&base).ok_or(LogError::Closed)?;
            segment.end
        };
        let file = log.file(base).await.map_err(|error| LogError::Io {
            operation: "opening",
            path: path.clone(),
            error: Arc::new(error),
        })?;
        Ok(Self {
            file,
            id: log.id,
            path,
            position: SEGMENT_HEADER_SIZE,
            end,
            next: base,
            read_size: COMPACTION_READ_SIZE,
        })
    }

    /// The next chunks; `None` after the last.
    pub async fn next(
        &mut self,
        incarnations: &Incarnations,
    ) -> Result<Option<Part<<I as Disk>::Buffer>>, LogError> {
        while self.position < self.end {
            let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
            let read = self.file.read_at(self.position, self.read_size.min(left));
            let buffer = read.await.map_err(|error| LogError::Io {
                operation: "reading",
                path: self.path.clone(),
                error: Arc::new(error),
            })?;
            let mut expected = Expected {
                id: self.id,
                incarnations,
                next: self.next,
            };
            let (chunks, end) = run::parse(buffer.bytes(), &mut expected);
            if let Some(last) = chunks.last() {
                self.position += last.end as u64;
                self.next = last.next;
                self.read_size = COMPACTION_READ_SIZE;
                return Ok(Some(Part { buffer, chunks }));
            }
            match end {
                RunEnd::Needs(needed) if self.read_size < needed && self.read_size < left => {
                    self.read_size = needed;
                }
                RunEnd::Needs(_) => return Err(self.damaged("the segment ends too soon".into())),
                RunEnd::NoChunk(reason) => return Err(self.damaged(reason.to_string())),
            }
        }
        Ok(None)
    }

    fn damaged(&self, reason: String) -> LogError {
        LogError::from(ReadError::Damaged {
            path: self.path.clone(),
            position: self.position,
            below: self.next,
            reason,
        })
    }
}
