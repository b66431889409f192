//! Memory for direct I/O: aligned, recycled, and touched once.
//!
//! A shard that appends a gigabyte a second goes through memory as fast. Fresh memory costs a page
//! fault for every 4 KiB, and on a virtual machine whose host lends memory page by page a hundred
//! times that; memory that was used before costs nothing. So buffers come from regions that a shard
//! keeps for its life: a free run of pages that fits best is taken, and neighbours that become free
//! grow together again. What leaves the cache is what the next chunk is written into.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ptr::NonNull,
    rc::Rc,
};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::io::{BLOCK_SIZE, Buffer};

/// Memory is taken from the system in pieces of this size, or of one buffer that is larger.
const REGION_SIZE: usize = 8 << 20;

/// Memory of the system's, given back when it is dropped.
struct Region {
    memory: NonNull<u8>,
    size: usize,
}

impl Region {
    fn map(size: usize) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let null = std::ptr::null_mut();
        // SAFETY: a new anonymous mapping, at a place that the system chooses, touches nothing.
        let mapped =
            unsafe { rustix::mm::mmap_anonymous(null, size, protection, MapFlags::PRIVATE) };
        let mapped = mapped.unwrap_or_else(|error| panic!("no memory for {size} bytes: {error}"));
        // A small broker stays small; only advice, so a refusal does not matter.
        // SAFETY: the whole mapping is ours, and advice changes no contents.
        let _ = unsafe { rustix::mm::madvise(mapped, size, Advice::LinuxNoHugepage) };
        Self {
            memory: NonNull::new(mapped.cast()).expect("a mapping is never at null"),
            size,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped with this size, and no buffer of it is left: each holds the pool.
        let unmapped = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.size) };
        debug_assert!(unmapped.is_ok());
    }
}

/// The memory of a shard's buffers.
#[derive(Default)]
pub(super) struct Pool {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    regions: Vec<Region>,
    /// Free runs of pages: place to size. A place is a region and the bytes from its start.
    free: BTreeMap<(usize, usize), usize>,
    /// The same, by size.
    by_size: BTreeSet<(usize, (usize, usize))>,
}

impl State {
    fn put(&mut self, place: (usize, usize), size: usize) {
        self.free.insert(place, size);
        self.by_size.insert((size, place));
    }

    fn remove(&mut self, place: (usize, usize)) -> usize {
        let size = self.free.remove(&place).expect("a free run");
        self.by_size.remove(&(size, place));
        size
    }

    fn take(&mut self, size: usize) -> (usize, usize) {
        let fitting = self.by_size.range((size, (0, 0))..).next().copied();
        let (_, place) = fitting.unwrap_or_else(|| {
            let region = Region::map(size.max(REGION_SIZE));
            let place = (self.regions.len(), 0);
            self.put(place, region.size);
            self.regions.push(region);
            (0, place)
        });
        let found = self.remove(place);
        if found > size {
            self.put((place.0, place.1 + size), found - size);
        }
        place
    }

    fn give(&mut self, place: (usize, usize), size: usize) {
        let (mut place, mut size) = (place, size);
        if let Some((&before, &before_size)) = self.free.range(..place).next_back()
            && before.0 == place.0
            && before.1 + before_size == place.1
        {
            self.remove(before);
            place = before;
            size += before_size;
        }
        let after = (place.0, place.1 + size);
        if self.free.contains_key(&after) {
            size += self.remove(after);
        }
        self.put(place, size);
    }
}

impl Pool {
    /// A buffer of `size` bytes, with whatever was in that memory before.
    pub(super) fn buffer(self: &Rc<Self>, size: usize) -> UringBuffer {
        assert!(
            size > 0 && size.is_multiple_of(BLOCK_SIZE),
            "buffers are whole blocks: {size}"
        );
        let state = &mut *self.state.borrow_mut();
        let place = state.take(size);
        // SAFETY: the run lies within its region.
        let memory = unsafe { state.regions[place.0].memory.add(place.1) };
        UringBuffer {
            memory,
            size,
            place,
            pool: Rc::clone(self),
        }
    }

    /// Bytes that were taken from the system.
    #[cfg(test)]
    fn mapped(&self) -> usize {
        let state = self.state.borrow();
        state.regions.iter().map(|region| region.size).sum()
    }
}

/// A run of pages of a shard's pool.
pub struct UringBuffer {
    memory: NonNull<u8>,
    size: usize,
    place: (usize, usize),
    pool: Rc<Pool>,
}

impl UringBuffer {
    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: `size` bytes from here on are this buffer's alone while it lives, mapped, and
        // initialised: the system maps zeros. The kernel writes to them only while the ring owns it.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.size) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has the buffer.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.size) }
    }
}

impl Buffer for UringBuffer {
    fn bytes(&self) -> &[u8] {
        self.as_slice()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }

    /// What is cut off can be used by others at once.
    fn shorten(&mut self, size: usize) {
        assert!(
            size.is_multiple_of(BLOCK_SIZE) && size <= self.size,
            "cannot shorten {} to {size}",
            self.size
        );
        let rest = self.size - size;
        if rest > 0 {
            let place = (self.place.0, self.place.1 + size);
            self.pool.state.borrow_mut().give(place, rest);
        }
        self.size = size;
    }
}

impl Drop for UringBuffer {
    fn drop(&mut self) {
        if self.size > 0 {
            self.pool.state.borrow_mut().give(self.place, self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Random;

    #[test]
    fn buffers_never_overlap_and_what_is_free_grows_together() {
        let pool = Rc::new(Pool::default());
        let mut random = Random::new(1);
        let mut buffers: Vec<(UringBuffer, u8)> = Vec::new();
        for round in 0..20_000_u32 {
            if buffers.len() > 100 || (random.chance(40) && !buffers.is_empty()) {
                let at = random.index(buffers.len());
                let (buffer, value) = buffers.swap_remove(at);
                assert!(buffer.bytes().iter().all(|byte| *byte == value));
            } else if random.chance(20) && !buffers.is_empty() {
                let at = random.index(buffers.len());
                let blocks = buffers[at].0.bytes().len() / BLOCK_SIZE;
                let left = random.index(blocks + 1) * BLOCK_SIZE;
                buffers[at].0.shorten(left);
            } else {
                let size = (1 + random.index(64)) * BLOCK_SIZE;
                let mut buffer = pool.buffer(size);
                let value = round.to_le_bytes()[0];
                buffer.bytes_mut().fill(value);
                buffers.push((buffer, value));
            }
        }
        drop(buffers);
        let state = pool.state.borrow();
        assert_eq!(state.free.len(), state.regions.len(), "one run a region");
        let free: usize = state.free.values().sum();
        let regions: usize = state.regions.iter().map(|region| region.size).sum();
        assert_eq!(free, regions);
        assert_eq!(state.by_size.len(), state.free.len());
    }

    #[test]
    fn what_is_given_back_is_used_again() {
        let pool = Rc::new(Pool::default());
        for _ in 0..1_000 {
            drop(pool.buffer(1 << 20));
        }
        assert_eq!(pool.mapped(), REGION_SIZE);
        let large = pool.buffer(4 * REGION_SIZE);
        assert_eq!(pool.mapped(), 5 * REGION_SIZE);
        drop(large);
        drop(pool.buffer(3 * REGION_SIZE));
        assert_eq!(pool.mapped(), 5 * REGION_SIZE);
    }
}
