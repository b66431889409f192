//! What lies in a segment's file, place after place: chunks, and blocks that are none.

use std::{fs::File, io};

use super::read_up_to;
use crate::{
    io::BLOCK_SIZE,
    storage::format::{
        chunk::{ChunkHeader, NotAChunk},
        segment::SEGMENT_HEADER_SIZE,
    },
};

/// Goes through a file; whoever reads says how far each place goes.
pub(in crate::storage) struct Places<'a> {
    file: &'a File,
    position: u64,
    bytes: Vec<u8>,
}

impl<'a> Places<'a> {
    /// From the first place behind the file's first block.
    pub fn of(file: &'a File) -> Self {
        Self {
            file,
            position: SEGMENT_HEADER_SIZE,
            bytes: Vec::new(),
        }
    }

    /// Where it is.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The whole chunk that was read last.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The chunk that begins here, its checksum verified, or why there is none; `None` where the file ends.
    pub fn read(&mut self) -> io::Result<Option<Result<ChunkHeader, NotAChunk>>> {
        if self.fill(BLOCK_SIZE)? == 0 {
            return Ok(None);
        }
        match ChunkHeader::peek(&self.bytes) {
            Ok(header) => self.fill(header.disk_size())?,
            Err(error) => return Ok(Some(Err(error))),
        };
        Ok(Some(ChunkHeader::verified(&self.bytes)))
    }

    /// The version of the chunk that begins here, if it is one of a newer broker: all of it is as its checksum
    /// says.
    pub fn newer(&mut self) -> io::Result<Option<u16>> {
        self.fill(BLOCK_SIZE)?;
        if let Err(NotAChunk::Incomplete { needed }) = ChunkHeader::newer_version(&self.bytes) {
            self.fill(needed)?;
        }
        Ok(ChunkHeader::newer_version(&self.bytes).ok())
    }

    /// Goes on behind a chunk.
    pub fn pass(&mut self, header: &ChunkHeader) {
        self.position += header.disk_size() as u64;
    }

    /// Goes on with the next block.
    pub fn pass_block(&mut self) {
        self.position += BLOCK_SIZE as u64;
    }

    fn fill(&mut self, size: usize) -> io::Result<usize> {
        self.bytes.resize(size, 0);
        let read = read_up_to(self.file, &mut self.bytes, self.position)?;
        self.bytes.truncate(read);
        Ok(read)
    }
}
