//! Sounds of a home that are no speech, and noises, made here. The twelve of `TWELVE` are those of a public report; they started
//! utterances: telephone 16 of 16, doorbell 15 of 16, piano 16 of 16, vacuum cleaner 5 of 6.

use std::f64::consts::TAU;

use realfft::RealFftPlanner;

use super::{RATE_HZ, rms};

/// Numbers that are the same every time: xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, variance 1, by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (TAU * self.uniform()).cos()
    }

    /// Noise of RMS 1 whose energy falls with that power of the frequency: 0 white, 1 pink, 2 brown.
    pub(crate) fn noise(&mut self, samples: usize, power: f64) -> Vec<f32> {
        let mut planner = RealFftPlanner::<f64>::new();
        let (to, back) = (
            planner.plan_fft_forward(samples),
            planner.plan_fft_inverse(samples),
        );
        let mut time: Vec<f64> = (0..samples).map(|_| self.normal()).collect();
        let mut spectrum = to.make_output_vec();
        to.process(&mut time, &mut spectrum).unwrap();
        let count = spectrum.len();
        for (k, x) in spectrum.iter_mut().enumerate() {
            let hz = (k as f64 * RATE_HZ as f64 / samples as f64).max(20.0);
            // The first and the last have no imaginary part.
            *x *= if k == 0 || k + 1 == count {
                0.0
            } else {
                hz.powf(-power / 2.0)
            };
        }
        back.process(&mut spectrum, &mut time).unwrap();
        let noise: Vec<f32> = time.iter().map(|x| *x as f32).collect();
        let loud = rms(&noise);
        noise.iter().map(|x| x / loud).collect()
    }
}

/// A sound of `seconds`, from time in seconds to amplitude.
fn sound(seconds: f64, amplitude: impl Fn(f64) -> f64) -> Vec<f32> {
    let samples = (seconds * RATE_HZ as f64) as usize;
    let at = |i: usize| amplitude(i as f64 / RATE_HZ as f64) as f32;
    (0..samples).map(at).collect()
}

fn quiet(seconds: f64) -> Vec<f32> {
    sound(seconds, |_| 0.0)
}

fn tone(hz: f64, seconds: f64, loud: f64) -> Vec<f32> {
    sound(seconds, |t| loud * (TAU * hz * t).sin())
}

/// `hz` and its multiples, each weaker by `n^fall`.
fn harmonics(t: f64, hz: f64, count: u32, fall: f64) -> f64 {
    let one = |n: u32| (TAU * hz * f64::from(n) * t).sin() / f64::from(n).powf(fall);
    (1..=count).map(one).sum()
}

/// Noise with an envelope.
fn rush(random: &mut Random, seconds: f64, power: f64, loud: impl Fn(f64) -> f64) -> Vec<f32> {
    let envelope = sound(seconds, loud);
    let noise = random.noise(envelope.len(), power);
    envelope.iter().zip(noise).map(|(a, b)| a * b).collect()
}

/// Rises to 1 within `rise`, stays.
fn ramp(t: f64, rise: f64) -> f64 {
    (t / rise).min(1.0)
}

/// Rises and falls.
fn swell(t: f64, seconds: f64) -> f64 {
    0.5 - 0.5 * (TAU * t / seconds).cos()
}

fn notes(hz: &[f64], seconds: f64, amplitude: impl Fn(f64, f64) -> f64) -> Vec<f32> {
    let note = |hz: &f64| sound(seconds, |t| amplitude(t, *hz));
    hz.iter().flat_map(note).collect()
}

