//! Products of quantised weights with 8-bit activations.
//!
//! Every product is made of the integer dots of groups, which are exact, and of their sum in f32,
//!
//! ```text
//! y[r] = Σ_g  s_w[r, g] s_x[g] d[r, g]        d[r, g] = Σ_{k in g} q_w[r, k] q_x[k]
//! ```
//!
//! in which every instruction set does the same roundings in the same order: `y = fma(d, s_w · s_x, y)`, group after group.
//! So results do not depend on the CPU or on the number of threads, bit by bit.
//!
//! Costs in the kernels' comments are counted, not estimated: instructions executed under qemu for 32 weights and a token, at
//! 2048 columns; for `matmul` with 128 tokens, unpacking included. `kernels/benches/record/` has them to three places, and
//! `make test-boards` fails where one grows.
//!
//! | operation | scalar | NEON | dotprod | i8mm | AVX2 | AVX-512 | AVX-512 VNNI |
//! |---|---|---|---|---|---|---|---|
//! | [`quantize_activations`] | reference | own | NEON | NEON | own | AVX2 | AVX2 |
//! | [`matvec`](matvec::matvec) | reference | own | own | dotprod | own | AVX2 | own |
//! | [`matmul`](matmul::matmul), 2 to 8 tokens | reference | own | own | own for 4 and 8, else dotprod | own | AVX2 | own |
//! | [`matmul`](matmul::matmul), more | reference | own | own | own | own | AVX2 | own |
//! | [`matvec_rows`](matvec_rows::matvec_rows) | reference | own | own | dotprod | own | AVX2 | AVX2 |
//! | [`accumulate_rows`] | reference | own | NEON | NEON | own | AVX2 | AVX2 |
//! | `row_scaled`, one token | reference | own | own | dotprod | own | AVX2 | own |
//! | `row_scaled`, 2 to 8 tokens | reference | own | own | own for 4 and 8, else dotprod | own | AVX2 | own |
//! | `row_scaled`, more | reference | own | own | own | own | AVX2 | own |
//!
//! `row_scaled` is the product with one scale a row, which needs no sum in f32; the others are those with scales for groups.

mod accumulate_rows;
mod gelu_gated;
pub mod matmul;
pub mod matvec;
pub mod matvec_rows;
mod quantize_activations;
pub(crate) mod row_scaled;
#[cfg(target_arch = "aarch64")]
mod signed;
#[cfg(target_arch = "x86_64")]
mod unsigned;

pub(crate) use accumulate_rows::accumulate_all_rows;
pub use accumulate_rows::accumulate_rows;
pub(crate) use gelu_gated::gelu_gated;
pub use quantize_activations::{quantize_activations, quantize_within};
pub(crate) use quantize_activations::{quantize_panel, with_activations};
