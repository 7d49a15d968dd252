//! Wake words: whether one has just been said, from the samples of a microphone, every 10 ms.
//!
//! [`frontend`] makes of sound what a model hears, [`network`] is the model, [`manifest`] the JSON file beside it, and [`WakeWord`] all of
//! them together. The crate knows no device, no thread and no clock, and has no `unsafe` and nothing in C.

#![forbid(unsafe_code)]

pub mod frontend;
pub mod manifest;
pub mod network;
mod wake_word;

pub use wake_word::{Heard, WakeWord};
