//! Models on the CPU: no async runtime, no device, no clock, no socket.

pub mod architecture;
mod best;
pub mod clipped_linear;
pub mod config;
pub mod conformer;
pub mod cue;
pub mod decoder;
pub mod drafter;
pub mod encoder;
pub mod family;
pub(crate) mod files;
pub mod gemma3n;
pub mod gemma4;
pub mod generation_config;
pub mod grammar;
pub mod processor_config;
pub mod prompt;
pub mod sampler;
pub mod spec;
pub mod special_ids;
pub mod stop;
pub mod tasks;
pub mod tensor_table;
pub mod tokenizer;
pub mod tools;
pub mod weights;
