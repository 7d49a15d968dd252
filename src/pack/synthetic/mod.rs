//! Packs of the real sizes with random weights: what costs time and memory does not depend on what the weights mean.

mod gemma3n;
mod gemma4;
mod mobile;
mod random;
mod vocabulary;
mod weights;

use std::path::Path;

use kernels::Pool;
use safetensors::Dtype;
use serde_json::Value;

use super::error::PackError;
use super::plan::{self, Described, FilePlan};
use super::writer::{self, Progress};
use super::{Companion, PackOptions, Packed, Planned, Recipe, begin};
use crate::model::architecture::Architecture;
use crate::model::decoder::Slices;
use crate::model::weights::{DRAFTER_CONFIG, DRAFTER_ORDERING, Group};
use crate::model::{config, family};
use weights::Weights;

/// Which published model a synthetic pack has the size of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntheticSize {
    /// Gemma 3n E2B: 30 layers, 8192 FFN neurons each.
    E2b,
    /// Gemma 3n E4B: 35 layers, 16384 FFN neurons each.
    E4b,
    /// Gemma 4 E2B: 35 layers, 6144 FFN neurons in 15 of them, 12288 in those that share keys and values.
    Gemma4E2b,
    /// Gemma 4 E4B: 42 layers, 10240 FFN neurons each.
    Gemma4E4b,
}

impl SyntheticSize {
    /// All of them, the newest family first.
    pub const ALL: [SyntheticSize; 4] = [
        SyntheticSize::Gemma4E2b,
        SyntheticSize::Gemma4E4b,
        SyntheticSize::E2b,
        SyntheticSize::E4b,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            SyntheticSize::E2b => "e2b",
            SyntheticSize::E4b => "e4b",
            SyntheticSize::Gemma4E2b => "gemma4-e2b",
            SyntheticSize::Gemma4E4b => "gemma4-e4b",
        }
    }

    /// The size of that name.
    pub fn named(name: &str) -> Option<SyntheticSize> {
        SyntheticSize::ALL
            .into_iter()
            .find(|size| size.name() == name)
    }

    /// Which of its family's models it is: `E2B`.
    pub fn model(self) -> &'static str {
        match self {
            SyntheticSize::E2b | SyntheticSize::Gemma4E2b => "E2B",
            SyntheticSize::E4b | SyntheticSize::Gemma4E4b => "E4B",
        }
    }

    /// The text of a `tokenizer.json` of its family, of the published size and structure; always the same one.
    pub fn tokenizer_json(self) -> String {
        match self {
            SyntheticSize::E2b | SyntheticSize::E4b => vocabulary::gemma3n(),
            SyntheticSize::Gemma4E2b | SyntheticSize::Gemma4E4b => vocabulary::gemma4(),
        }
    }

    /// The recipes that there are packs of, from the smallest to the largest.
    pub fn recipes(self) -> &'static [Recipe] {
        match mobile::quantization_config(self) {
            Some(_) => &[
                Recipe::Mobile,
                Recipe::Small,
                Recipe::Q4_0,
                Recipe::Balanced,
                Recipe::Q8,
            ],
            None => &[Recipe::Small, Recipe::Q4_0, Recipe::Balanced, Recipe::Q8],
        }
    }

    /// Its `config.json`, as published but for the ids of the synthetic vocabulary.
    pub(super) fn config(self, text_only: bool, recipe: Recipe) -> Value {
        let mut config = match self {
            SyntheticSize::E2b => gemma3n::config(gemma3n::E2B, text_only),
            SyntheticSize::E4b => gemma3n::config(gemma3n::E4B, text_only),
            SyntheticSize::Gemma4E2b => gemma4::config(gemma4::E2B, text_only),
            SyntheticSize::Gemma4E4b => gemma4::config(gemma4::E4B, text_only),
        };
        if recipe == Recipe::Mobile {
            config["quantization_config"] = mobile::quantization_config(self).into();
            config["tie_word_embeddings"] = false.into();
        }
        config
    }

    /// The small files of its checkpoint, and of its packs: name and contents; first the `config.json`.
    pub fn small_files(self, text_only: bool, recipe: Recipe) -> Vec<(String, Vec<u8>)> {
        let file =
            |name: &str, value: &Value| (name.to_owned(), format!("{value:#}\n").into_bytes());
        let tokenizer = self.tokenizer_json().into_bytes();
        let mut files = vec![
            file("config.json", &self.config(text_only, recipe)),
            ("tokenizer.json".to_owned(), tokenizer),
        ];
        let others = self.other_files(text_only);
        files.extend(others.iter().map(|(name, value)| file(name, value)));
        files
    }

    /// The configuration of its drafter, as a file of a pack.
    ///
    /// # Errors
    /// There is none.
    fn drafter_config(self) -> Result<Companion, PackError> {
        let config = match self {
            SyntheticSize::Gemma4E2b => gemma4::drafter_config(gemma4::E2B),
            SyntheticSize::Gemma4E4b => gemma4::drafter_config(gemma4::E4B),
            SyntheticSize::E2b | SyntheticSize::E4b => {
                return Err(PackError::NoDrafter { size: self.name() });
            }
        };
        let json = format!("{config:#}\n").into_bytes();
        Ok((DRAFTER_CONFIG.to_owned(), json))
    }

    /// Its other small files: name and contents.
    fn other_files(self, text_only: bool) -> Vec<(&'static str, Value)> {
        match self {
            SyntheticSize::E2b | SyntheticSize::E4b => gemma3n::other_files(text_only),
            SyntheticSize::Gemma4E2b | SyntheticSize::Gemma4E4b => gemma4::other_files(text_only),
        }
    }

    /// Lays its pack out, with the towers that its `config` describes.
    pub(super) fn plan(
        self,
        config: &Value,
        architecture: &dyn Architecture,
        slices: &Slices,
        recipe: Recipe,
    ) -> Result<Vec<FilePlan>, PackError> {
        if recipe == Recipe::Mobile && !self.recipes().contains(&recipe) {
            let path = self.name().into();
            return Err(PackError::NotTrained { path });
        }
        if recipe == Recipe::Mobile {
            return mobile::plan(architecture, config);
        }
        let path = Path::new("config.json");
        let tensors = architecture.text_tensors();
        let text = plan::text(&tensors, recipe, slices, path, &describe)?;
        let mut files = Vec::from(text);
        for group in [Group::Audio, Group::Vision] {
            let tensors = architecture.encoder_tensors(group)?.into_iter();
            let described = tensors.map(|(name, shape)| {
                let tensor = Described {
                    shape,
                    dtype: Dtype::BF16,
                    block_bits: None,
                };
                (name, tensor)
            });
            let file = plan::encoder(group, recipe, architecture, described);
            if !file.entries.is_empty() {
                files.push(file);
            }
        }
        Ok(files)
    }
}

