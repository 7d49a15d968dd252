//! The Fourier transform of 512 real samples in 16-bit fixed point.
//!
//! It is kissfft's (radix 4, every stage divided by 4), rounding for rounding: the models were trained on its errors, too.

use super::FFT_SAMPLES;

/// Points of the complex transform that does the work: two real samples each.
const POINTS: usize = FFT_SAMPLES / 2;

/// 1, as such a number has it.
const ONE: i32 = 32_767;

/// A complex number, 15 bits behind the point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Complex {
    pub(super) re: i16,
    pub(super) im: i16,
}

/// A product's 15 bits too many are rounded away.
fn rounded(x: i32) -> i16 {
    (x.wrapping_add(1 << 14) >> 15) as i16
}

impl Complex {
    fn add(self, other: Complex) -> Complex {
        Complex {
            re: self.re.wrapping_add(other.re),
            im: self.im.wrapping_add(other.im),
        }
    }

    fn sub(self, other: Complex) -> Complex {
        Complex {
            re: self.re.wrapping_sub(other.re),
            im: self.im.wrapping_sub(other.im),
        }
    }

    fn mul(self, other: Complex) -> Complex {
        let (a, b) = (i32::from(self.re), i32::from(self.im));
        let (c, d) = (i32::from(other.re), i32::from(other.im));
        Complex {
            re: rounded(a * c - b * d),
            im: rounded(a * d + b * c),
        }
    }

    /// Divided by `by`.
    fn part(self, by: i32) -> Complex {
        Complex {
            re: rounded(i32::from(self.re) * (ONE / by)),
            im: rounded(i32::from(self.im) * (ONE / by)),
        }
    }

    /// A turn by -90 degrees.
    fn turned(self) -> Complex {
        Complex {
            re: self.im,
            im: self.re.wrapping_neg(),
        }
    }

    fn at(phase: f64) -> Complex {
        let fixed = |x: f64| libm::floor(0.5 + f64::from(ONE) * x) as i16;
        Complex {
            re: fixed(libm::cos(phase)),
            im: fixed(libm::sin(phase)),
        }
    }
}

/// The tables of the transform.
pub(super) struct Fft {
    twiddles: [Complex; POINTS],
    /// What makes the spectrum of real samples of that of the complex ones.
    unfolding: [Complex; POINTS / 2],
}

impl Fft {
    pub(super) fn new() -> Fft {
        use core::f64::consts::PI;
        Fft {
            twiddles: core::array::from_fn(|i| Complex::at(-2.0 * PI * i as f64 / POINTS as f64)),
            unfolding: core::array::from_fn(|i| {
                Complex::at(-PI * ((i + 1) as f64 / POINTS as f64 + 0.5))
            }),
        }
    }

    /// The spectrum of `samples`, from 0 Hz to half the rate.
    pub(super) fn transform(&self, samples: &[i16; FFT_SAMPLES]) -> [Complex; POINTS + 1] {
        let pairs: [Complex; POINTS] = core::array::from_fn(|i| Complex {
            re: samples[2 * i],
            im: samples[2 * i + 1],
        });
        let mut folded = [Complex::default(); POINTS];
        self.work(&mut folded, &pairs, 1);

        let mut spectrum = [Complex::default(); POINTS + 1];
        let first = folded[0].part(2);
        spectrum[0].re = first.re.wrapping_add(first.im);
        spectrum[POINTS].re = first.re.wrapping_sub(first.im);
        let half = |x: i32| (x >> 1) as i16;
        for k in 1..=POINTS / 2 {
            let near = folded[k].part(2);
            let mirrored = folded[POINTS - k];
            let far = Complex {
                re: mirrored.re,
                im: mirrored.im.wrapping_neg(),
            }
            .part(2);
            let even = near.add(far);
            let odd = near.sub(far).mul(self.unfolding[k - 1]);
            let (even_re, even_im) = (i32::from(even.re), i32::from(even.im));
            let (odd_re, odd_im) = (i32::from(odd.re), i32::from(odd.im));
            spectrum[k] = Complex {
                re: half(even_re + odd_re),
                im: half(even_im + odd_im),
            };
            spectrum[POINTS - k] = Complex {
                re: half(even_re - odd_re),
                im: half(odd_im - even_im),
            };
        }
        spectrum
    }

    /// The transform of every `stride`-th of `input` into `output`, whose length is a power of 4.
    fn work(&self, output: &mut [Complex], input: &[Complex], stride: usize) {
        let quarter = output.len() / 4;
        if quarter == 1 {
            for (to, from) in output.iter_mut().zip(input.iter().step_by(stride)) {
                *to = *from;
            }
        } else {
            for (k, part) in output.chunks_exact_mut(quarter).enumerate() {
                self.work(part, &input[k * stride..], 4 * stride);
            }
        }
        let (a, rest) = output.split_at_mut(quarter);
        let (b, rest) = rest.split_at_mut(quarter);
        let (c, d) = rest.split_at_mut(quarter);
        for k in 0..quarter {
            let zeroth = a[k].part(4);
            let first = b[k].part(4).mul(self.twiddles[k * stride]);
            let second = c[k].part(4).mul(self.twiddles[2 * k * stride]);
            let third = d[k].part(4).mul(self.twiddles[3 * k * stride]);
            let (sum, difference) = (zeroth.add(second), zeroth.sub(second));
            let (odd_sum, odd_difference) = (first.add(third), first.sub(third).turned());
            a[k] = sum.add(odd_sum);
            b[k] = difference.add(odd_difference);
            c[k] = sum.sub(odd_sum);
            d[k] = difference.sub(odd_difference);
        }
    }
}
