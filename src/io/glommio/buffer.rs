//! Memory for direct I/O.

use std::rc::Rc;

use glommio::io::{DmaBuffer, ReadResult};

use crate::io::{BLOCK_SIZE, Buffer};

/// Aligned memory, from the registered area of the shard while that has room, else from the heap.
///
/// glommio hands out memory as the allocator left it, which safe code must not see. So a fresh buffer
/// is zeroed once: for 64 KiB that costs about a microsecond and warms the cache for the bytes that
/// are copied in next. What a read returns is not zeroed: it is cut to what the kernel filled.
pub struct GlommioBuffer {
    /// Shared with the kernel while a write is on its way.
    memory: Rc<DmaBuffer>,
    /// glommio lets nobody write to the memory of a read.
    is_read: bool,
}

impl GlommioBuffer {
    pub(super) fn zeroed(size: usize) -> Self {
        assert!(
            size > 0 && size.is_multiple_of(BLOCK_SIZE),
            "buffers are whole blocks: {size}"
        );
        let mut memory = glommio::allocate_dma_buffer(size);
        // SAFETY: the buffer owns `size` writable bytes from this pointer on, and nothing refers to
        // them yet. Zeroing through the pointer comes before any slice of it exists.
        unsafe { memory.as_mut_ptr().write_bytes(0, size) };
        Self {
            memory: Rc::new(memory),
            is_read: false,
        }
    }

    pub(super) fn from_read(read: ReadResult) -> Self {
        Self {
            memory: Rc::new(read.into()),
            is_read: true,
        }
    }

    pub(super) fn memory(&self) -> &Rc<DmaBuffer> {
        &self.memory
    }
}

impl Buffer for GlommioBuffer {
    fn bytes(&self) -> &[u8] {
        self.memory.as_bytes()
    }

    /// # Panics
    /// While a write of this buffer is on its way.
    fn bytes_mut(&mut self) -> &mut [u8] {
        if self.is_read && !self.memory.is_empty() {
            let mut copy = Self::zeroed(self.memory.len());
            copy.bytes_mut().copy_from_slice(self.memory.as_bytes());
            *self = copy;
        }
        if self.memory.is_empty() {
            return &mut [];
        }
        Rc::get_mut(&mut self.memory)
            .expect("bytes change while they are written")
            .as_bytes_mut()
    }

    /// # Panics
    /// While a write of this buffer is on its way.
    fn shorten(&mut self, size: usize) {
        assert!(size.is_multiple_of(BLOCK_SIZE), "cannot shorten to {size}");
        Rc::get_mut(&mut self.memory)
            .expect("it shrinks while it is written")
            .trim_to_size(size);
    }
}
