//! The sound of one speech, as it comes, at the speaker's rate.

use std::sync::mpsc::{Receiver, TryRecvError};

use crate::features::audio_file::{AudioLimits, AudioReader};
use crate::features::resample::Resampler;
use crate::media::{Audible, AudioClip, Speech, SpeechEnd, Turn};

/// A speech that is being said.
pub(super) struct Track {
    pub(super) id: String,
    pub(super) urgent: bool,
    source: Source,
    rate_hz: u32,
    /// Samples that are not taken yet: less than a second of them.
    ready: Vec<f32>,
    /// Samples that may still come.
    left: u64,
    longest_s: u32,
    end: Option<SpeechEnd>,
}

enum Source {
    File(Box<AudioReader>),
    Stream {
        pieces: Receiver<Result<AudioClip, String>>,
        /// Whoever makes it makes it as long as this is there.
        _turn: Turn,
        /// From the rate of the last piece.
        resampler: Option<(u32, Box<Resampler>)>,
    },
}

/// What a track has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Sound.
    Some,
    /// None yet.
    Dry,
    /// No more.
    Over(SpeechEnd),
}

impl Track {
    /// Begins a speech.
    ///
    /// # Errors
    /// Its file is no audio, or has more channels or bytes than is accepted; one line.
    pub(super) fn new(
        speech: Speech,
        rate_hz: u32,
        longest_s: u32,
        max_bytes: usize,
    ) -> Result<Track, String> {
        let source = match speech.sound {
            Audible::File(bytes) => {
                let limits = AudioLimits {
                    max_file_bytes: max_bytes as u64,
                    // What is too long is cut, and told.
                    max_duration_s: u32::MAX,
                    ..AudioLimits::default()
                };
                let reader = AudioReader::from_bytes_at("the audio", &bytes, &limits, rate_hz);
                Source::File(Box::new(reader.map_err(|error| error.to_string())?))
            }
            Audible::Stream { pieces, turn } => {
                turn.comes();
                Source::Stream {
                    pieces,
                    _turn: turn,
                    resampler: None,
                }
            }
        };
        Ok(Track {
            id: speech.id,
            urgent: speech.urgent,
            source,
            rate_hz,
            ready: Vec::new(),
            left: u64::from(longest_s) * u64::from(rate_hz),
            longest_s,
            end: None,
        })
    }

    /// Appends up to `count` samples to `out`.
    pub(super) fn fill(&mut self, count: usize, out: &mut Vec<f32>) -> Flow {
        while self.ready.len() < count && self.end.is_none() && self.pull() {}
        let allowed = usize::try_from(self.left).unwrap_or(usize::MAX);
        let given = count.min(self.ready.len()).min(allowed);
        out.extend(self.ready.drain(..given));
        self.left -= given as u64;
        match &self.end {
            _ if given > 0 => Flow::Some,
            _ if self.left == 0 => Flow::Over(SpeechEnd::Cut(self.longest_s)),
            Some(end) => Flow::Over(end.clone()),
            None => Flow::Dry,
        }
    }

    /// Takes what is there next; false where nothing is.
    fn pull(&mut self) -> bool {
        match self.source.next(self.rate_hz, &mut self.ready) {
            Ok(Some(more)) => more,
            Ok(None) => {
                self.end = Some(SpeechEnd::Heard);
                false
            }
            Err(reason) => {
                self.end = Some(SpeechEnd::Failed(reason));
                false
            }
        }
    }
}

impl Source {
    /// Appends what comes next; whether anything did, and nothing where all has come.
    fn next(&mut self, rate_hz: u32, ready: &mut Vec<f32>) -> Result<Option<bool>, String> {
        match self {
            Source::File(reader) => match reader.read(ready) {
                Ok(true) => Ok(Some(true)),
                Ok(false) => match reader.damage() {
                    Some(damage) => Err(format!("the audio is damaged: {damage}")),
                    None => Ok(None),
                },
                Err(error) => Err(error.to_string()),
            },
            Source::Stream {
                pieces, resampler, ..
            } => match pieces.try_recv() {
                Ok(Ok(clip)) => {
                    let from_hz = clip.sample_rate_hz;
                    if resampler.as_ref().is_none_or(|(rate, _)| *rate != from_hz) {
                        finish(resampler, ready)?;
                        let new = Resampler::new(from_hz, rate_hz).map_err(|e| e.to_string())?;
                        *resampler = Some((from_hz, Box::new(new)));
                    }
                    if let Some((_, resampler)) = resampler {
                        let pushed = resampler.push(&clip.samples, ready);
                        pushed.map_err(|error| error.to_string())?;
                    }
                    Ok(Some(true))
                }
                Ok(Err(reason)) => {
                    finish(resampler, ready)?;
                    Err(reason)
                }
                Err(TryRecvError::Empty) => Ok(Some(false)),
                Err(TryRecvError::Disconnected) => {
                    finish(resampler, ready)?;
                    Ok(None)
                }
            },
        }
    }
}

/// Appends what a resampler still holds.
fn finish(
    resampler: &mut Option<(u32, Box<Resampler>)>,
    ready: &mut Vec<f32>,
) -> Result<(), String> {
    match resampler.take() {
        Some((_, resampler)) => resampler.finish(ready).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}
