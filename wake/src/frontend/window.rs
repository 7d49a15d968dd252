//! A window of 30 ms, moved on by 10 ms.

use super::{STEP_SAMPLES, WINDOW_SAMPLES};

/// Bits behind the point of a coefficient.
const BITS: u32 = 12;

/// What was heard last, and the window over it.
pub(super) struct Window {
    /// A raised cosine.
    coefficients: [i16; WINDOW_SAMPLES],
    heard: [i16; WINDOW_SAMPLES],
    used: usize,
}

impl Window {
    pub(super) fn new() -> Window {
        let arg = core::f32::consts::PI * 2.0 / WINDOW_SAMPLES as f32;
        let coefficient = |i: usize| {
            let value = 0.5 - 0.5 * libm::cosf(arg * (i as f32 + 0.5));
            libm::floorf(value * (1 << BITS) as f32 + 0.5) as i16
        };
        Window {
            coefficients: core::array::from_fn(coefficient),
            heard: [0; WINDOW_SAMPLES],
            used: 0,
        }
    }

    /// Takes samples up to a full window and leaves the rest; with a full one it gives what is seen through it.
    pub(super) fn push(&mut self, samples: &mut &[i16]) -> Option<[i16; WINDOW_SAMPLES]> {
        let room = (WINDOW_SAMPLES - self.used).min(samples.len());
        let (now, rest) = samples.split_at(room);
        self.heard[self.used..self.used + room].copy_from_slice(now);
        self.used += room;
        *samples = rest;
        if self.used < WINDOW_SAMPLES {
            return None;
        }
        let seen = core::array::from_fn(|i| {
            ((i32::from(self.heard[i]) * i32::from(self.coefficients[i])) >> BITS) as i16
        });
        self.heard.copy_within(STEP_SAMPLES.., 0);
        self.used -= STEP_SAMPLES;
        Some(seen)
    }

    pub(super) fn reset(&mut self) {
        self.used = 0;
    }
}
