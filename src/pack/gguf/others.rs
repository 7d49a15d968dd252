//! What a file is that does not hold what is wanted of it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::model::weights::instead_of_file;

/// The architectures that llama.cpp calls Gemma 3n and Gemma 4.
pub(super) const GEMMA_3N: &str = "gemma3n";
pub(super) const GEMMA_4: &str = "gemma4";
/// What it calls Gemma 4's drafter.
const DRAFTER: &str = "gemma4-assistant";
/// And the one that it gives what hears and sees.
pub(super) const TOWERS: &str = "clip";

/// What a file is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pack) enum Wanted {
    /// A text model.
    Text,
    /// What hears and sees: an mmproj file.
    Towers,
}

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

/// Why what a file says that it is (`general.type`) is no model, where that is so.
pub(super) fn no_model(kind: &str) -> Option<&'static str> {
    match kind {
        "adapter" => Some(
            "it is a LoRA adapter, which is a change to a model and no model: merge it first (`llama-export-lora -m MODEL.gguf --lora FILE.gguf -o WHOLE.gguf`), and give the whole model",
        ),
        "imatrix" => Some(
            "it is an importance matrix, which says how to quantise a model and is none: give the model's own file",
        ),
        _ => None,
    }
}

/// Why a model of this architecture is not packed, whatever its tensors are.
pub(super) fn reason(architecture: &str, wanted: Wanted) -> Option<String> {
    Some(match (architecture, wanted) {
        (GEMMA_3N | GEMMA_4, Wanted::Text) | (TOWERS, Wanted::Towers) => return None,
        (_, Wanted::Towers) => format!(
            "it is no mmproj, which holds what hears and sees: its architecture is {architecture:?}; give a text model as --from, and the model's mmproj file as --mmproj"
        ),
        (TOWERS, Wanted::Text) => {
            "it is an mmproj, which holds what hears and sees, but no text model: give the text model as --from, and this file as --mmproj".to_owned()
        }
        (DRAFTER, _) => "it is the drafter of a Gemma 4, without the clusters that make its head fast: give the model as --from, and the directory of the drafter's safetensors as --drafter".to_owned(),
        ("gemma3", _) => format!(
            "it is a Gemma 3 ({architecture:?}), an older family than those that gemmad runs: take a file of Gemma 4 E2B or E4B, or of Gemma 3n"
        ),
        _ => format!(
            "its architecture is {architecture:?}; of files of llama.cpp gemmad packs those of Gemma 4 ({GEMMA_4:?}) and of Gemma 3n ({GEMMA_3N:?})"
        ),
    })
}
