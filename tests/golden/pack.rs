//! The text model from packs: how far each recipe is from the reference, and that no shortcut, chunk, instruction set, number
//! of threads or machine changes a bit of what a pack computes.

use std::path::Path;

use crate::common::{Golden, fixtures, sha256, tiny_pack};
use crate::isas::isas;
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Exact, Shortcuts, Slice, Tokens, no_probe};
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::matformer::slices;
use gemmad::model::gemma3n::text::{TextModel, Workspace};
use gemmad::model::weights::Checkpoint;
use gemmad::pack::{PackOptions, Recipe, pack_checkpoint};
use kernels::{Isa, Pool};

fn load(pack: &Path) -> TextModel {
    let config = Config::load(pack).unwrap();
    TextModel::load(&Checkpoint::open(pack).unwrap(), &config.text).unwrap()
}

fn ids(golden: &Golden, name: &str) -> Vec<u32> {
    golden.i32(name).0.into_iter().map(|id| id as u32).collect()
}

/// Logits of the text vocabulary after a prompt, and after one token more.
fn logits(
    model: &TextModel,
    pool: &Pool,
    prompt: &[u32],
    chunk: usize,
    slice: &Slice,
    shortcuts: Shortcuts,
) -> Vec<f32> {
    let mut cache = KvCache::new(model.layers(), KvType::F32, 512, chunk);
    let mut work = Workspace::new(model.config(), chunk);
    let mut both = Vec::new();
    for ids in [prompt, &[7]] {
        let tokens = Tokens {
            shortcuts,
            ..Tokens::new(ids, slice)
        };
        model
            .extend(pool, &mut cache, &mut work, tokens, &mut no_probe)
            .unwrap();
        let mut logits = vec![0.0; model.text_vocab_size()];
        let last = work.ready() - 1;
        model
            .logits(pool, &mut work, last, Exact::All, &mut logits)
            .unwrap();
        both.extend(logits);
    }
    both
}

fn rms(values: impl Iterator<Item = f32>) -> f64 {
    let squares: Vec<f64> = values.map(|x| f64::from(x).powi(2)).collect();
    (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
}

/// Random weights are the worst case: nothing about them is redundant. 1 % of noise on every weight moves these logits by
/// 0.2 to 0.4 rms (tests/fixtures/README.md). Rounding to 8 bits in groups of 32 is noise of about 0.5 % on weights and on
/// activations, to 4 bits about 8 % on weights; 15 layers pass it on.
#[test]
fn each_recipe_is_as_far_from_the_reference_as_its_bits() {
    let golden = Golden::open("text");
    for (recipe, bound) in [
        (Recipe::Q8, 0.1),
        (Recipe::Balanced, 0.5),
        (Recipe::Small, 0.7),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let model = load(&tiny_pack(recipe, dir.path()));
        let pool = Pool::new(Isa::best(), 2);
        let slice = Slice::full(model.layers());
        let (mut wanted, mut off) = (Vec::new(), Vec::new());
        for prompt in ["short", "chat", "long"] {
            let ids = ids(&golden, &format!("{prompt}.input_ids"));
            let (want, shape) = golden.f32(&format!("{prompt}.logits"));
            let mut cache = KvCache::new(model.layers(), KvType::F16, 512, ids.len());
            let mut work = Workspace::new(model.config(), ids.len());
            model
                .extend(
                    &pool,
                    &mut cache,
                    &mut work,
                    Tokens {
                        shortcuts: Shortcuts::ALL_LOGITS,
                        ..Tokens::new(&ids, &slice)
                    },
                    &mut no_probe,
                )
                .unwrap();
            let mut got = vec![0.0; model.text_vocab_size()];
            for (row, want) in want.chunks_exact(shape[1]).enumerate() {
                model
                    .logits(
                        &pool,
                        &mut work,
                        ids.len() - shape[0] + row,
                        Exact::All,
                        &mut got,
                    )
                    .unwrap();
                off.extend(got.iter().zip(want).map(|(got, want)| got - want));
                wanted.extend_from_slice(&want[..got.len()]);
            }
        }
        let relative = rms(off.iter().copied()) / rms(wanted.iter().copied());
        println!(
            "{recipe:?}: rms error of logits {:.3}, {relative:.3} of their size",
            rms(off.iter().copied())
        );
        assert!(relative <= bound, "{recipe:?}: {relative} > {bound}");
        // 8 and 4 bits are no 16: an error of nothing would mean that the pack was not read.
        assert!(relative > 1e-4, "{recipe:?}");
    }
}

/// Where two runs first differ by a bit.
#[track_caller]
fn assert_same_bits(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            got.to_bits() == want.to_bits(),
            "{name}: logit {at} is {got:e}, not {want:e}"
        );
    }
}

