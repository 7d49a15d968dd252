//! How loud it is.

use std::collections::VecDeque;

use crate::media::SAMPLE_RATE_HZ;

/// Samples that a level of a meter is made of at least: a fifth of a second.
const METERED_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 5;

/// Level (RMS) of samples, dB full scale; minus infinity for digital silence.
pub(super) fn rms_dbfs(samples: &[f32]) -> f32 {
    let energy: f32 = samples.iter().map(|x| x * x).sum();
    10.0 * (energy / samples.len().max(1) as f32).log10()
}

/// Levels of a stream, five a second.
#[derive(Default)]
pub(super) struct Meter {
    heard: Vec<f32>,
}

impl Meter {
    /// Takes samples; a level where there are enough.
    pub(super) fn push(&mut self, samples: &[f32]) -> Option<f32> {
        self.heard.extend_from_slice(samples);
        let enough = self.heard.len() >= METERED_SAMPLES;
        enough.then(|| rms_dbfs(&std::mem::take(&mut self.heard)))
    }

    /// Forgets what is no level yet.
    pub(super) fn forget(&mut self) {
        self.heard.clear();
    }
}

/// How loud the last second was.
#[derive(Default)]
pub(super) struct Loudness {
    /// Energy and length of each stretch that was pushed, the newest at the back.
    stretches: VecDeque<(f32, usize)>,
}

impl Loudness {
    /// Takes samples; what is older than a second is forgotten.
    pub(super) fn push(&mut self, samples: &[f32]) {
        let energy = samples.iter().map(|x| x * x).sum();
        self.stretches.push_back((energy, samples.len()));
        let length = |stretches: &VecDeque<(f32, usize)>| -> usize {
            stretches.iter().map(|(_, length)| length).sum()
        };
        while length(&self.stretches) > SAMPLE_RATE_HZ as usize {
            self.stretches.pop_front();
        }
    }

    /// Level (RMS), dB full scale; minus infinity for digital silence.
    pub(super) fn dbfs(&self) -> f32 {
        let energy: f32 = self.stretches.iter().map(|(energy, _)| energy).sum();
        let length: usize = self.stretches.iter().map(|(_, length)| length).sum();
        10.0 * (energy / length.max(1) as f32).log10()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_scale_is_none_below_it_and_silence_is_without_end() {
        assert_eq!(rms_dbfs(&[1.0, -1.0]), 0.0);
        assert!((rms_dbfs(&[0.1; 50]) + 20.0).abs() < 1e-4);
        assert_eq!(rms_dbfs(&[0.0; 50]), f32::NEG_INFINITY);
    }

    #[test]
    fn what_is_older_than_a_second_is_not_loud() {
        let mut loudness = Loudness::default();
        assert_eq!(loudness.dbfs(), f32::NEG_INFINITY);
        loudness.push(&[1.0; 320]);
        assert_eq!(loudness.dbfs(), 0.0);
        for _ in 0..50 {
            loudness.push(&[0.1; 320]);
        }
        assert!((loudness.dbfs() + 20.0).abs() < 1e-3);
    }

    #[test]
    fn a_level_is_made_of_what_came_since_the_last() {
        let mut meter = Meter::default();
        assert_eq!(meter.push(&[1.0; 3000]), None);
        meter.forget();
        assert_eq!(meter.push(&[0.1; 3000]), None);
        assert!((meter.push(&[0.1; 200]).unwrap() + 20.0).abs() < 1e-3);
        assert_eq!(meter.push(&[1.0; 3200]), Some(0.0));
    }
}
