//! What a pack of a published size would need, before anybody has made it: for choosing a recipe and a slice for a board.

use std::path::Path;

use safetensors::Dtype;

use super::error::PackError;
use super::plan::{self, Described, Entry, Store};
use super::recipe::Recipe;
use super::synthetic::{self, SyntheticSize};
use crate::model::config::{Config, TextConfig};
use crate::model::matformer::{Slice, Slices};
use crate::model::tokenizer::ControlTokens;
use crate::model::weights::Group;

/// A published model in a recipe.
pub struct PackEstimate {
    /// Its hyper-parameters.
    pub config: Config,
    /// The slices that it serves; the first is the whole model.
    pub slices: Slices,
    /// Bytes of all four files.
    pub flash_bytes: u64,
    /// Bytes of the audio tower and of the vision tower, as published in 16 bits.
    pub tower_bytes: [u64; 2],
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

/// Ids of control tokens, as published; sizes do not depend on them.
const CONTROL: ControlTokens = ControlTokens {
    bos: 2,
    eos: 1,
    pad: Some(0),
    start_of_turn: 105,
    end_of_turn: 106,
    image: None,
    audio: None,
};

impl PackEstimate {
    /// Lays the pack out without writing it.
    ///
    /// # Errors
    /// Never for a published size; what the layout could object to.
    pub fn new(size: SyntheticSize, recipe: Recipe) -> Result<PackEstimate, PackError> {
        let path = Path::new("config.json");
        let json = synthetic::config_json(size, true, &CONTROL);
        let config = Config::parse(json.as_bytes(), path)?;
        let slices = Slices::built_in(&config.text)?;
        let describe = |_: &str, shape: &[usize]| {
            Some(Described {
                shape: shape.to_vec(),
                dtype: Dtype::BF16,
            })
        };
        let [text, ple] = plan::text(&config.text, recipe, &slices, path, &describe)?;
        let sum = |entries: &[Entry]| entries.iter().filter_map(Entry::bytes).sum::<u64>();
        let towers = synthetic::towers();
        let tower = |group: Group| {
            let own = towers.iter().filter(|file| file.group == group);
            own.map(|file| sum(&file.entries)).sum::<u64>()
        };
        let tower_bytes = [tower(Group::Audio), tower(Group::Vision)];
        Ok(PackEstimate {
            flash_bytes: sum(&text.entries) + sum(&ple.entries) + tower_bytes.iter().sum::<u64>(),
            tower_bytes,
            text: text.entries,
            slices,
            config,
        })
    }

    /// What a slice reads.
    pub fn slice(&self, slice: &Slice) -> SliceEstimate {
        let (mut resident, mut token) = (0.0, 0.0);
        for entry in &self.text {
            let bytes = entry.bytes().unwrap_or(0) as f64;
            let [kept, active] = shares(entry, &self.config.text, slice);
            resident += bytes * kept;
            token += bytes * kept * active;
        }
        SliceEstimate {
            resident_bytes: resident as u64,
            token_bytes: token as u64,
        }
    }
}

/// The share of a tensor that a slice keeps in memory, and the share of that which a token reads.
fn shares(entry: &Entry, config: &TextConfig, slice: &Slice) -> [f64; 2] {
    if matches!(entry.store, Store::Residual(_)) {
        return [0.0, 0.0];
    }
    let leaf = entry
        .source
        .strip_prefix(plan::TEXT_PREFIX)
        .unwrap_or(&entry.source);
    let Some((layer, leaf)) = leaf
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(layer, leaf)| Some((layer.parse::<usize>().ok()?, leaf)))
    else {
        return [1.0, 1.0];
    };
    let Some(width) = slice.width(layer) else {
        return [0.0, 0.0];
    };
    if !leaf.starts_with("mlp.") {
        return [1.0, 1.0];
    }
    let sparsity = config.activation_sparsity_pattern[layer];
    let active = match leaf.starts_with("mlp.gate") {
        true => 1.0,
        false => 1.0 - sparsity,
    };
    let full = config.intermediate_size[layer];
    // `down` in segments: those up to the slice's width are read whole.
    let kept = match &entry.store {
        Store::Quantized { blocks, first_col } if entry.name != entry.source => {
            f64::from(u8::from(first_col + blocks.cols <= width))
        }
        _ => width as f64 / full as f64,
    };
    [kept, active]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `gemmad bench` counted these on packs of random weights (README.md). Of sparse layers it reads the neurons that happened to be
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
