//! What a file is that holds no text model that is packed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::model::weights::instead_of_file;

/// The architectures that llama.cpp calls Gemma 3n and Gemma 4.
pub(super) const GEMMA_3N: &str = "gemma3n";
pub(super) const GEMMA_4: &str = "gemma4";

/// What a file is that does not begin as it should.
pub(super) fn instead(path: &Path) -> String {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
    let known = read.ok().and_then(|_| instead_of_file(&start));
    match known {
        Some(what) => what.to_owned(),
        None if path.extension().is_some_and(|end| end == "safetensors") => {
            "it is one file of a checkpoint: give the directory that holds it".to_owned()
        }
        None => "it is no GGUF file (it does not begin with \"GGUF\")".to_owned(),
    }
}

/// Why a model of this architecture is not packed, whatever its tensors are.
pub(super) fn reason(architecture: &str) -> Option<String> {
    Some(match architecture {
        GEMMA_3N | GEMMA_4 => return None,
        "clip" => {
            "it holds the towers of a model for llama.cpp (mmproj): gemmad takes towers from the checkpoint of safetensors".to_owned()
        }
        "gemma3" => format!(
            "it is a Gemma 3 ({architecture:?}), an older family than those that gemmad runs: take a file of Gemma 4 E2B or E4B, or of Gemma 3n"
        ),
        _ => format!(
            "its architecture is {architecture:?}; of files of llama.cpp gemmad packs those of Gemma 4 ({GEMMA_4:?}) and of Gemma 3n ({GEMMA_3N:?})"
        ),
    })
}