#[test]
fn shortcuts_and_chunks_change_no_bit_of_a_pack() {
    let golden = Golden::open("text");
    let ids = ids(&golden, "long.input_ids");
    for recipe in [Recipe::Q8, Recipe::Small] {
        let dir = tempfile::tempdir().unwrap();
        let model = load(&tiny_pack(recipe, dir.path()));
        let pool = Pool::new(Isa::best(), 2);
        let slice = Slice::full(model.layers());
        let mut first: Option<Vec<f32>> = None;
        for chunk in [1, 7, 64, ids.len()] {
            for kv_cut in [false, true] {
                for sparse_ffn in [false, true] {
                    let shortcuts = Shortcuts { kv_cut, sparse_ffn };
                    let got = logits(&model, &pool, &ids, chunk, &slice, shortcuts);
                    let name =
                        format!("{recipe:?}: cut {kv_cut}, sparse {sparse_ffn}, chunk {chunk}");
                    assert_same_bits(&name, &got, first.get_or_insert_with(|| got.clone()));
                }
            }
        }
    }
}

/// Tokens that a greedy run adds to a prompt.
const TOKENS: usize = 24;

/// A greedy run: its tokens, and the logits of every step.
fn greedy(
    model: &TextModel,
    pool: &Pool,
    prompt: &[u32],
    kind: KvType,
    chunk: usize,
) -> (Vec<u32>, Vec<f32>) {
    let slice = Slice::full(model.layers());
    let mut cache = KvCache::new(model.layers(), kind, 512, chunk);
    let mut work = Workspace::new(model.config(), chunk);
    let mut logits = vec![0.0; model.text_vocab_size()];
    let mut next = prompt.to_vec();
    let (mut tokens, mut all) = (Vec::new(), Vec::new());
    for _ in 0..TOKENS {
        model
            .extend(
                pool,
                &mut cache,
                &mut work,
                Tokens::new(&next, &slice),
                &mut no_probe,
            )
            .unwrap();
        let last = work.ready() - 1;
        model
            .logits(pool, &mut work, last, Exact::All, &mut logits)
            .unwrap();
        let best = logits
            .iter()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(b.1))
            .unwrap()
            .0;
        tokens.push(best as u32);
        all.extend_from_slice(&logits);
        next = vec![best as u32];
    }
    (tokens, all)
}

/// The same pack gives the same bits on every instruction set, with any number of threads, and on every machine: what one
/// wrote down (`pack_bits.tsv` beside the checkpoint, tests/fixtures/README.md) must hold on all others.
#[test]
fn every_machine_gives_the_same_bits() {
    let golden = Golden::open("text");
    let file = fixtures().join("pack_bits.tsv");
    let mut table = String::from("recipe\tprompt\ttokens\tsha256 of all logits\n");
    for recipe in [Recipe::Q8, Recipe::Balanced, Recipe::Small] {
        let dir = tempfile::tempdir().unwrap();
        let model = load(&tiny_pack(recipe, dir.path()));
        for (prompt, kind, chunk) in [("chat", KvType::F16, 16), ("long", KvType::F32, 64)] {
            let ids = ids(&golden, &format!("{prompt}.input_ids"));
            let run = |isa, threads| {
                let pool = Pool::new(isa, threads);
                greedy(&model, &pool, &ids, kind, chunk)
            };
            let (tokens, logits) = run(Isa::scalar(), 1);
            for isa in isas() {
                for threads in [1, 3] {
                    let name = format!("{recipe:?} {prompt}, {isa}, {threads} threads");
                    let (got_tokens, got) = run(isa, threads);
                    assert_same_bits(&name, &got, &logits);
                    assert_eq!(got_tokens, tokens, "{name}");
                }
            }
            let hash = sha256(&logits);
            let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
            table += &format!("{recipe:?}\t{prompt}\t{}\t{hash}\n", tokens.join(" "));
        }
    }
    if std::env::var_os("GEMMAD_WRITE_BITS").is_some() {
        std::fs::write(&file, &table).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!(
            "{}: {error}: make it on one machine with GEMMAD_WRITE_BITS=1",
            file.display()
        )
    });
    assert_eq!(table, written, "another machine wrote other bits");
}

#[test]
fn a_pack_serves_the_slices_it_was_made_with_and_no_others() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("demo.pack");
    let pool = Pool::new(Isa::best(), 2);
    let options = PackOptions {
        recipe: Recipe::Balanced,
        force: false,
        ..PackOptions::default()
    };
    pack_checkpoint(&demo, &to, options, &pool, &mut |_, _| {}).unwrap();
    let model = load(&to);
    let slices = slices(model.config(), Some(&to)).unwrap();
    assert!(model.serves(slices.full()));
    let half = slices.get("half").unwrap();
    assert!(model.serves(half));
    let widths = vec![320; model.config().num_hidden_layers];
    assert!(!model.serves(&Slice::new("other", widths, model.layers()).unwrap()));

    // The half of the pack against the half of the checkpoint it came from.
    let config = Config::load(&demo).unwrap();
    let whole = TextModel::load(&Checkpoint::open(&demo).unwrap(), &config.text).unwrap();
    let prompt: Vec<u32> = vec![2, 105, 300, 301, 302, 106];
    let want = logits(&whole, &pool, &prompt, 8, half, Shortcuts::default());
    let got = logits(&model, &pool, &prompt, 8, half, Shortcuts::default());
    let relative = rms(got.iter().zip(&want).map(|(a, b)| a - b)) / rms(want.iter().copied());
    // Trained weights: 4 bits in the feed-forward networks cost a few per cent.
    assert!(relative < 0.2, "{relative}");
}
