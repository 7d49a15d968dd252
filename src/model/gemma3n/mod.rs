//! Gemma 3n: what no other family has. `gemma3n.md` beside this file is its specification ("reference section N").

mod architecture;
pub mod audio;
pub mod config;
mod encoder_tensors;
mod layers;
pub mod matformer;
pub mod multimodal_embedder;
pub mod template;
mod tensors;
pub mod text;
pub mod vision;

pub use architecture::Gemma3n;

/// What it is called.
const FAMILY: &str = "Gemma 3n";
