//! What is said in one source of audio: cut at pauses, and asked about piece by piece.

use std::fmt::Display;
use std::io::{Cursor, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use crate::cli::failure::{Failure, exit};
use crate::features::audio_file::{AudioFileError, AudioLimits, AudioReader, container};
use crate::features::resample::{Resampler, downmix};
use crate::features::speech_check::{SpeechCheck, SpeechOptions};
use crate::features::speech_split::SpeechSplitter;
use crate::features::wav::{self, PcmReader};
use crate::media::SAMPLE_RATE_HZ;
use crate::pipeline::{Answer, Engine, Generation, Speech};

/// What is asked about every piece of audio.
pub(in crate::cli) struct Question<'a> {
    pub(in crate::cli) text: String,
    pub(in crate::cli) matformer: Option<&'a str>,
    pub(in crate::cli) generation: Generation,
    pub(in crate::cli) limits: AudioLimits,
    pub(in crate::cli) speech: SpeechOptions,
}

/// What is said in one source of audio.
pub(in crate::cli) struct Transcript<'a> {
    engine: &'a mut Engine,
    question: &'a Question<'a>,
    pieces: Vec<Answer>,
    samples: usize,
    /// When the audio was over.
    ended: Option<Instant>,
    damage: Option<String>,
}

/// What was heard in all of it.
pub(in crate::cli) struct Heard {
    /// The answer to each piece that the audio was cut into; none where nobody speaks.
    pub(in crate::cli) pieces: Vec<Answer>,
    samples: usize,
    /// From the end of the audio to the end of the text, milliseconds.
    pub(in crate::cli) after_end_ms: f64,
    /// What is wrong with the source, where something could be read all the same.
    pub(in crate::cli) damage: Option<String>,
}

impl Heard {
    /// The pieces' texts as one line.
    pub(in crate::cli) fn text(&self) -> String {
        let pieces = self.pieces.iter();
        let words: Vec<&str> = pieces
            .flat_map(|piece| piece.text.split_whitespace())
            .collect();
        words.join(" ")
    }

    pub(in crate::cli) fn duration_s(&self) -> f64 {
        self.samples as f64 / f64::from(SAMPLE_RATE_HZ)
    }

    /// Time spent on sound that somebody speaks in, without loading the tower.
    pub(in crate::cli) fn computing_s(&self) -> f64 {
        self.pieces
            .iter()
            .map(|piece| piece.timing.computing_ms() / 1e3)
            .sum()
    }
}

