//! Files of a checkpoint: each input is put into a directory of its own and opened as a user's directory is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gemmad::model::family;
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::vision::Architecture;
use gemmad::model::generation_config::GenerationConfig;
use gemmad::model::grammar::Compiler;
use gemmad::model::processor_config::ProcessorConfig;
use gemmad::model::tokenizer::Tokenizer;
use gemmad::model::weights::{Checkpoint, Group};
use gemmad::pack::{Mmproj, PackOptions, pack_gguf, verify};
use kernels::{Isa, Pool};
use tempfile::TempDir;

use super::sections;

/// What is told of a file is read by a person.
const LONGEST_TEXT_BYTES: usize = 16 << 10;

/// A directory with these files, in memory where the system has such a place.
fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let dir = tempfile::Builder::new()
        .prefix("gemmad-fuzz-")
        .tempdir_in(parent)
        .unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// The checkpoint of the demo.
pub(crate) fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|top| top.join("models/demo"))
        .find(|demo| demo.is_dir())
        .unwrap()
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::new(Isa::best(), 1))
}

/// Reads every tensor of a checkpoint in each way in which the model does.
fn read_all(checkpoint: &Checkpoint) {
    for group in Group::ALL {
        let Ok(mapped) = checkpoint.load(group) else {
            continue;
        };
        for tensor in checkpoint
            .tensors()
            .filter(|tensor| tensor.group == Some(group))
        {
            let rows = tensor.shape.first().copied().unwrap_or(1);
            let cols = mapped.cols(&tensor.name).unwrap_or(0);
            if let Ok(handle) = mapped.matrix(&tensor.name, rows, cols) {
                let matrix = mapped.view(handle);
                // Some are stored by column.
                assert!([(rows, cols), (cols, rows)].contains(&(matrix.rows, matrix.cols)));
            }
            if let Ok(elements) = usize::try_from(tensor.elements())
                && let Ok(vector) = mapped.vector(&tensor.name, elements)
            {
                assert_eq!(vector.len(), elements);
            }
        }
    }
}

/// `model.safetensors`; or an index, `one.safetensors` and `two.safetensors`.
pub(crate) fn safetensors(bytes: &[u8]) {
    let names = [
        "model.safetensors.index.json",
        "one.safetensors",
        "two.safetensors",
    ];
    let dir = match sections(bytes).as_slice() {
        [single] => directory(&[("model.safetensors", single)]),
        parts => directory(
            &names
                .into_iter()
                .zip(parts.iter().copied())
                .collect::<Vec<_>>(),
        ),
    };
    if let Ok(checkpoint) = Checkpoint::open(dir.path()) {
        read_all(&checkpoint);
    }
}

/// `pack.json` and `text.safetensors`, whose size stands for `"SIZE"` in the first.
pub(crate) fn pack(bytes: &[u8]) {
    let (manifest, weights) = match sections(bytes).as_slice() {
        [manifest, weights, ..] => (*manifest, *weights),
        [manifest] => (*manifest, &[][..]),
        [] => return,
    };
    let size = weights.len().to_string();
    let manifest = String::from_utf8_lossy(manifest).replace("\"SIZE\"", &size);
    let dir = directory(&[
        ("pack.json", manifest.as_bytes()),
        ("text.safetensors", weights),
    ]);
    if let Ok(checkpoint) = Checkpoint::open(dir.path()) {
        read_all(&checkpoint);
    }
    verify(dir.path(), &mut |_, _| {}).ok();
}

/// A GGUF file, packed.
pub(crate) fn gguf(bytes: &[u8]) {
    let dir = directory(&[("model.gguf", bytes)]);
    let (from, to) = (dir.path().join("model.gguf"), dir.path().join("a.pack"));
    let options = PackOptions::default();
    // The same bytes in the place of its towers.
    if let Ok(mmproj) = Mmproj::open(&from) {
        mmproj.warnings();
    }
    if pack_gguf(&from, None, &to, options, pool(), &mut |_, _| {}).is_ok() {
        read_all(&Checkpoint::open(&to).unwrap());
        verify(&to, &mut |_, _| {}).unwrap();
    }
}

/// `tokenizer.json`, and perhaps `tokenizer_config.json`.
pub(crate) fn tokenizer(bytes: &[u8]) {
    let names = ["tokenizer.json", "tokenizer_config.json"];
    let files: Vec<_> = names.into_iter().zip(sections(bytes)).collect();
    let dir = directory(&files);
    let Ok(tokenizer) = Tokenizer::load(dir.path()) else {
        return;
    };
    for text in [
        "Turn on the kitchen light, please.\n\n",
        "  ä€𝄞 <bos> <0x41>\t",
    ] {
        for ids in [tokenizer.encode(text), tokenizer.encode_text(text)] {
            tokenizer.decode(&ids).unwrap();
        }
        let ids = tokenizer.encode_text(text);
        assert!(!ids.iter().any(|&id| tokenizer.is_special(id)));
        tokenizer.encode_bytes(text.as_bytes().get(1..).unwrap_or_default());
    }
    if tokenizer.vocab_size() < 1 << 16 {
        let size = tokenizer.vocab_size();
        let stop = tokenizer.control().end_of_turn;
        Compiler::new(&Arc::new(tokenizer), size, &[stop]).ok();
    }
}

/// `config.json`, `generation_config.json`, `preprocessor_config.json`, `processor_config.json` and `slices.toml`, those that are given.
pub(crate) fn config(bytes: &[u8]) {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    let names = [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "slices.toml",
    ];
    let files: Vec<_> = names.into_iter().zip(sections(bytes)).collect();
    let dir = directory(&files);
    if let Ok(generation) = GenerationConfig::load(dir.path()) {
        generation.sampling.check().unwrap();
    }
    if let Ok(processor) = ProcessorConfig::load(dir.path()) {
        // The size of pictures was read as the file was.
        processor.image_side_px().unwrap();
        let here = serde_json::json!({ "do_resize": true, "resample": 2, "do_normalize": false });
        for told in processor.image_warnings(&here) {
            assert!(told.len() < LONGEST_TEXT_BYTES, "{} bytes", told.len());
        }
    }
    let Ok(model) = family::load(dir.path()) else {
        return;
    };
    if let Ok(slices) = model.slices(Some(dir.path())) {
        for slice in slices.iter() {
            assert_eq!(slices.get(&slice.name).unwrap().name, slice.name);
        }
    }
    for tensor in model.text_tensors() {
        assert!(model.category(&tensor.name).is_some(), "{}", tensor.name);
    }
    // What Gemma 3n's vision encoder alone reads.
    if let Ok(config) = Config::load(dir.path())
        && let Some(vision) = &config.vision
    {
        Architecture::new(vision.hidden_size, vision.model_args.as_ref()).ok();
    }
    let tokenizer = TOKENIZER.get_or_init(|| Tokenizer::load(&demo()).unwrap());
    tokenizer
        .check_config(
            &model.spec().ids,
            model.spec().vocab_size,
            &dir.path().join("config.json"),
        )
        .ok();
}
