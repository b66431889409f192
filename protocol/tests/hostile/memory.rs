//! How much memory a piece of code needs: an allocator that counts, thread by thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.with(|live| {
            live.set(live.get().wrapping_add(layout.size()));
            // Memory freed by another thread than its own makes the count wrap: not a peak.
            if live.get() < usize::MAX / 2 {
                PEAK.with(|peak| peak.set(peak.get().max(live.get())));
            }
        });
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.with(|live| live.set(live.get().wrapping_sub(layout.size())));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `work` and tells the most bytes that this thread had allocated at once for it.
pub fn peak<R>(work: impl FnOnce() -> R) -> (R, usize) {
    LIVE.set(0);
    PEAK.set(0);
    let result = work();
    (result, PEAK.get())
}

#[test]
fn the_count_is_right() {
    let (kept, bytes) = peak(|| {
        drop(vec![0u8; 1000]);
        vec![0u8; 300]
    });
    assert_eq!((kept.len(), bytes), (300, 1000));
}
