//! `gemmad transcribe`: speech to text, file by file or while it is spoken.

mod transcript;

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

pub(super) use transcript::{Question, Transcript, unreadable_file};

use super::failure::{Failure, exit, note};
use super::model_args::{GenerationArgs, PaddingArg, RunArgs};
use super::{output, progress};
use crate::features::speech_check::SpeechOptions;
use crate::guard::harmless;
use crate::model::tasks::Tasks;
use crate::pipeline::{Answer, EncoderOptions, EngineOptions, GroupMemory, SoftTokenPadding};

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
        let asked = self.soft_token_padding.map(SoftTokenPadding::from);
        let encoders = EncoderOptions {
            soft_token_padding: asked.or(options.encoders.soft_token_padding),
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
            let heard = transcript.end();
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
            let text = heard.text();
            let speech = !heard.pieces.is_empty();
            if !speech {
                let path = path.display();
                progress.suspend(|| note(&format!("{path}: no speech was heard")));
            }
            let duration_s = heard.duration_s();
            let line = if self.json {
                let report = Report {
                    file: path.display().to_string(),
                    text: &text,
                    duration_s,
                    // Nothing takes no time.
                    real_time_factor: heard.computing_s() / duration_s.max(f64::MIN_POSITIVE),
                    after_end_ms: heard.after_end_ms,
                    speech,
                    damage: heard.damage.as_deref(),
                    pieces: &heard.pieces,
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
