//! Token embeddings and the LM head: one matrix, in a pack perhaps in two planes.
//!
//! Where its integers were trained, what goes into the product and what comes out of it is rounded, and lookups are not. A checkpoint may then
//! have a head that is another matrix.
//!
//! Of two planes A and B the weights are A + B, and a logit is `A·h + B·h`, added in f32. A is read for every token; where few logits
//! decide what is chosen, only the rows of B are read that may be among those few. With the `n` best wanted:
//!
//! 1. The `n` rows that are best by A get their B. The least of them is a floor: the n-th best of all cannot lie below.
//! 2. Every other row that B may lift to the floor gets its B as well.
//!
//! B may lift a logit by `REACH ‖h‖ p`, where the row's peak `p` is the largest root mean square of a group of B's weights. That is no
//! proof but odds: the errors of rounding are as good as independent and uniform, so that `B·h` is sub-Gaussian with a deviation of
//! `‖h‖ p` at most, however `h` is distributed, and exceeds six of them once in 65 million rows; with an `h` that is spread out `p` is
//! 1.3 times the deviation, and it is less than once in 10¹³. An `h` that is the row itself reaches three, because the least squared
//! error leaves a B that is orthogonal to A. The certain bound, √D deviations (Cauchy and Schwarz), would let a third of the vocabulary
//! in.
//!
//! Source: reference section 2.7.

use kernels::{Matrix, MatrixData, Pool};

use super::{Compute, Loader};
use crate::model::best::{Best, finite};
use crate::model::grammar::TokenSet;
use crate::model::weights::{
    Checkpoint, HEAD_RESIDUAL, HEAD_RESIDUAL_PEAKS, Mapped, RowFile, Tensor, WeightsError,
};

/// How many deviations the second plane is taken to reach.
const REACH: f32 = 6.0;
/// Rows of the second plane that are in memory at once: some 1 MiB.
const BATCH: usize = 1024;
/// Logits that one task caps: enough work for a thread to be worth waking.
const SOFT_CAP_CHUNK: usize = 8192;

/// Which logits are to be right to the last bit. The others lack the second plane of a head that has two: they are off by about a tenth
/// of the logits' own deviation.
#[derive(Clone, Copy)]
pub enum Exact<'a> {
    /// Every one.
    All,
    /// The `count` best of all, and the `count` best of `within`; every other one comes out lower than those.
    Best {
        /// How many.
        count: usize,
        /// Tokens that are compared among themselves: those that a grammar allows.
        within: Option<&'a TokenSet>,
    },
}

/// The matrix.
#[derive(Debug)]
pub(crate) struct Head {
    /// All of it, or the first plane.
    embed_tokens: Tensor,
    /// The same for products, or another matrix.
    product: Tensor,
    residual: Option<Residual>,
    cap: Option<f32>,
}

#[derive(Debug)]
struct Residual {
    rows: RowFile,
    peaks: Tensor,
}

/// Buffers; they grow at the first use.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    batch: Batch,
    best: Best,
    /// The best by the first plane, those of all before those of a set.
    first: Vec<u32>,
    /// The same in order, each once.
    lifted: Vec<u32>,
    /// Further rows that the second plane may lift among them.
    rows: Vec<u32>,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lifts: Vec<f32>,
    /// Rows read for logits so far.
    read: u64,
}

impl Scratch {
    /// Room at the first use, so that nothing is allocated between two tokens.
    fn reserve(&mut self, row_bytes: usize) {
        for numbers in [&mut self.first, &mut self.lifted, &mut self.rows] {
            numbers.clear();
            numbers.reserve(BATCH);
        }
        self.best.reserve(BATCH);
        self.batch.bytes.clear();
        self.batch.bytes.reserve(BATCH * row_bytes);
        self.batch.lifts.clear();
        self.batch.lifts.reserve(BATCH);
    }

    pub(crate) fn bytes(&self) -> usize {
        let numbers = self.batch.lifts.capacity() + self.first.capacity();
        self.batch.bytes.capacity() + 4 * (numbers + self.lifted.capacity() + self.rows.capacity())
    }

    /// Rows of the second plane read for logits so far.
    pub(crate) fn rows_read(&self) -> u64 {
        self.batch.read
    }
}

