//! Frigate as its neighbours see it: `[frigate]`, and a client of its HTTP API.

mod api;
mod options;

pub use api::{Api, Trouble};
pub use options::{FrigateOptions, Moment};
