//! Sixteen float lanes, on whatever vector unit the processor has.
//!
//! A kernel is written once, generic over [`Panel`], always inlined, and compiled once for each [`Isa`] by [`simd!`](crate::cpu::simd!):
//! the entry carries the target features, so that everything inlined below it may use them.

use std::sync::OnceLock;

/// Output channels that one tile computes together.
pub(crate) const LANES: usize = 16;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// AVX-512F: one register a panel.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and FMA: two registers a panel.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the target offers at least (SSE2, NEON), by the compiler's own vectorisation.
    Portable,
}

impl Isa {
    /// Those that this processor runs, fastest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 && is_x86_feature_detected!("avx512f") {
                found.push(Self::Avx512);
            }
            if avx2 {
                found.push(Self::Avx2);
            }
        }
        found.push(Self::Portable);
        found
    }

    /// The fastest that this processor runs.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }
}

/// Sixteen lanes of f32 in registers, or eight for what is left of the channels.
///
/// # Safety
/// Methods may be called only where the processor has the type's instructions, with pointers to [`WIDTH`](Self::WIDTH) floats.
pub(crate) trait Panel: Copy {
    /// Number of lanes.
    const WIDTH: usize;
    /// Pixels (or weight rows) of a full tile: as many accumulators as the registers hold.
    const PIXELS: usize;
    /// Eight lanes of the same instruction set.
    type Half: Panel;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Sum of each lane.
    unsafe fn plus(self, other: Self) -> Self;
    /// Difference of each lane.
    unsafe fn minus(self, other: Self) -> Self;
    /// `self + *value · weights`.
    unsafe fn add_scaled(self, value: *const f32, weights: Self) -> Self;
    /// `self + values · weights`, lane by lane.
    unsafe fn add_product(self, values: Self, weights: Self) -> Self;
    /// Sum over the lanes, in an order that depends on nothing.
    unsafe fn total(self) -> f32;
    /// Brings the cache line at `at` nearer, where there is an instruction for it.
    unsafe fn prefetch(_at: *const f32) {}
    /// Larger of each lane and zero; NaN stays NaN.
    unsafe fn relu(self) -> Self;
}

/// Plain arrays, for the compiler to vectorise.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<const N: usize>([f32; N]);

/// A fused multiply-add is one instruction on aarch64, and a slow library call on bare x86-64.
#[inline(always)]
fn multiply_add(value: f32, weight: f32, sum: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { value.mul_add(weight, sum) } else { sum + value * weight }
}

/// A whole panel as a plain array.
pub(crate) type Portable = Lanes<LANES>;

