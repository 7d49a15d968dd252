//! Numbers cut off to an interval: what clipped linear layers do to their inputs and outputs.
//!
//! The products of matrices do it to what they have at hand, so that no pass over memory is made for it: inputs while they are
//! quantised or copied, outputs before they are stored, or by the task that has them in its cache.

use std::cell::Cell;

use crate::Isa;
use crate::map::{Unary, map};
use crate::pool::TileMut;
use crate::simd::Simd;

/// An interval, ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    min: f32,
    max: f32,
}

impl Bounds {
    /// Nothing is cut off.
    pub const NONE: Bounds = Bounds {
        min: f32::NEG_INFINITY,
        max: f32::INFINITY,
    };

    /// From `min` to `max`; `None` where these are no interval.
    pub fn new(min: f32, max: f32) -> Option<Bounds> {
        // A zero that equals a bound keeps its sign on every instruction set if the bound has the sign of what lies beyond it.
        let signed = |bound: f32, zero: f32| if bound == 0.0 { zero } else { bound };
        (min <= max).then(|| Bounds {
            min: signed(min, -0.0),
            max: signed(max, 0.0),
        })
    }

    /// Whether nothing is cut off.
    pub fn is_none(self) -> bool {
        self == Bounds::NONE
    }

    /// Each of `x` becomes the nearest number in the interval; NaN stays NaN.
    pub fn clamp(self, isa: Isa, x: &mut [f32]) {
        if !self.is_none() {
            map(isa, x, self);
        }
    }

    /// The same for each row of a tile.
    pub(crate) fn clamp_tile(self, isa: Isa, y: &mut TileMut<'_, f32>) {
        if !self.is_none() {
            (0..y.rows()).for_each(|row| map(isa, y.row_mut(row), self));
        }
    }
}

impl Unary for Bounds {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.min(s.splat(self.max), s.max(s.splat(self.min), x))
    }
}

/// What a linear layer cuts off: `y = output(W input(x))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Of each input.
    pub input: Bounds,
    /// Of each output.
    pub output: Bounds,
}

impl Clip {
    /// Nothing is cut off.
    pub const NONE: Clip = Clip {
        input: Bounds::NONE,
        output: Bounds::NONE,
    };
}

thread_local! {
    /// Buffer of [`with_clamped`], kept for the next call.
    static CLAMPED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Hands `x`, or a copy of it that is cut off to `bounds`, to `f`; allocates only while the thread's buffer grows.
pub(crate) fn with_clamped(isa: Isa, bounds: Bounds, x: &[f32], f: impl FnOnce(&[f32])) {
    if bounds.is_none() {
        return f(x);
    }
    let mut clamped = CLAMPED.take();
    clamped.clear();
    clamped.extend_from_slice(x);
    bounds.clamp(isa, &mut clamped);
    f(&clamped);
    CLAMPED.set(clamped);
}
