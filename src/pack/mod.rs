//! Makes packs: a checkpoint quantised, in the layout that the kernels read in place.
//!
//! 1. The source's hyper-parameters, tokenizer and slices are read and checked.
//! 2. `plan` lays out every tensor of every file; a source that lacks one is refused before anything is written.
//! 3. `writer` checks the free space and writes beside the target, hashing as it goes; `quantize` streams the tensors through
//!    in pieces of 16 MiB, all cores at work.
//! 4. Everything is synchronised, and one rename makes the pack appear.

mod drafter;
mod error;
mod estimate;
mod gguf;
mod huggingface;
mod journal;
mod layout;
mod mobile;
mod plan;
mod quantize;
mod recipe;
mod residual;
mod source;
mod streaming;
mod synthetic;
mod trained;
mod verify;
mod widths;
mod with_towers;
mod writer;

use std::io::Read as _;
use std::path::Path;

use kernels::Pool;

pub use error::PackError;
pub use estimate::{PackEstimate, SliceEstimate};
pub use gguf::Mmproj;
pub use recipe::Recipe;
pub use streaming::{HubSource, Told, gguf_parts, pack_from_hub};
pub use synthetic::{Synthetic, SyntheticSize, pack_synthetic};
pub use verify::{verified_at, verify};
pub use with_towers::pack_with_mmproj;
pub use writer::Progress;

use crate::model::architecture::Architecture;
use crate::model::decoder::Slices;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::{Group, PackManifest};
use crate::model::{config, family};
use drafter::Drafter;
use gguf::Gguf;
use huggingface::HuggingFace;
use journal::Journal;
use plan::FilePlan;
use quantize::Quantizer;
use source::Source;
use widths::Widths;
use writer::PackWriter;

/// How a pack is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct PackOptions<'a> {
    /// Bits of each kind of matrix.
    pub recipe: Recipe,
    /// Whether a pack at the target is replaced.
    pub force: bool,
    /// The directory of a drafter that is packed with the model.
    pub drafter: Option<&'a Path>,
}

/// Files of a checkpoint that a pack takes over, those that exist.
const COMPANIONS: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "slices.toml",
];
/// The largest of them, tokenizer.json, has 33 MB.
const MAX_COMPANION_BYTES: u64 = 128 << 20;

/// A small file of a pack: name and contents.
type Companion = (String, Vec<u8>);

/// Packs the checkpoint in `dir`, in the layout that Hugging Face publishes, as `target`.
///
/// Recipe [`Recipe::Mobile`] takes the weights over as they were trained, and only those that were
/// ([`Checkpoint::is_mobile`](crate::model::weights::Checkpoint::is_mobile)).
///
/// # Errors
/// The source is incomplete, malformed or a pack; the recipe is none for it; the target exists, or its disk is full or not writable.
/// Nothing is left at the target then.
pub fn pack_checkpoint(
    dir: &Path,
    target: &Path,
    options: PackOptions<'_>,
    pool: &Pool,
    progress: &mut Progress<'_>,
) -> Result<Packed, PackError> {
    writer::check_target(target, options.force)?;
    let mut source = HuggingFace::open(dir)?;
    let architecture = family::load(dir)?;
    source.find_trained(&architecture.text_tensors())?;
    let slices = architecture.slices(Some(dir))?;
    let spec = architecture.spec();
    let config_path = dir.join("config.json");
    Tokenizer::load(dir)?.check_config(&spec.ids, spec.vocab_size, &config_path)?;

    let has_head = look_at_trained(&mut source, options.recipe)?;
    let planned = Planned {
        files: plan_checkpoint(&source, &*architecture, &slices, has_head, options.recipe)?,
        small: companions(dir)?,
    };
    let name = base_name(dir);
    write(planned, &name, target, options, pool, &mut source, progress)
}

/// All of a pack before the first byte of it is written.
struct Planned {
    files: Vec<FilePlan>,
    /// Its small files.
    small: Vec<Companion>,
}

/// Looks at weights that are kept as they were trained; tells whether the head is not the token embeddings.
fn look_at_trained(source: &mut HuggingFace, recipe: Recipe) -> Result<bool, PackError> {
    if !source.is_mobile() || recipe != Recipe::Mobile {
        return Ok(false);
    }
    source.check_roundings()?;
    source.has_second_head(&mut |_| Ok(()))
}

/// Lays a checkpoint out; `has_head` tells of one whose weights were trained in few bits that its head is not its token embeddings.
fn plan_checkpoint(
    source: &HuggingFace,
    architecture: &dyn Architecture,
    slices: &Slices,
    has_head: bool,
    recipe: Recipe,
) -> Result<Vec<FilePlan>, PackError> {
    let path = source.path().to_owned();
    match (source.is_mobile(), recipe) {
        (true, Recipe::Mobile) => {
            let find = |name: &str| source.describe(name);
            let files = mobile::files(architecture, &path, &find, has_head)?;
            let (config, path) = config::read(&path)?;
            Widths::of(&config, &path)?.check(&files)?;
            return Ok(files);
        }
        (true, recipe) => {
            let recipe = recipe.name();
            return Err(PackError::Trained { path, recipe });
        }
        (false, Recipe::Mobile) => return Err(PackError::NotTrained { path }),
        (false, _) => {}
    }
    let describe = |name: &str, _: &[usize]| source.describe(name);
    let tensors = architecture.text_tensors();
    let mut files = Vec::from(plan::text(&tensors, recipe, slices, &path, &describe)?);
    for group in [Group::Audio, Group::Vision] {
        let tensors = source.tensors(group);
        if !tensors.is_empty() {
            let tensors = tensors.into_iter();
            files.push(plan::encoder(group, recipe, architecture, tensors));
        }
    }
    Ok(files)
}

