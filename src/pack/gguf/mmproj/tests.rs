#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use kernels::Isa;

use super::*;
use crate::pack::companions;
use crate::pack::huggingface::HuggingFace;
use crate::pack::{Recipe, SyntheticSize};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

fn mmproj() -> PathBuf {
    fixture("tiny-g4a-gguf/mmproj-bf16.gguf")
}

/// Completes the text model of tiny-g4a.
fn complete(mmproj: &mut Mmproj, pool: &Pool) -> Result<Arc<dyn Architecture>, PackError> {
    let dir = fixture("tiny-g4a");
    let mut small = companions(&dir).unwrap();
    let tokenizer = Tokenizer::load(&dir).unwrap();
    let architecture = mmproj.complete(&mut small, &tokenizer, &dir)?;
    mmproj.look_at_bounds(pool)?;
    Ok(architecture)
}

#[test]
fn every_tensor_is_that_of_the_checkpoint() {
    let pool = Pool::new(Isa::from_environment().unwrap(), 2);
    let mut mmproj = Mmproj::open(&mmproj()).unwrap();
    let architecture = complete(&mut mmproj, &pool).unwrap();
    let mut checkpoint = HuggingFace::open(&fixture("tiny-g4a")).unwrap();
    for group in [Group::Audio, Group::Vision] {
        let ours = mmproj.tensors(&*architecture, group).unwrap();
        assert_eq!(ours.len(), checkpoint.tensors(group).len());
        for (name, described) in ours {
            let published = checkpoint.describe(&name).unwrap();
            assert_eq!(described.shape, published.shape, "{name}");
            let (rows, cols) = matrix_shape(&published.shape);
            let (mut got, mut want) = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
            checkpoint
                .read(&pool, &name, 0..rows, 0..cols, &mut want)
                .unwrap();
            mmproj
                .read(&pool, &name, 0..rows, 0..cols, &mut got)
                .unwrap();
            if name.ends_with(".per_dim_scale") {
                let near = |(got, want): (&f32, &f32)| (got - want).abs() < 1e-6;
                assert!(got.iter().zip(&want).all(near), "{name}");
            } else {
                assert!(got == want, "{name}");
            }
            // A part of it is that part.
            let (some_rows, some_cols) = (rows / 3..rows, cols / 4..cols.div_ceil(2));
            let width = some_cols.len();
            let mut part = vec![0.0; some_rows.len() * width];
            mmproj
                .read(
                    &pool,
                    &name,
                    some_rows.clone(),
                    some_cols.clone(),
                    &mut part,
                )
                .unwrap();
            for (row, part) in some_rows.zip(part.chunks_exact(width)) {
                assert!(part == &got[row * cols..][some_cols.clone()], "{name}");
            }
        }
    }
}

/// Names of the tensors of a published model in an mmproj file.
fn published(size: SyntheticSize, family: Family, group: Group) -> BTreeSet<String> {
    let json = size.config(false, Recipe::Balanced).to_string();
    let architecture = family::parse(json.as_bytes(), Path::new("config.json")).unwrap();
    let tensors = architecture.encoder_tensors(group).unwrap();
    let names = tensors.iter().map(|(name, _)| family.find(name).unwrap().0);
    let names: BTreeSet<String> = names.collect();
    assert_eq!(names.len(), tensors.len(), "each has a place of its own");
    names
}

/// The files' own counts (reference: the lists of the published mmproj files), and a few names of each kind.
#[test]
fn published_models_have_as_many_tensors_there() {
    for size in [SyntheticSize::Gemma4E2b, SyntheticSize::Gemma4E4b] {
        let audio = published(size, Family::Gemma4, Group::Audio);
        let vision = published(size, Family::Gemma4, Group::Vision);
        assert_eq!((audio.len(), vision.len()), (752, 659));
        for name in [
            "a.blk.11.norm_conv.weight",
            "a.blk.0.ffn_down_1.output_min",
            "a.pre_encode.out.bias",
        ] {
            assert!(audio.contains(name), "{name}");
        }
        for name in [
            "v.blk.15.attn_out.input_max",
            "v.patch_embd.weight",
            "mm.input_projection.weight",
        ] {
            assert!(vision.contains(name), "{name}");
        }
    }
    // 548 of the network and four of the embedder.
    let vision = published(SyntheticSize::E4b, Family::Gemma3n, Group::Vision);
    assert_eq!(vision.len(), 552);
    for name in [
        "v.conv_stem.conv.bias",
        "v.blk.2.9.attn.key.down_conv.weight",
        "v.blk.3.38.layer_scale.gamma",
        "v.blk.1.0.dw_start.bn.weight",
        "v.msfa.ffn.pw_exp.conv.weight",
        "mm.embedding.weight",
        "mm.hard_emb_norm.weight",
    ] {
        assert!(vision.contains(name), "{name}");
    }
}

#[test]
fn no_flipped_byte_of_a_header_panics() {
    let sound = std::fs::read(mmproj()).unwrap();
    let whole = Mmproj::open(&mmproj()).unwrap();
    let starts = whole.gguf.header.tensors.values().map(|info| info.start);
    let header = starts.min().unwrap() as usize;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.gguf");
    let pool = Pool::new(Isa::from_environment().unwrap(), 1);
    let (mut refused, mut taken) = (0, 0);
    for time in 0..200 {
        let mut bytes = sound.clone();
        bytes[time * 331 % header] ^= 1 << (time % 8);
        std::fs::write(&path, bytes).unwrap();
        let outcome = Mmproj::open(&path).and_then(|mut mmproj| complete(&mut mmproj, &pool));
        match outcome {
            Ok(_) => taken += 1,
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    }
    // A bit of a name or of a size is missed; one of a hint is not.
    assert!(refused > 100 && taken > 0, "{refused}, {taken}");
}
