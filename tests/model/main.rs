//! Gemma's parts by themselves: tokenizer, prompt, grammar, sampler, head, per-layer embeddings, a context filled to its end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clipped_linear;
#[path = "../common/mod.rs"]
mod common;
mod grammar;
mod head;
mod long_context;
mod pictures;
mod ple;
mod prompt;
mod sampler;
mod thoughts;
mod together;
mod tokenizer;
mod tokenizer_hostile;
mod tools;
mod vision_tensors;
