//! What a file holds at one moment: whole blocks, a size and the space set aside for it.

use std::{collections::BTreeMap, rc::Rc};

use crate::io::BLOCK_SIZE;

/// The unit that a disk writes atomically.
pub(super) const SECTOR_SIZE: usize = 512;
pub(super) const SECTORS_PER_BLOCK: usize = BLOCK_SIZE / SECTOR_SIZE;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// One block's bytes, shared by every state that holds them.
pub(super) type Block = Rc<[u8]>;

/// See the module. A block that is absent reads as zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    size: u64,
    /// Space is set aside from 0 up to here, whole blocks.
    allocated: u64,
    blocks: BTreeMap<u64, Block>,
    /// How many of the blocks lie beyond what is set aside.
    beyond_count: u64,
}

impl Content {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn physical_size(&self) -> u64 {
        self.allocated + self.beyond_count * BLOCK
    }

    /// How much more space a write of `count` blocks would take.
    pub(super) fn growth_of_write(&self, first: u64, count: u64) -> u64 {
        let start = first.max(self.allocated / BLOCK);
        let end = first + count;
        if start >= end {
            return 0;
        }
        let held = self.blocks.range(start..end).count() as u64;
        (end - start - held) * BLOCK
    }

    /// How much more space an allocation up to `size` would take.
    pub(super) fn growth_of_allocate(&self, size: u64) -> u64 {
        let wanted = size.next_multiple_of(BLOCK);
        if wanted <= self.allocated {
            return 0;
        }
        let held = self
            .blocks
            .range(self.allocated / BLOCK..wanted / BLOCK)
            .count() as u64;
        wanted - self.allocated - held * BLOCK
    }

    pub(super) fn put(&mut self, index: u64, block: Block) {
        let fresh = self.blocks.insert(index, block).is_none();
        if fresh && index >= self.allocated / BLOCK {
            self.beyond_count += 1;
        }
    }

    fn count_beyond(&mut self) {
        self.beyond_count = self.blocks.range(self.allocated / BLOCK..).count() as u64;
    }

    /// Puts only the sectors of a block whose bit is set in `sectors`.
    pub(super) fn put_sectors(&mut self, index: u64, block: &[u8], sectors: u8) {
        let mut bytes = self
            .block(index)
            .map_or_else(|| vec![0; BLOCK_SIZE], <[u8]>::to_vec);
        for sector in (0..SECTORS_PER_BLOCK).filter(|sector| sectors & (1 << sector) != 0) {
            let range = sector * SECTOR_SIZE..(sector + 1) * SECTOR_SIZE;
            bytes[range.clone()].copy_from_slice(&block[range]);
        }
        self.put(index, bytes.into());
    }

    pub(super) fn block(&self, index: u64) -> Option<&[u8]> {
        self.blocks.get(&index).map(|block| &**block)
    }

    /// Grows the file to `size`, if it is smaller.
    pub(super) fn extend(&mut self, size: u64) {
        self.size = self.size.max(size);
    }

    pub(super) fn allocate(&mut self, size: u64) {
        self.allocated = self.allocated.max(size.next_multiple_of(BLOCK));
        self.count_beyond();
        self.extend(size);
    }

    /// Cuts or grows the file; what lies beyond its end is forgotten.
    pub(super) fn truncate(&mut self, size: u64) {
        let end = size.next_multiple_of(BLOCK);
        self.blocks.split_off(&(end / BLOCK));
        self.allocated = self.allocated.min(end);
        self.count_beyond();
        self.size = size;
        let tail = usize::try_from(size % BLOCK).expect("less than a block");
        if tail != 0
            && let Some(block) = self.blocks.get_mut(&(size / BLOCK))
        {
            let mut bytes = block.to_vec();
            bytes[tail..].fill(0);
            *block = bytes.into();
        }
    }

    /// Forgets blocks that a size which did not survive a crash leaves out of reach.
    pub(super) fn trim(&mut self) {
        self.truncate(self.size);
    }

    /// Flips the bits of `mask` at a position.
    pub(super) fn flip(&mut self, position: u64, mask: u8) {
        let index = position / BLOCK;
        let mut bytes = self
            .block(index)
            .map_or_else(|| vec![0; BLOCK_SIZE], <[u8]>::to_vec);
        bytes[usize::try_from(position % BLOCK).expect("less than a block")] ^= mask;
        self.put(index, bytes.into());
    }
}
