//! What is set beside one another: each model, with each of its slices and each way of encoding that was asked for.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::failure::{Failure, exit};
use crate::model::architecture::Architecture;
use crate::model::decoder::SliceError;
use crate::model::family;
use crate::model::processor_config::ProcessorConfig;
use crate::model::spec::Spec;
use crate::model::weights::{Checkpoint, Group};
use crate::pipeline::{
    EncoderOptions, EngineError, EngineOptions, PictureOptions, SoftTokenPadding, VisionError,
};

/// A row of the table.
#[derive(Clone, Serialize)]
pub(in crate::cli) struct Candidate {
    pub(super) model: String,
    /// `bf16` for a checkpoint as published.
    pub(super) recipe: String,
    pub(super) matformer: String,
    #[serde(flatten)]
    pub(in crate::cli) encoding: Encoding,
    #[serde(skip)]
    dir: PathBuf,
}

/// How media become soft tokens.
#[derive(Clone, Copy, Default, Serialize)]
pub(in crate::cli) struct Encoding {
    /// Of sound, where the family pads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) soft_token_padding: Option<SoftTokenPadding>,
    #[serde(flatten)]
    pub(super) pictures: PictureOptions,
}

impl Encoding {
    /// For people.
    pub(in crate::cli) fn told(&self) -> String {
        let told = match self.soft_token_padding {
            Some(SoftTokenPadding::Reference) => Some("reference".to_owned()),
            Some(SoftTokenPadding::None) => Some("none".to_owned()),
            None => None,
        };
        let pictures = self.pictures;
        told.or(pictures.soft_tokens.map(|tokens| tokens.to_string()))
            .or(pictures.resolution_px.map(|side| format!("{side} px")))
            .unwrap_or_else(|| "-".to_owned())
    }
}

impl Candidate {
    /// The model's files.
    pub(in crate::cli) fn dir(&self) -> &Path {
        &self.dir
    }

    /// How its engine is to be opened, where nothing else was asked for.
    pub(super) fn options(&self, otherwise: EngineOptions) -> EngineOptions {
        EngineOptions {
            encoders: EncoderOptions {
                soft_token_padding: self.encoding.soft_token_padding,
                pictures: self.encoding.pictures,
                ..otherwise.encoders
            },
            ..otherwise
        }
    }
}

/// What was asked for; what is only for one family leaves models of the others as they are, and what fits none of the models is refused.
pub(super) struct Asked<'a> {
    pub(super) models: &'a [PathBuf],
    /// None for the whole model.
    pub(super) slices: &'a [String],
    /// The group that hears or sees.
    pub(super) group: Group,
    /// None for what the configuration says.
    pub(super) encodings: Vec<Encoding>,
    pub(super) configured: EncoderOptions,
}

