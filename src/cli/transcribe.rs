//! `gemmad transcribe`: speech to text, file by file or while it is spoken.

use std::fmt::Display;
use std::io::{Cursor, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::failure::{Failure, exit, note};
use super::model_args::{GenerationArgs, RunArgs};
use super::{output, progress};
use crate::features::audio_file::{AudioFileError, AudioLimits, AudioReader, container};
use crate::features::resample::{Resampler, downmix};
use crate::features::speech_check::{SpeechCheck, SpeechOptions};
use crate::features::speech_split::SpeechSplitter;
use crate::features::wav::{self, PcmReader};
use crate::guard::harmless;
use crate::media::SAMPLE_RATE_HZ;
use crate::model::tasks::Tasks;
use crate::pipeline::{
    Answer, EncoderOptions, Engine, EngineOptions, Generation, GroupMemory, SoftTokenPadding,
    Speech,
};

/// Print what is said in audio files, one line a file
///
/// Audio of more than 30 s is cut at pauses. Unless a temperature is given, the likeliest text is taken. Where nobody speaks the
/// line is empty: a model makes words of silence and noise, too, and is not asked.
#[derive(Debug, clap::Args)]
pub(super) struct Transcribe {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    /// The language that is spoken
    #[arg(long, value_name = "LANGUAGE", default_value = "English")]
    language: String,
    /// Translate into this language, too
    #[arg(long, value_name = "LANGUAGE")]
    translate_to: Option<String>,
    /// Ask this about the audio instead
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["language", "translate_to"])]
    prompt: Option<String>,
    /// What fills the places of a clip that its sound does not (Gemma 3n)
    /// [default: reference]
    #[arg(long, value_name = "PADDING", value_enum)]
    soft_token_padding: Option<PaddingArg>,
    /// Ask the model also where no speech is heard
    #[arg(long)]
    any_sound: bool,
    /// Print one JSON object a file, with timings and memory
    #[arg(long)]
    json: bool,
    /// WAV, FLAC, OGG Vorbis or MP3 files; `-` listens to standard input: WAV, or raw 16-bit little-endian mono at 16 kHz
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PaddingArg {
    /// Pad to the 188 soft tokens of 30 s, as the reference does
    Reference,
    /// Only what was heard: less to prefill
    None,
}

/// What `--json` tells about a file.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    text: &'a str,
    duration_s: f64,
    /// Time spent computing, by the duration.
    real_time_factor: f64,
    /// From the end of the audio to the end of the text, milliseconds.
    after_end_ms: f64,
    /// Whether somebody speaks in it; without speech there is no text.
    speech: bool,
    /// What is wrong with the file, where something could be read all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<&'a str>,
    /// The answer to each piece that the audio was cut into.
    pieces: &'a [Answer],
    memory_before: Vec<GroupMemory>,
    memory_during: Vec<GroupMemory>,
    memory_after: Vec<GroupMemory>,
}

