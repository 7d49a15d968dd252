//! From a spectrum to mel bands.

use super::fft::Complex;
use super::{BANDS, FFT_SAMPLES, SAMPLE_RATE_HZ};

/// Bits behind the point of a weight.
pub(super) const BITS: u32 = 12;

const LOWEST_HZ: f32 = 125.0;
const HIGHEST_HZ: f32 = 7500.0;
const HZ_PER_BIN: f32 = SAMPLE_RATE_HZ as f32 / FFT_SAMPLES as f32;

fn mel(hz: f32) -> f32 {
    1127.0 * libm::log1pf(hz / 700.0)
}

/// Triangles of one height, each from the middle of the band before to that of the band behind.
pub(super) struct Filterbank {
    /// The first bin that counts.
    start: usize,
    /// What of each bin belongs to the band whose middle is above it, and what to the one below.
    weights: Vec<(u16, u16)>,
    /// Bins between the middles of one band and the next; the first are those below the first middle.
    widths: [usize; BANDS + 1],
}

impl Filterbank {
    pub(super) fn new() -> Filterbank {
        let (low, high) = (mel(LOWEST_HZ), mel(HIGHEST_HZ));
        let spacing = (high - low) / (BANDS + 1) as f32;
        let start = (1.5 + LOWEST_HZ / HZ_PER_BIN) as usize;
        let fixed = |x: f32| libm::floorf(x * (1 << BITS) as f32 + 0.5) as u16;
        let mut weights = Vec::new();
        let mut below = low;
        let widths = core::array::from_fn(|band| {
            let middle = low + spacing * (band + 1) as f32;
            let before = weights.len();
            loop {
                let here = mel((start + weights.len()) as f32 * HZ_PER_BIN);
                if here > middle {
                    break;
                }
                let weight = (middle - here) / (middle - below);
                weights.push((fixed(weight), fixed(1.0 - weight)));
            }
            below = middle;
            weights.len() - before
        });
        Filterbank {
            start,
            weights,
            widths,
        }
    }

    /// Loudness of each band: the square root of its energy, `shift` bits less.
    pub(super) fn apply(&self, spectrum: &[Complex], shift: u32) -> [u32; BANDS] {
        let mut bins = spectrum[self.start..].iter().zip(&self.weights);
        let mut bands = [0; BANDS];
        // What of the bins so far belongs to the next band.
        let mut carried = 0_u64;
        for (band, &width) in self.widths.iter().enumerate() {
            let mut sum = carried;
            carried = 0;
            for (bin, &(weight, rest)) in bins.by_ref().take(width) {
                let (re, im) = (i32::from(bin.re), i32::from(bin.im));
                // The loudest possible bin is one more than 31 bits hold, and counts as negative in the reference.
                let energy = i64::from((re * re).wrapping_add(im * im)) as u64;
                sum = sum.wrapping_add(energy.wrapping_mul(u64::from(weight)));
                carried = carried.wrapping_add(energy.wrapping_mul(u64::from(rest)));
            }
            // What lies below the first middle belongs to no band.
            if let Some(band) = band.checked_sub(1) {
                bands[band] = root(sum) >> shift;
            }
        }
        bands
    }
}

/// The square root, rounded, but for the largest of 32 and of 64 bits, which are rounded down.
fn root(x: u64) -> u32 {
    let floor = x.isqrt();
    let largest = if x >> 32 == 0 {
        u64::from(u16::MAX)
    } else {
        u64::from(u32::MAX)
    };
    let up = x - floor * floor > floor && floor != largest;
    (floor + u64::from(up)) as u32
}
