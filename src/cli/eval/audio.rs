//! `gemmad eval audio`: recordings, and what is truly said in them.

use super::candidates::Encoding;
use super::measure::Measure;
use super::report::{Medium, Report, Said};
use crate::cli::failure::{Failure, exit};
use crate::cli::model_args::PaddingArg;
use crate::cli::transcribe::{Question, Transcript};
use crate::features::speech_check::SpeechOptions;

/// Measure how well recordings are understood: word and character error rate against what is truly said
///
/// DIR holds the recordings and a table of UTF-8 with a line `file<TAB>text` for each. The likeliest text is taken, as by `gemmad
/// transcribe`. Before texts are compared they are made lower case, apostrophes are left out, and other punctuation (Unicode's
/// categories P*) parts words as a space does; words are what white space parts, characters are Unicode's scalar values.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Audio {
    #[command(flatten)]
    measure: Measure,
    /// What fills the places of a clip that its sound does not (Gemma 3n); may be given several times
    /// [default: reference]
    #[arg(long, value_name = "PADDING", value_enum)]
    soft_token_padding: Vec<PaddingArg>,
    /// The language that is spoken
    #[arg(long, value_name = "LANGUAGE", default_value = "English")]
    language: String,
    /// Ask this about each recording instead
    #[arg(long, value_name = "TEXT", conflicts_with = "language")]
    prompt: Option<String>,
    /// Ask the model also where no speech is heard
    #[arg(long)]
    any_sound: bool,
}

impl Audio {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.measure.publish(&self.rates()?)
    }

    /// Whether there is anything to measure.
    ///
    /// # Errors
    /// The table of true texts cannot be used.
    pub(in crate::cli) fn check(&self) -> Result<(), Failure> {
        self.measure.truths().map(drop)
    }

    /// What it tells.
    ///
    /// # Errors
    /// The recordings or a model cannot be used.
    pub(in crate::cli) fn rates(&self) -> Result<Report, Failure> {
        let config = self.measure.engine.config()?;
        let text = match &self.prompt {
            Some(prompt) => prompt.clone(),
            None => config
                .tasks
                .transcribe(&self.language)
                .map_err(|error| Failure::new(exit::CONFIG, error))?,
        };
        let speech = SpeechOptions {
            required: config.speech.required && !self.any_sound,
            ..config.speech.clone()
        };
        let paddings = self.soft_token_padding.iter();
        let encodings = paddings.map(|&padding| Encoding {
            soft_token_padding: Some(padding.into()),
            ..Encoding::default()
        });
        self.measure.measure(
            &config,
            Medium::Audio,
            encodings.collect(),
            &mut |engine, slice, generation, path| {
                let question = Question {
                    text: text.clone(),
                    matformer: Some(slice),
                    generation: generation.clone(),
                    limits: config.limits.audio.clone(),
                    speech: speech.clone(),
                };
                let mut transcript = Transcript::new(engine, &question);
                transcript.read(path)?;
                let heard = transcript.end();
                Ok(Said {
                    text: heard.text(),
                    computing_s: heard.computing_s(),
                    duration_s: heard.duration_s(),
                })
            },
        )
    }
}
