//! The tensors of a checkpoint: names and shapes at once, bytes only when a parameter group is loaded.
//!
//! [`Checkpoint::open`] reads and checks the headers; [`Checkpoint::load`] maps the byte ranges of one [`Group`]; what it
//! returns owns the mapping, so dropping it unloads the group. Not mapped but read by row are the PLE table and the second plane of
//! an LM head that has one. Weights are used in place: a bfloat16 matrix stays
//! bfloat16 in memory, and a pack's quantised blocks are read by the kernels where they lie.

mod checkpoint;
mod error;
mod foreign;
mod group;
mod header;
mod index;
mod kind;
mod mapping;
pub mod mobile;
mod pack;
mod pages;
mod ple_copy;
mod ple_store;
mod residency;
mod roundings;
mod row_cache;
mod row_file;
mod tensor_info;

pub(crate) use super::files::instead_of_file;
pub use checkpoint::Checkpoint;
pub use error::WeightsError;
pub use group::Group;
pub use mapping::{Mapped, Stretch, Tensor};
pub use pack::{
    Blocks, DRAFTER, DRAFTER_CONFIG, DRAFTER_HEAD, DRAFTER_ORDERING, HEAD_RESIDUAL,
    HEAD_RESIDUAL_PEAKS, PACK_FORMAT, PACK_JSON, PACK_VERSION, PackManifest, PackedFile,
};
pub use ple_store::{PleOptions, PleShape, PleStore, RowCounts};
pub use residency::{GroupState, Residency};
pub use row_file::RowFile;
pub use tensor_info::{TensorInfo, columns};
