//! Clipped linear layers as checkpoints have them: which bounds are found beside a matrix, and what is said where they are none.

use std::collections::HashMap;
use std::path::Path;

use gemmad::model::clipped_linear::ClippedLinear;
use gemmad::model::weights::{Checkpoint, Group, WeightsError};
use half::bf16;
use kernels::{Bounds, Clip, Isa, Pool};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const LAYER: &str = "model.audio_tower.layers.0.self_attn.q_proj";

/// A number beside the matrix: its name, its type and shape, its value.
type Bound<'a> = (&'a str, Dtype, &'a [usize], f32);

/// A checkpoint of the matrix `[[1, 2, 3], [-1, 0, 1]]` and these numbers, loaded.
fn load(dir: &Path, matrix: &str, bounds: &[Bound<'_>]) -> Result<Layer, WeightsError> {
    let bytes = |dtype: Dtype, values: &[f32]| -> Vec<u8> {
        let narrow = |&x: &f32| bf16::from_f32(x).to_le_bytes();
        match dtype {
            Dtype::BF16 => values.iter().flat_map(narrow).collect(),
            _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    };
    let mut all = vec![(
        format!("{LAYER}.{matrix}"),
        Dtype::BF16,
        vec![2, 3],
        bytes(Dtype::BF16, &[1.0, 2.0, 3.0, -1.0, 0.0, 1.0]),
    )];
    all.extend(bounds.iter().map(|&(name, dtype, shape, value)| {
        let count = shape.iter().product();
        let name = format!("{LAYER}.{name}");
        (
            name,
            dtype,
            shape.to_vec(),
            bytes(dtype, &vec![value; count]),
        )
    }));
    let views: HashMap<&str, TensorView<'_>> = all
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            (name.as_str(), view)
        })
        .collect();
    let file = dir.join("model.safetensors");
    std::fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
    let weights = Checkpoint::open(dir)?.load(Group::Audio)?;
    let linear = ClippedLinear::load(&weights, &format!("{LAYER}.{matrix}"), 2, 3)?;
    let y = |tokens: usize| {
        let x = [1.0, -1.0, 4.0].repeat(tokens);
        let mut y = vec![f32::NAN; tokens * linear.rows()];
        linear.forward(&Pool::new(Isa::best(), 1), &weights, &x, &mut y);
        y
    };
    Ok(Layer {
        clip: linear.clip(),
        one: y(1),
        three: y(3),
    })
}

#[derive(Debug)]
struct Layer {
    clip: Clip,
    one: Vec<f32>,
    three: Vec<f32>,
}

#[test]
fn bounds_stand_beside_the_matrix() {
    let dir = tempfile::tempdir().unwrap();
    let layer = load(
        dir.path(),
        "linear.weight",
        &[
            ("input_min", Dtype::BF16, &[], -0.5),
            ("input_max", Dtype::BF16, &[1], 2.0),
            ("output_min", Dtype::F32, &[], -3.0),
            ("output_max", Dtype::F32, &[1], 4.5),
        ],
    )
    .unwrap();
    assert_eq!(layer.clip.input, Bounds::new(-0.5, 2.0).unwrap());
    assert_eq!(layer.clip.output, Bounds::new(-3.0, 4.5).unwrap());
    // Of [1, -0.5, 2], which gives [6, 1].
    assert_eq!(layer.one, [4.5, 1.0]);
    assert_eq!(layer.three, [4.5, 1.0, 4.5, 1.0, 4.5, 1.0]);
}

#[test]
fn without_bounds_nothing_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    for matrix in ["linear.weight", "weight"] {
        let layer = load(dir.path(), matrix, &[]).unwrap();
        assert_eq!((layer.clip, layer.one), (Clip::NONE, vec![11.0, 3.0]));
    }
}

#[test]
fn bounds_that_bound_nothing_are_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = |values: [f32; 4], shape: &'static [usize]| {
        ["input_min", "input_max", "output_min", "output_max"]
            .into_iter()
            .zip(values)
            .map(move |(name, value)| (name, Dtype::BF16, shape, value))
            .collect::<Vec<_>>()
    };
    let mut without_one = bounds([-1.0, 1.0, -1.0, 1.0], &[]);
    without_one.remove(3);
    let cases = [
        (
            without_one,
            vec!["q_proj.input_min", "q_proj.output_max is not", "all four"],
        ),
        (
            bounds([-1.0, f32::NAN, -1.0, 1.0], &[]),
            vec!["q_proj.input_max is not a number"],
        ),
        (
            bounds([-1.0, 1.0, f32::NAN, 1.0], &[]),
            vec!["q_proj.output_min is not a number"],
        ),
        (
            bounds([-1.0, 1.0, 2.0, -2.0], &[]),
            vec![
                "q_proj.output_min is 2, beyond",
                "q_proj.output_max, which is -2",
            ],
        ),
        (
            bounds([-1.0, 1.0, -2.0, 2.0], &[2]),
            vec!["q_proj.input_min has shape [2]", "1 elements"],
        ),
    ];
    for (bounds, expected) in cases {
        let error = load(dir.path(), "linear.weight", &bounds).unwrap_err();
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        assert!(line.contains("model.safetensors"), "{line}");
        for part in expected {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}