impl Head {
    /// `rows` is the size of the vocabulary, `cap` the logits' bound.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        loader: &Loader<'_>,
        rows: usize,
        d: usize,
        cap: Option<f32>,
    ) -> Result<Head, WeightsError> {
        let residual = match RowFile::open(checkpoint, HEAD_RESIDUAL, rows, d)? {
            None => None,
            Some(file) => Some(Residual::load(file, checkpoint, loader.weights, rows)?),
        };
        let embed_tokens = loader.matrix("embed_tokens.weight", rows, d)?;
        Ok(Head {
            embed_tokens,
            product: loader.head(embed_tokens)?,
            residual,
            cap,
        })
    }

    /// Gives back what the page cache has of the second plane.
    pub(crate) fn evict(&self) {
        if let Some(residual) = &self.residual {
            residual.rows.evict();
        }
    }

    /// Rows of `ids`, unscaled, into `out [ids.len(), D]`; `row` is scratch of D numbers.
    pub(crate) fn embed(
        &self,
        Compute { pool, weights }: Compute<'_>,
        ids: &[u32],
        scratch: &mut Scratch,
        row: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        let first = weights.view(self.embed_tokens);
        let d = first.cols;
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(d)) {
            kernels::widen::row(pool.isa(), first, id as usize, out);
        }
        let Some(residual) = &self.residual else {
            return Ok(());
        };
        for (ids, out) in ids.chunks(BATCH).zip(out.chunks_mut(BATCH * d)) {
            let second = residual.rows.read(ids, &mut scratch.batch.bytes)?;
            for (at, out) in out.chunks_exact_mut(d).enumerate() {
                kernels::widen::row(pool.isa(), second, at, row);
                kernels::elementwise::add(pool.isa(), out, row);
            }
        }
        Ok(())
    }

    /// What logits begin as, `product · hidden` or that of the first plane, for `t` hidden states \[T, D\] and the first ids, as many as
    /// `out` \[T, ids\] has room for. The matrix is read once.
    pub(crate) fn products(
        &self,
        Compute { pool, weights }: Compute<'_>,
        hidden: &[f32],
        t: usize,
        out: &mut [f32],
    ) {
        let first = weights.view(self.product).rows(0..out.len() / t);
        kernels::matmul::matmul(pool, first, hidden, t, out);
    }

    /// `out = cap · tanh(product · hidden / cap)` of what [`Head::products`] gave for the first `out.len()` ids.
    pub(crate) fn finish(
        &self,
        compute: Compute<'_>,
        hidden: &[f32],
        exact: Exact<'_>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        let pool = compute.pool;
        if let Some(residual) = &self.residual {
            match exact {
                Exact::All => residual.lift_all(pool, hidden, scratch, out)?,
                Exact::Best { count, within } => {
                    residual.lift_best(compute, hidden, count, within, scratch, out)?;
                }
            }
        }
        self.soft_cap(pool, out);
        Ok(())
    }

    /// The logits of `ids`, which ascend, all others being -inf.
    pub(crate) fn logits_of(
        &self,
        Compute { pool, weights }: Compute<'_>,
        hidden: &[f32],
        ids: &[u32],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        let first = weights.view(self.product).rows(0..out.len());
        let mut logits = rows_of(pool, first, ids, hidden);
        out.fill(f32::NEG_INFINITY);
        for (&id, logit) in ids.iter().zip(&logits) {
            out[id as usize] = *logit;
        }
        if let Some(residual) = &self.residual {
            for ids in ids.chunks(BATCH) {
                residual.lift(pool, hidden, ids, &mut scratch.batch, out)?;
            }
        }
        for (logit, &id) in logits.iter_mut().zip(ids) {
            *logit = out[id as usize];
        }
        self.soft_cap(pool, &mut logits);
        for (logit, &id) in logits.iter().zip(ids) {
            out[id as usize] = *logit;
        }
        Ok(())
    }

    fn soft_cap(&self, pool: &Pool, out: &mut [f32]) {
        if let Some(cap) = self.cap {
            pool.for_each_chunk_mut(out, SOFT_CAP_CHUNK, &|_, out| {
                kernels::elementwise::soft_cap(pool.isa(), out, cap)
            });
        }
    }
}

impl Residual {
    fn load(
        file: RowFile,
        checkpoint: &Checkpoint,
        weights: &Mapped,
        rows: usize,
    ) -> Result<Residual, WeightsError> {
        let peaks = weights.matrix(HEAD_RESIDUAL_PEAKS, rows, 1)?;
        if !matches!(weights.view(peaks).data, MatrixData::Bf16(_)) {
            return Err(WeightsError::Pack {
                path: checkpoint.dir().to_owned(),
                reason: format!("tensor {HEAD_RESIDUAL_PEAKS} is not BF16"),
            });
        }
        Ok(Residual { rows: file, peaks })
    }

