//! Activations as integers by one scale for all of them.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::float32x4_t;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m256;
use std::cell::RefCell;

use crate::isa::Isa;
use crate::pool::Pool;
use crate::quant::{GROUP, PANEL};
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx2;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
use crate::simd::Simd;
use crate::simd::integer::{IntegerKernel, dispatch_integer, each_with};

/// 32 activations of one token.
pub(crate) type One = [i8; GROUP];
/// 32 activations of four tokens, `[k / 16][token][k % 16]`, or `[k / 8][token][k % 8]` for `smmla`.
pub(crate) type Four = [i8; GROUP * PANEL];

/// Activations `[tokens, cols]`, rounded for one instruction set; columns are padded with zeros to whole groups. Its buffers are reused.
pub(super) struct Activations {
    isa: Isa,
    groups: usize,
    single: Vec<One>,
    /// `[panel][group]`
    panels: Vec<Four>,
    scaled: Vec<Token>,
}

/// What belongs to a token.
#[derive(Clone, Copy, Default)]
struct Token {
    /// The scale, NaN where one of the token's activations is: so are its products, then.
    scale: f32,
    /// `Σ q`
    sum: i32,
}

thread_local! {
    /// Buffers of [`with_activations`], kept for the next calls; a call may begin within another.
    static SPARE: RefCell<Vec<Activations>> = const { RefCell::new(Vec::new()) };
}

/// Hands `x [tokens, cols]`, rounded by `scale`, to `f`; allocates only while the thread's buffers grow.
pub(super) fn with_activations(
    pool: &Pool,
    x: &[f32],
    tokens: usize,
    cols: usize,
    scale: f32,
    f: impl FnOnce(&Activations),
) {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    let mut activations = spare.unwrap_or_else(|| Activations {
        isa: pool.isa(),
        groups: 0,
        single: Vec::new(),
        panels: Vec::new(),
        scaled: Vec::new(),
    });
    activations.round(pool, x, tokens, cols, scale);
    f(&activations);
    SPARE.with_borrow_mut(|spare| spare.push(activations));
}

impl Activations {
    fn round(&mut self, pool: &Pool, x: &[f32], tokens: usize, cols: usize, scale: f32) {
        (self.isa, self.groups) = (pool.isa().for_tokens(tokens), cols.div_ceil(GROUP));
        let panels = tokens.div_ceil(PANEL);
        let (single, panels) = if tokens == 1 { (1, 0) } else { (0, panels) };
        self.single.resize(single * self.groups, [0; _]);
        self.panels.resize(panels * self.groups, [0; _]);
        self.scaled
            .resize(single + panels * PANEL, Token::default());
        self.scaled.fill(Token { scale, sum: 0 });
        let (isa, step) = (self.isa, self.step());
        if tokens == 1 {
            let to = Place::Single(&mut self.single);
            let token = &mut self.scaled[0];
            return dispatch_integer(isa, Round { x, to, token });
        }
        if cols == 0 {
            return;
        }
        let panels = (&mut self.panels[..], self.groups);
        let scaled = (&mut self.scaled[..], PANEL);
        pool.for_each_chunk_pair_mut(panels, scaled, &|panel, out, scaled| {
            for (lane, token) in scaled.iter_mut().enumerate() {
                // A panel that has fewer tokens is filled up with zeros.
                let first = (panel * PANEL + lane) * cols;
                let x = x.get(first..first + cols).unwrap_or_default();
                let to = Place::Lane {
                    panel: &mut *out,
                    lane,
                    step,
                };
                dispatch_integer(isa, Round { x, to, token });
            }
        });
    }

    fn step(&self) -> usize {
        step(self.isa)
    }

    /// Activations `32 group ..` of a token.
    pub(super) fn group(&self, token: usize, group: usize) -> One {
        if let Some(one) = self.single.get(group) {
            return *one;
        }
        let four = &self.panels[token / PANEL * self.groups + group];
        let step = self.step();
        std::array::from_fn(|k| four[k / step * step * PANEL + token % PANEL * step + k % step])
    }

    /// What they are multiplied on.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// The groups of the one token that there is; none where there are several.
    pub(super) fn single(&self) -> &[One] {
        &self.single
    }

    /// The groups of a panel.
    pub(super) fn panel(&self, panel: usize) -> &[Four] {
        &self.panels[panel * self.groups..][..self.groups]
    }

    /// The sum of a token's integers.
    pub(super) fn sum(&self, token: usize) -> i32 {
        self.scaled[token].sum
    }

    /// The scale of a token.
    pub(super) fn scale(&self, token: usize) -> f32 {
        self.scaled[token].scale
    }
}

/// Columns that the tokens of a panel lie together for.
fn step(isa: Isa) -> usize {
    match isa.level() {
        #[cfg(target_arch = "aarch64")]
        crate::isa::Level::I8mm => 8,
        _ => 16,
    }
}

/// Where the groups of a token go.
enum Place<'a> {
    Single(&'a mut [One]),
    Lane {
        panel: &'a mut [Four],
        lane: usize,
        step: usize,
    },
}

impl Place<'_> {
    fn groups(&self) -> usize {
        match self {
            Place::Single(groups) => groups.len(),
            Place::Lane { panel, .. } => panel.len(),
        }
    }

    #[inline(always)]
    fn put(&mut self, group: usize, q: &One) {
        match self {
            Place::Single(groups) => groups[group] = *q,
            Place::Lane { panel, lane, step } => put_lane(q, *lane, *step, &mut panel[group]),
        }
    }
}

