//! Activations as integers by one scale for all of them.

use std::cell::RefCell;

use crate::isa::Isa;
use crate::pool::Pool;
use crate::quant::{GROUP, PANEL};

/// Columns that the tokens of a panel lie together for.
const STEP: usize = 16;

/// 32 activations of one token.
pub(super) type One = [i8; GROUP];
/// 32 activations of four tokens, `[k / 16][token][k % 16]`, or `[k / 8][token][k % 8]` for `smmla`.
pub(super) type Four = [i8; GROUP * PANEL];

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
        (self.isa, self.groups) = (pool.isa(), cols.div_ceil(GROUP));
        let panels = tokens.div_ceil(PANEL);
        let (single, panels) = if tokens == 1 { (1, 0) } else { (0, panels) };
        self.single.resize(single * self.groups, [0; _]);
        self.panels.resize(panels * self.groups, [0; _]);
        self.scaled
            .resize(single + panels * PANEL, Token::default());
        if tokens == 1 {
            self.scaled[0] = round_token(x, scale, |group, q| self.single[group] = *q);
            return;
        }
        if cols == 0 {
            return self.scaled.fill(Token { scale });
        }
        let interleaved = interleaved(self.isa);
        let panels = (&mut self.panels[..], self.groups);
        let scaled = (&mut self.scaled[..], PANEL);
        pool.for_each_chunk_pair_mut(panels, scaled, &|panel, out, scaled| {
            for (lane, scaled) in scaled.iter_mut().enumerate() {
                let x = x.get((panel * PANEL + lane) * cols..).unwrap_or_default();
                *scaled = round_token(&x[..cols.min(x.len())], scale, |group, q| {
                    place(q, lane, interleaved, &mut out[group]);
                });
                // Tokens that a panel lacks.
                if x.is_empty() {
                    out.iter_mut()
                        .for_each(|out| place(&[0; _], lane, interleaved, out));
                }
            }
        });
    }

    /// Activations `32 group ..` of a token.
    pub(super) fn group(&self, token: usize, group: usize) -> One {
        if let Some(one) = self.single.get(group) {
            return *one;
        }
        let four = &self.panels[token / PANEL * self.groups + group];
        let step = if interleaved(self.isa) {
            STEP / 2
        } else {
            STEP
        };
        std::array::from_fn(|k| four[k / step * step * PANEL + token % PANEL * step + k % step])
    }

    /// The scale of a token.
    pub(super) fn scale(&self, token: usize) -> f32 {
        self.scaled[token].scale
    }
}

/// Whether 8 columns of two tokens are to lie together.
fn interleaved(isa: Isa) -> bool {
    #[cfg(target_arch = "aarch64")]
    return matches!(isa.level(), crate::isa::Level::I8mm);
    #[cfg(not(target_arch = "aarch64"))]
    {
        let _ = isa;
        false
    }
}

/// Puts a group of token `lane` into its panel.
#[inline(always)]
fn place(q: &One, lane: usize, interleaved: bool, to: &mut Four) {
    let (mut put, step) = (
        |step: usize| {
            for (q, to) in q.chunks_exact(step).zip(to.chunks_exact_mut(step * PANEL)) {
                to[lane * step..][..step].copy_from_slice(q);
            }
        },
        STEP,
    );
    if interleaved {
        put(step / 2)
    } else {
        put(step)
    }
}

/// Rounds the activations of a token, group by group.
fn round_token(x: &[f32], scale: f32, mut put: impl FnMut(usize, &One)) -> Token {
    let mut is_nan = false;
    for (group, x) in x.chunks(GROUP).enumerate() {
        let mut q = [0i8; GROUP];
        for (q, &x) in q.iter_mut().zip(x) {
            // What is beyond the integers becomes the nearest of them.
            *q = (x / scale).round_ties_even() as i8;
            is_nan |= x.is_nan();
        }
        put(group, &q);
    }
    let scale = if is_nan { f32::NAN } else { scale };
    Token { scale }
}
