//! Wake words in a microphone's stream.

use std::path::PathBuf;

use wake::WakeWord;
use wake::frontend::Frontend;
use wake::manifest::WakeError;

/// A wake word that was said.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Woken {
    /// As its model's file has it.
    pub(super) phrase: String,
    /// How sure the model is, 0 to 1.
    pub(super) score: f64,
}

/// Steps of a model that a meter shows as one: a fifth of a second.
const SHOWN_FRAMES: u32 = 20;
/// A change that can be seen.
const SEEN: f64 = 0.02;

/// Listens for several wake words at once, which hear the same features.
pub(super) struct Spotter {
    frontend: Frontend,
    words: Vec<WakeWord>,
    meter: ScoreMeter,
}

/// The most of what came since it was looked at, and what was shown last.
#[derive(Default)]
struct ScoreMeter {
    most: f64,
    frames: u32,
    shown: f64,
}

impl ScoreMeter {
    fn show(&mut self) -> Option<f64> {
        if self.frames < SHOWN_FRAMES {
            return None;
        }
        let most = std::mem::take(&mut self.most);
        self.frames = 0;
        let changed = (most - self.shown).abs() >= SEEN;
        if changed {
            self.shown = most;
        }
        changed.then_some(most)
    }
}

impl Spotter {
    /// Loads the models.
    ///
    /// # Errors
    /// One cannot be read, or is none.
    pub(super) fn load(models: &[PathBuf], sensitivity: f64) -> Result<Spotter, WakeError> {
        let load = |path: &PathBuf| WakeWord::load(path, sensitivity);
        Ok(Spotter {
            frontend: Frontend::default(),
            words: models.iter().map(load).collect::<Result<_, _>>()?,
            meter: ScoreMeter::default(),
        })
    }

    /// Hears samples, 16 kHz mono; of several words that were said in them, the surest.
    pub(super) fn push(&mut self, samples: &[f32]) -> Option<Woken> {
        let mut woken: Option<Woken> = None;
        let (words, meter) = (&mut self.words, &mut self.meter);
        self.frontend.push_floats(samples, &mut |frame| {
            meter.frames += 1;
            for word in &mut *words {
                let Some(heard) = word.push(frame) else {
                    continue;
                };
                meter.most = meter.most.max(heard.score);
                if !heard.woken {
                    continue;
                }
                if woken.as_ref().is_none_or(|other| heard.score > other.score) {
                    woken = Some(Woken {
                        phrase: word.phrase().to_owned(),
                        score: heard.score,
                    });
                }
            }
        });
        woken
    }

    /// How sure the surest word is, each fifth of a second in which that has changed.
    pub(super) fn score(&mut self) -> Option<f64> {
        self.meter.show()
    }

    /// The stream breaks off; what comes next is another.
    pub(super) fn reset(&mut self) {
        self.frontend.reset();
        self.words.iter_mut().for_each(WakeWord::reset);
    }
}
