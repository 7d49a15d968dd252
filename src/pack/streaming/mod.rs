//! From the hub into a pack: the header of the weights first, then each tensor as it is needed, by ranges.
//!
//! Beside the pack that is to be stands `NAME.pull`, which the run holds locked. In there are the small files, the weights' files as
//! far as they are needed at the moment ([`staging`]), and two journals: what of the pack is written and what is fetched. A run that
//! is killed goes on from there.
//!
//! Weights that are quantised already, and files of llama.cpp, are no larger than what is made of them: they are fetched whole, and
//! then packed.

mod source;
mod staging;
mod workplace;

use std::path::Path;

use kernels::Pool;
use safetensors::Dtype;

use super::error::PackError;
use super::huggingface::HuggingFace;
use super::plan::FilePlan;
use super::quantize::Quantizer;
use super::writer::{self, Progress};
use super::{
    Companion, Mmproj, PackOptions, begin, companions, fitting_recipe, pack_checkpoint, pack_gguf,
    pack_with_mmproj, plan_checkpoint,
};
use crate::hub::{Client, RemoteFile, Repository};
use crate::model::architecture::Architecture;
use crate::model::family;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::{Checkpoint, Group, PackManifest};
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
    /// The parameter groups that are wanted.
    pub groups: &'a [Group],
    /// Whether a recipe that keeps trained weights as they are comes before the one that is given.
    pub keeps_trained: bool,
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
    options: PackOptions,
    pool: &Pool,
    progress: &mut Progress<'_>,
    told: &mut Told<'_>,
) -> Result<PackManifest, PackError> {
    writer::check_target(target, options.force)?;
    let place = Workplace::take(target, hub)?;
    place.tell_revision(told.note)?;
    let manifest = match hub.gguf {
        Some(file) => gguf(hub, file, &place, target, options, pool, progress, told)?,
        None => checkpoint(hub, &place, target, options, pool, progress, told)?,
    };
    place.remove()?;
    Ok(manifest)
}

/// A file of llama.cpp: whole, and then packed.
#[allow(clippy::too_many_arguments, reason = "what the caller was given")]
fn gguf(
    hub: &HubSource<'_>,
    file: &RemoteFile,
    place: &Workplace,
    target: &Path,
    options: PackOptions,
    pool: &Pool,
    progress: &mut Progress<'_>,
    told: &mut Told<'_>,
) -> Result<PackManifest, PackError> {
    let tokenizer = match hub.tokenizer {
        Some(repository) => {
            place.small_files(hub.client, repository, told)?;
            Some(place.source())
        }
        None => None,
    };
    for part in gguf_parts(hub.repository, file) {
        place.whole(hub, part, progress, told)?;
    }
    let path = place.path(file);
    let options = fitting(hub, &path, options);
    let wants_towers = hub.groups.iter().any(|group| *group >= Group::Audio);
    match mmproj(hub.repository).filter(|_| wants_towers) {
        Some(towers) => {
            place.whole(hub, towers, progress, told)?;
            let towers = Mmproj::open(&place.path(towers))?;
            pack_with_mmproj(&path, tokenizer, towers, target, options, pool, progress)?;
        }
        None => drop(pack_gguf(
            &path, tokenizer, target, options, pool, progress,
        )?),
    }
    place.sign(target, hub.repository)
}

/// What hears and sees, beside files of llama.cpp that lack it; of several the one with the most bits.
fn mmproj(repository: &Repository) -> Option<&RemoteFile> {
    let is_one = |file: &&RemoteFile| {
        let name = file.name.to_ascii_lowercase();
        name.contains("mmproj") && name.ends_with(".gguf")
    };
    let bits = |file: &&RemoteFile| file.size;
    repository.files.iter().filter(is_one).max_by_key(bits)
}

/// The options, with the recipe that keeps trained weights as they are where that is wanted.
fn fitting(hub: &HubSource<'_>, from: &Path, options: PackOptions) -> PackOptions {
    // What is wrong with the source is told when it is packed.
    match fitting_recipe(from) {
        Ok((recipe, true)) if hub.keeps_trained => PackOptions { recipe, ..options },
        _ => options,
    }
}

/// The files that one of llama.cpp is a part of (`NAME-00001-of-00003.gguf`), in their order; of a whole one itself.
pub fn gguf_parts<'a>(repository: &'a Repository, file: &'a RemoteFile) -> Vec<&'a RemoteFile> {
    let Some(all) = name_of_parts(&file.name) else {
        return vec![file];
    };
    let is_part = |other: &&RemoteFile| name_of_parts(&other.name) == Some(all);
    repository.files.iter().filter(is_part).collect()
}

