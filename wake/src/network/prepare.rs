//! Each operator's shapes and numbers, checked and made ready.

use super::ModelError;
use super::bound::Bound;
use super::copy::{self, Run};
use super::file::{Kind, Tensor};
use super::flatbuffer::Table;
use super::product::{Factor, Geometry, Product, Rounding, Sums};

/// A box of a larger tensor that is another tensor.
pub(super) struct Place {
    shape: Vec<usize>,
    start: Vec<usize>,
    size: Vec<usize>,
}

impl Place {
    pub(super) fn runs(&self) -> usize {
        copy::count(&self.shape, &self.size)
    }

    pub(super) fn taken(&self) -> Vec<Run> {
        copy::taken(&self.shape, &self.start, &self.size)
    }

    pub(super) fn put(&self) -> Vec<Run> {
        copy::put(&self.shape, &self.start, &self.size)
    }
}

fn options<'a>(bound: &Bound<'_, 'a>) -> Result<Table<'a>, ModelError> {
    let options = bound.node.options;
    options.ok_or_else(|| bound.wrong("has no options"))
}

/// Numbers that are only moved mean the same before and after.
pub(super) fn same_meaning(
    bound: &Bound<'_, '_>,
    from: &Tensor<'_>,
    to: &Tensor<'_>,
) -> Result<(), ModelError> {
    if bound.meaning(from)? != bound.meaning(to)? {
        return Err(bound.wrong("what goes in is quantised otherwise than what comes out"));
    }
    Ok(())
}

fn axis(bound: &Bound<'_, '_>, axis: i32, rank: usize) -> Result<usize, ModelError> {
    let axis = if axis < 0 { axis + rank as i32 } else { axis };
    let axis = usize::try_from(axis).ok().filter(|&axis| axis < rank);
    axis.ok_or_else(|| bound.wrong("its axis is none of the tensor's"))
}

/// Where the parts lie along one axis of a whole.
fn along<'g, 'a: 'g>(
    bound: &Bound<'_, '_>,
    whole: &Tensor<'_>,
    axis: usize,
    parts: impl Iterator<Item = Result<&'g Tensor<'a>, ModelError>>,
) -> Result<Vec<Place>, ModelError> {
    let mut places = Vec::new();
    let mut at = 0;
    for part in parts {
        let part = part?;
        same_meaning(bound, whole, part)?;
        let mut size = whole.shape.clone();
        size[axis] = part.shape.get(axis).copied().unwrap_or(0);
        if size != part.shape || size.contains(&0) {
            return Err(bound.wrong("its parts do not fit together"));
        }
        let mut start = vec![0; size.len()];
        start[axis] = at;
        at += size[axis];
        places.push(Place {
            shape: whole.shape.clone(),
            start,
            size,
        });
    }
    if at != whole.shape[axis] {
        return Err(bound.wrong("its parts are not the whole"));
    }
    Ok(places)
}

pub(super) fn concatenation(bound: &Bound<'_, '_>) -> Result<Vec<Place>, ModelError> {
    let options = options(bound)?;
    if options.u8(1, 0)? != 0 {
        return Err(bound.wrong("has an activation"));
    }
    let whole = bound.output(0)?;
    let axis = axis(bound, options.i32(0, 0)?, whole.shape.len())?;
    let parts = (0..bound.node.inputs.len()).map(|i| bound.input(i));
    along(bound, whole, axis, parts)
}

/// Its sizes (input 1) are those of its outputs, which are looked at instead.
pub(super) fn split(bound: &Bound<'_, '_>) -> Result<Vec<Place>, ModelError> {
    let whole = bound.input(0)?;
    let [number] = bound.constant(2)?[..] else {
        return Err(bound.wrong("has not one axis"));
    };
    let axis = axis(bound, number, whole.shape.len())?;
    let parts = (0..bound.node.outputs.len()).map(|i| bound.output(i));
    along(bound, whole, axis, parts)
}

pub(super) fn strided_slice(bound: &Bound<'_, '_>) -> Result<Place, ModelError> {
    let options = options(bound)?;
    let (from, to) = (bound.input(0)?, bound.output(0)?);
    same_meaning(bound, from, to)?;
    let (begin, end, stride) = (bound.constant(1)?, bound.constant(2)?, bound.constant(3)?);
    let (begin_mask, end_mask) = (options.i32(0, 0)?, options.i32(1, 0)?);
    for mask in 2..5 {
        if options.i32(mask, 0)? != 0 {
            return Err(bound.wrong("adds or takes away dimensions"));
        }
    }
    let rank = from.shape.len();
    if [begin.len(), end.len(), stride.len()] != [rank; 3] || stride.iter().any(|&by| by != 1) {
        return Err(bound.wrong("takes other than what lies together"));
    }
    let place = |i: usize, at: i32| {
        let length = from.shape[i] as i64;
        let at = i64::from(at);
        (if at < 0 { at + length } else { at }).clamp(0, length) as usize
    };
    let masked = |mask: i32, i: usize| mask >> i & 1 == 1;
    let (mut start, mut size) = (vec![0; rank], from.shape.clone());
    for i in 0..rank {
        if !masked(begin_mask, i) {
            start[i] = place(i, begin[i]);
        }
        let end = if masked(end_mask, i) {
            from.shape[i]
        } else {
            place(i, end[i])
        };
        size[i] = end.saturating_sub(start[i]);
    }
    if size != to.shape || size.contains(&0) {
        return Err(bound.wrong("takes another shape than its output has"));
    }
    Ok(Place {
        shape: from.shape.clone(),
        start,
        size,
    })
}

