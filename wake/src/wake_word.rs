//! One wake word in one stream.

use std::collections::VecDeque;
use std::path::Path;

use crate::frontend::Features;
use crate::manifest::{Manifest, WakeError};
use crate::network::Network;

/// Frames after a wake word in which it is not heard again: 1 s, longer than its end.
const REST_FRAMES: u32 = 100;

/// What a model thinks of the frames so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heard {
    /// Mean of the last probabilities, 0 to 1; 0 until there are as many as are averaged.
    pub score: f64,
    /// The wake word has just been said.
    pub woken: bool,
}

/// A model that listens.
#[derive(Clone, Debug)]
pub struct WakeWord {
    phrase: String,
    cutoff: f64,
    window: usize,
    network: Network,
    /// Frames for the next run.
    frames: Vec<Features>,
    /// The last probabilities, in 256ths.
    probabilities: VecDeque<u8>,
    /// Frames until it is heard again.
    rest: u32,
}

impl WakeWord {
    /// Reads a model and the JSON file that names it. `sensitivity` 0 is what the file says; from there to 1 fainter and sloppier
    /// speech counts, too, and to -1 only clearer speech.
    ///
    /// # Errors
    /// A file cannot be read, or is no such model.
    pub fn load(path: &Path, sensitivity: f64) -> Result<WakeWord, WakeError> {
        let (manifest, network) = Manifest::load(path)?;
        Ok(WakeWord::new(&manifest, network, sensitivity))
    }

    /// A wake word of its parts; `sensitivity` as in [`WakeWord::load`].
    pub fn new(manifest: &Manifest, network: Network, sensitivity: f64) -> WakeWord {
        let window = manifest.micro.sliding_window_size;
        WakeWord {
            phrase: manifest.wake_word.clone(),
            cutoff: cutoff(manifest.micro.probability_cutoff, sensitivity),
            window,
            frames: Vec::with_capacity(network.frames()),
            network,
            probabilities: VecDeque::with_capacity(window),
            rest: 0,
        }
    }

    /// What is said.
    pub fn phrase(&self) -> &str {
        &self.phrase
    }

    /// The score above which it was said.
    pub fn cutoff(&self) -> f64 {
        self.cutoff
    }

    /// Hears a frame; what comes of it, where it completes those that the model hears at once.
    pub fn push(&mut self, frame: &Features) -> Option<Heard> {
        self.rest = self.rest.saturating_sub(1);
        self.frames.push(*frame);
        if self.frames.len() < self.network.frames() {
            return None;
        }
        if self.probabilities.len() == self.window {
            self.probabilities.pop_front();
        }
        self.probabilities.push_back(self.network.run(&self.frames));
        self.frames.clear();
        let score = if self.probabilities.len() < self.window {
            0.0
        } else {
            let sum: u32 = self.probabilities.iter().map(|x| u32::from(*x)).sum();
            f64::from(sum) / (256.0 * self.window as f64)
        };
        let woken = self.rest == 0 && score > self.cutoff;
        if woken {
            self.rest = REST_FRAMES;
        }
        Some(Heard { score, woken })
    }

    /// The stream breaks off; what comes next is another.
    pub fn reset(&mut self) {
        self.network.reset();
        self.frames.clear();
        self.probabilities.clear();
        self.rest = 0;
    }
}

/// The cut-off at a sensitivity: its odds become up to 7 times smaller or larger.
fn cutoff(file: f64, sensitivity: f64) -> f64 {
    if sensitivity == 0.0 {
        return file; // to the last bit: scores lie on a grid, and one of them may be just this
    }
    let odds = file / (1.0 - file) * libm::exp(-2.0 * sensitivity);
    odds / (1.0 + odds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensitivity_moves_the_cut_off() {
        assert!((cutoff(0.85, 0.0) - 0.85).abs() < 1e-12);
        // Home Assistant's own box has 0.85, 0.69 and 0.56 for this word, and 0.97, 0.92 and 0.83 for the other.
        assert!((cutoff(0.85, 0.5) - 0.68).abs() < 0.01);
        assert!((cutoff(0.97, 0.5) - 0.92).abs() < 0.01);
        assert!(cutoff(0.97, 1.0) > 0.8 && cutoff(0.97, -1.0) < 1.0);
    }
}
