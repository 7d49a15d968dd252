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

/// Listens for several wake words at once, which hear the same features.
pub(super) struct Spotter {
    frontend: Frontend,
    words: Vec<WakeWord>,
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
        })
    }

    /// Hears samples, 16 kHz mono; of several words that were said in them, the surest.
    pub(super) fn push(&mut self, samples: &[f32]) -> Option<Woken> {
        let mut woken: Option<Woken> = None;
        let words = &mut self.words;
        self.frontend.push_floats(samples, &mut |frame| {
            for word in &mut *words {
                let Some(heard) = word.push(frame).filter(|heard| heard.woken) else {
                    continue;
                };
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

    /// The stream breaks off; what comes next is another.
    pub(super) fn reset(&mut self) {
        self.frontend.reset();
        self.words.iter_mut().for_each(WakeWord::reset);
    }
}