impl Transcribe {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.run.config()?;
        let text = self
            .question(&config.tasks)
            .map_err(|error| Failure::new(exit::CONFIG, error))?;
        let options = self.run.options(&config);
        let soft_token_padding = match self.soft_token_padding {
            Some(PaddingArg::Reference) => Some(SoftTokenPadding::Reference),
            Some(PaddingArg::None) => Some(SoftTokenPadding::None),
            None => options.encoders.soft_token_padding,
        };
        let encoders = EncoderOptions {
            soft_token_padding,
            ..options.encoders
        };
        let mut engine = self.run.open(EngineOptions {
            encoders,
            ..options
        })?;
        let question = Question {
            text,
            matformer: self.generation.matformer.as_deref(),
            generation: self.generation.most_likely(&engine),
            limits: config.limits.audio,
            speech: SpeechOptions {
                required: config.speech.required && !self.any_sound,
                ..config.speech
            },
        };
        let progress = progress::of_files(self.files.len());
        let mut out = output::out();
        let mut first_failure = None;
        for (i, path) in self.files.iter().enumerate() {
            let shown = path.display().to_string();
            progress.set_message(harmless::line(&shown).into_owned());
            let memory_before = engine.memory();
            let mut transcript = Transcript::new(&mut engine, &question);
            let result = if path.as_os_str() == "-" {
                transcript.listen_to(std::io::stdin().lock())
            } else {
                transcript.read(path)
            };
            let Transcript {
                pieces,
                samples,
                ended,
                damage,
                ..
            } = transcript;
            let after_end_ms = ended.map_or(0.0, |ended| ended.elapsed().as_secs_f64() * 1e3);
            let memory_during = engine.memory();
            if i + 1 == self.files.len() {
                engine.unload_encoders();
            }
            progress.inc(1);
            if let Err(failure) = result {
                // The others may be good; scripts see that one was not.
                let failure = progress.suspend(|| failure.told());
                first_failure.get_or_insert(failure);
                continue;
            }
            let text = one_line(&pieces);
            let speech = !pieces.is_empty();
            if !speech {
                let path = path.display();
                progress.suspend(|| note(&format!("{path}: no speech was heard")));
            }
            let duration_s = samples as f64 / f64::from(SAMPLE_RATE_HZ);
            let computing_ms: f64 = pieces
                .iter()
                .map(|p| p.timing.encode_ms + p.timing.prefill_ms + p.timing.decode_ms)
                .sum();
            let line = if self.json {
                let report = Report {
                    file: path.display().to_string(),
                    text: &text,
                    duration_s,
                    // Nothing takes no time.
                    real_time_factor: computing_ms / 1e3 / duration_s.max(f64::MIN_POSITIVE),
                    after_end_ms,
                    speech,
                    damage: damage.as_deref(),
                    pieces: &pieces,
                    memory_before,
                    memory_during,
                    memory_after: engine.memory(),
                };
                output::json(&report)?
            } else {
                text
            };
            progress.suspend(|| writeln!(out, "{line}").and_then(|()| out.flush()))?;
        }
        progress.finish_and_clear();
        first_failure.map_or(Ok(()), Err)
    }

    /// The text behind the clip.
    fn question(&self, tasks: &Tasks) -> Result<String, crate::model::tasks::TaskError> {
        match (&self.prompt, &self.translate_to) {
            (Some(prompt), _) => Ok(prompt.clone()),
            (None, Some(target)) => tasks.translate(&self.language, target),
            (None, None) => tasks.transcribe(&self.language),
        }
    }
}

/// What is asked about every piece of audio.
struct Question<'a> {
    text: String,
    matformer: Option<&'a str>,
    generation: Generation,
    limits: AudioLimits,
    speech: SpeechOptions,
}

/// What is said in one source of audio.
struct Transcript<'a> {
    engine: &'a mut Engine,
    question: &'a Question<'a>,
    pieces: Vec<Answer>,
    samples: usize,
    /// When the audio was over.
    ended: Option<Instant>,
    damage: Option<String>,
}

impl<'a> Transcript<'a> {
    fn new(engine: &'a mut Engine, question: &'a Question<'a>) -> Transcript<'a> {
        Transcript {
            engine,
            question,
            pieces: Vec::new(),
            samples: 0,
            ended: None,
            damage: None,
        }
    }

    /// Transcribes a file, piece by piece as it is decoded.
    fn read(&mut self, path: &Path) -> Result<(), Failure> {
        let mut reader = AudioReader::open(path, &self.question.limits).map_err(file_failure)?;
        let mut splitter = SpeechSplitter::new();
        let mut samples = Vec::new();
        loop {
            samples.clear();
            let more = reader.read(&mut samples).map_err(file_failure)?;
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
    fn listen_to(&mut self, mut input: impl Read) -> Result<(), Failure> {
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
    fn transcribe(&mut self, piece: &[f32], source: &dyn Display) -> Result<(), Failure> {
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

/// The pieces' texts as one line.
fn one_line(pieces: &[Answer]) -> String {
    let words: Vec<&str> = pieces
        .iter()
        .flat_map(|piece| piece.text.split_whitespace())
        .collect();
    words.join(" ")
}

fn file_failure(error: AudioFileError) -> Failure {
    let code = if matches!(error, AudioFileError::Io { .. }) {
        exit::NO_INPUT
    } else {
        exit::DATA
    };
    Failure::new(code, error)
}
