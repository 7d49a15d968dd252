//! Gemma 3n: what no other family has. `gemma3n.md` beside this file is its specification ("reference section N").

pub mod audio;
mod layers;
pub mod matformer;
pub mod multimodal_embedder;
pub mod text;
pub mod vision;
