//! Two to eight tokens, those of an answer that are looked at together: their activations stay in the first cache, a tile is unpacked
//! into registers as it comes, and its rows go in long stretches, so that weights stream as for one token.
//!
//! Where not all tokens' sums fit the registers, a tile is taken through some tokens after the others, a few groups at a time.

use super::*;
use crate::quantized::matvec::task_tiles;

/// Tokens that are few.
const FEW_TOKENS: usize = 8;
/// Panels that they stand in.
pub(super) const FEW_PANELS: usize = FEW_TOKENS / PANEL;

/// Pairs of groups that are taken through some tokens before the next ones: few enough for memory not to wait.
const PAIRS: usize = 4;

/// [`super::matmul_within`] of few tokens.
pub(super) fn matmul(pool: &Pool, w: Quantized, x: &Q8Activations, bounds: Bounds, y: &mut [f32]) {
    pool.for_each_stretch_mut(y, w.rows(), TILE_ROWS, task_tiles(w), &|row, y| {
        multiply_tiles(w, x, row, y);
        bounds.clamp_tile(x.isa, y);
    });
}

/// The outputs of the rows from `row` on, the first of a tile, for all tokens of `x`, which are few.
pub(in crate::quantized) fn multiply_tiles(
    w: Quantized,
    x: &Q8Activations,
    row: usize,
    y: &mut TileMut<'_, f32>,
) {
    let first = row / TILE_ROWS;
    let (isa, x) = (x.isa, &x.panels[..]);
    dispatch_integer(isa, Few { w, first, x, y });
}

/// Whether so many tokens are few.
pub(in crate::quantized) fn are_few(tokens: usize) -> bool {
    tokens <= FEW_TOKENS
}

/// The rows from tile `first` on, for the tokens of the panels `x`.
struct Few<'a, 'y, 'm> {
    w: Quantized<'a>,
    first: usize,
    x: &'a [X],
    y: &'y mut TileMut<'m, f32>,
}

impl IntegerKernel for Few<'_, '_, '_> {
    fn scalar(self) {
        for block in blocks(self.w) {
            scalar::tiles(Tiles {
                w: self.w,
                first: self.first,
                block,
                bounds: Bounds::NONE,
                x: self.x,
                y: self.y,
            });
        }
    }

    each_with!(neon, dotprod, i8mm, avx2, avx512vnni);
}

/// Some groups of a tile, and of the panels with its tokens; where that is one, it stands there twice.
pub(super) struct Part<'a, F: BlockFormat> {
    pairs: &'a [F::Pair],
    x: [&'a [X]; FEW_PANELS],
}

/// What an instruction set does with a tile as it is stored; the methods must be `#[inline(always)]`.
pub(super) trait FewTokens: Copy {
    /// Tokens that it takes at a time.
    const AT_ONCE: usize;
    /// Adds the products of a part with as many tokens as there are `sums`, from lane `lane` of its first panel on.
    fn multiply<F: BlockFormat>(self, part: &Part<F>, lane: usize, sums: &mut [[f32; TILE_ROWS]]);
}

/// The sums of `T` tokens, from lane `LANE` of a panel on; the methods must be `#[inline(always)]`.
pub(super) trait TokenSums<const T: usize, const LANE: usize>: Copy {
    /// In registers.
    type Sums;
    /// Is shown a pair of groups before it is added, where memory is to be asked for later ones.
    #[inline(always)]
    fn begin<F: BlockFormat>(self, _: &F::Pair) {}
    /// Takes them up.
    fn load(self, from: &[[f32; TILE_ROWS]; T]) -> Self::Sums;
    /// Adds the products of a group.
    fn add<F: BlockFormat>(
        self,
        sums: &mut Self::Sums,
        w: &F::Tile,
        sw: &Scales,
        x: [&X; FEW_PANELS],
    );
    /// Puts them down.
    fn store(self, sums: Self::Sums, to: &mut [[f32; TILE_ROWS]; T]);
}

/// Adds the products of a part with `T` tokens, which have so many `sums`.
#[inline(always)]
pub(super) fn multiply<F: BlockFormat, const T: usize, const LANE: usize>(
    s: impl TokenSums<T, LANE>,
    part: &Part<F>,
    sums: &mut [[f32; TILE_ROWS]],
) {
    let Some(out) = sums.as_mut_array::<T>() else {
        return;
    };
    let mut sums = s.load(out);
    let [(x0, last0), (x1, last1)] = part.x.map(|x| x.as_chunks::<TOGETHER>());
    for ((pair, x0), x1) in part.pairs.iter().zip(x0).zip(x1) {
        s.begin::<F>(pair);
        let (scales, integers) = F::split(pair);
        s.add::<F>(&mut sums, &integers[0], &scales[0], [&x0[0], &x1[0]]);
        s.add::<F>(&mut sums, &integers[1], &scales[1], [&x0[1], &x1[1]]);
    }
    if let ([x0], [x1], Some(pair)) = (last0, last1, part.pairs.last()) {
        let (scales, integers) = F::split(pair);
        s.add::<F>(&mut sums, &integers[0], &scales[0], [x0, x1]);
    }
    s.store(sums, out);
}

impl Few<'_, '_, '_> {
    #[inline(always)]
    fn each(self, s: impl FewTokens) {
        with_block_format!(self.w.format(), F => self.each_of::<F, _>(s));
    }

    #[inline(always)]
    fn each_of<F: BlockFormat, P: FewTokens>(self, s: P) {
        let (tokens, groups) = (self.y.rows(), self.w.groups());
        let panels = [0, tokens.div_ceil(PANEL) - 1].map(|at| &self.x[at * groups..][..groups]);
        let pairs_at_once = if tokens > P::AT_ONCE { PAIRS } else { groups };
        for (tile, row) in (0..self.y.cols()).step_by(TILE_ROWS).enumerate() {
            let rows = row..self.y.cols().min(row + TILE_ROWS);
            let pairs = F::Pair::cut(self.w.pairs(self.first + tile));
            let mut sums = [[0.0; TILE_ROWS]; FEW_TOKENS];
            for (at, pairs) in pairs.chunks(pairs_at_once).enumerate() {
                let first = at * pairs_at_once * TOGETHER;
                let groups = first..groups.min(first + pairs.len() * TOGETHER);
                for (i, sums) in sums[..tokens].chunks_mut(P::AT_ONCE).enumerate() {
                    let token = i * P::AT_ONCE;
                    let x = panels.map(|x| &x[groups.clone()]);
                    let x = if token < PANEL { x } else { [x[1]; 2] };
                    s.multiply::<F>(&Part { pairs, x }, token % PANEL, sums);
                }
            }
            for (token, sums) in sums[..tokens].iter().enumerate() {
                copy(
                    &sums[..rows.len()],
                    &mut self.y.row_mut(token)[rows.clone()],
                );
            }
        }
    }
}
