//! The model hub: names of models, what a repository holds, and the bytes of its files, by range.
//!
//! Nothing is asked of it unless a person runs a command that says so. Source of the protocol: the Python client `huggingface_hub`,
//! which `tests/hub/` lets download from the same server that these requests are tested against.

mod cache;
mod client;
mod download;
mod error;
mod listing;
mod name;
mod refusal;
mod settings;
mod socket;
mod stream;

pub use cache::Cache;
pub use client::{Client, Notice};
pub use error::HubError;
pub use listing::{Etag, RemoteFile, Repository};
pub use name::{ModelName, NAMES};
pub use settings::Settings;
pub use stream::Stream;
