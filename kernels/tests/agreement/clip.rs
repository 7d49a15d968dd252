//! Clipped linear layers: on every instruction set what clamping, multiplying and clamping give one after the other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use half::bf16;
use kernels::matmul::{clipped_matmul, matmul_in_any_order};
use kernels::quant::{Q8Activations, Quantized};
use kernels::quantized::{matmul, matvec, quantize_activations, quantize_within};
use kernels::{Bounds, Clip, Isa, Matrix, Pool};

use crate::common::{Random, assert_close, assert_same, isas};
use crate::quant_formats::{FORMATS, SHAPES, quantized_bytes, scalar, vector};

fn pools() -> Vec<Pool> {
    let each = |isa: Isa| [1, 3].map(|threads| Pool::new(isa, threads));
    isas().into_iter().flat_map(each).collect()
}

/// The clamp as torch has it: a NaN stays one.
fn clamped(x: &[f32], (min, max): (f32, f32)) -> Vec<f32> {
    let clamp = |&x: &f32| if x.is_nan() { x } else { x.clamp(min, max) };
    x.iter().map(clamp).collect()
}

/// What cuts off much, one side only, everything, nothing; zero among the bounds, with the sign that it is given.
const INTERVALS: [(f32, f32); 6] = [
    (-1.5, 1.25),
    (-0.0, 3.0),
    (-2.0, 0.0),
    (0.5, 0.5),
    (f32::NEG_INFINITY, 0.75),
    (f32::NEG_INFINITY, f32::INFINITY),
];

fn clips() -> impl Iterator<Item = ((f32, f32), (f32, f32), Clip)> {
    let pairs = INTERVALS.into_iter().zip(INTERVALS.into_iter().rev());
    pairs.map(|(input, output)| {
        let bounds = |(min, max)| Bounds::new(min, max).unwrap();
        let clip = Clip {
            input: bounds(input),
            output: bounds(output),
        };
        (input, output, clip)
    })
}

#[test]
fn numbers_are_cut_off_as_the_reference_does() {
    let mut random = Random::new(70);
    for interval @ (min, max) in INTERVALS {
        let bounds = Bounds::new(min, max).unwrap();
        assert_eq!(bounds.is_none(), min == -max && max == f32::INFINITY);
        for len in (0..=70).chain([1024]) {
            let mut x = random.floats(len, 3.0);
            for (x, special) in x.iter_mut().step_by(5).zip([
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                0.0,
                -0.0,
                max,
                min,
            ]) {
                *x = special;
            }
            let mut reference = x.clone();
            bounds.clamp(Isa::scalar(), &mut reference);
            assert_close("clamp", &reference, &clamped(&x, interval), 0.0, 0.0);
            for isa in isas() {
                let mut got = x.clone();
                bounds.clamp(isa, &mut got);
                assert_same(&format!("{isa} {interval:?} {len}"), &got, &reference);
            }
        }
    }
}

#[test]
fn no_interval_is_none() {
    for (min, max) in [
        (1.0, 0.0),
        (f32::NAN, 1.0),
        (-1.0, f32::NAN),
        (0.1, -0.1),
        (f32::INFINITY, f32::NEG_INFINITY),
    ] {
        assert_eq!(Bounds::new(min, max), None, "{min} {max}");
    }
    assert_eq!(
        Bounds::new(f32::NEG_INFINITY, f32::INFINITY),
        Some(Bounds::NONE)
    );
}

/// Integers are multiplied in the same order everywhere, so the bits are those of the scalar twin step by step.
#[test]
fn quantised_layers_agree_bit_by_bit() {
    let mut random = Random::new(71);
    let mut tokens = [1, 2, 5, 12, 33, 130].into_iter().cycle();
    for format in FORMATS {
        for ((rows, cols), (input, output, clip)) in SHAPES.into_iter().zip(clips().chain(clips()))
        {
            let tokens = tokens.next().unwrap();
            let bytes =
                quantized_bytes(format, &vector(&mut random, rows * cols, 0.05), rows, cols);
            let quantized = Quantized::new(format, &bytes, rows, cols).unwrap();
            let w = Matrix::quantized(quantized);
            let x = vector(&mut random, tokens * cols, 3.0);
            let mut expected = vec![f32::NAN; tokens * rows];
            let cut = clamped(&x, input);
            matmul_in_any_order(&scalar(), w, &cut, tokens, &mut expected);
            let expected = clamped(&expected, output);
            for pool in pools() {
                let what = format!("{} {format:?} {rows}x{cols} by {tokens}", pool.isa());
                let mut got = vec![f32::NAN; tokens * rows];
                clipped_matmul(&pool, w, clip, &x, tokens, &mut got);
                assert_same(&what, &got, &expected);
                if !format.is_tiled() {
                    continue;
                }
                let mut q = Q8Activations::new();
                quantize_within(&pool, &x, tokens, cols, clip.input, &mut q);
                got.fill(f32::NAN);
                match tokens {
                    1 => matvec::matvec_within(&pool, quantized, &q, clip.output, &mut got),
                    _ => matmul::matmul_within(&pool, quantized, &q, clip.output, &mut got),
                }
                assert_same(&what, &got, &expected);
                quantize_activations(&pool, &cut, tokens, cols, &mut q);
                got.fill(f32::NAN);
                match tokens {
                    1 => matvec::matvec(&pool, quantized, &q, &mut got),
                    _ => matmul::matmul(&pool, quantized, &q, &mut got),
                }
                assert_same(&what, &clamped(&got, output), &expected);
            }
        }
    }
}

/// Few tokens, enough to be packed, enough for the `gemm` crate, more than a tile; columns beyond a block.
#[test]
fn layers_of_floats_agree() {
    let mut random = Random::new(72);
    for (input, output, clip) in clips() {
        for (rows, cols, tokens) in [
            (5, 7, 0),
            (5, 0, 3),
            (40, 700, 1),
            (40, 700, 7),
            (33, 600, 17),
            (150, 530, 40),
            (9, 520, 290),
        ] {
            let numbers = random.floats(rows * cols, 0.3);
            let narrow: Vec<bf16> = numbers.iter().map(|&x| bf16::from_f32(x)).collect();
            let x = vector(&mut random, tokens * cols, 2.0);
            for w in [
                Matrix::f32(&numbers, rows, cols),
                Matrix::bf16(&narrow, rows, cols),
            ] {
                let mut product = vec![f32::NAN; tokens * rows];
                matmul_in_any_order(&scalar(), w, &clamped(&x, input), tokens, &mut product);
                let expected = clamped(&product, output);
                for pool in pools() {
                    let what = format!("{} {rows}x{cols} by {tokens}", pool.isa());
                    let mut got = vec![f32::NAN; tokens * rows];
                    clipped_matmul(&pool, w, clip, &x, tokens, &mut got);
                    assert_close(&what, &got, &expected, 1e-5, 1e-4);
                    let inside = |y: &f32| *y >= output.0 && *y <= output.1;
                    assert!(got.iter().all(inside), "{what}");
                    if tokens < 16 {
                        assert_same(&what, &got, &expected);
                    }
                }
            }
        }
    }
}
