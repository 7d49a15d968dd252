use std::ops::Range;

use kernels::{Isa, Matrix, attention};

use super::*;
use crate::model::decoder::Rope;

const CONTEXT: usize = 24;

fn layer(kv_heads: usize, head_dim: usize, window: Option<usize>) -> LayerShape {
    LayerShape {
        heads: 2,
        kv_heads,
        head_dim,
        window,
        rope: Rope {
            base: 1e4,
            factor: 1.0,
            rotated_pairs: head_dim / 2,
        },
        kv_of: None,
        ffn_width: 8,
    }
}

/// Sliding and full layers with heads of their own width and number, and one reader of each kind.
fn layers() -> Vec<LayerShape> {
    let own = [
        layer(2, 4, Some(5)),
        layer(1, 8, Some(3)),
        layer(1, 8, None),
        layer(2, 4, Some(4)),
    ];
    let reader = |of: usize| LayerShape {
        kv_of: Some(of),
        ..own[of]
    };
    let readers = [reader(0), reader(2), reader(0)];
    own.into_iter().chain(readers).collect()
}

/// The key of a head, or with another `salt` its value.
fn row(layer: usize, head: usize, position: usize, head_dim: usize, salt: f32) -> Vec<f32> {
    let first = (layer * 7 + head * 3 + position * 11) as f32;
    (0..head_dim)
        .map(|i| ((first + i as f32) * salt).sin())
        .collect()
}

fn rows(layer: usize, shape: &LayerShape, positions: Range<usize>, salt: f32) -> Vec<f32> {
    positions
        .flat_map(|position| {
            (0..shape.kv_heads)
                .flat_map(move |head| row(layer, head, position, shape.head_dim, salt))
        })
        .collect()
}

const KEY: f32 = 0.37;
const VALUE: f32 = 0.61;

/// What the tokens of a range see of every head of a layer, or each alone, are exactly those of their windows, or all.
#[track_caller]
fn check(cache: &KvCache, index: usize, shape: &LayerShape, tokens: Range<usize>) {
    let source = shape.kv_of.unwrap_or(index);
    let first = cache.positions(source, tokens.start).start;
    let last = cache.position() + tokens.end - 1;
    let own = cache.position() + tokens.start + 1;
    assert_eq!(
        first,
        own.saturating_sub(shape.window.unwrap_or(usize::MAX))
    );
    assert_eq!(cache.positions(source, tokens.end - 1).end, last + 1);
    let d = shape.head_dim;
    for head in 0..shape.kv_heads {
        let of = |salt| -> Vec<f32> {
            let positions = first..last + 1;
            positions
                .flat_map(|position| row(source, head, position, d, salt))
                .collect()
        };
        let (k, v, keys) = (of(KEY), of(VALUE), last + 1 - first);
        let all = KvSegment::new(Matrix::f32(&k, keys, d), Matrix::f32(&v, keys, d));
        let q = row(index, head, last, d, 0.9);
        let [mut got, mut want] = [vec![0.0; d], vec![0.0; d]];
        let seen = cache.visible(source, head, tokens.clone());
        attention::attend(Isa::best(), &q, d, 1.0, &seen, &mut got);
        attention::attend(Isa::best(), &q, d, 1.0, &[all], &mut want);
        assert_eq!(got, want, "layer {index}, head {head}, tokens {tokens:?}");
    }
}

fn take_chunk(cache: &mut KvCache, layers: &[LayerShape], t: usize) {
    let positions = cache.position()..cache.position() + t;
    for (index, shape) in layers.iter().enumerate() {
        if shape.kv_of.is_none() {
            let k = rows(index, shape, positions.clone(), KEY);
            let v = rows(index, shape, positions.clone(), VALUE);
            cache.write(Isa::best(), index, t, &k, &v);
        }
        for first in 0..t {
            for end in first + 1..=t {
                check(cache, index, shape, first..end);
            }
        }
        cache.finish_layer(index, t);
    }
    cache.finish_chunk(t);
}

#[test]
fn layers_of_any_shape_see_their_own_windows() {
    let layers = layers();
    for chunk in [1, 2, 6] {
        let mut cache = KvCache::new(&layers, KvType::F32, CONTEXT, chunk);
        while cache.position() < CONTEXT {
            let tokens = chunk.min(CONTEXT - cache.position());
            take_chunk(&mut cache, &layers, tokens);
        }
    }
}

#[test]
fn what_was_kept_goes_on_as_if_nothing_had_been() {
    let layers = layers();
    for kept in [2, 9] {
        let new = || KvCache::new(&layers, KvType::F32, CONTEXT, 3);
        let mut cache = new();
        while cache.position() < kept {
            take_chunk(&mut cache, &layers, 1);
        }
        let mut restored = new();
        restored.restore(&cache.snapshot());
        take_chunk(&mut restored, &layers, 3);
        let slice = Slice::full(&layers);
        let mut read = new();
        assert!(read.restore_bytes(&cache.to_bytes(), &slice));
        take_chunk(&mut read, &layers, 3);
        assert!(!read.restore_bytes(&cache.to_bytes()[1..], &slice));
        assert_eq!(cache.snapshot().bytes() as u64, cache.used_bytes());
    }
}

