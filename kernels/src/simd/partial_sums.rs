//! The one order in which numbers are added up: every instruction set then gives the same bits, and so does every way of
//! cutting the work.
//!
//! A sum is taken in blocks of [`BLOCK`] terms, whose sums are added up one after the other, beginning with 0. Within a
//! block, term `k` goes to partial sum `k % WAYS`, one after the other; products are not rounded before they are added
//! (`fma`). A last block that does not fill all ways equally is continued with zeros. Then the partial sums are added up as
//! a tree: those of the first half and those of the second, in pairs, until four are left, and of these the neighbours.

use super::{Element, Simd};

/// Terms of a block: few enough that a block of a few rows stays in the first-level cache, enough to make the tree cheap.
pub(crate) const BLOCK: usize = 512;

/// Partial sums: as many as AVX-512 has lanes, two registers of AVX2, four of NEON.
pub(crate) const WAYS: usize = 16;

/// The registers that hold [`WAYS`] partial sums, at most.
pub(crate) const MAX_REGISTERS: usize = WAYS / 4;

/// The partial sums of a block; of the registers only the first [`registers`] are used.
pub(crate) type Partial<S> = [<S as Simd>::V; MAX_REGISTERS];

/// The registers that hold [`WAYS`] partial sums.
#[inline(always)]
pub(crate) const fn registers<S: Simd>() -> usize {
    assert!(S::LANES >= WAYS / MAX_REGISTERS);
    WAYS / S::LANES
}

/// The sum of the partial sums.
#[inline(always)]
pub(crate) fn total<S: Simd>(s: S, mut partial: Partial<S>) -> f32 {
    let mut n = registers::<S>();
    while n > 1 {
        n /= 2;
        for i in 0..n {
            partial[i] = s.add(partial[i], partial[i + n]);
        }
    }
    s.sum(partial[0])
}

/// The partial sums of several products as a tree, down to one register.
///
/// Loops, not closures: a closure that is not inlined is compiled for no instruction set.
#[inline(always)]
pub(crate) fn fold_all<S: Simd, const R: usize, const T: usize>(
    s: S,
    mut partial: [[[S::V; R]; T]; MAX_REGISTERS],
) -> [[S::V; R]; T] {
    let mut n = registers::<S>();
    while n > 1 {
        n /= 2;
        let (first, second) = partial.split_at_mut(n);
        for (first, second) in first.iter_mut().zip(second) {
            for (first, second) in first.iter_mut().zip(second) {
                for (first, second) in first.iter_mut().zip(second) {
                    *first = s.add(*first, *second);
                }
            }
        }
    }
    partial[0]
}

/// The numbers of the last, incomplete step, continued with `fill`.
#[inline(always)]
pub(crate) fn last_step<E: Element>(rest: &[E], fill: f32) -> [f32; WAYS] {
    let mut last = [fill; WAYS];
    for (last, element) in last.iter_mut().zip(rest) {
        *last = element.widen();
    }
    last
}

/// `sum_k w_k x_k`; what one slice has more than the other is left out.
#[inline(always)]
pub(crate) fn dot<S: Simd, W: Element>(s: S, w: &[W], x: &[f32]) -> f32 {
    let mut sum = 0.0;
    for (w, x) in w.chunks(BLOCK).zip(x.chunks(BLOCK)) {
        let mut partial = [s.splat(0.0); MAX_REGISTERS];
        let (w, w_rest) = w.as_chunks::<WAYS>();
        let (x, x_rest) = x.as_chunks::<WAYS>();
        for (w, x) in w.iter().zip(x) {
            add_products(s, &mut partial, w, x);
        }
        if !x_rest.is_empty() {
            let (w, x) = (last_step(w_rest, 0.0), last_step(x_rest, 0.0));
            add_products(s, &mut partial, &w, &x);
        }
        sum += total(s, partial);
    }
    sum
}

#[inline(always)]
fn add_products<S: Simd, W: Element>(
    s: S,
    partial: &mut Partial<S>,
    w: &[W; WAYS],
    x: &[f32; WAYS],
) {
    for (i, sum) in partial[..registers::<S>()].iter_mut().enumerate() {
        let (w, x) = (&w[i * S::LANES..], &x[i * S::LANES..]);
        *sum = s.mul_add(W::load(s, w), s.load(x), *sum);
    }
}

/// The reference: `len` terms, of which `step(partial, k)` adds number `k` to its partial sum.
pub(crate) fn plain(len: usize, step: impl Fn(f32, usize) -> f32) -> f32 {
    let mut sum = 0.0;
    for first in (0..len).step_by(BLOCK) {
        let mut partial = [0.0; WAYS];
        let end = len.min(first + BLOCK);
        for k in first..end {
            let way = &mut partial[k % WAYS];
            *way = step(*way, k);
        }
        sum += tree(partial);
    }
    sum
}

/// The reference of [`dot`].
pub(crate) fn plain_dot<W: Element>(w: &[W], x: &[f32]) -> f32 {
    plain(w.len().min(x.len()), |sum, k| {
        w[k].widen().mul_add(x[k], sum)
    })
}

/// The sum of the partial sums, plainly. What the zeros of a last step would add is only the sign of a zero, which adding
/// the sum to 0 settles.
#[inline(always)]
pub(crate) fn tree(mut partial: [f32; WAYS]) -> f32 {
    let mut n = WAYS;
    while n > 4 {
        n /= 2;
        for i in 0..n {
            partial[i] += partial[i + n];
        }
    }
    (partial[0] + partial[1]) + (partial[2] + partial[3])
}
