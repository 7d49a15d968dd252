//! The drafter of a Gemma 4 (tests/fixtures/tiny-g4a-drafter/README.md) against the reference implementation:
//! `cargo test gemma4_drafter_golden` runs all of it, and only it.
//!
//! The reference sees two keys more than a ring of the window's size holds; both readings have goldens ("strict" is what runs).

mod alone;
mod behind_its_model;

use std::collections::BTreeSet;
use std::path::Path;

use crate::common::{Golden, fixtures_gemma4, fixtures_gemma4_drafter};
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{LayerShape, Slice};
use gemmad::model::drafter::Drafter as _;
use gemmad::model::family;
use gemmad::model::gemma4::config::{Config, DrafterConfig};
use gemmad::model::gemma4::drafter::Drafter;
use gemmad::model::weights::Checkpoint;

/// Tolerances of the fixture's README.
const STATES: f32 = 1e-4;
const LOGITS: f32 = 5e-4;

fn golden() -> Golden {
    Golden::of(&fixtures_gemma4_drafter(), "drafter")
}

/// How far a sliding layer of the drafter looks.
#[derive(Clone, Copy, PartialEq)]
enum Reading {
    /// As the reference: a key more than the window.
    Loose,
    /// As the model itself: one less, for a guess has no key of its own.
    Strict,
}

impl Reading {
    const BOTH: [Reading; 2] = [Reading::Loose, Reading::Strict];

    /// What stands behind a prompt's name in the goldens.
    fn tag(self) -> &'static str {
        match self {
            Reading::Loose => "",
            Reading::Strict => ".strict",
        }
    }
}

/// The drafter of a pack.
fn drafter(pack: &Path, reading: Reading) -> Drafter {
    let path = pack.join("drafter_config.json");
    let value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let target = Config::load(&fixtures_gemma4()).unwrap().text;
    let mut config = DrafterConfig::of(&value, &path, &target).unwrap();
    for layer in &mut config.layers {
        if reading == Reading::Loose {
            layer.window = layer.window.map(|window| window + 2);
        }
    }
    Drafter::load(&Checkpoint::open(pack).unwrap(), &config).unwrap()
}

/// The keys and values behind a prompt, as the goldens have them, in a cache that has nothing else; and the drafter's first state.
fn begin(golden: &Golden, prompt: &str, drafter: &mut Drafter) -> KvCache {
    let architecture = family::load(&fixtures_gemma4()).unwrap();
    let mut layers = architecture.spec().layers.clone();
    let sources: BTreeSet<usize> = layers.iter().filter_map(|layer| layer.kv_of).collect();
    let mut bytes = Vec::new();
    let position = golden.i32(&format!("{prompt}.position")).0[0] as usize;
    bytes.extend((position as u64).to_le_bytes());
    for (index, layer) in layers.iter_mut().enumerate() {
        let kind = match layer.window {
            Some(_) => "sliding_attention",
            None => "full_attention",
        };
        // Without a ring every key is there, so that both readings see theirs.
        layer.window = None;
        if !sources.contains(&index) {
            layer.kv_of = sources.first().copied();
            continue;
        }
        for name in ["k", "v"] {
            let (rows, shape) = golden.f32(&format!("{prompt}.{kind}.{name}"));
            assert_eq!(shape, [position, layer.kv_heads, layer.head_dim]);
            for head in 0..layer.kv_heads {
                let of_head = rows.chunks_exact(layer.head_dim).skip(head);
                let of_head = of_head.step_by(layer.kv_heads).flatten();
                bytes.extend(of_head.flat_map(|x| x.to_le_bytes()));
            }
        }
    }
    let mut cache = KvCache::new(&layers, KvType::F32, position + 1, 1);
    let slice = Slice::full(&layers);
    assert!(cache.restore_bytes(&bytes, &slice), "{prompt}");
    let (hidden, _) = golden.f32(&format!("{prompt}.target_hidden"));
    drafter.begin(&cache, &hidden);
    cache
}

/// The layers of the model under test.
fn layers() -> Vec<LayerShape> {
    family::load(&fixtures_gemma4())
        .unwrap()
        .spec()
        .layers
        .clone()
}
