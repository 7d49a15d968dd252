//! What a wake word model hears: 40 mel bands every 10 ms, without lasting noise, of one loudness, as logarithms.
//!
//! It is the audio front end of TensorFlow Lite for microcontrollers as microWakeWord sets it up, in the same integers: the features
//! equal those of `pymicro-features` bit by bit (`tests/reference.rs`).

mod fft;
mod filterbank;
mod log;
mod noise;
mod window;

use fft::Fft;
use filterbank::Filterbank;
use log::Log;
use noise::{CORRECTION_BITS, Noise};
use window::Window;

/// Samples a second that are heard.
pub const SAMPLE_RATE_HZ: u32 = 16_000;
/// Numbers in a frame.
pub const BANDS: usize = 40;
/// Samples from one frame to the next: 10 ms.
pub const STEP_SAMPLES: usize = 160;
/// What a frame's numbers are multiplied by before a model sees them.
pub const SCALE: f64 = 0.039_062_5;

/// Samples that a frame looks at: 30 ms.
const WINDOW_SAMPLES: usize = 480;
/// Samples of the Fourier transform; behind the window there are zeros.
const FFT_SAMPLES: usize = 512;

/// A frame: for each band the logarithm of how far it stands out of the noise, in 64ths.
pub type Features = [u16; BANDS];

/// Makes frames of a stream.
pub struct Frontend {
    window: Window,
    fft: Fft,
    filterbank: Filterbank,
    noise: Noise,
    log: Log,
}

impl Default for Frontend {
    fn default() -> Frontend {
        Frontend {
            window: Window::new(),
            fft: Fft::new(),
            filterbank: Filterbank::new(),
            noise: Noise::new(),
            log: Log::new(),
        }
    }
}

impl Frontend {
    /// Takes samples (16 kHz mono, 16 bits) and gives `frame` each frame that they complete; the first needs 30 ms.
    pub fn push(&mut self, mut samples: &[i16], frame: &mut dyn FnMut(&Features)) {
        while !samples.is_empty() {
            if let Some(seen) = self.window.push(&mut samples) {
                frame(&self.features(&seen));
            }
        }
    }

    /// Takes samples as [`Frontend::push`] does, full scale being -1 to 1.
    pub fn push_floats(&mut self, samples: &[f32], frame: &mut dyn FnMut(&Features)) {
        let mut fixed = [0; STEP_SAMPLES];
        for samples in samples.chunks(STEP_SAMPLES) {
            for (to, x) in fixed.iter_mut().zip(samples) {
                *to = (x * -f32::from(i16::MIN)).round() as i16;
            }
            self.push(&fixed[..samples.len()], frame);
        }
    }

    /// The stream breaks off; what comes next is another.
    pub fn reset(&mut self) {
        self.window.reset();
        self.noise.reset();
    }

    fn features(&mut self, seen: &[i16; WINDOW_SAMPLES]) -> Features {
        // As loud as 16 bits allow, so that the transform loses little.
        let loudest = seen.iter().map(|x| x.wrapping_abs()).max().unwrap_or(0);
        let shift = 15 - (16 - loudest.max(0).leading_zeros());
        let mut samples = [0; FFT_SAMPLES];
        for (to, from) in samples.iter_mut().zip(seen) {
            *to = from << shift;
        }
        let spectrum = self.fft.transform(&samples);
        let mut bands = self.filterbank.apply(&spectrum, shift);
        self.noise.reduce(&mut bands);
        bands.map(|x| self.log.of(x.wrapping_shl(CORRECTION_BITS)))
    }
}