/// What each of the 256 numbers becomes.
fn table(each: impl Fn(f32) -> f32) -> Box<[i8; 256]> {
    Box::new(core::array::from_fn(|i| {
        each(i as f32 - 128.0)
            .round_ties_even()
            .clamp(-128.0, 127.0) as i8
    }))
}

pub(super) fn logistic(bound: &Bound<'_, '_>) -> Result<Box<[i8; 256]>, ModelError> {
    let from = bound.meaning(bound.input(0)?)?;
    let to = bound.meaning(bound.output(0)?)?;
    Ok(table(|x| {
        let x = (x - from.zero_point as f32) * from.scale;
        1.0 / (1.0 + libm::expf(-x)) / to.scale + to.zero_point as f32
    }))
}

pub(super) fn quantize(bound: &Bound<'_, '_>) -> Result<Box<[i8; 256]>, ModelError> {
    let from = bound.meaning(bound.input(0)?)?;
    let to = bound.meaning(bound.output(0)?)?;
    Ok(table(|x| {
        (x - from.zero_point as f32) * (from.scale / to.scale) + to.zero_point as f32
    }))
}

/// Channels of a depthwise convolution that are computed together.
const LANES: usize = 8;

/// Weights and biases of an operator, and how its sums are rounded.
fn product(
    bound: &Bound<'_, '_>,
    geometry: Geometry,
    sums: Sums,
    activation: u8,
) -> Result<Product, ModelError> {
    let (weights, output) = (bound.input(1)?, bound.output(0)?);
    let from = bound.meaning(bound.input(0)?)?;
    let to = bound.meaning(output)?;
    let channels = output.shape.last().copied().unwrap_or(0);
    let fits = weights.kind == Kind::Int8
        && weights.zero_point == 0
        && !weights.data.is_empty()
        && weights.scales.iter().all(|x| x.is_normal() && *x > 0.0);
    let (Kind::Int8, Kind::Int8, true) = (bound.input(0)?.kind, output.kind, fits) else {
        return Err(bound.wrong("has other weights than constants of 8 bits with a scale"));
    };
    let scales: Vec<f32> = match weights.scales[..] {
        [scale] => vec![scale; channels],
        ref scales if scales.len() == channels => scales.to_vec(),
        _ => return Err(bound.wrong("has not a scale for each output channel")),
    };
    let factor = |scale: &f32| f64::from(from.scale) * f64::from(*scale) / f64::from(to.scale);
    if !scales
        .iter()
        .all(|scale| factor(scale) < f64::from(1 << 16))
    {
        return Err(bound.wrong("its scales do not go together"));
    }
    let weights: Vec<i8> = weights.data.iter().map(|x| *x as i8).collect();
    let mut bias = match bound.node.inputs.get(2) {
        None | Some(-1) => vec![0; channels],
        Some(_) => bound.constant(2)?,
    };
    if bias.len() != channels {
        return Err(bound.wrong("has not a bias for each output channel"));
    }
    for (i, weight) in weights.iter().enumerate() {
        let channel = match sums {
            Sums::All => i / geometry.patch(),
            Sums::OwnChannel(_) => i % channels,
        };
        bias[channel] = bias[channel].wrapping_sub(from.zero_point * i32::from(*weight));
    }
    // TensorFlow Lite computes depthwise convolutions eight channels at a time, and rounds those that are left over otherwise.
    let away = |i: usize| matches!(sums, Sums::OwnChannel(_)) && i >= channels / LANES * LANES;
    let at = |x: f32| (x / to.scale).round_ties_even() as i32;
    let within = |x: i32| x.saturating_add(to.zero_point).clamp(-128, 127);
    let (lowest, highest) = match activation {
        0 => (-128, 127),
        1 => (within(0), 127),
        2 => (within(at(-1.0)), within(at(1.0))),
        3 => (within(0), within(at(6.0))),
        _ => return Err(bound.wrong("has an activation that is not computed")),
    };
    Ok(Product {
        geometry,
        sums,
        weights,
        bias,
        nothing: from.zero_point as i8,
        rounding: Rounding {
            factors: scales
                .iter()
                .enumerate()
                .map(|(i, scale)| Factor::new(factor(scale), away(i)))
                .collect(),
            zero_point: to.zero_point,
            lowest,
            highest,
        },
    })
}

