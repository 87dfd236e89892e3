//! Buffers that are used again: a training step needs the same ones as the step before, and fresh memory from the system costs a page
//! fault every 4 kB, a fifth of a step.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Buffers below this many floats are left to the allocator, which keeps such sizes at hand itself.
const SMALL: usize = 1 << 14;
/// Bytes that are kept at most; what is given back beyond is freed.
const KEPT: usize = 256 << 20;

#[derive(Default)]
struct Pool {
    by_length: HashMap<usize, Vec<Vec<f32>>>,
    bytes: usize,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

/// Floats with whatever the last user left in them.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    values: Vec<f32>,
    length: usize,
}

impl Buffer {
    /// `length` floats.
    pub(crate) fn new(length: usize) -> Self {
        if length < SMALL {
            return Self { values: vec![0.0; length], length };
        }
        // Sizes in steps of an eighth, so that batches of almost the same size share.
        let step = length.next_power_of_two() / 16;
        let whole = length.next_multiple_of(step);
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let values = pool.by_length.get_mut(&whole).and_then(Vec::pop);
        if let Some(values) = values {
            pool.bytes -= whole * size_of::<f32>();
            return Self { values, length };
        }
        drop(pool);
        Self { values: vec![0.0; whole], length }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.length]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = self.values.len() * size_of::<f32>();
        if self.values.len() < SMALL {
            return;
        }
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.bytes + bytes <= KEPT {
            pool.bytes += bytes;
            let values = std::mem::take(&mut self.values);
            pool.by_length.entry(values.len()).or_default().push(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_its_own_length_whatever_lies_behind_it() {
        for length in [0, 1, SMALL - 1, SMALL, SMALL + 1, 100_000] {
            let mut buffer = Buffer::new(length);
            assert_eq!(buffer.len(), length);
            buffer.fill(1.0);
            assert_eq!(AsRef::<[u8]>::as_ref(&buffer).len(), 4 * length);
        }
    }

    #[test]
    fn two_live_buffers_never_share() {
        let (mut first, mut second) = (Buffer::new(SMALL), Buffer::new(SMALL));
        first.fill(1.0);
        second.fill(2.0);
        assert!(first.iter().all(|&value| value == 1.0));
    }
}
