//! `gemmad eval captions`: pictures, and what is truly seen in them.

use super::candidates::Encoding;
use super::measure::Measure;
use super::report::{Medium, Said};
use crate::cli::describe::{describe, picture};
use crate::cli::failure::{Failure, exit};
use crate::pipeline::PictureOptions;

/// Measure how well pictures are described: word and character error rate against what is truly seen
///
/// DIR holds the pictures and a table of UTF-8 with a line `file<TAB>text` for each. The likeliest text is taken, as by `gemmad
/// describe`. Texts are compared as `gemmad eval audio` compares them. There is more than one way to describe a picture: the figures
/// tell most where answers are short, or of one form, as with a --prompt that asks for a number or for yes or no.
#[derive(Debug, clap::Args)]
pub(super) struct Captions {
    #[command(flatten)]
    measure: Measure,
    /// Gemma 3n: look at pictures in N x N pixels; may be given several times [default: the checkpoint's own]
    #[arg(long, value_name = "N")]
    resolution: Vec<usize>,
    /// Gemma 4: make at most N tokens of a picture; may be given several times [default: the checkpoint's own]
    #[arg(long, value_name = "N")]
    soft_tokens: Vec<usize>,
    /// Ask this about each picture instead
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
}

impl Captions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.measure.engine.config()?;
        let prompt = match self.prompt {
            Some(prompt) => prompt,
            None => config
                .tasks
                .describe()
                .map_err(|error| Failure::new(exit::CONFIG, error))?,
        };
        let sides = self.resolution.iter();
        let sides = sides.map(|&side| PictureOptions::of_resolution(side));
        let budgets = self.soft_tokens.iter();
        let budgets = budgets.map(|&tokens| PictureOptions::of_soft_tokens(tokens));
        let encodings = sides.chain(budgets).map(|pictures| Encoding {
            pictures,
            ..Encoding::default()
        });
        let report = self.measure.measure(
            &config,
            Medium::Pictures,
            encodings.collect(),
            &mut |engine, slice, generation, path| {
                let image = picture(path, &config.limits.image)?;
                let slice = Some(slice.to_owned());
                let answer = describe(engine, image, &prompt, slice, generation)?;
                Ok(Said {
                    text: answer.text.split_whitespace().collect::<Vec<_>>().join(" "),
                    computing_s: answer.timing.computing_ms() / 1e3,
                    duration_s: 0.0,
                })
            },
        )?;
        self.measure.publish(&report)
    }
}
