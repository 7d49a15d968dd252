//! What goes on all the time is subtracted, and what is left is brought to one loudness (PCAN, per-channel automatic gain).

use super::BANDS;
use super::filterbank::BITS as FILTERBANK_BITS;

/// Bits behind the point: of shares, of the noise, of the gain, of the ratio of signal to noise, and of what comes out.
const SHARE_BITS: u32 = 14;
const SMOOTHING_BITS: u32 = 10;
const GAIN_BITS: u32 = 21;
const RATIO_BITS: u32 = 12;
const OUTPUT_BITS: u32 = 6;

/// Bits that the transform and the filter bank have too few.
pub(super) const CORRECTION_BITS: u32 = 9 - FILTERBANK_BITS / 2;

/// Share of a frame in the noise, of bands with an even number and of the others.
const EVEN_SHARE: f32 = 0.025;
const ODD_SHARE: f32 = 0.06;
/// What always remains of a signal.
const LEAST_SHARE: f32 = 0.05;

const STRENGTH: f32 = 0.95;
const OFFSET: f32 = 80.0;

fn share(x: f32) -> u64 {
    (x * (1 << SHARE_BITS) as f32) as u64
}

/// The noise of each band as it is estimated, and the gain that goes with it.
pub(super) struct Noise {
    estimate: [u32; BANDS],
    gain: Gain,
}

impl Noise {
    pub(super) fn new() -> Noise {
        Noise {
            estimate: [0; BANDS],
            gain: Gain::new(),
        }
    }

    pub(super) fn reset(&mut self) {
        self.estimate = [0; BANDS];
    }

    /// Bands without what goes on all the time, as loud as they stand out of it.
    pub(super) fn reduce(&mut self, bands: &mut [u32; BANDS]) {
        for (i, (signal, noise)) in bands.iter_mut().zip(&mut self.estimate).enumerate() {
            let share_now = share(if i % 2 == 0 { EVEN_SHARE } else { ODD_SHARE });
            let scaled = signal.wrapping_shl(SMOOTHING_BITS);
            let before = u64::from(*noise) * ((1 << SHARE_BITS) - share_now);
            *noise = ((u64::from(scaled) * share_now + before) >> SHARE_BITS) as u32;
            let least = ((u64::from(*signal) * share(LEAST_SHARE)) >> SHARE_BITS) as u32;
            let left = (scaled - scaled.min(*noise)) >> SMOOTHING_BITS;
            *signal = shrunk(self.gain.apply(left.max(least), *noise));
        }
    }
}

/// A ratio of signal to noise, small ones squared.
fn shrunk(ratio: u32) -> u32 {
    if ratio < 2 << RATIO_BITS {
        (ratio * ratio) >> (2 + 2 * RATIO_BITS - OUTPUT_BITS)
    } else {
        (ratio >> (RATIO_BITS - OUTPUT_BITS)) - (1 << OUTPUT_BITS)
    }
}

/// The gain for each loudness of noise: a parabola between one power of 2 and the next.
struct Gain {
    /// For noise of 0 and of 1.
    least: [i16; 2],
    /// By number of bits: for noise of 2 to 3, of 4 to 7, and so on.
    parabolas: [[i16; 3]; 31],
}

impl Gain {
    fn new() -> Gain {
        let gain = |noise: u32| {
            let noise = noise as f32 / (1 << (SMOOTHING_BITS - CORRECTION_BITS)) as f32;
            let gain = (1 << GAIN_BITS) as f32 * libm::powf(noise + OFFSET, -STRENGTH);
            (gain.min(f32::from(i16::MAX)) + 0.5) as i16
        };
        let parabola = |i: usize| {
            let start = 1_u32 << (i + 1);
            let end = start.saturating_mul(2);
            let at_start = i32::from(gain(start));
            let halfway = i32::from(gain(start + start / 2)) - at_start;
            let at_end = i32::from(gain(end)) - at_start;
            let slope = 4 * halfway - at_end;
            [at_start as i16, slope as i16, (at_end - slope) as i16]
        };
        Gain {
            least: [gain(0), gain(1)],
            parabolas: core::array::from_fn(parabola),
        }
    }

    fn apply(&self, signal: u32, noise: u32) -> u32 {
        let gain = match noise {
            0 | 1 => self.least[noise as usize],
            _ => {
                let bits = 32 - noise.leading_zeros();
                let [start, slope, bend] = self.parabolas[bits as usize - 2];
                let within = if bits < 11 {
                    noise << (11 - bits)
                } else {
                    noise >> (bits - 11)
                } & 0x3FF;
                let within = within as i32;
                let mut gain = (i32::from(bend) * within) >> 5;
                gain = gain.wrapping_add(i32::from(slope) << 5);
                gain = gain.wrapping_mul(within);
                gain = gain.wrapping_add(1 << 14) >> 15;
                gain.wrapping_add(i32::from(start)) as i16
            }
        };
        let gain = i32::from(gain) as u32;
        let shift = GAIN_BITS - CORRECTION_BITS - RATIO_BITS;
        ((u64::from(signal) * u64::from(gain)) >> shift) as u32
    }
}
