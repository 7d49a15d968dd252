//! How far the soft tokens of a pack are from those of the checkpoint it was made from.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Difference;
use crate::cli::describe::picture;
use crate::cli::failure::{Failure, exit};
use crate::cli::model_args::{self, ModelArgs, PictureArgs};
use crate::cli::transcribe::unreadable_file;
use crate::cli::{output, progress};
use crate::features::audio_file::{AudioLimits, read_audio_file};
use crate::features::image::ImageLimits;
use crate::guard::harmless;
use crate::model::family;
use crate::pipeline::{
    EncoderOptions, Engine, EngineOptions, Media, PictureOptions, SoftTokenPadding,
};

/// Compare what a pack's towers make of sound and pictures with what the checkpoint's make of them
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("media").args(["audio", "image"]).multiple(true).required(true)))]
pub(super) struct SoftTokens {
    #[command(flatten)]
    model: ModelArgs,
    /// Directory of the checkpoint to compare with
    #[arg(long, value_name = "DIR")]
    reference: PathBuf,
    /// A clip of at most 30 s: WAV, FLAC, OGG Vorbis or MP3; may be given several times
    #[arg(long, value_name = "FILE")]
    audio: Vec<PathBuf>,
    /// A JPEG or PNG file; may be given several times
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    #[command(flatten)]
    pictures: PictureArgs,
    /// Threads that compute [default: one for each fast core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Differences are roots of mean squares, as shares of the reference's.
#[derive(Serialize)]
struct Report {
    model: String,
    reference: String,
    /// Over all clips.
    audio_difference: Option<f64>,
    /// Over all pictures.
    image_difference: Option<f64>,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    file: String,
    soft_tokens: usize,
    difference: f64,
}

impl SoftTokens {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut engine = self.open(&self.model.model)?;
        let mut reference = self.open(&self.reference)?;
        let width = reference.spec().hidden_size;
        if engine.spec().hidden_size != width {
            return Err(Failure::new(
                exit::DATA,
                format_args!(
                    "soft tokens have {} numbers in {} and {width} in {}: they are not the same model",
                    engine.spec().hidden_size,
                    self.model.model.display(),
                    self.reference.display()
                ),
            ));
        }
        let progress = progress::of_files(self.audio.len() + self.image.len());
        let mut files = Vec::new();
        let mut compare = |path: &Path, media: &Media, sums: &mut Difference| {
            let shown = path.display().to_string();
            progress.set_message(harmless::line(&shown).into_owned());
            let soft_tokens = |engine: &mut Engine| {
                let tokens = engine.soft_tokens(media);
                tokens.map_err(|error| Failure::new(exit::DATA, format_args!("{shown}: {error}")))
            };
            let (got, wanted) = (soft_tokens(&mut engine)?, soft_tokens(&mut reference)?);
            if got.len() != wanted.len() {
                return Err(Failure::new(
                    exit::DATA,
                    format_args!(
                        "{shown}: the models make another number of soft tokens of it: they are not the same model"
                    ),
                ));
            }
            let mut difference = Difference::default();
            difference.add(&got, &wanted);
            sums.add(&got, &wanted);
            files.push(File {
                soft_tokens: wanted.len() / width,
                difference: difference.relative_rms(),
                file: shown,
            });
            progress.inc(1);
            Ok(())
        };
        let (mut heard, mut seen) = (Difference::default(), Difference::default());
        for path in &self.audio {
            let clip = read_audio_file(path, &AudioLimits::default());
            let clip = clip.map_err(unreadable_file)?;
            compare(path, &Media::Clip(clip), &mut heard)?;
        }
        for path in &self.image {
            let image = picture(path, &ImageLimits::default())?;
            let media = Media::Image(image, PictureOptions::default());
            compare(path, &media, &mut seen)?;
        }
        progress.finish_and_clear();
        let report = Report {
            model: self.model.model.display().to_string(),
            reference: self.reference.display().to_string(),
            audio_difference: (!self.audio.is_empty()).then(|| heard.relative_rms()),
            image_difference: (!self.image.is_empty()).then(|| seen.relative_rms()),
            files,
        };
        output::publish(&report, self.json, |report, out| {
            writeln!(out, "{} against {}", report.model, report.reference)?;
            for file in &report.files {
                let (off, tokens) = (100.0 * file.difference, file.soft_tokens);
                writeln!(
                    out,
                    "  {off:8.3} % off (rms), {tokens:>4} soft tokens  {}",
                    file.file
                )?;
            }
            for (what, difference) in [
                ("sound", report.audio_difference),
                ("pictures", report.image_difference),
            ] {
                if let Some(difference) = difference {
                    writeln!(out, "  {:8.3} % off (rms): all {what}", 100.0 * difference)?;
                }
            }
            Ok(())
        })
    }

    /// What fills a clip up is left out: nothing was heard there.
    fn open(&self, dir: &Path) -> Result<Engine, Failure> {
        let pads = family::load(dir)?.spec().pads_clips();
        let encoders = EncoderOptions {
            soft_token_padding: pads.then_some(SoftTokenPadding::None),
            pictures: self.pictures.or(PictureOptions::default()),
            ..EncoderOptions::default()
        };
        model_args::open(
            dir,
            EngineOptions {
                threads: self.threads.map_or(0, usize::from),
                encoders,
                ..EngineOptions::default()
            },
        )
    }
}
