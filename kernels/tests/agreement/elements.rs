//! Element-wise functions, sums, norms, softmax and rotary embedding.

use kernels::{Isa, elementwise, gelu, rms_norm, rope, softmax};

use crate::common::{Random, assert_close, isas, tuned};

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
/// values, and compares with the reference.
fn check(name: &str, relative: f32, absolute: f32, f: impl Fn(Isa, &mut [f32])) {
    let mut random = Random::new(7);
    let mut inputs: Vec<Vec<f32>> = (0..=70)
        .chain([2048])
        .map(|len| random.floats(len, 3.0))
        .collect();
    inputs.extend([0.01, 1.0, 10.0, 100.0].map(|size| random.floats(4096, size)));
    inputs.push(SPECIAL.to_vec());
    for isa in tuned() {
        for input in &inputs {
            let (mut got, mut expected) = (input.clone(), input.clone());
            f(isa, &mut got);
            f(Isa::scalar(), &mut expected);
            assert_close(
                &format!("{name} {isa} {}", input.len()),
                &got,
                &expected,
                relative,
                absolute,
            );
        }
    }
}

/// One rounding on both sides: equal to the bit.
#[test]
fn plain_arithmetic() {
    let y = Random::new(8).floats(4096, 2.0);
    check("add", 0.0, 0.0, |isa, x| {
        elementwise::add(isa, x, &y[..x.len()])
    });
    check("mul", 0.0, 0.0, |isa, x| {
        elementwise::mul(isa, x, &y[..x.len()])
    });
    check("scale", 0.0, 0.0, |isa, x| elementwise::scale(isa, x, 1.7));
    check("scale_add", 0.0, 0.0, |isa, x| {
        elementwise::scale_add(isa, x, -0.7, &y[..x.len()])
    });
    check("excess", 0.0, 0.0, |isa, x| {
        elementwise::excess(isa, x, 0.4)
    });
}

/// The exponential is off by two units in the last place (2.4e-7), the division and the argument's own rounding add as
/// much again. Where `e^-x` overflows, at x = -88.7, sigmoid and silu become 0 instead of up to 3e-37.
#[test]
fn activations() {
    check("sigmoid", 1e-6, 3e-37, elementwise::sigmoid);
    check("silu", 1e-6, 3e-37, elementwise::silu);
    check("tanh", 5e-7, 1e-44, elementwise::tanh);
    check("soft_cap", 5e-7, 1e-43, |isa, x| {
        elementwise::soft_cap(isa, x, 30.0)
    });
}

/// In the negative tail the exponent is up to 100 and has a relative error of 6e-8 itself, which the exponential makes
/// an error of the result: 1e-5 of numbers below 1e-20, where the absolute tolerance covers all that matters.
#[test]
fn gelu_tanh() {
    let up = Random::new(9).floats(4096, 2.0);
    check("gelu_tanh", 1e-6, 1e-9, gelu::gelu_tanh);
    check("gelu_tanh_mul", 1e-6, 1e-9, |isa, x| {
        gelu::gelu_tanh_mul(isa, x, &up[..x.len()])
    });
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
    for len in (0..=70).chain([127, 2048, 16384]) {
        let (a, b) = (random.floats(len, 1.0), random.floats(len, 1.0));
        let tolerance = 2e-6 * (len as f32).sqrt();
        let scalar = Isa::scalar();
        for isa in tuned() {
            let what = format!("{isa} {len}");
            let got = [elementwise::dot(isa, &a, &b), elementwise::sum(isa, &a)];
            let expected = [
                elementwise::dot(scalar, &a, &b),
                elementwise::sum(scalar, &a),
            ];
            assert_close(&what, &got, &expected, 0.0, tolerance);
            let got = elementwise::mean_and_deviation(isa, &a);
            let expected = elementwise::mean_and_deviation(scalar, &a);
            assert_close(
                &what,
                &[got.0, got.1],
                &[expected.0, expected.1],
                1e-6,
                1e-6,
            );
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
            for weight in [None, Some(&weight[..])] {
                let (mut got, mut expected) = (vec![0.0; len], vec![0.0; len]);
                rms_norm::rms_norm(Isa::scalar(), &x, weight, 1e-6, &mut expected);
                for isa in tuned() {
                    rms_norm::rms_norm(isa, &x, weight, 1e-6, &mut got);
                    assert_close(&format!("{isa} {len}"), &got, &expected, 2e-6, 0.0);
                    let mut in_place = x.clone();
                    rms_norm::rms_norm_in_place(isa, &mut in_place, weight, 1e-6);
                    assert_eq!(in_place, got);
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
    for len in (0..=70).chain([512, 5000]) {
        for size in [0.1, 10.0, 30.0, 1e30] {
            let mut x = random.floats(len, size);
            x.iter_mut()
                .skip(1)
                .step_by(9)
                .for_each(|x| *x = f32::NEG_INFINITY);
            let mut expected = x.clone();
            softmax::softmax(Isa::scalar(), &mut expected);
            for isa in tuned() {
                let mut got = x.clone();
                softmax::softmax(isa, &mut got);
                assert_close(&format!("{isa} {len}"), &got, &expected, 5e-6, 1e-37);
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
            let mut expected = x.clone();
            rope::rope(Isa::scalar(), &mut expected, &cos, &sin);
            if position == 0 {
                assert_eq!(expected, x);
            }
            for isa in tuned() {
                let mut got = x.clone();
                rope::rope(isa, &mut got, &cos, &sin);
                assert_close(&format!("{isa} {half}"), &got, &expected, 0.0, 2e-7);
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
