//! Element-wise functions, sums, norms, softmax and rotary embedding.

use kernels::{Isa, elementwise, gelu, layer_norm, rms_norm, rope, softmax};

use crate::common::{Random, assert_close, assert_same, isas, tuned};

/// What the reference does with some of these is stated at each function; a NaN never becomes a number.
const SPECIAL: [f32; 22] = [
    0.0,
    -0.0,
    1e-45,
    -1e-40,
    1.2e-38,
    1e-10,
    -1e-7,
    0.3,
    -0.35,
    1.0,
    -9.0,
    30.0,
    -87.5,
    88.6,
    -103.0,
    -110.0,
    200.0,
    -1e6,
    3e18,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

/// Applies `f` on each instruction set to every length up to 70 and a real one, of numbers of several sizes, and to the special
/// values: the reference is to give the same bits, and `exact`, in double precision, nearly the same.
fn check(
    name: &str,
    relative: f32,
    absolute: f32,
    f: impl Fn(Isa, &mut [f32]),
    exact: impl Fn(usize, f64) -> f64,
) {
    let mut random = Random::new(7);
    let mut inputs: Vec<Vec<f32>> = (0..=70)
        .chain([2048])
        .map(|len| random.floats(len, 3.0))
        .collect();
    inputs.extend([0.01, 1.0, 10.0, 100.0].map(|size| random.floats(4096, size)));
    inputs.push(SPECIAL.to_vec());
    for input in &inputs {
        let what = format!("{name} {}", input.len());
        let mut reference = input.clone();
        f(Isa::scalar(), &mut reference);
        let expected: Vec<f32> = input
            .iter()
            .enumerate()
            .map(|(i, &x)| exact(i, f64::from(x)) as f32)
            .collect();
        assert_close(&what, &reference, &expected, relative, absolute);
        for isa in tuned() {
            let mut got = input.clone();
            f(isa, &mut got);
            assert_same(&format!("{what} {isa}"), &got, &reference);
        }
    }
}

/// One rounding.
#[test]
fn plain_arithmetic() {
    let y = Random::new(8).floats(4096, 2.0);
    let wide = |i: usize| f64::from(y[i]);
    check(
        "add",
        0.0,
        0.0,
        |isa, x| elementwise::add(isa, x, &y[..x.len()]),
        |i, x| x + wide(i),
    );
    check(
        "mul",
        0.0,
        0.0,
        |isa, x| elementwise::mul(isa, x, &y[..x.len()]),
        |i, x| x * wide(i),
    );
    check(
        "scale",
        0.0,
        0.0,
        |isa, x| elementwise::scale(isa, x, 1.75),
        |_, x| x * 1.75,
    );
    // Rounded to double precision first, the sum may come to lie between two floats.
    check(
        "scale_add",
        1.2e-7,
        0.0,
        |isa, x| elementwise::scale_add(isa, x, -0.75, &y[..x.len()]),
        |i, x| x - 0.75 * wide(i),
    );
    check(
        "excess",
        0.0,
        0.0,
        |isa, x| elementwise::excess(isa, x, 0.375),
        |_, x| if x < 0.375 { 0.0 } else { x - 0.375 },
    );
}

/// The exponential is off by two units in the last place (2.4e-7), the division and the argument's own rounding add as
/// much again. Where `e^-x` overflows, at x = -88.7, sigmoid and silu become 0 instead of up to 3e-37.
#[test]
fn activations() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    check("sigmoid", 1e-6, 3e-37, elementwise::sigmoid, |_, x| {
        sigmoid(x)
    });
    check("silu", 1e-6, 3e-37, elementwise::silu, |_, x| {
        x * sigmoid(x)
    });
    check("tanh", 5e-7, 1e-44, elementwise::tanh, |_, x| x.tanh());
    check(
        "soft_cap",
        5e-7,
        1e-43,
        |isa, x| elementwise::soft_cap(isa, x, 30.0),
        |_, x| 30.0 * (x / 30.0).tanh(),
    );
}

/// In the negative tail the exponent is up to 100 and has a relative error of 6e-8 itself, which the exponential makes
/// an error of the result: 1e-5 of numbers below 1e-20, where the absolute tolerance covers all that matters.
#[test]
fn gelu_tanh() {
    let up = Random::new(9).floats(4096, 2.0);
    let gelu = |x: f64| {
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        0.5 * x * (1.0 + u.tanh())
    };
    check("gelu_tanh", 1e-6, 1e-9, gelu::gelu_tanh, |_, x| gelu(x));
    check(
        "gelu_tanh_mul",
        1e-6,
        1e-9,
        |isa, x| gelu::gelu_tanh_mul(isa, x, &up[..x.len()]),
        |i, x| f64::from(gelu(x) as f32) * f64::from(up[i]),
    );
}

