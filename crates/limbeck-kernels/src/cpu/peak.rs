//! What the processor's multiply-add units can do, for judging everything else.

use std::time::{Duration, Instant};

use super::simd::{Isa, LANES, Panel, simd};

/// Panels that a burst multiplies and adds, times [`Panel::PIXELS`].
const BURST: usize = 1 << 14;

simd! {
    fn burst(values: &mut [f32], multiplied: &mut usize) = burst_of;
}

#[inline(always)]
fn burst_of<P: Panel>(values: &mut [f32], multiplied: &mut usize) {
    assert!(values.len() >= 2 * LANES);
    // SAFETY: within `values`, by the assertion; the instructions are those of the entry.
    unsafe {
        match P::PIXELS {
            14 => accumulate::<P, 14>(values.as_mut_ptr()),
            6 => accumulate::<P, 6>(values.as_mut_ptr()),
            _ => accumulate::<P, 2>(values.as_mut_ptr()),
        }
    }
    *multiplied += BURST * P::PIXELS * LANES;
}

#[inline(always)]
unsafe fn accumulate<P: Panel, const N: usize>(values: *mut f32) {
    unsafe {
        let weights = P::load(values);
        let mut sums = [P::zero(); N];
        for _ in 0..BURST {
            for sum in &mut sums {
                *sum = sum.add_scaled(values, weights);
            }
        }
        for sum in sums {
            sum.store(values.add(LANES));
            // Every lane of each sum is asked for, so that the compiler leaves none out.
            std::hint::black_box(values.add(LANES).cast::<[f32; LANES]>().read());
        }
    }
}

/// Floating-point operations a second of `threads` threads that do nothing but multiply and add in registers.
pub(crate) fn peak(threads: usize, duration: Duration) -> f64 {
    let isa = Isa::best();
    let rate = || {
        let mut values = [1e-3; 2 * LANES];
        let (start, mut multiplied) = (Instant::now(), 0);
        while start.elapsed() < duration {
            burst(isa, std::hint::black_box(&mut values), &mut multiplied);
        }
        2.0 * multiplied as f64 / start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(rate)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a loop that cannot fail")).sum()
    })
}
