//! Arithmetic on slices: no I/O, no model names, no layers.
//!
//! Each operation is a room: its door (`mod.rs`) documents it, checks the lengths and picks the code for the [`Isa`];
//! `scalar.rs` is the plain reference that is shipped and that every other form is tested against
//! (`tests/agreement/`), to the bit but for `matmul_in_any_order`; the form for vector registers is written once over the trait `simd::Simd` and compiled for NEON,
//! AVX2 and AVX-512.
//!
//! What a kernel may assume: its slices have the lengths that its door checked. What it may not: alignment, padding,
//! finite values. A NaN among the inputs gives NaN where it takes part, never a panic.
//!
//! `unsafe` is found in two places: `simd/` (vector loads and stores that check their slices, and the one call into
//! code compiled for an instruction set that the CPU was seen to have), and `pool/`.

pub mod attention;
mod clip;
pub mod conv;
mod cores;
mod dot_tile;
pub mod elementwise;
pub mod gelu;
mod inputs;
mod isa;
pub mod layer_norm;
mod map;
pub mod matmul;
mod matrix;
pub mod matvec;
mod packed_tile;
mod pool;
pub mod quant;
pub mod quantized;
pub mod rms_norm;
pub mod rope;
mod rows;
mod simd;
pub mod softmax;
pub mod sparse;
pub mod widen;

pub use clip::{Bounds, Clip};
pub use cores::recommended_threads;
pub use inputs::Inputs;
pub use isa::{FORCE_VARIABLE, Isa, IsaError};
pub use matrix::{Matrix, MatrixData};
pub use pool::{Pool, TileMut};