/// Writes a group of the token in lane `lane` of a panel, as `isa` wants it.
#[inline(always)]
pub(crate) fn put(isa: Isa, q: &One, lane: usize, to: &mut Four) {
    put_lane(q, lane, step(isa), to);
}

#[inline(always)]
fn put_lane(q: &One, lane: usize, step: usize, to: &mut Four) {
    if step == 8 {
        put_steps::<8>(q, lane, to);
    } else {
        put_steps::<16>(q, lane, to);
    }
}

#[inline(always)]
fn put_steps<const STEP: usize>(q: &One, lane: usize, to: &mut Four) {
    let to = to.as_chunks_mut::<STEP>().0.iter_mut();
    for (q, to) in q
        .as_chunks::<STEP>()
        .0
        .iter()
        .zip(to.skip(lane).step_by(PANEL))
    {
        *to = *q;
    }
}

/// Rounds the activations of a token by its scale; an `x` that ends early is continued with zeros.
struct Round<'a> {
    x: &'a [f32],
    to: Place<'a>,
    token: &'a mut Token,
}

/// What an instruction set does with a group; the methods must be `#[inline(always)]`.
trait RoundGroup: Copy {
    /// What is remembered of numbers that are none.
    type Seen: Copy;
    /// Nothing was seen.
    fn nothing(self) -> Self::Seen;
    /// Writes `q = clamp(round(x / scale), −128, 127)` and returns the sum; what is not a number becomes any integer and is remembered.
    fn round(self, x: &[f32; GROUP], scale: f32, q: &mut One, seen: &mut Self::Seen) -> i32;
    /// Whether something was not a number.
    fn is_nan(self, seen: Self::Seen) -> bool;
}

impl IntegerKernel for Round<'_> {
    fn scalar(self) {
        self.each(Scalar);
    }

    each_with!(neon, avx2);
}

impl Round<'_> {
    #[inline(always)]
    fn each(mut self, s: impl RoundGroup) {
        let (whole, rest) = self.x.as_chunks::<GROUP>();
        let (scale, mut seen, mut q) = (self.token.scale, s.nothing(), [0; GROUP]);
        for (group, x) in whole.iter().enumerate() {
            self.token.sum += s.round(x, scale, &mut q, &mut seen);
            self.to.put(group, &q);
        }
        let mut done = whole.len();
        if !rest.is_empty() {
            let mut last = [0.0; GROUP];
            last[..rest.len()].copy_from_slice(rest);
            self.token.sum += s.round(&last, scale, &mut q, &mut seen);
            self.to.put(done, &q);
            done += 1;
        }
        for group in done..self.to.groups() {
            self.to.put(group, &[0; GROUP]);
        }
        if s.is_nan(seen) {
            self.token.scale = f32::NAN;
        }
    }
}

/// The reference.
#[derive(Clone, Copy)]
struct Scalar;

impl RoundGroup for Scalar {
    type Seen = bool;

    fn nothing(self) -> bool {
        false
    }

    fn round(self, x: &[f32; GROUP], scale: f32, q: &mut One, seen: &mut bool) -> i32 {
        for (q, &x) in q.iter_mut().zip(x) {
            // What is beyond the integers becomes the nearest of them.
            *q = (x / scale).round_ties_even() as i8;
            *seen |= x.is_nan();
        }
        q.iter().map(|&q| i32::from(q)).sum()
    }

    fn is_nan(self, seen: bool) -> bool {
        seen
    }
}

#[cfg(target_arch = "aarch64")]
impl RoundGroup for Neon {
    type Seen = float32x4_t;

    #[inline(always)]
    fn nothing(self) -> float32x4_t {
        self.splat(0.0)
    }

    /// What is too large ends at the largest integer of each width that it passes.
    #[inline(always)]
    fn round(self, x: &[f32; GROUP], scale: f32, q: &mut One, seen: &mut float32x4_t) -> i32 {
        let (scale, mut sum) = (self.splat(scale), 0);
        for half in [0, 16] {
            let mut rounded = [self.splat_i32(0); 4];
            for (i, rounded) in rounded.iter_mut().enumerate() {
                let steps = self.div(self.load_f32(x, half + 4 * i), scale);
                *seen = self.larger_or_nan(*seen, steps);
                *rounded = self.round_to_i32(steps);
            }
            let narrow = self.narrow_saturated(rounded);
            self.store_i8(narrow, q, half);
            sum += self.sum_i8(narrow);
        }
        sum
    }

    #[inline(always)]
    fn is_nan(self, seen: float32x4_t) -> bool {
        self.has_nan(seen)
    }
}

#[cfg(target_arch = "x86_64")]
impl RoundGroup for Avx2 {
    type Seen = __m256;

    #[inline(always)]
    fn nothing(self) -> __m256 {
        self.splat(0.0)
    }

    #[inline(always)]
    fn round(self, x: &[f32; GROUP], scale: f32, q: &mut One, seen: &mut __m256) -> i32 {
        let scale = self.splat(scale);
        let mut rounded = [self.splat_i32(0); 4];
        for (i, rounded) in rounded.iter_mut().enumerate() {
            let steps = self.div(self.load_f32(x, 8 * i), scale);
            *seen = self.or_nan(*seen, steps);
            // What is beyond 32 bits would become the smallest integer.
            *rounded = self.round_to_i32(self.min(self.splat(127.0), steps));
        }
        let narrow = self.narrow(rounded);
        self.store_i8(narrow, q);
        self.sum_i8(narrow)
    }

    #[inline(always)]
    fn is_nan(self, seen: __m256) -> bool {
        self.any_sign(seen)
    }
}