#[test]
fn known_values() {
    for isa in isas() {
        let mut x = [0.0, 1.0, -1.0, 3.0];
        gelu::gelu_tanh(isa, &mut x);
        // torch.nn.functional.gelu(x, approximate="tanh")
        assert_close(
            isa.name(),
            &x,
            &[0.0, 0.841192, -0.158808, 2.9963627],
            1e-5,
            0.0,
        );
        let mut x = [1.0, 2.0, 3.0, f32::NEG_INFINITY];
        softmax::softmax(isa, &mut x);
        assert_close(
            isa.name(),
            &x,
            &[0.09003057, 0.24472847, 0.66524096, 0.0],
            1e-6,
            0.0,
        );
        let mut x = [3.0, 4.0];
        rms_norm::rms_norm_in_place(isa, &mut x, Some(&[1.0, 2.0]), 0.0);
        let rms = 12.5f32.sqrt();
        assert_close(isa.name(), &x, &[3.0 / rms, 8.0 / rms], 1e-6, 0.0);
        assert_eq!(
            elementwise::mean_and_deviation(isa, &[1.0, 3.0]),
            (2.0, 1.0)
        );
        assert_eq!(elementwise::mean_and_deviation(isa, &[]), (0.0, 0.0));
        // A quarter turn takes (1, 2) to (-2, 1).
        let mut x = [1.0, 2.0];
        rope::rope(isa, &mut x, &[0.0], &[1.0]);
        assert_eq!(x, [-2.0, 1.0]);
    }
}

/// Sums of n products of size 1 in single precision, many partial sums: see `products.rs`.
#[test]
fn sums() {
    let mut random = Random::new(10);
    for len in (0..=70).chain([127, 511, 512, 513, 1023, 1024, 1025, 2048, 16384]) {
        let (a, b) = (random.floats(len, 1.0), random.floats(len, 1.0));
        let tolerance = 2e-6 * (len as f32).sqrt();
        let all = |isa| {
            let (mean, deviation) = elementwise::mean_and_deviation(isa, &a);
            let (dot, sum) = (elementwise::dot(isa, &a, &b), elementwise::sum(isa, &a));
            [dot, sum, mean, deviation]
        };
        let reference = all(Isa::scalar());
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (wide_a, wide_b) = (wide(&a), wide(&b));
        let sum: f64 = wide_a.iter().sum();
        let dot: f64 = wide_a.iter().zip(&wide_b).map(|(a, b)| a * b).sum();
        let n = len.max(1) as f64;
        let squares: f64 = wide_a.iter().map(|a| (a - sum / n).powi(2)).sum();
        assert_close(
            &format!("{len}"),
            &reference,
            &[dot, sum, sum / n, (squares / n).sqrt()].map(|x| x as f32),
            1e-6,
            tolerance,
        );
        for isa in tuned() {
            assert_same(&format!("{isa} {len}"), &all(isa), &reference);
        }
    }
}

/// The sum of squares is off by a few units in the last place, its root by half of that, the products by one each.
#[test]
fn rms_norm_all_lengths() {
    let mut random = Random::new(11);
    for len in (0..=70).chain([256, 2048]) {
        for size in [1e-15, 1e-3, 1.0, 1e15] {
            let (x, weight) = (random.floats(len, size), random.floats(len, 2.0));
            let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            let root = (squares / len as f64 + f64::from(1e-6f32)).sqrt();
            for weight in [None, Some(&weight[..])] {
                let expected: Vec<f32> = (0..len)
                    .map(|i| {
                        let weight = weight.map_or(1.0, |weight| f64::from(weight[i]));
                        (f64::from(x[i]) / root * weight) as f32
                    })
                    .collect();
                let mut reference = vec![0.0; len];
                rms_norm::rms_norm(Isa::scalar(), &x, weight, 1e-6, &mut reference);
                assert_close(&format!("{len}"), &reference, &expected, 2e-6, 0.0);
                for isa in isas() {
                    let mut got = vec![0.0; len];
                    rms_norm::rms_norm(isa, &x, weight, 1e-6, &mut got);
                    assert_same(&format!("{isa} {len}"), &got, &reference);
                    let mut in_place = x.clone();
                    rms_norm::rms_norm_in_place(isa, &mut in_place, weight, 1e-6);
                    assert_same(&format!("{isa} {len}"), &in_place, &reference);
                }
            }
        }
    }
}

/// Differences of up to 60 have a relative error of 6e-8, which the exponential makes 4e-6 of very small weights; the sum
/// adds a few roundings.
#[test]
fn softmax_all_lengths() {
    let mut random = Random::new(12);
    for len in (0..=70).chain([511, 513, 5000]) {
        for size in [0.1, 10.0, 30.0, 1e30] {
            let mut x = random.floats(len, size);
            x.iter_mut()
                .skip(1)
                .step_by(9)
                .for_each(|x| *x = f32::NEG_INFINITY);
            let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weight = |x: f32| (f64::from(x) - f64::from(max)).exp();
            let sum: f64 = x.iter().map(|&x| weight(x)).sum();
            let expected: Vec<f32> = x.iter().map(|&x| (weight(x) / sum) as f32).collect();
            let mut reference = x.clone();
            softmax::softmax(Isa::scalar(), &mut reference);
            assert_close(&format!("{len}"), &reference, &expected, 5e-6, 1e-37);
            for isa in tuned() {
                let mut got = x.clone();
                softmax::softmax(isa, &mut got);
                assert_same(&format!("{isa} {len}"), &got, &reference);
            }
        }
    }
    for isa in isas() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = vec![1.0; 37];
            x[5] = bad;
            softmax::softmax(isa, &mut x);
            assert!(x.iter().all(|x| x.is_nan()), "{isa} {bad}");
        }
        let mut masked = [f32::NEG_INFINITY; 3];
        softmax::softmax(isa, &mut masked);
        assert!(masked.iter().all(|x| x.is_nan()), "{isa}");
    }
}

