//! The part of a disk that is left free: when less is there, produces are refused and nothing is set aside
//! ahead, so that what was accepted can still be written, and deleting can make room.

use crate::io::DiskSpace;

/// Left free ...
const MIN_FREE_BYTES: u64 = 1 << 30;
/// ... or this part of the disk, whichever is more.
const MIN_FREE_PERCENT: u64 = 2;

/// Bytes that must stay free on such a disk.
#[must_use]
pub fn reserve(space: &DiskSpace) -> u64 {
    let part = space.total / 100 * MIN_FREE_PERCENT;
    // A disk not much larger than the reserve would never take anything: then the part counts.
    if space.total < 4 * MIN_FREE_BYTES {
        part
    } else {
        part.max(MIN_FREE_BYTES)
    }
}

/// Less is free than the reserve, or would be with `more` bytes taken.
#[must_use]
pub fn is_short(space: &DiskSpace, more: u64) -> bool {
    space.free < reserve(space).saturating_add(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_a_gibibyte_and_a_part_but_for_small_disks() {
        const GIB: u64 = 1 << 30;
        let of = |total| reserve(&DiskSpace { free: 0, total });
        assert_eq!(of(10 * GIB), GIB);
        assert_eq!(of(1000 * GIB), 1000 * GIB / 100 * 2);
        assert_eq!(of(GIB), GIB / 100 * 2);
        let space = DiskSpace {
            free: GIB + 5,
            total: 10 * GIB,
        };
        assert!(!is_short(&space, 5));
        assert!(is_short(&space, 6));
    }
}
