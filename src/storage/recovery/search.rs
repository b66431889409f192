//! Beyond the first bad place: does anything there say that the place was good once?

use millstream_protocol::Offset;

use super::{Recovery, failed, scan::Scan};
use crate::{
    io::{BLOCK_SIZE, Buffer, DiskFile, Io, OpenMode},
    storage::{
        LogError,
        format::{
            chunk::{CHUNK_MAGIC, ChunkHeader},
            names,
            segment::SEGMENT_HEADER_SIZE,
        },
        limits::SCAN_READ_SIZE,
    },
};

const ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// What lies beyond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beyond {
    /// A chunk of this life that was written when more was durable than is good now: the offset it
    /// names, its segment and its position there.
    pub proof: Option<(Offset, Offset, u64)>,
    /// There is anything at all, so that the next bytes written could be taken together with it.
    pub dirty: bool,
}

impl<I: Io> Recovery<'_, I> {
    /// Looks at every block from the scan's end to the end of the last segment.
    pub(super) async fn search(&self, scan: &Scan) -> Result<Beyond, LogError> {
        let mut beyond = Beyond::default();
        let segments = self.listed.iter().copied();
        for base in segments.filter(|base| *base >= scan.end.segment) {
            let from = if base == scan.end.segment {
                scan.end.position
            } else {
                // A segment that does not follow is something by itself.
                beyond.dirty = true;
                SEGMENT_HEADER_SIZE
            };
            self.search_segment(scan, base, from, &mut beyond).await?;
            if beyond.proof.is_some() {
                break;
            }
        }
        Ok(beyond)
    }

    async fn search_segment(
        &self,
        scan: &Scan,
        base: Offset,
        from: u64,
        beyond: &mut Beyond,
    ) -> Result<(), LogError> {
        let path = names::segment_path(self.dir, base);
        let opened = self.io.open(&path, OpenMode::Read).await;
        let file = opened.map_err(failed("opening", &path))?;
        let mut position = from;
        loop {
            let _charge = self.storage.reading.take(SCAN_READ_SIZE).await;
            let buffer = file.read_at(position, SCAN_READ_SIZE).await;
            let buffer = buffer.map_err(failed("reading", &path))?;
            let bytes = buffer.bytes();
            if bytes.is_empty() {
                return Ok(());
            }
            for (at, block) in (0..).step_by(BLOCK_SIZE).zip(bytes.chunks(BLOCK_SIZE)) {
                if block == &ZEROS[..block.len()] {
                    continue;
                }
                beyond.dirty = true;
                let Some(header) = self.candidate(scan, block) else {
                    continue;
                };
                let place = position + at as u64;
                let rest = &bytes[at..];
                let verified = if rest.len() >= header.disk_size() {
                    ChunkHeader::verified(rest).is_ok()
                } else {
                    let chunk = file.read_at(place, header.disk_size()).await;
                    let chunk = chunk.map_err(failed("reading", &path))?;
                    ChunkHeader::verified(chunk.bytes()).is_ok()
                };
                if verified {
                    beyond.proof = Some((header.flushed, base, place));
                    return Ok(());
                }
            }
            position += bytes.len() as u64;
            self.io.yield_if_needed().await;
        }
    }

    /// A header that would prove damage, if its chunk is whole.
    fn candidate(&self, scan: &Scan, block: &[u8]) -> Option<ChunkHeader> {
        if !block.starts_with(&CHUNK_MAGIC) {
            return None;
        }
        let header = ChunkHeader::peek(block).ok()?;
        let this_life = header.incarnation == scan.start.incarnations.current();
        let says_more = header.flushed > scan.log_end();
        (header.id == self.id && this_life && says_more).then_some(header)
    }
}
