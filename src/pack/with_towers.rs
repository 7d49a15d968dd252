//! A pack of two sources: a text model, and an mmproj file with its towers.

use std::path::Path;

use kernels::Pool;

use super::error::PackError;
use super::gguf::{Gguf, Mmproj};
use super::huggingface::HuggingFace;
use super::plan::{self, Described};
use super::quantize::{Quantizer, Source};
use super::writer::{self, Progress};
use super::{Companion, PackOptions, Packed, Recipe, base_name, begin, companions, write_files};
use crate::model::family;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::Group;

/// Packs a text model with the towers of `mmproj`: a checkpoint in the directory `from`, or a file of llama.cpp with the tokenizer of
/// `tokenizer_dir` where one is given.
///
/// # Errors
/// As [`pack_checkpoint`](super::pack_checkpoint) and [`pack_gguf`](super::pack_gguf); the towers are of another model, damaged, or there
/// twice.
pub fn pack_with_mmproj(
    from: &Path,
    tokenizer_dir: Option<&Path>,
    mmproj: Mmproj,
    target: &Path,
    options: PackOptions,
    pool: &Pool,
    progress: &mut Progress<'_>,
) -> Result<Packed, PackError> {
    writer::check_target(target, options.force)?;
    if options.recipe == Recipe::Mobile {
        let path = from.to_owned();
        return Err(
            match from.is_dir() && HuggingFace::open(from)?.is_mobile() {
                true => PackError::TrainedTowers { path },
                false => PackError::NotTrained { path },
            },
        );
    }
    if !from.is_dir() {
        let mut text = Gguf::open(from)?;
        let (_, small) = text.companions(tokenizer_dir)?;
        let tokenizer = match tokenizer_dir {
            Some(dir) => Tokenizer::load(dir)?,
            None => tokenizer_of(&small, from)?,
        };
        let both = Both {
            text,
            mmproj,
            small,
            tokenizer,
            own: Vec::new(),
            slices_dir: None,
        };
        return both.pack(target, options, pool, progress);
    }
    let mut text = HuggingFace::open(from)?;
    if text.is_mobile() {
        let (path, recipe) = (from.to_owned(), options.recipe.name());
        return Err(PackError::Trained { path, recipe });
    }
    // What its config.json says alone is told first, by name.
    let alone = family::load(from)?;
    text.find_trained(&alone.text_tensors())?;
    let towers = [Group::Audio, Group::Vision].map(|group| (group, text.tensors(group)));
    let mut own = Vec::from(towers);
    own.retain(|(_, tensors)| !tensors.is_empty());
    if let Some((twice, _)) = own
        .iter()
        .find(|(group, _)| mmproj.groups().contains(group))
    {
        return Err(PackError::TwoTowers {
            path: from.to_owned(),
            group: *twice,
            mmproj: mmproj.path().to_owned(),
        });
    }
    let both = Both {
        own,
        small: companions(from)?,
        tokenizer: Tokenizer::load(from)?,
        slices_dir: Some(from),
        text,
        mmproj,
    };
    both.pack(target, options, pool, progress)
}

/// The tokenizer among the small files of a pack.
fn tokenizer_of(small: &[Companion], path: &Path) -> Result<Tokenizer, PackError> {
    let json = small.iter().find(|(name, _)| name == "tokenizer.json");
    let json = json.map(|(_, json)| String::from_utf8_lossy(json));
    Ok(Tokenizer::parse(&json.unwrap_or_default(), path)?)
}

/// A text model and its towers.
struct Both<'a, S> {
    text: S,
    mmproj: Mmproj,
    /// Small files of the text model.
    small: Vec<Companion>,
    tokenizer: Tokenizer,
    /// Towers that the text model has itself.
    own: Vec<(Group, Vec<(String, Described)>)>,
    slices_dir: Option<&'a Path>,
}

impl<S: Source> Both<'_, S> {
    fn pack(
        mut self,
        target: &Path,
        options: PackOptions,
        pool: &Pool,
        progress: &mut Progress<'_>,
    ) -> Result<Packed, PackError> {
        let path = self.text.path().to_owned();
        let architecture = self
            .mmproj
            .complete(pool, &mut self.small, &self.tokenizer, &path)?;
        let slices = architecture.slices(self.slices_dir)?;
        let describe = |name: &str, _: &[usize]| self.text.describe(name);
        let tensors = architecture.text_tensors();
        let mut of_text = Vec::from(plan::text(
            &tensors,
            options.recipe,
            &slices,
            &path,
            &describe,
        )?);
        let tower = |group: Group, tensors: Vec<(String, Described)>| {
            plan::encoder(group, options.recipe, &*architecture, tensors.into_iter())
        };
        of_text.extend(
            std::mem::take(&mut self.own)
                .into_iter()
                .map(|(group, own)| tower(group, own)),
        );
        let mut of_mmproj = Vec::new();
        for &group in self.mmproj.groups() {
            of_mmproj.push(tower(group, self.mmproj.tensors(&*architecture, group)?));
        }
        let files = [&of_text[..], &of_mmproj].concat();
        let mut pack = begin(target, options, &files, &self.small, None, progress)?;
        let mut quantizer = Quantizer::default();
        write_files(&mut pack, &of_text, pool, &mut self.text, &mut quantizer)?;
        write_files(
            &mut pack,
            &of_mmproj,
            pool,
            &mut self.mmproj,
            &mut quantizer,
        )?;
        let source = format!("{} + {}", base_name(&path), base_name(self.mmproj.path()));
        let manifest = pack.commit(options.recipe.name(), &source)?;
        Ok(Packed {
            manifest,
            requantised: quantizer.requantised(),
        })
    }
}