impl<'a> Transcript<'a> {
    pub(in crate::cli) fn new(
        engine: &'a mut Engine,
        question: &'a Question<'a>,
    ) -> Transcript<'a> {
        Transcript {
            engine,
            question,
            pieces: Vec::new(),
            samples: 0,
            ended: None,
            damage: None,
        }
    }

    /// Ends it, at once behind the last answer.
    pub(in crate::cli) fn end(self) -> Heard {
        let ended = self.ended;
        Heard {
            pieces: self.pieces,
            samples: self.samples,
            after_end_ms: ended.map_or(0.0, |ended| ended.elapsed().as_secs_f64() * 1e3),
            damage: self.damage,
        }
    }

    /// Transcribes a file, piece by piece as it is decoded.
    pub(in crate::cli) fn read(&mut self, path: &Path) -> Result<(), Failure> {
        let mut reader = AudioReader::open(path, &self.question.limits).map_err(unreadable_file)?;
        let mut splitter = SpeechSplitter::new();
        let mut samples = Vec::new();
        loop {
            samples.clear();
            let more = reader.read(&mut samples).map_err(unreadable_file)?;
            self.samples += samples.len();
            for piece in splitter.push(&samples) {
                self.transcribe(&piece, &path.display())?;
            }
            if !more {
                break;
            }
        }
        self.ended = Some(Instant::now());
        self.damage = reader.damage().map(str::to_owned);
        match splitter.finish() {
            Some(piece) => self.transcribe(&piece, &path.display()),
            None => Ok(()),
        }
    }

    /// Transcribes a stream while it comes: its soft tokens are in the text model before it ends.
    pub(in crate::cli) fn listen_to(&mut self, mut input: impl Read) -> Result<(), Failure> {
        let unreadable = |error: &dyn Display| {
            Failure::new(
                exit::DATA,
                format_args!("cannot read audio from standard input: {error}"),
            )
        };
        let mut start = Vec::new();
        input
            .by_ref()
            .take(container::START_BYTES as u64)
            .read_to_end(&mut start)
            .map_err(|error| unreadable(&error))?;
        let is_wav = wav::is_wav(&start);
        if !is_wav && container::is_file(&start) {
            return Err(unreadable(&match container::not_read(&start) {
                Some(what) => what,
                None => "it is FLAC, OGG or MP3: give the file by its name, or pipe it as WAV (`sox FILE -t wav -`)".to_owned(),
            }));
        }
        let input = Cursor::new(start).chain(input);
        let mut pcm = if is_wav {
            PcmReader::wav(input).map_err(|error| unreadable(&error))?
        } else {
            PcmReader::raw_s16le(input)
        };
        let resampler = Resampler::new(pcm.sample_rate_hz(), SAMPLE_RATE_HZ)
            .map_err(|error| unreadable(&error))?;
        let mut resampler = Some(resampler);
        let mut splitter = SpeechSplitter::new();
        let mut speech = None;
        let mut check = SpeechCheck::new(&self.question.speech);
        let (mut interleaved, mut mono, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(mut running) = resampler.take() {
            interleaved.clear();
            mono.clear();
            samples.clear();
            if pcm
                .read(&mut interleaved)
                .map_err(|error| unreadable(&error))?
            {
                downmix(&interleaved, pcm.channels(), &mut mono);
                running
                    .push(&mono, &mut samples)
                    .map_err(|error| unreadable(&error))?;
                resampler = Some(running);
            } else {
                self.ended = Some(Instant::now());
                running
                    .finish(&mut samples)
                    .map_err(|error| unreadable(&error))?;
            }
            self.samples += samples.len();
            let pieces = splitter.push(&samples);
            let heard = if pieces.is_empty() {
                &samples[..]
            } else {
                // Longer than the model hears at once: what was heard beyond the pause belongs to the next piece.
                speech = None;
                check = SpeechCheck::new(&self.question.speech);
                for piece in pieces {
                    self.transcribe(&piece, &"standard input")?;
                }
                splitter.pending()
            };
            check.push(heard);
            if !heard.is_empty() {
                let mut now = match speech.take() {
                    Some(speech) => speech,
                    None => self.start()?,
                };
                self.engine.hear(&mut now, heard)?;
                speech = Some(now);
            }
        }
        if pcm.truncated() {
            self.damage = Some("the stream is shorter than its header says".to_owned());
        } else if pcm.unfinished() {
            self.damage = Some("its header promises 0 bytes: it was read to the end".to_owned());
        }
        match speech {
            Some(speech) if check.has_speech() => self.finish(speech, &"standard input"),
            _ => Ok(()),
        }
    }

    /// Transcribes a piece of at most 30 s, where somebody speaks in it.
    pub(in crate::cli) fn transcribe(
        &mut self,
        piece: &[f32],
        source: &dyn Display,
    ) -> Result<(), Failure> {
        if !SpeechCheck::holds_speech(&self.question.speech, piece) {
            return Ok(());
        }
        let mut speech = self.start()?;
        self.engine.hear(&mut speech, piece)?;
        self.finish(speech, source)
    }

    fn start(&mut self) -> Result<Speech, Failure> {
        Ok(self
            .engine
            .start_speech(None, &self.question.text, self.question.matformer)?)
    }

    fn finish(&mut self, speech: Speech, source: &dyn Display) -> Result<(), Failure> {
        let nothing_to_show = &mut |_: &str| ControlFlow::Continue(());
        let answer = self
            .engine
            .finish_speech(speech, &self.question.generation, nothing_to_show);
        // A clip that is too short is told with its name.
        self.pieces.push(
            answer.map_err(|error| Failure::new(exit::DATA, format_args!("{source}: {error}")))?,
        );
        Ok(())
    }
}

/// Why an audio file is not heard.
pub(in crate::cli) fn unreadable_file(error: AudioFileError) -> Failure {
    let code = if matches!(error, AudioFileError::Io { .. }) {
        exit::NO_INPUT
    } else {
        exit::DATA
    };
    Failure::new(code, error)
}
