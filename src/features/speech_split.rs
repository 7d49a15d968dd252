//! Cuts audio that is longer than the model can hear at once, at pauses.

use crate::media::{LONGEST_CLIP_S, SAMPLE_RATE_HZ};

/// Samples that the model hears at once.
pub const MAX_PIECE_SAMPLES: usize = (LONGEST_CLIP_S * SAMPLE_RATE_HZ) as usize;

/// Loudness is measured in steps of 10 ms.
const STEP_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 100;
/// A pause between words is longer than the closure of a plosive: 300 ms.
const PAUSE_STEPS: usize = 30;

/// Splits a stream of 16 kHz samples into pieces of at most 30 s, in order and without loss: the pieces joined are the
/// stream.
///
/// A piece ends in the middle of the quietest 300 ms of its second half; of equally quiet places, at the latest. So
/// every piece but the last is 15 to 30 s long, and no decision needs more than 30 s of future.
#[derive(Default)]
pub struct SpeechSplitter {
    pending: Vec<f32>,
}

impl SpeechSplitter {
    /// A splitter at the start of a stream.
    pub fn new() -> SpeechSplitter {
        SpeechSplitter::default()
    }

    /// Takes `samples` and returns the pieces that are now known to be whole.
    pub fn push(&mut self, samples: &[f32]) -> Vec<Vec<f32>> {
        self.pending.extend_from_slice(samples);
        let mut pieces = Vec::new();
        while self.pending.len() > MAX_PIECE_SAMPLES {
            let cut = quietest_place(&self.pending[..MAX_PIECE_SAMPLES]);
            let rest = self.pending.split_off(cut);
            pieces.push(std::mem::replace(&mut self.pending, rest));
        }
        pieces
    }

    /// What has come since the last piece.
    pub fn pending(&self) -> &[f32] {
        &self.pending
    }

    /// Ends the stream and returns the last piece, if anything is left.
    pub fn finish(self) -> Option<Vec<f32>> {
        (!self.pending.is_empty()).then_some(self.pending)
    }
}

/// The sample in the second half of `samples` where cutting hurts least.
fn quietest_place(samples: &[f32]) -> usize {
    let energy: Vec<f64> = samples
        .chunks_exact(STEP_SAMPLES)
        .map(|step| step.iter().map(|&x| f64::from(x) * f64::from(x)).sum())
        .collect();
    let first = (energy.len() / 2).saturating_sub(PAUSE_STEPS / 2);
    let best = energy[first..]
        .windows(PAUSE_STEPS)
        .map(|pause| pause.iter().sum::<f64>())
        .enumerate()
        .rev()
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let step = best.map_or(energy.len(), |(i, _)| first + i + PAUSE_STEPS / 2);
    (step * STEP_SAMPLES).clamp(1, samples.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise with pauses of silence at the given seconds, half a second each.
    fn speech(seconds: usize, pauses_s: &[usize]) -> Vec<f32> {
        let rate = SAMPLE_RATE_HZ as usize;
        let mut state = 1u32;
        let mut samples: Vec<f32> = (0..seconds * rate)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect();
        for s in pauses_s {
            samples[s * rate..s * rate + rate / 2].fill(0.0);
        }
        samples
    }

    fn split(samples: &[f32], chunk: usize) -> Vec<Vec<f32>> {
        let mut splitter = SpeechSplitter::new();
        let mut pieces: Vec<Vec<f32>> = samples
            .chunks(chunk)
            .flat_map(|chunk| splitter.push(chunk))
            .collect();
        pieces.extend(splitter.finish());
        pieces
    }

    #[test]
    fn cuts_inside_pauses_and_drops_nothing() {
        let samples = speech(100, &[20, 26, 50, 77]);
        let pieces = split(&samples, 1777);
        assert_eq!(pieces.concat(), samples);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_PIECE_SAMPLES));
        let mut end = 0.0;
        for (piece, pause_s) in pieces.iter().zip([26.0, 50.0, 77.0]) {
            end += piece.len() as f64 / f64::from(SAMPLE_RATE_HZ);
            assert!(
                end > pause_s && end < pause_s + 0.5,
                "cut at {end} s, expected within the pause at {pause_s} s"
            );
        }
    }

    #[test]
    fn how_the_stream_is_pushed_does_not_matter() {
        let samples = speech(70, &[25, 50]);
        assert_eq!(split(&samples, 160), split(&samples, samples.len()));
    }

    #[test]
    fn noise_without_pauses_is_cut_all_the_same() {
        let samples = speech(95, &[]);
        let pieces = split(&samples, 16_000);
        assert_eq!(pieces.concat(), samples);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_PIECE_SAMPLES));
    }

    #[test]
    fn thirty_seconds_stay_whole() {
        let samples = speech(30, &[20]);
        assert_eq!(split(&samples, 4096), vec![samples]);
        assert!(split(&[], 1).is_empty());
    }
}