impl Asked<'_> {
    /// All of them, before the first is measured: whatever does not exist or does not fit shows now.
    pub(super) fn candidates(&self) -> Result<Vec<Candidate>, Failure> {
        let mut candidates = Vec::new();
        let (mut without_slices, mut foreign) = (Vec::new(), Vec::new());
        for dir in self.models {
            let architecture = family::load(dir)?;
            let checkpoint = Checkpoint::open(dir)?;
            self.check_group(&*architecture, &checkpoint)?;
            let slices = self.slices(&*architecture, dir, &mut without_slices)?;
            let encodings = self.encodings(&*architecture, dir, &mut foreign)?;
            let pack = checkpoint.pack();
            let recipe = pack.map_or_else(|| "bf16".to_owned(), |pack| pack.recipe.clone());
            for matformer in slices {
                candidates.extend(encodings.iter().map(|&encoding| Candidate {
                    model: dir.display().to_string(),
                    recipe: recipe.clone(),
                    matformer: matformer.clone(),
                    encoding,
                    dir: dir.clone(),
                }));
            }
        }
        for misfits in [without_slices, foreign] {
            // It fits another model.
            if misfits.len() < self.models.len() {
                continue;
            }
            if let Some(failure) = misfits.into_iter().next() {
                return Err(failure);
            }
        }
        Ok(candidates)
    }

    fn check_group(
        &self,
        architecture: &dyn Architecture,
        checkpoint: &Checkpoint,
    ) -> Result<(), EngineError> {
        if checkpoint.has(self.group) {
            return Ok(());
        }
        let (what, media) = match self.group {
            Group::Vision => ("vision tower", "pictures"),
            _ => ("audio tower", "audio"),
        };
        Err(EngineError::NoTower {
            dir: checkpoint.dir().display().to_string(),
            what,
            media,
            family: architecture.spec().family,
        })
    }

    /// The slices that were asked for, of a model that has any.
    fn slices(
        &self,
        architecture: &dyn Architecture,
        dir: &Path,
        without: &mut Vec<Failure>,
    ) -> Result<Vec<String>, SliceError> {
        let slices = architecture.slices(Some(dir))?;
        let mut names = Vec::new();
        for name in self.slices {
            match slices.get(name) {
                Ok(slice) => names.push(slice.name.clone()),
                Err(error @ SliceError::None { .. }) => {
                    without.push(error.into());
                    names.clear();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if names.is_empty() {
            names.push(slices.full().name.clone());
        }
        Ok(names)
    }

    /// The ways of encoding that were asked for and are for this family, else the one that is configured.
    fn encodings(
        &self,
        architecture: &dyn Architecture,
        dir: &Path,
        foreign: &mut Vec<Failure>,
    ) -> Result<Vec<Encoding>, Failure> {
        let spec = architecture.spec();
        let mut fitting = Vec::new();
        let mut misfit = None;
        for &asked in &self.encodings {
            match check(asked, spec) {
                Ok(()) => fitting.push(asked),
                Err(Misfit::Foreign(failure)) => misfit = Some(failure),
                Err(Misfit::Wrong(failure)) => return Err(failure),
            }
        }
        if !fitting.is_empty() {
            return Ok(fitting);
        }
        foreign.extend(misfit);
        Ok(vec![self.configured(architecture, dir)?])
    }

    fn configured(
        &self,
        architecture: &dyn Architecture,
        dir: &Path,
    ) -> Result<Encoding, EngineError> {
        let spec = architecture.spec();
        if self.group != Group::Vision {
            let configured = self.configured.soft_token_padding.unwrap_or_default();
            return Ok(Encoding {
                soft_token_padding: spec.pads_clips().then_some(configured),
                ..Encoding::default()
            });
        }
        let configured = self.configured.pictures;
        if let Some(here) = &spec.pictures {
            configured.check(here)?;
        }
        let processor = ProcessorConfig::load(dir)?;
        let (pictures, _) = architecture.picture_options(configured, &processor)?;
        Ok(Encoding {
            pictures,
            ..Encoding::default()
        })
    }
}

/// Why a model does not encode as it was asked to.
enum Misfit {
    /// It is for another family.
    Foreign(Failure),
    /// It is for none.
    Wrong(Failure),
}

fn check(asked: Encoding, spec: &Spec) -> Result<(), Misfit> {
    if asked.soft_token_padding.is_some() && !spec.pads_clips() {
        return Err(Misfit::Foreign(Failure::new(
            exit::USAGE,
            format_args!(
                "--soft-token-padding is for models whose clips are filled up to 30 s, such as Gemma 3n; with {} a clip has the soft tokens that were heard, and no more: leave it out",
                spec.family
            ),
        )));
    }
    let Some(here) = &spec.pictures else {
        return Ok(());
    };
    asked.pictures.check(here).map_err(|error| {
        let foreign = matches!(error, VisionError::ForeignOption { .. });
        let failure = Failure::from(EngineError::from(error));
        match foreign {
            true => Misfit::Foreign(failure),
            false => Misfit::Wrong(failure),
        }
    })
}
