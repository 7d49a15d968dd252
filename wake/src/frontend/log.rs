//! The natural logarithm in integers.

/// Bits behind the point.
const BITS: u32 = 16;
/// The curve between two powers of 2 is so many straight lines.
const LINES: usize = 128;
/// ln 2.
const LN_2: u64 = 45_426;
/// Bits behind the point of what comes out.
const OUTPUT_BITS: u32 = 6;

/// How far log2 of 1 to 2 lies above the straight line between them.
pub(super) struct Log {
    bulge: [i32; LINES + 1],
}

impl Log {
    pub(super) fn new() -> Log {
        let bulge = |i: usize| {
            let x = i as f64 / LINES as f64;
            libm::round((libm::log2(1.0 + x) - x) * f64::from(1 << BITS)) as i32
        };
        Log {
            bulge: core::array::from_fn(bulge),
        }
    }

    /// The logarithm of `x`, 6 bits behind the point; 0 for 0.
    pub(super) fn of(&self, x: u32) -> u16 {
        if x <= 1 {
            return 0;
        }
        let integer = 31 - x.leading_zeros();
        let rest = u64::from(x) - (1 << integer);
        let fraction = ((rest << BITS) >> integer) as i32;
        let line = fraction as usize >> 9;
        let (start, end) = (self.bulge[line], self.bulge[line + 1]);
        let along = ((end - start) * (fraction - (line << 9) as i32)) >> BITS;
        let log2 = (integer << BITS) + (fraction + start + along) as u32;
        let half = 1_u64 << (BITS - 1);
        let log = (LN_2 * u64::from(log2) + half) >> BITS;
        (((log << OUTPUT_BITS) + half) >> BITS) as u16
    }
}
