//! Memory for tests that need a buffer and no disk.

use crate::io::Buffer;

/// A buffer on the heap.
pub(super) struct Memory(pub Vec<u8>);

impl Buffer for Memory {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn shorten(&mut self, size: usize) {
        self.0.truncate(size);
    }
}