/// Whatever is taken back of a chunk, what comes then sees what it would have seen.
#[test]
fn tokens_that_are_taken_back_were_never_there() {
    let layers = layers();
    for kind in [KvType::F32, KvType::F16, KvType::Int8] {
        for (before, chunk, back) in [(0, 3, 3), (2, 3, 1), (2, 3, 2), (7, 3, 2), (9, 2, 1)] {
            let new = || KvCache::new(&layers, kind, CONTEXT, 3);
            let take = |cache: &mut KvCache, tokens: usize, salt: f32| {
                let positions = cache.position()..cache.position() + tokens;
                for (index, shape) in layers.iter().enumerate() {
                    if shape.kv_of.is_none() {
                        let k = rows(index, shape, positions.clone(), KEY * salt);
                        let v = rows(index, shape, positions.clone(), VALUE * salt);
                        cache.write(Isa::best(), index, tokens, &k, &v);
                    }
                    cache.finish_layer(index, tokens);
                }
                cache.finish_chunk(tokens);
            };
            let (mut plain, mut guessed) = (new(), new());
            assert_eq!(guessed.max_revocable(), 3);
            for cache in [&mut plain, &mut guessed] {
                (0..before).for_each(|_| take(cache, 1, 1.0));
            }
            // Guesses have other keys than what comes in their place.
            take(&mut guessed, chunk, 1.0);
            guessed.take_back(back);
            (0..chunk - back).for_each(|_| take(&mut plain, 1, 1.0));
            assert_eq!(guessed.position(), plain.position());
            assert_eq!(guessed.to_bytes(), plain.to_bytes());
            let kept = guessed.snapshot();
            for cache in [&mut plain, &mut guessed] {
                take(cache, 2, 1.7);
            }
            assert_eq!(guessed.to_bytes(), plain.to_bytes());
            let mut restored = new();
            restored.restore(&kept);
            take(&mut restored, 2, 1.7);
            assert_eq!(restored.to_bytes(), plain.to_bytes());
        }
    }
}

#[test]
#[should_panic(expected = "cannot be taken back")]
fn a_prompt_is_not_taken_back() {
    let layers = layers();
    let mut cache = KvCache::new(&layers, KvType::F32, CONTEXT, 6);
    take_chunk(&mut cache, &layers, 6);
    cache.take_back(1);
}

#[test]
fn its_size_is_that_of_the_layers_with_keys_and_values_of_their_own() {
    let layers = layers();
    let slots = 5 * 8 + 3 * 8 + CONTEXT * 8 + 4 * 8;
    for (kind, bytes) in [(KvType::F32, 4), (KvType::F16, 2)] {
        let cache = KvCache::new(&layers, kind, CONTEXT, 3);
        assert_eq!(cache.bytes(), (2 * slots * bytes) as u64);
        assert_eq!(KvCache::bytes_for(&layers, kind, CONTEXT), cache.bytes());
        assert_eq!(cache.used_bytes(), 0);
    }
}

/// Layers of which every `period`th sees all, and those behind the first `own` share.
fn published(kv_heads: usize, layers: usize, own: usize, period: usize) -> Vec<LayerShape> {
    (0..layers)
        .map(|index| {
            let is_full = (index + 1).is_multiple_of(period);
            let (head_dim, window) = if is_full {
                (512, None)
            } else {
                (256, Some(512))
            };
            LayerShape {
                kv_of: (index >= own).then(|| if is_full { own - 1 } else { own - 2 }),
                ..layer(kv_heads, head_dim, window)
            }
        })
        .collect()
}

/// The table of section 2.6 of Gemma 4's reference; in 8 bits each row of a head has its scale beside.
#[test]
fn published_models_take_what_the_reference_says() {
    let e2b = published(1, 35, 15, 5);
    let e4b = published(2, 42, 24, 6);
    for (layers, context, mib, rows) in [
        (&e2b, 32_768, 198, 2 * (12 * 512 + 3 * 32_768)),
        (&e2b, 131_072, 774, 2 * (12 * 512 + 3 * 131_072)),
        (&e4b, 32_768, 532, 4 * (20 * 512 + 4 * 32_768)),
        (&e4b, 131_072, 2068, 4 * (20 * 512 + 4 * 131_072)),
    ] {
        let half = KvCache::bytes_for(layers, KvType::F16, context);
        assert_eq!(half, mib << 20);
        let bytes = KvCache::bytes_for(layers, KvType::Int8, context);
        assert_eq!(bytes, half / 2 + 4 * rows);
    }
}