/// What a synthetic pack is to be.
#[derive(Clone, Copy, Debug)]
pub struct Synthetic {
    /// The model that it has the size of.
    pub size: SyntheticSize,
    /// Whether it has neither audio nor vision.
    pub text_only: bool,
    /// Whether it has a drafter.
    pub drafter: bool,
    /// The same seed gives the same pack.
    pub seed: u64,
}

/// Writes a pack of random weights with every tensor of the published model that is used; the same seed gives the same pack.
///
/// # Errors
/// The target exists, or its disk is full or not writable.
pub fn pack_synthetic(
    what: Synthetic,
    target: &Path,
    options: PackOptions<'_>,
    pool: &Pool,
    progress: &mut Progress<'_>,
) -> Result<Packed, PackError> {
    writer::check_target(target, options.force)?;
    let mut small = what.size.small_files(what.text_only, options.recipe);
    if what.drafter {
        small.push(what.size.drafter_config()?);
    }
    let (size, seed) = (what.size, what.seed);
    write(size, seed, small, target, options, pool, progress)
}

/// Likewise, with these small files, the first of which is the `config.json`.
fn write(
    size: SyntheticSize,
    seed: u64,
    small: Vec<Companion>,
    target: &Path,
    options: PackOptions<'_>,
    pool: &Pool,
    progress: &mut Progress<'_>,
) -> Result<Packed, PackError> {
    let (config, path) = (&small[0].1, Path::new(&small[0].0));
    let architecture = family::parse(config, path)?;
    let slices = architecture.slices(None)?;
    let config = config::parse(config, path)?;
    let mut files = size.plan(&config, &*architecture, &slices, options.recipe)?;
    if let Some((name, json)) = small.iter().find(|(name, _)| name == DRAFTER_CONFIG) {
        let path = Path::new(name);
        let value = config::parse(json, path)?;
        let tensors = architecture.drafter_tensors(&value, path, &|_| true)?;
        let recipe = options.recipe;
        files.push(plan::drafter(&tensors, recipe, &slices, path, &describe)?);
    }
    let planned = Planned { files, small };
    let mut pack = begin(target, options, &planned, None, progress)?;
    let mut weights = Weights::new(seed);
    for file in &planned.files {
        pack.tensors(file, |entry, out| weights.write(pool, entry, out))?;
    }
    let source = format!("synthetic {} seed {seed}", size.name());
    let manifest = pack.commit(options.recipe.name(), &source)?;
    Ok(Packed {
        manifest,
        requantised: Vec::new(),
    })
}

/// A tensor as the published files have it: those in 16 bits, and those that were trained in 4, which have the matrices of layers so.
fn describe(name: &str, shape: &[usize]) -> Option<Described> {
    let dtype = match name {
        DRAFTER_ORDERING => Dtype::I32,
        _ => Dtype::BF16,
    };
    Some(Described {
        shape: shape.to_vec(),
        dtype,
        block_bits: name.contains(".layers.").then_some(4),
    })
}

#[cfg(test)]
mod tests;
