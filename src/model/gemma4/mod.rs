//! Gemma 4: what no other family has. `gemma4.md` beside this file is its specification ("reference section N").

mod architecture;
pub mod audio;
pub mod config;
pub mod drafter;
mod encoder_tensors;
mod layers;
pub mod multimodal_embedder;
pub mod template;
mod tensors;
mod text;
pub mod vision;

pub use architecture::Gemma4;
