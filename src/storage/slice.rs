//! What a read gives: record batches in buffers that others share.
//!
//! A slice keeps its whole buffer in memory. Where that would be much for little it is copied
//! instead, so that a reply that waits for a slow reader holds about what it is charged for.

use std::{ops::Range, rc::Rc};

use super::limits::COPY_BELOW;
use crate::io::Buffer;

/// Whole record batches, in part of a shared buffer or in memory of their own.
#[derive(Debug)]
pub struct Slice<B>(Memory<B>);

#[derive(Debug)]
enum Memory<B> {
    Shared(Rc<B>, Range<usize>),
    Own(Rc<Vec<u8>>),
}

impl<B: Buffer> Slice<B> {
    /// Takes part of a buffer.
    ///
    /// # Panics
    /// If the range does not lie in the buffer.
    #[must_use]
    pub fn new(buffer: Rc<B>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= buffer.bytes().len());
        Self(Memory::Shared(buffer, range))
    }

    /// Takes batches that are in memory of their own.
    #[must_use]
    pub fn own(bytes: Vec<u8>) -> Self {
        Self(Memory::Own(Rc::new(bytes)))
    }

    /// The batches.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Memory::Shared(buffer, range) => &buffer.bytes()[range.clone()],
            Memory::Own(bytes) => bytes,
        }
    }

    /// Their size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.0 {
            Memory::Shared(_, range) => range.len(),
            Memory::Own(bytes) => bytes.len(),
        }
    }

    /// Bytes that it keeps in memory.
    fn kept(&self) -> usize {
        match &self.0 {
            Memory::Shared(buffer, _) => buffer.bytes().len(),
            Memory::Own(bytes) => bytes.len(),
        }
    }

    fn shares_with(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Memory::Shared(one, _), Memory::Shared(another, _)) => Rc::ptr_eq(one, another),
            _ => false,
        }
    }
}

impl<B> Clone for Slice<B> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Memory::Shared(buffer, range) => Memory::Shared(Rc::clone(buffer), range.clone()),
            Memory::Own(bytes) => Memory::Own(Rc::clone(bytes)),
        })
    }
}

/// Bytes that slices keep in memory and do not carry, where that is more than a quarter of a buffer.
#[must_use]
pub fn idle_size<B: Buffer>(slices: &[Slice<B>]) -> usize {
    let groups = slices.chunk_by(Slice::shares_with).map(Use::of);
    groups
        .filter(Use::is_loose)
        .map(|it| it.kept - it.used)
        .sum()
}

/// Copies what leaves more than a quarter of its buffer idle.
pub fn copy_loose<B: Buffer>(slices: &mut Vec<Slice<B>>) {
    copy(slices, Use::is_loose);
}

/// Copies what is little in itself and for its buffer: that costs less than to keep account of it.
pub(super) fn copy_little<B: Buffer>(slices: &mut Vec<Slice<B>>) {
    copy(slices, Use::is_little);
}

/// How much of a buffer slices that follow each other take.
struct Use {
    used: usize,
    kept: usize,
}

impl Use {
    fn of<B: Buffer>(group: &[Slice<B>]) -> Self {
        Self {
            used: group.iter().map(Slice::size).sum(),
            kept: group[0].kept(),
        }
    }

    fn is_loose(&self) -> bool {
        self.used < self.kept - self.kept / 4
    }

    fn is_little(&self) -> bool {
        self.used < COPY_BELOW && self.used < self.kept / 4
    }
}

fn copy<B: Buffer>(slices: &mut Vec<Slice<B>>, which: impl Fn(&Use) -> bool) {
    let goes = |group: &[Slice<B>]| which(&Use::of(group));
    if !slices.chunk_by(Slice::shares_with).any(goes) {
        return;
    }
    let mut kept = Vec::with_capacity(slices.len());
    // Copies that follow each other share their memory: one piece for the socket.
    let mut copied = Vec::new();
    for group in slices.chunk_by(Slice::shares_with) {
        if goes(group) {
            for slice in group {
                copied.extend_from_slice(slice.bytes());
            }
        } else {
            kept.extend(own(&mut copied));
            kept.extend_from_slice(group);
        }
    }
    kept.extend(own(&mut copied));
    *slices = kept;
}

fn own<B: Buffer>(copied: &mut Vec<u8>) -> Option<Slice<B>> {
    let mut bytes = std::mem::take(copied);
    bytes.shrink_to_fit();
    (!bytes.is_empty()).then(|| Slice::own(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::test_buffer::Memory;

    fn buffer(value: u8) -> Rc<Memory> {
        Rc::new(Memory(vec![value; 1 << 20]))
    }

    fn all(slices: &[Slice<Memory>]) -> Vec<u8> {
        slices.iter().flat_map(|it| it.bytes().to_vec()).collect()
    }

    #[test]
    fn little_of_a_large_buffer_is_copied_and_lets_go_of_it() {
        let buffers = [buffer(1), buffer(2), buffer(3), buffer(4)];
        let part = |at: usize, range: Range<usize>| Slice::new(Rc::clone(&buffers[at]), range);
        let mut slices = vec![
            part(0, 0..10),
            part(0, 20..30),
            part(1, 5..6),
            part(2, 0..COPY_BELOW),
            part(3, 0..7),
        ];
        let before = all(&slices);
        copy_little(&mut slices);
        assert_eq!(all(&slices), before);
        let sizes: Vec<usize> = slices.iter().map(Slice::size).collect();
        assert_eq!(sizes, [21, COPY_BELOW, 7]);
        let holders = buffers.each_ref().map(Rc::strong_count);
        assert_eq!(holders, [1, 1, 2, 1]);
        assert_eq!(idle_size(&slices), (1 << 20) - COPY_BELOW);
        copy_loose(&mut slices);
        assert_eq!(all(&slices), before);
        assert_eq!((slices.len(), idle_size(&slices)), (3, 0));
        assert_eq!(Rc::strong_count(&buffers[2]), 1);
    }

    #[test]
    fn what_fills_its_buffer_is_not_copied() {
        let whole = buffer(1);
        let mut slices = vec![
            Slice::new(Rc::clone(&whole), 0..400_000),
            Slice::new(Rc::clone(&whole), 400_000..800_000),
        ];
        copy_loose(&mut slices);
        assert_eq!((slices.len(), idle_size(&slices)), (2, 0));
        assert_eq!(Rc::strong_count(&whole), 3);
    }
}
