//! Gemma 3n on the CPU: no async runtime, no device, no clock, no socket.

mod best;
pub mod config;
pub mod conformer;
pub mod decoder;
mod files;
pub mod gemma3n;
pub mod generation_config;
pub mod grammar;
pub mod processor_config;
pub mod prompt;
pub mod sampler;
pub mod stop;
pub mod tasks;
pub mod tokenizer;
pub mod weights;