    /// Adds what the second plane says to the logits of `rows`, at most [`BATCH`] of them.
    fn lift(
        &self,
        pool: &Pool,
        hidden: &[f32],
        rows: &[u32],
        batch: &mut Batch,
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        let second = self.rows.read(rows, &mut batch.bytes)?;
        batch.lifts.resize(rows.len(), 0.0);
        kernels::matvec::matvec(pool, second, hidden, &mut batch.lifts);
        for (&row, lift) in rows.iter().zip(&batch.lifts) {
            out[row as usize] += lift;
        }
        batch.read += rows.len() as u64;
        Ok(())
    }

    fn lift_all(
        &self,
        pool: &Pool,
        hidden: &[f32],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        scratch.reserve(self.rows.row_bytes());
        let Scratch { batch, rows, .. } = scratch;
        for first in (0..out.len()).step_by(BATCH) {
            rows.clear();
            rows.extend(first as u32..out.len().min(first + BATCH) as u32);
            self.lift(pool, hidden, rows, batch, out)?;
        }
        Ok(())
    }

    /// Steps 1 and 2.
    fn lift_best(
        &self,
        Compute { pool, weights }: Compute<'_>,
        hidden: &[f32],
        count: usize,
        within: Option<&TokenSet>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        scratch.reserve(self.rows.row_bytes());
        let Scratch {
            batch,
            best,
            first,
            lifted,
            rows,
        } = scratch;
        let allowed = |id: u32| within.is_some_and(|within| within.contains(id));
        first.extend(best.of(finite(out), count).map(|of| of.id));
        let of_all = first.len();
        if within.is_some() {
            let candidates = finite(out).filter(|of| allowed(of.id));
            first.extend(best.of(candidates, count).map(|of| of.id));
        }
        lifted.clone_from(first);
        lifted.sort_unstable();
        lifted.dedup();
        for rows in lifted.chunks(BATCH) {
            self.lift(pool, hidden, rows, batch, out)?;
        }
        // Where there are not so many, each is among the best.
        let floor = |ids: &[u32], out: &[f32]| match ids.len() < count {
            true => f32::NEG_INFINITY,
            false => (ids.iter()).fold(f32::INFINITY, |least, &id| least.min(out[id as usize])),
        };
        let (of_all, of_set) = first.split_at(of_all);
        let (of_all, of_set) = (floor(of_all, out), floor(of_set, out));

        let MatrixData::Bf16(peaks) = weights.view(self.peaks).data else {
            unreachable!("nothing else was admitted")
        };
        pool.count_weights(size_of_val(peaks));
        let reach = REACH * norm(hidden);
        let mut lifted = lifted.iter().copied().peekable();
        for id in 0..out.len() as u32 {
            if lifted.next_if_eq(&id).is_some() {
                continue;
            }
            let at_most = out[id as usize] + reach * peaks[id as usize].to_f32();
            if at_most >= of_all || at_most >= of_set && allowed(id) {
                rows.push(id);
            }
            if rows.len() == BATCH {
                self.lift(pool, hidden, rows, batch, out)?;
                rows.clear();
            }
        }
        self.lift(pool, hidden, rows, batch, out)
    }
}

/// `matrix · hidden` for some rows, which ascend; those of their blocks are computed with them.
pub(crate) fn rows_of(pool: &Pool, matrix: Matrix<'_>, rows: &[u32], hidden: &[f32]) -> Vec<f32> {
    let block_rows = kernels::matvec::BLOCK_ROWS;
    let mut blocks: Vec<u32> = rows.iter().map(|row| row / block_rows as u32).collect();
    blocks.dedup();
    let short = blocks.last().map_or(0, |&last| {
        ((last as usize + 1) * block_rows).saturating_sub(matrix.rows)
    });
    let mut computed = vec![0.0; (blocks.len() * block_rows).saturating_sub(short)];
    kernels::matvec::matvec_blocks(pool, matrix, &blocks, hidden, &mut computed);
    let mut block = 0;
    let picked = rows.iter().map(|row| {
        while blocks[block] != row / block_rows as u32 {
            block += 1;
        }
        computed[block * block_rows + *row as usize % block_rows]
    });
    picked.collect()
}

/// The length of a vector, summed in one order.
fn norm(x: &[f32]) -> f32 {
    let squares = x.iter().map(|&x| f64::from(x) * f64::from(x));
    squares.sum::<f64>().sqrt() as f32
}