impl<const N: usize> Panel for Lanes<N> {
    const WIDTH: usize = N;
    const PIXELS: usize = 2;
    type Half = Lanes<8>;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; N])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { from.cast::<[f32; N]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; N]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn plus(mut self, other: Self) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane += other;
        }
        self
    }

    #[inline(always)]
    unsafe fn minus(mut self, other: Self) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane -= other;
        }
        self
    }

    #[inline(always)]
    unsafe fn add_scaled(mut self, value: *const f32, weights: Self) -> Self {
        let value = unsafe { *value };
        for (lane, weight) in self.0.iter_mut().zip(weights.0) {
            *lane = multiply_add(value, weight, *lane);
        }
        self
    }

    #[inline(always)]
    unsafe fn add_product(mut self, values: Self, weights: Self) -> Self {
        for (lane, (value, weight)) in self.0.iter_mut().zip(values.0.into_iter().zip(weights.0)) {
            *lane = multiply_add(value, weight, *lane);
        }
        self
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        self.0.chunks_exact(4).map(|lanes| (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])).sum()
    }

    #[inline(always)]
    unsafe fn relu(mut self) -> Self {
        for lane in &mut self.0 {
            *lane = if *lane < 0.0 { 0.0 } else { *lane };
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Panel;

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    impl Panel for Avx2 {
        const WIDTH: usize = 16;
        // 12 accumulators, 2 weights, 1 broadcast value of 16 registers.
        const PIXELS: usize = 6;
        type Half = Avx2Half;

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm256_setzero_ps(), _mm256_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }

        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn minus(self, other: Self) -> Self {
            unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn add_scaled(self, value: *const f32, weights: Self) -> Self {
            unsafe {
                let value = _mm256_broadcast_ss(&*value);
                Self(_mm256_fmadd_ps(value, weights.0, self.0), _mm256_fmadd_ps(value, weights.1, self.1))
            }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }

        #[inline(always)]
        unsafe fn add_product(self, values: Self, weights: Self) -> Self {
            unsafe {
                Self(
                    _mm256_fmadd_ps(values.0, weights.0, self.0),
                    _mm256_fmadd_ps(values.1, weights.1, self.1),
                )
            }
        }

        #[inline(always)]
        unsafe fn total(self) -> f32 {
            unsafe { Avx2Half(_mm256_add_ps(self.0, self.1)).total() }
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            unsafe {
                let zero = _mm256_setzero_ps();
                Self(_mm256_max_ps(zero, self.0), _mm256_max_ps(zero, self.1))
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2Half(__m256);

    impl Panel for Avx2Half {
        const WIDTH: usize = 8;
        // 12 accumulators, 1 weight, 1 broadcast value of 16 registers.
        const PIXELS: usize = 12;
        type Half = Self;

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm256_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(from)) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn minus(self, other: Self) -> Self {
            unsafe { Self(_mm256_sub_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn add_scaled(self, value: *const f32, weights: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(_mm256_broadcast_ss(&*value), weights.0, self.0)) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }

        #[inline(always)]
        unsafe fn add_product(self, values: Self, weights: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(values.0, weights.0, self.0)) }
        }

        #[inline(always)]
        unsafe fn total(self) -> f32 {
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            unsafe { Self(_mm256_max_ps(_mm256_setzero_ps(), self.0)) }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    impl Panel for Avx512 {
        const WIDTH: usize = 16;
        // 14 accumulators hide the latency of two fused multiply-add units.
        const PIXELS: usize = 14;
        // 512-bit units run 256-bit instructions too.
        type Half = Avx2Half;

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm512_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm512_loadu_ps(from)) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn minus(self, other: Self) -> Self {
            unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn add_scaled(self, value: *const f32, weights: Self) -> Self {
            unsafe { Self(_mm512_fmadd_ps(_mm512_set1_ps(*value), weights.0, self.0)) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }

        #[inline(always)]
        unsafe fn add_product(self, values: Self, weights: Self) -> Self {
            unsafe { Self(_mm512_fmadd_ps(values.0, weights.0, self.0)) }
        }

        #[inline(always)]
        unsafe fn total(self) -> f32 {
            unsafe { _mm512_reduce_add_ps(self.0) }
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            unsafe { Self(_mm512_max_ps(_mm512_setzero_ps(), self.0)) }
        }
    }
}

/// Compiles a generic kernel for every instruction set and picks one at run time.
///
/// `fn name(isa, args…) = kernel;` with `kernel` generic over [`Panel`] and `#[inline(always)]`.
macro_rules! simd {
    ($(#[$doc:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $kernel:ident;) => {
        $(#[$doc])*
        $visibility fn $name(isa: $crate::cpu::simd::Isa, $($argument: $type),*) {
            use $crate::cpu::simd::Isa;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) {
                $kernel::<$crate::cpu::simd::Avx2>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512($($argument: $type),*) {
                $kernel::<$crate::cpu::simd::Avx512>($($argument),*)
            }
            match isa {
                // SAFETY: an `Isa` other than `Portable` is made only where the processor has these features.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512($($argument),*) },
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2($($argument),*) },
                Isa::Portable => $kernel::<$crate::cpu::simd::Portable>($($argument),*),
            }
        }
    };
}
pub(crate) use simd;
