//! Sharing out images among threads.

use std::cell::RefCell;
use std::marker::PhantomData;

use rayon::prelude::*;

/// A slice that threads write disjoint parts of.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    length: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are handed out once each, see `part`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), lifetime: PhantomData }
    }

    /// The `index`th part of `length` items, empty if the whole is.
    ///
    /// # Safety
    /// No two threads may hold the same part at once.
    #[expect(clippy::mut_from_ref, reason = "parts are disjoint by the caller's promise")]
    pub(crate) unsafe fn part(&self, index: usize, length: usize) -> &mut [T] {
        if self.length == 0 {
            return &mut [];
        }
        // SAFETY: as promised by the caller.
        unsafe { self.range(index * length, length) }
    }

    /// `length` items from `first` on.
    ///
    /// # Safety
    /// No two threads may hold overlapping ranges at once.
    #[expect(clippy::mut_from_ref, reason = "ranges are disjoint by the caller's promise")]
    pub(crate) unsafe fn range(&self, first: usize, length: usize) -> &mut [T] {
        assert!(first + length <= self.length, "{length} from {first} on in {}", self.length);
        // SAFETY: within the slice, by the assertion; disjoint by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), length) }
    }
}

/// Buffers that a thread keeps from image to image.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) image: Vec<f32>,
    pub(crate) padded: Vec<f32>,
    pub(crate) panels: Vec<f32>,
    pub(crate) rows: Vec<f32>,
    pub(crate) tiles: Vec<f32>,
}

/// At least `length` floats of a buffer, with whatever they held.
pub(crate) fn sized(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

/// Calls `work` for each index below `count`, on all threads.
pub(crate) fn for_each(count: usize, work: impl Fn(usize, &mut Scratch) + Sync) {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    (0..count).into_par_iter().for_each(|index| SCRATCH.with_borrow_mut(|scratch| work(index, scratch)));
}