/// What the names of all parts have in common: before their number, and behind it.
fn name_of_parts(name: &str) -> Option<(&str, &str)> {
    const NUMBER: usize = "00001".len();
    const END: usize = "-of-00003.gguf".len();
    let (rest, end) = name.split_at_checked(name.len().checked_sub(END)?)?;
    let (stem, number) = rest.split_at_checked(rest.len().checked_sub(NUMBER)?)?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let total = end.strip_prefix("-of-")?.strip_suffix(".gguf")?;
    (is_number(number) && is_number(total)).then_some((stem, end))
}

fn checkpoint(
    hub: &HubSource<'_>,
    place: &Workplace,
    target: &Path,
    options: PackOptions,
    pool: &Pool,
    progress: &mut Progress<'_>,
    told: &mut Told<'_>,
) -> Result<PackManifest, PackError> {
    place.small_files(hub.client, hub.repository, told)?;
    // What no such file is told of is told before anything large is fetched.
    let architecture = family::load(place.source())?;
    let weights = place.weights(hub.repository)?;
    let purpose = purpose(hub, &weights, options);
    let mut staging = Staging::new(hub, place, &purpose, told.fetched)?;
    for file in &weights {
        match hub.client.settings().cache.file(hub.repository, file) {
            Some(path) => place.link(&path, file)?,
            None => staging.add(file)?,
        }
    }
    let checkpoint = Checkpoint::open_source(place.source())?;
    let is_plain = |dtype| matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
    if !checkpoint.tensors().all(|info| is_plain(info.dtype)) {
        drop(staging);
        for file in weights {
            place.whole(hub, file, progress, told)?;
        }
        let options = fitting(hub, place.source(), options);
        pack_checkpoint(place.source(), target, options, pool, progress)?;
        return place.sign(target, hub.repository);
    }
    let (files, companions) = lay_out(hub, place, &*architecture, options)?;
    let journal = place.journal("written", &purpose)?;
    if journal.has_any() || staging.goes_on() {
        (told.note)("going on where an earlier run ended");
    }
    let mut pack = begin(
        target,
        options,
        &files,
        &companions,
        Some(journal),
        progress,
    )?;
    let mut source = Streamed::new(place.source(), &checkpoint, staging, &files)?;
    let mut quantizer = Quantizer::default();
    for file in &files {
        pack.tensors(file, |entry, out| {
            source.begin(entry, out.kept())?;
            quantizer.write(pool, &mut source, entry, out)?;
            source.end()
        })?;
    }
    pack.commit(options.recipe.name(), &origin(hub.repository))
}

/// The files of the pack, and what is taken over as it is.
fn lay_out(
    hub: &HubSource<'_>,
    place: &Workplace,
    architecture: &dyn Architecture,
    options: PackOptions,
) -> Result<(Vec<FilePlan>, Vec<Companion>), PackError> {
    let dir = place.source();
    let slices = architecture.slices(Some(dir))?;
    let spec = architecture.spec();
    let config = dir.join("config.json");
    Tokenizer::load(dir)?.check_config(&spec.ids, spec.vocab_size, &config)?;
    let mut source = HuggingFace::open(dir)?;
    let mut files = plan_checkpoint(&mut source, architecture, &slices, options.recipe)?;
    files.retain(|file| hub.groups.contains(&file.group));
    let mut small = companions(dir)?;
    small.extend(place.licence(hub.repository)?);
    Ok((files, small))
}

/// What has to be the same for a run to go on where another ended. The commit need not be: weights seldom change with it.
fn purpose(hub: &HubSource<'_>, weights: &[&RemoteFile], options: PackOptions) -> String {
    let groups: Vec<String> = hub.groups.iter().map(Group::to_string).collect();
    let of_file = |file: &&RemoteFile| {
        let etag = file.etag.as_ref().map_or(SINGLE, |etag| etag.hex());
        format!("{}={etag}:{}", file.name, file.size)
    };
    let files: Vec<String> = weights.iter().map(of_file).collect();
    format!(
        "gemmad {} {} {} {} {}",
        env!("CARGO_PKG_VERSION"),
        hub.repository.id,
        options.recipe.name(),
        groups.join("+"),
        files.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_by_their_names() {
        let names = [
            "b/M-00001-of-00002.gguf",
            "b/M-00002-of-00002.gguf",
            "b/N-00001-of-00002.gguf",
            "M-00001-of-00002.gguf",
            "M.gguf",
        ];
        let files = names.map(|name| RemoteFile {
            name: name.to_owned(),
            size: 1,
            etag: None,
        });
        let repository = Repository {
            id: "a/b".to_owned(),
            commit: "0".repeat(40),
            gated: false,
            licence: None,
            files: files.to_vec(),
        };
        let parts = |at: usize| -> Vec<&str> {
            let parts = gguf_parts(&repository, &files[at]).into_iter();
            parts.map(|file| file.name.as_str()).collect()
        };
        assert_eq!(parts(0), names[..2]);
        assert_eq!(parts(1), names[..2]);
        assert_eq!(parts(2), names[2..3]);
        assert_eq!(parts(4), names[4..]);
    }
}
