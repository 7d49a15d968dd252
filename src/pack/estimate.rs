//! What a model needs in a recipe, before anybody has packed it, and what a pack needs: for choosing a recipe and a slice for a board.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::error::PackError;
use super::huggingface::HuggingFace;
use super::plan::{Described, Entry, FilePlan, Store};
use super::recipe::Recipe;
use super::synthetic::SyntheticSize;
use crate::model::architecture::Architecture;
use crate::model::decoder::{Slice, Slices};
use crate::model::family;
use crate::model::tensor_table::TextTensor;
use crate::model::weights::{Checkpoint, Group, HEAD_RESIDUAL};

/// A model in a recipe.
pub struct PackEstimate {
    /// What it is.
    pub architecture: Arc<dyn Architecture>,
    /// The slices that it serves; the first is the whole model.
    pub slices: Slices,
    /// Bytes of all weights.
    pub flash_bytes: u64,
    /// Bytes of the audio tower and of the vision tower; 0 for one that is not there.
    pub tower_bytes: [u64; 2],
    /// Bytes of the drafter; 0 where there is none.
    pub drafter_bytes: u64,
    text: Vec<Entry>,
}

/// What a slice of it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceEstimate {
    /// Text weights that it ever reads, which is what becomes resident.
    pub resident_bytes: u64,
    /// Weights that one decoded token reads: of layers with sparse activations only the rows of active neurons, of the head's second
    /// plane none (it is the rows of a few hundred tokens, which depends on what is said).
    pub token_bytes: u64,
}

impl PackEstimate {
    /// Lays the pack of a published size out without writing it.
    ///
    /// # Errors
    /// There are no such weights of that size.
    pub fn new(size: SyntheticSize, recipe: Recipe) -> Result<PackEstimate, PackError> {
        let path = Path::new("config.json");
        let config = size.config(false, recipe);
        let architecture = family::parse(config.to_string().as_bytes(), path)?;
        let slices = architecture.slices(None)?;
        let files = size.plan(&config, &*architecture, &slices, recipe)?;
        Ok(PackEstimate::of(architecture, slices, files))
    }

    /// Lays the pack of the checkpoint in `dir` out without writing it.
    ///
    /// # Errors
    /// As [`pack_checkpoint`](super::pack_checkpoint): the checkpoint is incomplete, malformed or a pack, or the recipe is none for it.
    pub fn of_checkpoint(dir: &Path, recipe: Recipe) -> Result<PackEstimate, PackError> {
        let mut source = HuggingFace::open(dir)?;
        let architecture = family::load(dir)?;
        source.find_trained(&architecture.text_tensors())?;
        let slices = architecture.slices(Some(dir))?;
        let has_head = super::look_at_trained(&mut source, recipe)?;
        let files = super::plan_checkpoint(&source, &*architecture, &slices, has_head, recipe)?;
        Ok(PackEstimate::of(architecture, slices, files))
    }

    /// Reads what stands in a pack.
    ///
    /// # Errors
    /// Its config or its slices are missing or malformed.
    pub fn of_pack(pack: &Checkpoint) -> Result<PackEstimate, PackError> {
        let architecture = family::load(pack.dir())?;
        let slices = architecture.slices(Some(pack.dir()))?;
        let bytes = |group: Group| {
            let own = pack.tensors().filter(|info| info.group == Some(group));
            own.map(|info| info.bytes).sum::<u64>()
        };
        Ok(PackEstimate {
            flash_bytes: Group::ALL.into_iter().map(bytes).sum(),
            tower_bytes: [bytes(Group::Audio), bytes(Group::Vision)],
            drafter_bytes: bytes(Group::Drafter),
            text: stored(pack),
            slices,
            architecture,
        })
    }

    fn of(
        architecture: Arc<dyn Architecture>,
        slices: Slices,
        files: Vec<FilePlan>,
    ) -> PackEstimate {
        let of_group = |group: Group| files.iter().filter(move |file| file.group == group);
        let bytes = |group: Group| of_group(group).map(|file| sum(&file.entries)).sum();
        let text = of_group(Group::Text).flat_map(|file| file.entries.clone());
        PackEstimate {
            flash_bytes: Group::ALL.into_iter().map(bytes).sum::<u64>(),
            tower_bytes: [bytes(Group::Audio), bytes(Group::Vision)],
            drafter_bytes: bytes(Group::Drafter),
            text: text.collect(),
            slices,
            architecture,
        }
    }

    /// What a slice reads.
    pub fn slice(&self, slice: &Slice) -> SliceEstimate {
        let tensors = self.architecture.text_tensors();
        let tensors: HashMap<&str, &TextTensor> = tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        let (mut resident, mut token) = (0.0, 0.0);
        for entry in &self.text {
            let bytes = entry.bytes().unwrap_or(0) as f64;
            let [kept, active] = shares(entry, tensors.get(entry.source.as_str()).copied(), slice);
            resident += bytes * kept;
            token += bytes * kept * active;
        }
        SliceEstimate {
            resident_bytes: resident as u64,
            token_bytes: token as u64,
        }
    }
}

fn sum(entries: &[Entry]) -> u64 {
    entries.iter().filter_map(Entry::bytes).sum()
}

