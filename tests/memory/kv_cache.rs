//! A K/V cache takes memory as it is used, not when it is made.

use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{LayerShape, Rope, Slice};
use gemmad::model::gemma3n::config::Config;

use crate::ALONE;
use crate::common::fixtures;

/// Anonymous memory of this process, bytes (proc(5)).
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    1024 * line
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
}

/// The layers of Gemma 4 E2B that have keys and values of their own: every fifth sees all.
fn layers() -> Vec<LayerShape> {
    let shape = |window, head_dim| LayerShape {
        heads: 8,
        kv_heads: 1,
        head_dim,
        window,
        rope: Rope {
            base: 1e4,
            rotated_pairs: head_dim / 2,
            factor: 1.0,
        },
        kv_of: None,
        ffn_width: 6144,
    };
    let of = |layer: usize| match layer % 5 {
        4 => shape(None, 512),
        _ => shape(Some(512), 256),
    };
    (0..15).map(of).collect()
}

/// The whole context of Gemma 4 is never there before its tokens are.
#[test]
fn memory_follows_the_tokens() {
    let _alone = ALONE.lock();
    let layers = layers();
    let slice = Slice::full(&layers);
    for kind in [KvType::F16, KvType::Int8] {
        for tokens in [2000u64, 8000, 16_000] {
            // As the prefix cache has them: how many tokens, and the rows of every layer.
            let rows = |layer: &LayerShape| {
                let slots = layer
                    .window
                    .map_or(tokens, |window| tokens.min(window as u64));
                2 * slots * kind.row_bytes(layer.head_dim) as u64
            };
            let used: u64 = layers.iter().map(rows).sum();
            let mut bytes = tokens.to_le_bytes().to_vec();
            bytes.resize(bytes.len() + used as usize, 1);
            // What the allocator keeps of what was freed is there before.
            let before = anonymous();
            let mut cache = KvCache::new(&layers, kind, 131_072, 8);
            assert!(cache.bytes() > 380 << 20, "{}", cache.bytes());
            assert!(cache.restore_bytes(&bytes, &slice));
            assert_eq!(cache.used_bytes(), used);
            let grown = anonymous().saturating_sub(before);
            assert!(
                grown.abs_diff(used) < 8 << 20,
                "{kind:?}: {tokens} tokens take {used} bytes, and {grown} are there"
            );
        }
    }
}

#[test]
fn a_long_context_costs_nothing_until_it_is_used() {
    let _alone = ALONE.lock();
    let mut config = Config::load(&fixtures()).unwrap().text;
    config.head_dim = 256;
    for kind in [KvType::F32, KvType::F16, KvType::Int8] {
        let before = anonymous();
        let cache = KvCache::new(&config.layers(), kind, 32_768, 8);
        assert!(cache.bytes() > 32 << 20, "{}", cache.bytes());
        let grown = anonymous().saturating_sub(before);
        assert!(
            grown < cache.bytes() / 8,
            "{kind:?}: {grown} of {}",
            cache.bytes()
        );
    }
}
