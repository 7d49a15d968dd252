//! From the hub into a pack: the header of the weights first, then each tensor as it is needed, by ranges.
//!
//! Beside the pack that is to be stands `NAME.pull`, which the run holds locked. In there are the small files, the weights' files as
//! far as they are needed at the moment ([`staging`]), and two journals: what of the pack is written and what is fetched. A run that
//! is killed goes on from there.

mod drafter;
mod gguf;
mod source;
mod staging;
mod workplace;

use std::path::Path;

use kernels::Pool;

use super::drafter::Drafter;
use super::error::PackError;
use super::huggingface::HuggingFace;
use super::quantize::Quantizer;
use super::source::Located;
use super::writer::{self, Progress};
use super::{PackOptions, Packed, Planned, Recipe, begin, companions, plan_checkpoint};
use crate::hub::{Client, RemoteFile, Repository};
use crate::model::architecture::Architecture;
use crate::model::family;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::Group;
pub use gguf::gguf_parts;
use source::Streamed;
use staging::Staging;
use workplace::{SINGLE, Workplace, origin};

/// What is fetched and packed.
pub struct HubSource<'a> {
    /// Who is asked.
    pub client: &'a Client,
    /// The checkpoint.
    pub repository: &'a Repository,
    /// The file of llama.cpp that is meant, where one is.
    pub gguf: Option<&'a RemoteFile>,
    /// Whose small files it gets.
    pub tokenizer: Option<&'a Repository>,
    /// Its drafter, where that is wanted.
    pub drafter: Option<&'a Repository>,
    /// The parameter groups that are wanted.
    pub groups: &'a [Group],
    /// Whether a recipe that keeps trained weights as they are comes before the one that is given.
    pub keeps_trained: bool,
}

impl HubSource<'_> {
    /// What a pack says of where it is from.
    pub fn origin(&self) -> String {
        let drafter = self.drafter.map(|drafter| origin(drafter, None));
        let drafter = drafter.map_or_else(String::new, |drafter| format!(" + {drafter}"));
        origin(self.repository, self.gguf) + &drafter
    }
}

/// Is told what goes on.
pub struct Told<'a> {
    /// So many more bytes came from the hub.
    pub fetched: &'a mut dyn FnMut(u64),
    /// A line for people.
    pub note: &'a dyn Fn(&str),
}

/// Fetches a model from the hub and packs it as `target`. What was fetched stays beside it until the pack is whole.
///
/// # Errors
/// The hub does not give it, or it is none; the target exists, or its disk is full or not writable. Nothing is at the target then.
pub fn pack_from_hub(
    hub: &HubSource<'_>,
    target: &Path,
    options: PackOptions<'_>,
    pool: &Pool,
    progress: &mut Progress<'_>,
    told: &mut Told<'_>,
) -> Result<Packed, PackError> {
    writer::check_target(target, options.force)?;
    let place = Workplace::take(target, hub)?;
    place.tell_revision(told.note)?;
    let drafter = drafter::fetch(hub, &place, told)?;
    let options = PackOptions {
        drafter: drafter.as_deref(),
        ..options
    };
    let run = Run {
        hub,
        place: &place,
        target,
        options,
        pool,
    };
    let packed = match hub.gguf {
        Some(file) => run.gguf(file, progress, told)?,
        None => run.checkpoint(progress, told)?,
    };
    place.remove()?;
    Ok(packed)
}

/// What a run was given.
struct Run<'a> {
    hub: &'a HubSource<'a>,
    place: &'a Workplace,
    target: &'a Path,
    options: PackOptions<'a>,
    pool: &'a Pool,
}

