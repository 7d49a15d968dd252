//! `gemmad describe`: pictures to sentences, file by file.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::failure::{Failure, exit};
use super::model_args::{GenerationArgs, PictureArgs, RunArgs};
use super::{output, progress};
use crate::features::image::{ImageError, ImageLimits, RgbImage};
use crate::guard::harmless;
use crate::pipeline::{
    Answer, Engine, Generation, GroupMemory, Media, Message, Part, PictureOptions, Request,
};

/// Print what is seen in pictures, one line a file
///
/// Unless a temperature is given, the likeliest text is taken.
#[derive(Debug, clap::Args)]
pub(super) struct Describe {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    /// Ask this about each picture instead
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    #[command(flatten)]
    pictures: PictureArgs,
    /// Print one JSON object a file, with timings and memory
    #[arg(long)]
    json: bool,
    /// JPEG or PNG files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// What `--json` tells about a file.
#[derive(Serialize)]
struct Report {
    file: String,
    /// Of the upright picture.
    width_px: usize,
    height_px: usize,
    #[serde(flatten)]
    answer: Answer,
    memory_before: Vec<GroupMemory>,
    memory_after: Vec<GroupMemory>,
}

impl Describe {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.run.config()?;
        let prompt = match self.prompt {
            Some(prompt) => prompt,
            None => config
                .tasks
                .describe()
                .map_err(|error| Failure::new(exit::CONFIG, error))?,
        };
        let options = self.run.options_with(&config, self.pictures);
        let mut engine = self.run.open(options)?;
        let matformer = self.generation.matformer.clone();
        let generation = self.generation.most_likely(&engine);
        let progress = progress::of_files(self.files.len());
        let mut out = output::out();
        let mut first_failure = None;
        for (i, path) in self.files.iter().enumerate() {
            let shown = path.display().to_string();
            progress.set_message(harmless::line(&shown).into_owned());
            let memory_before = engine.memory();
            let image = match picture(path, &config.limits.image) {
                Ok(image) => image,
                Err(failure) => {
                    // The others may be good; scripts see that one was not.
                    let failure = progress.suspend(|| failure.told());
                    first_failure.get_or_insert(failure);
                    progress.inc(1);
                    continue;
                }
            };
            let (width_px, height_px) = (image.width_px, image.height_px);
            let answer = describe(&mut engine, image, &prompt, matformer.clone(), &generation)?;
            if i + 1 == self.files.len() {
                engine.unload_encoders();
            }
            let line = if self.json {
                let report = Report {
                    file: path.display().to_string(),
                    width_px,
                    height_px,
                    answer,
                    memory_before,
                    memory_after: engine.memory(),
                };
                output::json(&report)?
            } else {
                answer.text.split_whitespace().collect::<Vec<_>>().join(" ")
            };
            progress.inc(1);
            progress.suspend(|| writeln!(out, "{line}").and_then(|()| out.flush()))?;
        }
        progress.finish_and_clear();
        first_failure.map_or(Ok(()), Err)
    }
}

/// Asks about one picture.
pub(super) fn describe(
    engine: &mut Engine,
    image: RgbImage,
    prompt: &str,
    matformer: Option<String>,
    generation: &Generation,
) -> Result<Answer, Failure> {
    let request = Request {
        conversation: None,
        messages: Message::user(vec![
            Part::Media(Media::Image(image, PictureOptions::default())),
            Part::Text(prompt.to_owned()),
        ]),
        matformer,
        thinking: None,
        generation: generation.clone(),
    };
    Ok(engine.answer(&request, &mut |_| ControlFlow::Continue(()))?)
}

/// Reads a picture, for every command that takes one.
pub(super) fn picture(path: &Path, limits: &ImageLimits) -> Result<RgbImage, Failure> {
    RgbImage::open(path, limits).map_err(|error| {
        let code = if matches!(error, ImageError::Read { .. }) {
            exit::NO_INPUT
        } else {
            exit::DATA
        };
        Failure::new(code, error)
    })
}