/// Two products of size 1 and their sum: absolutely 2e-7, whatever cancels.
#[test]
fn rope_all_lengths() {
    let mut random = Random::new(13);
    for half in (1..=35).chain([128]) {
        let frequencies = rope::inverse_frequencies(1e4, 2 * half);
        let (mut cos, mut sin) = (vec![0.0; half], vec![0.0; half]);
        for (position, heads) in [(0, 1), (1, 2), (31000, 8)] {
            rope::cos_sin(position, &frequencies, &mut cos, &mut sin);
            let x = random.floats(heads * 2 * half, 1.0);
            let expected: Vec<f32> = (0..x.len())
                .map(|i| {
                    let j = i % half;
                    let angle = position as f64 * 1e4f64.powf(-(j as f64) / half as f64);
                    let first = i % (2 * half) < half;
                    let (other, sign) = if first {
                        (i + half, -1.0)
                    } else {
                        (i - half, 1.0)
                    };
                    let turned =
                        f64::from(x[i]) * angle.cos() + sign * f64::from(x[other]) * angle.sin();
                    turned as f32
                })
                .collect();
            let mut reference = x.clone();
            rope::rope(Isa::scalar(), &mut reference, &cos, &sin);
            assert_close(&format!("{half}"), &reference, &expected, 0.0, 2e-7);
            if position == 0 {
                assert_eq!(reference, x);
            }
            for isa in tuned() {
                let mut got = x.clone();
                rope::rope(isa, &mut got, &cos, &sin);
                assert_same(&format!("{isa} {half}"), &got, &reference);
            }
        }
    }
    // Turning keeps the length of each pair and depends on the difference of positions only.
    let frequencies = rope::inverse_frequencies(1e6, 64);
    let (q, k) = (random.floats(64, 1.0), random.floats(64, 1.0));
    let at = |x: &[f32], position: usize| {
        let (mut cos, mut sin, mut x) = (vec![0.0; 32], vec![0.0; 32], x.to_vec());
        rope::cos_sin(position, &frequencies, &mut cos, &mut sin);
        rope::rope(Isa::scalar(), &mut x, &cos, &sin);
        x
    };
    let near = elementwise::dot(Isa::scalar(), &at(&q, 7), &at(&k, 3));
    let far = elementwise::dot(Isa::scalar(), &at(&q, 20004), &at(&k, 20000));
    assert!((near - far).abs() < 1e-5, "{near} {far}");
}

/// The norm over channels with its ReLU: as in double precision, and the same bits on every instruction set.
#[test]
fn norms_over_channels_agree() {
    let mut random = Random::new(12);
    for channels in [1, 3, 8, 16, 31, 32, 128, 700] {
        for size in [0.0, 1e-4, 3.0] {
            let x: Vec<f32> = random
                .floats(5 * channels, size)
                .iter()
                .map(|x| x + size)
                .collect();
            let weight = random.floats(channels, 2.0);
            let mut reference = x.clone();
            layer_norm::layer_norm_relu(Isa::scalar(), &mut reference, &weight, 1e-6);
            let mut exact = Vec::new();
            for x in x.chunks(channels) {
                let wide = |&x: &f32| f64::from(x);
                let mean = x.iter().map(wide).sum::<f64>() / channels as f64;
                let squares = x.iter().map(|x| (wide(x) - mean).powi(2)).sum::<f64>();
                let factor = 1.0 / (squares / channels as f64 + 1e-6).sqrt();
                let normed = x.iter().zip(&weight);
                let normed = normed.map(|(x, w)| (wide(x) - mean) * factor * wide(w));
                exact.extend(normed.map(|x| x.max(0.0) as f32));
            }
            let what = format!("{channels} channels of {size}");
            assert_close(&what, &reference, &exact, 1e-5, 1e-5);
            for isa in tuned() {
                let mut got = x.clone();
                layer_norm::layer_norm_relu(isa, &mut got, &weight, 1e-6);
                assert_same(&format!("{isa} {what}"), &got, &reference);
            }
        }
    }
    let mut not_a_number = [1.0, f32::NAN, 2.0, 1.0, 2.0, 3.0];
    for isa in isas() {
        layer_norm::layer_norm_relu(isa, &mut not_a_number, &[1.0; 3], 1e-6);
        assert!(not_a_number[..3].iter().all(|x| x.is_nan()));
        assert!(not_a_number[3..].iter().all(|x| x.is_finite()));
    }
}
