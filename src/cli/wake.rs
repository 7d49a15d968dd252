//! `gemmad wake`: what wake word models make of a microphone, live, or of audio files.

use std::io::Write;
use std::path::{Path, PathBuf};

use wake::WakeWord;
use wake::frontend::{Frontend, SAMPLE_RATE_HZ, STEP_SAMPLES};

use super::chat::any_microphone;
use super::failure::{Failure, exit};
use super::transcribe::unreadable_file;
use super::{output, progress};
use crate::capture::hear_all;
use crate::features::audio_file::{AudioLimits, AudioReader};
use crate::guard::harmless;

/// Show how sure wake word models are: live at a microphone, or of audio files
///
/// A model is a JSON file of ESPHome's microWakeWord (version 2) with its .tflite file beside it. gemmad has none of its own;
/// docs/wake.md says where there are some. Each line is a wake word that was heard; on a terminal a bar shows the score meanwhile.
#[derive(Debug, clap::Args)]
pub(super) struct Wake {
    /// JSON file of a model; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    model: Vec<PathBuf>,
    /// 0 as the file says; up to 1 is woken more easily, down to -1 less
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    sensitivity: f64,
    /// ALSA PCM to listen to, where no file is given [default: the system's own]
    #[arg(long, value_name = "PCM")]
    device: Option<String>,
    /// Audio files to listen to
    #[arg(value_name = "AUDIO")]
    files: Vec<PathBuf>,
}

/// Words that listen, and how sure each was.
struct Listeners {
    frontend: Frontend,
    words: Vec<WakeWord>,
    /// The last score of each.
    scores: Vec<f64>,
    /// The highest of each.
    highest: Vec<f64>,
    frames: usize,
}

/// A wake word, and when.
struct Found {
    second: f64,
    phrase: String,
    score: f64,
}

impl Wake {
    pub(super) fn run(self) -> Result<(), Failure> {
        if !(-1.0..=1.0).contains(&self.sensitivity) {
            let told = format!("--sensitivity is {}; it must be -1 to 1", self.sensitivity);
            return Err(Failure::new(exit::USAGE, told));
        }
        if self.files.is_empty() {
            return self.live();
        }
        let mut out = output::out();
        for file in &self.files {
            let mut listeners = self.listeners()?;
            for found in listeners.hear_file(file)? {
                writeln!(out, "{}: {}", file.display(), found.told())?;
            }
            let highest = listeners.words.iter().zip(&listeners.highest);
            for (word, highest) in highest {
                let (phrase, cutoff) = (word.phrase(), word.cutoff());
                writeln!(
                    out,
                    "{}: {phrase}: highest score {highest:.2}, cut-off {cutoff:.2}",
                    file.display()
                )?;
            }
        }
        Ok(())
    }

    fn listeners(&self) -> Result<Listeners, Failure> {
        let load = |path: &PathBuf| {
            WakeWord::load(path, self.sensitivity).map_err(|error| Failure::new(exit::DATA, error))
        };
        let words: Vec<WakeWord> = self.model.iter().map(load).collect::<Result<_, _>>()?;
        Ok(Listeners {
            frontend: Frontend::default(),
            scores: vec![0.0; words.len()],
            highest: vec![0.0; words.len()],
            words,
            frames: 0,
        })
    }

    /// Listens until Ctrl-C, or until nobody reads.
    fn live(&self) -> Result<(), Failure> {
        let mut listeners = self.listeners()?;
        let microphone = any_microphone(self.device.as_deref());
        let line = progress::of_state();
        let mut out = output::out();
        let mut closed = None;
        let heard = hear_all(&microphone, &mut |samples| {
            let found = listeners.hear(samples);
            line.set_message(listeners.bars());
            line.tick();
            let told = found.iter().try_for_each(|found| {
                line.suspend(|| writeln!(out, "{}", found.told()).and_then(|()| out.flush()))
            });
            closed = told.err();
            closed.is_none()
        });
        line.finish_and_clear();
        if let Some(error) = closed {
            return Err(Failure::output(&error));
        }
        heard.map_err(|reason| Failure::new(exit::UNAVAILABLE, reason))
    }
}

impl Listeners {
    fn hear(&mut self, samples: &[f32]) -> Vec<Found> {
        let mut found = Vec::new();
        let (words, scores, highest, frames) = (
            &mut self.words,
            &mut self.scores,
            &mut self.highest,
            &mut self.frames,
        );
        self.frontend.push_floats(samples, &mut |frame| {
            *frames += 1;
            let each = words.iter_mut().zip(&mut *scores).zip(&mut *highest);
            for ((word, score), highest) in each {
                let Some(heard) = word.push(frame) else {
                    continue;
                };
                *score = heard.score;
                *highest = highest.max(heard.score);
                if heard.woken {
                    // A frame ends two steps behind where it begins.
                    let samples = (*frames + 2) * STEP_SAMPLES;
                    found.push(Found {
                        second: samples as f64 / f64::from(SAMPLE_RATE_HZ),
                        phrase: word.phrase().to_owned(),
                        score: heard.score,
                    });
                }
            }
        });
        found
    }

    fn hear_file(&mut self, path: &Path) -> Result<Vec<Found>, Failure> {
        let mut reader =
            AudioReader::open(path, &AudioLimits::default()).map_err(unreadable_file)?;
        let mut samples = Vec::new();
        let mut found = Vec::new();
        while reader.read(&mut samples).map_err(unreadable_file)? {
            found.extend(self.hear(&samples));
            samples.clear();
        }
        found.extend(self.hear(&samples));
        Ok(found)
    }

    /// Each word with a bar of its score, and a mark where it counts.
    fn bars(&self) -> String {
        let shown = self.words.iter().zip(&self.scores).map(|(word, score)| {
            let phrase = harmless::line(word.phrase()).into_owned();
            format!("{phrase} [{}] {score:.2}", bar(*score, word.cutoff()))
        });
        shown.collect::<Vec<_>>().join("  ")
    }
}

impl Found {
    fn told(&self) -> String {
        let (second, score) = (self.second, self.score);
        format!("{second:.2} s: {} ({score:.2})", self.phrase)
    }
}

fn bar(score: f64, cutoff: f64) -> String {
    const WIDTH: usize = 20;
    let place = |share: f64| (share * WIDTH as f64).round() as usize;
    let (full, mark) = (place(score), place(cutoff).min(WIDTH - 1));
    let dot = |i: usize| match i {
        i if i < full => '#',
        i if i == mark => '|',
        _ => '.',
    };
    (0..WIDTH).map(dot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_the_cut_off_in_it() {
        assert_eq!(bar(0.0, 0.85), ".................|..");
        assert_eq!(bar(0.5, 0.97), "##########.........|");
        assert_eq!(bar(1.0, 0.85), "####################");
    }
}
