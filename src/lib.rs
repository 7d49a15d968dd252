//! Runs Gemma 3n and Gemma 4 on small ARM64 boards. The rooms stand here by name; ARCHITECTURE.md has them in the order of the data.

#![deny(unsafe_code)]

pub mod capture;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod features;
pub mod fleet;
pub mod frigate;
pub mod guard;
pub mod hub;
pub mod media;
pub mod model;
pub mod pack;
pub mod pipeline;
pub mod publish;
pub mod report;
pub mod tls;
pub mod utterance;
pub mod values;
