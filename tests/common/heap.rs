//! An allocator that counts: how much heap a computation holds at its highest point.
//!
//! A binary that uses it declares `#[global_allocator] static HEAP: Heap = Heap::new();`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, and two counters.
pub(crate) struct Heap {
    bytes: AtomicUsize,
    peak_bytes: AtomicUsize,
}

impl Heap {
    /// Counts from zero.
    pub(crate) const fn new() -> Heap {
        Heap {
            bytes: AtomicUsize::new(0),
            peak_bytes: AtomicUsize::new(0),
        }
    }

    /// What `work` returns, and the most bytes that it held beyond those that were held before.
    pub(crate) fn peak_of<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
        let before = self.bytes.load(Relaxed);
        self.peak_bytes.store(before, Relaxed);
        let result = work();
        (result, self.peak_bytes.load(Relaxed) - before)
    }

    fn grow(&self, bytes: usize) {
        let now = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        self.peak_bytes.fetch_max(now, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of its callers.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.grow(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.grow(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.bytes.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // A block that moves is there twice for a moment.
        self.grow(new_size);
        self.bytes.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, new_size) }
    }
}
