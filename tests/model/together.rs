//! Tokens of several conversations that pass the layers together: what comes of each is, bit by bit, what comes of it alone.

use std::path::Path;

use crate::common::{fixtures, fixtures_gemma4, fixtures_gemma4_mobile, pack_of};
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Decoder, Exact, Lane, Shortcuts, Slice, TextError, Tokens, no_probe};
use gemmad::model::family;
use gemmad::model::weights::{Checkpoint, PleOptions};
use gemmad::pack::Recipe;
use kernels::{Isa, Pool};

const CONTEXT: usize = 160;
const CHUNK: usize = 8;

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

struct Model {
    together: Box<dyn Decoder>,
    alone: Box<dyn Decoder>,
    slices: Vec<Slice>,
    vocabulary: usize,
    pool: Pool,
}

impl Model {
    fn open(dir: &Path, threads: usize) -> Model {
        let architecture = family::load(dir).unwrap();
        let checkpoint = Checkpoint::open(dir).unwrap();
        let decoder = || {
            let ple = PleOptions::default();
            architecture
                .decoder(&checkpoint, &ple, CHUNK, &mut |_, _| {})
                .unwrap()
        };
        let together = decoder();
        let slices = architecture.slices(Some(dir)).unwrap();
        let served = slices.iter().filter(|slice| together.serves(slice));
        Model {
            slices: served.cloned().collect(),
            alone: decoder(),
            together,
            vocabulary: architecture.spec().text_vocab_size,
            pool: Pool::new(Isa::best(), threads),
        }
    }
}

/// Conversations that come and go, with guesses that are taken back, compared pass by pass.
fn check(dir: &Path, kind: KvType, threads: usize) {
    let mut model = Model::open(dir, threads);
    for slice in model.slices.clone() {
        let mut random = Random(17);
        let ids = |random: &mut Random, count: usize| -> Vec<u32> {
            let id = |_| random.below(model.vocabulary.min(200)) as u32;
            (0..count).map(id).collect()
        };
        let mut caches: Vec<[KvCache; 2]> = Vec::new();
        // The windows of the sliding layers are full in some of them and not in others.
        for prompt in [3, 21, 70, 1, 40] {
            let mut cache = KvCache::new(model.alone.layers(), kind, CONTEXT, CHUNK);
            let prompt = ids(&mut random, prompt);
            let tokens = Tokens::new(&prompt, &slice);
            let taken = model
                .alone
                .extend(&model.pool, &mut cache, tokens, &mut no_probe);
            taken.unwrap();
            caches.push([cache.clone(), cache]);
        }
        for _ in 0..12 {
            let who: Vec<usize> = (0..caches.len()).filter(|_| random.below(3) > 0).collect();
            let mut left = CHUNK + 1 - who.len();
            let (mut all, mut parts) = (Vec::new(), Vec::new());
            for &at in &who {
                let count = 1 + random.below(left.min(3));
                left -= count - 1;
                parts.push((at, ids(&mut random, count)));
            }
            parts.iter().for_each(|(_, ids)| all.extend(ids));
            if all.is_empty() {
                continue;
            }
            let mut lanes: Vec<Lane<'_>> = Vec::new();
            let mut layers = 0;
            let mut count = || layers += 1;
            for (at, [together, _]) in caches.iter_mut().enumerate() {
                if let Some((_, ids)) = parts.iter().find(|part| part.0 == at) {
                    lanes.push(Lane {
                        cache: together,
                        tokens: ids.len(),
                    });
                }
            }
            let taken =
                model
                    .together
                    .take_together(&model.pool, &mut lanes, &all, &slice, &mut count);
            taken.unwrap();
            assert_eq!(layers, slice.num_layers());
            assert_eq!(model.together.ready(), all.len());
            let mut products = vec![0.0; all.len() * model.vocabulary];
            let rows = 0..all.len();
            model.together.products(&model.pool, rows, &mut products);
            let mut row = 0;
            for (at, ids) in &parts {
                let [together, alone] = &mut caches[*at];
                let tokens = Tokens {
                    shortcuts: Shortcuts::ALL_LOGITS,
                    ..Tokens::new(ids, &slice)
                };
                let taken = model
                    .alone
                    .extend(&model.pool, alone, tokens, &mut no_probe);
                taken.unwrap();
                for token in 0..ids.len() {
                    let bits =
                        |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    let hidden = bits(model.together.hidden(row));
                    assert_eq!(hidden, bits(model.alone.hidden(token)), "{}", slice.name);
                    let mut want = vec![0.0; model.vocabulary];
                    let pool = &model.pool;
                    let logits = model.alone.logits(pool, token, Exact::All, &mut want);
                    logits.unwrap();
                    let got = &mut products[row * model.vocabulary..][..model.vocabulary];
                    let logits = model.together.finish_logits(pool, row, Exact::All, got);
                    logits.unwrap();
                    assert_eq!(bits(got), bits(&want), "{}", slice.name);
                    row += 1;
                }
                let back = random.below(ids.len());
                together.take_back(back);
                alone.take_back(back);
                assert_eq!(together.position(), alone.position());
                assert!(together.to_bytes() == alone.to_bytes(), "{}", slice.name);
            }
        }
    }
}

#[test]
fn gemma3n() {
    check(&fixtures(), KvType::F32, 2);
    check(&fixtures(), KvType::Int8, 1);
}

#[test]
fn gemma4() {
    check(&fixtures_gemma4(), KvType::F16, 3);
}

#[test]
fn packs() {
    let home = tempfile::tempdir().unwrap();
    for (name, from, recipe, kind) in [
        ("a", fixtures(), Recipe::Balanced, KvType::F16),
        ("b", fixtures_gemma4(), Recipe::Small, KvType::Int8),
        ("c", fixtures_gemma4_mobile(), Recipe::Mobile, KvType::F32),
    ] {
        let dir = home.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        check(&pack_of(&from, recipe, &dir), kind, 2);
    }
}

/// One lane that cannot be taken leaves all of them as they were.
#[test]
fn what_does_not_fit_changes_nothing() {
    let mut model = Model::open(&fixtures(), 1);
    let slice = model.slices[0].clone();
    let layers = model.alone.layers();
    let mut caches = [CONTEXT, 2].map(|context| KvCache::new(layers, KvType::F32, context, CHUNK));
    let mut take = |ids: &[u32], counts: [usize; 2]| {
        let mut lanes = Vec::new();
        for (cache, tokens) in caches.iter_mut().zip(counts) {
            lanes.push(Lane { cache, tokens });
        }
        let decoder = &mut model.together;
        let taken = decoder.take_together(&model.pool, &mut lanes, ids, &slice, &mut || {});
        (taken, [caches[0].position(), caches[1].position()])
    };
    let (taken, positions) = take(&[5, 6, 7, 8], [1, 3]);
    assert!(matches!(
        taken,
        Err(TextError::ContextFull { needed: 3, .. })
    ));
    assert_eq!(positions, [0, 0]);
    let (taken, positions) = take(&[5, u32::MAX, 7], [2, 1]);
    assert!(matches!(taken, Err(TextError::UnknownToken { .. })));
    assert_eq!(positions, [0, 0]);
    let (taken, positions) = take(&[5, 6, 7], [1, 2]);
    assert!(taken.is_ok());
    assert_eq!(positions, [1, 2]);
}
