//! The stored formats that widen to 32-bit floats in registers.

use half::{bf16, f16};

use super::{MAX_LANES, Simd};

/// A stored number that a vector register can take in, widened to 32-bit floats.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Exactly the same number as a 32-bit float.
    fn widen(self) -> f32;

    /// The `LANES` elements from `from` on.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load_ptr<S: Simd>(s: S, from: *const Self) -> S::V;

    /// The elements of `C` registers from `from` on.
    ///
    /// # Safety
    /// They must be readable.
    #[inline(always)]
    unsafe fn load_ptrs<S: Simd, const C: usize>(s: S, from: *const Self) -> [S::V; C] {
        let mut out = [s.splat(0.0); C];
        for (c, out) in out.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            *out = unsafe { Self::load_ptr(s, from.add(c * S::LANES)) };
        }
        out
    }

    /// The first `LANES` elements of `from`.
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self]) -> S::V {
        assert!(from.len() >= S::LANES);
        // SAFETY: the slice has LANES elements.
        unsafe { Self::load_ptr(s, from.as_ptr()) }
    }

    /// All of `from`, at most `LANES` elements; the other lanes are 0.
    #[inline(always)]
    fn load_tail<S: Simd>(s: S, from: &[Self]) -> S::V {
        let mut lanes = [0.0; MAX_LANES];
        for (lane, &element) in lanes[..S::LANES].iter_mut().zip(from) {
            *lane = element.widen();
        }
        s.load(&lanes)
    }
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load_ptr<S: Simd>(s: S, from: *const f32) -> S::V {
        // SAFETY: as the caller promises.
        unsafe { s.load_ptr(from) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    unsafe fn load_ptr<S: Simd>(s: S, from: *const bf16) -> S::V {
        // SAFETY: as the caller promises.
        unsafe { s.load_bf16_ptr(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    unsafe fn load_ptr<S: Simd>(s: S, from: *const f16) -> S::V {
        // SAFETY: as the caller promises.
        unsafe { s.load_f16_ptr(from) }
    }
}

impl Element for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }

    #[inline(always)]
    unsafe fn load_ptr<S: Simd>(s: S, from: *const i8) -> S::V {
        // SAFETY: as the caller promises.
        unsafe { s.load_i8_ptr(from) }
    }

    #[inline(always)]
    unsafe fn load_ptrs<S: Simd, const C: usize>(s: S, from: *const i8) -> [S::V; C] {
        let mut out = [s.splat(0.0); C];
        for (c, out) in out.chunks_mut(4).enumerate() {
            // SAFETY: as the caller promises; of less than four each one is loaded alone.
            unsafe {
                let from = from.add(4 * c * S::LANES);
                if let Some(four) = out.as_mut_array() {
                    *four = s.load_i8_ptr_4(from);
                } else {
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = s.load_i8_ptr(from.add(i * S::LANES));
                    }
                }
            }
        }
        out
    }
}
