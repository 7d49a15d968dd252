//! Any rate to the model's 16 kHz, any number of channels to one.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _};

/// Lowest rate that is taken for audio, in Hz.
pub const MIN_SAMPLE_RATE_HZ: u32 = 4_000;
/// Highest rate that is taken for audio, in Hz; it bounds the resampler's buffers (about 20 MB for the worst ratio).
pub const MAX_SAMPLE_RATE_HZ: u32 = 384_000;

/// Blocks a second that the resampler gives: each of 40 ms, the length of one encoder frame.
/// Shorter blocks would cost bandwidth, longer ones delay the stream.
const BLOCKS_A_SECOND: usize = 25;

/// Why a stream cannot be resampled.
#[derive(Debug, thiserror::Error)]
pub enum ResampleError {
    /// The rate is not one of audio.
    #[error(
        "cannot resample from {from_hz} Hz: expected {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz; convert the audio to 16000 Hz first"
    )]
    Rate {
        /// The rate that was given.
        from_hz: u32,
    },
    /// The resampler refused its input.
    #[error("resampling from {from_hz} Hz failed: {reason}")]
    Failed {
        /// The rate of the input.
        from_hz: u32,
        /// What the resampler said.
        reason: String,
    },
}

/// Band-limited resampling of a mono stream, in time with its input: `out[j]` is the signal at `j / to_hz` seconds.
///
/// Source: `rubato`'s synchronous FFT resampler (Blackman-Harris filter).
pub struct Resampler {
    from_hz: u32,
    to_hz: u32,
    /// None when the rates agree and samples pass through untouched.
    fft: Option<Fft<f32>>,
    pending: Vec<f32>,
    block: Vec<f32>,
    /// Output samples to leave out still: the filter's delay.
    delay: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// A resampler from `from_hz` to `to_hz`.
    ///
    /// # Errors
    /// If either rate is outside [`MIN_SAMPLE_RATE_HZ`] to [`MAX_SAMPLE_RATE_HZ`].
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Resampler, ResampleError> {
        for hz in [from_hz, to_hz] {
            if !(MIN_SAMPLE_RATE_HZ..=MAX_SAMPLE_RATE_HZ).contains(&hz) {
                return Err(ResampleError::Rate { from_hz: hz });
            }
        }
        let fft = if from_hz == to_hz {
            None
        } else {
            let fft = Fft::<f32>::new(
                from_hz as usize,
                to_hz as usize,
                chunk_samples(from_hz, to_hz),
                1,
                FixedSync::Both,
            );
            Some(fft.map_err(|e| ResampleError::Failed {
                from_hz,
                reason: e.to_string(),
            })?)
        };
        Ok(Resampler {
            from_hz,
            to_hz,
            delay: fft.as_ref().map_or(0, |fft| fft.output_delay()),
            block: vec![0.0; fft.as_ref().map_or(0, |fft| fft.output_frames_max())],
            fft,
            pending: Vec::new(),
            taken: 0,
            given: 0,
        })
    }

    /// Takes `samples` and appends what has become final to `out`.
    ///
    /// # Errors
    /// If the resampler refuses its input.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<(), ResampleError> {
        self.taken += samples.len() as u64;
        let samples = samples.iter().map(|&sample| bounded(sample));
        let Some(fft) = &self.fft else {
            out.extend(samples);
            return Ok(());
        };
        self.pending.extend(samples);
        let chunk = fft.input_frames_next();
        let whole = self.pending.len() / chunk * chunk;
        for start in (0..whole).step_by(chunk) {
            self.resample_chunk(start, chunk, u64::MAX, out)?;
        }
        self.pending.drain(..whole);
        Ok(())
    }

    /// Ends the stream: appends the rest to `out`, `ceil(taken * to_hz / from_hz)` samples being given in all.
    ///
    /// # Errors
    /// If the resampler refuses its input.
    pub fn finish(mut self, out: &mut Vec<f32>) -> Result<(), ResampleError> {
        if self.fft.is_none() {
            return Ok(());
        }
        let due = (self.taken * u64::from(self.to_hz)).div_ceil(u64::from(self.from_hz));
        let mut len = self.pending.len();
        while self.given < due {
            self.resample_chunk(0, len, due, out)?;
            len = 0;
        }
        Ok(())
    }

    /// Resamples one chunk, of which `len` samples are real and the rest silence, giving no more than `due` in all.
    fn resample_chunk(
        &mut self,
        start: usize,
        len: usize,
        due: u64,
        out: &mut Vec<f32>,
    ) -> Result<(), ResampleError> {
        let Some(fft) = &mut self.fft else {
            return Ok(());
        };
        let failed = |reason: String| ResampleError::Failed {
            from_hz: self.from_hz,
            reason,
        };
        let input = InterleavedSlice::new(&self.pending[start..start + len], 1, len)
            .map_err(|e| failed(e.to_string()))?;
        let frames = self.block.len();
        let mut output = InterleavedSlice::new_mut(&mut self.block, 1, frames)
            .map_err(|e| failed(e.to_string()))?;
        let (_, written) = fft
            .process_into_buffer(&input, &mut output, Some(&Indexing::new().partial_len(len)))
            .map_err(|e| failed(e.to_string()))?;
        let skipped = self.delay.min(written);
        self.delay -= skipped;
        let kept = (written - skipped).min(usize::try_from(due - self.given).unwrap_or(usize::MAX));
        out.extend_from_slice(&self.block[skipped..skipped + kept]);
        self.given += kept as u64;
        Ok(())
    }
}

/// Files of floats may hold anything, and the transform panics where a sum is no number. No sound is a thousand times full scale.
fn bounded(sample: f32) -> f32 {
    match sample.is_nan() {
        true => 0.0,
        false => sample.clamp(-1000.0, 1000.0),
    }
}

/// Input samples that make a whole number of output samples, of about a [`BLOCKS_A_SECOND`]th of a second, both numbers being even:
/// the filter is centred on a sample only then, and its delay is a whole number of samples.
fn chunk_samples(from_hz: u32, to_hz: u32) -> usize {
    let (mut gcd, mut rest) = (from_hz, to_hz);
    while rest > 0 {
        (gcd, rest) = (rest, gcd % rest);
    }
    let smallest = 2 * (from_hz / gcd) as usize;
    (from_hz as usize / BLOCKS_A_SECOND).next_multiple_of(smallest)
}

/// Appends the mean of the channels of each frame of `interleaved` to `mono`.
///
/// # Panics
/// If `channels` is 0.
pub fn downmix(interleaved: &[f32], channels: usize, mono: &mut Vec<f32>) {
    assert!(channels > 0, "audio has at least one channel");
    if channels == 1 {
        mono.extend_from_slice(interleaved);
    } else {
        let scale = 1.0 / channels as f32;
        mono.extend(
            interleaved
                .chunks_exact(channels)
                .map(|frame| frame.iter().sum::<f32>() * scale),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzz target `audio`.
    #[test]
    fn samples_that_are_no_sound_end_nothing() {
        for wild in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            for from_hz in [15_980, 16_000, 48_000] {
                let mut resampler = Resampler::new(from_hz, 16_000).unwrap();
                let mut out = Vec::new();
                resampler.push(&vec![wild; 48_000], &mut out).unwrap();
                assert!(!out.is_empty() && out.iter().all(|x| x.is_finite()));
            }
        }
    }
}
