//! Two streams of records, read from front to back.

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

use crate::simd::Neon;

/// Two slices of one length, walked together, record by record and in each record from front to back: so that every load
/// moves its pointer along and none needs an address of its own. What is left of the two records is known to the compiler,
/// so the checks cost nothing.
pub(crate) struct Walk<'a, W, X> {
    w: *const u8,
    x: *const u8,
    w_left: usize,
    x_left: usize,
    records: usize,
    borrow: PhantomData<&'a (W, X)>,
}

/// A method of [`Walk`] that loads 64 bytes with one instruction, which wants four registers in a row: they are named, and a
/// kernel takes from different methods what is to live at the same time.
macro_rules! load_four {
    ($(#[$doc:meta])* $name:ident($from:ident, $left:ident), $list:literal, $a:tt, $b:tt, $c:tt, $d:tt) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(&mut self) -> [int8x16_t; 4] {
            assert!(self.$left >= 64);
            self.$left -= 64;
            let (a, b, c, d);
            // SAFETY: the record has 64 more bytes, as just checked; a Walk is made from a token that proves NEON.
            unsafe {
                asm!(
                    concat!("ld1 {{", $list, "}}, [{from}], #64"),
                    from = inout(reg) self.$from,
                    out($a) a,
                    out($b) b,
                    out($c) c,
                    out($d) d,
                    options(readonly, nostack, preserves_flags),
                );
            }
            [a, b, c, d]
        }
    };
}

impl<'a, W: Copy, X: Copy> Walk<'a, W, X> {
    /// Goes to the next record of both; false after the last.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> bool {
        assert!(
            self.w_left == 0 && self.x_left == 0,
            "a record is walked to its end"
        );
        if self.records == 0 {
            return false;
        }
        self.records -= 1;
        (self.w_left, self.x_left) = (size_of::<W>(), size_of::<X>());
        true
    }

    load_four!(
        /// 64 bytes of the first record.
        w_four_a(w, w_left), "v0.16b, v1.16b, v2.16b, v3.16b", "v0", "v1", "v2", "v3"
    );
    load_four!(
        /// 64 bytes of the first record.
        w_four_b(w, w_left), "v4.16b, v5.16b, v6.16b, v7.16b", "v4", "v5", "v6", "v7"
    );
    load_four!(
        /// 64 bytes of the second record.
        x_four_a(x, x_left), "v16.16b, v17.16b, v18.16b, v19.16b", "v16", "v17", "v18", "v19"
    );
    load_four!(
        /// 64 bytes of the second record.
        x_four_b(x, x_left), "v20.16b, v21.16b, v22.16b, v23.16b", "v20", "v21", "v22", "v23"
    );

    /// 16 floats of the first record.
    #[inline(always)]
    pub(crate) fn w_four_floats(&mut self) -> [float32x4_t; 4] {
        // SAFETY: a Walk is made from a token that proves NEON; registers only.
        let floats = |bytes| unsafe { vreinterpretq_f32_s8(bytes) };
        self.w_four_a().map(floats)
    }

    /// 8 floats of the first record.
    #[inline(always)]
    pub(crate) fn w_floats(&mut self) -> [float32x4_t; 2] {
        assert!(self.w_left >= 32);
        self.w_left -= 32;
        let (a, b);
        // SAFETY: the record has 32 more bytes, as just checked; a Walk is made from a token that proves NEON.
        unsafe {
            asm!(
                "ldp {a:q}, {b:q}, [{from}], #32",
                from = inout(reg) self.w,
                a = out(vreg) a,
                b = out(vreg) b,
                options(readonly, nostack, preserves_flags),
            );
        }
        [a, b]
    }

    /// 8 floats of the second record.
    #[inline(always)]
    pub(crate) fn x_floats(&mut self) -> [float32x4_t; 2] {
        assert!(self.x_left >= 32);
        self.x_left -= 32;
        let (a, b);
        // SAFETY: the record has 32 more bytes, as just checked; a Walk is made from a token that proves NEON.
        unsafe {
            asm!(
                "ldp {a:q}, {b:q}, [{from}], #32",
                from = inout(reg) self.x,
                a = out(vreg) a,
                b = out(vreg) b,
                options(readonly, nostack, preserves_flags),
            );
        }
        [a, b]
    }

    /// 4 floats of the second record, after which 16 bytes are passed over.
    #[inline(always)]
    pub(crate) fn x_floats_and_skip(&mut self) -> float32x4_t {
        assert!(self.x_left >= 32);
        self.x_left -= 32;
        let a;
        // SAFETY: the record has 32 more bytes, as just checked; a Walk is made from a token that proves NEON.
        unsafe {
            asm!(
                "ldr {a:q}, [{from}], #32",
                from = inout(reg) self.x,
                a = out(vreg) a,
                options(readonly, nostack, preserves_flags),
            );
        }
        a
    }
}

impl Neon {
    /// Walks two slices of one length.
    #[inline(always)]
    pub(crate) fn walk<'a, W: Copy, X: Copy>(self, w: &'a [W], x: &'a [X]) -> Walk<'a, W, X> {
        assert_eq!(w.len(), x.len());
        Walk {
            w: w.as_ptr().cast(),
            x: x.as_ptr().cast(),
            w_left: 0,
            x_left: 0,
            records: w.len(),
            borrow: PhantomData,
        }
    }
}