/// Along one axis: how many places an output has, and what stands before the input.
fn reach(
    bound: &Bound<'_, '_>,
    same: bool,
    [input, kernel, stride, dilation]: [usize; 4],
) -> Result<(usize, usize), ModelError> {
    if input == 0 || kernel == 0 || stride == 0 || dilation == 0 {
        return Err(bound.wrong("has a length of 0"));
    }
    let reach = dilation.saturating_mul(kernel - 1).saturating_add(1);
    if same {
        let output = input.div_ceil(stride);
        let needed = ((output - 1) * stride).saturating_add(reach);
        return Ok((output, needed.saturating_sub(input) / 2));
    }
    let room = input.checked_sub(reach);
    let room = room.ok_or_else(|| bound.wrong("looks at more than there is"))?;
    Ok((room / stride + 1, 0))
}

/// The numbers of a convolution's options: of padding, of strides and of dilations, width before height.
struct Fields {
    strides: [usize; 2],
    dilations: [usize; 2],
}

fn geometry(
    bound: &Bound<'_, '_>,
    options: Table<'_>,
    fields: &Fields,
) -> Result<Geometry, ModelError> {
    let (from, kernel, to) = (bound.input(0)?, bound.input(1)?, bound.output(0)?);
    let (&[1, height, width, channels], &[_, kernel_height, kernel_width, _], &[1, _, _, _]) =
        (&from.shape[..], &kernel.shape[..], &to.shape[..])
    else {
        return Err(bound.wrong("has other shapes than 1 x height x width x channels"));
    };
    let number = |field: usize| {
        let number = usize::try_from(options.i32(field, 1)?).unwrap_or(0);
        Ok::<usize, ModelError>(number.min(1 << 16))
    };
    let same = options.u8(0, 0)? == 0;
    let stride = [number(fields.strides[1])?, number(fields.strides[0])?];
    let dilation = [number(fields.dilations[1])?, number(fields.dilations[0])?];
    let (rows, above) = reach(bound, same, [height, kernel_height, stride[0], dilation[0]])?;
    let (columns, left) = reach(bound, same, [width, kernel_width, stride[1], dilation[1]])?;
    if to.shape[..3] != [1, rows, columns] || channels == 0 {
        return Err(bound.wrong("its output has another size than it computes"));
    }
    Ok(Geometry {
        input: [height, width],
        channels,
        kernel: [kernel_height, kernel_width],
        stride,
        dilation,
        padding: [above, left],
        output: [rows, columns],
    })
}

pub(super) fn conv_2d(bound: &Bound<'_, '_>) -> Result<Product, ModelError> {
    let options = options(bound)?;
    let fields = Fields {
        strides: [1, 2],
        dilations: [4, 5],
    };
    let geometry = geometry(bound, options, &fields)?;
    let (weights, to) = (bound.input(1)?, bound.output(0)?);
    if weights.shape[0] != to.shape[3] || weights.shape[3] != geometry.channels {
        return Err(bound.wrong("its weights do not fit input and output"));
    }
    product(bound, geometry, Sums::All, options.u8(3, 0)?)
}

pub(super) fn depthwise_conv_2d(bound: &Bound<'_, '_>) -> Result<Product, ModelError> {
    let options = options(bound)?;
    let fields = Fields {
        strides: [1, 2],
        dilations: [5, 6],
    };
    let geometry = geometry(bound, options, &fields)?;
    let (weights, to) = (bound.input(1)?, bound.output(0)?);
    let each = to.shape[3] / geometry.channels;
    if weights.shape[0] != 1
        || weights.shape[3] != to.shape[3]
        || each * geometry.channels != to.shape[3]
        || each == 0
    {
        return Err(bound.wrong("its weights do not fit input and output"));
    }
    product(bound, geometry, Sums::OwnChannel(each), options.u8(4, 0)?)
}

pub(super) fn fully_connected(bound: &Bound<'_, '_>) -> Result<Product, ModelError> {
    let options = options(bound)?;
    if options.u8(1, 0)? != 0 {
        return Err(bound.wrong("has weights in another order"));
    }
    let (from, weights, to) = (bound.input(0)?, bound.input(1)?, bound.output(0)?);
    let &[outputs, inputs] = &weights.shape[..] else {
        return Err(bound.wrong("has weights of other than 2 dimensions"));
    };
    if inputs == 0 || from.elements() != inputs || to.elements() != outputs {
        return Err(bound.wrong("its weights do not fit input and output"));
    }
    if to.shape.last() != Some(&outputs) {
        return Err(bound.wrong("has several rows"));
    }
    let geometry = Geometry {
        input: [1, 1],
        channels: inputs,
        kernel: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [0, 0],
        output: [1, 1],
    };
    product(bound, geometry, Sums::All, options.u8(0, 0)?)
}