/// The text tensors of a pack, with the columns at which their segments begin.
fn stored(pack: &Checkpoint) -> Vec<Entry> {
    let text = pack
        .tensors()
        .filter(|info| info.group == Some(Group::Text));
    // `….weight.2`: a segment, of which the tenth comes after the ninth.
    let mut tensors: Vec<_> = text
        .map(|info| {
            let segment = info.name.rsplit_once('.');
            let segment = segment.and_then(|(name, n)| Some((name, n.parse::<usize>().ok()?)));
            let (source, segment) = segment.unwrap_or((&info.name, 0));
            (source, segment, info)
        })
        .collect();
    tensors.sort_by_key(|(source, segment, _)| (*source, *segment));
    let (mut entries, mut first_col) = (Vec::<Entry>::new(), 0);
    for (source, segment, info) in tensors {
        if segment == 0 {
            first_col = 0;
        }
        let store = match info.blocks {
            Some(blocks) if info.name == HEAD_RESIDUAL => Store::Residual(blocks),
            Some(blocks) => Store::Quantized { blocks, first_col },
            None => Store::Plain(Described {
                shape: info.shape.clone(),
                dtype: info.dtype,
                block_bits: None,
            }),
        };
        first_col += info.blocks.map_or(0, |blocks| blocks.cols);
        entries.push(Entry {
            name: info.name.clone(),
            source: source.to_owned(),
            store,
        });
    }
    entries
}

/// The share of a tensor that a slice keeps in memory, and the share of that which a token reads.
fn shares(entry: &Entry, tensor: Option<&TextTensor>, slice: &Slice) -> [f64; 2] {
    if matches!(entry.store, Store::Residual(_)) {
        return [0.0, 0.0];
    }
    let Some((tensor, layer)) = tensor.and_then(|tensor| Some((tensor, tensor.layer?))) else {
        return [1.0, 1.0];
    };
    let Some(width) = slice.width(layer) else {
        return [0.0, 0.0];
    };
    let Some(full) = tensor.neurons() else {
        return [1.0, 1.0];
    };
    // Segments of columns: those up to the slice's width are read whole.
    let kept = match &entry.store {
        Store::Quantized { blocks, first_col } if entry.name != entry.source => {
            f64::from(u8::from(first_col + blocks.cols <= width))
        }
        _ => width as f64 / full as f64,
    };
    [kept, tensor.token_share]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `gemmad bench` counted these on packs of random weights (docs/speed.md). Of sparse layers it reads the neurons that happened to be
    /// active, which are 5 % in the mean only, so the two differ a little.
    #[test]
    fn a_token_reads_what_was_counted() {
        for (recipe, counted_mb) in [(Recipe::Small, 1220.0), (Recipe::Balanced, 1370.0)] {
            let pack = PackEstimate::new(SyntheticSize::E2b, recipe).unwrap();
            let whole = pack.slice(pack.slices.full());
            let mb = whole.token_bytes as f64 / 1e6;
            assert!((mb / counted_mb - 1.0).abs() < 0.02, "{recipe:?}: {mb}");
            assert!(whole.resident_bytes > whole.token_bytes);
        }
    }

    /// Reference section 2.6 of Gemma 4: what a token reads in 8.5 and in 4.5 bits. The small recipe gives the side matrices 8.5.
    #[test]
    fn a_token_of_gemma_4_reads_what_the_specification_counts() {
        for (size, side, bytes_8, bytes_4) in [
            (SyntheticSize::Gemma4E2b, 41_335_552.0, 2.42e9, 1.28e9),
            (SyntheticSize::Gemma4E4b, 82_673_920.0, 4.93e9, 2.61e9),
        ] {
            let small = bytes_4 + side * 4.0 / 8.0;
            for (recipe, counted) in [(Recipe::Q8, bytes_8), (Recipe::Small, small)] {
                let pack = PackEstimate::new(size, recipe).unwrap();
                let bytes = pack.slice(pack.slices.full()).token_bytes as f64;
                let wrong = bytes / counted - 1.0;
                assert!(wrong.abs() < 0.004, "{size:?}, {recipe:?}: {bytes}");
            }
            let pack = PackEstimate::new(size, Recipe::Small).unwrap();
            assert_eq!(pack.slices.iter().count(), 1, "no MatFormer");
        }
    }

    /// Weights trained in blocks of 4 bits, as Google publishes them: with a head in two planes no more than llama.cpp reads of 4 bits alone.
    #[test]
    fn a_token_of_trained_blocks_reads_little_more_than_their_bits() {
        let token = |recipe| {
            let pack = PackEstimate::new(SyntheticSize::Gemma4E2b, recipe).unwrap();
            pack.slice(pack.slices.full()).token_bytes
        };
        let trained = token(Recipe::Q4_0);
        assert!(trained <= 1_310_000_000, "{trained}");
        assert!(
            trained < token(Recipe::Small),
            "side matrices have 4 bits, too"
        );
    }

    #[test]
    fn a_slice_needs_less_and_the_published_e2b_is_like_e2b_itself() {
        let small = PackEstimate::new(SyntheticSize::E2b, Recipe::Small).unwrap();
        let large = PackEstimate::new(SyntheticSize::E4b, Recipe::Small).unwrap();
        let e2b = small.slice(small.slices.full());
        let nested = large.slice(large.slices.get("e2b").unwrap());
        let whole = large.slice(large.slices.full());
        assert!(
            nested.token_bytes < whole.token_bytes && nested.resident_bytes < whole.resident_bytes
        );
        let ratio = nested.token_bytes as f64 / e2b.token_bytes as f64;
        assert!((0.98..1.03).contains(&ratio), "{ratio}");
    }
}
