//! The golden tensors: made by the reference implementation, read here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unreachable_pub,
    dead_code,
    reason = "every test binary compiles this module and uses a part of it"
)]

pub mod gguf;
pub mod pages;

use std::path::{Path, PathBuf};

use gemmad::pack::{PackError, PackOptions, Recipe, pack_checkpoint};
use kernels::{Isa, Pool};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The checkpoint directory under test: `GEMMAD_FIXTURES`, else the one in the repository.
pub fn fixtures() -> PathBuf {
    std::env::var_os("GEMMAD_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-a"),
        PathBuf::from,
    )
}

/// The Gemma 4 checkpoint under test: `GEMMAD_FIXTURES_G4`, else the one in the repository.
pub fn fixtures_gemma4() -> PathBuf {
    std::env::var_os("GEMMAD_FIXTURES_G4").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-g4a"),
        PathBuf::from,
    )
}

/// The directory of GGUF files of the Gemma 4 checkpoint under test: `GEMMAD_FIXTURES_G4_GGUF`, else the one in the repository.
pub fn fixtures_gemma4_gguf() -> PathBuf {
    std::env::var_os("GEMMAD_FIXTURES_G4_GGUF").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-g4a-gguf"),
        PathBuf::from,
    )
}

/// The Gemma 4 checkpoint under test whose bits were trained: `GEMMAD_FIXTURES_G4_MOBILE`, else the one in the repository. It was made of
/// [`fixtures_gemma4`], whose prompts, picture and clip its goldens are of.
pub fn fixtures_gemma4_mobile() -> PathBuf {
    std::env::var_os("GEMMAD_FIXTURES_G4_MOBILE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-g4a-qat-mobile"),
        PathBuf::from,
    )
}

/// The drafter of [`fixtures_gemma4`] under test: `GEMMAD_FIXTURES_G4_DRAFTER`, else the one in the repository.
pub fn fixtures_gemma4_drafter() -> PathBuf {
    std::env::var_os("GEMMAD_FIXTURES_G4_DRAFTER").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-g4a-drafter"),
        PathBuf::from,
    )
}

/// The checkpoint under test as a pack in `dir`.
pub fn tiny_pack(recipe: Recipe, dir: &Path) -> PathBuf {
    pack_of(&fixtures(), recipe, dir)
}

/// A checkpoint as a pack in `dir`.
pub fn pack_of(from: &Path, recipe: Recipe, dir: &Path) -> PathBuf {
    let to = dir.join("tiny.pack");
    let pool = Pool::new(Isa::best(), 2);
    let options = PackOptions {
        recipe,
        ..PackOptions::default()
    };
    pack_checkpoint(from, &to, options, &pool, &mut |_, _| {}).unwrap();
    to
}

/// The Gemma 4 checkpoint under test as a pack in `dir`, with the drafter in the directory `drafter`.
pub fn pack_with_drafter(drafter: &Path, recipe: Recipe, dir: &Path) -> Result<PathBuf, PackError> {
    let to = dir.join("drafted.pack");
    let pool = Pool::new(Isa::best(), 2);
    let options = PackOptions {
        recipe,
        drafter: Some(drafter),
        ..PackOptions::default()
    };
    pack_checkpoint(&fixtures_gemma4(), &to, options, &pool, &mut |_, _| {})?;
    Ok(to)
}

/// A copy of a checkpoint without its towers: the text model's tensors, and all small files.
pub fn text_alone(from: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|end| end.to_str()) {
            Some("safetensors") => shards.push(std::fs::read(&path).unwrap()),
            _ if path.is_dir() || path.ends_with("model.safetensors.index.json") => {}
            _ => drop(std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap()),
        }
    }
    let all = shards
        .iter()
        .flat_map(|shard| SafeTensors::deserialize(shard).unwrap().tensors());
    let text = all.filter(|(name, _)| name.starts_with("model.language_model."));
    let file = safetensors::serialize(text, None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
    dir
}

/// One file of golden tensors.
pub struct Golden {
    name: String,
    bytes: Vec<u8>,
}

impl Golden {
    /// Reads `golden/NAME.safetensors` of the fixtures.
    pub fn open(name: &str) -> Golden {
        Golden::of(&fixtures(), name)
    }

    /// Likewise of another checkpoint.
    pub fn of(checkpoint: &Path, name: &str) -> Golden {
        let path = checkpoint
            .join("golden")
            .join(format!("{name}.safetensors"));
        let bytes =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Golden {
            name: name.to_owned(),
            bytes,
        }
    }

    /// The values and the shape of a float tensor.
    pub fn f32(&self, tensor: &str) -> (Vec<f32>, Vec<usize>) {
        let (data, shape) = self.raw(tensor, Dtype::F32);
        (
            data.chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            shape,
        )
    }

    /// The values and the shape of an integer tensor of 32 or 64 bits.
    pub fn i32(&self, tensor: &str) -> (Vec<i32>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        match file.tensor(tensor).map(|view| view.dtype()) {
            Ok(Dtype::I64) => {
                let (data, shape) = self.raw(tensor, Dtype::I64);
                let wide = data
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
                (
                    wide.map(|value| i32::try_from(value).unwrap()).collect(),
                    shape,
                )
            }
            _ => {
                let (data, shape) = self.raw(tensor, Dtype::I32);
                (
                    data.chunks_exact(4)
                        .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                        .collect(),
                    shape,
                )
            }
        }
    }

    /// The values and the shape of a byte tensor.
    pub fn u8(&self, tensor: &str) -> (Vec<u8>, Vec<usize>) {
        self.raw(tensor, Dtype::U8)
    }

    /// Whether the file has this tensor.
    pub fn contains(&self, tensor: &str) -> bool {
        SafeTensors::deserialize(&self.bytes)
            .unwrap()
            .tensor(tensor)
            .is_ok()
    }

    fn raw(&self, tensor: &str, dtype: Dtype) -> (Vec<u8>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file
            .tensor(tensor)
            .unwrap_or_else(|error| panic!("{} has no {tensor}: {error}", self.name));
        assert_eq!(view.dtype(), dtype, "{tensor}");
        (view.data().to_vec(), view.shape().to_vec())
    }
}

/// Fails where a value is further than `tolerance` from the golden one, naming the worst place; gives the largest difference.
#[track_caller]
pub fn assert_close(name: &str, got: &[f32], want: &[f32], tolerance: f32) -> f32 {
    assert_eq!(got.len(), want.len(), "{name}: number of values");
    let mut worst = (0, 0.0f32);
    for (at, (&got, &want)) in got.iter().zip(want).enumerate() {
        let difference = (got - want).abs();
        // A NaN compares as neither smaller nor larger; it must win.
        if difference.is_nan() || difference > worst.1 {
            worst = (
                at,
                if difference.is_nan() {
                    f32::INFINITY
                } else {
                    difference
                },
            );
        }
    }
    let (at, difference) = worst;
    assert!(
        difference <= tolerance,
        "{name}: {difference} > {tolerance} at {at} of {}: got {}, want {}",
        got.len(),
        got[at],
        want[at]
    );
    difference
}

/// The hash of numbers, bit by bit.
pub fn sha256(values: &[f32]) -> String {
    let mut hash = Sha256::new();
    for value in values {
        hash.update(value.to_bits().to_le_bytes());
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// `golden/manifest.json`: prompts, tokenizer and chat cases, slices.
pub fn manifest() -> serde_json::Value {
    let path = fixtures().join("golden/manifest.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
