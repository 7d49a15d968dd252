//! Sums of products: convolutions, depthwise convolutions and matrices. This is where the time goes.

/// Where an output looks at the input, height before width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) input: [usize; 2],
    pub(super) channels: usize,
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) dilation: [usize; 2],
    /// Rows and columns of nothing before the input.
    pub(super) padding: [usize; 2],
    pub(super) output: [usize; 2],
}

impl Geometry {
    /// Numbers that one output looks at.
    pub(super) fn patch(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.channels
    }

    /// Whether the one output looks at all of the input as it lies.
    fn is_whole(&self) -> bool {
        self.output == [1, 1]
            && self.padding == [0, 0]
            && self.dilation == [1, 1]
            && self.kernel == self.input
    }

    /// What the output at `place` looks at; `nothing` is what stands beyond the input.
    fn gather(&self, input: &[i8], place: [usize; 2], nothing: i8, patch: &mut [i8]) {
        let pixels = patch.chunks_exact_mut(self.channels);
        for (i, pixel) in pixels.enumerate() {
            let tap = [i / self.kernel[1], i % self.kernel[1]];
            let at = |axis: usize| {
                let at = place[axis] * self.stride[axis] + tap[axis] * self.dilation[axis];
                at.checked_sub(self.padding[axis])
                    .filter(|&at| at < self.input[axis])
            };
            match (at(0), at(1)) {
                (Some(y), Some(x)) => {
                    let from = (y * self.input[1] + x) * self.channels;
                    pixel.copy_from_slice(&input[from..from + self.channels]);
                }
                _ => pixel.fill(nothing),
            }
        }
    }
}

/// A factor as TensorFlow Lite has it: 31 bits behind the point, and a shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Factor {
    mantissa: i64,
    left: u32,
    right: u32,
    /// Of two integers that are equally near to a negative number, it takes the lower one.
    away: bool,
}

impl Factor {
    /// The factor nearest to `x`, which is positive and below 2^16; `away` as the field.
    pub(super) fn new(x: f64, away: bool) -> Factor {
        let (mantissa, exponent) = libm::frexp(x);
        let rounded = libm::round(mantissa * f64::from(1_u32 << 31)) as i64;
        // Half of 2 is 1: the next exponent's.
        let (mantissa, exponent) = match rounded {
            0x8000_0000 => (rounded / 2, exponent + 1),
            _ => (rounded, exponent),
        };
        Factor {
            mantissa,
            left: exponent.clamp(0, 16) as u32,
            right: (-exponent).clamp(0, 62) as u32,
            away,
        }
    }

    /// The product, rounded once to 31 bits and once more to an integer.
    fn times(self, sum: i32) -> i32 {
        let (least, most) = (i64::from(i32::MIN), i64::from(i32::MAX));
        let sum = (i64::from(sum) << self.left).clamp(least, most);
        let high = (sum * self.mantissa + (1 << 30)) >> 31;
        let half = (1_i64 << self.right) >> 1;
        let lower = i64::from(self.away && high < 0 && half > 0);
        ((high + half - lower) >> self.right) as i32
    }
}

/// A sum becomes an output: scaled, rounded, moved and held within bounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rounding {
    /// For each output channel.
    pub(super) factors: Vec<Factor>,
    pub(super) zero_point: i32,
    pub(super) lowest: i32,
    pub(super) highest: i32,
}

impl Rounding {
    fn apply(&self, sum: i32, channel: usize) -> i8 {
        let scaled = self.factors[channel].times(sum);
        let moved = scaled.saturating_add(self.zero_point);
        moved.clamp(self.lowest, self.highest) as i8
    }
}

/// Which inputs an output sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sums {
    /// All that it looks at; weights are by output channel.
    All,
    /// Those of its own channel, which has so many outputs; weights are by place.
    OwnChannel(usize),
}

/// One such operator.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Product {
    pub(super) geometry: Geometry,
    pub(super) sums: Sums,
    pub(super) weights: Vec<i8>,
    /// For each output channel; that inputs have a zero point is in here.
    pub(super) bias: Vec<i32>,
    pub(super) nothing: i8,
    pub(super) rounding: Rounding,
}

impl Product {
    /// Products in a run.
    pub(super) fn work(&self) -> usize {
        self.geometry.output[0] * self.geometry.output[1] * self.weights.len()
    }

    /// Computes `output`; `patch` and `sums` have room for what one output looks at and for one sum a channel.
    pub(super) fn run(&self, input: &[i8], output: &mut [i8], patch: &mut [i8], sums: &mut [i32]) {
        let geometry = &self.geometry;
        let patch = &mut patch[..geometry.patch()];
        let pixels = output.chunks_exact_mut(self.bias.len());
        for (i, pixel) in pixels.enumerate() {
            let seen = if geometry.is_whole() {
                input
            } else {
                let place = [i / geometry.output[1], i % geometry.output[1]];
                geometry.gather(input, place, self.nothing, patch);
                &*patch
            };
            match self.sums {
                Sums::All => self.all(seen, pixel),
                Sums::OwnChannel(each) => self.own_channel(seen, pixel, each, sums),
            }
        }
    }

    fn all(&self, seen: &[i8], pixel: &mut [i8]) {
        let rows = self.weights.chunks_exact(seen.len()).zip(&self.bias);
        for (channel, (to, (row, bias))) in pixel.iter_mut().zip(rows).enumerate() {
            let products = row.iter().zip(seen);
            let sum: i32 = products.map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
            *to = self.rounding.apply(bias.wrapping_add(sum), channel);
        }
    }

    fn own_channel(&self, seen: &[i8], pixel: &mut [i8], each: usize, sums: &mut [i32]) {
        let sums = &mut sums[..self.bias.len()];
        sums.copy_from_slice(&self.bias);
        let places = self.weights.chunks_exact(self.bias.len());
        for (weights, seen) in places.zip(seen.chunks_exact(self.geometry.channels)) {
            if each == 1 {
                for (sum, (w, x)) in sums.iter_mut().zip(weights.iter().zip(seen)) {
                    *sum = sum.wrapping_add(i32::from(*w) * i32::from(*x));
                }
            } else {
                for (i, (sum, w)) in sums.iter_mut().zip(weights).enumerate() {
                    *sum = sum.wrapping_add(i32::from(*w) * i32::from(seen[i / each]));
                }
            }
        }
        for (channel, (to, sum)) in pixel.iter_mut().zip(sums).enumerate() {
            *to = self.rounding.apply(*sum, channel);
        }
    }
}