impl Run<'_> {
    /// A checkpoint in the published layout.
    fn checkpoint(
        &self,
        progress: &mut Progress<'_>,
        told: &mut Told<'_>,
    ) -> Result<Packed, PackError> {
        let (hub, place) = (self.hub, self.place);
        place.small_files(hub.client, hub.repository, told)?;
        // What no such file is told of is told before anything large is fetched.
        let dir = place.source();
        let architecture = family::load(dir)?;
        let weights = place.weights(hub.repository)?;
        let files = files(hub.repository, &weights);
        let mut staging = Staging::new(hub, place, &files, told.fetched)?;
        for file in &weights {
            staging.add_safetensors(file)?;
        }
        let mut source = HuggingFace::open(dir)?;
        let recipe = self.recipe(&mut source, &*architecture, &mut staging)?;
        let has_head = recipe == Recipe::Mobile
            && source.is_mobile()
            && place.remembered("head", &files, || {
                let has_head = source.has_second_head(&mut |found| staging.fetch(found))?;
                // What is the same is not packed twice.
                if !has_head {
                    staging.release_all(&source.locate_second_head())?;
                }
                Ok(has_head)
            })?;
        let slices = architecture.slices(Some(dir))?;
        let spec = architecture.spec();
        let config = dir.join("config.json");
        Tokenizer::load(dir)?.check_config(&spec.ids, spec.vocab_size, &config)?;
        let planned = Planned {
            files: plan_checkpoint(&source, &*architecture, &slices, has_head, recipe)?,
            small: companions(dir)?,
        };
        self.write(
            planned,
            source,
            staging,
            (&files, recipe),
            progress,
            told.note,
        )
    }

    /// The recipe: one that keeps trained weights as they are comes first, where that is wanted.
    fn recipe(
        &self,
        source: &mut HuggingFace,
        architecture: &dyn Architecture,
        staging: &mut Staging<'_>,
    ) -> Result<Recipe, PackError> {
        let tensors = architecture.text_tensors();
        let is_trained =
            source.find_trained_by_one_layer(&tensors, &mut |found| staging.fetch(found))?;
        Ok(match (self.hub.keeps_trained, is_trained) {
            (true, _) if source.is_mobile() => Recipe::Mobile,
            (true, true) => Recipe::Q4_0,
            _ => self.options.recipe,
        })
    }

    /// Writes what is wanted of a pack, each tensor as it comes.
    fn write(
        &self,
        mut planned: Planned,
        source: impl Located,
        staging: Staging<'_>,
        (files, recipe): (&str, Recipe),
        progress: &mut Progress<'_>,
        note: &dyn Fn(&str),
    ) -> Result<Packed, PackError> {
        let hub = self.hub;
        planned
            .files
            .retain(|file| hub.groups.contains(&file.group));
        planned.small.extend(self.place.licence(hub.repository)?);
        let mut source = Streamed::new(source, staging, &planned.files);
        let mut drafter = match self.options.drafter {
            None => None,
            Some(dir) => Some(Drafter::add(dir, recipe, &mut planned)?),
        };
        let groups: Vec<String> = hub.groups.iter().map(Group::to_string).collect();
        let purpose = format!("{files} as {} of {}", recipe.name(), groups.join("+"));
        let journal = self.place.journal("written", &purpose)?;
        if journal.has_any() || source.goes_on() {
            note("going on where an earlier run ended");
        }
        let options = PackOptions {
            recipe,
            ..self.options
        };
        let mut pack = begin(self.target, options, &planned, Some(journal), progress)?;
        let mut quantizer = Quantizer::default();
        for file in &planned.files {
            pack.tensors(file, |entry, out| {
                if let Some(drafter) = &mut drafter
                    && file.group == Group::Drafter
                {
                    return quantizer.write(self.pool, drafter, entry, out);
                }
                let kept = out.kept();
                source.begin(entry, kept);
                quantizer.write(self.pool, &mut source, entry, out)?;
                // Before what it was made of is given back.
                out.mark(1)?;
                source.end(self.pool, entry.bytes().is_some_and(|bytes| kept < bytes))
            })?;
        }
        Ok(Packed {
            manifest: pack.commit(recipe.name(), &hub.origin())?,
            requantised: quantizer.requantised(),
        })
    }
}

/// What has to be the same for a run to go on where another ended. The commit need not be: weights seldom change with it.
fn files(repository: &Repository, files: &[&RemoteFile]) -> String {
    let of_file = |file: &&RemoteFile| {
        let etag = file.etag.as_ref().map_or(SINGLE, |etag| etag.hex());
        format!("{}={etag}:{}", file.name, file.size)
    };
    let files: Vec<String> = files.iter().map(of_file).collect();
    let (version, id) = (env!("CARGO_PKG_VERSION"), &repository.id);
    format!("gemmad {version} {id} {}", files.join(" "))
}
