//! A pack of two sources: a text model, and an mmproj file with its towers.

use std::ops::Range;
use std::path::Path;

use kernels::Pool;

use super::error::PackError;
use super::gguf::{Gguf, Mmproj};
use super::huggingface::HuggingFace;
use super::plan::{self, Described};
use super::source::{Fetch, Groups, Located, Location, Source};
use super::writer::{self, Progress};
use super::{Companion, PackOptions, Packed, Planned, Recipe, base_name, companions, write};
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
    options: PackOptions<'_>,
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
    let name = format!("{} + {}", base_name(from), base_name(mmproj.path()));
    if !from.is_dir() {
        let text = Gguf::open(from)?;
        let mut both = Both { text, mmproj };
        let planned = both.plan_gguf(tokenizer_dir, options.recipe)?;
        both.mmproj.look_at_bounds(pool)?;
        return write(planned, &name, target, options, pool, &mut both, progress);
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
    let mut both = Both { text, mmproj };
    let beside = Beside {
        own,
        small: companions(from)?,
        tokenizer: Tokenizer::load(from)?,
        slices_dir: Some(from),
    };
    let planned = both.plan(from, beside, options.recipe)?;
    both.mmproj.look_at_bounds(pool)?;
    write(planned, &name, target, options, pool, &mut both, progress)
}

/// A text model, and towers for it.
pub(super) struct Both<S> {
    pub(super) text: S,
    pub(super) mmproj: Mmproj,
}

/// What a text model has beside its tensors.
struct Beside<'a> {
    /// Its small files.
    small: Vec<Companion>,
    tokenizer: Tokenizer,
    /// Towers of its own.
    own: Vec<(Group, Vec<(String, Described)>)>,
    slices_dir: Option<&'a Path>,
}

impl Both<Gguf> {
    /// Lays the pack out, with the tokenizer of `tokenizer_dir` or the file's own.
    pub(super) fn plan_gguf(
        &mut self,
        tokenizer_dir: Option<&Path>,
        recipe: Recipe,
    ) -> Result<Planned, PackError> {
        let path = self.text.path().to_owned();
        let (_, small) = self.text.companions(tokenizer_dir)?;
        let beside = Beside {
            tokenizer: match tokenizer_dir {
                Some(dir) => Tokenizer::load(dir)?,
                None => tokenizer_of(&small, &path)?,
            },
            small,
            own: Vec::new(),
            slices_dir: None,
        };
        self.plan(&path, beside, recipe)
    }
}

/// The tokenizer among the small files of a pack.
fn tokenizer_of(small: &[Companion], path: &Path) -> Result<Tokenizer, PackError> {
    let json = small.iter().find(|(name, _)| name == "tokenizer.json");
    let json = json.map(|(_, json)| String::from_utf8_lossy(json));
    Ok(Tokenizer::parse(&json.unwrap_or_default(), path)?)
}

impl<S: Source> Both<S> {
    fn plan(
        &mut self,
        path: &Path,
        beside: Beside<'_>,
        recipe: Recipe,
    ) -> Result<Planned, PackError> {
        let mut small = beside.small;
        let architecture = self.mmproj.complete(&mut small, &beside.tokenizer, path)?;
        let slices = architecture.slices(beside.slices_dir)?;
        let describe = |name: &str, _: &[usize]| self.text.describe(name);
        let tensors = architecture.text_tensors();
        let text = plan::text(&tensors, recipe, &slices, path, &describe)?;
        let mut files = Vec::from(text);
        let mut towers = beside.own;
        for &group in self.mmproj.groups() {
            towers.push((group, self.mmproj.tensors(&*architecture, group)?));
        }
        files.extend(towers.into_iter().map(|(group, tensors)| {
            plan::encoder(group, recipe, &*architecture, tensors.into_iter())
        }));
        Ok(Planned { files, small })
    }

    fn has_towers(&self, name: &str) -> bool {
        Group::of(name).is_some_and(|group| self.mmproj.groups().contains(&group))
    }

    /// Whose tensor it is.
    fn source(&mut self, name: &str) -> &mut dyn Source {
        match self.has_towers(name) {
            true => &mut self.mmproj,
            false => &mut self.text,
        }
    }
}

impl<S: Located> Located for Both<S> {
    fn locate(&self, name: &str, rows: Range<usize>) -> Vec<Location> {
        match self.has_towers(name) {
            true => self.mmproj.locate(name, rows),
            false => self.text.locate(name, rows),
        }
    }

    fn look_at(&mut self, pool: &Pool, name: &str, fetch: &mut Fetch<'_>) -> Result<(), PackError> {
        match self.has_towers(name) {
            true => self.mmproj.look_at(pool, name, fetch),
            false => self.text.look_at(pool, name, fetch),
        }
    }
}

impl<S: Source> Source for Both<S> {
    fn path_of(&self, name: &str) -> &Path {
        match self.has_towers(name) {
            true => self.mmproj.path(),
            false => self.text.path_of(name),
        }
    }

    fn describe(&self, name: &str) -> Option<Described> {
        match self.has_towers(name) {
            true => self.mmproj.describe(name),
            false => self.text.describe(name),
        }
    }

    fn read(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), PackError> {
        self.source(name).read(pool, name, rows, cols, out)
    }

    fn read_groups(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        groups: &mut Groups,
    ) -> Result<bool, PackError> {
        self.source(name)
            .read_groups(pool, name, rows, cols, groups)
    }
}
