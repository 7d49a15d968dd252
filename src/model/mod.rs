//! Gemma 3n on the CPU: no async runtime, no device, no clock, no socket.

pub mod config;
pub mod matformer;
pub mod tokenizer;
pub mod weights;