/// Packs a text model of llama.cpp; its tokenizer is that of `tokenizer_dir` where one is given, else the file's own.
///
/// # Errors
/// As [`pack_checkpoint`]; the file is malformed, or holds something else than a model that is packed.
pub fn pack_gguf(
    file: &Path,
    tokenizer_dir: Option<&Path>,
    target: &Path,
    options: PackOptions<'_>,
    pool: &Pool,
    progress: &mut Progress<'_>,
) -> Result<Packed, PackError> {
    writer::check_target(target, options.force)?;
    let mut source = Gguf::open(file)?;
    let planned = plan_gguf(&mut source, tokenizer_dir, options.recipe)?;
    let name = base_name(file);
    write(planned, &name, target, options, pool, &mut source, progress)
}

/// Lays a text model of llama.cpp out.
fn plan_gguf(
    source: &mut Gguf,
    tokenizer_dir: Option<&Path>,
    recipe: Recipe,
) -> Result<Planned, PackError> {
    let path = source.path().to_owned();
    if recipe == Recipe::Mobile {
        return Err(PackError::NotTrained { path });
    }
    let (architecture, small) = source.companions(tokenizer_dir)?;
    let slices = architecture.slices(None)?;
    let describe = |name: &str, _: &[usize]| source.describe(name);
    let tensors = architecture.text_tensors();
    let files = plan::text(&tensors, recipe, &slices, &path, &describe)?;
    Ok(Planned {
        files: Vec::from(files),
        small,
    })
}

/// Writes a pack of the source that is called so.
fn write(
    mut planned: Planned,
    name: &str,
    target: &Path,
    options: PackOptions<'_>,
    pool: &Pool,
    source: &mut impl Source,
    progress: &mut Progress<'_>,
) -> Result<Packed, PackError> {
    let mut name = name.to_owned();
    let mut drafter = match options.drafter {
        None => None,
        Some(dir) => {
            name += &format!(" + {}", base_name(dir));
            Some(Drafter::add(dir, options.recipe, &mut planned)?)
        }
    };
    let mut pack = begin(target, options, &planned, None, progress)?;
    let mut quantizer = Quantizer::default();
    for file in &planned.files {
        pack.tensors(file, |entry, out| match &mut drafter {
            Some(drafter) if file.group == Group::Drafter => {
                quantizer.write(pool, drafter, entry, out)
            }
            _ => quantizer.write(pool, source, entry, out),
        })?;
    }
    Ok(Packed {
        manifest: pack.commit(options.recipe.name(), &name)?,
        requantised: quantizer.requantised(),
    })
}

/// A pack that was made.
#[derive(Debug)]
pub struct Packed {
    /// Its description.
    pub manifest: PackManifest,
    /// Tensors of which some rows could not be taken over as they are, by name: an integer of 8 bits was −128, or a group of weights
    /// was off the grid of the others.
    pub requantised: Vec<String>,
}

impl Packed {
    /// A line for people where some weights are not what they were.
    pub fn warning(&self) -> Option<String> {
        let first = self.requantised.first()?;
        let others = match self.requantised.len() {
            1 => String::new(),
            n => format!(" and of {} more", n - 1),
        };
        Some(format!(
            "some rows of {first}{others} could not be taken over as they are and were quantised anew"
        ))
    }
}

/// The recipe that fits a source, and whether it keeps integers that were trained as they are, which no other does.
///
/// # Errors
/// As [`pack_checkpoint`] and [`pack_gguf`]: the source is malformed, or no model that is packed.
pub fn fitting_recipe(from: &Path) -> Result<(Recipe, bool), PackError> {
    let is_trained = if from.is_dir() {
        let mut source = HuggingFace::open(from)?;
        if source.is_mobile() {
            return Ok((Recipe::Mobile, true));
        }
        let architecture = family::load(from)?;
        source.find_trained(&architecture.text_tensors())?
    } else {
        let mut source = Gguf::open(from)?;
        let architecture = source.architecture()?;
        source.is_trained(&*architecture)
    };
    Ok(match is_trained {
        true => (Recipe::Q4_0, true),
        false => (Recipe::default(), false),
    })
}

fn begin<'a>(
    target: &Path,
    options: PackOptions<'_>,
    Planned { files, small }: &Planned,
    journal: Option<Journal>,
    progress: &'a mut Progress<'a>,
) -> Result<PackWriter<'a>, PackError> {
    let tensors = files.iter().flat_map(|file| &file.entries);
    let total_bytes = tensors
        .map(|entry| entry.bytes().unwrap_or(u64::MAX))
        .chain(small.iter().map(|(_, bytes)| bytes.len() as u64))
        .fold(0, u64::saturating_add);
    let mut pack = PackWriter::begin(target, options.force, total_bytes, journal, progress)?;
    for (name, bytes) in small {
        pack.small_file(name, bytes)?;
    }
    Ok(pack)
}

/// Reads the small files of a checkpoint.
fn companions(dir: &Path) -> Result<Vec<Companion>, PackError> {
    let mut found = Vec::new();
    for name in COMPANIONS {
        let path = dir.join(name);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(PackError::read(path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_COMPANION_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(PackError::read(&path))?;
        if bytes.len() as u64 > MAX_COMPANION_BYTES {
            return Err(PackError::TooLarge {
                path,
                what: name.to_owned(),
                limit_bytes: MAX_COMPANION_BYTES,
            });
        }
        found.push((name.to_owned(), bytes));
    }
    Ok(found)
}

/// The last part of a path, also of `.`.
fn base_name(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