/// What is heard, how long after its beginning it is heard again (seconds), and how it is made.
pub(crate) type Kind = (&'static str, f64, fn(&mut Random) -> Vec<f32>);

pub(crate) const TWELVE: &[Kind] = &[
    ("door slam", 3.5, |r| {
        rush(r, 0.6, 1.0, |t| 0.5 * (-t / 0.08).exp())
    }),
    ("key clicks", 3.5, |r| {
        let click = |_| {
            let click = rush(r, 0.02, 0.0, |t| 0.3 * (-t / 0.004).exp());
            [click, quiet(0.06 + 0.14 * r.uniform())].concat()
        };
        (0..12).flat_map(click).collect()
    }),
    ("clap", 3.5, |r| {
        rush(r, 0.15, 0.0, |t| 0.7 * (-t / 0.02).exp())
    }),
    ("telephone", 3.5, |_| {
        let pulse = sound(0.04, |t| {
            0.3 * ((TAU * 440.0 * t).sin() + (TAU * 480.0 * t).sin())
        });
        [pulse.repeat(10), quiet(0.2)].concat().repeat(2)
    }),
    ("doorbell", 3.5, |_| {
        let ding = sound(0.5, |t| 0.3 * (TAU * 660.0 * t).sin() * (-t / 0.25).exp());
        let dong = sound(0.7, |t| 0.3 * (TAU * 550.0 * t).sin() * (-t / 0.3).exp());
        [ding, dong].concat()
    }),
    ("smoke alarm", 3.5, |_| {
        [tone(3100.0, 0.5, 0.5), quiet(0.5)].concat().repeat(2)
    }),
    ("dog", 3.5, |_| {
        let bark = sound(0.25, |t| {
            0.3 * (-t / 0.1).exp() * harmonics(t * (1.0 - 0.3 * t), 500.0, 7, 1.0)
        });
        [bark, quiet(0.3)].concat().repeat(2)
    }),
    ("vacuum cleaner", 10.0, |r| {
        rush(r, 8.0, 0.0, |t| 0.15 * ramp(t, 0.5))
    }),
    ("water", 6.0, |r| {
        rush(r, 4.0, 0.0, |t| 0.05 * (1.0 + 0.5 * (TAU * 3.0 * t).sin()))
    }),
    ("piano", 3.5, |_| {
        notes(&[262.0, 330.0, 392.0, 523.0], 0.4, |t, hz| {
            0.25 * (-t / 0.2).exp() * harmonics(t, hz, 5, 1.0)
        })
    }),
    ("whistle", 3.5, |_| {
        sound(0.8, |t| 0.3 * (TAU * 1500.0 * t).sin() * swell(t, 0.8))
    }),
    ("microwave oven", 3.5, |_| {
        [tone(2000.0, 0.3, 0.3), quiet(0.4)].concat().repeat(3)
    }),
];

pub(crate) const MORE: &[Kind] = &[
    ("ringtone", 3.5, |_| {
        let tune = [659.0, 587.0, 370.0, 415.0, 554.0, 494.0, 294.0, 330.0];
        notes(&tune, 0.15, |t, hz| 0.12 * (TAU * hz * t).sin().signum())
    }),
    ("dialling", 3.5, |_| {
        let keys = [
            (697.0, 1209.0),
            (770.0, 1336.0),
            (852.0, 1477.0),
            (941.0, 1336.0),
        ];
        let key = |(a, b): (f64, f64)| {
            let both = sound(0.1, |t| 0.2 * ((TAU * a * t).sin() + (TAU * b * t).sin()));
            [both, quiet(0.075)].concat()
        };
        keys.into_iter().flat_map(key).collect()
    }),
    ("dial tone", 3.5, |_| {
        sound(2.0, |t| {
            0.2 * ((TAU * 350.0 * t).sin() + (TAU * 440.0 * t).sin())
        })
    }),
    ("chord", 3.5, |_| {
        sound(1.5, |t| {
            let chord = [262.0, 330.0, 392.0].map(|hz| harmonics(t, hz, 5, 1.2));
            0.12 * (-t / 0.6).exp() * chord.iter().sum::<f64>()
        })
    }),
    ("gong", 3.5, |_| {
        let parts = [(220.0, 0.2), (367.0, 0.15), (506.0, 0.12), (724.0, 0.1)];
        sound(2.5, |t| {
            let part = |(hz, loud): (f64, f64)| loud * (TAU * hz * t).sin();
            (-t).exp() * parts.map(part).iter().sum::<f64>()
        })
    }),
    ("siren", 6.0, |_| {
        // From 500 to 1200 Hz and back in a second.
        sound(2.5, |t| {
            0.3 * (TAU * (850.0 * t - 350.0 * (TAU * t).sin() / TAU)).sin()
        })
    }),
    ("violin", 3.5, |_| {
        notes(&[294.0, 440.0], 0.6, |t, hz| {
            let vibrato = t - 0.008 * (TAU * 6.0 * t).cos() / (TAU * 6.0);
            0.12 * swell(t, 0.6) * harmonics(vibrato, hz, 11, 1.0)
        })
    }),
    ("trumpet", 3.5, |_| {
        notes(&[233.0, 294.0, 349.0], 0.35, |t, hz| {
            0.12 * ramp(t, 0.05) * ramp(0.35 - t, 0.05) * harmonics(t, hz, 12, 0.7)
        })
    }),
    ("guitar", 3.5, |_| {
        notes(&[110.0, 147.0, 196.0], 0.5, |t, hz| {
            0.25 * (-t / 0.3).exp() * harmonics(t, hz, 8, 1.3)
        })
    }),
    ("hair dryer", 10.0, |r| {
        rush(r, 6.0, 1.0, |t| 0.1 * ramp(t, 0.3))
    }),
    ("fan", 10.0, |r| rush(r, 6.0, 1.0, |t| 0.1 * ramp(t, 2.0))),
    ("transformer hum", 6.0, |_| {
        sound(3.0, |t| 0.06 * ramp(t, 0.2) * harmonics(t, 100.0, 8, 0.8))
    }),
    ("drill", 3.5, |r| {
        let rattle = rush(r, 2.0, 0.0, |t| 0.05 * ramp(t, 0.2));
        let motor = sound(2.0, |t| {
            0.1 * ramp(t, 0.2) * (TAU * 180.0 * t).sin().signum()
        });
        rattle.iter().zip(motor).map(|(a, b)| a + b).collect()
    }),
];

/// A quiet room for a minute, always the same.
pub(crate) struct Room {
    quiet: Vec<f32>,
    random: Random,
}

impl Room {
    pub(crate) fn new() -> Room {
        let mut random = Random(9);
        let mut quiet = random.noise(60 * RATE_HZ, 1.0);
        quiet.iter_mut().for_each(|x| *x *= 0.003);
        Room { quiet, random }
    }

    /// The room as a sound is heard in it again and again, `gain` as loud.
    pub(crate) fn minute(&self, (_, every_s, make): &Kind, gain: f32) -> Vec<f32> {
        let mut random = Random(self.random.0);
        let mut room = self.quiet.clone();
        let starts = (0..).map(|i| 2.0 + f64::from(i) * every_s);
        for start in starts.take_while(|start| *start < 57.0) {
            let from = (start * RATE_HZ as f64) as usize;
            for (to, x) in room[from..].iter_mut().zip(make(&mut random)) {
                *to += gain * x;
            }
        }
        room.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
        room
    }
}
