//! Gemma 3n on the CPU: no async runtime, no device, no clock, no socket.

pub mod audio;
mod best;
pub mod config;
pub mod decoder;
mod files;
pub mod gemma3n;
pub mod generation_config;
pub mod grammar;
pub mod multimodal_embedder;
pub mod processor_config;
pub mod prompt;
pub mod sampler;
pub mod stop;
pub mod tasks;
pub mod tokenizer;
pub mod vision;
pub mod weights;
